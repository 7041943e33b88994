// 3x3 convolutions of all channels as matrix products: a pixel and those beside it are one row of three times as many numbers.
//
// Maps are (B, H, W, channels); rows of a map stand in rings with a pixel of zeros at both ends, see rows.h, `channels` numbers a pixel.

#pragma once

#include "products.h"
#include "rows.h"
#include "threads.h"

namespace {

// Kernels (leaving, entering, 3, 3), as PyTorch holds them, in the order in which rows are read: (dy, dx, entering), each with the
// channels that leave filled up with zeros. Turned, they lead gradients back: (dy, dx, leaving), each with the channels that enter.
inline const float* gathered_taps(const float* kernel, int entering, int leaving, bool turned, Scratch& scratch) {
    const int from = turned ? leaving : entering, stride = filled(turned ? entering : leaving);
    float* taps = scratch.get(9 * from * stride);
    std::fill_n(taps, 9 * from * stride, 0.0f);
    for (int out = 0; out < leaving; ++out)
        for (int in = 0; in < entering; ++in)
            for (int tap = 0; tap < 9; ++tap) {
                const int row = turned ? (8 - tap) * leaving + out : tap * entering + in;
                taps[row * stride + (turned ? in : out)] = kernel[(out * entering + in) * 9 + tap];
            }
    return taps;
}

// `entering` numbers (or pairs of them) a pixel, weights as `gathered_taps` makes them, `stride` each; outputs at every `across`th pixel;
// the bias, (stride), may be null.
struct Convolution {
    int entering, stride, across;
    const float *taps, *bias;

    // One row of `width` outputs, (width, stride), from three rows, which begin with their zeros.
    template <Numbers OF = SINGLE>
    void operator()(const float* const* rows, int width, float* to) const {
        for (int w = 0; bias && w < width; ++w) std::copy_n(bias, stride, to + w * stride);
        const int depth = 3 * entering;
        for (int dy = 0; dy < 3; ++dy)
            multiply<OF>({rows[dy], across * entering, 1}, width, depth, taps + dy * depth * stride, stride, stride, to, stride,
                         {nullptr, bias || dy > 0});
    }
};

// The gradient to the taps, (9 * entering, filled(leaving)), from that to one row of outputs, (width, leaving), is added to `sums`; what
// stands behind the channels that leave is not to be read.
inline void add_kernel_gradient(const float* const* rows, const float* gradient, int width, int entering, int leaving, float* sums) {
    const int stride = filled(leaving), down = 3 * entering;
    for (int dy = 0; dy < 3; ++dy)
        multiply({rows[dy], 1, entering}, down, width, gradient, leaving, stride, sums + dy * down * stride, stride, {nullptr, true});
}

// Such sums added to a gradient (leaving, entering, 3, 3).
inline void add_kernel_sums(const float* sums, int entering, int leaving, float* to) {
    const int stride = filled(leaving);
    for (int out = 0; out < leaving; ++out)
        for (int in = 0; in < entering; ++in)
            for (int tap = 0; tap < 9; ++tap) to[(out * entering + in) * 9 + tap] += sums[(tap * entering + in) * stride + out];
}

// `task(part, picture, first, last)` for those rows of every picture that fall into a part of all.
template <typename Task>
void share_map_rows(int pictures, int height, int threads, const Task& task) {
    share_rows(static_cast<std::int64_t>(pictures) * height, threads, [&](int part, std::int64_t first, std::int64_t last) {
        for (std::int64_t at = first; at < last;) {
            const int picture = static_cast<int>(at / height), begin = static_cast<int>(at % height);
            const int end = static_cast<int>(std::min<std::int64_t>(height, begin + last - at));
            task(part, picture, begin, end);
            at += end - begin;
        }
    });
}

}  // namespace
