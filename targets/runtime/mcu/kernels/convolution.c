/* Convolutions and dense layers around their inner loops: widening, bands, requantising raw sums. */
#include "edgeofa_kernels.h"

static int32_t smaller(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static uint32_t *fill(uint32_t *to, const uint32_t *end)
{
    while (to < end)
        *to++ = 0;
    return to;
}

/* Widen `quads` times four values in the order 0 2 1 3. */
static uint32_t *widen_quads(uint32_t *to, const int8_t *from, int32_t quads, int32_t zero_point)
{
    const uint32_t offset = edgeofa_pair(-zero_point, -zero_point);
#ifdef EDGEOFA_MVE
    for (; quads >= 4; quads -= 4, from += 16, to += 8) {
        const int8x16_t v = vldrbq_s8(from);
        const int16x8_t even = vsubq_n_s16(vmovlbq_s8(v), (int16_t)zero_point);
        const int16x8_t odd = vsubq_n_s16(vmovltq_s8(v), (int16_t)zero_point);
        const uint32x4x2_t pairs = {{(uint32x4_t)even, (uint32x4_t)odd}};
        vst2q_u32(to, pairs);
    }
#endif
    for (; quads >= 4; quads -= 4, from += 16, to += 8) {
        uint32_t a = edgeofa_load_quad(from), b = edgeofa_load_quad(from + 4);
        uint32_t c = edgeofa_load_quad(from + 8), d = edgeofa_load_quad(from + 12);
        to[0] = edgeofa_add_even_bytes(offset, a);
        to[1] = edgeofa_add_odd_bytes(offset, a);
        to[2] = edgeofa_add_even_bytes(offset, b);
        to[3] = edgeofa_add_odd_bytes(offset, b);
        to[4] = edgeofa_add_even_bytes(offset, c);
        to[5] = edgeofa_add_odd_bytes(offset, c);
        to[6] = edgeofa_add_even_bytes(offset, d);
        to[7] = edgeofa_add_odd_bytes(offset, d);
    }
    for (; quads > 0; quads--, from += 4, to += 2) {
        uint32_t a = edgeofa_load_quad(from);
        to[0] = edgeofa_add_even_bytes(offset, a);
        to[1] = edgeofa_add_odd_bytes(offset, a);
    }
    return to;
}

/* Widen values in natural order; `odd`: a zero comes first. */
static uint32_t *widen_values(uint32_t *to, const int8_t *from, int32_t odd, int32_t count,
                              int32_t zero_point)
{
    const uint32_t offset = edgeofa_pair(-zero_point, -zero_point);
    if (odd && count > 0) {
        *to++ = (uint32_t)(*from++ - zero_point) << 16;
        count--;
    }
    for (; count >= 4; count -= 4, from += 4, to += 2) {
        uint32_t v;
        __builtin_memcpy(&v, from, sizeof v);
        const uint32_t even = edgeofa_add_even_bytes(offset, v);
        v = edgeofa_add_odd_bytes(offset, v);
        to[0] = edgeofa_lows(even, v);
        to[1] = edgeofa_highs(even, v);
    }
    for (; count >= 2; count -= 2, from += 2)
        *to++ = edgeofa_pair(from[0] - zero_point, from[1] - zero_point);
    if (count > 0)
        *to++ = (uint16_t)(*from - zero_point);
    return to;
}

/* Widen pixels in natural order, `skip` zeros first and `stored` - `channels` after each pixel. */
static uint32_t *widen_pixels(uint32_t *to, const int8_t *from, int32_t skip, int32_t pixels,
                              int32_t channels, int32_t stored, int32_t zero_point)
{
    to += skip / 2;
    if (channels == stored)
        return widen_values(to, from, skip % 2, pixels * channels, zero_point);
    if (skip % 2 == 0 && channels == 3 && stored == 4) {
        /* colour images deserve their own loop */
        for (; pixels > 0; pixels--, from += 3, to += 2) {
            to[0] = edgeofa_pair(from[0] - zero_point, from[1] - zero_point);
            to[1] = (uint16_t)(from[2] - zero_point);
        }
        return to;
    }
    uint32_t low = 0;
    int32_t odd = skip % 2;
    for (; pixels > 0; pixels--)
        for (int32_t c = 0; c < stored; c++) {
            uint32_t value = c < channels ? (uint16_t)(*from++ - zero_point) : 0;
            if (odd)
                *to++ = low | value << 16;
            low = value;
            odd = !odd;
        }
    if (odd)
        *to++ = low;
    return to;
}

static void widen_row(const edgeofa_conv *l, uint32_t *to, const int8_t *from)
{
    const uint32_t *end = to + l->pitch;
    const int32_t skip = l->left * l->stored;
    if (from && l->channels % 4 == 0) {
        to = fill(to, to + skip / 2);
        to = widen_quads(to, from, l->width * l->channels / 4, l->zero_point);
    } else if (from) {
        fill(to, to + skip / 2);
        to = widen_pixels(to, from, skip, l->width, l->channels, l->stored, l->zero_point);
    }
    fill(to, end);
}

#ifdef EDGEOFA_MVE
#define VECTOR_WORDS 4
#else
#define VECTOR_WORDS 1
#endif

/* Words that a row of widened weights takes, for one channel. */
static int32_t row_words(int32_t words)
{
    return (words + VECTOR_WORDS - 1) / VECTOR_WORDS * VECTOR_WORDS;
}

#ifdef EDGEOFA_MVE
/* Two channels' int8 weights (words of k, k', each channel 0 then 1) as a vector of pairs for each
 * channel in turn, the last of a row filled up with zeros. */
static void widen_weights(uint32_t *to, const uint32_t *from, int32_t rows, int32_t words)
{
    for (; rows > 0; rows--)
        for (int32_t left = words; left > 0; left -= VECTOR_WORDS, to += 2 * VECTOR_WORDS) {
            const int8x16_t v = (int8x16_t)vldrwq_z_u32(from, vctp32q((uint32_t)left));
            from += left > VECTOR_WORDS ? VECTOR_WORDS : left;
            vst1q_s16((int16_t *)to, vmovlbq_s8(v));
            vst1q_s16((int16_t *)(to + VECTOR_WORDS), vmovltq_s8(v));
        }
}
#else
/* Two channels' int8 weights (words of k, k', each channel 0 then 1) as pairs for each channel. */
static void widen_weights(uint32_t *to, const uint32_t *from, int32_t rows, int32_t words)
{
    int32_t count = rows * words;
    for (; count >= 4; count -= 4, from += 4, to += 8) {
        uint32_t a = from[0], b = from[1], c = from[2], d = from[3];
        to[0] = edgeofa_even_bytes(a);
        to[1] = edgeofa_odd_bytes(a);
        to[2] = edgeofa_even_bytes(b);
        to[3] = edgeofa_odd_bytes(b);
        to[4] = edgeofa_even_bytes(c);
        to[5] = edgeofa_odd_bytes(c);
        to[6] = edgeofa_even_bytes(d);
        to[7] = edgeofa_odd_bytes(d);
    }
    for (; count > 0; count--, from++, to += 2) {
        to[0] = edgeofa_even_bytes(*from);
        to[1] = edgeofa_odd_bytes(*from);
    }
}
#endif

/* Outputs that lie in runs: widened inputs `x`, `x_next` words from run to run; outputs `out_step`
 * bytes apart, `out_next` from run to run. */
typedef struct span {
    const uint32_t *x;
    int32_t x_next;
    int8_t *out;
    int32_t out_next, out_step;
    int32_t runs, count;
} span;

/* One pair of channels by way of raw sums. */
static void run_raw(const edgeofa_conv *l, const span *s, const uint32_t *w, const int32_t *quant,
                    int32_t *sums, int32_t offset, int32_t lone)
{
    const int32_t blocks = s->count / l->pixels, done = blocks * l->pixels, channels = 2 - lone;
    for (int32_t r = 0; r < s->runs; r++) {
        const uint32_t *x = s->x + r * s->x_next;
        int8_t *out = s->out + r * s->out_next + offset;
        if (blocks)
            l->whole[lone](x, w, quant, sums, blocks);
        if (done < s->count)
            l->rest[lone](x + done * l->run_step, w, quant, sums + done * channels, 1);
        for (int32_t i = 0; i < s->count; i++, out += s->out_step)
            for (int32_t c = 0; c < channels; c++) {
                const int32_t *k = quant + EDGEOFA_QUANT * c;
                int32_t value = edgeofa_rescale(sums[i * channels + c], k[1], k[2]);
                out[c] = edgeofa_clamp(value + l->out_zero_point, l->low, l->high);
            }
    }
}

/* Pairs of channels from `c` on, whose weights are widened: first whole blocks of all of them, then
 * the rest of all, so that each loop is fetched from flash once. */
static void run_pairs(const edgeofa_conv *l, const span *s, const uint32_t *w,
                      const int32_t *quant, int32_t *sums, int32_t c, int32_t pairs)
{
    const int32_t taps = 2 * l->kernel_rows * row_words(l->words);
    const int32_t blocks = s->count / l->pixels, done = blocks * l->pixels;
    quant += EDGEOFA_QUANT * c;
    if (l->raw) {
        for (int32_t p = 0; p < pairs; p++)
            run_raw(l, s, w + p * taps, quant + 2 * EDGEOFA_QUANT * p, sums, c + 2 * p,
                    c + 2 * p + 1 == l->out_channels);
        return;
    }
    for (int32_t p = 0; blocks && p < pairs; p++) {
        const edgeofa_conv_kernel kernel = l->whole[c + 2 * p + 1 == l->out_channels];
        for (int32_t r = 0; r < s->runs; r++)
            kernel(s->x + r * s->x_next, w + p * taps, quant + 2 * EDGEOFA_QUANT * p,
                   s->out + r * s->out_next + c + 2 * p, blocks);
    }
    for (int32_t p = 0; done < s->count && p < pairs; p++) {
        const edgeofa_conv_kernel kernel = l->rest[c + 2 * p + 1 == l->out_channels];
        for (int32_t r = 0; r < s->runs; r++)
            kernel(s->x + r * s->x_next + done * l->run_step, w + p * taps,
                   quant + 2 * EDGEOFA_QUANT * p,
                   s->out + r * s->out_next + done * s->out_step + c + 2 * p, 1);
    }
}

/* All channels of some runs. `w` is followed by `sums`. */
static void run_channels(const edgeofa_conv *l, const span *s, uint32_t *w, const uint32_t *weights,
                         const int32_t *quant)
{
    const int32_t taps = l->kernel_rows * l->words;
    int32_t *const sums =
        (int32_t *)(w + 2 * l->pairs * l->kernel_rows * row_words(l->words));
    for (int32_t c = 0; c < l->out_channels; c += 2 * l->pairs) {
        const int32_t pairs = smaller(l->pairs, (l->out_channels - c + 1) / 2);
        widen_weights(w, weights + c / 2 * taps, pairs * l->kernel_rows, l->words);
        run_pairs(l, s, w, quant, sums, c, pairs);
    }
}

/* Widen the rows that a pass needs, those kept from the one before moved to the front. */
static void widen_band(const edgeofa_conv *l, uint32_t *scratch, const int8_t *in, int32_t y,
                       int32_t rows)
{
    const int32_t kept = l->kernel_rows > l->stride ? l->kernel_rows - l->stride : 0;
    const int32_t first = y * l->stride - l->top;
    const int32_t needed = (rows - 1) * l->stride + l->kernel_rows;
    int32_t r = 0;
    if (y && kept) {
        memmove(scratch, scratch + l->band * l->stride * l->pitch,
                (size_t)(kept * l->pitch) * sizeof *scratch);
        r = kept;
    }
    for (; r < needed; r++) {
        const int32_t row = first + r;
        const int inside = row >= 0 && row < l->height;
        widen_row(l, scratch + r * l->pitch, inside ? in + row * l->width * l->channels : NULL);
    }
}

#ifdef EDGEOFA_TILES
static void convolve_tiles(const edgeofa_conv *l, const int8_t *in, int8_t *out, uint32_t *scratch,
                           const uint32_t *weights, const int32_t *quant)
{
    static const int32_t no_bias[2 * EDGEOFA_QUANT];
    const int32_t row_bytes = l->out_width * l->out_channels, pairs = l->channels / 2;
    const int32_t tiles = l->band / 2 * l->tiles, taps = l->kernel_rows * l->words;
    uint32_t *const v = scratch + l->x_words, *const u = v + 16 * tiles * pairs;
    int32_t *const m = (int32_t *)(u + 16 * 2 * pairs);
    for (int32_t y = 0; y < l->out_height; y += l->band) {
        widen_band(l, scratch, in, y, l->band);
        for (int32_t t = 0; t < l->band / 2; t++)
            l->tile_input(scratch + 2 * t * l->pitch, v + t * l->tiles * pairs);
        for (int32_t c = 0; c < l->out_channels; c += 2) {
            /* flash is slow for what comes from nine places at a time; sums are not there yet */
            memcpy(m, weights + c / 2 * taps, (size_t)taps * sizeof *weights);
            l->tile_weight((const uint32_t *)m, u);
            for (int32_t p = 0; p < 16; p++)
                l->tile_products(v + p * tiles * pairs, u + p * 2 * pairs, no_bias,
                                 m + p * tiles * 2, tiles / 4);
            for (int32_t t = 0; t < l->band / 2; t++)
                l->tile_output(m + t * l->tiles * 2, quant + EDGEOFA_QUANT * c,
                               out + (y + 2 * t) * row_bytes + c);
        }
    }
}
#endif

void edgeofa_convolution(const edgeofa_conv *l, const int8_t *in, int8_t *out, uint32_t *scratch,
                         const uint32_t *weights, const int32_t *quant)
{
    const int32_t row_bytes = l->out_width * l->out_channels;
#ifdef EDGEOFA_TILES
    if (l->tile_input && l->tile_weight && l->tile_output) {
        convolve_tiles(l, in, out, scratch, weights, quant);
        return;
    }
#endif
    for (int32_t y = 0; y < l->out_height; y += l->band) {
        const int32_t rows = smaller(l->band, l->out_height - y);
        widen_band(l, scratch, in, y, rows);
        int8_t *const to = out + y * row_bytes;
        const span along = {scratch,   l->stride * l->pitch, to,   row_bytes,
                            l->out_channels, rows, l->out_width};
        const span down = {scratch,   l->step, to, l->out_channels, row_bytes, l->out_width, rows};
        run_channels(l, l->upright ? &down : &along, scratch + l->x_words, weights, quant);
    }
}

void edgeofa_pointwise(const edgeofa_conv *l, const int8_t *in, int8_t *out, uint32_t *scratch,
                       const uint32_t *weights, const int32_t *quant)
{
    const int32_t pixels = l->height * l->width;
    for (int32_t p = 0; p < pixels; p += l->band) {
        const int32_t count = smaller(l->band, pixels - p);
        const int8_t *from = in + p * l->channels;
        if (l->channels % 4 == 0)
            widen_quads(scratch, from, count * l->channels / 4, l->zero_point);
        else
            widen_pixels(scratch, from, 0, count, l->channels, l->stored, l->zero_point);
        const span s = {scratch, 0, out + p * l->out_channels, 0, l->out_channels, 1, count};
        run_channels(l, &s, scratch + l->x_words, weights, quant);
    }
}

void edgeofa_fully_connected(const edgeofa_dense *l, const int8_t *in, int8_t *out,
                             uint32_t *scratch, const uint32_t *weights, const int32_t *quant)
{
    int32_t *const sums = (int32_t *)(scratch + l->words);
    const int32_t quads = l->outputs / 4, whole = 4 * quads, rest = l->outputs - whole;
    uint32_t *end;
    if (l->inputs % 4 == 0)
        end = widen_quads(scratch, in, l->inputs / 4, l->zero_point);
    else
        end = widen_pixels(scratch, in, 0, 1, l->inputs, l->inputs, l->zero_point);
    fill(end, scratch + l->words);
    const uint32_t *last = weights + 2 * quads * l->words;
    if (l->raw) {
        l->kernel(scratch, weights, quant, sums, quads + (rest != 0));
        for (int32_t o = 0; o < l->outputs; o++) {
            const int32_t *k = quant + EDGEOFA_QUANT * o;
            int32_t value = edgeofa_rescale(sums[o], k[1], k[2]) + l->out_zero_point;
            out[o] = edgeofa_clamp(value, l->low, l->high);
        }
        return;
    }
    if (quads)
        l->kernel(scratch, weights, quant, out, quads);
    if (rest) {
        int8_t four[4];
        l->kernel(scratch, last, quant + EDGEOFA_QUANT * whole, four, 1);
        memcpy(out + whole, four, (size_t)rest);
    }
}
