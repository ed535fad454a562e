/* The kernels over shapes and parameters, each against plain code, in memory of the exact size.
 *
 * A layer is described to a kernel as the compiler describes it (edgeofa_kernels.h); layouts that the
 * compiler is free in (bands, blocks, pairs of channels, padding of rows to chunks) are drawn. */
#include <math.h>
#include <string.h>

#include "edgeofa_kernels.h"
#include "input.h"
#include "plain.h"

enum { QUANT = EDGEOFA_QUANT };

static int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }

/* ---- what all layers share ---- */

typedef struct {
  int32_t zero_point, out_zero_point, low, high;
} range;

static range draw_range(fuzz_input *in) {
  range r = {fuzz_between(in, -128, 127), fuzz_between(in, -128, 127), -128, 127};
  if (fuzz_chance(in, 2)) r.low = r.out_zero_point;
  if (fuzz_chance(in, 3)) r.high = fuzz_between(in, r.low, 127);
  return r;
}

static int8_t draw_value(fuzz_input *in) {
  switch (fuzz_byte(in) % 8) {
    case 0: return -128;
    case 1: return 127;
    default: return (int8_t)fuzz_byte(in);
  }
}

static int8_t *draw_values(fuzz_input *in, int32_t count) {
  int8_t *values = fuzz_memory((size_t)count);
  const int same = fuzz_chance(in, 8); /* what adds up to the largest sums */
  const int8_t first = draw_value(in);
  for (int32_t i = 0; i < count; i++) values[i] = same ? first : draw_value(in);
  return values;
}

/* Weights lie in -127 to 127. */
static int8_t *draw_weights(fuzz_input *in, int32_t count) {
  int8_t *values = draw_values(in, count);
  for (int32_t i = 0; i < count; i++)
    if (values[i] == -128) values[i] = -127;
  return values;
}

/* A channel's bias, TFLite's multiplier and shift: one that the fast form takes, or any. */
typedef struct {
  int32_t bias, multiplier, shift;
} requant;

static requant draw_requant(fuzz_input *in, int raw) {
  requant q;
  const int32_t bits = fuzz_between(in, 1, 28);
  q.bias = (int32_t)(fuzz_word(in) >> (32 - bits)) - (fuzz_chance(in, 2) ? 0 : 1 << (bits - 1));
  q.multiplier = (int32_t)(UINT32_C(0x40000000) + (fuzz_word(in) & UINT32_C(0x3fffffff)));
  if (fuzz_chance(in, 8)) q.multiplier = fuzz_chance(in, 2) ? 1 << 30 : INT32_MAX;
  q.shift = raw ? fuzz_between(in, -31, 1) : -fuzz_between(in, 2, 31);
  if (raw && fuzz_chance(in, 16)) q.multiplier = q.shift = 0;
  return q;
}

static void put_requant(int32_t *to, requant q, int raw) {
  to[0] = q.bias;
  to[1] = raw ? q.multiplier : (int32_t)(2 * (uint32_t)q.multiplier);
  to[2] = raw ? q.shift : (int32_t)(UINT32_C(1) << (32 + q.shift));
}

static int8_t finished(int32_t sum, requant q, range r) {
  return plain_clamp(plain_rescale(sum, q.multiplier, q.shift) + r.out_zero_point, r.low, r.high);
}

static void compare(const char *what, const int8_t *got, const int8_t *wanted, int32_t count) {
  for (int32_t i = 0; i < count; i++)
    FUZZ_CHECK(got[i] == wanted[i], "%s: output %ld of %ld is %d, not %d", what, (long)i,
               (long)count, got[i], wanted[i]);
}

/* Where an input stands in a row of weights: fours are widened in the order 0 2 1 3. */
static int32_t widened_place(int32_t i, int32_t channels) {
  static const int32_t order[4] = {0, 2, 1, 3};
  return channels % 4 ? i : i / 4 * 4 + order[i % 4];
}

/* ---- convolution ---- */

static edgeofa_conv_shape conv_shapes[2][2]; /* whole or rest; with a partner or without */

#define CONV_KERNEL(name, rest, lone)                                                    \
  static void name(const uint32_t *x, const uint32_t *w, const int32_t *quant, void *out, \
                   int32_t blocks) {                                                     \
    edgeofa_conv_portable(&conv_shapes[rest][lone], x, w, quant, out, blocks);           \
  }
CONV_KERNEL(whole_two, 0, 0)
CONV_KERNEL(whole_one, 0, 1)
CONV_KERNEL(rest_two, 1, 0)
CONV_KERNEL(rest_one, 1, 1)

typedef struct {
  int32_t height, width, channels, out_height, out_width, out_channels;
  int32_t rows, columns, down, along, top, left, right;
} geometry;

/* False where nothing would come out. */
static int draw_geometry(fuzz_input *in, geometry *g, int32_t most_channels) {
  g->height = fuzz_between(in, 1, 11);
  g->width = fuzz_between(in, 1, 11);
  g->channels = fuzz_between(in, 1, most_channels);
  g->out_channels = fuzz_between(in, 1, 9);
  g->rows = fuzz_between(in, 1, 5);
  g->columns = fuzz_chance(in, 2) ? g->rows : fuzz_between(in, 1, 7);
  g->down = fuzz_between(in, 1, 3);
  g->along = fuzz_chance(in, 2) ? g->down : fuzz_between(in, 1, 3);
  g->top = fuzz_between(in, 0, g->rows - 1);
  const int32_t bottom = fuzz_between(in, 0, g->rows - 1);
  g->left = fuzz_between(in, 0, g->columns - 1);
  g->right = fuzz_between(in, 0, g->columns - 1);
  const int32_t tall = g->height + g->top + bottom - g->rows;
  const int32_t wide = g->width + g->left + g->right - g->columns;
  if (tall < 0 || wide < 0) return 0;
  g->out_height = tall / g->down + 1;
  g->out_width = wide / g->along + 1;
  return 1;
}

/* The stored value at a place of an image, its zero point taken off; 0 outside. */
static int32_t real_at(const geometry *g, const int8_t *image, int32_t y, int32_t x, int32_t c,
                       int32_t zero_point) {
  if (y < 0 || y >= g->height || x < 0 || x >= g->width) return 0;
  return image[(y * g->width + x) * g->channels + c] - zero_point;
}

static uint32_t *pack_pairs(const int8_t *weight, int32_t outputs, int32_t rows, int32_t columns,
                            int32_t channels, int32_t stored, int32_t words, int32_t *count) {
  const int32_t pairs = (outputs + 1) / 2;
  *count = pairs * rows * words;
  uint32_t *packed = fuzz_memory((size_t)*count * sizeof *packed);
  uint8_t *bytes = (uint8_t *)packed;
  for (int32_t o = 0; o < outputs; o++)
    for (int32_t r = 0; r < rows; r++)
      for (int32_t i = 0; i < columns; i++)
        for (int32_t c = 0; c < channels; c++) {
          const int32_t k = i * stored + widened_place(c, channels);
          bytes[4 * ((o / 2 * rows + r) * words + k / 2) + 2 * (k % 2) + o % 2] =
              (uint8_t)weight[((o * rows + r) * columns + i) * channels + c];
        }
  return packed;
}

static void fuzz_convolution(fuzz_input *in) {
  geometry g;
  if (!draw_geometry(in, &g, 13)) return;
  const int pointwise = fuzz_chance(in, 3);
  if (pointwise) {
    g.rows = g.columns = g.down = g.along = 1;
    g.top = g.left = g.right = 0;
    g.out_height = g.height;
    g.out_width = g.width;
  }
  const int raw = fuzz_chance(in, 4);
  const range r = draw_range(in);
  const int upright = !pointwise && fuzz_chance(in, 3);
  edgeofa_conv l = {.height = g.height, .width = g.width, .channels = g.channels,
                    .out_height = pointwise ? g.height * g.width : g.out_height,
                    .out_width = g.out_width, .out_channels = g.out_channels, .top = g.top,
                    .left = g.left, .stride = g.down, .kernel_rows = g.rows,
                    .zero_point = r.zero_point, .raw = raw, .out_zero_point = r.out_zero_point,
                    .low = r.low, .high = r.high, .upright = upright,
                    .pairs = fuzz_between(in, 1, 4), .pixels = fuzz_between(in, 1, 4)};
  l.stored = g.along * g.channels % 2 ? g.channels + 1 : g.channels;
  l.step = g.along * l.stored / 2;
  l.pitch = pointwise ? l.step : ((g.left + g.width + g.right) * l.stored + 1) / 2;
  const int32_t chunk = fuzz_between(in, 1, 8), pairs = (g.columns * l.stored + 1) / 2;
  l.words = (pairs + chunk - 1) / chunk * chunk;
  l.pairs = least(l.pairs, (g.out_channels + 1) / 2);
  const int32_t run = pointwise ? l.out_height : upright ? g.out_height : g.out_width;
  l.band = upright ? g.out_height : fuzz_between(in, 1, l.out_height);
  if (pointwise && l.band < l.out_height) {
    l.pixels = least(l.pixels, l.band);
    l.band -= l.band % l.pixels;
  }
  l.run_step = upright ? g.down * l.pitch : l.step;
  const int32_t out_step = upright ? g.out_width * g.out_channels : g.out_channels;
  int32_t rest = run % l.pixels;
  if (pointwise) rest = l.band == l.out_height ? run % l.pixels : run % l.band % l.pixels;
  for (int part = 0; part < 2; part++)
    for (int lone = 0; lone < 2; lone++)
      conv_shapes[part][lone] = (edgeofa_conv_shape){
          .pixels = part ? rest : l.pixels, .rows = g.rows, .words = l.words, .pitch = l.pitch,
          .step = l.run_step, .channels = 2 - lone, .out_step = out_step, .raw = raw,
          .zero_point = r.out_zero_point, .low = r.low, .high = r.high};
  l.whole[0] = whole_two;
  l.whole[1] = whole_one;
  l.rest[0] = rest_two;
  l.rest[1] = rest_one;
  if (pointwise) {
    l.x_words = (l.band - 1) * l.step + l.words;
  } else {
    const int32_t last = (g.out_width - 1) * l.step + l.words;
    l.x_words = ((l.band - 1) * g.down + g.rows - 1) * l.pitch + (last > l.pitch ? last : l.pitch);
  }
  const int32_t longest = pointwise ? l.band : g.out_height > g.out_width ? g.out_height : g.out_width;
  const int32_t scratch_words =
      l.x_words + 2 * l.pairs * g.rows * l.words + (raw ? 2 * longest : 0);

  const int32_t inputs = g.height * g.width * g.channels;
  const int32_t outputs = g.out_height * g.out_width * g.out_channels;
  const int32_t taps = g.rows * g.columns * g.channels;
  int8_t *const x = draw_values(in, inputs), *const weight = draw_weights(in, taps * g.out_channels);
  int8_t *const got = fuzz_memory((size_t)outputs), *const wanted = fuzz_memory((size_t)outputs);
  const int32_t rows_of_quant = (g.out_channels + 1) / 2 * 2;
  int32_t *const quant = fuzz_memory((size_t)(rows_of_quant * QUANT) * sizeof *quant);
  for (int32_t o = 0; o < g.out_channels; o++) {
    const requant q = draw_requant(in, raw);
    put_requant(quant + QUANT * o, q, raw);
    for (int32_t y = 0; y < g.out_height; y++)
      for (int32_t i = 0; i < g.out_width; i++) {
        int32_t sum = q.bias;
        for (int32_t a = 0; a < g.rows; a++)
          for (int32_t b = 0; b < g.columns; b++)
            for (int32_t c = 0; c < g.channels; c++)
              sum += real_at(&g, x, y * g.down - g.top + a, i * g.along - g.left + b, c,
                             r.zero_point) *
                     weight[((o * g.rows + a) * g.columns + b) * g.channels + c];
        wanted[(y * g.out_width + i) * g.out_channels + o] = finished(sum, q, r);
      }
  }
  int32_t packed_count;
  uint32_t *const packed = pack_pairs(weight, g.out_channels, g.rows, g.columns, g.channels,
                                      l.stored, l.words, &packed_count);
  uint32_t *const scratch = fuzz_memory((size_t)scratch_words * sizeof *scratch);
  if (pointwise)
    edgeofa_pointwise(&l, x, got, scratch, packed, quant);
  else
    edgeofa_convolution(&l, x, got, scratch, packed, quant, NULL);
  compare(pointwise ? "pointwise" : "convolution", got, wanted, outputs);
  free(x);
  free(weight);
  free(got);
  free(wanted);
  free(quant);
  free(packed);
  free(scratch);
}

/* ---- depthwise ---- */

static edgeofa_depthwise_shape depthwise_shapes[2];

static void depthwise_whole(const uint32_t *x, const int32_t *channel, void *out, int32_t rows) {
  edgeofa_depthwise_portable(&depthwise_shapes[0], x, channel, out, rows);
}

static void depthwise_rest(const uint32_t *x, const int32_t *channel, void *out, int32_t rows) {
  edgeofa_depthwise_portable(&depthwise_shapes[1], x, channel, out, rows);
}

/* Pairs of taps (t, t + 1) that start at even ones, for odd strides at odd ones too; then taps that
 * no pair holds. Returns the number of words; word_of and half_of say where each tap is. */
static int32_t depthwise_words(int32_t width, int32_t stride, uint8_t word_of[8],
                               uint8_t half_of[8], int32_t first[16], int32_t both[16]) {
  int32_t words = 0;
  uint8_t held[8] = {0};
  for (int32_t parity = 0; parity < (stride % 2 ? 2 : 1); parity++)
    for (int32_t t = parity; t < width - 1; t += 2) {
      first[words] = t;
      both[words++] = 1;
    }
  const int32_t pairs = words;
  for (int32_t w = 0; w < pairs; w++) held[first[w]] = held[first[w] + 1] = 1;
  for (int32_t t = 0; t < width; t++)
    if (!held[t]) {
      first[words] = t;
      both[words++] = 0;
    }
  for (int32_t w = words - 1; w >= 0; w--)
    for (int32_t half = 0; half <= both[w]; half++) {
      word_of[first[w] + half] = (uint8_t)w;
      half_of[first[w] + half] = (uint8_t)half;
    }
  return words;
}

static void fuzz_depthwise(fuzz_input *in) {
  geometry g;
  uint8_t word_of[8] = {0}, half_of[8] = {0};
  int32_t first[16], both[16];
  if (!draw_geometry(in, &g, 13)) return;
  const int raw = fuzz_chance(in, 4);
  const range r = draw_range(in);
  const int32_t words = depthwise_words(g.columns, g.along, word_of, half_of, first, both);
  edgeofa_depthwise l = {.height = g.height, .width = g.width, .channels = g.channels,
                         .out_height = g.out_height, .out_width = g.out_width, .top = g.top,
                         .left = g.left, .stride = g.down, .kernel_rows = g.rows,
                         .zero_point = r.zero_point, .raw = raw,
                         .out_zero_point = r.out_zero_point, .low = r.low, .high = r.high,
                         .pitch = (g.left + g.width + g.right + 1) / 2,
                         .band = fuzz_between(in, 1, g.out_height),
                         .channel = QUANT + g.rows * words};
  l.plane = ((l.band - 1) * g.down + g.rows) * l.pitch;
  /* a block starts at an even column, as words do */
  const int32_t block = fuzz_chance(in, 2) ? g.out_width : 2 * fuzz_between(in, 1, 2);
  const int32_t blocks = g.out_width / block;
  l.columns = blocks ? block * blocks : g.out_width;
  l.rest = l.columns * g.along / 2;
  const int32_t out_step = raw ? 4 : g.channels;
  depthwise_shapes[0] = (edgeofa_depthwise_shape){
      .block = blocks ? block : g.out_width, .blocks = blocks ? blocks : 1,
      .kernel_height = g.rows, .kernel_width = g.columns, .stride = g.along, .pitch = l.pitch,
      .row_step = g.down * l.pitch, .out_step = out_step, .out_row = g.out_width * out_step,
      .raw = raw, .zero_point = r.out_zero_point, .low = r.low, .high = r.high, .words = words,
      .word_of = word_of, .half_of = half_of};
  depthwise_shapes[1] = depthwise_shapes[0];
  depthwise_shapes[1].block = g.out_width - l.columns;
  depthwise_shapes[1].blocks = 1;
  l.kernel[0] = depthwise_whole;
  l.kernel[1] = l.columns < g.out_width ? depthwise_rest : NULL;
  const int32_t scratch_words = 4 * l.plane + (raw ? l.band * g.out_width : 0);

  const int32_t inputs = g.height * g.width * g.channels, taps = g.rows * g.columns;
  const int32_t outputs = g.out_height * g.out_width * g.channels;
  int8_t *const x = draw_values(in, inputs), *const weight = draw_weights(in, taps * g.channels);
  int8_t *const got = fuzz_memory((size_t)outputs), *const wanted = fuzz_memory((size_t)outputs);
  int32_t *const data = fuzz_memory((size_t)(g.channels * l.channel) * sizeof *data);
  for (int32_t c = 0; c < g.channels; c++) {
    const requant q = draw_requant(in, raw);
    int32_t *const own = data + c * l.channel;
    put_requant(own, q, raw);
    for (int32_t a = 0; a < g.rows; a++)
      for (int32_t w = 0; w < words; w++) {
        const int8_t *k = weight + (a * g.columns + first[w]) * g.channels + c;
        own[QUANT + a * words + w] =
            (int32_t)((uint32_t)(uint16_t)k[0] |
                      (both[w] ? (uint32_t)(uint16_t)k[g.channels] << 16 : 0));
      }
    for (int32_t y = 0; y < g.out_height; y++)
      for (int32_t i = 0; i < g.out_width; i++) {
        int32_t sum = q.bias;
        for (int32_t a = 0; a < g.rows; a++)
          for (int32_t b = 0; b < g.columns; b++)
            sum += real_at(&g, x, y * g.down - g.top + a, i * g.along - g.left + b, c,
                           r.zero_point) *
                   weight[(a * g.columns + b) * g.channels + c];
        wanted[(y * g.out_width + i) * g.channels + c] = finished(sum, q, r);
      }
  }
  uint32_t *const scratch = fuzz_memory((size_t)scratch_words * sizeof *scratch);
  edgeofa_depthwise_convolution(&l, x, got, scratch, data);
  compare("depthwise", got, wanted, outputs);
  free(x);
  free(weight);
  free(got);
  free(wanted);
  free(data);
  free(scratch);
}

/* ---- dense ---- */

static edgeofa_dense_shape dense_shape;

static void dense_kernel(const uint32_t *x, const uint32_t *w, const int32_t *quant, void *out,
                         int32_t quads) {
  edgeofa_dense_portable(&dense_shape, x, w, quant, out, quads);
}

static void fuzz_dense(fuzz_input *in) {
  const range r = draw_range(in);
  const int raw = fuzz_chance(in, 4), merged = fuzz_chance(in, 2);
  const int32_t chunk = fuzz_between(in, 1, 8);
  edgeofa_dense l = {.inputs = fuzz_between(in, 1, 96), .outputs = fuzz_between(in, 1, 13),
                     .zero_point = r.zero_point, .raw = raw, .out_zero_point = r.out_zero_point,
                     .low = r.low, .high = r.high, .kernel = dense_kernel};
  l.words = ((l.inputs + 1) / 2 + chunk - 1) / chunk * chunk;
  dense_shape = (edgeofa_dense_shape){l.words, merged, raw, r.out_zero_point, r.low, r.high};
  const int32_t quads = (l.outputs + 3) / 4;
  int8_t *const x = draw_values(in, l.inputs);
  int8_t *const weight = draw_weights(in, l.inputs * l.outputs);
  int8_t *const got = fuzz_memory((size_t)l.outputs), *const wanted = fuzz_memory((size_t)l.outputs);
  int32_t *const quant = fuzz_memory((size_t)(4 * quads * QUANT) * sizeof *quant);
  uint32_t *const packed = fuzz_memory((size_t)(2 * quads * l.words) * sizeof *packed);
  uint8_t *const bytes = (uint8_t *)packed;
  for (int32_t o = 0; o < l.outputs; o++) {
    const requant q = draw_requant(in, raw);
    int32_t sum = q.bias;
    put_requant(quant + QUANT * o, q, raw);
    for (int32_t i = 0; i < l.inputs; i++) {
      const int32_t k = widened_place(i, l.inputs);
      int32_t w = weight[o * l.inputs + i];
      sum += (x[i] - r.zero_point) * w;
      /* the upper of two merged weights makes up for the sign of the lower */
      if (merged && o % 2 && weight[(o - 1) * l.inputs + i] < 0) w--;
      bytes[4 * (2 * (o / 4 * l.words + k / 2) + o % 4 / 2) + 2 * (k % 2) + o % 2] = (uint8_t)w;
    }
    wanted[o] = finished(sum, q, r);
  }
  if (merged && l.outputs % 2) /* an upper weight that is only there to make up */
    for (int32_t i = 0; i < l.inputs; i++) {
      const int32_t o = l.outputs - 1, k = widened_place(i, l.inputs);
      if (weight[o * l.inputs + i] < 0)
        bytes[4 * (2 * (o / 4 * l.words + k / 2) + o % 4 / 2) + 2 * (k % 2) + 1] = 0xff;
    }
  uint32_t *const scratch = fuzz_memory((size_t)(l.words + (raw ? 4 * quads : 0)) * sizeof *scratch);
  edgeofa_fully_connected(&l, x, got, scratch, packed, quant);
  compare("dense", got, wanted, l.outputs);
  free(x);
  free(weight);
  free(got);
  free(wanted);
  free(quant);
  free(packed);
  free(scratch);
}

/* ---- elementwise ---- */

static void fuzz_add(fuzz_input *in) {
  const range r = draw_range(in);
  const int32_t other = fuzz_between(in, -128, 127), half = fuzz_chance(in, 2);
  int32_t multiplier[2], shift[2];
  /* the input of larger scale is taken half, the other one less */
  multiplier[half] = 1 << 30;
  shift[half] = 0;
  multiplier[!half] = (int32_t)(UINT32_C(0x40000000) + (fuzz_word(in) & UINT32_C(0x3fffffff)));
  shift[!half] = -fuzz_between(in, 1, 31);
  if (fuzz_chance(in, 4)) multiplier[!half] = 1 << 30; /* ties */
  const requant q = draw_requant(in, 0);
  edgeofa_add l = {.zero_point = {r.zero_point, other},
                   .out_multiplier = (int32_t)(2 * (uint32_t)q.multiplier),
                   .out_power = (int32_t)(UINT32_C(1) << (32 + q.shift)),
                   .out_zero_point = r.out_zero_point, .low = r.low, .high = r.high};
  for (int i = 0; i < 2; i++) {
    l.multiplier[i] = (int32_t)(2 * (uint32_t)multiplier[i]);
    l.shift[i] = -shift[i];
  }
  const int32_t repeat = fuzz_between(in, 1, 5), count = fuzz_between(in, 1, 37);
  const int broadcast = fuzz_chance(in, 3);
  int8_t *const a = draw_values(in, repeat * count);
  int8_t *const b = draw_values(in, broadcast ? count : repeat * count);
  int8_t *const got = fuzz_memory((size_t)(repeat * count));
  int8_t *const wanted = fuzz_memory((size_t)(repeat * count));
  for (int32_t i = 0; i < repeat * count; i++) {
    const int32_t u = (a[i] - r.zero_point) * (1 << 20);
    const int32_t v = (b[broadcast ? i % count : i] - other) * (1 << 20);
    const int32_t sum = plain_rescale(u, multiplier[0], shift[0]) +
                        plain_rescale(v, multiplier[1], shift[1]);
    wanted[i] = finished(sum, q, r);
  }
  edgeofa_addition(&l, a, b, got, repeat, count, broadcast);
  compare("add", got, wanted, repeat * count);
  free(a);
  free(b);
  free(got);
  free(wanted);
}

static void fuzz_mul(fuzz_input *in) {
  const range r = draw_range(in);
  const int32_t other = fuzz_between(in, -128, 127);
  const requant q = draw_requant(in, 1);
  edgeofa_mul l = {.zero_point = {r.zero_point, other}, .multiplier = q.multiplier,
                   .shift = q.shift, .out_zero_point = r.out_zero_point, .low = r.low,
                   .high = r.high};
  const int32_t repeat = fuzz_between(in, 1, 5), count = fuzz_between(in, 1, 37);
  const int broadcast = fuzz_chance(in, 3);
  int8_t *const a = draw_values(in, repeat * count);
  int8_t *const b = draw_values(in, broadcast ? count : repeat * count);
  int8_t *const got = fuzz_memory((size_t)(repeat * count));
  int8_t *const wanted = fuzz_memory((size_t)(repeat * count));
  for (int32_t i = 0; i < repeat * count; i++)
    wanted[i] =
        finished((a[i] - r.zero_point) * (b[broadcast ? i % count : i] - other), q, r);
  edgeofa_multiplication(&l, a, b, got, repeat, count, broadcast);
  compare("mul", got, wanted, repeat * count);
  free(a);
  free(b);
  free(got);
  free(wanted);
}

static void fuzz_table(fuzz_input *in) {
  const int32_t count = fuzz_between(in, 1, 200);
  int8_t *const table = draw_values(in, 256), *const x = draw_values(in, count);
  int8_t *const got = fuzz_memory((size_t)count);
  edgeofa_table(table, x, got, count);
  for (int32_t i = 0; i < count; i++)
    FUZZ_CHECK(got[i] == table[x[i] + 128], "table: %d at %d", got[i], x[i]);
  free(table);
  free(x);
  free(got);
}

static void fuzz_pad(fuzz_input *in) {
  const int32_t height = fuzz_between(in, 1, 7), row = fuzz_between(in, 1, 30);
  const int32_t top = fuzz_between(in, 0, 3), bottom = fuzz_between(in, 0, 3);
  const int32_t left = fuzz_between(in, 0, 9), right = fuzz_between(in, 0, 9);
  const int32_t zero = fuzz_between(in, -128, 127), wide = left + row + right;
  const int32_t outputs = (top + height + bottom) * wide;
  int8_t *const x = draw_values(in, height * row), *const got = fuzz_memory((size_t)outputs);
  edgeofa_pad(x, got, height, row, top, bottom, left, right, zero);
  for (int32_t i = 0; i < outputs; i++) {
    const int32_t y = i / wide - top, c = i % wide - left;
    const int inside = y >= 0 && y < height && c >= 0 && c < row;
    FUZZ_CHECK(got[i] == (inside ? x[y * row + c] : zero), "pad: %d at %ld", got[i], (long)i);
  }
  free(x);
  free(got);
}

/* ---- pools ---- */

static void fuzz_pool(fuzz_input *in) {
  geometry g;
  if (!draw_geometry(in, &g, 13)) return;
  const range r = draw_range(in);
  edgeofa_pool l = {g.height, g.width, g.channels, g.out_height, g.out_width, g.top, g.left,
                    g.down, g.along, g.rows, g.columns, r.low, r.high};
  const int average = fuzz_chance(in, 2);
  const int32_t outputs = g.out_height * g.out_width * g.channels;
  int8_t *const x = draw_values(in, g.height * g.width * g.channels);
  int8_t *const got = fuzz_memory((size_t)outputs), *const wanted = fuzz_memory((size_t)outputs);
  for (int32_t o = 0; o < outputs; o++) {
    const int32_t c = o % g.channels, i = o / g.channels % g.out_width;
    const int32_t y = o / g.channels / g.out_width;
    int32_t sum = 0, count = 0, most = -128;
    for (int32_t a = 0; a < g.rows; a++)
      for (int32_t b = 0; b < g.columns; b++) {
        const int32_t row = y * g.down - g.top + a, column = i * g.along - g.left + b;
        if (row < 0 || row >= g.height || column < 0 || column >= g.width) continue;
        const int32_t value = x[(row * g.width + column) * g.channels + c];
        sum += value;
        count++;
        if (value > most) most = value;
      }
    /* windows that see nothing but padding do not exist */
    if (count == 0) goto done;
    /* ties away from zero */
    const int32_t mean = (2 * (sum < 0 ? -sum : sum) + count) / (2 * count);
    wanted[o] = plain_clamp(average ? (sum < 0 ? -mean : mean) : most, r.low, r.high);
  }
  if (average)
    edgeofa_average_pool(&l, x, got);
  else
    edgeofa_max_pool(&l, x, got);
  compare(average ? "average pool" : "max pool", got, wanted, outputs);
done:
  free(x);
  free(got);
  free(wanted);
}

static void fuzz_mean(fuzz_input *in) {
  const range r = {fuzz_between(in, -128, 127), fuzz_between(in, -128, 127), -128, 127};
  requant q = draw_requant(in, 1);
  q.bias = 0;
  edgeofa_mean l = {.pixels = fuzz_between(in, 1, 700), .channels = fuzz_between(in, 1, 9),
                    .zero_point = r.zero_point, .multiplier = q.multiplier, .shift = q.shift,
                    .out_zero_point = r.out_zero_point};
  int8_t *const x = draw_values(in, l.pixels * l.channels);
  int8_t *const got = fuzz_memory((size_t)l.channels), *const wanted = fuzz_memory((size_t)l.channels);
  for (int32_t c = 0; c < l.channels; c++) {
    int32_t sum = 0;
    for (int32_t i = 0; i < l.pixels; i++) sum += x[i * l.channels + c] - r.zero_point;
    wanted[c] = finished(sum, q, r);
  }
  edgeofa_global_mean(&l, x, got);
  compare("mean", got, wanted, l.channels);
  free(x);
  free(got);
  free(wanted);
}

/* ---- softmax ---- */

/* Fixed point is off a little: one step is allowed against floating point. */
static void fuzz_softmax(fuzz_input *in) {
  int32_t *const exps = fuzz_memory(256 * sizeof *exps);
  const double scale = (1 + fuzz_between(in, 0, 999)) / 1000.0;
  const int32_t radius = fuzz_chance(in, 2) ? 255 : fuzz_between(in, (int32_t)least(255, (int32_t)(12 / scale)), 255);
  for (int32_t d = 0; d < 256; d++) {
    const double e = exp((d - 255) * scale) * 2147483648.0;
    exps[d] = e >= 2147483647.0 ? INT32_MAX : (int32_t)e;
  }
  const int32_t rows = fuzz_between(in, 1, 3), count = fuzz_between(in, 1, 40);
  int8_t *const x = draw_values(in, rows * count), *const got = fuzz_memory((size_t)(rows * count));
  edgeofa_softmax(exps, radius, x, got, rows, count);
  for (int32_t y = 0; y < rows; y++) {
    const int8_t *const row = x + y * count;
    int32_t largest = -128;
    double sum = 0;
    for (int32_t i = 0; i < count; i++) largest = row[i] > largest ? row[i] : largest;
    for (int32_t i = 0; i < count; i++) sum += exp((row[i] - largest) * scale);
    for (int32_t i = 0; i < count; i++) {
      const double share = 256 * exp((row[i] - largest) * scale) / sum - 128;
      const double off = got[y * count + i] - (share > 127 ? 127 : share);
      FUZZ_CHECK(off < 1 && off > -1, "softmax: %d, not %f", got[y * count + i], share);
    }
  }
  free(exps);
  free(x);
  free(got);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static void (*const layers[])(fuzz_input *) = {
      fuzz_convolution, fuzz_convolution, fuzz_depthwise, fuzz_dense, fuzz_add,  fuzz_mul,
      fuzz_table,       fuzz_pad,         fuzz_pool,      fuzz_mean,  fuzz_softmax};
  fuzz_input in = {data, size, 1};
  layers[(size_t)fuzz_byte(&in) % (sizeof layers / sizeof *layers)](&in);
  return 0;
}
