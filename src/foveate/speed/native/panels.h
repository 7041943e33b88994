// Matrix products of many rows with a linear layer's weight, which is copied in the order in which tiles read it.

#pragma once

#include "rows.h"
#include "threads.h"
#include "turned.h"

namespace {

constexpr int PANEL = TILE_LANES * LANES;  // columns of the right matrix that lie together, row after row
constexpr int LEFT_NUMBERS = 1 << 16;      // of the left matrix, taken together: 256 KiB

// A weight as the right matrix of a product, (depth, columns), of which `depth` counts places, each of two numbers of bfloat16; where it is
// `turned`, its columns are what lies together in memory.
struct Right {
    const float* numbers;
    int depth, columns;  // columns in whole groups of sixteen
    bool turned;

    int panels() const { return (columns + PANEL - 1) / PANEL; }
    int width(int panel) const { return std::min(PANEL, columns - panel * PANEL); }

    // One panel, (depth, width).
    void bring(int panel, float* to) const {
        const int own = width(panel);
        if (turned) turn_in(numbers + static_cast<std::size_t>(panel) * PANEL * depth, depth, own, depth, to, own);
        for (int k = 0; !turned && k < depth; ++k)
            for (int c = 0; c < own; c += LANES)
                store(to + k * own + c, load(numbers + static_cast<std::size_t>(k) * columns + panel * PANEL + c));
    }
};

// All panels of a weight, one after another in memory.
class Panels {
  public:
    Panels(const Right& of, Scratch& scratch, int threads)
        : of_(of), numbers_(scratch.get(static_cast<std::size_t>(of.depth) * of.columns)) {
        share(of.panels(), threads, [&](int panel) { of_.bring(panel, at(panel)); });
    }

    // So many rows of the left matrix stay in the cache while all panels pass.
    int rows_at_once() const { return std::max(LEFT_NUMBERS / of_.depth, 4 * rows_of_tile(TILE_LANES)); }

    // `y = x b`, or `y += x b` where it grows, for x (rows, depth) and y (rows, columns).
    template <typename To>
    void multiply_rows(const Number* map, std::int64_t rows, To* y, bool grows) const {
        const float* x = as_left(map);
        const int depth = of_.depth, columns = of_.columns, most = rows_at_once();
        for (std::int64_t row = 0; row < rows; row += most)
            for (int panel = 0; panel < of_.panels(); ++panel)
                multiply<OF_MAPS>({x + row * depth, depth, 1}, static_cast<int>(std::min<std::int64_t>(most, rows - row)), depth,
                                  at(panel), of_.width(panel), of_.width(panel), y + row * columns + panel * PANEL, columns,
                                  {nullptr, grows});
    }

  private:
    float* at(int panel) const { return numbers_ + static_cast<std::size_t>(panel) * PANEL * of_.depth; }

    Right of_;
    float* numbers_;
};

// The same product for so few rows that reading the weight is what takes time. A panel is brought together by whoever needs it at once;
// parts of the rows share one where there are fewer panels than would keep all threads busy.
inline void multiply_few(const Number* map, std::int64_t rows, const Right& of, Number* y, bool grows, int threads) {
    const float* x = as_left(map);
    const std::int64_t parts = std::min<std::int64_t>(rows, (4 * threads + of.panels() - 1) / of.panels());
    share(static_cast<int>(of.panels() * parts), threads, [&](int task) {
        static thread_local Scratch scratch;
        const int panel = static_cast<int>(task / parts), width = of.width(panel);
        const std::int64_t first = rows * (task % parts) / parts, last = rows * (task % parts + 1) / parts;
        float* numbers = scratch.get(static_cast<std::size_t>(PANEL) * of.depth);
        of.bring(panel, numbers);
        multiply<OF_MAPS>({x + first * of.depth, of.depth, 1}, static_cast<int>(last - first), of.depth, numbers, width, width,
                          y + first * of.columns + panel * PANEL, of.columns, {nullptr, grows});
    });
}

}  // namespace
