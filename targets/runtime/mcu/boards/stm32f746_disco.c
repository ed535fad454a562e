/* ST 32F746GDISCOVERY: 216 MHz from the internal 16 MHz oscillator, USART1 on the debugger's port, both
 * caches on. Registers: RM0385. */
#include "board.h"
#include "stm32.h"

#define PWR 0x40007000
#define RCC 0x40023800
#define FLASH 0x40023c00
#define GPIOA 0x40020000
#define GPIOB 0x40020400
#define USART1 0x40011000

_Static_assert(EDGEOFA_CLOCK_HZ == 216000000u, "the PLL is set for 216 MHz");

static void clocks(void) {
  reg_set(RCC + 0x40, 1u << 28); /* PWR */
  (void)REG(RCC + 0x40);
  REG(FLASH) = EDGEOFA_FLASH_WAIT_STATES | 1u << 8 | 1u << 9; /* prefetch, accelerator */
  reg_wait(FLASH, 0xf, EDGEOFA_FLASH_WAIT_STATES);
  reg_put(RCC, 1u << 24, 0);
  reg_wait(RCC, 1u << 25, 0);
  /* 16 MHz / 16 * 432 / 2; Q / 9 for what needs 48 MHz */
  REG(RCC + 0x04) = 16u | 432u << 6 | 9u << 24;
  reg_set(RCC, 1u << 24);
  reg_set(PWR, 1u << 16); /* over-drive, above 180 MHz */
  reg_wait(PWR + 0x04, 1u << 16, 1u << 16);
  reg_set(PWR, 1u << 17);
  reg_wait(PWR + 0x04, 1u << 17, 1u << 17);
  reg_wait(RCC, 1u << 25, 1u << 25);
  /* APB1 a quarter, APB2 half of the speed */
  reg_put(RCC + 0x08, 0xfcf0u, 5u << 10 | 4u << 13);
  reg_put(RCC + 0x08, 3, 2);
  reg_wait(RCC + 0x08, 0xc, 0x8);
}

void board_start(void) {
  clocks();
  cortex_m7_caches();
  reg_put(RCC + 0x90, 3, 2);          /* USART1 on HSI */
  reg_set(RCC + 0x30, 1u << 0 | 1u << 1); /* GPIOA, GPIOB */
  reg_set(RCC + 0x44, 1u << 4);       /* USART1 */
  (void)REG(RCC + 0x44);
  stm32_pin(GPIOA, 9, 7);
  stm32_pin(GPIOB, 7, 7);
  stm32_uart_start(USART1, (16000000u + EDGEOFA_BAUD / 2) / EDGEOFA_BAUD);
}

int board_read(void) { return stm32_uart_read(USART1); }

void board_wait(void) {}

void board_write(const uint8_t *bytes, size_t n) { stm32_uart_write(USART1, bytes, n); }
