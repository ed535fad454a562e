/* What the kernels compute, as plainly as it can be written: the other side of the comparison.
 * Requantisation follows gemmlowp's and TFLite's definitions, not the kernels' shortcuts. */
#ifndef EDGEOFA_PLAIN_H
#define EDGEOFA_PLAIN_H

#include <stdint.h>

/* round(a b / 2**31), the way of gemmlowp's SaturatingRoundingDoublingHighMul */
static inline int32_t plain_doubling_high(int32_t a, int32_t b) {
  if (a == INT32_MIN && b == INT32_MIN) return INT32_MAX;
  const int64_t product = (int64_t)a * b;
  const int64_t nudge = product >= 0 ? (int64_t)1 << 30 : 1 - ((int64_t)1 << 30);
  return (int32_t)((product + nudge) / ((int64_t)1 << 31));
}

/* x / 2**exponent, ties away from zero: gemmlowp's RoundingDivideByPOT */
static inline int32_t plain_divide(int32_t x, int32_t exponent) {
  const int64_t power = (int64_t)1 << exponent, half = power / 2;
  const int64_t magnitude = x < 0 ? -(int64_t)x : x;
  const int64_t quotient = (magnitude + half) / power;
  return (int32_t)(x < 0 ? -quotient : quotient);
}

/* TFLite's MultiplyByQuantizedMultiplier with two roundings */
static inline int32_t plain_rescale(int32_t x, int32_t multiplier, int32_t shift) {
  const int32_t left = shift > 0 ? shift : 0, right = shift > 0 ? 0 : -shift;
  return plain_divide(plain_doubling_high((int32_t)((int64_t)x * ((int64_t)1 << left)), multiplier),
                      right);
}

static inline int8_t plain_clamp(int32_t value, int32_t low, int32_t high) {
  if (value < low) value = low;
  if (value > high) value = high;
  return (int8_t)value;
}

#endif
