/* What each board's file provides. */
#ifndef EDGEOFA_BOARD_H
#define EDGEOFA_BOARD_H

#include <stddef.h>
#include <stdint.h>

/* Clocks, flash wait states, caches and the serial line (8 data bits, no parity, one stop bit).
 * EDGEOFA_CLOCK_HZ and EDGEOFA_BAUD come from the target file. */
void board_start(void);

/* The next byte from the line, or -1 when there is none. */
int board_read(void);

/* Until a byte may have come: an emulated processor that waits costs nothing. Counters are stopped. */
void board_wait(void);

void board_write(const uint8_t *bytes, size_t n);

#endif
