// Linear attention with positive random features, see layers/token_layers.py, on tokens that are made on the way: the response of the soft
// split's convolution times the inverse deviation of each patch, plus a constant.
//
// Legend: T tokens, E width of a token, M features, both whole groups of sixteen; a response (T, 3 E) holds keys, queries and values.

#pragma once

#include <limits>

#include "attention.h"

namespace {

constexpr float DENOMINATOR_EPS = 1e-8f, LARGEST_EXPONENT = 80.0f;  // as in layers/token_layers.py

// What the keys and values of some tokens come to: `largest` exponent of each feature, (M,); below it the sums of the features, (M,), and
// of their products with the values, (M filled up to whole tiles, E).
struct Gathered {
    float *largest, *sums, *products;

    static std::size_t size(int features, int width) { return 2 * features + static_cast<std::size_t>(tiled(features)) * width; }

    Gathered(float* memory, int features) : largest(memory), sums(memory + features), products(memory + 2 * features) {}

    void clear(int features, int width) {
        std::fill_n(largest, features, -std::numeric_limits<float>::max());
        std::fill_n(sums, size(features, width) - features, 0.0f);
    }

    // Takes out more where a feature's largest exponent has grown.
    void raise(const float* to, int features, int width) {
        for (int f = 0; f < features; ++f) {
            if (to[f] <= largest[f]) continue;
            const float factor = std::exp(largest[f] - to[f]);
            sums[f] *= factor;
            for (int c = 0; c < width; c += LANES) store(products + f * width + c, factor * load(products + f * width + c));
            largest[f] = to[f];
        }
    }

    void merge(Gathered& other, int features, int width) {
        raise(other.largest, features, width);
        other.raise(largest, features, width);
        for (int f = 0; f < features; ++f) sums[f] += other.sums[f];
        for (int i = 0; i < features * width; i += LANES) store(products + i, load(products + i) + load(other.products + i));
    }
};

struct Performer {
    const float *response, *scales, *constant;  // of the first token; (3 E,)
    const float* features;                      // (E, M)
    int width, count;                           // E, M

    // `width` numbers of one token: its keys, queries or values.
    void make(int token, int kind, float* to) const {
        const float* from = response + (static_cast<std::size_t>(token) * 3 + kind) * width;
        for (int c = 0; c < width; c += LANES) store(to + c, load(from + c) * scales[token] + load(constant + kind * width + c));
    }

    // Exponents `w x - |x|^2 / 2` of the features of `tokens` tokens, (tokens, M), from the numbers x of each, (tokens, E).
    void exponents(const float* x, int tokens, float* to) const {
        const int rows = tiled(tokens);
        std::fill_n(to, rows * count, 0.0f);
        add_products(x, width, features, count, rows, width, count, to, count);
        for (int t = 0; t < tokens; ++t) {
            Lanes squares = {};
            for (int c = 0; c < width; c += LANES) squares += load(x + t * width + c) * load(x + t * width + c);
            const float half = 0.5f * sum_of(squares);
            for (int f = 0; f < count; f += LANES) store(to + t * count + f, load(to + t * count + f) - half);
        }
    }

    // Keys and values of the tokens from `first` to `last`; the values also to `v`, (T, E).
    void gather(int first, int last, Gathered& into, float* v) const {
        static thread_local Scratch scratch[4];
        float *keys = scratch[0].get(QUERIES * width), *phi = scratch[1].get(QUERIES * count), *largest = scratch[2].get(count);
        float* turned = scratch[3].get(static_cast<std::size_t>(tiled(count)) * QUERIES);
        into.clear(count, width);
        std::fill_n(keys, QUERIES * width, 0.0f);
        std::fill_n(turned, tiled(count) * QUERIES, 0.0f);
        for (int begin = first; begin < last; begin += QUERIES) {
            const int tokens = std::min(QUERIES, last - begin);
            float* values = v + static_cast<std::size_t>(begin) * width;
            for (int t = 0; t < tokens; ++t) make(begin + t, 0, keys + t * width), make(begin + t, 2, values + t * width);
            exponents(keys, tokens, phi);
            for (int f = 0; f < count; f += LANES) {
                Lanes most = load(into.largest + f);
                for (int t = 0; t < tokens; ++t) most = load(phi + t * count + f) > most ? load(phi + t * count + f) : most;
                store(largest + f, most);
            }
            into.raise(largest, count, width);
            exponentiate(phi, tokens, into, turned);
            add_products(turned, QUERIES, values, width, tiled(count), tokens, width, into.products, width);
        }
    }

    // Features of `tokens` keys from their exponents, added to the sums and turned into (M, QUERIES).
    void exponentiate(const float* phi, int tokens, Gathered& into, float* turned) const {
        for (int f = 0; f < count; f += LANES) {
            Lanes total = load(into.sums + f);
            for (int t = 0; t < tokens; t += LANES) {
                Lanes rows[LANES];
                for (int i = 0; i < LANES; ++i) {
                    rows[i] = t + i < tokens ? exponential(load(phi + (t + i) * count + f) - load(into.largest + f)) : Lanes{};
                    total += rows[i];
                }
                transpose(rows);
                for (int i = 0; i < LANES; ++i) store(turned + (f + i) * QUERIES + t, rows[i]);
            }
            store(into.sums + f, total);
        }
    }

    // What the queries of the tokens from `first` to `last` read, to `y`, (T, E).
    void read_out(int first, int last, const Gathered& from, float* y) const {
        static thread_local Scratch scratch[3];
        float *queries = scratch[0].get(QUERIES * width), *phi = scratch[1].get(QUERIES * count), *sums = scratch[2].get(QUERIES * width);
        std::fill_n(queries, QUERIES * width, 0.0f);
        for (int begin = first; begin < last; begin += QUERIES) {
            const int tokens = std::min(QUERIES, last - begin), rows = tiled(tokens);
            for (int t = 0; t < tokens; ++t) make(begin + t, 1, queries + t * width);
            exponents(queries, tokens, phi);
            for (int t = 0; t < tokens; ++t) weigh(phi + t * count, from);
            std::fill_n(sums, rows * width, 0.0f);
            add_products(phi, count, from.products, width, rows, count, width, sums, width);
            std::copy_n(sums, tokens * width, y + static_cast<std::size_t>(begin) * width);
        }
    }

    // Exponents of one query's features become its weights.
    void weigh(float* phi, const Gathered& from) const {
        Lanes most = load(phi) + load(from.largest), total = {};
        for (int f = 0; f < count; f += LANES) {
            const Lanes lanes = load(phi + f) + load(from.largest + f);
            store(phi + f, lanes);
            most = lanes > most ? lanes : most;
        }
        float largest = most[0];
        for (int i = 1; i < LANES; ++i) largest = std::max(largest, most[i]);
        for (int f = 0; f < count; f += LANES) {
            store(phi + f, exponential(load(phi + f) - largest));
            total += load(phi + f) * load(from.sums + f);
        }
        const float eps = DENOMINATOR_EPS * count * std::exp(std::min(-largest, LARGEST_EXPONENT)), denominator = sum_of(total) + eps;
        for (int f = 0; f < count; f += LANES) store(phi + f, load(phi + f) / denominator);
    }
};

// The inverse deviation of every patch of one picture's map (H, W, C): side k, stride s, p zeros around the map, which count.
struct PatchScales {
    int height, width, channels, side, stride, padding;
    float eps;

    int places(int length) const { return (length + 2 * padding - side) / stride + 1; }

    // `sums`: (2, H, W') of a row's pixels within reach of each place; `to`: (H', W').
    void operator()(const float* x, float* to) const {
        static thread_local Scratch scratch[2];
        const int out_height = places(height), out_width = places(width);
        const std::size_t half = static_cast<std::size_t>(height) * out_width;
        float *sums = scratch[0].get(2 * half), *squares = sums + half;
        float *line = scratch[1].get(2 * static_cast<std::size_t>(width)), *line_squares = line + width;
        for (int row = 0; row < height; ++row) {
            add_up(x + static_cast<std::size_t>(row) * width * channels, line, line_squares);
            for (int at = 0; at < out_width; ++at) {
                const int first = std::max(at * stride - padding, 0), last = std::min(at * stride - padding + side, width);
                float sum = 0, square = 0;
                for (int w = first; w < last; ++w) sum += line[w], square += line_squares[w];
                sums[row * out_width + at] = sum, squares[row * out_width + at] = square;
            }
        }
        const float area = static_cast<float>(channels) * side * side;
        for (int row = 0; row < out_height; ++row)
            for (int at = 0; at < out_width; ++at) {
                const int first = std::max(row * stride - padding, 0), last = std::min(row * stride - padding + side, height);
                float sum = 0, square = 0;
                for (int h = first; h < last; ++h) sum += sums[h * out_width + at], square += squares[h * out_width + at];
                const float mean = sum / area;
                to[row * out_width + at] = 1.0f / std::sqrt(std::max(square / area - mean * mean, 0.0f) + eps);
            }
    }

    // Sums of each pixel's numbers and of their squares.
    void add_up(const float* x, float* sums, float* squares) const {
        for (int w = 0; w < width; ++w, x += channels) {
            float sum = 0, square = 0;
            if (channels < LANES) {
                for (int c = 0; c < channels; ++c) sum += x[c], square += x[c] * x[c];
            } else {
                Lanes total = {}, total_squares = {};
                each(channels, [&](int c, auto there) {
                    const Lanes lanes = read(x + c, there);
                    total += lanes, total_squares += lanes * lanes;
                });
                sum = sum_of(total), square = sum_of(total_squares);
            }
            sums[w] = sum, squares[w] = square;
        }
    }
};

}  // namespace
