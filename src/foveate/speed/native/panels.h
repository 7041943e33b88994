// Matrix products of many rows with a linear layer's weight, which is copied in the order in which tiles read it.

#pragma once

#include "threads.h"
#include "turned.h"

namespace {

constexpr int PANEL = TILE_LANES * LANES;  // columns of the right matrix that lie together, row after row
constexpr int LEFT_NUMBERS = 1 << 16;      // of the left matrix, taken together: 256 KiB

// The right matrix of a product, (depth, columns), in panels; columns in whole groups of sixteen.
struct Panels {
    float* numbers;
    int depth, columns;

    int count() const { return (columns + PANEL - 1) / PANEL; }
    int width(int panel) const { return std::min(PANEL, columns - panel * PANEL); }
    float* at(int panel) const { return numbers + static_cast<std::size_t>(panel) * PANEL * depth; }

    // From numbers (depth, columns).
    void pack(int panel, const float* from) const {
        const int own = width(panel);
        for (int k = 0; k < depth; ++k)
            for (int c = 0; c < own; c += LANES)
                store(at(panel) + k * own + c, load(from + static_cast<std::size_t>(k) * columns + panel * PANEL + c));
    }

    // From numbers (columns, depth).
    void pack_turned(int panel, const float* from) const {
        turn_in(from + static_cast<std::size_t>(panel) * PANEL * depth, depth, width(panel), depth, at(panel), width(panel));
    }

    // `y = x b`, or `y += x b` where it grows, for x (rows, depth) and y (rows, columns).
    void multiply_rows(const float* x, std::int64_t rows, float* y, bool grows) const {
        const int most = std::max(LEFT_NUMBERS / depth, 4 * rows_of_tile(TILE_LANES));
        for (std::int64_t row = 0; row < rows; row += most)
            for (int panel = 0; panel < count(); ++panel)
                multiply({x + row * depth, depth, 1}, static_cast<int>(std::min<std::int64_t>(most, rows - row)), depth, at(panel),
                         width(panel), width(panel), y + row * columns + panel * PANEL, columns, {nullptr, grows});
    }
};

// `y = x w^T`, or `y += x w^T` where it grows, for so few rows that reading the weight is what takes time: x (rows, depth), w (columns,
// depth), y (rows, columns). A panel of the weight is turned by whoever needs it at once; parts of the rows share one where there are
// fewer panels than would keep all threads busy.
inline void multiply_few(
    const float* x, std::int64_t rows, const float* w, int depth, int columns, float* y, bool grows, int threads) {
    const int panels = (columns + PANEL - 1) / PANEL;
    const std::int64_t parts = std::min<std::int64_t>(rows, (4 * threads + panels - 1) / panels);
    share(static_cast<int>(panels * parts), threads, [&](int task) {
        static thread_local Scratch scratch;
        const std::int64_t column = task / parts * PANEL, first = rows * (task % parts) / parts, last = rows * (task % parts + 1) / parts;
        const int width = static_cast<int>(std::min<std::int64_t>(PANEL, columns - column));
        float* panel = scratch.get(static_cast<std::size_t>(PANEL) * depth);
        turn_in(w + column * depth, depth, width, depth, panel, width);
        multiply({x + first * depth, depth, 1}, static_cast<int>(last - first), depth, panel, width, width, y + first * columns + column,
                 columns, {nullptr, grows});
    });
}

}  // namespace
