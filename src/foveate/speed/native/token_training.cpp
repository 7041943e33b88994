// What lies between the matrix products of a transformer block, in training, both directions, as token_training.py calls it.
// Tokens are float32 from block to block; what enters and leaves the products may have another number format.

#include "attention_gradients.h"
#include "gradients.h"
#include "threads.h"

// Sizes are B, T, D, heads; biases of queries, keys and values, (3, heads, d filled up). `outer` is the gradient to what attention gave, y
// and its peaks, (B, heads, T).
extern "C" void attend_gradients(const Number* qkv, Number* y, Peak* peaks, const Number* outer, Number* to_qkv,
                                 const std::int64_t* sizes, const float* bias, float scale, int threads) {
    const int pictures = sizes[0], tokens = sizes[1], channels = sizes[2], heads = sizes[3], width = channels / heads, own = filled(width);
    share(pictures * heads, threads, [&](int task) {
        const int head = task % heads;
        const std::size_t token = static_cast<std::size_t>(task / heads) * tokens, at = token * 3 * channels + head * width;
        const auto bias_of = [=](int kind) { return bias + (kind * heads + head) * own; };
        const std::size_t outcome = token * channels + head * width;
        const Head one{qkv + at, qkv + at + channels, qkv + at + 2 * channels, bias_of(0), bias_of(1), bias_of(2), y + outcome,
                       tokens, width, 3 * channels, channels, scale, peaks + static_cast<std::size_t>(task) * tokens};
        HeadGradients{one, outer + outcome, to_qkv + at, to_qkv + at + channels, to_qkv + at + 2 * channels}();
    });
}

// `s = x + factor kept (product + bias)` to y, `gain norm(s) + shift` to normal; either is left out where null: without a product s is x.
// Sizes are B, T, D; weights are bias, gain, shift, (D filled up,) each.
extern "C" void add_norm(const float* x, const Number* product, float* y, Number* normal, const std::int64_t* sizes,
                         const float* const* weights, float eps, const std::int64_t* dropped, float scale, const float* factors,
                         int threads) {
    const int channels = sizes[2], stride = filled(channels);
    const Kept kept = kept_of(dropped, scale);
    share_rows(sizes[0] * sizes[1], threads, [&](int, std::int64_t first, std::int64_t last) {
        static thread_local Scratch scratch;
        float* token = scratch.get(stride);
        for (std::int64_t row = first; row < last; ++row) {
            const std::size_t at = row * channels;
            each(channels, [&](int c, auto there) {
                Lanes lanes = read(x + at + c, there);
                if (product) {
                    Lanes added = (read(product + at + c, there) + load(weights[0] + c)) * factors[row / sizes[1]];
                    if (kept.levels) added *= kept(at + c);
                    lanes += added;
                    write(y + at + c, lanes, there);
                }
                store(token + c, lanes);
            });
            if (!normal) continue;
            const Moments of = moments(token, channels, stride, eps);
            each(channels, [&](int c, auto there) {
                write(normal + at + c, (load(token + c) - of.mean) * of.scale * load(weights[1] + c) + load(weights[2] + c), there);
            });
        }
    });
}

// The way back. `outer`: the gradient to y; `inner`: to normal, in whose place comes normal itself, and the gradient to s to `to_s`;
// `to_product`: the gradient to the product. What has no norm has neither s nor inner, what has no product no `to_product`.
// Gradients to bias, gain, shift, (D,) each, are added to.
extern "C" void add_norm_gradients(const float* s, const float* outer, Number* inner, float* to_s, Number* to_product,
                                   const std::int64_t* sizes, const float* const* weights, float eps, const std::int64_t* dropped,
                                   float scale, const float* factors, float* const* gradients, int threads) {
    static thread_local Scratch scratch;
    const int channels = sizes[2], stride = filled(channels), parts = row_parts(sizes[0] * sizes[1], threads);
    const Kept kept = kept_of(dropped, scale);
    const std::size_t count = static_cast<std::size_t>(3) * stride;
    float* sums = scratch.get(count * parts);
    std::fill_n(sums, count * parts, 0.0f);
    share_rows(sizes[0] * sizes[1], threads, [&](int part, std::int64_t first, std::int64_t last) {
        static thread_local Scratch own[2];
        float *normal = own[0].get(stride), *gradient = own[1].get(stride);
        float *to_bias = sums + part * count, *to_gain = to_bias + stride, *to_shift = to_gain + stride;
        for (std::int64_t row = first; row < last; ++row) {
            const std::size_t at = row * channels;
            const auto leave = [&](int c, Lanes lanes, auto there) {
                if (!to_product) return;
                lanes *= factors[row / sizes[1]];
                if (kept.levels) lanes *= kept(at + c);
                write(to_product + at + c, lanes, there);
                add(to_bias + c, lanes);
            };
            if (!inner) {
                each(channels, [&](int c, auto there) { leave(c, read(outer + at + c, there), there); });
                continue;
            }
            each(channels, [&](int c, auto there) { store(normal + c, read(s + at + c, there)); });
            const Moments of = moments(normal, channels, stride, eps);
            each(channels, [&](int c, auto there) {
                const Lanes lanes = (load(normal + c) - of.mean) * of.scale, g = read(inner + at + c, there);
                store(normal + c, lanes);
                store(gradient + c, g * load(weights[1] + c));
                add(to_gain + c, g * lanes);
                add(to_shift + c, g);
                write(inner + at + c, lanes * load(weights[1] + c) + load(weights[2] + c), there);
            });
            norm_gradient(normal, gradient, of.scale, channels, stride, [&](int c, Lanes lanes) {
                lanes += read(outer + at + c, channels - c);
                write(to_s + at + c, lanes, channels - c);
                leave(c, lanes, channels - c);
            });
        }
    });
    collect(sums, parts, count);
    for (int i = 0; i < 3; ++i)
        if (gradients[i]) add_sums(sums + i * stride, 1, channels, stride, gradients[i]);
}

// `kept GELU(hidden + bias)` to leaving. Sizes are rows, hidden channels; bias (channels filled up,).
extern "C" void activate(const Number* hidden, Number* leaving, const std::int64_t* sizes, const float* bias, const std::int64_t* dropped,
                         float scale, int threads) {
    const int channels = sizes[1];
    const Kept kept = kept_of(dropped, scale);
    share_rows(sizes[0], threads, [&](int, std::int64_t first, std::int64_t last) {
        for (std::int64_t at = first * channels; at < last * channels; at += channels)
            each(channels, [&](int c, auto there) {
                Lanes lanes = activated<GELU>(read(hidden + at + c, there) + load(bias + c));
                if (kept.levels) lanes *= kept(at + c);
                write(leaving + at + c, lanes, there);
            });
    });
}

// The same once more, and in the place of `inner`, the gradient to it, that to hidden, whose sums are added to `to_bias`, (channels,).
extern "C" void activate_gradients(const Number* hidden, Number* inner, Number* leaving, const std::int64_t* sizes, const float* bias,
                                   const std::int64_t* dropped, float scale, float* to_bias, int threads) {
    static thread_local Scratch scratch;
    const int channels = sizes[1], stride = filled(channels), parts = row_parts(sizes[0], threads);
    const Kept kept = kept_of(dropped, scale);
    float* sums = scratch.get(static_cast<std::size_t>(stride) * parts);
    std::fill_n(sums, static_cast<std::size_t>(stride) * parts, 0.0f);
    share_rows(sizes[0], threads, [&](int part, std::int64_t first, std::int64_t last) {
        float* own = sums + static_cast<std::size_t>(part) * stride;
        for (std::int64_t at = first * channels; at < last * channels; at += channels)
            each(channels, [&](int c, auto there) {
                Response response = responded<GELU>(read(hidden + at + c, there) + load(bias + c));
                if (kept.levels) {
                    const Lanes factor = kept(at + c);
                    response.value *= factor, response.slope *= factor;
                }
                write(leaving + at + c, response.value, there);
                const Lanes lanes = read(inner + at + c, there) * response.slope;
                write(inner + at + c, lanes, there);
                add(own + c, lanes);
            });
    });
    collect(sums, parts, stride);
    add_sums(sums, 1, channels, stride, to_bias);
}
