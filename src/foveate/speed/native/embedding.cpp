// FViT's embedding of patches for inference, as embedding.py calls it: some patches at a time are brought together, multiplied with the
// kernels and normed while they are in the cache.

#include "panels.h"

namespace {

// The patches of two by two pixels of maps (B, height, width, channels), every `stride` pixels, with zeros below and to the right of a map.
struct Patches {
    const Number* maps;
    int height, width, channels, stride;

    int rows() const { return (height + stride - 1) / stride; }
    int columns() const { return (width + stride - 1) / stride; }

    // That with this place among those of all maps, (2, 2, channels).
    void bring(std::int64_t place, Number* to) const {
        const int column = static_cast<int>(place % columns()) * stride, row = static_cast<int>(place / columns() % rows()) * stride;
        const std::int64_t map = place / columns() / rows();
        for (int y = row; y < row + 2; ++y, to += 2 * channels) {
            const int there = y < height ? std::min(2, width - column) * channels : 0;
            if (there) std::copy_n(maps + ((map * height + y) * width + column) * channels, there, to);
            std::fill_n(to + there, 2 * channels - there, Number{});
        }
    }
};

// What stands behind the product: `gain norm(. + bias) + shift`, for `channels` numbers.
struct Norm {
    int channels;
    const float *bias, *gain, *shift;
    float eps;

    void operator()(float* pixel, Number* to) const {
        const int stride = filled(channels);
        for (int c = 0; c < stride; c += LANES) store(pixel + c, load(pixel + c) + load(bias + c));
        normalise(pixel, channels, stride, eps, [&](int c, Lanes lanes) {
            write(to + c, lanes * load(gain + c) + load(shift + c), channels - c);
        });
    }
};

}  // namespace

// Sizes: B, H, W, C, channels of y, stride. `kernels`: (channels of y filled up, 2, 2, C); `rows`: bias, gain and shift, filled up.
extern "C" void embed(const Number* x, Number* y, const std::int64_t* sizes, const Number* kernels, const float* const* rows, float eps,
                      int threads) {
    static thread_local Scratch packed;
    const auto size = [=](int index) { return static_cast<int>(sizes[index]); };
    const Patches patches{x, size(1), size(2), size(3), size(5)};
    const Norm norm{size(4), rows[0], rows[1], rows[2], eps};
    const int numbers = 4 * patches.channels, depth = numbers / PER_PLACE, stride = filled(norm.channels);
    const Panels product({as_left(kernels), depth, stride, true}, packed, threads);
    const int most = product.rows_at_once();
    share_rows(sizes[0] * patches.rows() * patches.columns(), threads, [&](int, std::int64_t first, std::int64_t last) {
        static thread_local Scratch scratch[2];
        Number* left = as_map(scratch[0].get(static_cast<std::size_t>(most) * depth));
        float* found = scratch[1].get(static_cast<std::size_t>(most) * stride);
        for (std::int64_t at = first; at < last; at += most) {
            const int count = static_cast<int>(std::min<std::int64_t>(most, last - at));
            for (int i = 0; i < count; ++i) patches.bring(at + i, left + i * numbers);
            product.multiply_rows(left, count, found, false);
            for (int i = 0; i < count; ++i) norm(found + i * stride, y + (at + i) * norm.channels);
        }
    });
}
