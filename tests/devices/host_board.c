/* The firmware's protocol on this machine: a board on standard input and output with one network,
 * which multiplies its input by three. Its timer runs at the share of BELIEVED_HZ that the first
 * argument says; after as many bytes as the second says, if any, it ends, as a cut cable would. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "server.h"

enum { SIZE = 3000 };

static uint8_t arena[2 * SIZE + 64];
static long long left = -1;
static double clock_hz;

static int net_init(void) { return 0; }

static int net_run(void) {
  edgeofa_layer_begin(0);
  for (int i = 0; i < SIZE / 2; i++) arena[SIZE + i] = (uint8_t)(3u * arena[i]);
  edgeofa_layer_end(0);
  edgeofa_layer_begin(1);
  for (int i = SIZE / 2; i < SIZE; i++) arena[SIZE + i] = (uint8_t)(3u * arena[i]);
  edgeofa_layer_end(1);
  return 0;
}

static int8_t *net_input(void) { return (int8_t *)arena; }
static const int8_t *net_output(void) { return (const int8_t *)arena + SIZE; }
static uint8_t *net_arena(void) { return arena; }

#ifndef DIGEST
#define DIGEST "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#endif

static const edgeofa_network network = {DIGEST,     net_init,  net_run, net_input, net_output,
                                        net_arena,  SIZE,      SIZE,    sizeof arena, 0, 2};
static const edgeofa_network *const networks[] = {&network};

enum { BELIEVED_HZ = 120000000 };
const edgeofa_image edgeofa_this_image = {"nucleo-l4r5zi", DIGEST, BELIEVED_HZ, 1, networks};

static void put(const uint8_t *bytes, size_t n) {
  for (size_t i = 0; i < n; i++) {
    if (left == 0) exit(0);
    if (left > 0) left--;
    if (write(1, bytes + i, 1) != 1) exit(0);
  }
}

static struct timespec begun;

static void restart(void) { clock_gettime(CLOCK_MONOTONIC, &begun); }

static void stop(void) {}

static uint64_t cycles(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  double s = (double)(now.tv_sec - begun.tv_sec) + 1e-9 * (double)(now.tv_nsec - begun.tv_nsec);
  return (uint64_t)(s * clock_hz);
}

static void memory(uint32_t *bytes, uint32_t *used) {
  *bytes = 8192;
  *used = 100;
}

int main(int argc, char **argv) {
  static server_board board = {.write = put, .timer = TIMER_DWT, .restart = restart,
                               .stop = stop, .cycles = cycles, .memory = memory};
  clock_hz = BELIEVED_HZ * (argc > 1 ? atof(argv[1]) : 1.0);
  if (argc > 2) left = atoll(argv[2]);
  server_start(&board);
  uint8_t byte;
  while (read(0, &byte, 1) == 1) server_feed(byte);
  return 0;
}
