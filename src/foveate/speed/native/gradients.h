// What both chains need on their way back: gradients to the taps of a convolution and through a layer norm, sums over pixels. Every task
// has sums of its own, so that they do not depend on which thread was faster.

#pragma once

#include "rows.h"

namespace {

inline void add(float* to, Lanes lanes) { store(to, load(to) + lanes); }

// `sums[dy, dx] += sum of rows[dy][w + dx] gradient[w]` for `LANES` channels from `channel` on.
template <int ROWS, int TAPS>
void add_taps_of(const float* const* rows, const float* gradient, int width, int stride, int channel, float* sums, int sums_stride) {
    Lanes totals[ROWS][TAPS] = {};
    for (int w = 0; w < width; ++w) {
        const Lanes factor = load(gradient + w * stride + channel);
        for (int dy = 0; dy < ROWS; ++dy)
            for (int dx = 0; dx < TAPS; ++dx) totals[dy][dx] += load(rows[dy] + (w + dx) * stride + channel) * factor;
    }
    for (int dy = 0; dy < ROWS; ++dy)
        for (int dx = 0; dx < TAPS; ++dx) add(sums + (dy * TAPS + dx) * sums_stride + channel, totals[dy][dx]);
}

// The same for all channels and `side` rows, which begin with their zeros.
inline void add_taps(
    const float* const* rows, const float* gradient, int width, int side, int stride, float* sums, int sums_stride) {
    for (int c = 0; c < stride; c += LANES) {
        if (side == 3) {
            add_taps_of<3, 3>(rows, gradient, width, stride, c, sums, sums_stride);
            continue;
        }
        for (int dy = 0; dy < side; ++dy) {
            float* to = sums + dy * side * sums_stride;
            if (side == 5) add_taps_of<1, 5>(rows + dy, gradient, width, stride, c, to, sums_stride);
            else if (side == 7) add_taps_of<1, 7>(rows + dy, gradient, width, stride, c, to, sums_stride);
            else
                for (int dx = 0; dx < side; ++dx) {
                    const float* from = rows[dy] + dx * stride;
                    add_taps_of<1, 1>(&from, gradient, width, stride, c, to + dx * sums_stride, sums_stride);
                }
        }
    }
}

// The filter that leads a gradient back: taps in the opposite order, no bias.
inline Filter turned(const Filter& filter, Scratch& scratch) {
    const int count = filter.side * filter.side, stride = filter.stride;
    float* to = scratch.get(static_cast<std::size_t>(count + 1) * stride);
    for (int tap = 0; tap < count; ++tap) std::copy_n(filter.taps + (count - 1 - tap) * stride, stride, to + tap * stride);
    std::fill_n(to + count * stride, stride, 0.0f);
    return {filter.side, stride, to, to + count * stride};
}

// The gradient through `normal = scale (x - mean)`, `LANES` channels at a time to `sink(channel, lanes)`, zeros behind `channels`:
// `scale (g - mean(g) - normal mean(g normal))`. Behind `channels` the gradient has zeros, `normal` anything.
template <typename Sink>
void norm_gradient(const float* normal, const float* gradient, float scale, int channels, int stride, Sink sink) {
    Lanes plain = {}, along = {};
    for (int c = 0; c < stride; c += LANES) {
        const Lanes g = load(gradient + c);
        plain += g;
        along += g * load(normal + c);
    }
    const float mean = sum_of(plain) / channels, slant = sum_of(along) / channels;
    for (int c = 0; c < stride; c += LANES)
        sink(c, first(scale * (load(gradient + c) - mean - slant * load(normal + c)), channels - c));
}

// Parts of the pictures that have sums of their own: as many as keep all threads busy to the end.
inline int parts_of(int pictures, int threads) { return std::min(pictures, 4 * threads); }

// The sums of all parts, in the place of the first.
inline void collect(float* sums, int parts, std::size_t count) {
    for (int part = 1; part < parts; ++part)
        for (std::size_t i = 0; i < count; i += LANES) add(sums + i, load(sums + part * count + i));
}

// Rows of sums (taps, stride) added to a gradient (C, taps).
inline void add_sums(const float* sums, int taps, int channels, int stride, float* gradient) {
    for (int c = 0; c < channels; ++c)
        for (int tap = 0; tap < taps; ++tap) gradient[c * taps + tap] += sums[tap * stride + c];
}

}  // namespace
