/* The firmware's side of the serial protocol: whatever comes over the line, it touches no memory but
 * its own, answers in whole frames and within its bounds, and knows itself afterwards.
 *
 * The input is pieces, each with a length in front: raw bytes for the line, or a request that is
 * framed here, so that the commands themselves are reached. */
#include <string.h>

#include "input.h"
#include "server.h"

enum { INPUT = 301, OUTPUT = 77, ARENA = 512 };

#define DIGEST "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static uint8_t *arena;
static int fails;

static int net_init(void) { return fails & 1; }

static int net_run(void) {
  for (int layer = 0; layer < 300; layer++) { /* more than are recorded */
    edgeofa_layer_begin(layer);
    arena[layer] = (uint8_t)(arena[layer] + layer);
    edgeofa_layer_end(layer);
  }
  return fails >> 1 & 1;
}

static int8_t *net_input(void) { return (int8_t *)arena; }
static const int8_t *net_output(void) { return (const int8_t *)arena + ARENA - OUTPUT; }
static uint8_t *net_arena(void) { return arena; }

static const edgeofa_network network = {DIGEST,    net_init, net_run, net_input, net_output,
                                        net_arena, INPUT,    OUTPUT,  ARENA,     12345, 300};
static const edgeofa_network *const networks[] = {&network, &network};
const edgeofa_image edgeofa_this_image = {"nucleo-l4r5zi", DIGEST, 120000000, 2, networks};

/* ---- the board ---- */

static uint64_t clock_now, clock_step;

static void restart(void) {
  clock_now = 0;
  clock_step = 1;
}

static void stop(void) {}

/* Ever faster, so that any wait ends. */
static uint64_t cycles(void) {
  clock_now += clock_step;
  clock_step *= 2;
  return clock_now;
}

static void memory(uint32_t *bytes, uint32_t *used) {
  *bytes = 8192;
  *used = 100;
}

/* ---- the host: reads every answer as the firmware reads requests ---- */

static frame_reader host;
static unsigned answers;
static uint8_t last[FRAME_MAX];
static size_t last_length;

static void hear(const uint8_t *bytes, size_t n) {
  FUZZ_CHECK(n <= 256, "%zu bytes at once", n);
  for (size_t i = 0; i < n; i++) {
    const frame_event event = frame_feed(&host, bytes[i]);
    FUZZ_CHECK(event != FRAME_BROKEN, "a broken answer");
    if (event != FRAME_READY) continue;
    answers++;
    last_length = host.length;
    memcpy(last, host.data, host.length);
  }
}

static const server_board board = {.write = hear, .timer = TIMER_DWT, .restart = restart,
                                   .stop = stop, .cycles = cycles, .memory = memory};

static void say(const uint8_t *bytes, size_t n) {
  for (size_t i = 0; i < n; i++) server_feed(bytes[i]);
}

/* One answer for a whole request, of its command and number. */
static void ask(uint8_t command, uint8_t sequence, const uint8_t *payload, size_t n) {
  static const uint8_t end = 0;
  say(&end, 1);
  const unsigned before = answers;
  frame_send(say, command, sequence, payload, n);
  FUZZ_CHECK(answers == before + 1, "%u answers to command %u", answers - before, command);
  FUZZ_CHECK(last_length >= FRAME_HEADER + 1 && last[0] == FRAME_VERSION, "a strange answer");
  FUZZ_CHECK(last[1] == (command | 0x80) && last[2] == sequence, "an answer to something else");
  FUZZ_CHECK(last[FRAME_HEADER] == 0 || last_length == FRAME_HEADER + 1, "a refusal with content");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz_input in = {data, size, 1};
  arena = fuzz_memory(ARENA);
  fails = fuzz_chance(&in, 8) ? fuzz_byte(&in) : 0;
  server_start(&board);
  while (in.left > 0) {
    uint8_t piece[FRAME_MAX_PAYLOAD];
    const int kind = fuzz_byte(&in) % 4;
    size_t n = fuzz_byte(&in);
    if (kind == 3) n = (n * 8) % (sizeof piece + 1);
    for (size_t i = 0; i < n; i++) piece[i] = in.left > 0 ? fuzz_byte(&in) : 0;
    if (kind == 0) {
      say(piece, n);
    } else {
      const uint8_t command = fuzz_byte(&in);
      /* numbers in requests are small, or nothing but refusals would come */
      if (kind == 2 && n > 8) n = fuzz_byte(&in) % 8;
      ask(command % 8 ? command % 11 : command, fuzz_byte(&in), piece, n);
    }
  }
  ask(1, 77, NULL, 0);
  FUZZ_CHECK(last_length == FRAME_HEADER + 10 + 64 + 13, "what it says of itself: %zu bytes",
             last_length);
  FUZZ_CHECK(memcmp(last + FRAME_HEADER + 10, DIGEST, 64) == 0, "not its own digest");
  free(arena);
  return 0;
}
