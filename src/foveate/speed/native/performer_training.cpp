// The attention of T2T-ViT's token layers in training, as performer.py calls it; float32 alone.

#include "gradients.h"
#include "performer_gradients.h"
#include "threads.h"

// Numbers that a picture is gathered into.
extern "C" std::int64_t gathered_size(std::int64_t features, std::int64_t width) { return Gathered::size(features, width); }

// Sizes are B, T, E, M; response (B, T, 3 E), scales (B, T), constant (3 E,), features (E, M), y and v (B, T, E); what was gathered, for
// the way back, (B, `Gathered::size`), or null.
extern "C" void perform(const float* response, const float* scales, const float* constant, const float* features, float* y, float* v,
                        float* gathered, const std::int64_t* sizes, int threads) {
    const int pictures = sizes[0], tokens = sizes[1], width = sizes[2], count = sizes[3];
    const int parts = std::clamp(2 * threads / pictures, 1, (tokens + TOGETHER - 1) / TOGETHER);
    const std::size_t size = Gathered::size(count, width), numbers = static_cast<std::size_t>(tokens) * width;
    static thread_local Scratch scratch;
    float* memory = scratch.get(size * pictures * parts);
    const auto one = [&](int index) {
        const std::size_t at = static_cast<std::size_t>(index) * tokens;
        return Performer{response + 3 * at * width, scales + at, constant, features, width, count};
    };
    const auto begin = [=](int part) { return static_cast<int>(static_cast<std::int64_t>(tokens) * part / parts); };
    share(pictures * parts, threads, [&](int task) {
        Gathered into(memory + task * size, count);
        one(task / parts).gather(begin(task % parts), begin(task % parts + 1), into, v + task / parts * numbers);
    });
    merge_parts(memory, pictures, parts, count, width);
    if (gathered)
        for (int picture = 0; picture < pictures; ++picture) std::copy_n(memory + picture * parts * size, size, gathered + picture * size);
    share(pictures * parts, threads, [&](int task) {
        const Gathered whole(memory + task / parts * parts * size, count);
        one(task / parts).read_out(begin(task % parts), begin(task % parts + 1), whole, y + task / parts * numbers);
    });
}

// Sizes are B, T, E, M; response (B, T, 3 E), scales (B, T), constant (3 E,), features (E, M) and once more as rows (M, E), gathered as
// `perform` left it; outer and `to_values`, (B, T, E): gradients to what the queries read, and to the values from elsewhere. Gradients to
// the response, the scales and, added up, the constant.
extern "C" void perform_gradients(const float* response, const float* scales, const float* constant, const float* features,
                                  const float* rows, float* gathered, const float* outer, const float* to_values, float* to_response,
                                  float* to_scales, float* to_constant, const std::int64_t* sizes, int threads) {
    const int pictures = sizes[0], tokens = sizes[1], width = sizes[2], count = sizes[3];
    const int parts = std::clamp(2 * threads / pictures, 1, (tokens + TOGETHER - 1) / TOGETHER), tasks = pictures * parts;
    // of each task: to the sums, to the products, to the constant
    const std::size_t products = static_cast<std::size_t>(count) * width, size = count + products + 3 * width;
    static thread_local Scratch scratch;
    float* sums = scratch.get(size * tasks);
    std::fill_n(sums, size * tasks, 0.0f);
    std::fill_n(to_scales, static_cast<std::size_t>(pictures) * tokens, 0.0f);
    const auto one = [&](int picture) {
        const std::size_t token = static_cast<std::size_t>(picture) * tokens, at = token * width;
        const Performer of{response + 3 * at, scales + token, constant, features, width, count};
        return PerformerGradients{of, Gathered(gathered + picture * Gathered::size(count, width), count), outer + at, to_values + at, rows,
                                  to_response + 3 * at, to_scales + token};
    };
    const auto begin = [=](int part) { return static_cast<int>(static_cast<std::int64_t>(tokens) * part / parts); };
    share(tasks, threads, [&](int task) {
        float* own = sums + task * size;
        one(task / parts).queries(begin(task % parts), begin(task % parts + 1), own, own + count, own + count + products);
    });
    for (int task = 0; task < tasks; ++task) {
        float* whole = sums + task / parts * parts * size;
        if (task % parts)
            for (std::size_t i = 0; i < count + products; i += LANES) add(whole + i, load(sums + task * size + i));
    }
    share(tasks, threads, [&](int task) {
        const float* whole = sums + task / parts * parts * size;
        one(task / parts).keys(begin(task % parts), begin(task % parts + 1), whole, whole + count, sums + task * size + count + products);
    });
    for (int task = 0; task < tasks; ++task)
        for (int c = 0; c < 3 * width; ++c) to_constant[c] += sums[task * size + count + products + c];
}
