// As many numbers at a time as the processor's registers hold: reading, writing, rounding, activations, dropout. Maps hold float32 or
// bfloat16; inside all is float32.

#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#ifdef __AVX__
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

constexpr int FILL = 16;  // channels of weights and of rows kept are filled up to whole groups of these, whatever the processor

constexpr int filled(int channels) { return (channels + FILL - 1) / FILL * FILL; }

typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef std::int32_t Truths __attribute__((vector_size(4 * LANES)));
typedef std::uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef std::uint16_t Halves __attribute__((vector_size(2 * LANES)));

struct Bfloat16 {
    std::uint16_t bits;
};

using Number = NUMBER;  // of the maps: float or Bfloat16, named by whoever compiles

enum Activation { NONE = 0, RELU = 1, GELU = 2 };  // as numbered in library.py

inline Lanes load(const float* from) {
    Lanes lanes;
    std::memcpy(&lanes, from, sizeof lanes);
    return lanes;
}

inline void store(float* to, Lanes lanes) { std::memcpy(to, &lanes, sizeof lanes); }

// 0 to LANES - 1.
inline Truths places() {
    static constexpr std::int32_t NUMBERS[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    Truths lanes;
    std::memcpy(&lanes, NUMBERS, sizeof lanes);
    return lanes;
}

// The first `count` numbers (`LANES` where it is larger, none where it is negative), the others zero.
inline Lanes read(const float* from, int count) {
    if (count >= LANES) return load(from);
#if defined(__AVX512F__)
    return _mm512_maskz_loadu_ps((1u << count) - 1, from);
#elif defined(__AVX__)
    return _mm256_maskload_ps(from, reinterpret_cast<__m256i>(places() < count));
#else
    Lanes lanes = {};
    for (int i = 0; i < count; ++i) lanes[i] = from[i];
    return lanes;
#endif
}

inline Lanes read(const Bfloat16* from, int count) {
    Halves halves = {};
    if (count >= LANES) std::memcpy(&halves, from, sizeof halves);
    else if (count > 0) std::memcpy(&halves, from, count * sizeof(Bfloat16));
    const Words words = __builtin_convertvector(halves, Words) << 16;
    Lanes lanes;
    std::memcpy(&lanes, &words, sizeof lanes);
    return lanes;
}

inline void write(float* to, Lanes lanes, int count) {
    if (count >= LANES) return store(to, lanes);
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(to, (1u << count) - 1, lanes);
#elif defined(__AVX__)
    _mm256_maskstore_ps(to, reinterpret_cast<__m256i>(places() < count), lanes);
#else
    for (int i = 0; i < count; ++i) to[i] = lanes[i];
#endif
}

// Rounded to the nearest, ties to even; what is not a number stays so.
inline Halves rounded(Lanes lanes) {
#ifdef __AVX512BF16__
    return (Halves)_mm512_cvtneps_pbh(lanes);
#else
    Words words;
    std::memcpy(&words, &lanes, sizeof words);
    const Words nearest = (words + 0x7fffu + ((words >> 16) & 1u)) >> 16;
    const Truths number = lanes == lanes;
    return __builtin_convertvector(number ? nearest : Words{} + 0x7fc0u, Halves);
#endif
}

inline void write(Bfloat16* to, Lanes lanes, int count) {
    const Halves halves = rounded(lanes);
    if (count >= LANES) std::memcpy(to, &halves, sizeof halves);
    else if (count > 0) std::memcpy(to, &halves, count * sizeof(Bfloat16));
}

// `body(c, count)` for every `LANES` channels from c on, filled up, of which `count` are there: all, which the compiler can see, but for the
// last ones, where it may be none or fewer.
template <typename Body>
void each(int channels, Body body) {
    int c = 0;
    for (; c + LANES <= channels; c += LANES) body(c, std::integral_constant<int, LANES>());
    for (; c < filled(channels); c += LANES) body(c, channels - c);
}

// The first `count` numbers, zeros in the others' places.
inline Lanes first(Lanes lanes, int count) { return places() < count ? lanes : Lanes{}; }

inline float sum_of(Lanes lanes) {
    typedef float Four __attribute__((vector_size(16)));
    Four fours[LANES / 4];
    std::memcpy(fours, &lanes, sizeof fours);
    for (int half = LANES / 8; half; half /= 2)
        for (int i = 0; i < half; ++i) fours[i] += fours[i + half];
    return (fours[0][0] + fours[0][1]) + (fours[0][2] + fours[0][3]);
}

// The error function: z P(z^2) / Q(z^2) below 3.95, where it is 1 up to 3e-8, and its sign beyond. Fitted by
// benchmarks/fit_erf.py, which finds 4.2e-7 as the largest deviation in float32.
inline Lanes erf(Lanes z) {
    const Lanes u = z * z;
    Lanes p = 2.017588522e-06f * u + 2.860191851e-04f;
    p = p * u + 3.862326871e-03f;
    p = p * u + 5.304160185e-02f;
    p = p * u + 1.927961896e-01f;
    p = p * u + 1.128379129e+00f;
    Lanes q = 3.781574734e-05f * u + 1.184101625e-03f;
    q = q * u + 1.516295886e-02f;
    q = q * u + 1.150760458e-01f;
    q = q * u + 5.041935156e-01f;
    q = q * u + 1.0f;
    const Lanes one = Lanes{} + 1.0f;
    const Lanes sign = z < 0.0f ? -one : one;
    const Lanes inside = z * p / q;
    return u > 3.95f * 3.95f ? sign : inside;
}

template <int ACTIVATION>
Lanes activated(Lanes x) {
    if constexpr (ACTIVATION == RELU) return x < 0.0f ? Lanes{} : x;
    if constexpr (ACTIVATION == GELU) return 0.5f * x * (1.0f + erf(0.70710678f * x));
    return x;
}

// e^x for x <= 0, with a relative error below 3e-7; 1.6e-38 where x is below -87. Powers of two go into the exponent's bits, Taylor's
// series makes the rest, which is at most ln 2 / 2 in size.
inline Lanes exponential(Lanes x) {
    x = x < -87.0f ? Lanes{} - 87.0f : x;
    const Lanes rounding = Lanes{} + 12582912.0f;  // 1.5 * 2^23: added, it leaves the nearest whole number in the lowest bits
    const Lanes shifted = x * 1.44269504f + rounding, whole = shifted - rounding;
    const Lanes r = (x - whole * 0.693145752f) - whole * 1.42860677e-6f;
    Lanes p = r * (1.0f / 720) + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    Words power, result;
    std::memcpy(&power, &shifted, sizeof power);
    std::memcpy(&result, &p, sizeof result);
    result += power << 23;
    std::memcpy(&p, &result, sizeof p);
    return p;
}

// An activation's value and slope; the slope of GELU is `Phi(x) + x phi(x)`.
struct Response {
    Lanes value, slope;
};

// Within its callers: a call would have the sums that these hold in registers put aside.
template <int ACTIVATION>
__attribute__((always_inline)) inline Response responded(Lanes x) {
    const Lanes one = Lanes{} + 1.0f;
    if constexpr (ACTIVATION == RELU) return {x < 0.0f ? Lanes{} : x, x > 0.0f ? one : Lanes{}};
    if constexpr (ACTIVATION == GELU) {
        const Lanes below = 0.5f * (1.0f + erf(0.70710678f * x));
        return {x * below, below + x * (0.39894228f * exponential(-0.5f * x * x))};
    }
    return {x, one};
}

// What dropout keeps: numbers that stay are multiplied by `scale`, of 65536 levels `levels` are dropped. Whether a number stays follows
// from its place alone (of 32 bits), so that no mask is kept for the backward pass: its random bits are a hash of the place and two keys.
struct Kept {
    std::uint32_t keys[2], levels;
    float scale;

    // The factors, 0 or `scale`, of neighbouring numbers from `place` on.
    Lanes operator()(std::size_t place) const {
        Words hash = reinterpret_cast<Words>(places()) + static_cast<std::uint32_t>(place) + keys[0];
        hash = (hash ^ hash >> 16) * 0x7feb352du;
        hash = (hash ^ hash >> 15 ^ keys[1]) * 0x846ca68bu;
        hash = (hash ^ hash >> 16) * 0x7feb352du;
        return hash >> 16 >= levels ? Lanes{} + scale : Lanes{};
    }
};

// `dropped`: two keys and the levels of dropout, and where the numbers begin among those of all pictures.
inline Kept kept_of(const std::int64_t* dropped, float scale) {
    const auto word = [=](int index) { return static_cast<std::uint32_t>(dropped[index]); };
    return {{word(0), word(1)}, word(2), scale};
}

}  // namespace
