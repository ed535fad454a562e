#include "fault.h"

#include <stdarg.h>
#include <stdio.h>

static char reason[512];

int fault(const char *format, ...) {
  if (!reason[0]) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
  }
  return -1;
}

const char *fault_reason(void) { return reason; }
