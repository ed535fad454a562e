/* One job, as the job list on standard input describes it.
 *
 * A job is a group of lines "key value", closed by an empty line or the end of the list. It is read
 * into fixed memory, without the heap: every job then starts from the same process state, whatever
 * stands before or after it in the list. */
#pragma once

#include <stdint.h>

enum { MAX_PATH = 4096, MAX_SAMPLES = 4096 };

struct job {
  char model[MAX_PATH];  /* model PATH, required */
  char input[MAX_PATH];  /* input PATH: raw bytes of the first input; else a fixed pattern */
  char output[MAX_PATH]; /* output PATH: raw bytes of the first output are written there */
  long warmups;          /* warmups N: untimed invokes, at least */
  long runs;             /* runs N: samples, at least */
  int64_t warmup_ns;     /* warmup_ns N: warm up for at least this long (not when emulated) */
  int64_t min_ns;        /* min_ns N: sample for at least this long (not when emulated) */
  int64_t timeout_ms;    /* timeout_ms N: the job is killed after this long */
  int cold;              /* cold 0|1: drop the weights from the caches before every timed invoke */
  int watch;             /* watch 0|1: compare every sample's output with the first one's, and tell
                            how memory grew; a sample is one invoke */
};

/* Read the next job from standard input: 1 read, 0 end of the list, -1 after fault(). */
int job_read(struct job *job);
