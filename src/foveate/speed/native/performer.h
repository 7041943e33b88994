// Linear attention with positive random features, see layers/token_layers.py, on tokens that are made on the way: the response of the soft
// split's convolution times the inverse deviation of each patch, plus a constant.
//
// Legend: T tokens, E width of a token, M features, both whole groups of sixteen; a response (T, 3 E) holds keys, queries and values.

#pragma once

#include "gathered.h"
#include "turned.h"

namespace {

constexpr int TOGETHER = 48;  // tokens

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
        multiply({x, width, 1}, tokens, width, features, count, count, to, count, {nullptr, false});
        for (int t = 0; t < tokens; ++t) {
            Lanes squares = {};
            for (int c = 0; c < width; c += LANES) squares += load(x + t * width + c) * load(x + t * width + c);
            const float half = 0.5f * sum_of(squares);
            for (int f = 0; f < count; f += LANES) store(to + t * count + f, load(to + t * count + f) - half);
        }
    }

    // Keys and values of the tokens from `first` to `last`; the values also to `v`, (T, E).
    void gather(int first, int last, const Gathered& into, float* v) const {
        static thread_local Scratch scratch[4];
        float *keys = scratch[0].get(TOGETHER * width), *phi = scratch[1].get(TOGETHER * count), *largest = scratch[2].get(count);
        float* turned = scratch[3].get(static_cast<std::size_t>(count) * TOGETHER);
        into.clear(count, width);
        for (int begin = first; begin < last; begin += TOGETHER) {
            const int tokens = std::min(TOGETHER, last - begin);
            float* values = v + static_cast<std::size_t>(begin) * width;
            for (int t = 0; t < tokens; ++t) make(begin + t, 0, keys + t * width), make(begin + t, 2, values + t * width);
            exponents(keys, tokens, phi);
            for (int f = 0; f < count; f += LANES) {
                Lanes most = load(into.largest + f);
                for (int t = 0; t < tokens; ++t) most = load(phi + t * count + f) > most ? load(phi + t * count + f) : most;
                store(largest + f, most);
            }
            for (int f = 0; f < count; ++f) into.raise(f, largest[f], width);
            exponentiate(phi, tokens, into, turned);
            multiply({turned, TOGETHER, 1}, count, tokens, values, width, width, into.products, width, {nullptr, true});
        }
    }

    // Features of `tokens` keys from their exponents, added to the sums and turned into (M, TOGETHER).
    void exponentiate(const float* phi, int tokens, const Gathered& into, float* turned) const {
        for (int f = 0; f < count; f += LANES) {
            Lanes total = load(into.sums + f);
            for (int t = 0; t < tokens; t += LANES) {
                Lanes rows[LANES];
                for (int i = 0; i < LANES; ++i) {
                    rows[i] = t + i < tokens ? exponential(load(phi + (t + i) * count + f) - load(into.largest + f)) : Lanes{};
                    total += rows[i];
                }
                transpose(rows);
                for (int i = 0; i < LANES; ++i) store(turned + (f + i) * TOGETHER + t, rows[i]);
            }
            store(into.sums + f, total);
        }
    }

    // What the queries of the tokens from `first` to `last` read, to `y`, (T, E).
    void read_out(int first, int last, const Gathered& from, float* y) const {
        static thread_local Scratch scratch[2];
        float *queries = scratch[0].get(TOGETHER * width), *phi = scratch[1].get(TOGETHER * count);
        for (int begin = first; begin < last; begin += TOGETHER) {
            const int tokens = std::min(TOGETHER, last - begin);
            for (int t = 0; t < tokens; ++t) make(begin + t, 1, queries + t * width);
            exponents(queries, tokens, phi);
            for (int t = 0; t < tokens; ++t) weigh(phi + t * count, from);
            float* to = y + static_cast<std::size_t>(begin) * width;
            multiply({phi, count, 1}, tokens, count, from.products, width, width, to, width, {nullptr, false});
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

}  // namespace
