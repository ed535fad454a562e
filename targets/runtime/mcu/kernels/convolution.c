/* Convolutions and dense layers around their inner loops: widening, bands, requantising raw sums. */
#include "edgeofa_kernels.h"

static int32_t smaller(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* Two neighbouring inputs of a band: int8 where vectors multiply them, else int16. */
#ifdef EDGEOFA_MVE
typedef uint16_t pair;
#else
typedef uint32_t pair;
#endif

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

#ifdef EDGEOFA_MVE
static int8_t *copy(int8_t *to, const int8_t *from, int32_t count)
{
    for (; count > 0; count -= 16, from += 16, to += 16) {
        const mve_pred16_t some = vctp8q((uint32_t)count);
        vstrbq_p_s8(to, vldrbq_z_s8(from, some), some);
    }
    return to + count;
}

static int8_t *set(int8_t *to, int32_t count, int32_t value)
{
    for (; count > 0; count -= 16, to += 16)
        vstrbq_p_s8(to, vdupq_n_s8((int8_t)value), vctp8q((uint32_t)count));
    return to + count;
}

/* Vectors take inputs as they are: pixels of `stored` bytes, whose last one has no weight where it
 * is none of the `channels`. */
static int8_t *copy_pixels(const edgeofa_conv *l, int8_t *to, const int8_t *from, int32_t pixels)
{
    if (l->channels == l->stored)
        return copy(to, from, pixels * l->channels);
    for (; pixels > 0; pixels--, from += l->channels, to += l->stored) {
        to[l->channels] = 0;
        for (int32_t c = 0; c < l->channels; c++)
            to[c] = from[c];
    }
    return to;
}

static void prepare_row(const edgeofa_conv *l, pair *row, const int8_t *from)
{
    int8_t *to = (int8_t *)row, *const end = (int8_t *)(row + l->pitch);
    if (from) {
        to = set(to, l->left * l->stored, l->zero_point);
        to = copy_pixels(l, to, from, l->width);
    }
    set(to, (int32_t)(end - to), l->zero_point);
}

/* Vectors of a kernel row of one channel. */
static int32_t row_vectors(int32_t words)
{
    return (words + 7) / 8;
}

/* Two channels' constants, with the input's zero point in the bias; `sum`: of their weights. */
static void prepare_constants(const edgeofa_conv *l, int32_t *constants, const int32_t *quant,
                              const int32_t sum[2])
{
    for (int32_t c = 0; c < 2; c++, constants += EDGEOFA_QUANT, quant += EDGEOFA_QUANT) {
        constants[0] = quant[0] - l->zero_point * sum[c];
        constants[1] = quant[1];
        constants[2] = quant[2];
        if (!l->raw) {
            /* back from m' to m, and from 2**(32 - n) to -n */
            constants[1] = (int32_t)((uint32_t)quant[1] >> 1);
            constants[2] = ~__builtin_clz((uint32_t)quant[2]);
        }
    }
}

/* Two channels' weights (words of k, k', each channel 0 then 1) as vectors of each channel in turn,
 * in the inputs' order, the last of a row filled up with zeros; and their constants. */
static void prepare_weights(const edgeofa_conv *l, int8_t *to, int32_t *constants,
                            const uint32_t *from, const int32_t *quant)
{
    static const uint8_t places[2][16] = {
        {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30},
        {0, 4, 2, 6, 8, 12, 10, 14, 16, 20, 18, 22, 24, 28, 26, 30},
    };
    const int32_t fours = l->channels % 4 == 0;
    const uint8x16_t even = vldrbq_u8(places[fours]), odd = vaddq_n_u8(even, 1);
    /* what fills up words is no whole four */
    const int32_t inputs = fours ? 2 * l->words & ~3 : 2 * l->words;
    int32_t sum[2] = {0, 0};
    for (int32_t row = 0; row < l->kernel_rows; row++, from += l->words)
        for (int32_t done = 0; done < l->words; done += 8, to += 32) {
            const int8_t *const bytes = (const int8_t *)(from + done);
            const mve_pred16_t some = vctp8q((uint32_t)(inputs - 2 * done));
            const int8x16_t a = vldrbq_gather_offset_z_s8(bytes, even, some);
            const int8x16_t b = vldrbq_gather_offset_z_s8(bytes, odd, some);
            sum[0] = vaddvaq_s8(sum[0], a);
            sum[1] = vaddvaq_s8(sum[1], b);
            vst1q_s8(to, a);
            vst1q_s8(to + 16, b);
        }
    prepare_constants(l, constants, quant, sum);
}

#else

static void prepare_row(const edgeofa_conv *l, pair *to, const int8_t *from)
{
    const pair *end = to + l->pitch;
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

/* Two channels' int8 weights (words of k, k', each channel 0 then 1) as pairs for each channel. */
static void widen_weights(uint32_t *to, const uint32_t *from, int32_t count)
{
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

/* Outputs that lie in runs: pairs of inputs `x`, `x_next` of them from run to run; outputs `out_step`
 * bytes apart, `out_next` from run to run. */
typedef struct span {
    const pair *x;
    int32_t x_next;
    int8_t *out;
    int32_t out_next, out_step;
    int32_t runs, count;
} span;

static void call(edgeofa_conv_kernel kernel, const pair *x, const uint32_t *w, const int32_t *quant,
                 void *out, int32_t blocks)
{
    kernel((const uint32_t *)(const void *)x, w, quant, out, blocks);
}

/* One pair of channels by way of raw sums. */
static void run_raw(const edgeofa_conv *l, const span *s, const uint32_t *w, const int32_t *quant,
                    int32_t *sums, int32_t offset, int32_t lone)
{
    const int32_t blocks = s->count / l->pixels, done = blocks * l->pixels, channels = 2 - lone;
    for (int32_t r = 0; r < s->runs; r++) {
        const pair *x = s->x + r * s->x_next;
        int8_t *out = s->out + r * s->out_next + offset;
        if (blocks)
            call(l->whole[lone], x, w, quant, sums, blocks);
        if (done < s->count)
            call(l->rest[lone], x + done * l->run_step, w, quant, sums + done * channels, 1);
        for (int32_t i = 0; i < s->count; i++, out += s->out_step)
            for (int32_t c = 0; c < channels; c++) {
                const int32_t *k = quant + EDGEOFA_QUANT * c;
                int32_t value = edgeofa_rescale(sums[i * channels + c], k[1], k[2]);
                out[c] = edgeofa_clamp(value + l->out_zero_point, l->low, l->high);
            }
    }
}

/* Words of two channels' prepared weights. */
static int32_t pair_words(const edgeofa_conv *l)
{
#ifdef EDGEOFA_MVE
    return 8 * l->kernel_rows * row_vectors(l->words);
#else
    return 2 * l->kernel_rows * l->words;
#endif
}

/* Pairs of channels from `c` on, whose weights are prepared and whose constants are `quant`: first
 * whole blocks of all of them, then the rest of all, so that each loop is fetched from flash once. */
static void run_pairs(const edgeofa_conv *l, const span *s, const uint32_t *w,
                      const int32_t *quant, int32_t *sums, int32_t c, int32_t pairs)
{
    const int32_t taps = pair_words(l);
    const int32_t blocks = s->count / l->pixels, done = blocks * l->pixels;
    if (l->raw) {
        for (int32_t p = 0; p < pairs; p++)
            run_raw(l, s, w + p * taps, quant + 2 * EDGEOFA_QUANT * p, sums, c + 2 * p,
                    c + 2 * p + 1 == l->out_channels);
        return;
    }
    for (int32_t p = 0; blocks && p < pairs; p++) {
        const edgeofa_conv_kernel kernel = l->whole[c + 2 * p + 1 == l->out_channels];
        for (int32_t r = 0; r < s->runs; r++)
            call(kernel, s->x + r * s->x_next, w + p * taps, quant + 2 * EDGEOFA_QUANT * p,
                 s->out + r * s->out_next + c + 2 * p, blocks);
    }
    for (int32_t p = 0; done < s->count && p < pairs; p++) {
        const edgeofa_conv_kernel kernel = l->rest[c + 2 * p + 1 == l->out_channels];
        for (int32_t r = 0; r < s->runs; r++)
            call(kernel, s->x + r * s->x_next + done * l->run_step, w + p * taps,
                 quant + 2 * EDGEOFA_QUANT * p,
                 s->out + r * s->out_next + done * s->out_step + c + 2 * p, 1);
    }
}

/* All channels of some runs. The weights lie after the band, then constants of vectors, then sums. */
static void run_channels(const edgeofa_conv *l, const span *s, uint32_t *scratch,
                         const uint32_t *weights, const int32_t *quant)
{
    const int32_t taps = l->kernel_rows * l->words;
#ifdef EDGEOFA_MVE
    uint32_t *const w = scratch + (l->x_words + 7) / 8 * 4;
    int32_t *const constants = (int32_t *)(w + l->pairs * pair_words(l));
    int32_t *const sums = constants + l->pairs * 2 * EDGEOFA_QUANT;
#else
    uint32_t *const w = scratch + l->x_words;
    int32_t *const sums = (int32_t *)(w + l->pairs * pair_words(l));
#endif
    for (int32_t c = 0; c < l->out_channels; c += 2 * l->pairs) {
        const int32_t pairs = smaller(l->pairs, (l->out_channels - c + 1) / 2);
        const uint32_t *const from = weights + c / 2 * taps;
        const int32_t *own = quant + EDGEOFA_QUANT * c;
#ifdef EDGEOFA_MVE
        for (int32_t p = 0; p < pairs; p++)
            prepare_weights(l, (int8_t *)(w + p * pair_words(l)), constants + 2 * EDGEOFA_QUANT * p,
                            from + p * taps, own + 2 * EDGEOFA_QUANT * p);
        own = constants;
#else
        widen_weights(w, from, pairs * taps);
#endif
        run_pairs(l, s, w, own, sums, c, pairs);
    }
}

/* Rows that a pass has in common with the one before, to the front. */
static void keep_rows(pair *band, const pair *kept, int32_t count)
{
#ifdef EDGEOFA_MVE
    copy((int8_t *)band, (const int8_t *)kept, count * (int32_t)sizeof *band);
#else
    memmove(band, kept, (size_t)count * sizeof *band);
#endif
}

/* Prepare the rows that a pass needs. */
static void prepare_band(const edgeofa_conv *l, pair *band, const int8_t *in, int32_t y,
                         int32_t rows)
{
    const int32_t kept = l->kernel_rows > l->stride ? l->kernel_rows - l->stride : 0;
    const int32_t first = y * l->stride - l->top;
    const int32_t needed = (rows - 1) * l->stride + l->kernel_rows;
    int32_t r = 0;
    if (y && kept) {
        keep_rows(band, band + l->band * l->stride * l->pitch, kept * l->pitch);
        r = kept;
    }
    for (; r < needed; r++) {
        const int32_t row = first + r;
        const int inside = row >= 0 && row < l->height;
        prepare_row(l, band + r * l->pitch, inside ? in + row * l->width * l->channels : NULL);
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
        prepare_band(l, scratch, in, y, l->band);
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

#ifdef EDGEOFA_MVE
/* The inputs of an output side by side, for `count` of a band's outputs from `first` on. */
static void gather_patches(const edgeofa_conv *l, int8_t *to, const int8_t *band, int32_t first,
                           int32_t count)
{
    const int32_t row = l->patch_inputs / l->kernel_rows;
    const int32_t size = (l->patch_inputs + 15) / 16 * 16;
    int32_t x = first % l->out_width;
    const int8_t *line = band + first / l->out_width * l->stride * l->patch_pitch;
    for (; count > 0; count--, to += size) {
        const int8_t *from = line + x * l->patch_step;
        int8_t *end = to;
        for (int32_t r = 0; r < l->kernel_rows; r++, from += l->patch_pitch)
            end = copy(end, from, row);
        if (++x == l->out_width) {
            x = 0;
            line += l->stride * l->patch_pitch;
        }
    }
}

/* Two channels' weights as vectors of each in turn, in the order of a patch; and their constants. */
static void prepare_patch_weights(const edgeofa_conv *l, int8_t *to, int32_t *constants,
                                  const uint32_t *from, const int32_t *quant, const uint8_t *places)
{
    const int8_t *const bytes = (const int8_t *)from;
    int32_t sum[2] = {0, 0};
    for (int32_t left = l->patch_inputs; left > 0; left -= 16, places += 16, to += 32) {
        const mve_pred16_t some = vctp8q((uint32_t)left);
        const uint8x16_t even = vldrbq_z_u8(places, some), odd = vaddq_n_u8(even, 1);
        const int8x16_t a = vldrbq_gather_offset_z_s8(bytes, even, some);
        const int8x16_t b = vldrbq_gather_offset_z_s8(bytes, odd, some);
        sum[0] = vaddvaq_s8(sum[0], a);
        sum[1] = vaddvaq_s8(sum[1], b);
        vst1q_s8(to, a);
        vst1q_s8(to + 16, b);
    }
    prepare_constants(l, constants, quant, sum);
}

/* One band by patches; fewer outputs than a block are no band. */
static void run_patches(const edgeofa_conv *l, const int8_t *band, int32_t band_bytes, int8_t *out,
                        const uint32_t *weights, const int32_t *quant, const uint8_t *places,
                        int32_t count)
{
    const int32_t vectors = (l->patch_inputs + 15) / 16, taps = l->kernel_rows * l->words;
    int8_t *const patches = (int8_t *)band + (band_bytes + 15) / 16 * 16;
    int8_t *const w = patches + l->patch_outputs * vectors * 16;
    int32_t *const constants = (int32_t *)(w + l->pairs * vectors * 32);
    for (int32_t done = 0, some; done < count; done += some) {
        some = smaller(l->patch_outputs, count - done) & ~3;
        if (some == 0) {
            /* a last block begins among outputs that were there before */
            done = count - 4;
            some = 4;
        }
        gather_patches(l, patches, band, done, some);
        for (int32_t c = 0; c < l->out_channels; c += 2 * l->pairs) {
            const int32_t pairs = smaller(l->pairs, (l->out_channels - c) / 2);
            for (int32_t p = 0; p < pairs; p++)
                prepare_patch_weights(l, w + p * vectors * 32, constants + 2 * EDGEOFA_QUANT * p,
                                      weights + (c / 2 + p) * taps,
                                      quant + EDGEOFA_QUANT * (c + 2 * p), places);
            for (int32_t p = 0; p < pairs; p++)
                call(l->patch_products, (const pair *)patches,
                     (const uint32_t *)(w + p * vectors * 32), constants + 2 * EDGEOFA_QUANT * p,
                     out + done * l->out_channels + c + 2 * p, some / 4);
        }
    }
}

static void convolve_patches(const edgeofa_conv *l, const int8_t *in, int8_t *out,
                             uint32_t *scratch, const uint32_t *weights, const int32_t *quant,
                             const uint8_t *places)
{
    const int32_t row_bytes = l->out_width * l->out_channels;
    /* the same layer, with nothing between pixels */
    edgeofa_conv dense = *l;
    dense.stored = l->channels;
    dense.pitch = l->patch_pitch / 2;
    const int32_t band_rows = (l->band - 1) * l->stride + l->kernel_rows;
    for (int32_t y = 0; y < l->out_height; y += l->band) {
        const int32_t rows = smaller(l->band, l->out_height - y);
        prepare_band(&dense, (pair *)scratch, in, y, rows);
        run_patches(l, (int8_t *)scratch, band_rows * l->patch_pitch, out + y * row_bytes, weights,
                    quant, places, rows * l->out_width);
    }
}
#endif

void edgeofa_convolution(const edgeofa_conv *l, const int8_t *in, int8_t *out, uint32_t *scratch,
                         const uint32_t *weights, const int32_t *quant, const uint8_t *places)
{
    const int32_t row_bytes = l->out_width * l->out_channels;
#ifdef EDGEOFA_TILES
    if (l->tile_input && l->tile_weight && l->tile_output) {
        convolve_tiles(l, in, out, scratch, weights, quant);
        return;
    }
#elif defined(EDGEOFA_MVE)
    if (l->patch_products) {
        convolve_patches(l, in, out, scratch, weights, quant, places);
        return;
    }
#endif
    (void)places;
    pair *const band = (pair *)scratch;
    for (int32_t y = 0; y < l->out_height; y += l->band) {
        const int32_t rows = smaller(l->band, l->out_height - y);
        prepare_band(l, band, in, y, rows);
        int8_t *const to = out + y * row_bytes;
        const span along = {band,      l->stride * l->pitch, to,   row_bytes,
                            l->out_channels, rows, l->out_width};
        const span down = {band, l->step, to, l->out_channels, row_bytes, l->out_width, rows};
        run_channels(l, l->upright ? &down : &along, scratch, weights, quant);
    }
}

void edgeofa_pointwise(const edgeofa_conv *l, const int8_t *in, int8_t *out, uint32_t *scratch,
                       const uint32_t *weights, const int32_t *quant)
{
    const int32_t pixels = l->height * l->width;
    pair *const band = (pair *)scratch;
    for (int32_t p = 0; p < pixels; p += l->band) {
        const int32_t count = smaller(l->band, pixels - p);
        const int8_t *from = in + p * l->channels;
#ifdef EDGEOFA_MVE
        copy_pixels(l, (int8_t *)band, from, count);
#else
        if (l->channels % 4 == 0)
            widen_quads(band, from, count * l->channels / 4, l->zero_point);
        else
            widen_pixels(band, from, 0, count, l->channels, l->stored, l->zero_point);
#endif
        const span s = {band, 0, out + p * l->out_channels, 0, l->out_channels, 1, count};
        run_channels(l, &s, scratch, weights, quant);
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
