/* What a child process does: load one model, warm up, time invokes, describe the result. */
#pragma once

#include "job.h"
#include "report.h"
#include "runtime.h"

struct measure_options {
  int emulated; /* the caches are the plugin's, the clock means nothing, there is no device state */
  int cpu;      /* the processor whose state is read */
};

/* Appends the members of the result to `report`; 0, or -1 after fault(). */
int measure(const struct runtime *runtime, const struct job *job,
            const struct measure_options *options, struct report *report);
