#define _GNU_SOURCE
#include "watch.h"

#include <dlfcn.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fault.h"

enum { SETTLE_SHARE = 4 };

/* Resident bytes of this process, -1 where unreadable. */
static long long resident_bytes(void) {
  long long pages = -1, ignored;
  FILE *file = fopen("/proc/self/statm", "re");
  if (!file) return -1;
  if (fscanf(file, "%lld %lld", &ignored, &pages) != 2) pages = -1;
  fclose(file);
  return pages < 0 ? -1 : pages * sysconf(_SC_PAGESIZE);
}

/* Bytes that malloc has handed out (`in_use`) or taken from the system; -1 where the C library does
 * not say: mallinfo2 came with glibc 2.33, and boards run older ones. */
static long long heap_bytes(int in_use) {
  struct info { /* struct mallinfo2, which older headers lack */
    size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
  };
  struct info (*mallinfo)(void);
  *(void **)&mallinfo = dlsym(RTLD_DEFAULT, "mallinfo2");
  if (!mallinfo) return -1;
  struct info info = mallinfo();
  return (long long)(info.hblkhd + (in_use ? info.uordblks : info.arena));
}

void watch_begin(struct watch *watch, long runs) {
  memset(watch, 0, sizeof *watch);
  watch->settle = runs / SETTLE_SHARE;
  watch->resident_bytes = resident_bytes();
  watch->heap_bytes = heap_bytes(1);
}

int watch_invoke(struct watch *watch, const struct runtime *runtime, struct tensor *output) {
  if (runtime->map(output, 0)) return -1;
  if (!watch->first) {
    watch->first = malloc(output->bytes);
    if (!watch->first) return fault("no memory to keep an output");
    memcpy(watch->first, output->data, output->bytes);
  } else if (memcmp(watch->first, output->data, output->bytes)) {
    watch->changed++;
  }
  if (runtime->unmap(output)) return -1;
  if (watch->compared++ == watch->settle) {
    watch->resident_bytes = resident_bytes();
    watch->heap_bytes = heap_bytes(1);
  }
  return 0;
}

static void growth(struct report *report, const char *name, long long before, long long after) {
  if (before < 0 || after < 0)
    report_add(report, "\"%s\":null,", name);
  else
    report_add(report, "\"%s\":%lld,", name, after - before);
}

void watch_report(struct report *report, const struct watch *watch) {
  report_add(report, "\"watch\":{\"compared\":%ld,\"changed\":%ld,", watch->compared,
             watch->changed);
  growth(report, "resident_growth_bytes", watch->resident_bytes, resident_bytes());
  growth(report, "heap_growth_bytes", watch->heap_bytes, heap_bytes(1));
  growth(report, "heap_bytes", 0, heap_bytes(0));
  report->used--; /* the last comma */
  report_add(report, "},");
}
