#include "frame.h"

/* Bit by bit: a table would cost 1 KiB of flash, and the line is slower than this. */
uint32_t frame_crc(uint32_t crc, const uint8_t *bytes, size_t n) {
  crc = ~crc;
  for (size_t i = 0; i < n; i++) {
    crc ^= bytes[i];
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (0xedb88320u & (0u - (crc & 1u)));
  }
  return ~crc;
}

static void restart(frame_reader *r) {
  r->length = 0;
  r->left = 0;
  r->zero_next = r->begun = r->broken = false;
}

static frame_event finish(frame_reader *r) {
  size_t n = r->length;
  bool begun = r->begun;
  bool good = !r->broken && r->left == 0 && n >= FRAME_HEADER + FRAME_CRC;
  restart(r);
  if (!begun) return FRAME_NONE; /* the 0x00 in front of a frame */
  if (!good) return FRAME_BROKEN;
  const uint8_t *sum = r->data + n - FRAME_CRC;
  uint32_t sent =
      (uint32_t)sum[0] | (uint32_t)sum[1] << 8 | (uint32_t)sum[2] << 16 | (uint32_t)sum[3] << 24;
  if (frame_crc(0, r->data, n - FRAME_CRC) != sent) return FRAME_BROKEN;
  r->length = n - FRAME_CRC;
  return FRAME_READY;
}

static void put(frame_reader *r, uint8_t byte) {
  if (r->length < FRAME_MAX)
    r->data[r->length++] = byte;
  else
    r->broken = true;
}

frame_event frame_feed(frame_reader *r, uint8_t byte) {
  if (byte == 0) return finish(r);
  if (!r->begun) {
    restart(r);
    r->begun = true;
  }
  if (r->left == 0) {
    if (r->zero_next) put(r, 0);
    r->left = (uint8_t)(byte - 1);
    r->zero_next = byte != 0xff;
  } else {
    r->left--;
    put(r, byte);
  }
  return FRAME_NONE;
}

/* COBS on the way out: the bytes of a block wait until its length is known. */
typedef struct {
  frame_write write;
  uint8_t block[255];
  uint8_t n;
} encoder;

static void flush(encoder *e) {
  e->block[0] = (uint8_t)(e->n + 1);
  e->write(e->block, (size_t)e->n + 1);
  e->n = 0;
}

static void encode(encoder *e, const uint8_t *bytes, size_t n) {
  for (size_t i = 0; i < n; i++) {
    if (bytes[i] == 0) {
      flush(e);
      continue;
    }
    e->block[++e->n] = bytes[i];
    if (e->n == 254) flush(e);
  }
}

void frame_send(frame_write write, uint8_t command, uint8_t sequence, const uint8_t *payload,
                size_t n) {
  const uint8_t zero = 0, header[FRAME_HEADER] = {FRAME_VERSION, command, sequence};
  uint32_t crc = frame_crc(frame_crc(0, header, sizeof header), payload, n);
  const uint8_t sum[FRAME_CRC] = {(uint8_t)crc, (uint8_t)(crc >> 8), (uint8_t)(crc >> 16),
                                  (uint8_t)(crc >> 24)};
  encoder e = {.write = write};
  write(&zero, 1);
  encode(&e, header, sizeof header);
  encode(&e, payload, n);
  encode(&e, sum, sizeof sum);
  flush(&e);
  write(&zero, 1);
}
