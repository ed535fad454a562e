/* Two int16 in a word: the DSP extension's instructions, or the same in plain C.
 *
 * Words hold the value of lower index in their lower half; memory is little-endian, as on every
 * core that this runs on. */
#ifndef EDGEOFA_SIMD_H
#define EDGEOFA_SIMD_H

#include <stdint.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "edgeofa's kernels are for little-endian memory"
#endif

#if defined(__ARM_FEATURE_DSP) && defined(__thumb__) && !defined(EDGEOFA_PORTABLE)
#define EDGEOFA_DSP 1
/* integer vectors, for convolutions */
#if defined(__ARM_FEATURE_MVE) && !defined(EDGEOFA_NO_MVE)
#define EDGEOFA_MVE 1
#include <arm_mve.h>
#else
/* Winograd's way for 3x3 convolutions: vectors are faster without */
#define EDGEOFA_TILES 1
#endif
#endif

#define EDGEOFA_INLINE static inline __attribute__((always_inline))

/* Four int8 at a 4-byte boundary. */
EDGEOFA_INLINE uint32_t edgeofa_load_quad(const int8_t *p)
{
    uint32_t v;
    __builtin_memcpy(&v, __builtin_assume_aligned(p, 4), sizeof v);
    return v;
}

EDGEOFA_INLINE uint32_t edgeofa_pair(int32_t low, int32_t high)
{
    return (uint32_t)(uint16_t)low | (uint32_t)high << 16;
}

EDGEOFA_INLINE int32_t edgeofa_low(uint32_t pair)
{
    return (int16_t)(uint16_t)pair;
}

EDGEOFA_INLINE int32_t edgeofa_high(uint32_t pair)
{
    return (int16_t)(uint16_t)(pair >> 16);
}

#ifdef EDGEOFA_DSP

/* bytes 0 and 2 of v, sign-extended */
EDGEOFA_INLINE uint32_t edgeofa_even_bytes(uint32_t v)
{
    uint32_t r;
    __asm("sxtb16 %0, %1" : "=r"(r) : "r"(v));
    return r;
}

/* bytes 1 and 3 of v, sign-extended */
EDGEOFA_INLINE uint32_t edgeofa_odd_bytes(uint32_t v)
{
    uint32_t r;
    __asm("sxtb16 %0, %1, ror #8" : "=r"(r) : "r"(v));
    return r;
}

/* the same, plus a pair */
EDGEOFA_INLINE uint32_t edgeofa_add_even_bytes(uint32_t pair, uint32_t v)
{
    uint32_t r;
    __asm("sxtab16 %0, %1, %2" : "=r"(r) : "r"(pair), "r"(v));
    return r;
}

EDGEOFA_INLINE uint32_t edgeofa_add_odd_bytes(uint32_t pair, uint32_t v)
{
    uint32_t r;
    __asm("sxtab16 %0, %1, %2, ror #8" : "=r"(r) : "r"(pair), "r"(v));
    return r;
}

/* (low of a, low of b) */
EDGEOFA_INLINE uint32_t edgeofa_lows(uint32_t a, uint32_t b)
{
    uint32_t r;
    __asm("pkhbt %0, %1, %2, lsl #16" : "=r"(r) : "r"(a), "r"(b));
    return r;
}

/* (high of a, high of b) */
EDGEOFA_INLINE uint32_t edgeofa_highs(uint32_t a, uint32_t b)
{
    uint32_t r;
    __asm("pkhtb %0, %1, %2, asr #16" : "=r"(r) : "r"(b), "r"(a));
    return r;
}

/* c + round(a b / 2**32), ties upwards */
EDGEOFA_INLINE int32_t edgeofa_high_multiply_add(int32_t a, int32_t b, int32_t c)
{
    int32_t r;
    __asm("smmlar %0, %1, %2, %3" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
}

EDGEOFA_INLINE int32_t edgeofa_saturate_int8(int32_t a)
{
    int32_t r;
    __asm("ssat %0, #8, %1" : "=r"(r) : "r"(a) : "cc");
    return r;
}

#else

EDGEOFA_INLINE uint32_t edgeofa_even_bytes(uint32_t v)
{
    return edgeofa_pair((int8_t)(uint8_t)v, (int8_t)(uint8_t)(v >> 16));
}

EDGEOFA_INLINE uint32_t edgeofa_odd_bytes(uint32_t v)
{
    return edgeofa_even_bytes(v >> 8);
}

EDGEOFA_INLINE uint32_t edgeofa_add_pairs(uint32_t a, uint32_t b)
{
    return edgeofa_pair(edgeofa_low(a) + edgeofa_low(b), edgeofa_high(a) + edgeofa_high(b));
}

EDGEOFA_INLINE uint32_t edgeofa_add_even_bytes(uint32_t pair, uint32_t v)
{
    return edgeofa_add_pairs(pair, edgeofa_even_bytes(v));
}

EDGEOFA_INLINE uint32_t edgeofa_add_odd_bytes(uint32_t pair, uint32_t v)
{
    return edgeofa_add_pairs(pair, edgeofa_odd_bytes(v));
}

EDGEOFA_INLINE uint32_t edgeofa_lows(uint32_t a, uint32_t b)
{
    return (a & 0xffffu) | b << 16;
}

EDGEOFA_INLINE uint32_t edgeofa_highs(uint32_t a, uint32_t b)
{
    return a >> 16 | (b & 0xffff0000u);
}

EDGEOFA_INLINE int32_t edgeofa_high_multiply_add(int32_t a, int32_t b, int32_t c)
{
    return (int32_t)(c + (((int64_t)a * b + INT64_C(0x80000000)) >> 32));
}

EDGEOFA_INLINE int32_t edgeofa_saturate_int8(int32_t a)
{
    return a < -128 ? -128 : a > 127 ? 127 : a;
}

#endif

/* Requantisation by constants in the kernels' form (see edgeofa_kernels.h), unclamped. */
EDGEOFA_INLINE int32_t edgeofa_rescale_fast(int32_t sum, int32_t multiplier, int32_t power,
                                            int32_t zero_point)
{
    int32_t t = edgeofa_high_multiply_add(sum, multiplier, sum);
    t += t >> 31;
    return edgeofa_high_multiply_add(t, power, zero_point);
}

/* TFLite's MultiplyByQuantizedMultiplier for any multiplier and shift. */
EDGEOFA_INLINE int32_t edgeofa_rescale(int32_t sum, int32_t multiplier, int32_t shift)
{
    int32_t shifted = shift > 0 ? (int32_t)((uint32_t)sum << shift) : sum;
    int32_t t = (int32_t)(((int64_t)shifted * multiplier + (1 << 30)) >> 31);
    if (shift >= 0)
        return t;
    int64_t half = (int64_t)1 << (-shift - 1);
    return (int32_t)((t + half - (t < 0)) >> -shift);
}

EDGEOFA_INLINE int8_t edgeofa_clamp(int32_t value, int32_t low, int32_t high)
{
    return (int8_t)(value < low ? low : value > high ? high : value);
}

#endif
