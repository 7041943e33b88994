// The chains for training, as training.py calls them: weights come and gradients go in PyTorch's own layouts, float32.

#include "mix_gradients.h"
#include "packing.h"
#include "residual.h"

namespace {

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

// Sizes: B, pixels, C.
Residual residual_of(const std::int64_t* sizes, const std::int64_t* dropped, float scale, const float* factors) {
    return {static_cast<int>(sizes[2]), sizes[1], kept_of(dropped, scale), static_cast<std::size_t>(dropped[3]), factors};
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
    const auto start = static_cast<std::size_t>(dropped[3]);
    const FilterGradients whole{of, entering, inner, leaving, kept_of(dropped, scale), start, nullptr};
    add_group_sums(of, filter_gradients(whole, sizes[0], scratch[1], threads), gradients);
}

// `product = x + factor kept (product + bias)`, (B, pixels, C).
extern "C" void add_residual(const Number* x, Number* product, const std::int64_t* sizes, const float* bias, const std::int64_t* dropped,
                             float scale, const float* factors, int threads) {
    const Residual one = residual_of(sizes, dropped, scale, factors);
    share_rows(sizes[0] * sizes[1], threads, [&](int, std::int64_t first, std::int64_t last) { one.add(x, product, bias, first, last); });
}

// `to_product = factor kept gradient`, and its sums to the bias.
extern "C" void residual_gradients(const Number* gradient, Number* to_product, const std::int64_t* sizes, const std::int64_t* dropped,
                                   float scale, const float* factors, float* to_bias, int threads) {
    static thread_local Scratch scratch;
    const Residual one = residual_of(sizes, dropped, scale, factors);
    lead_back_rows(one, gradient, sizes[0] * sizes[1], to_product, to_bias, scratch, threads);
}
