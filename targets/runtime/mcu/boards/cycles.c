#include "cycles.h"

#include <stdbool.h>

#include "../protocol/server.h"
#include "register.h"

#define SYST_CSR 0xe000e010
#define SYST_RVR 0xe000e014
#define SYST_CVR 0xe000e018
#define DEMCR 0xe000edfc
#define DWT_CTRL 0xe0001000
#define DWT_CYCCNT 0xe0001004

enum { SYSTICK_RELOAD = 0xffffff };

static bool use_dwt;
static volatile uint32_t wraps;     /* of SysTick */
static volatile uint32_t last, high; /* of DWT: the last reading and its carries */

void SysTick_Handler(void);
void SysTick_Handler(void) {
  wraps++;
  /* every 2^24 cycles: no wrap of the 32-bit counter goes unseen */
  if (use_dwt) cycles_now();
}

uint8_t cycles_start(void) {
  reg_set(DEMCR, 1u << 24); /* TRCENA */
  REG(DWT_CYCCNT) = 0;
  reg_set(DWT_CTRL, 1); /* CYCCNTENA */
  uint32_t first = REG(DWT_CYCCNT);
  for (volatile int i = 0; i < 16; i++) continue;
  use_dwt = REG(DWT_CYCCNT) != first;
  REG(SYST_RVR) = SYSTICK_RELOAD;
  return use_dwt ? TIMER_DWT : TIMER_SYSTICK;
}

void cycles_restart(void) {
  __asm volatile("cpsid i" ::: "memory");
  REG(SYST_CVR) = 0;
  REG(DWT_CYCCNT) = 0;
  wraps = last = high = 0;
  REG(SYST_CSR) = 7; /* core clock, interrupt, enable */
  __asm volatile("cpsie i" ::: "memory");
}

void cycles_stop(void) { REG(SYST_CSR) = 0; }

static uint64_t dwt_now(void) {
  uint32_t now = REG(DWT_CYCCNT);
  if (now < last) high = high + 1;
  last = now;
  return (uint64_t)high << 32 | now;
}

/* The counter runs down from the reload value; the first period begins one cycle after it is set. */
static uint64_t systick_now(void) {
  uint32_t before, value;
  do {
    before = wraps;
    value = REG(SYST_CVR);
  } while (before != wraps);
  return (uint64_t)before * (SYSTICK_RELOAD + 1u) + (value == 0 ? 0 : SYSTICK_RELOAD - value + 1);
}

uint64_t cycles_now(void) {
  uint32_t masked;
  __asm volatile("mrs %0, primask\n cpsid i" : "=r"(masked)::"memory");
  uint64_t now = use_dwt ? dwt_now() : 0;
  __asm volatile("msr primask, %0" ::"r"(masked) : "memory");
  return use_dwt ? now : systick_now();
}
