/* Arm's MPS2 and MPS3 boards as QEMU emulates them: a CMSDK UART and nothing to set up. */
#include "board.h"
#include "register.h"

#define UART_DATA (EDGEOFA_UART)
#define UART_STATE (EDGEOFA_UART + 4)
#define UART_CTRL (EDGEOFA_UART + 8)
#define UART_BAUDDIV (EDGEOFA_UART + 16)

enum { TX_FULL = 1, RX_FULL = 2, TX_ENABLE = 1, RX_ENABLE = 2 };

void board_start(void) {
  REG(UART_BAUDDIV) = 16; /* the smallest divider: an emulated line is as fast as it is read */
  REG(UART_CTRL) = TX_ENABLE | RX_ENABLE;
}

int board_read(void) {
  return (REG(UART_STATE) & RX_FULL) ? (int)(REG(UART_DATA) & 0xff) : -1;
}

void board_write(const uint8_t *bytes, size_t n) {
  for (size_t i = 0; i < n; i++) {
    reg_wait(UART_STATE, TX_FULL, 0);
    REG(UART_DATA) = bytes[i];
  }
}
