// Softmax attention of one head, with queries, keys and values turned: products and softmax of `LANES` queries at a time.
//
// Legend: T tokens, D channels, d those of a head; a map of tokens (B, T, 3 D) holds queries, keys and values, head after head in each.

#pragma once

#include "rows.h"
#include "turned.h"

namespace {

// The largest of a query's scaled products with the keys, and one over the sum of the exponentials of what all lie below it.
struct Peak {
    float largest, share;
};

// Products of up to 64 queries with all keys, (keys, columns), become the exponentials of what they lie below a column's largest, scaled.
inline void exponentiate_columns(float* products, int keys, int columns, float scale, float* largest, float* shares) {
    for (int t = 0; t < columns; t += LANES) {
        Lanes most[4];
        for (Lanes& lanes : most) lanes = load(products + t);
        for (int k = 0; k < keys; ++k) {
            const Lanes lanes = load(products + k * columns + t);
            most[k % 4] = lanes > most[k % 4] ? lanes : most[k % 4];
        }
        for (int i = 1; i < 4; ++i) most[0] = most[i] > most[0] ? most[i] : most[0];
        Lanes total[2] = {};
        for (int k = 0; k < keys; ++k) {
            const Lanes lanes = exponential((load(products + k * columns + t) - most[0]) * scale);
            store(products + k * columns + t, lanes);
            total[k % 2] += lanes;
        }
        store(largest + t, most[0] * scale);
        store(shares + t, 1.0f / (total[0] + total[1]));
    }
}

// One head of one picture: `softmax(scale q k^T) v`.
struct TurnedHead {
    const float *q, *k, *v;  // (d, stride) each; of the queries those of a part may be there alone
    int tokens, width, stride;
    float scale;

    // The queries from `first` to `last`, of which the first column of q is `first`, a whole group of sixteen; y (T, d), `step` from one
    // token to the next; peaks (T,) or null.
    template <typename To>
    void operator()(int first, int last, To* y, std::ptrdiff_t step, Peak* peaks) const {
        static thread_local Scratch scratch[3];
        float *products = scratch[0].get(static_cast<std::size_t>(tokens) * BLOCK), *outcome = scratch[1].get(width * BLOCK);
        float *largest = scratch[2].get(2 * BLOCK), *shares = largest + BLOCK;
        for (int begin = first; begin < last; begin += BLOCK) {
            const int count = std::min(BLOCK, last - begin), columns = filled(count);
            multiply({k, 1, stride}, tokens, width, q + begin - first, stride, columns, products, columns, {nullptr, false});
            exponentiate_columns(products, tokens, columns, scale, largest, shares);
            multiply({v, stride, 1}, width, tokens, products, columns, columns, outcome, columns, {nullptr, false});
            scale_columns(outcome, columns, width, shares);
            turn_out(outcome, columns, count, width, y + begin * step, step);
            for (int t = 0; peaks && t < count; ++t) peaks[begin + t] = {largest[t], shares[t]};
        }
    }
};

// The same from a map of tokens.
struct Head {
    const Number *q, *k, *v;                // of the first token
    const float *q_bias, *k_bias, *v_bias;  // (d filled up,)
    Number* y;
    int tokens, width, step, y_step;  // T, d, and numbers from one token to the next
    float scale;
    Peak* peaks;  // of every query, for the way back, or null

    // The queries from `first` to `last`.
    void operator()(int first, int last) const {
        static thread_local Scratch scratch[3];
        const int columns = filled(tokens);
        const std::size_t whole = static_cast<std::size_t>(filled(width)) * columns;
        float *queries = scratch[0].get(whole), *keys = scratch[1].get(whole), *values = scratch[2].get(whole);
        for (int t = 0; t < columns; t += LANES) {
            fetch(k, t + LANES);
            fetch(v, t + LANES);
            turn(k, k_bias, t, keys + t, columns);
            turn(v, v_bias, t, values + t, columns);
        }
        for (int t = first; t < first + filled(last - first); t += LANES) turn(q, q_bias, t, queries + t - first, columns);
        TurnedHead{queries, keys, values, tokens, width, columns, scale}(first, last, y, y_step, peaks);
    }

    void pack(const Number* from, const float* bias, float factor, float* to) const {
        each(width, [&](int c, auto there) { store(to + c, factor * (read(from + c, there) + load(bias + c))); });
    }

    // Brings `LANES` tokens into the cache meanwhile: those of a head lie too far apart to be foreseen.
    void fetch(const Number* from, int begin) const {
        for (int t = begin; t < std::min(begin + LANES, tokens); ++t)
            for (int c = 0; c < width; c += LANES) __builtin_prefetch(from + static_cast<std::size_t>(t) * step + c);
    }

    // `LANES` tokens from `t` on, as columns of (d filled up, columns) from `to` on.
    void turn(const Number* from, const float* bias, int t, float* to, int columns) const {
        for (int c = 0; c < width; c += LANES) {
            Lanes rows[LANES];
            for (int i = 0; i < LANES; ++i)
                rows[i] = t + i < tokens ? read(from + static_cast<std::size_t>(t + i) * step + c, width - c) + load(bias + c) : Lanes{};
            transpose(rows);
            for (int i = 0; i < LANES; ++i) store(to + static_cast<std::size_t>(c + i) * columns, rows[i]);
        }
    }
};

}  // namespace
