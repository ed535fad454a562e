/* ST NUCLEO-H7A3ZI-Q: 280 MHz from the internal 64 MHz oscillator, USART3 on the debugger's port, both
 * caches on. Registers: RM0455. */
#include "board.h"
#include "stm32.h"

#define PWR 0x58024800
#define RCC 0x58024400
#define FLASH 0x52002000
#define GPIOD 0x58020c00
#define USART3 0x40004800

_Static_assert(EDGEOFA_CLOCK_HZ == 280000000u, "the PLL is set for 280 MHz");

static void clocks(void) {
  reg_put(PWR + 0x0c, 7, 4); /* CR3: the core is supplied by the step-down converter alone */
  reg_wait(PWR + 0x04, 1u << 13, 1u << 13);
  reg_put(PWR + 0x18, 3u << 14, 3u << 14); /* SRDCR: voltage scale 0 */
  reg_wait(PWR + 0x18, 1u << 13, 1u << 13);
  REG(FLASH) = EDGEOFA_FLASH_WAIT_STATES | 3u << 4;
  reg_wait(FLASH, 0xf, EDGEOFA_FLASH_WAIT_STATES);
  reg_put(RCC, 1u << 24, 0);
  reg_wait(RCC, 1u << 25, 0);
  /* 64 MHz / 16 * 140 / 2 */
  reg_put(RCC + 0x28, 3u | 0x3fu << 4, 16u << 4);
  reg_put(RCC + 0x2c, 0xf, 2u << 2); /* input 4 to 8 MHz, wide VCO, no fraction */
  reg_set(RCC + 0x2c, 1u << 16);
  reg_put(RCC + 0x30, 0xffffu, 139u | 1u << 9);
  reg_set(RCC, 1u << 24);
  reg_wait(RCC, 1u << 25, 1u << 25);
  REG(RCC + 0x1c) = 4u << 4 | 4u << 8; /* APB1, APB2: half the speed */
  reg_put(RCC + 0x18, 7u << 4, 4u << 4);
  reg_put(RCC + 0x20, 7u << 4, 4u << 4);
  reg_put(RCC + 0x10, 7, 3);
  reg_wait(RCC + 0x10, 7u << 3, 3u << 3);
}

void board_start(void) {
  clocks();
  cortex_m7_caches();
  reg_put(RCC + 0x54, 7, 3);      /* USART3 on HSI */
  reg_set(RCC + 0x140, 1u << 3);  /* GPIOD */
  reg_set(RCC + 0x148, 1u << 18); /* USART3 */
  (void)REG(RCC + 0x148);
  stm32_pin(GPIOD, 8, 7);
  stm32_pin(GPIOD, 9, 7);
  stm32_uart_start(USART3, (64000000u + EDGEOFA_BAUD / 2) / EDGEOFA_BAUD);
}

int board_read(void) { return stm32_uart_read(USART3); }

void board_wait(void) {}

void board_write(const uint8_t *bytes, size_t n) { stm32_uart_write(USART3, bytes, n); }
