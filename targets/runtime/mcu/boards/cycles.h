/* Cycle counter: DWT's where the core counts with it, else SysTick. Both extended to 64 bits. */
#ifndef EDGEOFA_CYCLES_H
#define EDGEOFA_CYCLES_H

#include <stdint.h>

/* Start counting; returns the server's name of the timer that does. */
uint8_t cycles_start(void);

/* Count from 0. SysTick's phase is part of what an emulator repeats, so it begins anew, too. */
void cycles_restart(void);

uint64_t cycles_now(void);

/* No counting, and no interrupts for it, until the next restart. */
void cycles_stop(void);

#endif
