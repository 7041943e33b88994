// What lies between the matrix products of a transformer block, as tokens.py calls it.

#include "attention.h"
#include "threads.h"

// Sizes are B, T, D, heads; biases of queries, keys and values, (3, heads, d filled up); peaks (B, heads, T) or null.
extern "C" void attend(const Number* qkv, Number* y, const std::int64_t* sizes, const float* bias, float scale, Peak* peaks, int threads) {
    const int pictures = sizes[0], tokens = sizes[1], channels = sizes[2], heads = sizes[3], width = channels / heads, own = filled(width);
    // few heads are shared out in parts of the queries, each of which turns the keys for itself
    const int groups = filled(tokens) / FILL, parts = std::clamp(2 * threads / (pictures * heads), 1, (groups + 3) / 4);
    share(pictures * heads * parts, threads, [&](int task) {
        const int part = task % parts, head = task / parts % heads;
        const std::size_t token = static_cast<std::size_t>(task / parts / heads) * tokens;
        const Number* q = qkv + token * 3 * channels + head * width;
        const auto bias_of = [=](int kind) { return bias + (kind * heads + head) * own; };
        const Head one{q, q + channels, q + 2 * channels, bias_of(0), bias_of(1), bias_of(2), y + token * channels + head * width,
                       tokens, width, 3 * channels, channels, scale, peaks ? peaks + task / parts * tokens : nullptr};
        one(begin_of(part, parts, tokens), std::min(begin_of(part + 1, parts, tokens), tokens));
    });
}

// `s = x + product + bias`; `normal = norm(s)`, and `s + later_bias` to y, which may be the product. Without a product `normal = norm(x)`.
template <typename Stream>
void add_norm_of(const Stream* x, const Number* product, Stream* y, Number* normal, const std::int64_t* sizes, const float* bias,
                 const float* later_bias, float eps, int threads) {
    const int channels = sizes[1], stride = filled(channels);
    share_rows(sizes[0], threads, [&](int, std::int64_t first, std::int64_t last) {
        static thread_local Scratch scratch;
        float* pixel = scratch.get(stride);
        for (std::int64_t at = first * channels; at < last * channels; at += channels) {
            each(channels, [&](int c, auto there) {
                Lanes lanes = read(x + at + c, there);
                if (product) {
                    lanes += read(product + at + c, there) + load(bias + c);
                    write(y + at + c, lanes + load(later_bias + c), there);
                }
                store(pixel + c, lanes);
            });
            const Moments of = moments(pixel, channels, stride, eps);
            each(channels, [&](int c, auto there) { write(normal + at + c, (load(pixel + c) - of.mean) * of.scale, there); });
        }
    });
}

// Sizes are rows, D; biases (D filled up,). x and y have the products' number format, or are float32.
extern "C" void add_norm(const Number* x, const Number* product, Number* y, Number* normal, const std::int64_t* sizes, const float* bias,
                         const float* later_bias, float eps, int threads) {
    add_norm_of(x, product, y, normal, sizes, bias, later_bias, eps, threads);
}

extern "C" void add_norm_float(const float* x, const Number* product, float* y, Number* normal, const std::int64_t* sizes,
                               const float* bias, const float* later_bias, float eps, int threads) {
    add_norm_of(x, product, y, normal, sizes, bias, later_bias, eps, threads);
}

// `GELU(hidden + bias)` in place. Sizes are rows, hidden channels; bias (channels filled up,).
extern "C" void activate(Number* hidden, const std::int64_t* sizes, const float* bias, int threads) {
    const int channels = sizes[1];
    share_rows(sizes[0], threads, [&](int, std::int64_t first, std::int64_t last) {
        for (std::int64_t at = first * channels; at < last * channels; at += channels)
            each(channels, [&](int c, auto there) {
                write(hidden + at + c, activated<GELU>(read(hidden + at + c, there) + load(bias + c)), there);
            });
    });
}
