// FViT's feed-forward in training with its matrix products, as feed_forward.py calls it: each picture by one thread, while its
// hidden map is in the cache, or few pixels by all threads together; float32 alone.

#include "packing.h"
#include "panels.h"
#include "residual.h"

namespace {

constexpr int ROWS = 192;                      // about, that go through the products together: pictures of small maps are taken together
constexpr int CHUNK = 200;                     // rows whose products are added up at a time to a weight's gradient
constexpr std::size_t SMALL_WEIGHT = 1 << 17;  // numbers; of larger weights' gradients there is one for each thread

// What both directions are given. Sizes: B, H, W, C, hidden channels, groups, untouched groups; the filters' weights as `groups_of` reads
// them; dropout of the hidden map, then of the end of the branch, four words each, and their scales; a factor for each picture.
struct FeedForward {
    int pictures, channels, hidden;
    std::size_t pixels, weight;
    Groups groups;
    Kept kept;
    std::size_t start;  // of the hidden map's numbers, for `kept`
    Residual residual;

    FeedForward(const std::int64_t* sizes, const float* const* weights, const std::int64_t* dropped, const float* scales,
                const float* factors, Scratch& scratch)
        : pictures(sizes[0]), channels(sizes[3]), hidden(sizes[4]), pixels(static_cast<std::size_t>(sizes[1]) * sizes[2]),
          weight(static_cast<std::size_t>(hidden) * channels), kept(kept_of(dropped, scales[0])), start(dropped[3]),
          residual{channels, static_cast<std::int64_t>(pixels), kept_of(dropped + 4, scales[1]), static_cast<std::size_t>(dropped[7]),
                   factors} {
        const std::int64_t of[] = {sizes[0], sizes[1], sizes[2], sizes[4], sizes[5], sizes[6]};
        groups = groups_of(of, weights, scratch);
    }

    std::size_t rows() const { return pictures * pixels; }

    // Whether bringing the weights together and adding up the parts of their gradients costs more than maps that leave the cache.
    bool has_few_rows() const { return rows() <= 2 * static_cast<std::size_t>(channels); }

    // In how many parts the pictures go through the products: as many for every thread.
    int tasks(int threads) const {
        const int together = static_cast<int>((ROWS + pixels - 1) / pixels), least = (pictures + together - 1) / together;
        return std::min((least + threads - 1) / threads * threads, pictures);
    }
};

// `to = left^T right`, or `to += left^T right` where it grows, for left (rows, down), its rows `step` apart, and right (rows, across);
// nothing where `to` is null.
void add_turned(const float* left, int step, const float* right, int rows, int down, int across, float* to, bool grows) {
    for (int at = 0; to && at < rows; at += CHUNK)
        multiply({left + at * step, 1, step}, down, std::min(CHUNK, rows - at), right + at * across, across, across, to, across,
                 {nullptr, grows || at > 0});
}

// `to = left^T right` for few rows: parts of the outcome are shared out.
void turned_product(const float* left, const float* right, int rows, int down, int across, float* to, int threads) {
    constexpr int TILE = rows_of_tile(TILE_LANES);
    share_rows(to ? (down + TILE - 1) / TILE : 0, threads, [&](int, std::int64_t first, std::int64_t last) {
        const int begin = static_cast<int>(first) * TILE, end = std::min(static_cast<int>(last) * TILE, down);
        add_turned(left + begin, down, right, rows, end - begin, across, to + static_cast<std::size_t>(begin) * across, false);
    });
}

void add_part(const float* part, std::size_t count, float* to, int threads) {
    share_rows(count / LANES, threads, [&](int, std::int64_t first, std::int64_t last) {
        for (std::int64_t at = first * LANES; at < last * LANES; at += LANES) add(to + at, load(part + at));
    });
}

// What the way back reads and writes, as `feed_back` is given it.
struct Back {
    const float *gradient, *normal, *entering;
    float *to_normal, *to_rows, *to_columns;
    float* const* to_filters;
    float* to_bias;
};

// The way back of few rows: all of them go through one step after the other.
void lead_few_back(const FeedForward& of, const Right& fc2, const Right& fc1, const Back& all, Scratch* scratch, int threads) {
    const std::size_t rows = of.rows();
    float* outer = scratch[0].get(rows * of.channels);
    float *inner = scratch[1].get(rows * of.hidden), *leaving = scratch[2].get(rows * of.hidden);
    lead_back_rows(of.residual, all.gradient, rows, outer, all.to_bias, scratch[3], threads);
    multiply_few(outer, rows, fc2, inner, false, threads);
    const FilterGradients filters{of.groups, all.entering, inner, leaving, of.kept, of.start, nullptr};
    add_group_sums(of.groups, filter_gradients(filters, of.pictures, scratch[4], threads), all.to_filters);
    multiply_few(inner, rows, fc1, all.to_normal, false, threads);
    turned_product(inner, all.normal, rows, of.hidden, of.channels, all.to_rows, threads);
    turned_product(outer, leaving, rows, of.channels, of.hidden, all.to_columns, threads);
}

}  // namespace

// `y = r + factor kept (fc2(filters(fc1(normal))) + bias)`; what enters the filters is left in `entering`. `rows` (hidden, C) and
// `columns` (C, hidden) are the weights of the products, the rest as `FeedForward` takes it.
extern "C" void feed_forward(const float* normal, const float* r, float* entering, float* y, const std::int64_t* sizes, const float* rows,
                             const float* columns, const float* const* weights, const float* bias, const std::int64_t* dropped,
                             const float* scales, const float* factors, int threads) {
    static thread_local Scratch scratch[3];
    const FeedForward of(sizes, weights, dropped, scales, factors, scratch[0]);
    const Right fc1{rows, of.channels, of.hidden, true}, fc2{columns, of.hidden, of.channels, true};
    if (of.has_few_rows()) {
        float* leaving = scratch[1].get(of.rows() * of.hidden);
        multiply_few(normal, of.rows(), fc1, entering, false, threads);
        filter(of.groups, entering, leaving, of.kept, of.start, of.pictures, threads);
        multiply_few(leaving, of.rows(), fc2, y, false, threads);
        share_rows(of.rows(), threads, [&](int, std::int64_t first, std::int64_t last) { of.residual.add(r, y, bias, first, last); });
        return;
    }
    const Panels first(fc1, scratch[1], threads), second(fc2, scratch[2], threads);
    const int tasks = of.tasks(threads);
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
    const FeedForward of(sizes, weights, dropped, scales, factors, scratch[0]);
    const Right fc2{columns, of.channels, of.hidden, false}, fc1{rows, of.hidden, of.channels, false};
    if (of.has_few_rows()) {
        const Back all{gradient, normal, entering, to_normal, to_rows, to_columns, gradients, to_bias};
        lead_few_back(of, fc2, fc1, all, scratch + 1, threads);
        return;
    }
    const Panels first(fc2, scratch[1], threads), second(fc1, scratch[2], threads);
    const int tasks = of.tasks(threads), stride = filled(of.channels);
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
