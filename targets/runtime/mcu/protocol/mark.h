/* Instructions without effect that tell an emulator's plugin where a run and its layers begin and end:
 * hints that Armv7-M and later leave unallocated, which execute as NOP. Nothing on other machines. */
#ifndef EDGEOFA_MARK_H
#define EDGEOFA_MARK_H

#if defined(__thumb2__)
#define EDGEOFA_MARK(hint) __asm volatile(".inst.w " hint ::: "memory")
#else
#define EDGEOFA_MARK(hint) ((void)(hint))
#endif

/* targets/runtime/emulation/cortex_m.c knows these */
#define MARK_RUN "0xf3af80a1"
#define MARK_DONE "0xf3af80a2"
#define MARK_LAYER "0xf3af80a3"
#define MARK_LAYER_DONE "0xf3af80a4"

#endif
