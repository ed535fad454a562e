/* Endurance: does every invoke give the same output, and does memory grow? */
#pragma once

#include "report.h"
#include "runtime.h"

struct watch {
  void *first; /* the first invoke's output */
  long compared, changed;
  long settle; /* memory counts from this invoke on: caches and pools are full by then */
  long long resident_bytes, heap_bytes;
};

/* `runs`: how many invokes will be seen. */
void watch_begin(struct watch *watch, long runs);
/* After an invoke: compare its output. 0, or -1 after fault(). */
int watch_invoke(struct watch *watch, const struct runtime *runtime, struct tensor *output);
/* Appends the member "watch" to `report`. */
void watch_report(struct report *report, const struct watch *watch);
