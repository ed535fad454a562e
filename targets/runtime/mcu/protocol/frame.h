/* Frames of the serial protocol: bounded, checked, and found again after any noise on the line.
 *
 *   0x00  COBS( version  command  sequence  payload  CRC-32 little-endian )  0x00
 *
 * COBS keeps 0x00 out of a frame, so a 0x00 always ends one, whatever came before. The CRC is that of
 * IEEE 802.3 over everything before it. docs/firmware.md describes the commands. */
#ifndef EDGEOFA_FRAME_H
#define EDGEOFA_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  FRAME_VERSION = 1,
  FRAME_HEADER = 3,
  FRAME_CRC = 4,
  FRAME_MAX_PAYLOAD = 1024,
  FRAME_MAX = FRAME_HEADER + FRAME_MAX_PAYLOAD + FRAME_CRC,
};

typedef enum { FRAME_NONE, FRAME_READY, FRAME_BROKEN } frame_event;

/* Collects bytes; `data` holds `length` decoded bytes once frame_feed has said FRAME_READY. */
typedef struct {
  uint8_t data[FRAME_MAX];
  size_t length;
  uint8_t left;   /* bytes until the next code byte of COBS */
  bool zero_next; /* a zero stands where the block ends */
  bool begun, broken;
} frame_reader;

typedef void (*frame_write)(const uint8_t *bytes, size_t n);

/* Take one byte from the line. FRAME_BROKEN is reported once, at the end of a frame that is too
 * long, not COBS, too short, or whose CRC is wrong. */
frame_event frame_feed(frame_reader *reader, uint8_t byte);

/* Send a frame whose payload is n <= FRAME_MAX_PAYLOAD bytes. */
void frame_send(frame_write write, uint8_t command, uint8_t sequence, const uint8_t *payload,
                size_t n);

uint32_t frame_crc(uint32_t crc, const uint8_t *bytes, size_t n);

#endif
