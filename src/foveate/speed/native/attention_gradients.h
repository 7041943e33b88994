// Gradients of one head's softmax attention. Beside queries, keys, values and what came out, two numbers a query are kept for them.

#pragma once

#include "attention.h"

namespace {

constexpr int QUERIES = 48;  // taken together: what they read of the keys and values comes from the first cache then
constexpr int DEPTH = 64;    // of their product with the keys, taken together
constexpr int KEYS = 256;  // taken together, and all queries one after another: what belongs to them stays in the second cache

// With `P = softmax(scale q k^T)`, `y = P v` and the gradient `g` to y: `S = P (g v^T - rowsum(g y))`, the gradients are `scale S k` to q,
// `scale S^T q` to k, `P^T g` to v.
struct HeadGradients {
    Head of;
    const Number* outer;  // g of the first token, as far apart as y
    Number *to_q, *to_k, *to_v;

    void operator()() const {
        static thread_local Scratch scratch[4];
        const int own = filled(of.width);
        const std::size_t whole = static_cast<std::size_t>(own) * of.tokens;
        float *queries = scratch[0].get(whole), *outers = scratch[1].get(whole), *to_queries = scratch[2].get(whole);
        float* means = scratch[3].get(of.tokens);
        std::fill_n(to_queries, whole, 0.0f);
        pack(queries, outers, means, own);
        for (int begin = 0; begin < of.tokens; begin += KEYS)
            lead_back(begin, std::min(KEYS, of.tokens - begin), queries, outers, means, to_queries, own);
        write_rows(to_queries, of.tokens, own, of.scale, to_q);
    }

    // Scaled queries, the gradients to their outcome, and `rowsum(g y)`.
    void pack(float* queries, float* outers, float* means, int own) const {
        for (int t = 0; t < of.tokens; ++t) {
            const std::size_t to = static_cast<std::size_t>(t) * own;
            of.pack(of.q + static_cast<std::size_t>(t) * of.step, of.q_bias, of.scale, queries + to);
            const Number *from = outer + static_cast<std::size_t>(t) * of.y_step, *y = of.y + static_cast<std::size_t>(t) * of.y_step;
            Lanes along = {};
            each(of.width, [&](int c, auto there) {
                const Lanes g = read(from + c, there);
                store(outers + to + c, g);
                along += g * read(y + c, there);
            });
            means[t] = sum_of(along);
        }
    }

    // The `count` keys and values from `first` on, with all queries.
    void lead_back(int first, int count, const float* queries, const float* outers, const float* means, float* to_queries, int own) const {
        static thread_local Scratch scratch[7];
        const int columns = filled(count);
        float *keys = scratch[0].get(own * columns), *values = scratch[1].get(own * columns), *straight = scratch[2].get(own * columns);
        float *weights = scratch[3].get(QUERIES * columns), *slopes = scratch[4].get(QUERIES * columns);
        float *to_keys = scratch[5].get(own * count), *to_values = scratch[6].get(own * count);
        pack_keys(first, count, keys, values, straight, own, columns);
        for (int begin = 0; begin < of.tokens; begin += QUERIES) {
            const int some = std::min(QUERIES, of.tokens - begin);
            const Start start = {nullptr, begin > 0};
            const std::size_t at = static_cast<std::size_t>(begin) * own;
            fetch_rows(begin, first);
            multiply({queries + at, own, 1}, some, own, keys, columns, columns, weights, columns, {nullptr, false});
            multiply({outers + at, own, 1}, some, own, values, columns, columns, slopes, columns, {nullptr, false});
            for (int t = 0; t < some; ++t) bend(weights + t * columns, slopes + t * columns, of.peaks[begin + t], means[begin + t], count);
            for (int k = 0; k < count; k += DEPTH)
                multiply({slopes + k, columns, 1}, some, std::min(DEPTH, count - k), straight + k * own, own, own, to_queries + at, own,
                         {nullptr, true});
            multiply({weights, 1, columns}, count, some, outers + at, own, own, to_values, own, start);
            multiply({slopes, 1, columns}, count, some, queries + at, own, own, to_keys, own, start);
        }
        write_rows(to_keys, count, own, 1.0f, to_k + static_cast<std::size_t>(first) * of.step);
        write_rows(to_values, count, own, 1.0f, to_v + static_cast<std::size_t>(first) * of.step);
    }

    // Keys and values as (d, count), keys also as (count, d).
    void pack_keys(int first, int count, float* keys, float* values, float* straight, int own, int columns) const {
        for (int t = 0; t < columns; t += LANES) {
            of.fetch(of.k, first + t + LANES);
            of.fetch(of.v, first + t + LANES);
            of.turn(of.k, of.k_bias, first + t, keys + t, columns);
            of.turn(of.v, of.v_bias, first + t, values + t, columns);
            for (int i = t; i < std::min(t + LANES, count); ++i)
                of.pack(of.k + static_cast<std::size_t>(first + i) * of.step, of.k_bias, 1.0f, straight + i * own);
        }
    }

    // What will be written, into the cache meanwhile: rows of a head lie too far apart to be foreseen.
    void fetch_rows(int begin, int first) const {
        for (int t = begin; t < std::min(begin + QUERIES, of.tokens); ++t)
            for (int c = 0; c < of.width; c += LANES) {
                const std::size_t at = static_cast<std::size_t>(t) * of.step + c;
                if (first == 0) __builtin_prefetch(to_q + at, 1);
                if (t < first || t >= first + KEYS) continue;
                __builtin_prefetch(to_k + at, 1);
                __builtin_prefetch(to_v + at, 1);
            }
    }

    // A query's row of products with some keys becomes that of P, its row of `g v^T` that of S; behind the keys zeros.
    static void bend(float* weights, float* slopes, const Peak& peak, float mean, int count) {
        for (int t = 0; t < count; t += LANES) {
            const Lanes lanes = first(peak.share * exponential(load(weights + t) - peak.largest), count - t);
            store(weights + t, lanes);
            store(slopes + t, lanes * (load(slopes + t) - mean));
        }
    }

    void write_rows(const float* rows, int count, int own, float factor, Number* to) const {
        for (int t = 0; t < count; ++t)
            each(of.width, [&](int c, auto there) {
                write(to + static_cast<std::size_t>(t) * of.step + c, factor * load(rows + static_cast<std::size_t>(t) * own + c), there);
            });
    }
};

}  // namespace
