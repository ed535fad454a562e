/* The inner loops in plain C: what the generated assembly computes, for any core. */
#include "edgeofa_kernels.h"

static int8_t finish(int32_t sum, const int32_t *quant, int32_t zero_point, int32_t low,
                     int32_t high)
{
    int32_t value = edgeofa_rescale_fast(sum, quant[1], quant[2], zero_point);
    return edgeofa_clamp(value, low, high);
}

static int32_t multiply_pairs(uint32_t a, uint32_t b)
{
    return edgeofa_low(a) * edgeofa_low(b) + edgeofa_high(a) * edgeofa_high(b);
}

void edgeofa_conv_portable(const edgeofa_conv_shape *s, const uint32_t *x, const uint32_t *w,
                           const int32_t *quant, void *out, int32_t blocks)
{
    int8_t *bytes = out;
    int32_t *sums = out;
    for (int32_t p = 0; p < blocks * s->pixels; p++, x += s->step) {
        int32_t sum[2] = {quant[0], quant[EDGEOFA_QUANT]};
        const uint32_t *pair = w;
        for (int32_t r = 0; r < s->rows; r++)
            for (int32_t i = 0; i < s->words; i++, pair += 2) {
                const uint32_t v = x[r * s->pitch + i];
                sum[0] += multiply_pairs(v, pair[0]);
                sum[1] += multiply_pairs(v, pair[1]);
            }
        for (int32_t c = 0; c < s->channels; c++)
            if (s->raw)
                *sums++ = sum[c];
            else
                bytes[p * s->out_step + c] =
                    finish(sum[c], quant + EDGEOFA_QUANT * c, s->zero_point, s->low, s->high);
    }
}

void edgeofa_depthwise_portable(const edgeofa_depthwise_shape *s, const uint32_t *x,
                                const int32_t *channel, void *out, int32_t rows)
{
    const int32_t *weights = channel + EDGEOFA_QUANT;
    for (int32_t y = 0; y < rows; y++)
        for (int32_t q = 0; q < s->block * s->blocks; q++) {
            int32_t sum = channel[0];
            for (int32_t r = 0; r < s->kernel_height; r++)
                for (int32_t t = 0; t < s->kernel_width; t++) {
                    const int32_t column = q * s->stride + t;
                    const uint32_t v = x[y * s->row_step + r * s->pitch + column / 2];
                    const uint32_t w = (uint32_t)weights[r * s->words + s->word_of[t]];
                    sum += (column % 2 ? edgeofa_high(v) : edgeofa_low(v)) *
                           (s->half_of[t] ? edgeofa_high(w) : edgeofa_low(w));
                }
            const int32_t at = y * s->out_row + q * s->out_step;
            if (s->raw)
                ((int32_t *)out)[at / 4] = sum;
            else
                ((int8_t *)out)[at] = finish(sum, channel, s->zero_point, s->low, s->high);
        }
}

/* The second weights of two lanes w + 256 w'. */
static uint32_t upper_weights(uint32_t lanes)
{
    const uint32_t lower = edgeofa_even_bytes(lanes);
    return edgeofa_pair((edgeofa_low(lanes) - edgeofa_low(lower)) / 256,
                        (edgeofa_high(lanes) - edgeofa_high(lower)) / 256);
}

void edgeofa_dense_portable(const edgeofa_dense_shape *s, const uint32_t *x, const uint32_t *w,
                            const int32_t *quant, void *out, int32_t quads)
{
    for (int32_t o = 0; o < 4 * quads; o += 4, w += 2 * s->words, quant += 4 * EDGEOFA_QUANT)
        for (int32_t j = 0; j < 4; j++) {
            int32_t sum = quant[EDGEOFA_QUANT * j];
            for (int32_t i = 0; i < s->words; i++) {
                const uint32_t v = w[2 * i + j / 2];
                const uint32_t odd = s->merged ? upper_weights(v) : edgeofa_odd_bytes(v);
                sum += multiply_pairs(x[i], j % 2 ? odd : edgeofa_even_bytes(v));
            }
            if (s->raw)
                ((int32_t *)out)[o + j] = sum;
            else
                ((int8_t *)out)[o + j] =
                    finish(sum, quant + EDGEOFA_QUANT * j, s->zero_point, s->low, s->high);
        }
}
