/* What the STM32 boards share: pins, the UART of the second generation (F7, H7, L4), and the caches of
 * a Cortex-M7. Register numbers are those of the reference manuals RM0432, RM0385 and RM0455. */
#ifndef EDGEOFA_STM32_H
#define EDGEOFA_STM32_H

#include <stddef.h>
#include <stdint.h>

#include "register.h"

/* Pin `pin` of the port at `gpio` carries alternate function `function`, at high speed. */
static inline void stm32_pin(uint32_t gpio, uint32_t pin, uint32_t function) {
  uint32_t afr = gpio + (pin < 8 ? 0x20 : 0x24), nibble = 4 * (pin % 8);
  reg_put(afr, 0xfu << nibble, function << nibble);
  reg_put(gpio + 0x08, 3u << (2 * pin), 2u << (2 * pin));
  reg_put(gpio + 0x00, 3u << (2 * pin), 2u << (2 * pin));
}

/* Transmitter, receiver and, where the chip has them, FIFOs on. */
static inline void stm32_uart_start(uint32_t uart, uint32_t divider) {
  REG(uart + 0x00) = 0;
  REG(uart + 0x0c) = divider;
  REG(uart + 0x00) = 1u << 29 | 1u << 3 | 1u << 2;
  reg_set(uart + 0x00, 1);
}

static inline int stm32_uart_read(uint32_t uart) {
  uint32_t state = REG(uart + 0x1c);
  /* overrun, noise, framing: cleared, or nothing more would come; the CRC finds what is lost */
  if (state & 0xe) REG(uart + 0x20) = 0xe;
  return (state & 1u << 5) ? (int)(REG(uart + 0x24) & 0xff) : -1;
}

static inline void stm32_uart_write(uint32_t uart, const uint8_t *bytes, size_t n) {
  for (size_t i = 0; i < n; i++) {
    reg_wait(uart + 0x1c, 1u << 7, 1u << 7);
    REG(uart + 0x28) = bytes[i];
  }
}

#if defined(__ARM_ARCH_7EM__)
/* Armv7-M ARM, B2.2: caches hold anything after power-on. */
static inline void cortex_m7_caches(void) {
  __asm volatile("dsb\n isb");
  REG(0xe000ef50) = 0; /* ICIALLU */
  __asm volatile("dsb\n isb");
  REG(0xe000ed84) = 0; /* CSSELR: the data cache of level 1 */
  __asm volatile("dsb");
  uint32_t size = REG(0xe000ed80); /* CCSIDR */
  uint32_t sets = (size >> 13 & 0x7fff) + 1, ways = (size >> 3 & 0x3ff) + 1;
  for (uint32_t set = 0; set < sets; set++)
    for (uint32_t way = 0; way < ways; way++) REG(0xe000ef60) = way << 30 | set << 5; /* DCISW */
  __asm volatile("dsb");
  reg_set(0xe000ed14, 1u << 17 | 1u << 16); /* CCR: IC, DC */
  __asm volatile("dsb\n isb");
}
#endif

#endif
