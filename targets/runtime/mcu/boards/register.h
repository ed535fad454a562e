/* Access to memory-mapped registers. */
#ifndef EDGEOFA_REGISTER_H
#define EDGEOFA_REGISTER_H

#include <stdint.h>

#define REG(address) (*(volatile uint32_t *)(uintptr_t)(address))

static inline void reg_set(uint32_t address, uint32_t bits) { REG(address) |= bits; }

/* Replace the bits of `mask` by `value`. */
static inline void reg_put(uint32_t address, uint32_t mask, uint32_t value) {
  REG(address) = (REG(address) & ~mask) | value;
}

static inline void reg_wait(uint32_t address, uint32_t mask, uint32_t value) {
  while ((REG(address) & mask) != value) continue;
}

#endif
