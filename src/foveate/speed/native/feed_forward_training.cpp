// FViT's feed-forward in training, as feed_forward.py calls it for all but few pixels: each picture by one thread, while its hidden map is
// in the cache.

#include "branch.h"

namespace {

constexpr int ROWS = 192;                      // about, that go through the products together: pictures of small maps are taken together
constexpr std::size_t SMALL_WEIGHT = 1 << 17;  // numbers; of larger weights' gradients there is one for each thread

// In how many parts the pictures go through the products: as many for every thread.
int tasks_of(const Branch& of, int threads) {
    const int together = static_cast<int>((ROWS + of.pixels - 1) / of.pixels), least = (of.pictures + together - 1) / together;
    return std::min((least + threads - 1) / threads * threads, of.pictures);
}

void add_part(const float* part, std::size_t count, float* to, int threads) {
    share_rows(count / LANES, threads, [&](int, std::int64_t first, std::int64_t last) {
        for (std::int64_t at = first * LANES; at < last * LANES; at += LANES) add(to + at, load(part + at));
    });
}

}  // namespace

// `y = r + factor kept (fc2(filters(fc1(normal))) + bias)`; what enters the filters is left in `entering`. `rows` (hidden, C) and
// `columns` (C, hidden) are the weights of the products, the rest as `Branch` takes it.
extern "C" void feed_forward(const float* normal, const float* r, float* entering, float* y, const std::int64_t* sizes, const float* rows,
                             const float* columns, const float* const* weights, const float* bias, const std::int64_t* dropped,
                             const float* scales, const float* factors, int threads) {
    static thread_local Scratch scratch[3];
    const Branch of(sizes, weights, dropped, scales, factors, scratch[0]);
    const Right fc1{rows, of.channels, of.hidden, true}, fc2{columns, of.hidden, of.channels, true};
    const Panels first(fc1, scratch[1], threads), second(fc2, scratch[2], threads);
    const int tasks = tasks_of(of, threads);
    share(tasks, threads, [&](int task) {
        static thread_local Scratch own;
        Scratch once;
        const int begin = of.pictures * task / tasks, end = of.pictures * (task + 1) / tasks;
        const std::size_t pixel = begin * of.pixels, at = pixel * of.hidden, pixels = (end - begin) * of.pixels;
        float* leaving = room(own, once, pixels * of.hidden);
        first.multiply_rows(normal + pixel * of.channels, pixels, entering + at, false);
        for (int picture = begin; picture < end; ++picture) {
            const std::size_t here = (picture - begin) * of.pixels * of.hidden;
            filter_picture({of.groups, entering + at + here, leaving + here, of.kept, of.start + at + here});
        }
        second.multiply_rows(leaving, pixels, y + pixel * of.channels, false);
        of.residual.add(r, y, bias, pixel, pixel + pixels);
    });
}

// From the gradient to y that to `normal`, and those to the weights: `to_rows` and `to_columns` (null for what is not wanted) are
// overwritten, to the filters' and the bias it is added.
extern "C" void feed_back(const float* gradient, const float* normal, const float* entering, float* to_normal, const std::int64_t* sizes,
                          const float* rows, const float* columns, const float* const* weights, const std::int64_t* dropped,
                          const float* scales, const float* factors, float* to_rows, float* to_columns, float* const* gradients,
                          float* to_bias, int threads) {
    static thread_local Scratch scratch[6];
    const Branch of(sizes, weights, dropped, scales, factors, scratch[0]);
    const Right fc2{columns, of.channels, of.hidden, false}, fc1{rows, of.hidden, of.channels, false};
    const Panels first(fc2, scratch[1], threads), second(fc1, scratch[2], threads);
    const int tasks = tasks_of(of, threads), stride = filled(of.channels);
    const int parts = std::min(tasks, of.weight > SMALL_WEIGHT ? threads : 4 * threads);
    const std::size_t count = sums_of(of.groups);
    float *sums = scratch[3].get(count * parts), *ends = scratch[4].get(static_cast<std::size_t>(stride) * parts);
    float* of_parts = scratch[5].get(2 * of.weight * (parts - 1));
    std::fill_n(sums, count * parts, 0.0f);
    std::fill_n(ends, static_cast<std::size_t>(stride) * parts, 0.0f);
    const auto gradient_of = [&](int part, float* to, int which) {
        return part && to ? of_parts + (2 * (part - 1) + which) * of.weight : to;
    };
    share(parts, threads, [&](int part) {
        static thread_local Scratch own[3];
        Scratch once[3];
        const std::size_t most = (of.pictures + tasks - 1) / tasks * of.pixels;
        float *outer = room(own[0], once[0], most * of.channels), *inner = room(own[1], once[1], most * of.hidden);
        float* leaving = room(own[2], once[2], most * of.hidden);
        for (int task = tasks * part / parts; task < tasks * (part + 1) / parts; ++task) {
            const int begin = of.pictures * task / tasks, end = of.pictures * (task + 1) / tasks;
            const std::size_t pixel = begin * of.pixels, at = pixel * of.hidden;
            const int pixels = static_cast<int>((end - begin) * of.pixels);
            of.residual.lead_back(gradient, outer, ends + part * stride, pixel, pixel + pixels);
            first.multiply_rows(outer, pixels, inner, false);
            for (int picture = begin; picture < end; ++picture) {
                const std::size_t here = (picture - begin) * of.pixels * of.hidden, place = at + here;
                filter_picture_back(
                    {of.groups, entering + place, inner + here, leaving + here, of.kept, of.start + place, sums + part * count});
            }
            second.multiply_rows(inner, pixels, to_normal + pixel * of.channels, false);
            const bool grows = task > tasks * part / parts;
            float *first_sum = gradient_of(part, to_rows, 0), *second_sum = gradient_of(part, to_columns, 1);
            add_turned(inner, of.hidden, normal + pixel * of.channels, pixels, of.hidden, of.channels, first_sum, grows);
            add_turned(outer, of.channels, leaving, pixels, of.channels, of.hidden, second_sum, grows);
        }
    });
    for (int part = 1; part < parts; ++part) {
        if (to_rows) add_part(gradient_of(part, to_rows, 0), of.weight, to_rows, threads);
        if (to_columns) add_part(gradient_of(part, to_columns, 1), of.weight, to_columns, threads);
    }
    collect(sums, parts, count);
    collect(ends, parts, stride);
    add_group_sums(of.groups, sums, gradients);
    add_sums(ends, 1, of.channels, stride, to_bias);
}
