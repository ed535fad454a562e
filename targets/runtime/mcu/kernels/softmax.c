/* Softmax over rows, in the fixed point of TFLite's reference kernel. */
#include "edgeofa_kernels.h"

static int32_t high_product(int32_t a, int32_t b)
{
    return (int32_t)(((int64_t)a * b + (1 << 30)) >> 31);
}

static int32_t divide_by_power(int32_t x, int32_t exponent)
{
    return (int32_t)((x + ((int64_t)1 << (exponent - 1)) - (x < 0)) >> exponent);
}

static int32_t saturate(int64_t x)
{
    return x > INT32_MAX ? INT32_MAX : x < INT32_MIN ? INT32_MIN : (int32_t)x;
}

/* 1 / sum for a sum with 12 integer bits and `headroom` leading zeros: q0.31, in [1/2, 1]. */
static int32_t reciprocal(uint32_t sum, int32_t headroom)
{
    /* Newton's division from 48/17 - 32/17 half, in q2.29 */
    const int32_t half =
        (int32_t)(((int64_t)(int32_t)((sum << headroom) - (UINT32_C(1) << 31)) + INT32_MAX + 1) / 2);
    int32_t y = 1515870810 + high_product(half, -1010580540);
    for (int32_t i = 0; i < 3; i++) {
        const int32_t error = (1 << 29) - high_product(half, y);
        y += saturate((int64_t)high_product(y, error) * 4);
    }
    return saturate((int64_t)y * 2);
}

void edgeofa_softmax(const int32_t *exps, int32_t radius, const int8_t *in, int8_t *out,
                     int32_t rows, int32_t count)
{
    for (; rows > 0; rows--, in += count, out += count) {
        int32_t largest = -128;
        for (int32_t i = 0; i < count; i++)
            largest = in[i] > largest ? in[i] : largest;
        uint32_t sum = 0;
        for (int32_t i = 0; i < count; i++)
            if (in[i] - largest >= -radius)
                sum += (uint32_t)divide_by_power(exps[255 + in[i] - largest], 12);
        const int32_t headroom = __builtin_clz(sum), mantissa = reciprocal(sum, headroom);
        const int32_t shift = 12 - headroom + 31 - 8;
        for (int32_t i = 0; i < count; i++) {
            int32_t value = -128;
            if (in[i] - largest >= -radius)
                value += divide_by_power(high_product(exps[255 + in[i] - largest], mantissa), shift);
            out[i] = edgeofa_clamp(value, -128, 127);
        }
    }
}
