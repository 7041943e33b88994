// A token layer of T2T-ViT for inference, as token_layer.py calls it; float32 alone.

#include "token_layer.h"

#include "threads.h"

// x (B, H, W, C), y (B, T, E). Sizes are B, H, W, C, side, stride, padding, E, M, channels inside the MLP; weights as
// token_layer.py lists them; eps of both norms.
extern "C" void token_layer(
    const float* x, float* y, const std::int64_t* sizes, const float* const* weights, const float* eps, int threads) {
    static thread_local Scratch scratch[2];
    const auto size = [=](int index) { return static_cast<int>(sizes[index]); };
    const Patches patches{x, size(1), size(2), size(3), size(4), size(5), size(6)};
    const SecondHalf half{weights[3], weights[4], weights[5], weights[6], weights[7], weights[8], size(7), size(9), eps[1]};
    const int pictures = size(0), width = size(7), count = size(8), tokens = patches.tokens(), groups = filled(tokens) / FILL;
    const int parts = std::clamp((2 * threads + pictures - 1) / pictures, 1, (groups + BLOCK / FILL - 1) / (BLOCK / FILL));
    const std::size_t sums = Gathered::size(count, width), numbers = static_cast<std::size_t>(filled(tokens)) * 2 * width;
    Scratch once;
    float *memory = scratch[0].get(sums * pictures * parts), *kept = room(scratch[1], once, numbers * pictures);
    const auto one = [&](int picture) {
        TokenLayer layer{patches, weights[0], weights[1], weights[2], half, width, count, eps[0]};
        layer.patches.map += static_cast<std::size_t>(picture) * patches.height * patches.width * patches.channels;
        return layer;
    };
    const auto begin = [=](int part) { return std::min(begin_of(part, parts, tokens), tokens); };
    share(pictures * parts, threads, [&](int task) {
        const int picture = task / parts, part = task % parts;
        one(picture).gather(begin(part), begin(part + 1), Gathered(memory + task * sums, count), kept + picture * numbers);
    });
    merge_parts(memory, pictures, parts, count, width);
    share(pictures * parts, threads, [&](int task) {
        const int picture = task / parts, part = task % parts;
        const Gathered whole(memory + picture * parts * sums, count);
        float* to = y + static_cast<std::size_t>(picture) * tokens * width;
        one(picture).read_out(begin(part), begin(part + 1), whole, kept + picture * numbers, to);
    });
}
