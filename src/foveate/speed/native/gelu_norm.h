// GELU and batch norm with the moments of the batch, on their way back.
//
// `y = gain n + shift, n = (GELU(h) - mean) scale`, the moments being those of GELU(h) over all pixels; maps are (pixels, C).

#pragma once

#include "gradients.h"
#include "threads.h"

namespace {

// Weights of C numbers each, filled up; `plain` and `along`: means over all pixels of the gradient to y and of its product with n.
struct GeluNormGradient {
    int channels;
    const float *mean, *scale, *gain, *plain, *along;

    Lanes normal(int c, Lanes value) const { return (value - load(mean + c)) * load(scale + c); }

    // The sums behind `plain` and `along`, of some pixels; they are also the gradients to shift and gain.
    void add_sums(const Number* h, const Number* outer, std::int64_t pixels, float* plain_sum, float* along_sum) const {
        for (std::int64_t at = 0; at < pixels * channels; at += channels)
            each(channels, [&](int c, auto there) {
                const Lanes g = read(outer + at + c, there);
                add(along_sum + c, g * normal(c, activated<GELU>(read(h + at + c, there))));
                add(plain_sum + c, g);
            });
    }

    // The gradients to h of some pixels, their sums to `sum`, where it is not null.
    template <typename To>
    void lead_back(const Number* h, const Number* outer, std::int64_t pixels, To* to_h, float* sum) const {
        for (std::int64_t at = 0; at < pixels * channels; at += channels)
            each(channels, [&](int c, auto there) {
                const Response response = responded<GELU>(read(h + at + c, there));
                const Lanes g = read(outer + at + c, there) - load(plain + c) - normal(c, response.value) * load(along + c);
                const Lanes lanes = g * load(scale + c) * load(gain + c) * response.slope;
                write(to_h + at + c, lanes, there);
                if (sum) add(sum + c, lanes);
            });
    }
};

// `one` with its means, which are `scratch`'s; gradients to gain and shift, (C,), are added.
inline GeluNormGradient with_means(GeluNormGradient one, const Number* h, const Number* outer, std::int64_t pixels,
                                   float* const* gradients, Scratch& scratch, int threads) {
    const int channels = one.channels, stride = filled(channels), parts = row_parts(pixels, threads);
    const std::size_t count = static_cast<std::size_t>(2) * stride;
    float* sums = scratch.get(count * parts);
    std::fill_n(sums, count * parts, 0.0f);
    share_rows(pixels, threads, [&](int part, std::int64_t first, std::int64_t last) {
        float* along = sums + part * count;
        one.add_sums(h + first * channels, outer + first * channels, last - first, along + stride, along);
    });
    collect(sums, parts, count);
    for (int i = 0; i < 2; ++i) add_sums(sums + i * stride, 1, channels, stride, gradients[i]);
    for (std::size_t i = 0; i < count; ++i) sums[i] /= static_cast<float>(pixels);
    one.along = sums, one.plain = sums + stride;
    return one;
}

}  // namespace
