/* Arm's MPS2 and MPS3 boards as QEMU emulates them: a CMSDK UART and nothing to set up. */
#include "board.h"
#include "register.h"

#define UART_DATA (EDGEOFA_UART)
#define UART_STATE (EDGEOFA_UART + 4)
#define UART_CTRL (EDGEOFA_UART + 8)
#define UART_BAUDDIV (EDGEOFA_UART + 16)

#define UART_CLEAR (EDGEOFA_UART + 12)
#define NVIC_ENABLE 0xe000e100
#define NVIC_DISABLE 0xe000e180
#define NVIC_CLEAR 0xe000e280

enum { TX_FULL = 1, RX_FULL = 2, TX_ENABLE = 1, RX_ENABLE = 2, RX_INTERRUPT = 8, WORDS = 4 };

void board_start(void) {
  REG(UART_BAUDDIV) = 16; /* the smallest divider: an emulated line is as fast as it is read */
  REG(UART_CTRL) = TX_ENABLE | RX_ENABLE | RX_INTERRUPT;
}

int board_read(void) {
  return (REG(UART_STATE) & RX_FULL) ? (int)(REG(UART_DATA) & 0xff) : -1;
}

/* Any interrupt ends the wait and none is taken, so its number, another on each board, is not needed.
 * The order matters: a byte that comes before the UART's request is cleared shows in its state, one
 * that comes after it raises the request again. */
void board_wait(void) {
  __asm volatile("cpsid i" ::: "memory");
  REG(UART_CLEAR) = 0xf;
  for (uint32_t i = 0; i < WORDS; i++) {
    REG(NVIC_CLEAR + 4 * i) = 0xffffffff;
    REG(NVIC_ENABLE + 4 * i) = 0xffffffff;
  }
  if (!(REG(UART_STATE) & RX_FULL)) __asm volatile("dsb\n wfi" ::: "memory");
  for (uint32_t i = 0; i < WORDS; i++) REG(NVIC_DISABLE + 4 * i) = 0xffffffff;
  __asm volatile("cpsie i" ::: "memory");
}

void board_write(const uint8_t *bytes, size_t n) {
  for (size_t i = 0; i < n; i++) {
    reg_wait(UART_STATE, TX_FULL, 0);
    REG(UART_DATA) = bytes[i];
  }
}
