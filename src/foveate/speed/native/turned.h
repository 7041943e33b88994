// Tokens side by side: up to 64 of them in the columns of a block, their channels in its rows. What mixes a token's channels is then the
// same for all of them, and a linear layer's weights are read as they lie in memory.

#pragma once

#include <cmath>
#include <utility>

#include "products.h"

namespace {

constexpr int BLOCK = 64;  // tokens at most: as wide as a tile of a product with AVX-512

// Half the numbers of two rows.
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

// `LANES` rows of as many numbers, rows and columns exchanged.
inline void transpose(Lanes* rows) {
    if constexpr (LANES > 8) exchange<8>(rows);
    if constexpr (LANES > 4) exchange<4>(rows);
    exchange<2>(rows);
    exchange<1>(rows);
}

// `tokens` rows of `channels` numbers, `step` from one to the next, as a block of `columns`, in which zeros stand behind the tokens.
template <typename From>
void turn_in(const From* rows, std::ptrdiff_t step, int tokens, int channels, float* block, int columns) {
    for (int t = 0; t < columns; t += LANES)
        for (int c = 0; c < channels; c += LANES) {
            Lanes lanes[LANES];
            for (int i = 0; i < LANES; ++i) lanes[i] = t + i < tokens ? read(rows + (t + i) * step + c, channels - c) : Lanes{};
            transpose(lanes);
            for (int i = 0; i < std::min(LANES, channels - c); ++i) store(block + (c + i) * columns + t, lanes[i]);
        }
}

// The first `tokens` columns of a block as rows.
template <typename To>
void turn_out(const float* block, int columns, int tokens, int channels, To* rows, std::ptrdiff_t step) {
    for (int t = 0; t < tokens; t += LANES)
        for (int c = 0; c < channels; c += LANES) {
            Lanes lanes[LANES];
            for (int i = 0; i < LANES; ++i) lanes[i] = c + i < channels ? load(block + (c + i) * columns + t) : Lanes{};
            transpose(lanes);
            for (int i = 0; i < std::min(LANES, tokens - t); ++i) write(rows + (t + i) * step + c, lanes[i], channels - c);
        }
}

// Every column times one number.
inline void scale_columns(float* block, int columns, int channels, const float* factors) {
    for (int c = 0; c < channels; ++c)
        for (int t = 0; t < columns; t += LANES) store(block + c * columns + t, load(block + c * columns + t) * load(factors + t));
}

// `GELU` of every number of a block.
inline void activate_block(float* block, int columns, int channels) {
    for (int i = 0; i < channels * columns; i += LANES) store(block + i, activated<GELU>(load(block + i)));
}

// Every column with mean 0 and variance 1; `to` may be `block`.
inline void normalise_columns(const float* block, int columns, int channels, float eps, float* to) {
    for (int t = 0; t < columns; t += LANES) {
        Lanes total[4] = {}, squares[4] = {};
        for (int c = 0; c < channels; ++c) total[c % 4] += load(block + c * columns + t);
        const Lanes mean = (total[0] + total[1] + total[2] + total[3]) / static_cast<float>(channels);
        for (int c = 0; c < channels; ++c) {
            const Lanes centred = load(block + c * columns + t) - mean;
            squares[c % 4] += centred * centred;
        }
        Lanes scale = (squares[0] + squares[1] + squares[2] + squares[3]) / static_cast<float>(channels) + eps;
        for (int i = 0; i < LANES; ++i) scale[i] = 1.0f / std::sqrt(scale[i]);
        for (int c = 0; c < channels; ++c) store(to + c * columns + t, (load(block + c * columns + t) - mean) * scale);
    }
}

// What stands behind the attention of a transformer block or token layer: `s += proj(attended)`, then `s += fc2(GELU(fc1(norm(s))))`.
// Weights are (rows, columns) as PyTorch's linear layers hold them.
struct SecondHalf {
    const float *proj, *proj_bias, *fc1, *fc1_bias, *fc2, *fc2_bias;
    int width, hidden;
    float eps;

    // A block of s, (width, columns), from one of what the attention gave, which is overwritten; `inner` has room for (hidden, columns).
    void add_to(float* s, float* attended, float* inner, int columns) const {
        multiply({proj, width, 1}, width, width, attended, columns, columns, s, columns, {proj_bias, true});
        normalise_columns(s, columns, width, eps, attended);
        multiply({fc1, width, 1}, hidden, width, attended, columns, columns, inner, columns, {fc1_bias, false});
        activate_block(inner, columns, hidden);
        multiply({fc2, hidden, 1}, width, hidden, inner, columns, columns, s, columns, {fc2_bias, true});
    }
};

// The first token of a part: parts are whole groups of sixteen, but for the last, whose end lies behind the tokens.
inline int begin_of(int part, int parts, int tokens) {
    const std::int64_t groups = filled(tokens) / FILL;
    return static_cast<int>(groups * part / parts) * FILL;
}

}  // namespace
