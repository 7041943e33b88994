// FViT's feed-forward in training of few pixels, as feed_forward.py calls it: all of them go through one step after the other, of which
// every thread takes a part. A library of its own: in one with the way for all others the compiler makes both slower.

#include "branch.h"

namespace {

// `to = left^T right` for few rows: parts of the outcome are shared out.
void turned_product(const float* left, const float* right, int rows, int down, int across, float* to, int threads) {
    constexpr int TILE = rows_of_tile(TILE_LANES);
    share_rows(to ? (down + TILE - 1) / TILE : 0, threads, [&](int, std::int64_t first, std::int64_t last) {
        const int begin = static_cast<int>(first) * TILE, end = std::min(static_cast<int>(last) * TILE, down);
        add_turned(left + begin, down, right, rows, end - begin, across, to + static_cast<std::size_t>(begin) * across, false);
    });
}

}  // namespace

// As in feed_forward_training.cpp.
extern "C" void feed_forward(const float* normal, const float* r, float* entering, float* y, const std::int64_t* sizes, const float* rows,
                             const float* columns, const float* const* weights, const float* bias, const std::int64_t* dropped,
                             const float* scales, const float* factors, int threads) {
    static thread_local Scratch scratch[2];
    const Branch of(sizes, weights, dropped, scales, factors, scratch[0]);
    const Right fc1{rows, of.channels, of.hidden, true}, fc2{columns, of.hidden, of.channels, true};
    float* leaving = scratch[1].get(of.rows() * of.hidden);
    multiply_few(normal, of.rows(), fc1, entering, false, threads);
    filter(of.groups, entering, leaving, of.kept, of.start, of.pictures, threads);
    multiply_few(leaving, of.rows(), fc2, y, false, threads);
    share_rows(of.rows(), threads, [&](int, std::int64_t first, std::int64_t last) { of.residual.add(r, y, bias, first, last); });
}

// As in feed_forward_training.cpp.
extern "C" void feed_back(const float* gradient, const float* normal, const float* entering, float* to_normal, const std::int64_t* sizes,
                          const float* rows, const float* columns, const float* const* weights, const std::int64_t* dropped,
                          const float* scales, const float* factors, float* to_rows, float* to_columns, float* const* gradients,
                          float* to_bias, int threads) {
    static thread_local Scratch scratch[6];
    const Branch of(sizes, weights, dropped, scales, factors, scratch[0]);
    const Right fc2{columns, of.channels, of.hidden, false}, fc1{rows, of.hidden, of.channels, false};
    const std::size_t count = of.rows();
    float* outer = scratch[1].get(count * of.channels);
    float *inner = scratch[2].get(count * of.hidden), *leaving = scratch[3].get(count * of.hidden);
    lead_back_rows(of.residual, gradient, count, outer, to_bias, scratch[4], threads);
    multiply_few(outer, count, fc2, inner, false, threads);
    const FilterGradients filters{of.groups, entering, inner, leaving, of.kept, of.start, nullptr};
    add_group_sums(of.groups, filter_gradients(filters, of.pictures, scratch[5], threads), gradients);
    multiply_few(inner, count, fc1, to_normal, false, threads);
    turned_product(inner, normal, count, of.hidden, of.channels, to_rows, threads);
    turned_product(outer, leaving, count, of.channels, of.hidden, to_columns, threads);
}
