// Gradients of one head's softmax attention: nothing but queries, keys and values is kept for them.

#pragma once

#include "attention.h"

namespace {

// With `P = softmax(scale q k^T)`, `y = P v` and the gradient `g` to y: `S = P (g v^T - rowsum(P g v^T))`, the gradients are
// `scale S k` to q, `scale S^T q` to k, `P^T g` to v.
struct HeadGradients {
    Head of;              // its y is not read
    const Number* outer;  // g of the first token
    Number *to_q, *to_k, *to_v;
    int outer_step;

    void operator()() const {
        static thread_local Scratch scratch[10];
        const int own = filled(of.width), columns = filled(of.tokens), rows = tiled(of.tokens);
        const std::size_t turned = static_cast<std::size_t>(own) * columns, whole = static_cast<std::size_t>(own) * rows;
        float *keys = scratch[0].get(turned), *values = scratch[1].get(turned), *straight = scratch[2].get(whole);
        float *queries = scratch[3].get(QUERIES * own), *outers = scratch[4].get(QUERIES * own), *sums = scratch[5].get(QUERIES * own);
        float* weights = scratch[6].get(static_cast<std::size_t>(QUERIES) * columns + TILE_ROWS);
        float* slopes = scratch[7].get(static_cast<std::size_t>(QUERIES) * columns + TILE_ROWS);
        float *to_keys = scratch[8].get(whole), *to_values = scratch[9].get(whole);
        std::fill_n(to_keys, whole, 0.0f);
        std::fill_n(to_values, whole, 0.0f);
        pack(keys, values, straight, own, columns);
        for (int begin = 0; begin < of.tokens; begin += QUERIES) {
            const int count = std::min(QUERIES, of.tokens - begin), filled_rows = tiled(count);
            pack_rows(begin, count, queries, outers, own);
            fetch_rows(begin, begin + QUERIES >= of.tokens);
            multiply(queries, keys, filled_rows, own, columns, weights);
            multiply(outers, values, filled_rows, own, columns, slopes);
            for (int t = 0; t < count; ++t) bend(weights + static_cast<std::size_t>(t) * columns, slopes + static_cast<std::size_t>(t) * columns);
            std::fill_n(sums, filled_rows * own, 0.0f);
            for (int at = 0; at < of.tokens; at += DEPTH)
                add_products(slopes + at, columns, straight + static_cast<std::size_t>(at) * own, own, filled_rows,
                             std::min(DEPTH, of.tokens - at), own, sums, own);
            write_rows(sums, count, own, of.scale, to_q + static_cast<std::size_t>(begin) * of.step);
            add_products<true>(weights, columns, outers, own, rows, count, own, to_values, own);
            add_products<true>(slopes, columns, queries, own, rows, count, own, to_keys, own);
        }
        write_rows(to_keys, of.tokens, own, 1.0f, to_k);
        write_rows(to_values, of.tokens, own, 1.0f, to_v);
    }

    // Keys and values as (d, T), keys also as (T, d).
    void pack(float* keys, float* values, float* straight, int own, int columns) const {
        for (int t = 0; t < columns; t += LANES) {
            of.fetch(of.k, t + LANES);
            of.fetch(of.v, t + LANES);
            of.turn(of.k, of.k_bias, t, keys, own, columns);
            of.turn(of.v, of.v_bias, t, values, own, columns);
            for (int i = t; i < std::min(t + LANES, of.tokens); ++i)
                of.pack(of.k + static_cast<std::size_t>(i) * of.step, of.k_bias, 1.0f, straight + static_cast<std::size_t>(i) * own);
        }
    }

    // Scaled queries and the gradients to their outputs, `count` from `begin` on, then zeros.
    void pack_rows(int begin, int count, float* queries, float* outers, int own) const {
        for (int t = 0; t < count; ++t) {
            of.pack(of.q + static_cast<std::size_t>(begin + t) * of.step, of.q_bias, of.scale, queries + t * own);
            const Number* from = outer + static_cast<std::size_t>(begin + t) * outer_step;
            each(of.width, [&](int c, auto there) { store(outers + t * own + c, read(from + c, there)); });
        }
        for (float* rows : {queries, outers}) std::fill_n(rows + count * own, (tiled(count) - count) * own, 0.0f);
    }

    // What comes next: rows to read in the next turn, to write in this one, and at the end.
    void fetch_rows(int begin, bool last) const {
        for (int t = begin; t < std::min(begin + QUERIES, of.tokens); ++t)
            for (int c = 0; c < of.width; c += LANES) __builtin_prefetch(to_q + static_cast<std::size_t>(t) * of.step + c, 1);
        for (int t = begin + QUERIES; t < std::min(begin + 2 * QUERIES, of.tokens); ++t)
            for (int c = 0; c < of.width; c += LANES) {
                __builtin_prefetch(of.q + static_cast<std::size_t>(t) * of.step + c);
                __builtin_prefetch(outer + static_cast<std::size_t>(t) * outer_step + c);
            }
        if (!last) return;
        for (int t = 0; t < of.tokens; ++t)
            for (int c = 0; c < of.width; c += LANES) {
                __builtin_prefetch(to_k + static_cast<std::size_t>(t) * of.step + c, 1);
                __builtin_prefetch(to_v + static_cast<std::size_t>(t) * of.step + c, 1);
            }
    }

    static void multiply(const float* rows, const float* turned, int count, int own, int columns, float* to) {
        std::fill_n(to, static_cast<std::size_t>(count) * columns, 0.0f);
        add_products(rows, own, turned, columns, count, own, columns, to, columns);
    }

    // A query's row of products with the keys becomes that of P, its row of `g v^T` that of S.
    void bend(float* weights, float* slopes) const {
        const float share = 1.0f / of.exponentiate(weights);
        Lanes along = {};
        for (int t = 0; t < of.tokens; t += LANES) along += load(weights + t) * load(slopes + t);
        const float mean = share * sum_of(along);
        for (int t = 0; t < of.tokens; t += LANES) {
            const Lanes lanes = share * load(weights + t);
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
