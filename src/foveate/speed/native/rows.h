// Rows of a channels-last map in rings that stay in the cache, and what is done with a row: depthwise convolution and layer norm.
//
// A row has k / 2 pixels of zeros at both ends, for a convolution of side k; its pixels and all weights are filled up with zeros to whole
// groups of sixteen channels, which makes `stride` numbers a pixel.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "lanes.h"

namespace {

// Memory that is kept and grows, aligned to a line of the cache: reading across two lines costs two. Sixteen numbers may be read from any
// that is asked for.
class Scratch {
  public:
    float* get(std::size_t count) {
        if (memory_.size() < count + 2 * FILL) memory_.resize(count + 2 * FILL);
        const auto address = reinterpret_cast<std::uintptr_t>(memory_.data());
        return memory_.data() + (64 - address % 64) % 64 / sizeof(float);
    }

  private:
    std::vector<float> memory_;
};

constexpr std::size_t KEPT_NUMBERS = 1 << 22;  // of memory that grows with the pictures: 16 MiB; more is given back

// Memory for one call: `kept`, or `once` where it is too much to be kept.
inline float* room(Scratch& kept, Scratch& once, std::size_t count) { return (count <= KEPT_NUMBERS ? kept : once).get(count); }

// The last `count` rows of a map, each with `halo` pixels of zeros at both ends; what is between them is to be written before it is read.
class Ring {
  public:
    Ring(Scratch& scratch, int count, int width, int halo, int stride)
        : count_(count), size_(static_cast<std::size_t>(width + 2 * halo) * stride), inset_(static_cast<std::size_t>(halo) * stride) {
        memory_ = scratch.get((count + 1) * size_);
        for (int row = 0; row < count; ++row) {
            std::fill_n(memory_ + row * size_, inset_, 0.0f);
            std::fill_n(memory_ + (row + 1) * size_ - inset_, inset_, 0.0f);
        }
        std::fill_n(memory_ + count * size_, size_, 0.0f);
    }

    float* row(int index) { return memory_ + index % count_ * size_ + inset_; }

    // The starts of the k rows around `centre`, from their zeros on; those outside a map of `height` rows are zeros.
    const float* const* around(int centre, int k, int height, std::vector<const float*>& rows) const {
        rows.resize(k);
        for (int i = 0; i < k; ++i) {
            const int index = centre + i - k / 2;
            rows[i] = memory_ + (index < 0 || index >= height ? count_ : index % count_) * size_;
        }
        return rows.data();
    }

  private:
    int count_;
    std::size_t size_, inset_;
    float* memory_;  // the row of zeros last
};

// A depthwise convolution: taps (side * side, stride), bias (stride).
struct Filter {
    int side, stride;
    const float *taps, *bias;
};

// SPAN neighbouring outputs, `LANES` channels from `channel` on, of which `count` are there. SIDE: the filter's, or 0 for any.
template <int SIDE, int SPAN, int ACTIVATION, typename To>
void convolve_span(const Filter& filter, const float* const* rows, int at, int channel, To* to, int to_stride, int count) {
    const int k = SIDE ? SIDE : filter.side, stride = filter.stride;
    Lanes sums[SPAN];
    for (int p = 0; p < SPAN; ++p) sums[p] = load(filter.bias + channel);
    for (int dy = 0; dy < k; ++dy) {
        const float* from = rows[dy] + at * stride + channel;
        for (int dx = 0; dx < k; ++dx) {
            const Lanes tap = load(filter.taps + (dy * k + dx) * stride + channel);
            for (int p = 0; p < SPAN; ++p) sums[p] += load(from + (p + dx) * stride) * tap;
        }
    }
    for (int p = 0; p < SPAN; ++p) write(to + (at + p) * to_stride + channel, activated<ACTIVATION>(sums[p]), count);
}

// As many spans as fit from `at` on; says where the next is to begin.
template <int SIDE, int SPAN, int ACTIVATION, typename To>
int convolve_spans(const Filter& filter, const float* const* rows, int at, int width, To* to, int to_stride, int channels) {
    for (; at + SPAN <= width; at += SPAN)
        for (int c = 0; c < channels; c += LANES)
            convolve_span<SIDE, SPAN, ACTIVATION>(filter, rows, at, c, to, to_stride, channels - c);
    return at;
}

// A span shares the taps it reads; seven go into the widths of maps of pictures of 224 px without a rest.
template <int SIDE, int ACTIVATION, typename To>
void convolve_row(const Filter& filter, const float* const* rows, int width, To* to, int to_stride, int channels) {
    int at = convolve_spans<SIDE, 7, ACTIVATION>(filter, rows, 0, width, to, to_stride, channels);
    at = convolve_spans<SIDE, 3, ACTIVATION>(filter, rows, at, width, to, to_stride, channels);
    convolve_spans<SIDE, 1, ACTIVATION>(filter, rows, at, width, to, to_stride, channels);
}

// One row of activation(convolution) from the k rows of a ring: `channels` numbers every `to_stride`.
template <int ACTIVATION, typename To>
void convolve(const Filter& filter, const float* const* rows, int width, To* to, int to_stride, int channels) {
    if (filter.side == 3) convolve_row<3, ACTIVATION>(filter, rows, width, to, to_stride, channels);
    else convolve_row<0, ACTIVATION>(filter, rows, width, to, to_stride, channels);
}

// What a layer norm takes off a pixel's numbers, and multiplies them by then.
struct Moments {
    float mean, scale;
};

inline Moments moments(const float* pixel, int channels, int stride, float eps) {
    Lanes total = {};
    for (int c = 0; c < stride; c += LANES) total += load(pixel + c);
    const float mean = sum_of(total) / channels;
    Lanes squares = {};
    for (int c = 0; c < stride; c += LANES) {
        const Lanes centred = first(load(pixel + c) - mean, channels - c);
        squares += centred * centred;
    }
    return {mean, 1.0f / std::sqrt(sum_of(squares) / channels + eps)};
}

// One pixel's numbers with mean 0 and variance 1, `LANES` at a time to `sink(channel, lanes)`; behind `channels` stands anything.
template <typename Sink>
void normalise(const float* pixel, int channels, int stride, float eps, Sink sink) {
    const Moments of = moments(pixel, channels, stride, eps);
    for (int c = 0; c < stride; c += LANES) sink(c, (load(pixel + c) - of.mean) * of.scale);
}

}  // namespace
