#include "report.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

void report_reset(struct report *report) {
  report->used = 0;
  report->overflow = 0;
}

void report_add(struct report *report, const char *format, ...) {
  size_t room = REPORT_BYTES - report->used;
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(report->text + report->used, room, format, arguments);
  va_end(arguments);
  if (length < 0 || (size_t)length >= room)
    report->overflow = 1;
  else
    report->used += (size_t)length;
}

void report_string(struct report *report, const char *text, size_t length) {
  report_add(report, "\"");
  for (size_t i = 0; i < length; i++) {
    unsigned char byte = (unsigned char)text[i];
    if (byte < 0x20 || byte > 0x7e || byte == '"' || byte == '\\')
      report_add(report, "\\u%04x", byte);
    else
      report_add(report, "%c", byte);
  }
  report_add(report, "\"");
}

int write_all(int descriptor, const void *data, size_t length) {
  const char *bytes = data;
  while (length) {
    ssize_t written = write(descriptor, bytes, length);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return -1;
    bytes += written;
    length -= (size_t)written;
  }
  return 0;
}
