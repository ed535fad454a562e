#include "arm_nnfunctions.h"

static int32_t rescale(int32_t x, int32_t multiplier, int32_t shift) {
  int64_t left = (int64_t)x * ((int64_t)1 << (shift > 0 ? shift : 0));
  int64_t product = left * multiplier;
  int32_t high = (int32_t)((product + (product >= 0 ? 1 << 30 : 1 - (1 << 30))) / ((int64_t)1 << 31));
  int32_t right = shift < 0 ? -shift : 0, mask = (int32_t)((1ll << right) - 1);
  int32_t rest = high & mask, half = (mask >> 1) + (high < 0);
  return (high >> right) + (rest > half);
}

static int8_t clamp(int32_t x, cmsis_nn_activation a) {
  return (int8_t)(x < a.min ? a.min : x > a.max ? a.max : x);
}

/* One output: `step` inputs apart in a pixel are `taps` values, weights `w_step` apart. */
static int32_t window(const int8_t *x, const cmsis_nn_dims *xd, int32_t offset, int32_t top,
                      int32_t left, int32_t first, int32_t count, const int8_t *w,
                      const cmsis_nn_dims *wd, int32_t w_pixel) {
  int32_t sum = 0;
  for (int32_t i = 0; i < wd->h; i++)
    for (int32_t j = 0; j < wd->w; j++) {
      int32_t y = top + i, z = left + j;
      if (y < 0 || y >= xd->h || z < 0 || z >= xd->w) continue;
      for (int32_t c = 0; c < count; c++)
        sum += (x[(y * xd->w + z) * xd->c + first + c] + offset) * w[(i * wd->w + j) * w_pixel + c];
    }
  return sum;
}

arm_cmsis_nn_status arm_convolve_wrapper_s8(
    const cmsis_nn_context *ctx, const cmsis_nn_conv_params *p,
    const cmsis_nn_per_channel_quant_params *q, const cmsis_nn_dims *xd, const int8_t *x,
    const cmsis_nn_dims *wd, const int8_t *w, const cmsis_nn_dims *bd, const int32_t *bias,
    const cmsis_nn_dims *yd, int8_t *y) {
  (void)ctx, (void)bd;
  for (int32_t i = 0; i < yd->h; i++)
    for (int32_t j = 0; j < yd->w; j++)
      for (int32_t k = 0; k < yd->c; k++) {
        int32_t sum = bias[k] + window(x, xd, p->input_offset, i * p->stride.h - p->padding.h,
                                       j * p->stride.w - p->padding.w, 0, xd->c,
                                       w + k * wd->h * wd->w * xd->c, wd, xd->c);
        y[(i * yd->w + j) * yd->c + k] = clamp(
            rescale(sum, q->multiplier[k], q->shift[k]) + p->output_offset, p->activation);
      }
  return ARM_CMSIS_NN_SUCCESS;
}

arm_cmsis_nn_status arm_depthwise_conv_wrapper_s8(
    const cmsis_nn_context *ctx, const cmsis_nn_dw_conv_params *p,
    const cmsis_nn_per_channel_quant_params *q, const cmsis_nn_dims *xd, const int8_t *x,
    const cmsis_nn_dims *wd, const int8_t *w, const cmsis_nn_dims *bd, const int32_t *bias,
    const cmsis_nn_dims *yd, int8_t *y) {
  (void)ctx, (void)bd;
  for (int32_t i = 0; i < yd->h; i++)
    for (int32_t j = 0; j < yd->w; j++)
      for (int32_t k = 0; k < yd->c; k++) {
        int32_t sum =
            bias[k] + window(x, xd, p->input_offset, i * p->stride.h - p->padding.h,
                             j * p->stride.w - p->padding.w, k, 1, w + k, wd, yd->c);
        y[(i * yd->w + j) * yd->c + k] = clamp(
            rescale(sum, q->multiplier[k], q->shift[k]) + p->output_offset, p->activation);
      }
  return ARM_CMSIS_NN_SUCCESS;
}

arm_cmsis_nn_status arm_fully_connected_s8(
    const cmsis_nn_context *ctx, const cmsis_nn_fc_params *p,
    const cmsis_nn_per_tensor_quant_params *q, const cmsis_nn_dims *xd, const int8_t *x,
    const cmsis_nn_dims *wd, const int8_t *w, const cmsis_nn_dims *bd, const int32_t *bias,
    const cmsis_nn_dims *yd, int8_t *y) {
  (void)xd, (void)bd, (void)bias;
  const int32_t *sums = ctx->buf;
  for (int32_t k = 0; k < yd->c; k++) {
    int32_t sum = sums[k];
    for (int32_t i = 0; i < wd->n; i++) sum += x[i] * w[k * wd->n + i];
    y[k] = clamp(rescale(sum, q->multiplier, q->shift) + p->output_offset, p->activation);
  }
  return ARM_CMSIS_NN_SUCCESS;
}

arm_cmsis_nn_status arm_avgpool_s8(const cmsis_nn_context *ctx, const cmsis_nn_pool_params *p,
                                   const cmsis_nn_dims *xd, const int8_t *x,
                                   const cmsis_nn_dims *wd, const cmsis_nn_dims *yd, int8_t *y) {
  (void)ctx;
  for (int32_t i = 0; i < yd->h; i++)
    for (int32_t j = 0; j < yd->w; j++)
      for (int32_t k = 0; k < yd->c; k++) {
        int32_t sum = 0, count = 0;
        for (int32_t a = 0; a < wd->h; a++)
          for (int32_t b = 0; b < wd->w; b++) {
            int32_t r = i * p->stride.h - p->padding.h + a, s = j * p->stride.w - p->padding.w + b;
            if (r < 0 || r >= xd->h || s < 0 || s >= xd->w) continue;
            sum += x[(r * xd->w + s) * xd->c + k];
            count++;
          }
        sum = sum > 0 ? (sum + count / 2) / count : (sum - count / 2) / count;
        y[(i * yd->w + j) * yd->c + k] = clamp(sum, p->activation);
      }
  return ARM_CMSIS_NN_SUCCESS;
}

arm_cmsis_nn_status arm_elementwise_add_s8(const int8_t *a, const int8_t *b, int32_t a_offset,
                                           int32_t a_multiplier, int32_t a_shift, int32_t b_offset,
                                           int32_t b_multiplier, int32_t b_shift, int32_t left,
                                           int8_t *y, int32_t y_offset, int32_t y_multiplier,
                                           int32_t y_shift, int32_t low, int32_t high, int32_t n) {
  for (int32_t i = 0; i < n; i++) {
    int32_t sum = rescale((a[i] + a_offset) * (1 << left), a_multiplier, a_shift) +
                  rescale((b[i] + b_offset) * (1 << left), b_multiplier, b_shift);
    y[i] = clamp(rescale(sum, y_multiplier, y_shift) + y_offset, (cmsis_nn_activation){low, high});
  }
  return ARM_CMSIS_NN_SUCCESS;
}
