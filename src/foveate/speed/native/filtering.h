// What lies between the matrix products of FViT's feed-forward, in one pass over the hidden map: the forward direction.
//
// Legend: B pictures, H x W map; maps are (B, H, W, channels), contiguous.

#pragma once

#include "rows.h"
#include "threads.h"

namespace {

constexpr std::size_t CACHE_NUMBERS = 1 << 19;  // 2 MiB, about a core's second cache

// How the channels of a feed-forward's groups are shared out: a slice is small enough for its plane to stay in the cache and for every
// thread to have some.
struct Slices {
    int size, count;

    Slices(int group_width, std::size_t pixels, int pictures, int threads)
        : Slices(group_width, pixels, static_cast<std::size_t>(filled(group_width) / FILL) * pictures / (2 * threads)) {}

    // `most`: groups of sixteen channels in a slice.
    Slices(int group_width, std::size_t pixels, std::size_t most) {
        const std::size_t fitting = CACHE_NUMBERS / (pixels * FILL);
        size = static_cast<int>(std::clamp<std::size_t>(std::min(fitting, most), 1, filled(group_width))) * FILL;
        count = (group_width + size - 1) / size;
    }
};

// The sizes and weights of a feed-forward's groups of hidden channels: maps are (H, W, channels), group after group in the channels; the
// first `untouched` pass without a filter. `stride`: a group's width filled up to whole groups of sixteen.
struct Groups {
    int height, width, channels, groups, untouched, stride;
    const float *entering, *taps, *bias;  // (groups, stride), (filters, 9, stride), (filters, stride)

    int group_width() const { return channels / groups; }

    std::size_t line() const { return static_cast<std::size_t>(width) * channels; }

    std::size_t place(int group, int row, int first) const { return row * line() + group * group_width() + first; }

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

    // One row of x, into the ring and into its map. The next row is brought into the cache meanwhile, a pixel at a time: lines of a slice
    // lie too far apart to be foreseen.
    void enter(int group, int row, int first, int count, int own_stride, const float* plus, float* to) const {
        const std::size_t begin = of.place(group, row, first), next = row + 1 < of.height ? of.line() : 0;
        for (int w = 0; w < of.width; ++w)
            each(count, [&](int c, auto there) {
                const std::size_t place = begin + w * of.channels + c;
                __builtin_prefetch(hidden + place + next, 1);
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

// One picture, by one thread.
inline void filter_picture(const Filtering& one) {
    const Groups& of = one.of;
    const Slices slices(of.group_width(), static_cast<std::size_t>(of.height) * of.width, of.stride / FILL);
    for (int first = 0; first < of.group_width(); first += slices.size) one(first, std::min(first + slices.size, of.group_width()));
}

// `hidden` and `leaving` of all pictures, which may be the same map; `start`: of their numbers, for `kept`.
inline void filter(const Groups& of, Number* hidden, Number* leaving, const Kept& kept, std::size_t start, int pictures, int threads) {
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
