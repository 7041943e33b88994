// A token layer of T2T-ViT for inference: soft split, layer norm, performer attention, MLP, see layers/token_layers.py; blocks of tokens
// lie turned throughout.
//
// Legend: T = H' W' tokens, D = C k k numbers of a patch, E width of a token, M features.

#pragma once

#include "gathered.h"
#include "turned.h"

namespace {

// The overlapping patches of one picture's map (H, W, C): side k, stride s, p zeros around the map.
struct Patches {
    const float* map;
    int height, width, channels, side, stride, padding;

    int places(int length) const { return (length + 2 * padding - side) / stride + 1; }
    int tokens() const { return places(height) * places(width); }
    int numbers() const { return channels * side * side; }

    // The patches of `tokens` tokens from `first` on, channel first, as a block of `columns`, in which zeros stand behind the tokens.
    void turn_in(int first, int tokens, float* block, int columns) const {
        static thread_local Scratch scratch;
        const int run = side * channels, room = filled(run);
        float* edges = scratch.get(static_cast<std::size_t>(LANES + 1) * room);
        float* none = edges + LANES * room;
        std::fill_n(none, room, 0.0f);
        for (int t = 0; t < columns; t += LANES)
            for (int y = 0; y < side; ++y) {
                const float* rows[LANES];
                for (int i = 0; i < LANES; ++i) rows[i] = t + i < tokens ? row_of(first + t + i, y, edges + i * room) : none;
                for (int j = 0; j < run; j += LANES) {
                    Lanes lanes[LANES];
                    for (int i = 0; i < LANES; ++i) lanes[i] = load(rows[i] + j);
                    transpose(lanes);
                    for (int i = 0; i < std::min(LANES, run - j); ++i) {
                        const int x = (j + i) / channels, c = (j + i) % channels;
                        store(block + ((c * side + y) * side + x) * columns + t, lanes[i]);
                    }
                }
            }
    }

    // Row y of a patch, (k, C), followed by anything up to whole groups of sixteen: in the map, or copied to `edge` at the map's edges.
    const float* row_of(int token, int y, float* edge) const {
        const int across = places(width), top = token / across * stride - padding + y, left = token % across * stride - padding;
        const int run = side * channels, room = filled(run);
        const std::ptrdiff_t at = (static_cast<std::ptrdiff_t>(top) * width + left) * channels;
        const bool whole = at + room <= static_cast<std::ptrdiff_t>(height) * width * channels;
        if (whole && top >= 0 && top < height && left >= 0 && left + side <= width) return map + at;
        std::fill_n(edge, room, 0.0f);
        if (top < 0 || top >= height) return edge;
        const int begin = std::max(left, 0), end = std::min(left + side, width);
        std::copy_n(map + (static_cast<std::ptrdiff_t>(top) * width + begin) * channels, (end - begin) * channels,
                    edge + (begin - left) * channels);
        return edge;
    }
};

struct TokenLayer {
    Patches patches;
    const float *kqv, *kqv_bias, *features;  // keys, queries and values (3 E, D), the norm of the patches folded in; (M, E)
    SecondHalf half;
    int width, count;  // E, M
    float eps;

    // Exponents `w x - |x|^2 / 2` of the features, (M, columns), of the x in a block (E, columns).
    void exponents(const float* x, int columns, float* to) const {
        multiply({features, width, 1}, count, width, x, columns, columns, to, columns, {nullptr, false});
        for (int t = 0; t < columns; t += LANES) {
            Lanes squares[2] = {};
            for (int c = 0; c < width; ++c) squares[c % 2] += load(x + c * columns + t) * load(x + c * columns + t);
            const Lanes half = 0.5f * (squares[0] + squares[1]);
            for (int f = 0; f < count; ++f) store(to + f * columns + t, load(to + f * columns + t) - half);
        }
    }

    // Keys and values of the tokens from `first` to `last` into the sums; queries and values to `kept`, (2 E, columns) for each block.
    void gather(int first, int last, const Gathered& into, float* kept) const {
        static thread_local Scratch scratch[4];
        const int numbers = patches.numbers();
        float* block = scratch[0].get(static_cast<std::size_t>(numbers) * BLOCK);
        float *keys = scratch[1].get(width * BLOCK), *phi = scratch[2].get(count * BLOCK), *values = scratch[3].get(width * BLOCK);
        into.clear(count, width);
        for (int begin = first; begin < last; begin += BLOCK) {
            const int tokens = std::min(BLOCK, last - begin), columns = filled(tokens);
            float* later = kept + static_cast<std::size_t>(begin) * 2 * width;
            patches.turn_in(begin, tokens, block, columns);
            normalise_columns(block, columns, numbers, eps, block);
            const Left weights = {kqv, numbers, 1};
            multiply(weights, width, numbers, block, columns, columns, keys, columns, {kqv_bias, false});
            multiply(weights.below(width), 2 * width, numbers, block, columns, columns, later, columns, {kqv_bias + width, false});
            exponents(keys, columns, phi);
            for (int f = 0; f < count; ++f) exponentiate(f, phi + f * columns, tokens, into);
            turn_out(later + width * columns, columns, tokens, width, values, width);
            multiply({phi, columns, 1}, count, tokens, values, width, width, into.products, width, {nullptr, true});
        }
    }

    // A feature's exponents become its values, below the largest so far.
    void exponentiate(int feature, float* phi, int tokens, const Gathered& into) const {
        Lanes most = Lanes{} + phi[0], total = {};
        const int whole = tokens / LANES * LANES;
        for (int t = 0; t < whole; t += LANES) most = load(phi + t) > most ? load(phi + t) : most;
        float largest = phi[0];
        for (int i = 0; i < LANES; ++i) largest = std::max(largest, most[i]);
        for (int t = whole; t < tokens; ++t) largest = std::max(largest, phi[t]);
        into.raise(feature, largest, width);
        for (int t = 0; t < tokens; t += LANES) {
            const Lanes lanes = ::first(exponential(load(phi + t) - into.largest[feature]), tokens - t);
            store(phi + t, lanes);
            total += lanes;
        }
        into.sums[feature] += sum_of(total);
    }

    // What the queries of the tokens from `first` to `last` read, then the rest of the layer: `y`, (T, E).
    void read_out(int first, int last, const Gathered& from, const float* kept, float* y) const {
        static thread_local Scratch scratch[5];
        float *phi = scratch[0].get(count * BLOCK), *shares = scratch[1].get(BLOCK), *block = scratch[2].get(width * BLOCK);
        float *stream = scratch[3].get(width * BLOCK), *inner = scratch[4].get(half.hidden * BLOCK);
        for (int begin = first; begin < last; begin += BLOCK) {
            const int tokens = std::min(BLOCK, last - begin), columns = filled(tokens);
            const float* queries = kept + static_cast<std::size_t>(begin) * 2 * width;
            exponents(queries, columns, phi);
            weigh(phi, columns, from, shares);
            multiply({from.products, 1, width}, width, count, phi, columns, columns, block, columns, {nullptr, false});
            scale_columns(block, columns, width, shares);
            std::copy_n(queries + width * columns, width * columns, stream);
            half.add_to(stream, block, inner, columns);
            turn_out(stream, columns, tokens, width, y + static_cast<std::size_t>(begin) * width, width);
        }
    }

    // Exponents of the queries' features become their weights, but for the shares.
    void weigh(float* phi, int columns, const Gathered& from, float* shares) const {
        for (int t = 0; t < columns; t += LANES) {
            Lanes most = load(phi + t) + from.largest[0], total = {};
            for (int f = 0; f < count; ++f) {
                const Lanes lanes = load(phi + f * columns + t) + from.largest[f];
                store(phi + f * columns + t, lanes);
                most = lanes > most ? lanes : most;
            }
            for (int f = 0; f < count; ++f) {
                const Lanes lanes = exponential(load(phi + f * columns + t) - most);
                store(phi + f * columns + t, lanes);
                total += lanes * from.sums[f];
            }
            for (int i = 0; i < LANES; ++i) total[i] += DENOMINATOR_EPS * count * std::exp(std::min(-most[i], LARGEST_EXPONENT));
            store(shares + t, 1.0f / total);
        }
    }
};

}  // namespace
