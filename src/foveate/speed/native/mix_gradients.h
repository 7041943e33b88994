// The way back through `Mixing`, in one pass over the map: what the forward pass did not keep is computed again, row by row.

#pragma once

#include "mixing.h"
#include "gradients.h"

namespace {

// Where the rows of a mixer's sums begin.
struct MixSums {
    int position = 0, position_bias = 9, gain = 10, shift = 11, taps = 12, bias, later_gain, later_shift, count;

    explicit MixSums(int side) : bias(taps + side * side), later_gain(bias + 1), later_shift(bias + 2), count(bias + 3) {}
};

// From the gradients to r (`outer`) and to `normal` (`inner`) of one picture, see `Mixing`, those to x and to the weights.
struct MixGradients {
    Mixing of;
    const Number *outer, *inner;
    Number* to_x;
    Filter position_back, filter_back;
    float* sums;  // (MixSums::count, stride)

    // Rows of the map that are at hand: `entering` x, `placed` p, `normed` norm(p), `shifted` what the filter reads; gradients to the
    // filter's response, to r, and to p.
    struct Rings {
        Ring entering, placed, normed, shifted, to_response, to_sum, to_placed;
    };

    // Rows of one step, and a pixel's numbers.
    struct Lines {
        float *scales, *response, *value, *slope, *turned, *normal, *gradient;
    };

    // Rows `first` to `last` of the gradient to x, and these rows' part of the sums.
    void operator()(int first, int last) const {
        static thread_local Scratch scratch[14];
        const int side = of.filter.side, half = side / 2, width = of.width, stride = of.stride, height = of.height;
        const std::size_t line = static_cast<std::size_t>(width) * stride;
        Rings at{{scratch[0], side + 2, width, 1, stride}, {scratch[1], half + 1, width, 0, stride}, {scratch[2], side, width, 0, stride},
                 {scratch[3], side, width, half, stride}, {scratch[4], side, width, half, stride}, {scratch[5], half + 1, width, 0, stride},
                 {scratch[6], 3, width, 1, stride}};
        const Lines to{scratch[7].get(side * width), scratch[8].get(line), scratch[9].get(line), scratch[10].get(line),
                       scratch[11].get(line), scratch[12].get(stride), scratch[13].get(stride)};
        const Span placed_back{std::max(first - 1, 0), std::min(last + 1, height)}, responded = placed_back.wider(half, height);
        const Span placed = responded.wider(half, height), own{first, last};
        int loaded = std::max(placed.first - 1, 0);
        for (int row = placed.first, back = first - 1; back < last - 1; ++row) {
            for (; row < placed.last && loaded < std::min(row + 2, height); ++loaded) of.read_row(loaded, at.entering.row(loaded));
            if (placed.has(row)) place(row, at, to);
            if (responded.has(row - half)) respond(row - half, at, to, own.has(row - half));
            if (placed_back.has(row - 2 * half)) lead_back(row - 2 * half, at, to, own.has(row - 2 * half));
            back = row - 2 * half - 1;
            if (own.has(back)) write_row(back, at);
        }
    }

    struct Span {
        int first, last;

        bool has(int row) const { return row >= first && row < last; }
        Span wider(int by, int height) const { return {std::max(first - by, 0), std::min(last + by, height)}; }
    };

    float* sum(int row) const { return sums + row * of.stride; }

    static const float* const* around(const Ring& ring, int centre, int side, int height) {
        static thread_local std::vector<const float*> rows;
        return ring.around(centre, side, height, rows);
    }

    // p, norm(p) with its scales, and what the filter reads, of one row.
    void place(int row, Rings& at, const Lines& to) const {
        const int stride = of.stride, width = of.width;
        convolve<NONE>(of.position, around(at.entering, row, 3, of.height), width, at.placed.row(row), stride, stride);
        for (int w = 0; w < width; ++w) {
            const float* pixel = at.placed.row(row) + w * stride;
            float *normed = at.normed.row(row) + w * stride, *shifted = at.shifted.row(row) + w * stride;
            const Moments found = moments(pixel, of.channels, stride, of.eps);
            to.scales[row % of.filter.side * width + w] = found.scale;
            for (int c = 0; c < stride; c += LANES) {
                const Lanes normal = (load(pixel + c) - found.mean) * found.scale;
                store(normed + c, normal);
                store(shifted + c, normal * load(of.gain + c) + load(of.shift + c));
            }
        }
    }

    // The gradients to r and to the filter's response, of one row.
    void respond(int row, Rings& at, const Lines& to, bool own) const {
        const int stride = of.stride, width = of.width, side = of.filter.side;
        const float* const* rows = around(at.shifted, row, side, of.height);
        convolve<NONE>(of.filter, rows, width, to.response, stride, stride);
        if (of.activation == RELU) activate<RELU>(to);
        else if (of.activation == GELU) activate<GELU>(to);
        else activate<NONE>(to);
        static thread_local Scratch scratch[2];
        const float* value = of.released ? of.reordered(to.value, scratch[0]) : to.value;
        const MixSums sum_rows(side);
        for (int w = 0; w < width; ++w) {
            const std::size_t place = (static_cast<std::size_t>(row) * width + w) * of.channels;
            lead_through_norm(at.placed.row(row) + w * stride, value + w * stride, place, at.to_sum.row(row) + w * stride, to,
                              own ? sums + sum_rows.later_gain * stride : nullptr);
        }
        const float* to_value = of.released ? reordered_back(at.to_sum.row(row), scratch[1]) : at.to_sum.row(row);
        float* gradient = at.to_response.row(row);
        for (int w = 0; w < width; ++w)
            for (int c = 0; c < stride; c += LANES) {
                const Lanes lanes = of.factor * load(to_value + w * stride + c) * load(to.slope + w * stride + c);
                store(gradient + w * stride + c, lanes);
                if (own) add(sum(sum_rows.bias) + c, lanes);
            }
        if (own) add_taps(rows, gradient, width, side, stride, sum(sum_rows.taps), stride);
    }

    template <int ACTIVATION>
    void activate(const Lines& to) const {
        for (int at = 0; at < of.width * of.stride; at += LANES) {
            const Response found = responded<ACTIVATION>(load(to.response + at));
            store(to.value + at, found.value);
            store(to.slope + at, found.slope);
        }
    }

    // The gradient to r at one pixel: `outer` and that through the later norm. `gain_sums`: of its gain, those of its shift behind.
    void lead_through_norm(
        const float* placed, const float* value, std::size_t place, float* to_sum, const Lines& to, float* gain_sums) const {
        const int stride = of.stride, channels = of.channels;
        for (int c = 0; c < stride; c += LANES) store(to.normal + c, load(placed + c) + of.factor * load(value + c));
        const Moments found = moments(to.normal, channels, stride, of.later_eps);
        for (int c = 0; c < stride; c += LANES) {
            const Lanes normal = (load(to.normal + c) - found.mean) * found.scale, gradient = read(inner + place + c, channels - c);
            store(to.normal + c, normal);
            store(to.gradient + c, gradient * load(of.later_gain + c));
            if (gain_sums) add(gain_sums + c, gradient * normal), add(gain_sums + stride + c, gradient);
        }
        norm_gradient(to.normal, to.gradient, found.scale, channels, stride, [=](int c, Lanes lanes) {
            store(to_sum + c, lanes + read(outer + place + c, channels - c));
        });
    }

    // What `Mixing::reordered` did, turned around.
    const float* reordered_back(const float* row, Scratch& scratch) const {
        float* to = scratch.get(static_cast<std::size_t>(of.width) * of.stride);
        std::fill_n(to, static_cast<std::size_t>(of.width) * of.stride, 0.0f);
        int pixel = 0, place = 0;
        for (int c = 0; c < of.channels; ++c)
            for (int w = 0; w < of.width; ++w) {
                to[w * of.stride + c] = row[pixel * of.stride + place];
                if (++place == of.channels) ++pixel, place = 0;
            }
        return to;
    }

    // The gradient to p of one row: that to r, and through the filter and the first norm.
    void lead_back(int row, Rings& at, const Lines& to, bool own) const {
        const int stride = of.stride, width = of.width, side = of.filter.side;
        const MixSums sum_rows(side);
        convolve<NONE>(filter_back, around(at.to_response, row, side, of.height), width, to.turned, stride, stride);
        float* to_placed = at.to_placed.row(row);
        for (int w = 0; w < width; ++w) {
            const float *normal = at.normed.row(row) + w * stride, *beside = at.to_sum.row(row) + w * stride;
            for (int c = 0; c < stride; c += LANES) {
                const Lanes gradient = load(to.turned + w * stride + c);
                store(to.gradient + c, gradient * load(of.gain + c));
                if (own) add(sum(sum_rows.gain) + c, gradient * load(normal + c)), add(sum(sum_rows.shift) + c, gradient);
            }
            const float scale = to.scales[row % side * width + w];
            norm_gradient(normal, to.gradient, scale, of.channels, stride, [=](int c, Lanes lanes) {
                lanes += load(beside + c);
                store(to_placed + w * stride + c, lanes);
                if (own) add(sum(sum_rows.position_bias) + c, lanes);
            });
        }
        if (own) add_taps(around(at.entering, row, 3, of.height), to_placed, width, 3, stride, sum(sum_rows.position), stride);
    }

    void write_row(int row, const Rings& at) const {
        Number* to = to_x + static_cast<std::size_t>(row) * of.width * of.channels;
        convolve<NONE>(position_back, around(at.to_placed, row, 3, of.height), of.width, to, of.channels, of.channels);
    }
};

// `whole`: of the first picture; sums of all pictures and bands go to `sums` (MixSums::count, stride), which is `scratch`'s.
const float* mix_gradients(MixGradients whole, int pictures, const float* factors, Scratch& scratch, int threads) {
    const int height = whole.of.height, bands = bands_of(pictures, height, threads), parts = parts_of(pictures, threads);
    const std::size_t picture = static_cast<std::size_t>(height) * whole.of.width * whole.of.channels;
    const std::size_t count = static_cast<std::size_t>(MixSums(whole.of.filter.side).count) * whole.of.stride;
    float* sums = scratch.get(count * parts * bands);
    std::fill_n(sums, count * parts * bands, 0.0f);
    share(parts * bands, threads, [&](int task) {
        const int part = task / bands, band = task % bands;
        for (int index = pictures * part / parts; index < pictures * (part + 1) / parts; ++index) {
            MixGradients one = whole;
            one.of.x += index * picture, one.outer += index * picture, one.inner += index * picture, one.to_x += index * picture;
            one.of.factor = factors ? factors[index] : 1.0f;
            one.sums = sums + task * count;
            one(height * band / bands, height * (band + 1) / bands);
        }
    });
    collect(sums, parts * bands, count);
    return sums;
}

}  // namespace
