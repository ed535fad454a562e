#define _GNU_SOURCE
#include "yardstick.h"

#include <stdint.h>
#include <time.h>

/* Multiply-accumulates on vectors that fit in any level 1 cache, as in a matrix product: like an
 * inference it is limited by arithmetic units, and slower when a neighbour shares them. */
enum { LANES = 16, ROWS = 192, PASSES = 160, REPEATS = 5 };

static float left[ROWS][LANES], right[ROWS][LANES];
static volatile float sink;

static double once_ns(void) {
  float sums[LANES] = {0};
  struct timespec begin, end;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  for (int pass = 0; pass < PASSES; pass++)
    for (int row = 0; row < ROWS; row++)
      for (int lane = 0; lane < LANES; lane++) sums[lane] += left[row][lane] * right[row][lane];
  clock_gettime(CLOCK_MONOTONIC, &end);
  for (int lane = 0; lane < LANES; lane++) sink += sums[lane];
  return (double)(end.tv_sec - begin.tv_sec) * 1e9 + (double)(end.tv_nsec - begin.tv_nsec);
}

double yardstick_ns(void) {
  for (int row = 0; row < ROWS; row++)
    for (int lane = 0; lane < LANES; lane++)
      left[row][lane] = (float)(row % 7) * 0.25f, right[row][lane] = (float)(lane % 5) * 0.125f;
  /* the fastest of a few: an interrupt is no property of the machine */
  double fastest = once_ns();
  for (int repeat = 1; repeat < REPEATS; repeat++) {
    double next = once_ns();
    if (next < fastest) fastest = next;
  }
  return fastest;
}
