// Matrix products of blocks that lie in the cache: tiles of the result stay in registers.

#pragma once

#include <algorithm>
#include <cstddef>

#include "lanes.h"

namespace {

// A tile of the result, in columns of `LANES` numbers, and the most rows of it whose sums the processor's registers hold beside what they
// are made of.
#ifdef __AVX512F__
constexpr int TILE_LANES = 4;
constexpr int rows_of_tile(int width) { return width == 4 ? 6 : width == 3 ? 8 : 12; }
#else
constexpr int TILE_LANES = 2;
constexpr int rows_of_tile(int) { return 6; }
#endif

// What the matrices of a product hold: numbers, or in the place of each two of bfloat16, neighbours in depth, that processors with
// instructions for them multiply at once.
enum Numbers { SINGLE, PAIRED };

// How this library's maps go into products: as they are, or, of bfloat16, two neighbouring numbers in the place of one.
constexpr Numbers OF_MAPS = std::is_same_v<Number, float> ? SINGLE : PAIRED;
constexpr int PER_PLACE = OF_MAPS == SINGLE ? 1 : 2;

inline const float* as_left(const Number* map) { return reinterpret_cast<const float*>(map); }
inline Number* as_map(float* memory) { return reinterpret_cast<Number*>(memory); }

// The left one of a product's matrices: its number (r, k) lies at `at[r * row + k * depth]`.
struct Left {
    const float* at;
    std::ptrdiff_t row, depth;

    Left below(int rows) const { return {at + rows * row, row, depth}; }
};

// What a product is added to: `bias` of each row, or zeros where it is null, and the result's own numbers where `grows`.
struct Start {
    const float* bias;
    bool grows;

    Start below(int rows) const { return {bias ? bias + rows : nullptr, grows}; }
};

#ifdef __AVX512BF16__
constexpr int STEPS_OF_PAIR = 1;
#else
constexpr int STEPS_OF_PAIR = 2;  // one for each of its numbers
#endif

// The bits of one place in all: as a float, those of a pair would not be sure to stay.
inline Lanes everywhere(const float* place) {
    std::uint32_t bits;
    std::memcpy(&bits, place, sizeof bits);
    const Words words = Words{} + bits;
    Lanes lanes;
    std::memcpy(&lanes, &words, sizeof lanes);
    return lanes;
}

// What a product takes of pairs in one of the steps: without instructions for them, the earlier or the later one of their numbers.
inline Lanes taken(Lanes pairs, int step) {
    if constexpr (STEPS_OF_PAIR == 1) return pairs;
    Words words;
    std::memcpy(&words, &pairs, sizeof words);
    words = step ? words & 0xffff0000u : words << 16;
    std::memcpy(&pairs, &words, sizeof pairs);
    return pairs;
}

template <Numbers OF>
inline void add_products(Lanes& sums, Lanes left, Lanes right) {
#ifdef __AVX512BF16__
    if constexpr (OF == PAIRED) {
        sums = _mm512_dpbf16_ps(sums, (__m512bh)left, (__m512bh)right);
        return;
    }
#endif
    sums += left * right;
}

// ROWS rows and LANES times WIDTH columns of `start + a b`, to c. Every third row of a has a pointer of its own: more, or the strides of
// six rows, would not stay in registers. Kept apart from its callers for the same reason. What the result grows from is asked for at the
// beginning and added at the end: it has often left the cache.
template <Numbers OF, int ROWS, int WIDTH, typename To>
__attribute__((noinline)) void multiply_tile(
    Left a, const float* b, std::ptrdiff_t b_stride, int depth, To* c, std::ptrdiff_t c_stride, Start start) {
    constexpr int POINTERS = (ROWS + 2) / 3;
    Lanes sums[ROWS][WIDTH];
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
        for (int j = 0; j < WIDTH; ++j) {
            __builtin_prefetch(c + r * c_stride + j * LANES, 1);
            sums[r][j] = Lanes{};
            if (start.bias) sums[r][j] += start.bias[r];
        }
    const float* from[POINTERS];
    for (int i = 0; i < POINTERS; ++i) from[i] = a.at + 3 * i * a.row;
#pragma GCC unroll 4
    for (int k = 0; k < depth; ++k) {
        for (int step = 0; step < (OF == PAIRED ? STEPS_OF_PAIR : 1); ++step) {
            Lanes row[WIDTH];
#pragma GCC unroll 4
            for (int j = 0; j < WIDTH; ++j) row[j] = OF == PAIRED ? taken(load(b + j * LANES), step) : load(b + j * LANES);
#pragma GCC unroll 16
            for (int r = 0; r < ROWS; ++r) {
                const Lanes place = everywhere(from[r / 3] + r % 3 * a.row), left = OF == PAIRED ? taken(place, step) : place;
#pragma GCC unroll 4
                for (int j = 0; j < WIDTH; ++j) add_products<OF>(sums[r][j], left, row[j]);
            }
        }
        b += b_stride;
        for (const float*& pointer : from) pointer += a.depth;
    }
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
        for (int j = 0; j < WIDTH; ++j) {
            if (start.grows) sums[r][j] += read(c + r * c_stride + j * LANES, LANES);
            write(c + r * c_stride + j * LANES, sums[r][j], LANES);
        }
}

// WIDTH groups of columns and any number of rows: whole tiles, then halves of them.
template <Numbers OF, int WIDTH, int ROWS = rows_of_tile(WIDTH), typename To>
void multiply_columns(Left a, int rows, int depth, const float* b, std::ptrdiff_t b_stride, To* c, std::ptrdiff_t c_stride, Start start) {
    int r = 0;
    for (; r + ROWS <= rows; r += ROWS)
        multiply_tile<OF, ROWS, WIDTH>(a.below(r), b, b_stride, depth, c + r * c_stride, c_stride, start.below(r));
    if constexpr (ROWS > 1)
        if (r < rows)
            multiply_columns<OF, WIDTH, ROWS / 2>(a.below(r), rows - r, depth, b, b_stride, c + r * c_stride, c_stride, start.below(r));
}

// `c = start + a b` for a (rows, depth), b (depth, columns) and c (rows, columns), columns a multiple of `LANES`.
template <Numbers OF = SINGLE, typename To>
void multiply(
    Left a, int rows, int depth, const float* b, std::ptrdiff_t b_stride, int columns, To* c, std::ptrdiff_t c_stride, Start start) {
    int at = 0;
    for (; at + TILE_LANES * LANES <= columns; at += TILE_LANES * LANES)
        multiply_columns<OF, TILE_LANES>(a, rows, depth, b + at, b_stride, c + at, c_stride, start);
    const int left = (columns - at) / LANES;
    if (left == 3) multiply_columns<OF, std::min(TILE_LANES, 3)>(a, rows, depth, b + at, b_stride, c + at, c_stride, start);
    if (left == 2) multiply_columns<OF, std::min(TILE_LANES, 2)>(a, rows, depth, b + at, b_stride, c + at, c_stride, start);
    if (left == 1) multiply_columns<OF, 1>(a, rows, depth, b + at, b_stride, c + at, c_stride, start);
}

}  // namespace
