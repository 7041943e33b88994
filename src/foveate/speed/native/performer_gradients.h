// The way back through the linear attention of performer.h: first over the queries, which also gives the gradients to what was gathered,
// then over keys and values. Keys, queries and values are made once more.

#pragma once

#include "performer.h"

namespace {

// With the weights W of the queries and what was gathered, sums z and products S, `y = W S`; with the gradient g to y and `U = g S^T`:
// gradients to S are `W^T g`, to z `-sum of W (U . W)`, to the exponents of a query `W (U - (U . W) z)`, to those of a key
// `phi (v dS^T + dz)`, to a value `dS^T phi`; and from exponents `w x - |x|^2 / 2` to x: `e w - sum(e) x`.
struct PerformerGradients {
    Performer of;
    const Gathered gathered;
    const float *outer, *to_values;  // of the first token: g, and what else comes to the values, (T, E) each
    const float* rows;               // features (M, E)
    float *to_response, *to_scales;  // of the first token

    // `d(response) = d scale`, `d(scale) += d response`, and sums of d to the constant, for one token's keys, queries or values.
    void leave(int token, int kind, const float* gradient, float* to_constant) const {
        const std::size_t at = (static_cast<std::size_t>(token) * 3 + kind) * of.width;
        Lanes along = {};
        for (int c = 0; c < of.width; c += LANES) {
            const Lanes lanes = load(gradient + c);
            store(to_response + at + c, lanes * of.scales[token]);
            along += lanes * load(of.response + at + c);
            add(to_constant + kind * of.width + c, lanes);
        }
        to_scales[token] += sum_of(along);
    }

    // From exponents of `tokens` tokens, (tokens, M), which may be overwritten, to the numbers x that they are of: `to`, (tokens, E).
    void through_exponents(const float* exponents, const float* x, int tokens, float* to) const {
        multiply({exponents, of.count, 1}, tokens, of.count, rows, of.width, of.width, to, of.width, {nullptr, false});
        for (int t = 0; t < tokens; ++t) {
            Lanes total = {};
            for (int f = 0; f < of.count; f += LANES) total += load(exponents + t * of.count + f);
            const float sum = sum_of(total);
            for (int c = 0; c < of.width; c += LANES) {
                const int at = t * of.width + c;
                store(to + at, load(to + at) - sum * load(x + at));
            }
        }
    }

    // The queries from `first` to `last`; gradients to what was gathered are added to `to_sums`, (M,), and `to_products`, (M, E).
    void queries(int first, int last, float* to_sums, float* to_products, float* to_constant) const {
        static thread_local Scratch scratch[5];
        const int width = of.width, count = of.count;
        float *x = scratch[0].get(TOGETHER * width), *weights = scratch[1].get(TOGETHER * count);
        float *along = scratch[2].get(TOGETHER * count), *gradient = scratch[3].get(TOGETHER * width);
        float* turned = scratch[4].get(static_cast<std::size_t>(width) * count);
        turn(gathered.products, turned);
        for (int begin = first; begin < last; begin += TOGETHER) {
            const int tokens = std::min(TOGETHER, last - begin);
            for (int t = 0; t < tokens; ++t) of.make(begin + t, 1, x + t * width);
            const float* given = outer + static_cast<std::size_t>(begin) * width;
            of.exponents(x, tokens, weights);
            for (int t = 0; t < tokens; ++t) of.weigh(weights + t * count, gathered);
            multiply({weights, 1, count}, count, tokens, given, width, width, to_products, width, {nullptr, true});
            multiply({given, width, 1}, tokens, width, turned, count, count, along, count, {nullptr, false});
            for (int t = 0; t < tokens; ++t) bend(weights + t * count, along + t * count, to_sums);
            through_exponents(along, x, tokens, gradient);
            for (int t = 0; t < tokens; ++t) leave(begin + t, 1, gradient + t * width, to_constant);
        }
    }

    // A query's row of U becomes the gradient to its exponents.
    void bend(const float* weights, float* along, float* to_sums) const {
        Lanes total = {};
        for (int f = 0; f < of.count; f += LANES) total += load(weights + f) * load(along + f);
        const float mean = sum_of(total);
        for (int f = 0; f < of.count; f += LANES) {
            const Lanes weight = load(weights + f);
            add(to_sums + f, -mean * weight);
            store(along + f, weight * (load(along + f) - mean * load(gathered.sums + f)));
        }
    }

    // Keys and values from `first` to `last`, from the gradients to what all of them were gathered into.
    void keys(int first, int last, const float* to_sums, const float* to_products, float* to_constant) const {
        static thread_local Scratch scratch[6];
        const int width = of.width, count = of.count;
        float *x = scratch[0].get(TOGETHER * width), *values = scratch[1].get(TOGETHER * width), *phi = scratch[2].get(TOGETHER * count);
        float *along = scratch[3].get(TOGETHER * count), *gradient = scratch[4].get(TOGETHER * width);
        float* turned = scratch[5].get(static_cast<std::size_t>(width) * count);
        turn(to_products, turned);
        for (int begin = first; begin < last; begin += TOGETHER) {
            const int tokens = std::min(TOGETHER, last - begin);
            for (int t = 0; t < tokens; ++t) of.make(begin + t, 0, x + t * width), of.make(begin + t, 2, values + t * width);
            of.exponents(x, tokens, phi);
            for (int t = 0; t < tokens; ++t)
                for (int f = 0; f < count; f += LANES)
                    store(phi + t * count + f, exponential(load(phi + t * count + f) - load(gathered.largest + f)));
            multiply({values, width, 1}, tokens, width, turned, count, count, along, count, {nullptr, false});
            for (int t = 0; t < tokens; ++t)
                for (int f = 0; f < count; f += LANES)
                    store(along + t * count + f, load(phi + t * count + f) * (load(along + t * count + f) + load(to_sums + f)));
            through_exponents(along, x, tokens, gradient);
            for (int t = 0; t < tokens; ++t) leave(begin + t, 0, gradient + t * width, to_constant);
            std::copy_n(to_values + static_cast<std::size_t>(begin) * width, tokens * width, gradient);
            multiply({phi, count, 1}, tokens, count, to_products, width, width, gradient, width, {nullptr, true});
            for (int t = 0; t < tokens; ++t) leave(begin + t, 2, gradient + t * width, to_constant);
        }
    }

    // (M, E) as (E, M).
    void turn(const float* from, float* to) const {
        for (int f = 0; f < of.count; f += LANES)
            for (int c = 0; c < of.width; c += LANES) {
                Lanes lanes[LANES];
                for (int i = 0; i < LANES; ++i) lanes[i] = load(from + (f + i) * of.width + c);
                transpose(lanes);
                for (int i = 0; i < LANES; ++i) store(to + (c + i) * of.count + f, lanes[i]);
            }
    }
};

}  // namespace
