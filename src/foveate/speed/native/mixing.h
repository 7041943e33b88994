// What lies before the feed-forward of an FViT block, in one pass over the map: the forward direction.
//
// Legend: B pictures, H x W map, C channels; maps are (B, H, W, C), contiguous.

#pragma once

#include "rows.h"
#include "threads.h"

namespace {

// `p = position(x); r = p + factor activation(filter(gain norm(p) + shift))`, then `y = r + later_bias` and
// `normal = later_gain norm(r) + later_shift`, (H, W, C) each; later gain and shift are left out where they are null: in inference they are
// folded into the product that follows.
// `released`: the filter's response is handed on in the order of the authors' code, see layers/gabor.py.
struct Mixing {
    const Number* x;
    Number *y, *normal;
    int height, width, channels, stride, activation;
    bool released;
    Filter position, filter;
    const float *gain, *shift, *later_bias, *later_gain, *later_shift;
    float eps, later_eps, factor;

    // Rows `first` to `last` of the outputs.
    void operator()(int first, int last) const {
        static thread_local Scratch scratch[6];
        static thread_local std::vector<const float*> rows;
        const int half = filter.side / 2, begin = std::max(first - half, 0), end = std::min(last + half, height);
        Ring entering(scratch[0], 3, width, 1, stride), placed(scratch[1], filter.side, width, 0, stride);
        Ring normed(scratch[2], filter.side, width, half, stride);
        float *response = scratch[3].get(static_cast<std::size_t>(width) * stride), *pixel = scratch[4].get(stride);
        int loaded = std::max(begin - 1, 0);
        for (int row = begin; row < last + half; ++row) {
            if (row < end) {
                for (; loaded < std::min(row + 2, height); ++loaded) read_row(loaded, entering.row(loaded));
                convolve<NONE>(position, entering.around(row, 3, height, rows), width, placed.row(row), stride, stride);
                norm_row(placed.row(row), normed.row(row));
            }
            const int ready = row - half;
            if (ready < first) continue;
            respond(normed.around(ready, filter.side, height, rows), response);
            write_row(ready, placed.row(ready), released ? reordered(response, scratch[5]) : response, pixel);
        }
    }

    void read_row(int row, float* to) const {
        const Number* from = x + static_cast<std::size_t>(row) * width * channels;
        for (int w = 0; w < width; ++w)
            for (int c = 0; c < stride; c += LANES) store(to + w * stride + c, read(from + w * channels + c, channels - c));
    }

    void norm_row(const float* from, float* to) const {
        for (int w = 0; w < width; ++w)
            normalise(from + w * stride, channels, stride, eps, [=](int c, Lanes lanes) {
                store(to + w * stride + c, lanes * load(gain + c) + load(shift + c));
            });
    }

    void respond(const float* const* rows, float* to) const {
        if (activation == RELU) convolve<RELU>(filter, rows, width, to, stride, stride);
        else if (activation == GELU) convolve<GELU>(filter, rows, width, to, stride, stride);
        else convolve<NONE>(filter, rows, width, to, stride, stride);
    }

    // The row's W x C numbers written as C x W and read as W x C.
    const float* reordered(const float* response, Scratch& scratch) const {
        float* to = scratch.get(static_cast<std::size_t>(width) * stride);
        std::fill_n(to, static_cast<std::size_t>(width) * stride, 0.0f);
        int pixel = 0, place = 0;
        for (int c = 0; c < channels; ++c)
            for (int w = 0; w < width; ++w) {
                to[pixel * stride + place] = response[w * stride + c];
                if (++place == channels) ++pixel, place = 0;
            }
        return to;
    }

    void write_row(int row, const float* before, const float* response, float* pixel) const {
        for (int w = 0; w < width; ++w) {
            const std::size_t at = (static_cast<std::size_t>(row) * width + w) * channels;
            for (int c = 0; c < stride; c += LANES) {
                const Lanes sum = load(before + w * stride + c) + factor * load(response + w * stride + c);
                store(pixel + c, sum);
                write(y + at + c, sum + load(later_bias + c), channels - c);
            }
            normalise(pixel, channels, stride, later_eps, [=](int c, Lanes lanes) {
                if (later_gain) lanes = lanes * load(later_gain + c) + load(later_shift + c);
                write(normal + at + c, lanes, channels - c);
            });
        }
    }
};

// `whole`: the sizes and weights of all pictures, and the maps of the first; `factors`: one for each picture, null for ones.
void mix(const Mixing& whole, int pictures, const float* factors, int threads) {
    const int bands = bands_of(pictures, whole.height, threads);
    const std::size_t picture = static_cast<std::size_t>(whole.height) * whole.width * whole.channels;
    share(pictures * bands, threads, [&](int task) {
        const int index = task / bands, band = task % bands;
        Mixing one = whole;
        one.x += index * picture, one.y += index * picture, one.normal += index * picture;
        one.factor = factors ? factors[index] : 1.0f;
        one(whole.height * band / bands, whole.height * (band + 1) / bands);
    });
}

}  // namespace
