// What lies between the matrix products of an FViT block, in two passes over the map; for inference.
//
// Legend: B pictures, H x W map, C channels; maps are (B, H, W, C), contiguous.

#include <atomic>

#include "rows.h"

// The entry of GNU's OpenMP library that compilers call: PyTorch's own threads do the work, whichever compiler this is.
extern "C" void GOMP_parallel(void (*function)(void*), void* data, unsigned threads, unsigned flags);

namespace {

constexpr std::size_t CACHE_NUMBERS = 1 << 19;  // 2 MiB, about a core's second cache
constexpr int ROWS_OF_BAND = 6;  // or more, where threads need not wait: at a band's edges rows are computed twice

// `task(0)` to `task(count - 1)`, each by the thread that is free.
template <typename Task>
void share(int count, int threads, const Task& task) {
    struct Work {
        std::atomic<int> next;
        int count;
        const Task* task;
    } work{{0}, count, &task};
    const auto run = [](void* data) {
        Work& own = *static_cast<Work*>(data);
        for (int index = own.next++; index < own.count; index = own.next++) (*own.task)(index);
    };
    GOMP_parallel(run, &work, threads, 0);
}

// `p = position(x); r = p + activation(filter(gain norm(p) + shift)); y = r + later_bias; normal = norm(r)`, (H, W, C) each.
// `released`: the filter's response is handed on in the order of the authors' code, see layers/gabor.py.
template <typename Number>
struct Mixing {
    const Number* x;
    Number *y, *normal;
    int height, width, channels, stride, activation;
    bool released;
    Filter position, filter;
    const float *gain, *shift, *later_bias;
    float eps, later_eps;

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
                const Lanes sum = load(before + w * stride + c) + load(response + w * stride + c);
                store(pixel + c, sum);
                write(y + at + c, sum + load(later_bias + c), channels - c);
            }
            normalise(pixel, channels, stride, later_eps, [=](int c, Lanes lanes) { write(normal + at + c, lanes, channels - c); });
        }
    }
};

template <typename Number>
void mix(const void* x, void* y, void* normal, const std::int64_t* sizes, const float* const* weights, const float* eps, int threads) {
    const int pictures = sizes[0], height = sizes[1], width = sizes[2], channels = sizes[3], stride = sizes[4];
    const Filter position{3, stride, weights[0], weights[1]}, filter{static_cast<int>(sizes[5]), stride, weights[4], weights[5]};
    // few pictures are shared out in bands of rows, two for each thread or at least one
    const int wanted = std::min((2 * threads + pictures - 1) / pictures, height / ROWS_OF_BAND);
    const int needed = std::min((threads + pictures - 1) / pictures, height / 2);
    const int bands = std::max({wanted, needed, 1});
    const std::size_t picture = static_cast<std::size_t>(height) * width * channels;
    share(pictures * bands, threads, [&](int task) {
        const std::size_t at = task / bands * picture;
        const int band = task % bands;
        const Mixing<Number> one{static_cast<const Number*>(x) + at, static_cast<Number*>(y) + at, static_cast<Number*>(normal) + at,
                                 height, width, channels, stride, static_cast<int>(sizes[6]), sizes[7] != 0, position, filter,
                                 weights[2], weights[3], weights[6], eps[0], eps[1]};
        one(height * band / bands, height * (band + 1) / bands);
    });
}

// `y1 = GELU(dw1(x1 + b1))`, `yi = GELU(dwi(xi + bi + y(i-1)))` in the place of the groups of hidden channels xi of one picture,
// (H, W, channels); groups that pass untouched get their bias alone.
template <typename Number>
struct Filtering {
    Number* hidden;
    int height, width, channels, groups, untouched, stride;
    const float *entering, *taps, *bias;  // (groups, stride), (filters, 9, stride), (filters, stride)

    // Channels `first` to `last` of every group: the convolutions mix none of them.
    void operator()(int first, int last) const {
        static thread_local Scratch scratch[2];
        static thread_local std::vector<const float*> rows;
        const int count = last - first, own_stride = (count + LANES - 1) / LANES * LANES;
        for (int group = 0; group < untouched; ++group) add_bias(group, first, count);
        for (int group = untouched; group < groups; ++group) {
            Ring ring(scratch[0], 3, width, 1, own_stride);
            const float* weights = gathered(group, first, count, own_stride, scratch[1]);
            const Filter filter{3, own_stride, weights, weights + 9 * own_stride};
            for (int row = 0, loaded = 0; row < height; ++row) {
                for (; loaded < std::min(row + 2, height); ++loaded)
                    read_row(group, loaded, first, count, own_stride, weights + 10 * own_stride, ring.row(loaded));
                convolve<GELU>(filter, ring.around(row, 3, height, rows), width, place(group, row, first), channels, count);
            }
        }
    }

    Number* place(int group, int row, int first) const {
        return hidden + static_cast<std::size_t>(row) * width * channels + group * (channels / groups) + first;
    }

    void add_bias(int group, int first, int count) const {
        for (int row = 0; row < height; ++row)
            for (int w = 0; w < width; ++w)
                for (int c = 0; c < count; c += LANES) {
                    Number* at = place(group, row, first) + w * channels + c;
                    write(at, read(at, count - c) + read(entering + group * stride + first + c, count - c), count - c);
                }
    }

    // Nine taps, the bias and the entering bias of the channels at hand, a row each.
    const float* gathered(int group, int first, int count, int own_stride, Scratch& scratch) const {
        float* to = scratch.get(11 * static_cast<std::size_t>(own_stride));
        std::fill_n(to, 11 * own_stride, 0.0f);
        const int filter = group - untouched;
        for (int tap = 0; tap < 9; ++tap) std::copy_n(taps + (filter * 9 + tap) * stride + first, count, to + tap * own_stride);
        std::copy_n(bias + filter * stride + first, count, to + 9 * own_stride);
        std::copy_n(entering + group * stride + first, count, to + 10 * own_stride);
        return to;
    }

    void read_row(int group, int row, int first, int count, int own_stride, const float* plus, float* to) const {
        const Number* from = place(group, row, first);
        for (int w = 0; w < width; ++w)
            for (int c = 0; c < count; c += LANES) {
                Lanes lanes = read(from + w * channels + c, count - c) + load(plus + c);
                if (group > untouched) lanes += read(from - channels / groups + w * channels + c, count - c);
                store(to + w * own_stride + c, lanes);
            }
    }
};

template <typename Number>
void filter(void* hidden, const std::int64_t* sizes, const float* entering, const float* taps, const float* bias, int threads) {
    const int pictures = sizes[0], height = sizes[1], width = sizes[2], channels = sizes[3], groups = sizes[4], untouched = sizes[5];
    const int group_width = channels / groups, stride = (group_width + LANES - 1) / LANES * LANES;
    // a task is a slice of the channels, small enough for its plane to stay in the cache and for every thread to have some
    const std::size_t fitting = CACHE_NUMBERS / (static_cast<std::size_t>(height) * width * LANES);
    const std::size_t shared = static_cast<std::size_t>(stride / LANES) * pictures / (2 * threads);
    const int slice = static_cast<int>(std::clamp<std::size_t>(std::min(fitting, shared), 1, stride)) * LANES;
    const int slices = (group_width + slice - 1) / slice;
    const std::size_t picture = static_cast<std::size_t>(height) * width * channels;
    share(pictures * slices, threads, [&](int task) {
        const int first = task % slices * slice;
        Number* own = static_cast<Number*>(hidden) + task / slices * picture;
        const Filtering<Number> one{own, height, width, channels, groups, untouched, stride, entering, taps, bias};
        one(first, std::min(first + slice, group_width));
    });
}

}  // namespace

// What native_chains.py calls.
// mix: sizes are B, H, W, C, stride, the filter's side, activation, released; weights are taps and bias of the position embedding, gain and
// shift of the first norm, taps and bias of the filter, the later bias; eps of both norms.
// filter: sizes are B, H, W, channels, groups, untouched groups.
#define EXPORT(FORMAT, Number)                                                                                                             \
    extern "C" void mix_##FORMAT(const void* x, void* y, void* normal, const std::int64_t* sizes, const float* const* weights,             \
                                 const float* eps, int threads) {                                                                          \
        mix<Number>(x, y, normal, sizes, weights, eps, threads);                                                                           \
    }                                                                                                                                      \
    extern "C" void filter_##FORMAT(void* hidden, const std::int64_t* sizes, const float* entering, const float* taps, const float* bias,  \
                                    int threads) {                                                                                         \
        filter<Number>(hidden, sizes, entering, taps, bias, threads);                                                                      \
    }

EXPORT(float32, float)
EXPORT(bfloat16, Bfloat16)
