/* What can change a time: clock, governor, temperature, throttling, load; and the cache sizes. */
#pragma once

#include <stddef.h>

#include "report.h"

struct device_state {
  double clock_hz; /* below 0: unreadable, as for all of these */
  double temperature_c;
  double load; /* one-minute load average */
  int throttled;
  double throttle_events; /* counts up with every throttling since the start */
  char governor[32]; /* empty: unreadable */
};

/* Look for sysfs and procfs under `root` ("" by default). */
void state_root(const char *root);
/* The state as seen from processor `cpu`. */
void state_read(struct device_state *state, int cpu);
void state_report(struct report *report, const struct device_state *state);

/* Size of the largest cache that belongs to one core (level 2 at most), or 1 MiB if unreadable. */
size_t private_cache_bytes(int cpu);
