/* The layers of a compiled network. Shapes and constants come from the compiler and are trusted.
 *
 * Convolutions work on int16: a band of input rows is widened once, its zero point taken off, and
 * its padding made real zeros; then the weights of two output channels are widened and all pixels
 * of the band computed with them. So each weight leaves flash once per band, and the output may lie
 * over the input where no row is written before it was widened.
 *
 * Where the number of channels is a multiple of four, four values b0 b1 b2 b3 are widened to the
 * pairs (b0, b2) and (b1, b3); the compiler packs weights to match.
 *
 * An output channel's constants are (bias, m', 2**(32 - n)) with m' = 2 m - 2**32 for TFLite's
 * multiplier m and right shift n >= 2; where a channel has none of that form the layer is `raw`: its
 * constants are (bias, m, shift), kernels leave sums, and the layer requantises them.
 */
#ifndef EDGEOFA_KERNELS_H
#define EDGEOFA_KERNELS_H

#include "edgeofa_simd.h"

/* int32 words of an output channel's constants */
#define EDGEOFA_QUANT 3

/* Inner loops, made for one layer's shape by the compiler. `out` is int8_t, or int32_t when raw. */
typedef void (*edgeofa_conv_kernel)(const uint32_t *x, const uint32_t *w, const int32_t *quant,
                                    void *out, int32_t blocks);
typedef void (*edgeofa_depthwise_kernel)(const uint32_t *x, const int32_t *channel, void *out,
                                         int32_t rows);
typedef void (*edgeofa_dense_kernel)(const uint32_t *x, const uint32_t *w, const int32_t *quant,
                                     void *out, int32_t quads);

/* These are NULL where the layer's own C is to be used. Rows within the image, to four planes: */
typedef void (*edgeofa_split_kernel)(const int8_t *in, uint32_t *planes, int32_t rows);
typedef void (*edgeofa_add_kernel)(const int8_t *a, const int8_t *b, int8_t *out, int32_t quads);

/* A row of tiles of widened input to 16 planes; the weights of two channels to 16 places; sums of a
 * row of tiles to outputs of two channels. */
typedef void (*edgeofa_tile_input_kernel)(const uint32_t *x, uint32_t *v);
typedef void (*edgeofa_tile_weight_kernel)(const uint32_t *from, uint32_t *u);
typedef void (*edgeofa_tile_output_kernel)(const int32_t *m, const int32_t *quant, int8_t *out);

typedef struct edgeofa_conv {
    int32_t height, width, channels; /* input */
    int32_t out_height, out_width, out_channels;
    int32_t top, left;
    int32_t stride;      /* vertical */
    int32_t kernel_rows;
    int32_t stored;      /* int16 per pixel: channels, or one more to make the step even */
    int32_t pitch;       /* words of a widened row */
    int32_t step;        /* words between the inputs of horizontal neighbours */
    int32_t run_step;    /* words between the inputs of neighbouring outputs of a run */
    int32_t words;       /* pairs in a kernel row, padded to whole chunks */
    int32_t pixels;      /* outputs in a block of the first kernel */
    int32_t band;        /* rows of outputs in a pass; a pointwise layer: outputs */
    int32_t upright;     /* runs of outputs go down columns, and one pass makes all rows */
    int32_t pairs;       /* of output channels whose weights are widened together */
    int32_t x_words;     /* scratch for the band, before the weights; sums follow when raw */
    int32_t zero_point;  /* of the input */
    int32_t raw;
    int32_t out_zero_point, low, high;
    /* blocks of `pixels`, then the rest of a row; [1]: for a last channel without a partner */
    edgeofa_conv_kernel whole[2], rest[2];
    /* Winograd's way, where the first three are not NULL: a pass makes `band` rows, two for each
     * row of `tiles` tiles; the products are pointwise convolutions of all its tiles, four a block */
    edgeofa_tile_input_kernel tile_input;
    edgeofa_tile_weight_kernel tile_weight;
    edgeofa_tile_output_kernel tile_output;
    edgeofa_conv_kernel tile_products;
    int32_t tiles;
    /* Vectors' way where kernel rows are short: `patch_inputs` of each of `patch_outputs` outputs
     * side by side; `patch_pitch` bytes of a row of the band, an even number,
     * `patch_step` between neighbouring outputs' inputs. */
    edgeofa_conv_kernel patch_products;
    int32_t patch_outputs, patch_inputs, patch_pitch, patch_step;
} edgeofa_conv;

typedef struct edgeofa_depthwise {
    int32_t height, width, channels;
    int32_t out_height, out_width;
    int32_t top, left;
    int32_t stride; /* vertical */
    int32_t kernel_rows;
    int32_t pitch;       /* words of a plane's row */
    int32_t plane;       /* words of a plane */
    int32_t band;        /* rows of outputs in a pass */
    int32_t columns;     /* outputs of a row that the first kernel makes */
    int32_t rest;        /* word of a plane's row at which the second kernel starts */
    int32_t channel;     /* words of a channel's data: constants and weights */
    int32_t zero_point;
    int32_t raw;
    int32_t out_zero_point, low, high;
    edgeofa_split_kernel split;
    edgeofa_depthwise_kernel kernel[2]; /* the second is NULL where whole blocks fill a row */
} edgeofa_depthwise;

typedef struct edgeofa_dense {
    int32_t inputs, outputs;
    int32_t words; /* pairs of inputs, padded to whole chunks */
    int32_t zero_point;
    int32_t raw;
    int32_t out_zero_point, low, high;
    edgeofa_dense_kernel kernel;
} edgeofa_dense;

/* ADD: each input is rescaled from 2**20 times its value, then their sum. */
typedef struct edgeofa_add {
    int32_t zero_point[2], multiplier[2], shift[2]; /* m', and n >= 0 */
    int32_t out_multiplier, out_power;              /* m', 2**(32 - n) */
    int32_t out_zero_point, low, high;
    edgeofa_add_kernel kernel; /* takes the input of smaller scale first, `swap`: b */
    int32_t swap;
} edgeofa_add;

typedef struct edgeofa_mul {
    int32_t zero_point[2];
    int32_t multiplier, shift; /* TFLite's */
    int32_t out_zero_point, low, high;
} edgeofa_mul;

typedef struct edgeofa_pool {
    int32_t height, width, channels;
    int32_t out_height, out_width;
    int32_t top, left;
    int32_t stride_height, stride_width;
    int32_t kernel_height, kernel_width;
    int32_t low, high;
} edgeofa_pool;

typedef struct edgeofa_mean {
    int32_t pixels, channels;
    int32_t zero_point;
    int32_t multiplier, shift; /* TFLite's */
    int32_t out_zero_point;
} edgeofa_mean;

/* `places`: of each input of a patch, the byte of its weight among two channels'; NULL without. */
void edgeofa_convolution(const edgeofa_conv *layer, const int8_t *in, int8_t *out,
                         uint32_t *scratch, const uint32_t *weights, const int32_t *quant,
                         const uint8_t *places);
/* 1x1, stride 1: pixels are one long row. */
void edgeofa_pointwise(const edgeofa_conv *layer, const int8_t *in, int8_t *out, uint32_t *scratch,
                       const uint32_t *weights, const int32_t *quant);
void edgeofa_depthwise_convolution(const edgeofa_depthwise *layer, const int8_t *in, int8_t *out,
                                   uint32_t *scratch, const int32_t *data);
void edgeofa_fully_connected(const edgeofa_dense *layer, const int8_t *in, int8_t *out,
                             uint32_t *scratch, const uint32_t *weights, const int32_t *quant);
/* `repeat` inputs of `count` values each; b has `count` values for all of them when `broadcast`. */
void edgeofa_addition(const edgeofa_add *layer, const int8_t *a, const int8_t *b, int8_t *out,
                      int32_t repeat, int32_t count, int32_t broadcast);
void edgeofa_multiplication(const edgeofa_mul *layer, const int8_t *a, const int8_t *b, int8_t *out,
                            int32_t repeat, int32_t count, int32_t broadcast);
void edgeofa_average_pool(const edgeofa_pool *layer, const int8_t *in, int8_t *out);
void edgeofa_max_pool(const edgeofa_pool *layer, const int8_t *in, int8_t *out);
void edgeofa_global_mean(const edgeofa_mean *layer, const int8_t *in, int8_t *out);
/* out[i] = table[in[i] + 128] */
void edgeofa_table(const int8_t *table, const int8_t *in, int8_t *out, int32_t count);
void edgeofa_pad(const int8_t *in, int8_t *out, int32_t height, int32_t row_bytes, int32_t top,
                 int32_t bottom, int32_t left_bytes, int32_t right_bytes, int32_t zero_point);
/* exps[255 + d] is exp(d scale) in q0.31 for differences d from -255 to 0; those below -radius count
 * as nothing. */
void edgeofa_softmax(const int32_t *exps, int32_t radius, const int8_t *in, int8_t *out,
                     int32_t rows, int32_t count);

/* The inner loops in plain C, for cores without the DSP extension. */
typedef struct edgeofa_conv_shape {
    int32_t pixels, rows, words, pitch, step, channels, out_step, raw, zero_point, low, high;
} edgeofa_conv_shape;

typedef struct edgeofa_depthwise_shape {
    int32_t block, blocks, kernel_height, kernel_width, stride, pitch, row_step, out_step, out_row;
    int32_t raw, zero_point, low, high;
    int32_t words;          /* of a kernel row */
    const uint8_t *word_of; /* for each tap of a row the word that holds it */
    const uint8_t *half_of; /* and its half: 0 low, 1 high */
} edgeofa_depthwise_shape;

typedef struct edgeofa_dense_shape {
    int32_t words;
    int32_t merged; /* two bytes are w + 256 w' */
    int32_t raw, zero_point, low, high;
} edgeofa_dense_shape;

void edgeofa_conv_portable(const edgeofa_conv_shape *shape, const uint32_t *x, const uint32_t *w,
                           const int32_t *quant, void *out, int32_t blocks);
void edgeofa_depthwise_portable(const edgeofa_depthwise_shape *shape, const uint32_t *x,
                                const int32_t *channel, void *out, int32_t rows);
void edgeofa_dense_portable(const edgeofa_dense_shape *shape, const uint32_t *x, const uint32_t *w,
                            const int32_t *quant, void *out, int32_t quads);

#endif
