// FViT's feed-forward for inference with its matrix products, as feed_forward.py calls it.

#include "filtering.h"
#include "panels.h"

namespace {

constexpr std::size_t FEW_ROWS = 1024;  // of all maps, up to which bringing the weights together beforehand costs more than it gains

}

// `y += fc2(filters(fc1(normal)))` for maps (B, H, W, C). Sizes are B, H, W, C, hidden channels, groups, untouched groups; `rows` (hidden,
// C) and `columns` (C, hidden) are the weights of the products, the others as `Groups` has them.
extern "C" void feed_forward(const Number* normal, Number* y, const std::int64_t* sizes, const Number* rows, const Number* columns,
                             const float* entering, const float* taps, const float* bias, int threads) {
    static thread_local Scratch packed[2], maps;
    const int pictures = sizes[0], height = sizes[1], width = sizes[2], channels = sizes[3], hidden = sizes[4], groups = sizes[5];
    const Groups of{height, width, hidden, groups, static_cast<int>(sizes[6]), filled(hidden / groups), entering, taps, bias};
    const std::size_t pixels = static_cast<std::size_t>(height) * width;
    const Right fc1{as_left(rows), channels / PER_PLACE, hidden, true}, fc2{as_left(columns), hidden / PER_PLACE, channels, true};
    if (pictures * pixels <= FEW_ROWS) {
        const std::int64_t all = pictures * pixels;
        Number* map = as_map(maps.get(all * hidden / PER_PLACE));
        multiply_few(normal, all, fc1, map, false, threads);
        filter(of, map, map, {}, 0, pictures, threads);
        multiply_few(map, all, fc2, y, true, threads);
        return;
    }
    const Panels first(fc1, packed[0], threads), second(fc2, packed[1], threads);
    const int alone = pictures / threads * threads;
    share(alone, threads, [&](int picture) {
        static thread_local Scratch own;
        Scratch once;
        Number* map = as_map(room(own, once, pixels * hidden / PER_PLACE));
        first.multiply_rows(normal + picture * pixels * channels, pixels, map, false);
        filter_picture({of, map, map, {}, 0});
        second.multiply_rows(map, pixels, y + picture * pixels * channels, true);
    });
    const std::size_t at = alone * pixels, left = (pictures - alone) * pixels;
    if (!left) return;
    Scratch once;
    Number* map = as_map(room(maps, once, left * hidden / PER_PLACE));
    share_rows(left, threads, [&](int, std::int64_t begin, std::int64_t end) {
        first.multiply_rows(normal + (at + begin) * channels, end - begin, map + begin * hidden, false);
    });
    filter(of, map, map, {}, 0, pictures - alone, threads);
    share_rows(left, threads, [&](int, std::int64_t begin, std::int64_t end) {
        second.multiply_rows(map + begin * hidden, end - begin, y + (at + begin) * channels, true);
    });
}
