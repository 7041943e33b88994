// FViT's stem for inference, as stem.py calls it: in one pass over each picture, whose rows go through rings from layer to layer. Pictures
// are float32.

#include "convolution.h"

namespace {

// `gain GELU(conv(.)) + shift`, (stride) each.
struct Layer {
    Convolution convolution;
    int channels;
    const float *gain, *shift;

    // One row, of `channels` numbers a pixel; `line` has room for (width, stride).
    template <Numbers OF>
    void run(const float* const* rows, int width, float* line, Number* to) const {
        convolution.operator()<OF>(rows, width, line);
        for (int w = 0; w < width; ++w)
            each(channels, [&](int c, auto there) {
                const Lanes value = activated<GELU>(load(line + w * convolution.stride + c));
                write(to + w * channels + c, value * load(gain + c) + load(shift + c), there);
            });
    }
};

// Of one picture x, (H, W, entering), that goes through the layers to y; the first has outputs only every `down` rows.
struct Picture {
    const float* x;
    Number* y;
    int height, width, entering, down, rows_out, width_out;
    const Layer* layers;

    // Rows `first` to `last` of y.
    void operator()(int first, int last) const {
        static thread_local Scratch scratch[4];
        static thread_local std::vector<const float*> rows;
        const int channels = layers[0].channels;
        Ring picture(scratch[0], 3, width, 1, entering), one(scratch[1], 3, width_out, 1, channels / PER_PLACE);
        Ring two(scratch[2], 3, width_out, 1, channels / PER_PLACE);
        float* line = scratch[3].get(static_cast<std::size_t>(width_out) * filled(channels));
        int second = std::max(first - 1, 0), begun = std::max(first - 2, 0), loaded = std::max(down * begun - 1, 0);
        for (int row = first; row < last; ++row) {
            for (; second < std::min(row + 2, rows_out); ++second) {
                for (; begun < std::min(second + 2, rows_out); ++begun) {
                    for (; loaded < std::min(down * begun + 2, height); ++loaded)
                        std::copy_n(x + static_cast<std::size_t>(loaded) * width * entering, width * entering, picture.row(loaded));
                    layers[0].run<SINGLE>(picture.around(down * begun, 3, height, rows), width_out, line, as_map(one.row(begun)));
                }
                layers[1].run<OF_MAPS>(one.around(second, 3, rows_out, rows), width_out, line, as_map(two.row(second)));
            }
            Number* to = y + static_cast<std::size_t>(row) * width_out * channels;
            layers[2].run<OF_MAPS>(two.around(row, 3, rows_out, rows), width_out, line, to);
        }
    }
};

}  // namespace

// Sizes: B, H, W, channels of x and of y, strides of the first convolution. Taps of each layer, those behind the first in the form of the
// maps between, then bias, gain and shift of each.
extern "C" void stem(
    const float* x, Number* y, const std::int64_t* sizes, const float* const* taps, const float* const* rows, int threads) {
    const int pictures = sizes[0], height = sizes[1], width = sizes[2], entering = sizes[3], channels = sizes[4];
    const int down = sizes[5], across = sizes[6], rows_out = (height + down - 1) / down, width_out = (width + across - 1) / across;
    Layer layers[3];
    for (int i = 0; i < 3; ++i) {
        const Convolution convolution{i ? channels / PER_PLACE : entering, filled(channels), i ? 1 : across, taps[i], rows[3 * i]};
        layers[i] = {convolution, channels, rows[3 * i + 1], rows[3 * i + 2]};
    }
    const int bands = bands_of(pictures, rows_out, threads);
    share(pictures * bands, threads, [&](int task) {
        const int index = task / bands, band = task % bands;
        const Picture one{x + static_cast<std::size_t>(index) * height * width * entering,
                          y + static_cast<std::size_t>(index) * rows_out * width_out * channels,
                          height, width, entering, down, rows_out, width_out, layers};
        one(rows_out * band / bands, rows_out * (band + 1) / bands);
    });
}
