#include "server.h"

#include <string.h>

#include "mark.h"

enum {
  IDENTIFY = 1,
  SELECT,
  SET_INPUT,
  FILL_INPUT,
  RUN,
  LAYERS,
  OUTPUT,
  MEMORY,
  WAIT,
  REPLY = 0x80,
  NOT_A_FRAME = 0x7f,
};
enum { OK, UNKNOWN_COMMAND, BAD_LENGTH, BAD_VALUE, NOTHING_SELECTED, NETWORK_FAILED, BAD_VERSION };
enum { MAX_RUNS = 64, MAX_LAYERS = 256, LAYERS_PER_REPLY = 100, PAINT = 0xa5 };

static frame_reader reader;
static const server_board *board;
static const edgeofa_network *network;

static uint8_t reply[FRAME_MAX_PAYLOAD];
static size_t reply_length;

/* Cycles of each layer in the last run that recorded them. */
static uint16_t layer_ids[MAX_LAYERS];
static uint64_t cycles_of[MAX_LAYERS];
static uint32_t layer_count;
static uint64_t layer_start;
static bool recording;

/* ---- numbers in messages, little-endian ---- */

static uint32_t get(const uint8_t *bytes, size_t n) {
  uint32_t value = 0;
  for (size_t i = 0; i < n; i++) value |= (uint32_t)bytes[i] << (8 * i);
  return value;
}

static void put(uint64_t value, size_t n) {
  for (size_t i = 0; i < n && reply_length < sizeof reply; i++)
    reply[reply_length++] = (uint8_t)(value >> (8 * i));
}

static void put_bytes(const void *bytes, size_t n) {
  if (n > sizeof reply - reply_length) n = sizeof reply - reply_length;
  memcpy(reply + reply_length, bytes, n);
  reply_length += n;
}

/* ---- layers: the network calls these around each one ---- */

__attribute__((noinline)) void edgeofa_layer_begin(int layer) {
  if (!recording) return;
  if (layer_count < MAX_LAYERS) layer_ids[layer_count] = (uint16_t)layer;
  layer_start = board->cycles();
  EDGEOFA_MARK(MARK_LAYER);
}

__attribute__((noinline)) void edgeofa_layer_end(int layer) {
  (void)layer;
  if (!recording) return;
  EDGEOFA_MARK(MARK_LAYER_DONE);
  uint64_t now = board->cycles();
  if (layer_count < MAX_LAYERS) cycles_of[layer_count] = now - layer_start;
  layer_count++;
}

static __attribute__((noinline)) int timed_run(uint64_t *cycles) {
  board->restart();
  EDGEOFA_MARK(MARK_RUN);
  int status = network->run();
  EDGEOFA_MARK(MARK_DONE);
  *cycles = board->cycles();
  board->stop();
  return status;
}

/* ---- commands: each returns a status and appends its answer ---- */

static uint8_t identify(size_t n) {
  const edgeofa_image *image = &edgeofa_this_image;
  if (n != 0) return BAD_LENGTH;
  put(FRAME_MAX_PAYLOAD, 2);
  put(image->network_count, 2);
  put(image->clock_hz, 4);
  put(board->timer, 1);
  put_bytes(image->digest, EDGEOFA_DIGEST_CHARS);
  put_bytes(image->target, strlen(image->target));
  return OK;
}

static uint8_t select_network(const uint8_t *p, size_t n) {
  if (n != 2) return BAD_LENGTH;
  uint32_t index = get(p, 2);
  if (index >= edgeofa_this_image.network_count) return BAD_VALUE;
  network = edgeofa_this_image.networks[index];
  layer_count = 0;
  memset(network->arena(), PAINT, network->arena_bytes);
  if (network->init() != 0) {
    network = NULL;
    return NETWORK_FAILED;
  }
  put(network->input_bytes, 4);
  put(network->output_bytes, 4);
  put(network->arena_bytes, 4);
  put(network->weight_bytes, 4);
  put(network->layers, 2);
  put_bytes(network->digest, EDGEOFA_DIGEST_CHARS);
  return OK;
}

static uint8_t set_input(const uint8_t *p, size_t n) {
  if (network == NULL) return NOTHING_SELECTED;
  if (n < 4) return BAD_LENGTH;
  uint32_t offset = get(p, 4), length = (uint32_t)n - 4;
  if (offset > network->input_bytes || length > network->input_bytes - offset) return BAD_VALUE;
  memcpy(network->input() + offset, p + 4, length);
  return OK;
}

static uint8_t fill_input(const uint8_t *p, size_t n) {
  if (network == NULL) return NOTHING_SELECTED;
  if (n != 4) return BAD_LENGTH;
  uint32_t x = get(p, 4) | 1u; /* xorshift: any state but 0 */
  int8_t *input = network->input();
  for (uint32_t i = 0; i < network->input_bytes; i++) {
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    input[i] = (int8_t)(x >> 24);
  }
  return OK;
}

static uint8_t run(const uint8_t *p, size_t n) {
  if (network == NULL) return NOTHING_SELECTED;
  if (n != 2) return BAD_LENGTH;
  uint32_t runs = p[0];
  if (runs < 1 || runs > MAX_RUNS || p[1] > 1) return BAD_VALUE;
  put(runs, 1);
  for (uint32_t i = 0; i < runs; i++) {
    uint64_t cycles = 0;
    recording = p[1] == 1;
    if (recording) layer_count = 0;
    int status = timed_run(&cycles);
    recording = false;
    if (status != 0) return NETWORK_FAILED;
    put(cycles, 8);
  }
  return OK;
}

static uint8_t layer_cycles(const uint8_t *p, size_t n) {
  if (network == NULL) return NOTHING_SELECTED;
  if (n != 2) return BAD_LENGTH;
  uint32_t first = get(p, 2), kept = layer_count < MAX_LAYERS ? layer_count : MAX_LAYERS;
  if (first > kept) return BAD_VALUE;
  put(layer_count, 4);
  for (uint32_t i = first; i < kept && i - first < LAYERS_PER_REPLY; i++) {
    put(layer_ids[i], 2);
    put(cycles_of[i], 8);
  }
  return OK;
}

static uint8_t output(const uint8_t *p, size_t n) {
  if (network == NULL) return NOTHING_SELECTED;
  if (n != 6) return BAD_LENGTH;
  uint32_t offset = get(p, 4), length = get(p + 4, 2);
  if (length > sizeof reply - 1 || offset > network->output_bytes ||
      length > network->output_bytes - offset)
    return BAD_VALUE;
  put_bytes(network->output() + offset, length);
  return OK;
}

/* The arena is used up to the last byte that lost its paint. */
static uint8_t memory(size_t n) {
  uint32_t stack_bytes = 0, stack_used = 0;
  if (network == NULL) return NOTHING_SELECTED;
  if (n != 0) return BAD_LENGTH;
  const uint8_t *arena = network->arena();
  uint32_t used = network->arena_bytes;
  while (used > 0 && arena[used - 1] == PAINT) used--;
  board->memory(&stack_bytes, &stack_used);
  put(stack_bytes, 4);
  put(stack_used, 4);
  put(network->arena_bytes, 4);
  put(used, 4);
  return OK;
}

/* Lets the host compare the clock that this image believes in with its own. */
static uint8_t wait(const uint8_t *p, size_t n) {
  if (n != 4) return BAD_LENGTH;
  uint32_t wanted = get(p, 4);
  if (board->timer == TIMER_NONE) return BAD_VALUE;
  board->restart();
  while (board->cycles() < wanted) continue;
  put(board->cycles(), 8);
  board->stop();
  return OK;
}

static uint8_t answer(uint8_t command, const uint8_t *p, size_t n) {
  switch (command) {
    case IDENTIFY: return identify(n);
    case SELECT: return select_network(p, n);
    case SET_INPUT: return set_input(p, n);
    case FILL_INPUT: return fill_input(p, n);
    case RUN: return run(p, n);
    case LAYERS: return layer_cycles(p, n);
    case OUTPUT: return output(p, n);
    case MEMORY: return memory(n);
    case WAIT: return wait(p, n);
    default: return UNKNOWN_COMMAND;
  }
}

void server_start(const server_board *with) {
  board = with;
  network = NULL;
}

void server_feed(uint8_t byte) {
  frame_event event = frame_feed(&reader, byte);
  if (event == FRAME_NONE) return;
  if (event == FRAME_BROKEN) {
    frame_send(board->write, NOT_A_FRAME, 0, NULL, 0);
    return;
  }
  const uint8_t *frame = reader.data;
  reply_length = 1;
  uint8_t status = frame[0] == FRAME_VERSION
                       ? answer(frame[1], frame + FRAME_HEADER, reader.length - FRAME_HEADER)
                       : BAD_VERSION;
  if (status != OK) reply_length = 1;
  reply[0] = status;
  frame_send(board->write, frame[1] | REPLY, frame[2], reply, reply_length);
}
