/* A fixed piece of arithmetic, timed: how fast this machine is at this moment, whatever the runtime
 * does. Two latencies are comparable as far as the yardsticks beside them agree. */
#pragma once

/* Nanoseconds of one yardstick. */
double yardstick_ns(void);
