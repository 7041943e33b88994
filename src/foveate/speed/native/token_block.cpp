// A transformer block for inference in three passes over its tokens, as token_block.py calls them; float32 alone.
//
// Legend: B pictures, T tokens, D channels, d those of a head. What is asked of attention lies turned: (B, 3 D, T filled up).

#include "attention.h"
#include "threads.h"

namespace {

// In how many parts `tokens` are shared out for `threads`, `times` as often: blocks at most, groups of sixteen at least.
int blocks_of(int tokens, int times, int threads) {
    const int groups = filled(tokens) / FILL, least = (groups + BLOCK / FILL - 1) / (BLOCK / FILL);
    return std::clamp((2 * threads + times - 1) / times, least, groups);
}

}  // namespace

// `linear(norm(x))` of every token, turned, (B, N, T filled up). Sizes are B, T, D, N; weight (N, D), bias (N,) or null.
extern "C" void ask(
    const float* x, float* asked, const std::int64_t* sizes, const float* weight, const float* bias, float eps, int threads) {
    const int pictures = sizes[0], tokens = sizes[1], channels = sizes[2], rows = sizes[3], stride = filled(tokens);
    const int parts = blocks_of(tokens, pictures, threads);
    share(pictures * parts, threads, [&](int task) {
        static thread_local Scratch scratch;
        float* block = scratch.get(static_cast<std::size_t>(channels) * BLOCK);
        const int picture = task / parts, first = begin_of(task % parts, parts, tokens);
        const int columns = begin_of(task % parts + 1, parts, tokens) - first;
        turn_in(x + (static_cast<std::size_t>(picture) * tokens + first) * channels, channels, tokens - first, channels, block, columns);
        normalise_columns(block, columns, channels, eps, block);
        float* to = asked + static_cast<std::size_t>(picture) * rows * stride + first;
        multiply({weight, channels, 1}, rows, channels, block, columns, columns, to, stride, {bias, false});
    });
}

// `softmax(scale q k^T) v` of every head, (B, T, D). Sizes are B, T, D, heads.
extern "C" void attend_turned(const float* asked, float* y, const std::int64_t* sizes, float scale, int threads) {
    const int pictures = sizes[0], tokens = sizes[1], channels = sizes[2], heads = sizes[3], width = channels / heads;
    const int stride = filled(tokens), parts = std::clamp(2 * threads / (pictures * heads), 1, stride / FILL);
    share(pictures * heads * parts, threads, [&](int task) {
        const int part = task % parts, head = task / parts % heads, picture = task / parts / heads;
        const float* q = asked + (static_cast<std::size_t>(picture) * 3 * channels + head * width) * stride;
        const std::size_t next = static_cast<std::size_t>(channels) * stride;
        float* to = y + static_cast<std::size_t>(picture) * tokens * channels + head * width;
        const int first = begin_of(part, parts, tokens), last = std::min(begin_of(part + 1, parts, tokens), tokens);
        TurnedHead{q + first, q + next, q + 2 * next, tokens, width, stride, scale}(first, last, to, channels, nullptr);
    });
}

// `s = x + proj(attended)`, then `s + fc2(GELU(fc1(norm(s))))`, (rows, D). Sizes are rows, D, hidden channels; weights and biases of the
// three layers in this order.
extern "C" void finish(const float* x, const float* attended, float* y, const std::int64_t* sizes, const float* const* weights,
                       const float* const* biases, float eps, int threads) {
    const int rows = sizes[0], channels = sizes[1], hidden = sizes[2], parts = blocks_of(rows, 1, threads);
    const SecondHalf half{weights[0], biases[0], weights[1], biases[1], weights[2], biases[2], channels, hidden, eps};
    share(parts, threads, [&](int part) {
        static thread_local Scratch scratch[3];
        const std::size_t size = static_cast<std::size_t>(channels) * BLOCK;
        float *stream = scratch[0].get(size), *block = scratch[1].get(size);
        float* inner = scratch[2].get(static_cast<std::size_t>(hidden) * BLOCK);
        const int first = begin_of(part, parts, rows), columns = begin_of(part + 1, parts, rows) - first;
        const std::size_t at = static_cast<std::size_t>(first) * channels;
        turn_in(x + at, channels, rows - first, channels, stream, columns);
        turn_in(attended + at, channels, rows - first, channels, block, columns);
        half.add_to(stream, block, inner, columns);
        turn_out(stream, columns, std::min(columns, rows - first), channels, y + at, channels);
    });
}
