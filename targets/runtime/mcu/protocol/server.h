/* Answers the host: who this is, set an input, run, cycles, outputs, memory. docs/firmware.md has the
 * layout of every message. One network is selected at a time; an image may hold many. */
#ifndef EDGEOFA_SERVER_H
#define EDGEOFA_SERVER_H

#include <stddef.h>
#include <stdint.h>

#include "edgeofa_firmware.h"
#include "frame.h"

/* This image (generated at link time). `digest` is over everything it was built from. */
typedef struct {
  const char *target, *digest;
  uint32_t clock_hz, network_count;
  const edgeofa_network *const *networks;
} edgeofa_image;

extern const edgeofa_image edgeofa_this_image;

enum { TIMER_NONE, TIMER_DWT, TIMER_SYSTICK };

/* What the board gives the server. */
typedef struct {
  frame_write write;
  uint8_t timer;
  void (*restart)(void); /* begin timing at 0 */
  void (*stop)(void);
  uint64_t (*cycles)(void);
  void (*memory)(uint32_t *stack_bytes, uint32_t *stack_used);
} server_board;

void server_start(const server_board *board);

/* Take one byte from the line; answers whole requests before it returns. */
void server_feed(uint8_t byte);

#endif
