/* The verbs of edgeofa-board, see board.c. Each returns an exit status. */
#pragma once

#include <stddef.h>

#include "report.h"

enum { EXIT_REFUSED = 2, EXIT_CUT = 3, EXIT_OUTPUT = 4, BOARD_PROTOCOL = 1 };

/* Where sysfs and procfs are looked for: "" on a board, a folder in tests. */
extern const char *board_root;

/* At most `size` - 1 bytes of the file `format` under board_root, closed by a zero; the number of
 * bytes, or -1. */
long board_slurp(char *text, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The first line of such a file as a number, or `otherwise`. */
double board_number(double otherwise, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* {"event":"refused","reason":...}; returns EXIT_REFUSED. */
int board_refuse(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* One event as a line on standard output; -1 when nobody reads it. */
int board_emit(struct report *report);

int board_probe(const char *folder);
int board_digest(int count, char **paths);
int board_have(const char *folder, int count, char **digests);
int board_receive(const char *folder);
int board_keep(const char *lock, const char *who, int pin, int silence_s);
