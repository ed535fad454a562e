/* JSON text in a fixed buffer. Text that does not fit is dropped and sets overflow. */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { REPORT_BYTES = 1 << 18 };

struct report {
  size_t used;
  int overflow;
  char text[REPORT_BYTES];
};

void report_reset(struct report *report);
void report_add(struct report *report, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* A JSON string, quoted; bytes outside printable ASCII are escaped. */
void report_string(struct report *report, const char *text, size_t length);

/* Write everything, 0 or -1 with errno. */
int write_all(int descriptor, const void *data, size_t length);
