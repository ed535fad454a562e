/* Runs a fuzz target where there is no libFuzzer: with gcc, and on the emulated cores.
 *
 *   PROGRAM SEED SECONDS RUNS [FILE ...]
 *
 * First the files as they are, then inputs made from them by changes that SEED decides, until
 * SECONDS or RUNS (0: no limit) are over. The same SEED and RUNS make the same inputs. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST = 4096, POOL = 64 };

static const uint8_t edges[] = {0, 1, 0x7f, 0x80, 0xfe, 0xff};
static uint8_t pool[POOL][MOST];
static size_t lengths[POOL];
static int pooled, seeded; /* files keep their places */
static uint64_t state;

static uint32_t next(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (uint32_t)(state >> 32);
}

static size_t below(size_t n) { return n ? next() % n : 0; }

static size_t mutated(uint8_t *to) {
  const size_t from = below((size_t)(next() % 2 ? seeded : pooled));
  size_t n = lengths[from];
  memcpy(to, pool[from], n);
  for (size_t changes = 1 + below(6); changes > 0; changes--) {
    const size_t at = below(n + 1);
    switch (next() % 6) {
      case 0: /* a bit */
        if (at < n) to[at] ^= (uint8_t)(1u << below(8));
        break;
      case 1: /* a byte, often one at an edge */
        if (at < n) to[at] = next() % 2 ? (uint8_t)next() : edges[below(sizeof edges)];
        break;
      case 2: /* bytes more */
        for (size_t k = below(16); k > 0 && n < MOST; k--, n++) {
          memmove(to + at + 1, to + at, n - at);
          to[at] = (uint8_t)next();
        }
        break;
      case 3: /* bytes less */
        if (at < n) {
          const size_t k = 1 + below(n - at < 16 ? n - at : 16);
          memmove(to + at, to + at + k, n - at - k);
          n -= k;
        }
        break;
      case 4: /* the end of another */
      {
        const size_t other = below((size_t)pooled), start = below(lengths[other] + 1);
        size_t k = lengths[other] - start;
        if (k > MOST - at) k = MOST - at;
        memcpy(to + at, pool[other] + start, k);
        n = at + k;
        break;
      }
      default: /* cut */
        n = at;
    }
  }
  return n;
}

static void remember(const uint8_t *data, size_t n) {
  if (seeded == POOL) return;
  const size_t place =
      pooled < POOL ? (size_t)pooled++ : (size_t)seeded + below((size_t)(POOL - seeded));
  memcpy(pool[place], data, n);
  lengths[place] = n;
}

/* Exactly as long as it is, so that a byte read past its end is found. */
static void run(const uint8_t *data, size_t n) {
  uint8_t *copy = malloc(n ? n : 1);
  if (copy == NULL) abort();
  memcpy(copy, data, n);
  LLVMFuzzerTestOneInput(copy, n);
  free(copy);
}

int main(int argc, char **argv) {
  static uint8_t data[MOST];
  if (argc < 4) return 2;
  state = strtoull(argv[1], NULL, 10) * UINT64_C(0x9e3779b97f4a7c15) + 1;
  const double seconds = atof(argv[2]);
  const unsigned long long most = strtoull(argv[3], NULL, 10);
  for (int i = 4; i < argc; i++) {
    FILE *file = fopen(argv[i], "rb");
    if (file == NULL) return 2;
    const size_t n = fread(data, 1, MOST, file);
    fclose(file);
    run(data, n);
    remember(data, n);
  }
  if (pooled == 0) remember(data, 1);
  seeded = pooled;
  unsigned long long runs = 0;
  const clock_t begun = clock();
  while (most == 0 || runs < most) {
    if (most == 0 && runs % 16 == 0 && (double)(clock() - begun) / CLOCKS_PER_SEC >= seconds) break;
    const size_t n = mutated(data);
    run(data, n);
    runs++;
    if (next() % 8 == 0) remember(data, n);
  }
  printf("%llu runs\n", runs);
  return 0;
}
