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

void edgeofa_addition(const edgeofa_add *l, const int8_t *a, const int8_t *b, int8_t *out,
                      int32_t repeat, int32_t count, int32_t broadcast)
{
    const edgeofa_add k = *l;
    for (; repeat > 0; repeat--, a += count, out += count) {
        int32_t i = 0;
        /* all three are aligned where one row is the whole tensor, or rows are whole words */
        if (k.kernel && count >= 4 && (repeat == 1 || count % 4 == 0)) {
            i = count / 4 * 4;
            k.kernel(k.swap ? b : a, k.swap ? a : b, out, count / 4);
        }
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
