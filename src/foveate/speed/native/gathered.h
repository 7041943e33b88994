// What linear attention gathers of keys and values, see layers/token_layers.py.

#pragma once

#include <cmath>
#include <limits>

#include "rows.h"

namespace {

constexpr float DENOMINATOR_EPS = 1e-8f, LARGEST_EXPONENT = 80.0f;  // as in layers/token_layers.py

// What the keys and values of some tokens come to: `largest` exponent of each feature, (M,); below it the sums of the features, (M,), and
// of their products with the values, (M, E); E in whole groups of sixteen.
struct Gathered {
    float *largest, *sums, *products;

    static std::size_t size(int features, int width) { return filled(2 * features) + static_cast<std::size_t>(features) * width; }

    Gathered(float* memory, int features) : largest(memory), sums(memory + features), products(memory + filled(2 * features)) {}

    void clear(int features, int width) const {
        std::fill_n(largest, features, -std::numeric_limits<float>::max());
        std::fill_n(sums, features, 0.0f);
        std::fill_n(products, static_cast<std::size_t>(features) * width, 0.0f);
    }

    // Takes out more of a feature whose largest exponent has grown.
    void raise(int feature, float to, int width) const {
        if (to <= largest[feature]) return;
        const float factor = std::exp(largest[feature] - to);
        sums[feature] *= factor;
        for (int c = 0; c < width; c += LANES) store(products + feature * width + c, factor * load(products + feature * width + c));
        largest[feature] = to;
    }

    void merge(const Gathered& other, int features, int width) const {
        for (int f = 0; f < features; ++f) {
            raise(f, other.largest[f], width);
            other.raise(f, largest[f], width);
            sums[f] += other.sums[f];
        }
        for (int i = 0; i < features * width; i += LANES) store(products + i, load(products + i) + load(other.products + i));
    }
};

// What the parts of every picture were gathered into, one after another in memory, becomes that of each picture, in its first part.
inline void merge_parts(float* memory, int pictures, int parts, int features, int width) {
    const std::size_t size = Gathered::size(features, width);
    for (int picture = 0; picture < pictures; ++picture) {
        float* first = memory + picture * parts * size;
        for (int part = 1; part < parts; ++part) Gathered(first, features).merge(Gathered(first + part * size, features), features, width);
    }
}

}  // namespace
