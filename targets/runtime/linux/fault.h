/* The reason of the first failure, kept in fixed memory. */
#pragma once

#include <stddef.h>

/* Record printf-formatted text unless a reason is recorded already; always returns -1. */
int fault(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The recorded reason, or an empty string. */
const char *fault_reason(void);
