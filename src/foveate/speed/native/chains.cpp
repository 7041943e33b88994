// The chains for inference, as chains.py calls them.

#include "filtering.h"
#include "mixing.h"

// Sizes are B, H, W, C, stride, the filter's side, activation, released; weights are taps and bias of the position embedding, gain and
// shift of the first norm, taps and bias of the filter, the later bias; eps of both norms.
extern "C" void mix_all(
    const Number* x, Number* y, Number* normal, const std::int64_t* sizes, const float* const* weights, const float* eps, int threads) {
    Mixing whole = {};
    whole.x = x, whole.y = y, whole.normal = normal;
    whole.height = sizes[1], whole.width = sizes[2], whole.channels = sizes[3], whole.stride = sizes[4];
    whole.activation = sizes[6], whole.released = sizes[7] != 0;
    whole.position = {3, whole.stride, weights[0], weights[1]};
    whole.filter = {static_cast<int>(sizes[5]), whole.stride, weights[4], weights[5]};
    whole.gain = weights[2], whole.shift = weights[3], whole.later_bias = weights[6];
    whole.eps = eps[0], whole.later_eps = eps[1];
    mix(whole, sizes[0], nullptr, threads);
}

// Sizes are B, H, W, channels, groups, untouched groups.
extern "C" void filter_all(
    Number* hidden, const std::int64_t* sizes, const float* entering, const float* taps, const float* bias, int threads) {
    const int height = sizes[1], width = sizes[2], channels = sizes[3], groups = sizes[4], untouched = sizes[5];
    const Groups of{height, width, channels, groups, untouched, filled(channels / groups), entering, taps, bias};
    filter(of, hidden, hidden, {}, 0, sizes[0], threads);
}
