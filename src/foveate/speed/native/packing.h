// The weights of the chains for training, from PyTorch's own layouts, float32, and their gradients back into these.

#pragma once

#include "filter_gradients.h"

namespace {

// Weights (C,) and kernels (C, 1, k, k) as the chains read them: the taps first, channels filled up with zeros.
class Packed {
  public:
    Packed(Scratch& scratch, int rows, int channels)
        : channels_(channels), stride_(filled(channels)), next_(scratch.get(static_cast<std::size_t>(rows) * stride_)) {
        std::fill_n(next_, static_cast<std::size_t>(rows) * stride_, 0.0f);
    }

    float* add(const float* weight, int taps = 1) {
        float* rows = next_;
        for (int tap = 0; tap < taps; ++tap, next_ += stride_)
            for (int c = 0; c < channels_; ++c) next_[c] = weight[c * taps + tap];
        return rows;
    }

  private:
    int channels_, stride_;
    float* next_;
};

// Sizes: B, H, W, channels, groups, untouched groups. Weights: the entering bias (channels), then kernel and bias of each filter.
inline Groups groups_of(const std::int64_t* sizes, const float* const* weights, Scratch& scratch) {
    const int channels = sizes[3], groups = sizes[4], untouched = sizes[5], filters = groups - untouched, width = channels / groups;
    Packed packed(scratch, groups + 10 * filters, width);
    Groups of = {};
    of.height = sizes[1], of.width = sizes[2], of.channels = channels;
    of.groups = groups, of.untouched = untouched, of.stride = filled(width);
    of.entering = packed.add(weights[0]);
    for (int group = 1; group < groups; ++group) packed.add(weights[0] + group * width);
    for (int i = 0; i < filters; ++i) {
        const float* rows = packed.add(weights[1 + 2 * i], 9);
        if (i == 0) of.taps = rows;
    }
    for (int i = 0; i < filters; ++i) {
        const float* row = packed.add(weights[2 + 2 * i]);
        if (i == 0) of.bias = row;
    }
    return of;
}

// Gradients to the weights that `groups_of` reads, from the sums of `FilterGradients`.
inline void add_group_sums(const Groups& of, const float* sums, float* const* gradients) {
    const int width = of.group_width(), filters = of.groups - of.untouched;
    for (int i = 0; i < filters; ++i) {
        add_sums(sums + static_cast<std::size_t>(10 * i) * of.stride, 9, width, of.stride, gradients[1 + 2 * i]);
        add_sums(sums + static_cast<std::size_t>(10 * i + 9) * of.stride, 1, width, of.stride, gradients[2 + 2 * i]);
    }
    for (int group = 0; group < of.groups; ++group)
        add_sums(sums + static_cast<std::size_t>(10 * filters + group) * of.stride, 1, width, of.stride, gradients[0] + group * width);
}

}  // namespace
