/* What the reset code knows of the stack. */
#ifndef EDGEOFA_STARTUP_H
#define EDGEOFA_STARTUP_H

#include <stdint.h>

/* Size of the stack, and how much of it was ever used: it was painted at reset. */
void startup_stack(uint32_t *bytes, uint32_t *used);

#endif
