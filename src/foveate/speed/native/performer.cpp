// The token layers of T2T-ViT for inference, as native_performer.py calls them; float32 alone.

#include "performer.h"
#include "threads.h"

// Sizes are B, H, W, C, side, stride, padding; x (B, H, W, C), scales (B, H', W').
extern "C" void patch_scales(const float* x, float* scales, const std::int64_t* sizes, float eps, int threads) {
    const auto size = [=](int index) { return static_cast<int>(sizes[index]); };
    const PatchScales one{size(1), size(2), size(3), size(4), size(5), size(6), eps};
    const std::size_t picture = static_cast<std::size_t>(one.height) * one.width * one.channels;
    const std::size_t places = static_cast<std::size_t>(one.places(one.height)) * one.places(one.width);
    share(size(0), threads, [&](int index) { one(x + index * picture, scales + index * places); });
}

// Numbers that a picture is gathered into.
extern "C" std::int64_t gathered_size(std::int64_t features, std::int64_t width) { return Gathered::size(features, width); }

// Sizes are B, T, E, M; response (B, T, 3 E), scales (B, T), constant (3 E,), features (E, M), y and v (B, T, E); what was gathered, for
// the way back, (B, `Gathered::size`), or null.
extern "C" void perform(const float* response, const float* scales, const float* constant, const float* features, float* y, float* v,
                        float* gathered, const std::int64_t* sizes, int threads) {
    const int pictures = sizes[0], tokens = sizes[1], width = sizes[2], count = sizes[3];
    const int parts = std::clamp(2 * threads / pictures, 1, (tokens + QUERIES - 1) / QUERIES);
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
    for (int task = 0; task < pictures * parts; ++task) {
        if (task % parts == 0) continue;
        Gathered whole(memory + task / parts * parts * size, count), part(memory + task * size, count);
        whole.merge(part, count, width);
    }
    if (gathered)
        for (int picture = 0; picture < pictures; ++picture) std::copy_n(memory + picture * parts * size, size, gathered + picture * size);
    share(pictures * parts, threads, [&](int task) {
        const Gathered whole(memory + task / parts * parts * size, count);
        one(task / parts).read_out(begin(task % parts), begin(task % parts + 1), whole, y + task / parts * numbers);
    });
}
