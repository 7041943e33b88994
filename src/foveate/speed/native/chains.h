// What lies between the matrix products of an FViT block, in two passes over the map: the forward direction.
//
// Legend: B pictures, H x W map, C channels; maps are (B, H, W, C), contiguous.

#pragma once

#include "rows.h"
#include "threads.h"

namespace {

constexpr std::size_t CACHE_NUMBERS = 1 << 19;  // 2 MiB, about a core's second cache
constexpr int ROWS_OF_BAND = 6;  // or more, where threads need not wait: at a band's edges rows are computed twice

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

// In how many bands of rows each picture's map is shared out: few pictures in two for each thread, or at least in one.
inline int bands_of(int pictures, int height, int threads) {
    const int wanted = std::min((2 * threads + pictures - 1) / pictures, height / ROWS_OF_BAND);
    const int needed = std::min((threads + pictures - 1) / pictures, height / 2);
    return std::max({wanted, needed, 1});
}

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

// How the channels of a feed-forward's groups are shared out: a slice is small enough for its plane to stay in the cache and for every
// thread to have some.
struct Slices {
    int size, count;

    Slices(int group_width, std::size_t pixels, int pictures, int threads) {
        const int stride = filled(group_width);
        const std::size_t fitting = CACHE_NUMBERS / (pixels * LANES);
        const std::size_t shared = static_cast<std::size_t>(stride / LANES) * pictures / (2 * threads);
        size = static_cast<int>(std::clamp<std::size_t>(std::min(fitting, shared), 1, stride)) * LANES;
        count = (group_width + size - 1) / size;
    }
};

// The sizes and weights of a feed-forward's groups of hidden channels: maps are (H, W, channels), group after group in the channels; the
// first `untouched` pass without a filter. `stride`: a group's width filled up to whole groups of sixteen.
struct Groups {
    int height, width, channels, groups, untouched, stride;
    const float *entering, *taps, *bias;  // (groups, stride), (filters, 9, stride), (filters, stride)

    int group_width() const { return channels / groups; }

    std::size_t place(int group, int row, int first) const {
        return static_cast<std::size_t>(row) * width * channels + group * group_width() + first;
    }

    // Nine taps, the bias and the entering bias of `count` channels from `first` on, a row each.
    const float* gathered(int group, int first, int count, int own_stride, Scratch& scratch) const {
        float* to = scratch.get(11 * static_cast<std::size_t>(own_stride));
        std::fill_n(to, 11 * own_stride, 0.0f);
        std::copy_n(entering + group * stride + first, count, to + 10 * own_stride);
        const int filter = group - untouched;
        if (filter < 0) return to;
        for (int tap = 0; tap < 9; ++tap) std::copy_n(taps + (filter * 9 + tap) * stride + first, count, to + tap * own_stride);
        std::copy_n(bias + filter * stride + first, count, to + 9 * own_stride);
        return to;
    }
};

// `x1 = kept (h1 + b1); y1 = GELU(dw1(x1)); xi = kept (hi + bi) + y(i-1); yi = GELU(dwi(xi))` from the groups of hidden channels hi of one
// picture; for groups that pass untouched y = x. The y go to `leaving`; where that is another map, x is kept in the place of h.
struct Filtering {
    Groups of;
    Number *hidden, *leaving;
    Kept kept;
    std::size_t start;  // of this picture's numbers among those of all, for `kept`

    // Channels `first` to `last` of every group: the convolutions mix none of them.
    void operator()(int first, int last) const {
        static thread_local Scratch scratch[2];
        static thread_local std::vector<const float*> rows;
        const int count = last - first, own_stride = filled(count);
        for (int group = 0; group < of.groups; ++group) {
            Ring ring(scratch[0], 3, of.width, 1, own_stride);
            const float* weights = of.gathered(group, first, count, own_stride, scratch[1]);
            const Filter filter{3, own_stride, weights, weights + 9 * own_stride};
            for (int row = 0, loaded = 0; row < of.height; ++row) {
                for (; loaded < std::min(row + 2, of.height); ++loaded)
                    enter(group, loaded, first, count, own_stride, weights + 10 * own_stride, ring.row(loaded));
                Number* to = leaving + of.place(group, row, first);
                if (group < of.untouched) pass(ring.row(row), count, own_stride, to);
                else convolve<GELU>(filter, ring.around(row, 3, of.height, rows), of.width, to, of.channels, count);
            }
        }
    }

    // One row of x, into the ring and into its map.
    void enter(int group, int row, int first, int count, int own_stride, const float* plus, float* to) const {
        const std::size_t line = of.place(group, row, first);
        for (int w = 0; w < of.width; ++w)
            each(count, [&](int c, auto there) {
                const std::size_t place = line + w * of.channels + c;
                Lanes lanes = read(hidden + place, there) + load(plus + c);
                if (kept.levels) lanes *= kept(start + place);
                if (group > of.untouched) lanes += read(leaving + place - of.group_width(), there);
                store(to + w * own_stride + c, lanes);
                if (hidden != leaving) write(hidden + place, lanes, there);
            });
    }

    void pass(const float* row, int count, int own_stride, Number* to) const {
        for (int w = 0; w < of.width; ++w)
            each(count, [&](int c, auto there) { write(to + w * of.channels + c, load(row + w * own_stride + c), there); });
    }
};

// `hidden` and `leaving` of all pictures, which may be the same map; `start`: of their numbers, for `kept`.
void filter(const Groups& of, Number* hidden, Number* leaving, const Kept& kept, std::size_t start, int pictures, int threads) {
    const std::size_t pixels = static_cast<std::size_t>(of.height) * of.width;
    const Slices slices(of.group_width(), pixels, pictures, threads);
    share(pictures * slices.count, threads, [&](int task) {
        const int first = task % slices.count * slices.size, picture = task / slices.count;
        const std::size_t at = picture * pixels * of.channels;
        const Filtering one{of, hidden + at, leaving + at, kept, start + at};
        one(first, std::min(first + slices.size, of.group_width()));
    });
}

}  // namespace
