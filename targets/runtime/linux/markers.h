/* Marker instructions: they do nothing, and tell the QEMU plugin what to count.
 *
 * RESET empties the modelled caches; TOUCH models them without counting; ON counts a region until
 * OFF; FLUSH drops every modelled cache line that was never written, that is, the weights.
 * On real hardware they cost one cycle each. */
#pragma once

#if defined(__aarch64__)
#define MARKER(reg) __asm__ volatile("orr " reg "," reg "," reg::: "memory")
#else
#define MARKER(reg) __asm__ volatile("" ::: "memory")
#endif

#define MARK_ON() MARKER("x21")
#define MARK_OFF() MARKER("x22")
#define MARK_FLUSH() MARKER("x23")
#define MARK_TOUCH() MARKER("x24")
#define MARK_RESET() MARKER("x25")
