// Sixteen numbers at a time: reading, writing, rounding, activations. Maps hold float32 or bfloat16; inside all is float32.

#pragma once

#include <cstdint>
#include <cstring>

constexpr int LANES = 16;

typedef float Lanes __attribute__((vector_size(64)));
typedef std::int32_t Truths __attribute__((vector_size(64)));
typedef std::uint32_t Words __attribute__((vector_size(64)));
typedef std::uint16_t Halves __attribute__((vector_size(32)));

struct Bfloat16 {
    std::uint16_t bits;
};

enum Activation { NONE = 0, RELU = 1, GELU = 2 };  // as numbered in native_chains.py

inline Lanes load(const float* from) {
    Lanes lanes;
    std::memcpy(&lanes, from, sizeof lanes);
    return lanes;
}

inline void store(float* to, Lanes lanes) { std::memcpy(to, &lanes, sizeof lanes); }

// The first `count` of sixteen numbers (all, where it is larger), the others zero.
inline Lanes read(const float* from, int count) {
    if (count >= LANES) return load(from);
    Lanes lanes = {};
    std::memcpy(&lanes, from, count * sizeof(float));
    return lanes;
}

inline Lanes read(const Bfloat16* from, int count) {
    Halves halves = {};
    if (count >= LANES) std::memcpy(&halves, from, sizeof halves);
    else std::memcpy(&halves, from, count * sizeof(Bfloat16));
    const Words words = __builtin_convertvector(halves, Words) << 16;
    Lanes lanes;
    std::memcpy(&lanes, &words, sizeof lanes);
    return lanes;
}

inline void write(float* to, Lanes lanes, int count) {
    if (count >= LANES) store(to, lanes);
    else std::memcpy(to, &lanes, count * sizeof(float));
}

// Rounded to the nearest, ties to even; what is not a number stays so.
inline void write(Bfloat16* to, Lanes lanes, int count) {
    Words words;
    std::memcpy(&words, &lanes, sizeof words);
    const Words rounded = (words + 0x7fffu + ((words >> 16) & 1u)) >> 16;
    const Truths number = lanes == lanes;
    const Halves halves = __builtin_convertvector(number ? rounded : Words{} + 0x7fc0u, Halves);
    if (count >= LANES) std::memcpy(to, &halves, sizeof halves);
    else std::memcpy(to, &halves, count * sizeof(Bfloat16));
}

// The first `count` of sixteen numbers, zeros in the others' places.
inline Lanes first(Lanes lanes, int count) {
    const Truths places = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return places < count ? lanes : Lanes{};
}

inline float sum_of(Lanes lanes) {
    typedef float Half __attribute__((vector_size(32)));
    typedef float Quarter __attribute__((vector_size(16)));
    Half half[2];
    std::memcpy(half, &lanes, sizeof half);
    half[0] += half[1];
    Quarter quarter[2];
    std::memcpy(quarter, &half[0], sizeof quarter);
    quarter[0] += quarter[1];
    return (quarter[0][0] + quarter[0][1]) + (quarter[0][2] + quarter[0][3]);
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
