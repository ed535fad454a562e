/* Numbers out of a fuzzer's bytes, and memory that ends where it should. */
#ifndef EDGEOFA_FUZZ_INPUT_H
#define EDGEOFA_FUZZ_INPUT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* Past its end come numbers of a small generator, so that a few bytes make a whole layer. */
typedef struct {
  const uint8_t *bytes;
  size_t left;
  uint32_t state;
} fuzz_input;

static inline uint8_t fuzz_byte(fuzz_input *in) {
  if (in->left > 0) {
    in->left--;
    in->state = (in->state ^ *in->bytes) * UINT32_C(16777619) + 1;
    return *in->bytes++;
  }
  in->state = in->state * UINT32_C(1664525) + UINT32_C(1013904223);
  return (uint8_t)(in->state >> 24);
}

static inline uint32_t fuzz_word(fuzz_input *in) {
  uint32_t word = 0;
  for (int i = 0; i < 4; i++) word = word << 8 | fuzz_byte(in);
  return word;
}

/* low to high, both included; at most 2**16 of them */
static inline int32_t fuzz_between(fuzz_input *in, int32_t low, int32_t high) {
  const uint32_t many = (uint32_t)(high - low) + 1;
  uint32_t value = fuzz_byte(in);
  if (many > 256) value = value << 8 | fuzz_byte(in);
  return low + (int32_t)(value % many);
}

static inline int fuzz_chance(fuzz_input *in, int32_t of) { return fuzz_between(in, 0, of - 1) == 0; }

/* Zeroed memory of that very size, so that the next byte is a sanitizer's. */
static inline void *fuzz_memory(size_t bytes) {
  void *memory = calloc(bytes ? bytes : 1, 1);
  if (memory == NULL) abort();
  return memory;
}

#define FUZZ_CHECK(condition, ...)       \
  do {                                   \
    if (!(condition)) {                  \
      fprintf(stderr, "WRONG: " __VA_ARGS__); \
      fputc('\n', stderr);               \
      abort();                           \
    }                                    \
  } while (0)

#endif
