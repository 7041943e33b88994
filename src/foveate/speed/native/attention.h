// Softmax attention of one head, with packed keys and values: small matrix products of sixteen numbers at a time.
//
// Legend: T tokens, D channels, d those of a head; a map of tokens (B, T, 3 D) holds queries, keys and values, head after head in each.

#pragma once

#include <utility>

#include "rows.h"

namespace {

constexpr int QUERIES = 48;    // taken together: what they read of the keys and values comes from the first cache then
constexpr int TILE_ROWS = 6;   // of a product that is computed in registers
constexpr int TILE_LANES = 4;  // and its width
constexpr int DEPTH = 64;      // of the second product, taken together

// Rows, filled up to whole tiles.
constexpr int tiled(int rows) { return (rows + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS; }

// `c += a b` for ROWS rows of a, (ROWS, depth), or (depth, ROWS) where TURNED, and WIDTH times sixteen columns of b, (depth, columns).
template <int ROWS, int WIDTH, bool TURNED>
void add_product(const float* a, int a_stride, const float* b, int b_stride, int depth, float* c, int c_stride) {
    Lanes sums[ROWS][WIDTH];
    for (int r = 0; r < ROWS; ++r)
        for (int j = 0; j < WIDTH; ++j) sums[r][j] = load(c + r * c_stride + j * LANES);
    for (int k = 0; k < depth; ++k) {
        Lanes row[WIDTH];
        for (int j = 0; j < WIDTH; ++j) row[j] = load(b + k * b_stride + j * LANES);
        for (int r = 0; r < ROWS; ++r)
            for (int j = 0; j < WIDTH; ++j) sums[r][j] += a[TURNED ? k * a_stride + r : r * a_stride + k] * row[j];
    }
    for (int r = 0; r < ROWS; ++r)
        for (int j = 0; j < WIDTH; ++j) store(c + r * c_stride + j * LANES, sums[r][j]);
}

// The same for `rows` rows, whole tiles of them, and `columns` columns, whole groups of sixteen.
template <bool TURNED = false>
void add_products(const float* a, int a_stride, const float* b, int b_stride, int rows, int depth, int columns, float* c, int c_stride) {
    const int a_step = TURNED ? 1 : a_stride;
    int at = 0;
    for (; at + TILE_LANES * LANES <= columns; at += TILE_LANES * LANES)
        for (int r = 0; r < rows; r += TILE_ROWS)
            add_product<TILE_ROWS, TILE_LANES, TURNED>(a + r * a_step, a_stride, b + at, b_stride, depth, c + r * c_stride + at, c_stride);
    for (; at < columns; at += LANES)
        for (int r = 0; r < rows; r += TILE_ROWS)
            add_product<TILE_ROWS, 1, TURNED>(a + r * a_step, a_stride, b + at, b_stride, depth, c + r * c_stride + at, c_stride);
}

// Sixteen of the 32 numbers of two rows.
template <int... PLACES>
Lanes chosen(Lanes first, Lanes second) {
#ifdef __clang__
    return __builtin_shufflevector(first, second, PLACES...);
#else
    return __builtin_shuffle(first, second, Truths{PLACES...});
#endif
}

// Two rows of a block of numbers after its squares of side STEP beside the diagonal have changed places.
template <int STEP, int... I>
void exchange(Lanes& upper, Lanes& lower, std::integer_sequence<int, I...>) {
    const Lanes first = upper, second = lower;
    upper = chosen<(I & STEP ? LANES + I - STEP : I)...>(first, second);
    lower = chosen<(I & STEP ? LANES + I : I + STEP)...>(first, second);
}

template <int STEP>
void exchange(Lanes* rows) {
    for (int i = 0; i < LANES; ++i)
        if (!(i & STEP)) exchange<STEP>(rows[i], rows[i + STEP], std::make_integer_sequence<int, LANES>());
}

// Sixteen rows of sixteen numbers, rows and columns exchanged.
inline void transpose(Lanes* rows) {
    exchange<8>(rows);
    exchange<4>(rows);
    exchange<2>(rows);
    exchange<1>(rows);
}

// The largest of a query's products with the keys, and one over the sum of the exponentials of what all lie below it.
struct Peak {
    float largest, share;
};

// One head of one picture: `softmax(scale q k^T) v`.
struct Head {
    const Number *q, *k, *v;              // of the first token
    const float *q_bias, *k_bias, *v_bias;  // (d filled up,)
    Number* y;
    int tokens, width, step, y_step;  // T, d, and numbers from one token to the next
    float scale;
    Peak* peaks;  // of every query, for the way back, or null

    // The queries from `first` to `last`.
    void operator()(int first, int last) const {
        static thread_local Scratch scratch[5];
        const int own = filled(width), columns = filled(tokens);
        const std::size_t whole = static_cast<std::size_t>(own) * columns;
        float *keys = scratch[0].get(whole), *values = scratch[1].get(whole);
        float *queries = scratch[2].get(QUERIES * own), *weights = scratch[3].get(static_cast<std::size_t>(QUERIES) * columns);
        float* sums = scratch[4].get(QUERIES * own);
        pack_keys(keys, own, columns);
        for (int t = 0; t < tokens; ++t) pack(v + static_cast<std::size_t>(t) * step, v_bias, 1.0f, values + t * own);
        for (int begin = first; begin < last; begin += QUERIES) {
            const int count = std::min(QUERIES, last - begin), rows = tiled(count);
            std::fill_n(queries + count * own, (rows - count) * own, 0.0f);
            for (int t = 0; t < count; ++t) pack(q + static_cast<std::size_t>(begin + t) * step, q_bias, scale, queries + t * own);
            std::fill_n(weights, static_cast<std::size_t>(rows) * columns, 0.0f);
            std::fill_n(sums, rows * own, 0.0f);
            add_products(queries, own, keys, columns, rows, own, columns, weights, columns);
            Peak found[QUERIES];
            for (int t = 0; t < count; ++t) found[t] = exponentiate(weights + static_cast<std::size_t>(t) * columns);
            if (peaks) std::copy_n(found, count, peaks + begin);
            for (int at = 0; at < tokens; at += DEPTH) {
                const float* part = values + static_cast<std::size_t>(at) * own;
                add_products(weights + at, columns, part, own, rows, std::min(DEPTH, tokens - at), own, sums, own);
            }
            for (int t = 0; t < count; ++t)
                each(width, [&](int c, auto there) {
                    write(y + static_cast<std::size_t>(begin + t) * y_step + c, load(sums + t * own + c) * found[t].share, there);
                });
        }
    }

    void pack(const Number* from, const float* bias, float factor, float* to) const {
        each(width, [&](int c, auto there) { store(to + c, factor * (read(from + c, there) + load(bias + c))); });
    }

    // Brings sixteen tokens into the cache meanwhile: those of a head lie too far apart to be foreseen.
    void fetch(const Number* from, int begin) const {
        for (int t = begin; t < std::min(begin + LANES, tokens); ++t)
            for (int c = 0; c < width; c += LANES) __builtin_prefetch(from + static_cast<std::size_t>(t) * step + c);
    }

    // Keys as (d, T), and the values and queries that follow into the cache.
    void pack_keys(float* keys, int own, int columns) const {
        for (int t = 0; t < columns; t += LANES) {
            fetch(k, t + LANES);
            fetch(v, t);
            fetch(q, t);
            turn(k, k_bias, t, keys + t, own, columns);
        }
    }

    // Sixteen tokens from `t` on, as columns of (d, columns) from `to` on: sixteen channels at a time.
    void turn(const Number* from, const float* bias, int t, float* to, int own, int columns) const {
        for (int c = 0; c < own; c += LANES) {
            Lanes rows[LANES];
            for (int i = 0; i < LANES; ++i)
                rows[i] = t + i < tokens ? read(from + static_cast<std::size_t>(t + i) * step + c, width - c) + load(bias + c) : Lanes{};
            transpose(rows);
            for (int i = 0; i < LANES; ++i) store(to + static_cast<std::size_t>(c + i) * columns, rows[i]);
        }
    }

    // A query's products with all keys become the exponentials of what they lie below the largest.
    Peak exponentiate(float* row) const {
        float largest = row[0];
        Lanes most = Lanes{} + largest;
        const int whole = tokens / LANES * LANES;
        for (int t = 0; t < whole; t += LANES) {
            const Lanes lanes = load(row + t);
            most = lanes > most ? lanes : most;
        }
        for (int i = 0; i < LANES; ++i) largest = std::max(largest, most[i]);
        for (int t = whole; t < tokens; ++t) largest = std::max(largest, row[t]);
        Lanes total = {};
        for (int t = 0; t < tokens; t += LANES) {
            const Lanes lanes = first(exponential(load(row + t) - largest), tokens - t);
            store(row + t, lanes);
            total += lanes;
        }
        return {largest, 1.0f / sum_of(total)};
    }
};

}  // namespace
