// The chains for training, as native_training.py calls them: weights come and gradients go in PyTorch's own layouts, float32.

#include "filter_gradients.h"
#include "mix_gradients.h"

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

// Sizes: B, H, W, C, the filter's side, activation, released. Weights: kernel and bias of the position embedding, gain and shift of the
// first norm, kernel and bias of the filter, gain and shift of the later norm. Eps of both norms.
Mixing mixing(const Number* x, const std::int64_t* sizes, const float* const* weights, const float* eps, Scratch& scratch) {
    const int channels = sizes[3], side = sizes[4], stride = filled(channels);
    Packed packed(scratch, 16 + side * side, channels);
    Mixing one = {};
    one.x = x;
    one.height = sizes[1], one.width = sizes[2], one.channels = channels, one.stride = stride;
    one.activation = sizes[5], one.released = sizes[6] != 0;
    float* position = packed.add(weights[0], 9);
    std::for_each_n(position + 4 * stride, channels, [](float& centre) { centre += 1.0f; });
    one.position = {3, stride, position, packed.add(weights[1])};
    one.gain = packed.add(weights[2]), one.shift = packed.add(weights[3]);
    one.filter = {side, stride, packed.add(weights[4], side * side), packed.add(weights[5])};
    one.later_gain = packed.add(weights[6]), one.later_shift = packed.add(weights[7]);
    one.eps = eps[0], one.later_eps = eps[1];
    return one;
}

// Sizes: B, H, W, channels, groups, untouched groups. Weights: the entering bias (channels), then kernel and bias of each filter.
Groups groups_of(const std::int64_t* sizes, const float* const* weights, Scratch& scratch) {
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

}  // namespace

extern "C" void mix_all(const Number* x, Number* y, Number* normal, const std::int64_t* sizes, const float* const* weights,
                        const float* eps, const float* factors, int threads) {
    static thread_local Scratch scratch[2];
    Mixing whole = mixing(x, sizes, weights, eps, scratch[0]);
    float* none = scratch[1].get(whole.stride);
    std::fill_n(none, whole.stride, 0.0f);
    whole.y = y, whole.normal = normal, whole.later_bias = none;
    mix(whole, sizes[0], factors, threads);
}

extern "C" void mix_gradients_of_all(const Number* x, const Number* outer, const Number* inner, Number* to_x, const std::int64_t* sizes,
                                     const float* const* weights, const float* eps, const float* factors, float* const* gradients,
                                     int threads) {
    static thread_local Scratch scratch[4];
    MixGradients whole = {};
    whole.of = mixing(x, sizes, weights, eps, scratch[0]);
    whole.outer = outer, whole.inner = inner, whole.to_x = to_x;
    whole.position_back = turned(whole.of.position, scratch[1]), whole.filter_back = turned(whole.of.filter, scratch[2]);
    const float* sums = mix_gradients(whole, sizes[0], factors, scratch[3], threads);
    const int channels = whole.of.channels, stride = whole.of.stride, side = whole.of.filter.side;
    const MixSums at(side);
    const int rows[] = {at.position, at.position_bias, at.gain, at.shift, at.taps, at.bias, at.later_gain, at.later_shift};
    const int taps[] = {9, 1, 1, 1, side * side, 1, 1, 1};
    for (int i = 0; i < 8; ++i) add_sums(sums + static_cast<std::size_t>(rows[i]) * stride, taps[i], channels, stride, gradients[i]);
}

extern "C" void filter_all(Number* hidden, Number* leaving, const std::int64_t* sizes, const float* const* weights,
                           const std::int64_t* dropped, float scale, int threads) {
    static thread_local Scratch scratch;
    const Groups of = groups_of(sizes, weights, scratch);
    filter(of, hidden, leaving, kept_of(dropped, scale), dropped[3], sizes[0], threads);
}

extern "C" void filter_gradients_of_all(const Number* entering, Number* inner, Number* leaving, const std::int64_t* sizes,
                                        const float* const* weights, const std::int64_t* dropped, float scale, float* const* gradients,
                                        int threads) {
    static thread_local Scratch scratch[2];
    const Groups of = groups_of(sizes, weights, scratch[0]);
    const int width = of.group_width(), filters = of.groups - of.untouched;
    const auto start = static_cast<std::size_t>(dropped[3]);
    const FilterGradients whole{of, entering, inner, leaving, kept_of(dropped, scale), start, nullptr};
    const float* sums = filter_gradients(whole, sizes[0], scratch[1], threads);
    for (int i = 0; i < filters; ++i) {
        add_sums(sums + static_cast<std::size_t>(10 * i) * of.stride, 9, width, of.stride, gradients[1 + 2 * i]);
        add_sums(sums + static_cast<std::size_t>(10 * i + 9) * of.stride, 1, width, of.stride, gradients[2 + 2 * i]);
    }
    for (int group = 0; group < of.groups; ++group)
        add_sums(sums + static_cast<std::size_t>(10 * filters + group) * of.stride, 1, width, of.stride, gradients[0] + group * width);
}

// `product = x + factor kept (product + bias)`, (B, pixels, C). Sizes: B, pixels, C.
extern "C" void add_residual(const Number* x, Number* product, const std::int64_t* sizes, const float* bias, const std::int64_t* dropped,
                             float scale, const float* factors, int threads) {
    const int channels = sizes[2];
    const Kept kept = kept_of(dropped, scale);
    share_rows(sizes[0] * sizes[1], threads, [&](int, std::int64_t first, std::int64_t last) {
        for (std::int64_t row = first; row < last; ++row)
            each(channels, [&](int c, auto there) {
                const std::size_t at = row * channels + c;
                Lanes lanes = (read(product + at, there) + read(bias + c, there)) * factors[row / sizes[1]];
                if (kept.levels) lanes *= kept(dropped[3] + at);
                write(product + at, lanes + read(x + at, there), there);
            });
    });
}

// `to_product = factor kept gradient`, and its sums to the bias.
extern "C" void residual_gradients(const Number* gradient, Number* to_product, const std::int64_t* sizes, const std::int64_t* dropped,
                                   float scale, const float* factors, float* to_bias, int threads) {
    static thread_local Scratch scratch;
    const int channels = sizes[2], stride = filled(channels), parts = row_parts(sizes[0] * sizes[1], threads);
    const Kept kept = kept_of(dropped, scale);
    float* sums = scratch.get(static_cast<std::size_t>(stride) * parts);
    std::fill_n(sums, static_cast<std::size_t>(stride) * parts, 0.0f);
    share_rows(sizes[0] * sizes[1], threads, [&](int part, std::int64_t first, std::int64_t last) {
        for (std::int64_t row = first; row < last; ++row)
            each(channels, [&](int c, auto there) {
                const std::size_t at = row * channels + c;
                Lanes lanes = read(gradient + at, there) * factors[row / sizes[1]];
                if (kept.levels) lanes *= kept(dropped[3] + at);
                write(to_product + at, lanes, there);
                add(sums + static_cast<std::size_t>(part) * stride + c, lanes);
            });
    });
    collect(sums, parts, stride);
    add_sums(sums, 1, channels, stride, to_bias);
}
