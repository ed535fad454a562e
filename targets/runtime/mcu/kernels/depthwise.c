/* Depthwise convolution: four channels at a time become int16 planes, then each is convolved. */
#include "edgeofa_kernels.h"

static int32_t smaller(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* A word of each of four planes from two neighbouring pixels' four channels. */
EDGEOFA_INLINE void split_word(uint32_t *to, int32_t plane, uint32_t a, uint32_t b,
                               uint32_t offset)
{
    const uint32_t a02 = edgeofa_add_even_bytes(offset, a), b02 = edgeofa_add_even_bytes(offset, b);
    const uint32_t a13 = edgeofa_add_odd_bytes(offset, a), b13 = edgeofa_add_odd_bytes(offset, b);
    to[0] = edgeofa_lows(a02, b02);
    to[plane] = edgeofa_lows(a13, b13);
    to[2 * plane] = edgeofa_highs(a02, b02);
    to[3 * plane] = edgeofa_highs(a13, b13);
}

/* Row of four planes from a row of pixels whose channels are a multiple of four. */
static void split_quads(const edgeofa_depthwise *l, uint32_t *to, const int8_t *from)
{
    const uint32_t offset = edgeofa_pair(-l->zero_point, -l->zero_point);
    const uint32_t zero = (uint8_t)l->zero_point * UINT32_C(0x01010101);
    const int32_t plane = l->plane, step = l->channels, width = l->width;
    const uint32_t *const end = to + l->pitch;
    int32_t x = -l->left;
    for (; x + 1 < 0; x += 2)
        split_word(to++, plane, zero, zero, offset);
    if (x < 0) {
        split_word(to++, plane, zero, edgeofa_load_quad(from), offset);
        x += 2;
    }
    const int8_t *pixel = from + x * step;
    for (; x + 1 < width; x += 2, pixel += 2 * step)
        split_word(to++, plane, edgeofa_load_quad(pixel), edgeofa_load_quad(pixel + step), offset);
    if (x < width && to < end)
        split_word(to++, plane, edgeofa_load_quad(pixel), zero, offset);
    while (to < end)
        split_word(to++, plane, zero, zero, offset);
}

/* Row of planes from a row of pixels; `from` NULL: all padding. */
static void split_row(const edgeofa_depthwise *l, uint32_t *to, const int8_t *from,
                      int32_t channels)
{
    const int32_t plane = l->plane, step = l->channels;
    if (!from) {
        for (int32_t c = 0; c < channels; c++)
            memset(to + c * plane, 0, (size_t)l->pitch * sizeof *to);
        return;
    }
    if (step % 4 == 0) {
        split_quads(l, to, from);
        return;
    }
    for (int32_t i = 0; i < l->pitch; i++, to++) {
        const int32_t x = 2 * i - l->left;
        for (int32_t c = 0; c < channels; c++) {
            int32_t low = 0, high = 0;
            if (x >= 0 && x < l->width)
                low = from[x * step + c] - l->zero_point;
            if (x + 1 >= 0 && x + 1 < l->width)
                high = from[(x + 1) * step + c] - l->zero_point;
            to[c * plane] = edgeofa_pair(low, high);
        }
    }
}

/* Some channels, of which `out` is the first one's first output. */
static void run(const edgeofa_depthwise *l, const uint32_t *planes, const int32_t *data,
                int8_t *out, int32_t *sums, int32_t rows, int32_t channels)
{
    if (!l->raw) {
        for (int32_t i = 0; i < channels; i++)
            l->kernel[0](planes + i * l->plane, data + i * l->channel, out + i, rows);
        for (int32_t i = 0; l->kernel[1] && i < channels; i++)
            l->kernel[1](planes + i * l->plane + l->rest, data + i * l->channel,
                         out + l->columns * l->channels + i, rows);
        return;
    }
    for (int32_t i = 0; i < channels; i++) {
        const uint32_t *x = planes + i * l->plane;
        const int32_t *k = data + i * l->channel;
        l->kernel[0](x, k, sums, rows);
        if (l->kernel[1])
            l->kernel[1](x + l->rest, k, sums + l->columns, rows);
        for (int32_t o = 0; o < rows * l->out_width; o++) {
            int32_t value = edgeofa_rescale(sums[o], k[1], k[2]) + l->out_zero_point;
            out[o * l->channels + i] = edgeofa_clamp(value, l->low, l->high);
        }
    }
}

void edgeofa_depthwise_convolution(const edgeofa_depthwise *l, const int8_t *in, int8_t *out,
                                   uint32_t *scratch, const int32_t *data)
{
    int32_t *const sums = (int32_t *)(scratch + 4 * l->plane);
    const int32_t kept = l->kernel_rows > l->stride ? l->kernel_rows - l->stride : 0;
    for (int32_t c = 0; c < l->channels; c += 4) {
        const int32_t channels = l->channels - c < 4 ? l->channels - c : 4;
        for (int32_t y = 0; y < l->out_height; y += l->band) {
            const int32_t rows = smaller(l->band, l->out_height - y);
            const int32_t first = y * l->stride - l->top;
            const int32_t needed = (rows - 1) * l->stride + l->kernel_rows;
            int32_t r = 0;
            if (y && kept) {
                for (int32_t i = 0; i < channels; i++) {
                    uint32_t *plane = scratch + i * l->plane;
                    memmove(plane, plane + l->band * l->stride * l->pitch,
                            (size_t)(kept * l->pitch) * sizeof *plane);
                }
                r = kept;
            }
            while (r < needed) {
                const int32_t row = first + r;
                const int inside = row >= 0 && row < l->height;
                const int8_t *from = inside ? in + row * l->width * l->channels + c : NULL;
                int32_t done = 1;
                if (inside && l->split) {
                    done = smaller(needed - r, l->height - row);
                    l->split(from, scratch + r * l->pitch, done);
                } else {
                    split_row(l, scratch + r * l->pitch, from, channels);
                }
                r += done;
            }
            run(l, scratch, data + c * l->channel, out + y * l->out_width * l->channels + c, sums,
                rows, channels);
        }
    }
}
