// The end of a branch in training: what is added to the map, with dropout and stochastic depth, and its way back.

#pragma once

#include "gradients.h"
#include "threads.h"

namespace {

// `x + factor kept (product + bias)` for rows of C channels; a picture has `pixels` rows and a factor.
struct Residual {
    int channels;
    std::int64_t pixels;
    Kept kept;
    std::size_t start;  // of the numbers of the first row, for `kept`
    const float* factors;

    Lanes factor(std::int64_t row, std::size_t at) const {
        const Lanes one = Lanes{} + factors[row / pixels];
        return kept.levels ? one * kept(start + at) : one;
    }

    // The rows from `first` to `last`, in the place of the product.
    void add(const Number* x, Number* product, const float* bias, std::int64_t first, std::int64_t last) const {
        for (std::int64_t row = first; row < last; ++row)
            each(channels, [&](int c, auto there) {
                const std::size_t at = row * channels + c;
                write(product + at, (read(product + at, there) + read(bias + c, there)) * factor(row, at) + read(x + at, there), there);
            });
    }

    // Gradients to the product of these rows alone, and added up to the bias (C filled up,).
    void lead_back(const Number* gradient, Number* to_product, float* to_bias, std::int64_t first, std::int64_t last) const {
        for (std::int64_t row = first; row < last; ++row)
            each(channels, [&](int c, auto there) {
                const std::size_t at = row * channels + c;
                const Lanes lanes = read(gradient + at, there) * factor(row, at);
                write(to_product + at - first * channels, lanes, there);
                ::add(to_bias + c, lanes);
            });
    }
};

// The same for all rows, and to the bias (C,).
inline void lead_back_rows(const Residual& of, const Number* gradient, std::int64_t rows, Number* to_product, float* to_bias,
                           Scratch& scratch, int threads) {
    const int stride = filled(of.channels), parts = row_parts(rows, threads);
    const std::size_t count = static_cast<std::size_t>(stride) * parts;
    float* sums = scratch.get(count);
    std::fill_n(sums, count, 0.0f);
    share_rows(rows, threads, [&](int part, std::int64_t first, std::int64_t last) {
        of.lead_back(gradient, to_product + first * of.channels, sums + static_cast<std::size_t>(part) * stride, first, last);
    });
    collect(sums, parts, stride);
    add_sums(sums, 1, of.channels, stride, to_bias);
}

}  // namespace
