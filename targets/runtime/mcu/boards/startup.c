/* Reset: floating point or vector unit on, data and bss in place, stack painted, then main. */
#include <stddef.h>
#include <stdint.h>

#include "register.h"
#include "startup.h"

#define VTOR 0xe000ed08

enum { STACK_PAINT = 0xa5a5a5a5 };

extern uint32_t __stack_limit, __stack_top, __data_load, __data_start, __data_end, __bss_start,
    __bss_end;

int main(void);
void Reset_Handler(void);
void SysTick_Handler(void);

/* A fault stops here; the host sees a port that does not answer any more. */
static void fault(void) {
  for (;;) continue;
}

typedef struct {
  uint32_t *stack;
  void (*handlers[63])(void);
} vector_table;

/* Exceptions 1 to 15; boards poll, so there are no interrupts but SysTick's. */
__attribute__((section(".vectors"), used)) static const vector_table vectors = {
    .stack = &__stack_top,
    .handlers = {Reset_Handler, fault, fault, fault, fault, fault, fault, NULL, NULL, NULL, fault,
                 fault, NULL, fault, SysTick_Handler},
};

static __attribute__((noinline, used)) void begin(void) {
  for (uint32_t *from = &__data_load, *to = &__data_start; to < &__data_end;) *to++ = *from++;
  for (uint32_t *to = &__bss_start; to < &__bss_end;) *to++ = 0;
  uint32_t *here;
  __asm volatile("mov %0, sp" : "=r"(here));
  for (uint32_t *to = &__stack_limit; to < here;) *to++ = STACK_PAINT;
  /* where a bootloader or a debugger left the vectors does not matter */
  REG(VTOR) = (uint32_t)(uintptr_t)&vectors;
  main();
  fault();
}

__attribute__((naked)) void Reset_Handler(void) {
  __asm volatile(
      "ldr r0, =__stack_top\n"
      "mov sp, r0\n"
      "ldr r0, =0xe000ed88\n" /* CPACR: full access to CP10 and CP11 */
      "ldr r1, [r0]\n"
      "orr r1, r1, #(0xf << 20)\n"
      "str r1, [r0]\n"
      "dsb\n"
      "isb\n"
      "b begin\n");
}

void startup_stack(uint32_t *bytes, uint32_t *used) {
  const uint32_t *word = &__stack_limit;
  while (word < &__stack_top && *word == STACK_PAINT) word++;
  *bytes = (uint32_t)((uintptr_t)&__stack_top - (uintptr_t)&__stack_limit);
  *used = (uint32_t)((uintptr_t)&__stack_top - (uintptr_t)word);
}
