// What follows a convolution of FViT's stem in training, GELU and batch norm, in both directions, as stem_training.py calls it. Maps are
// (pixels, C), contiguous; weights and sums float32.

#include "gelu_norm.h"

namespace {

constexpr int TOGETHER = 64;  // pixels whose moments are taken from the first cache

// Mean and sum of squared deviations of several pixels, for every channel; two of them make one, after Chan, Golub and LeVeque (1979).
struct Spread {
    float *mean, *squares;
    std::int64_t count;

    void merge(const Spread& other, int stride) {
        const float all = static_cast<float>(count + other.count), share = other.count / all, weight = share * count;
        for (int c = 0; c < stride; c += LANES) {
            const Lanes apart = load(other.mean + c) - load(mean + c);
            store(mean + c, load(mean + c) + share * apart);
            store(squares + c, load(squares + c) + load(other.squares + c) + weight * apart * apart);
        }
        count += other.count;
    }
};

// Of GELU of up to `TOGETHER` pixels; `values` has room for them.
void spread_of(const Number* h, int pixels, int channels, int stride, float* values, Spread& to) {
    for (int p = 0; p < pixels; ++p)
        each(channels, [&](int c, auto there) { store(values + p * stride + c, activated<GELU>(read(h + p * channels + c, there))); });
    for (int c = 0; c < stride; c += LANES) {
        Lanes total = {}, squares = {};
        for (int p = 0; p < pixels; ++p) total += load(values + p * stride + c);
        const Lanes mean = total / static_cast<float>(pixels);
        for (int p = 0; p < pixels; ++p) {
            const Lanes centred = load(values + p * stride + c) - mean;
            squares += centred * centred;
        }
        store(to.mean + c, mean), store(to.squares + c, squares);
    }
    to.count = pixels;
}

}  // namespace

// Mean and variance (not corrected) of GELU(h) over all pixels. Sizes: pixels, C; both (C,).
extern "C" void gelu_moments(const Number* h, const std::int64_t* sizes, float* mean, float* variance, int threads) {
    static thread_local Scratch scratch;
    const int channels = sizes[1], stride = filled(channels), parts = row_parts(sizes[0], threads);
    float* spreads = scratch.get(static_cast<std::size_t>(2) * stride * parts);
    std::vector<Spread> found(parts);
    for (int part = 0; part < parts; ++part) found[part] = {spreads + 2 * part * stride, spreads + (2 * part + 1) * stride, 0};
    std::fill_n(spreads, 2 * parts * stride, 0.0f);
    share_rows(sizes[0], threads, [&](int part, std::int64_t first, std::int64_t last) {
        static thread_local Scratch own[2];
        float *values = own[0].get(TOGETHER * stride), *few = own[1].get(2 * stride);
        for (std::int64_t at = first; at < last; at += TOGETHER) {
            Spread next = {few, few + stride, 0};
            spread_of(h + at * channels, static_cast<int>(std::min<std::int64_t>(TOGETHER, last - at)), channels, stride, values, next);
            found[part].merge(next, stride);
        }
    });
    for (int part = 1; part < parts; ++part) found[0].merge(found[part], stride);
    for (int c = 0; c < channels; ++c) mean[c] = found[0].mean[c], variance[c] = found[0].squares[c] / sizes[0];
}

// `y = gain GELU(h) + shift`; both (C filled up,).
extern "C" void scale_gelu(const Number* h, Number* y, const std::int64_t* sizes, const float* gain, const float* shift, int threads) {
    const int channels = sizes[1];
    share_rows(sizes[0], threads, [&](int, std::int64_t first, std::int64_t last) {
        for (std::int64_t at = first * channels; at < last * channels; at += channels)
            each(channels, [&](int c, auto there) {
                write(y + at + c, activated<GELU>(read(h + at + c, there)) * load(gain + c) + load(shift + c), there);
            });
    });
}

// The way back through GELU and batch norm, see gelu_norm.h. Weights are mean, scale, gain, (C filled up,) each; the gradients, (C,) each:
// to gain, shift and a bias that h had.
extern "C" void gelu_norm_gradients(const Number* h, const Number* outer, Number* to_h, const std::int64_t* sizes,
                                    const float* const* weights, float* const* gradients, int threads) {
    static thread_local Scratch scratch[2];
    const int channels = sizes[1], stride = filled(channels), parts = row_parts(sizes[0], threads);
    const GeluNormGradient plain{channels, weights[0], weights[1], weights[2], nullptr, nullptr};
    const GeluNormGradient one = with_means(plain, h, outer, sizes[0], gradients, scratch[0], threads);
    float* sums = scratch[1].get(static_cast<std::size_t>(stride) * parts);
    std::fill_n(sums, stride * parts, 0.0f);
    share_rows(sizes[0], threads, [&](int part, std::int64_t first, std::int64_t last) {
        const std::int64_t at = first * channels;
        one.lead_back(h + at, outer + at, last - first, to_h + at, sums + part * stride);
    });
    collect(sums, parts, stride);
    add_sums(sums, 1, channels, stride, gradients[2]);
}
