// Gabor kernels from their parameters and the way back, as gabor.py calls it: layers/gabor.py takes some sixty small operations of
// PyTorch's for that, which weigh in small pictures.

#include <cmath>

#include "threads.h"

namespace {

// One filter; `shift_x` and `shift_y` before tanh.
struct Gabor {
    float frequency, orientation, phase, aspect_ratio, sharpness, amplitude, shift_x, shift_y;
};

// `K = amplitude exp(-sharpness^2 (u^2 + aspect_ratio^2 v^2)) cos(frequency u + phase)` at the pixels (side, side), centred at zero, with
// `u = x cos(orientation) - y sin(orientation) + tanh(shift_x)`, `v = x sin(orientation) + y cos(orientation) + tanh(shift_y)`.
// `body(pixel, u, v, envelope, angle)` for each.
template <typename Body>
void each_pixel(const Gabor& of, int side, Body body) {
    const float cosine = std::cos(of.orientation), sine = std::sin(of.orientation);
    const float shift_x = std::tanh(of.shift_x), shift_y = std::tanh(of.shift_y);
    for (int pixel = 0; pixel < side * side; ++pixel) {
        const float x = pixel % side - side / 2, y = pixel / side - side / 2;
        const float u = x * cosine - y * sine + shift_x, v = x * sine + y * cosine + shift_y;
        const float across = of.aspect_ratio * v;
        body(pixel, u, v, std::exp(-of.sharpness * of.sharpness * (u * u + across * across)), of.frequency * u + of.phase);
    }
}

inline void make_kernel(const Gabor& of, int side, float* kernel) {
    each_pixel(of, side, [&](int pixel, float, float, float envelope, float angle) {
        kernel[pixel] = of.amplitude * envelope * std::cos(angle);
    });
}

// The gradients to the parameters from that to the kernel.
inline Gabor gabor_gradient(const Gabor& of, int side, const float* to_kernel) {
    Gabor to = {};
    float to_u = 0, to_v = 0;
    const float squared = of.sharpness * of.sharpness, ratio = of.aspect_ratio;
    const float shift_x = std::tanh(of.shift_x), shift_y = std::tanh(of.shift_y);
    each_pixel(of, side, [&](int pixel, float u, float v, float envelope, float angle) {
        const float gradient = to_kernel[pixel] * envelope, even = gradient * std::cos(angle), value = of.amplitude * even;
        const float slope = -of.amplitude * gradient * std::sin(angle);  // to the angle
        const float along = slope * of.frequency - 2 * squared * u * value, across = -2 * squared * ratio * ratio * v * value;
        to.amplitude += even;
        to.phase += slope;
        to.frequency += slope * u;
        to.sharpness -= 2 * of.sharpness * (u * u + ratio * ratio * v * v) * value;
        to.aspect_ratio -= 2 * squared * ratio * v * v * value;
        to.orientation += across * (u - shift_x) - along * (v - shift_y);
        to_u += along, to_v += across;
    });
    to.shift_x = to_u * (1 - shift_x * shift_x), to.shift_y = to_v * (1 - shift_y * shift_y);
    return to;
}

// The parameters of one of the filters, in the order of the members.
Gabor gabor_of(const float* const* parameters, std::int64_t filter) {
    const auto value = [=](int which) { return parameters[which][filter]; };
    return {value(0), value(1), value(2), value(3), value(4), value(5), value(6), value(7)};
}

}  // namespace

// Sizes are filters, side of the kernels, which are (filters, side, side).
extern "C" void gabor_all(const float* const* parameters, float* kernels, const std::int64_t* sizes, int threads) {
    const int side = sizes[1];
    share_rows(sizes[0], threads, [&](int, std::int64_t first, std::int64_t last) {
        for (std::int64_t i = first; i < last; ++i) make_kernel(gabor_of(parameters, i), side, kernels + i * side * side);
    });
}

extern "C" void gabor_gradients_of_all(const float* const* parameters, const float* to_kernels, float* const* gradients,
                                       const std::int64_t* sizes, int threads) {
    const int side = sizes[1];
    share_rows(sizes[0], threads, [&](int, std::int64_t first, std::int64_t last) {
        for (std::int64_t i = first; i < last; ++i) {
            const Gabor to = gabor_gradient(gabor_of(parameters, i), side, to_kernels + i * side * side);
            const float values[] = {to.frequency, to.orientation, to.phase, to.aspect_ratio,
                                    to.sharpness, to.amplitude, to.shift_x, to.shift_y};
            for (int which = 0; which < 8; ++which) gradients[which][i] = values[which];
        }
    });
}
