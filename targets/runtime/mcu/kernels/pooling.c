/* Pools and the mean over an image. */
#include "edgeofa_kernels.h"

typedef struct window {
    int32_t top, bottom, left, right; /* first and past the last real pixel */
} window;

static window real_pixels(const edgeofa_pool *l, int32_t y, int32_t x)
{
    const int32_t top = y * l->stride_height - l->top, left = x * l->stride_width - l->left;
    const int32_t bottom = top + l->kernel_height, right = left + l->kernel_width;
    window w = {top < 0 ? 0 : top, bottom > l->height ? l->height : bottom, left < 0 ? 0 : left,
                right > l->width ? l->width : right};
    return w;
}

/* Four channels' sums over a window, in int16 halves while they fit. */
static void sum_quad(int32_t sums[4], const int8_t *in, int32_t rows, int32_t columns,
                     int32_t channels, int32_t row_bytes)
{
    uint32_t even = 0, odd = 0;
    int32_t room = 255; /* of -128 in an int16 */
    sums[0] = sums[1] = sums[2] = sums[3] = 0;
    for (int32_t y = 0; y < rows; y++, in += row_bytes) {
        const int8_t *p = in;
        for (int32_t x = 0; x < columns; x++, p += channels) {
            uint32_t v = edgeofa_load_quad(p);
            even = edgeofa_add_even_bytes(even, v);
            odd = edgeofa_add_odd_bytes(odd, v);
            if (--room == 0) {
                sums[0] += edgeofa_low(even);
                sums[1] += edgeofa_low(odd);
                sums[2] += edgeofa_high(even);
                sums[3] += edgeofa_high(odd);
                even = odd = 0;
                room = 255;
            }
        }
    }
    sums[0] += edgeofa_low(even);
    sums[1] += edgeofa_low(odd);
    sums[2] += edgeofa_high(even);
    sums[3] += edgeofa_high(odd);
}

/* Sums of up to four channels; returns how many. */
static int32_t sum_some(int32_t sums[4], const int8_t *in, int32_t rows, int32_t columns,
                        int32_t channels, int32_t row_bytes, int32_t left)
{
    if (channels % 4 == 0) {
        sum_quad(sums, in, rows, columns, channels, row_bytes);
        return 4;
    }
    const int32_t some = left < 4 ? left : 4;
    for (int32_t c = 0; c < some; c++) {
        sums[c] = 0;
        for (int32_t y = 0; y < rows; y++)
            for (int32_t x = 0; x < columns; x++)
                sums[c] += in[y * row_bytes + x * channels + c];
    }
    return some;
}

void edgeofa_average_pool(const edgeofa_pool *l, const int8_t *in, int8_t *out)
{
    const int32_t row_bytes = l->width * l->channels;
    for (int32_t y = 0; y < l->out_height; y++)
        for (int32_t x = 0; x < l->out_width; x++) {
            const window w = real_pixels(l, y, x);
            const int32_t rows = w.bottom - w.top, columns = w.right - w.left;
            const int32_t count = rows * columns;
            const int8_t *from = in + w.top * row_bytes + w.left * l->channels;
            for (int32_t c = 0; c < l->channels;) {
                int32_t sums[4];
                const int32_t some = sum_some(sums, from + c, rows, columns, l->channels,
                                              row_bytes, l->channels - c);
                for (int32_t i = 0; i < some; i++, c++) {
                    const int32_t s = sums[i];
                    int32_t mean = s > 0 ? (s + count / 2) / count : (s - count / 2) / count;
                    *out++ = edgeofa_clamp(mean, l->low, l->high);
                }
            }
        }
}

void edgeofa_max_pool(const edgeofa_pool *l, const int8_t *in, int8_t *out)
{
    for (int32_t y = 0; y < l->out_height; y++)
        for (int32_t x = 0; x < l->out_width; x++, out += l->channels) {
            const window w = real_pixels(l, y, x);
            for (int32_t c = 0; c < l->channels; c++)
                out[c] = -128;
            for (int32_t i = w.top; i < w.bottom; i++)
                for (int32_t j = w.left; j < w.right; j++) {
                    const int8_t *p = in + (i * l->width + j) * l->channels;
                    for (int32_t c = 0; c < l->channels; c++)
                        if (p[c] > out[c])
                            out[c] = p[c];
                }
            for (int32_t c = 0; c < l->channels; c++)
                out[c] = edgeofa_clamp(out[c], l->low, l->high);
        }
}

void edgeofa_global_mean(const edgeofa_mean *l, const int8_t *in, int8_t *out)
{
    for (int32_t c = 0; c < l->channels;) {
        int32_t sums[4];
        const int32_t some =
            sum_some(sums, in + c, 1, l->pixels, l->channels, 0, l->channels - c);
        for (int32_t i = 0; i < some; i++, c++) {
            int32_t sum = sums[i] - l->zero_point * l->pixels;
            int32_t mean = edgeofa_rescale(sum, l->multiplier, l->shift) + l->out_zero_point;
            *out++ = edgeofa_clamp(mean, -128, 127);
        }
    }
}
