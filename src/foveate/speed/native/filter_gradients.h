// The way back through `Filtering`, in one pass over each group's map, the last group first.

#pragma once

#include "filtering.h"
#include "gradients.h"

namespace {

// From the gradient to what leaves the groups of one picture (`inner`), see `Filtering`, that to the hidden map before them in its place,
// and those to the weights; what leaves is computed again from what entered, for the gradient of the linear layer behind.
struct FilterGradients {
    Groups of;
    const Number* entering;
    Number *inner, *leaving;
    Kept kept;
    std::size_t start;  // of this picture's numbers among those of all, for `kept`
    float* sums;  // rows of `stride`: nine taps and the bias of each filter, then the entering bias of each group

    // Channels of one group, from `first` on.
    struct Slice {
        int group, first, count, stride;
    };

    void operator()(int first, int last) const {
        const int count = last - first, stride = filled(count);
        for (int group = of.groups - 1; group >= 0; --group) {
            if (group < of.untouched) pass({group, first, count, stride});
            else lead_back({group, first, count, stride});
        }
    }

    float* sum(int row, int first) const { return sums + static_cast<std::size_t>(row) * of.stride + first; }

    float* entering_sum(const Slice& at) const { return sum((of.groups - of.untouched) * 10 + at.group, at.first); }

    void pass(const Slice& at) const {
        for (int row = 0; row < of.height; ++row)
            for (int w = 0; w < of.width; ++w)
                each(at.count, [&](int c, auto there) {
                    const std::size_t place = of.place(at.group, row, at.first) + w * of.channels + c;
                    write(leaving + place, read(entering + place, there), there);
                    hand_on(at, place, c, read(inner + place, there), there);
                });
    }

    void lead_back(const Slice& at) const {
        static thread_local Scratch scratch[5];
        static thread_local std::vector<const float*> rows, later_rows;
        const int stride = at.stride, width = of.width, height = of.height;
        Ring ring(scratch[0], 3, width, 1, stride), gradients(scratch[1], 3, width, 1, stride);
        const float* weights = of.gathered(at.group, at.first, at.count, stride, scratch[2]);
        const Filter filter{3, stride, weights, weights + 9 * stride}, back = turned(filter, scratch[3]);
        float* line = scratch[4].get(static_cast<std::size_t>(width) * stride);
        for (int row = 0, loaded = 0; row <= height; ++row) {
            if (row < height) {
                for (; loaded < std::min(row + 2, height); ++loaded) enter(at, loaded, ring.row(loaded));
                const float* const* around = ring.around(row, 3, height, rows);
                convolve<NONE>(filter, around, width, line, stride, stride);
                respond(at, row, line, gradients.row(row));
                add_taps(around, gradients.row(row), width, 3, stride, sum((at.group - of.untouched) * 10, at.first), of.stride);
            }
            if (row == 0) continue;
            convolve<NONE>(back, gradients.around(row - 1, 3, height, later_rows), width, line, stride, stride);
            hand_row_on(at, row - 1, line);
        }
    }

    void enter(const Slice& at, int row, float* to) const {
        const Number* from = entering + of.place(at.group, row, at.first);
        for (int w = 0; w < of.width; ++w)
            each(at.count, [&](int c, auto there) { store(to + w * at.stride + c, read(from + w * of.channels + c, there)); });
    }

    // What leaves, and the gradient to the filter's response. What the next row will touch is brought into the cache meanwhile, a pixel
    // at a time: lines of a slice lie too far apart to be foreseen, and many at once would stand in the way of what is read next.
    void respond(const Slice& at, int row, const float* line, float* to) const {
        const std::size_t begin = of.place(at.group, row, at.first), next = row + 1 < of.height ? of.line() : 0;
        float* bias = sum((at.group - of.untouched) * 10 + 9, at.first);
        for (int w = 0; w < of.width; ++w)
            each(at.count, [&](int c, auto there) {
                const Response found = responded<GELU>(load(line + w * at.stride + c));
                const std::size_t place = begin + w * of.channels + c;
                __builtin_prefetch(inner + place + next, 1);
                __builtin_prefetch(leaving + place + next, 1);
                const Lanes gradient = read(inner + place, there) * found.slope;
                write(leaving + place, found.value, there);
                store(to + w * at.stride + c, gradient);
                add(bias + c, gradient);
            });
    }

    // One row of gradients to what enters a group; what `enter` reads next is three rows below.
    void hand_row_on(const Slice& at, int row, const float* gradients) const {
        const std::size_t begin = of.place(at.group, row, at.first), next = row + 1 < of.height ? of.line() : 0;
        const std::size_t later = (std::min(row + 3, of.height - 1) - row) * of.line();
        for (int w = 0; w < of.width; ++w)
            each(at.count, [&](int c, auto there) {
                const std::size_t place = begin + w * of.channels + c;
                __builtin_prefetch(entering + place + later);
                if (at.group > of.untouched) __builtin_prefetch(inner + place + next - of.group_width(), 1);
                hand_on(at, place, c, load(gradients + w * at.stride + c), there);
            });
    }

    // A gradient to what enters a group, at a place of the map: to what left the group before, and to the hidden map.
    template <typename There>
    void hand_on(const Slice& at, std::size_t place, int c, Lanes gradient, There there) const {
        if (at.group > of.untouched) {
            Number* before = inner + place - of.group_width();
            write(before, read(before, there) + gradient, there);
        }
        if (kept.levels) gradient *= kept(start + place);
        add(entering_sum(at) + c, gradient);
        write(inner + place, gradient, there);
    }
};

// Numbers that the sums of `FilterGradients` take.
inline std::size_t sums_of(const Groups& of) {
    return static_cast<std::size_t>((of.groups - of.untouched) * 10 + of.groups) * of.stride;
}

// One picture, by one thread.
inline void filter_picture_back(const FilterGradients& one) {
    const Groups& of = one.of;
    const Slices slices(of.group_width(), static_cast<std::size_t>(of.height) * of.width, of.stride / FILL);
    for (int first = 0; first < of.group_width(); first += slices.size) one(first, std::min(first + slices.size, of.group_width()));
}

// All pictures; the sums are `scratch`'s.
inline const float* filter_gradients(FilterGradients whole, int pictures, Scratch& scratch, int threads) {
    const Groups& of = whole.of;
    const std::size_t pixels = static_cast<std::size_t>(of.height) * of.width;
    const std::size_t count = sums_of(of);
    const Slices slices(of.group_width(), pixels, pictures, threads);
    const int parts = parts_of(pictures, threads);
    float* sums = scratch.get(count * parts);
    std::fill_n(sums, count * parts, 0.0f);
    share(parts * slices.count, threads, [&](int task) {
        const int part = task / slices.count, first = task % slices.count * slices.size;
        for (int picture = pictures * part / parts; picture < pictures * (part + 1) / parts; ++picture) {
            const std::size_t at = picture * pixels * of.channels;
            FilterGradients one = whole;
            one.entering += at, one.inner += at, one.leaving += at, one.start += at, one.sums = sums + part * count;
            one(first, std::min(first + slices.size, of.group_width()));
        }
    });
    collect(sums, parts, count);
    return sums;
}

}  // namespace
