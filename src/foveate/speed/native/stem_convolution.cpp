// Two convolutions of FViT's stem in training with GELU and batch norm between them, as stem_training.py calls it: what stands between
// them is never in memory. Float32 alone.

#include "convolution.h"
#include "gelu_norm.h"

namespace {

// `gain GELU(h) + shift`, what the second convolution reads, of the first one's outcome.
struct Entering {
    const float* h;
    int width, channels;
    const float *gain, *shift;

    void operator()(std::int64_t row, float* to) const {
        const float* from = h + row * width * channels;
        for (int at = 0; at < width * channels; at += channels)
            each(channels, [&](int c, auto there) {
                write(to + at + c, activated<GELU>(read(from + at + c, there)) * load(gain + c) + load(shift + c), there);
            });
    }
};

// One row of outputs to a map of `channels` numbers a pixel; `line` is where it is made if these are not whole groups of sixteen.
void make_row(const Convolution& convolution, const float* const* rows, int width, int channels, float* line, float* to) {
    if (channels == convolution.stride) return convolution(rows, width, to);
    convolution(rows, width, line);
    for (int w = 0; w < width; ++w)
        each(channels, [&](int c, auto there) { write(to + w * channels + c, load(line + w * convolution.stride + c), there); });
}

}  // namespace

// `h = conv(gain GELU(before) + shift)`. Sizes: B, H, W, channels of both. Weights: kernel, bias, gain and shift, the last three filled up.
extern "C" void stem_convolution(const float* before, float* h, const std::int64_t* sizes, const float* const* weights, int threads) {
    static thread_local Scratch scratch;
    const int pictures = sizes[0], height = sizes[1], width = sizes[2], from = sizes[3], channels = sizes[4], stride = filled(channels);
    const Convolution convolution{from, stride, 1, gathered_taps(weights[0], from, channels, false, scratch), weights[1]};
    const Entering enter{before, width, from, weights[2], weights[3]};
    share_map_rows(pictures, height, threads, [&](int, int picture, int first, int last) {
        static thread_local Scratch own[2];
        static thread_local std::vector<const float*> rows;
        const std::int64_t begin = static_cast<std::int64_t>(picture) * height;
        Ring entering(own[0], 3, width, 1, from);
        float* line = own[1].get(static_cast<std::size_t>(width) * stride);
        for (int row = first, loaded = std::max(first - 1, 0); row < last; ++row) {
            for (; loaded < std::min(row + 2, height); ++loaded) enter(begin + loaded, entering.row(loaded));
            make_row(convolution, entering.around(row, 3, height, rows), width, channels, line, h + (begin + row) * width * channels);
        }
    });
}

// From the gradient to what GELU and batch norm make of h that to `gain GELU(before) + shift`, sizes as above. Weights: kernel, gain and
// shift of the first, then mean, scale and gain of what follows h. Gradients: to gain and shift of that, kernel and bias; they are added.
extern "C" void stem_convolution_back(const float* before, const float* h, const float* outer, float* to_entering,
                                      const std::int64_t* sizes, const float* const* weights, float* const* gradients, int threads) {
    static thread_local Scratch scratch[3];
    const int pictures = sizes[0], height = sizes[1], width = sizes[2], from = sizes[3], channels = sizes[4], stride = filled(channels);
    const std::int64_t map_rows = static_cast<std::int64_t>(pictures) * height;
    const Convolution back{channels, filled(from), 1, gathered_taps(weights[0], from, channels, true, scratch[0]), nullptr};
    const Entering enter{before, width, from, weights[1], weights[2]};
    const GeluNormGradient plain{channels, weights[3], weights[4], weights[5], nullptr, nullptr};
    const GeluNormGradient norm = with_means(plain, h, outer, map_rows * width, gradients, scratch[1], threads);
    const std::size_t of_kernel = static_cast<std::size_t>(9) * from * stride, count = of_kernel + stride;
    const int parts = row_parts(map_rows, threads);
    float* sums = scratch[2].get(count * parts);
    std::fill_n(sums, count * parts, 0.0f);
    share_map_rows(pictures, height, threads, [&](int part, int picture, int first, int last) {
        static thread_local Scratch own[3];
        static thread_local std::vector<const float*> rows;
        const std::int64_t begin = static_cast<std::int64_t>(picture) * height;
        Ring entering(own[0], 3, width, 1, from), leaving(own[1], 3, width, 1, channels);
        float *line = own[2].get(static_cast<std::size_t>(width) * back.stride), *to_kernel = sums + part * count;
        for (int row = first, loaded = std::max(first - 1, 0); row < last; ++row) {
            for (; loaded < std::min(row + 2, height); ++loaded) {
                const std::int64_t at = (begin + loaded) * width * channels;
                const bool counts = loaded >= first && loaded < last;  // rows beside those of this part are another's
                enter(begin + loaded, entering.row(loaded));
                norm.lead_back(h + at, outer + at, width, leaving.row(loaded), counts ? to_kernel + of_kernel : nullptr);
            }
            add_kernel_gradient(entering.around(row, 3, height, rows), leaving.row(row), width, from, channels, to_kernel);
            make_row(back, leaving.around(row, 3, height, rows), width, from, line, to_entering + (begin + row) * width * from);
        }
    });
    collect(sums, parts, count);
    add_kernel_sums(sums, from, channels, gradients[2]);
    add_sums(sums + of_kernel, 1, channels, stride, gradients[3]);
}
