/* Layers that look at one place at a time: add, mul, tables, padding. */
#include "edgeofa_kernels.h"

/* ADD's first step: 2**20 x times the input's multiplier, rounded twice. `half` is 0 for no shift. */
EDGEOFA_INLINE int32_t scaled(int32_t x, int32_t multiplier, int32_t shift)
{
    int32_t t = x * (1 << 20);
    t = edgeofa_high_multiply_add(t, multiplier, t);
    if (shift > 0) {
        t += t >> 31;
        t = (t + (1 << (shift - 1))) >> shift;
    }
    return t;
}

#ifdef EDGEOFA_MVE
/* Two roundings: the product with a Q31 multiplier, then a shift by -n; see edgeofa_rescale. */
EDGEOFA_INLINE int32x4_t rescale_four(int32x4_t x, int32_t multiplier, int32_t left_shift)
{
    x = vqrdmulhq_n_s32(x, multiplier);
    if (left_shift)
        x = vrshlq_n_s32(vaddq_s32(x, vshrq_n_s32(x, 31)), left_shift);
    return x;
}

/* ADD of four values at a time; returns how many are done. */
static int32_t add_fours(const edgeofa_add k, const int8_t *a, const int8_t *b, int8_t *out,
                         int32_t count)
{
    /* back from m' to m, and from 2**(32 - n) to -n */
    const int32_t m0 = (int32_t)((uint32_t)k.multiplier[0] >> 1);
    const int32_t m1 = (int32_t)((uint32_t)k.multiplier[1] >> 1);
    const int32_t m = (int32_t)((uint32_t)k.out_multiplier >> 1);
    const int32_t shift = ~__builtin_clz((uint32_t)k.out_power);
    const int32x4_t low = vdupq_n_s32(k.low), high = vdupq_n_s32(k.high);
    int32_t i = 0;
    for (; i + 4 <= count; i += 4) {
        int32x4_t x = vshlq_n_s32(vsubq_n_s32(vldrbq_s32(a + i), k.zero_point[0]), 20);
        int32x4_t y = vshlq_n_s32(vsubq_n_s32(vldrbq_s32(b + i), k.zero_point[1]), 20);
        x = vaddq_s32(rescale_four(x, m0, -k.shift[0]), rescale_four(y, m1, -k.shift[1]));
        x = vaddq_n_s32(rescale_four(x, m, shift), k.out_zero_point);
        vstrbq_s32(out + i, vminq_s32(vmaxq_s32(x, low), high));
    }
    return i;
}
#endif

void edgeofa_addition(const edgeofa_add *l, const int8_t *a, const int8_t *b, int8_t *out,
                      int32_t repeat, int32_t count, int32_t broadcast)
{
    const edgeofa_add k = *l;
    for (; repeat > 0; repeat--, a += count, out += count) {
        int32_t i = 0;
#ifdef EDGEOFA_MVE
        i = add_fours(k, a, b, out, count);
#else
        /* all three are aligned where one row is the whole tensor, or rows are whole words */
        if (k.kernel && count >= 4 && (repeat == 1 || count % 4 == 0)) {
            i = count / 4 * 4;
            k.kernel(k.swap ? b : a, k.swap ? a : b, out, count / 4);
        }
#endif
        for (; i < count; i++) {
            int32_t sum = scaled(a[i] - k.zero_point[0], k.multiplier[0], k.shift[0]) +
                          scaled(b[i] - k.zero_point[1], k.multiplier[1], k.shift[1]);
            int32_t value =
                edgeofa_rescale_fast(sum, k.out_multiplier, k.out_power, k.out_zero_point);
            out[i] = edgeofa_clamp(value, k.low, k.high);
        }
        if (!broadcast)
            b += count;
    }
}

void edgeofa_multiplication(const edgeofa_mul *l, const int8_t *a, const int8_t *b, int8_t *out,
                            int32_t repeat, int32_t count, int32_t broadcast)
{
    const edgeofa_mul k = *l;
    /* m' and the power of the fast form, which needs a right shift of at least 2 */
    const int32_t fast = (int32_t)(uint32_t)((uint64_t)(uint32_t)k.multiplier << 1);
    const int32_t power =
        k.shift <= -2 && k.multiplier ? (int32_t)(UINT32_C(1) << (32 + k.shift)) : 0;
    for (; repeat > 0; repeat--, a += count, out += count) {
        if (power)
            for (int32_t i = 0; i < count; i++) {
                int32_t product = (a[i] - k.zero_point[0]) * (b[i] - k.zero_point[1]);
                int32_t value = edgeofa_rescale_fast(product, fast, power, k.out_zero_point);
                out[i] = edgeofa_clamp(value, k.low, k.high);
            }
        else
            for (int32_t i = 0; i < count; i++) {
                int32_t product = (a[i] - k.zero_point[0]) * (b[i] - k.zero_point[1]);
                int32_t value = edgeofa_rescale(product, k.multiplier, k.shift) + k.out_zero_point;
                out[i] = edgeofa_clamp(value, k.low, k.high);
            }
        if (!broadcast)
            b += count;
    }
}

void edgeofa_table(const int8_t *table, const int8_t *in, int8_t *out, int32_t count)
{
    const int8_t *middle = table + 128;
    for (int32_t i = 0; i < count; i++)
        out[i] = middle[in[i]];
}

void edgeofa_pad(const int8_t *in, int8_t *out, int32_t height, int32_t row_bytes, int32_t top,
                 int32_t bottom, int32_t left_bytes, int32_t right_bytes, int32_t zero_point)
{
    const int32_t wide = left_bytes + row_bytes + right_bytes;
    memset(out, zero_point, (size_t)(top * wide));
    out += top * wide;
    for (; height > 0; height--, in += row_bytes, out += wide) {
        memset(out, zero_point, (size_t)left_bytes);
        memcpy(out + left_bytes, in, (size_t)row_bytes);
        memset(out + left_bytes + row_bytes, zero_point, (size_t)right_bytes);
    }
    memset(out, zero_point, (size_t)(bottom * wide));
}
