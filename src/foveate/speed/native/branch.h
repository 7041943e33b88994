// FViT's feed-forward in training with its matrix products, as feed_forward.py gives it: float32 alone.

#pragma once

#include "packing.h"
#include "panels.h"
#include "residual.h"

namespace {

constexpr int CHUNK = 100;  // rows whose products are added up at a time to a weight's gradient: their panel stays in the first cache

// What both directions are given. Sizes: B, H, W, C, hidden channels, groups, untouched groups; the filters' weights as `groups_of` reads
// them; dropout of the hidden map, then of the end of the branch, four words each, and their scales; a factor for each picture.
struct Branch {
    int pictures, channels, hidden;
    std::size_t pixels, weight;
    Groups groups;
    Kept kept;
    std::size_t start;  // of the hidden map's numbers, for `kept`
    Residual residual;

    Branch(const std::int64_t* sizes, const float* const* weights, const std::int64_t* dropped, const float* scales,
           const float* factors, Scratch& scratch)
        : pictures(sizes[0]), channels(sizes[3]), hidden(sizes[4]), pixels(static_cast<std::size_t>(sizes[1]) * sizes[2]),
          weight(static_cast<std::size_t>(hidden) * channels), kept(kept_of(dropped, scales[0])), start(dropped[3]),
          residual{channels, static_cast<std::int64_t>(pixels), kept_of(dropped + 4, scales[1]), static_cast<std::size_t>(dropped[7]),
                   factors} {
        const std::int64_t of[] = {sizes[0], sizes[1], sizes[2], sizes[4], sizes[5], sizes[6]};
        groups = groups_of(of, weights, scratch);
    }

    std::size_t rows() const { return pictures * pixels; }
};

// `to = left^T right`, or `to += left^T right` where it grows, for left (rows, down), its rows `step` apart, and right (rows, across), of
// which panels are brought together; nothing where `to` is null.
inline void add_turned(const float* left, int step, const float* right, int rows, int down, int across, float* to, bool grows) {
    static thread_local Scratch scratch;
    float* panel_of_right = scratch.get(static_cast<std::size_t>(CHUNK) * PANEL);
    for (int at = 0; to && at < rows; at += CHUNK) {
        const Right chunk{right + at * across, std::min(CHUNK, rows - at), across, false};
        for (int panel = 0; panel < chunk.panels(); ++panel) {
            const int width = chunk.width(panel);
            chunk.bring(panel, panel_of_right);
            multiply({left + at * step, 1, step}, down, chunk.depth, panel_of_right, width, width, to + panel * PANEL, across,
                     {nullptr, grows || at > 0});
        }
    }
}

}  // namespace
