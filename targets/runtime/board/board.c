#define _GNU_SOURCE
/* edgeofa-board: what edgeofa needs on a board beside the runner. Linked statically, so that it
 * runs whatever C library the board has, and can say which one that is.
 *
 *   edgeofa-board [--root DIR] probe FOLDER             what this board is, and room in FOLDER
 *   edgeofa-board digest PATH...                        SHA-256 of files
 *   edgeofa-board have FOLDER DIGEST...                 those of the files that are there, and whole
 *   edgeofa-board receive FOLDER                        files from standard input, see files.c
 *   edgeofa-board [--root DIR] keep LOCK WHO [pin] [silence SECONDS]
 *                                                       this board for one user, see keep.c
 *
 * Answers are JSON lines on standard output; a refusal is {"event":"refused","reason":...} with
 * exit status 2. */
#include "board.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *board_root = "";

long board_slurp(char *text, size_t size, const char *format, ...) {
  char path[512];
  int used = snprintf(path, sizeof path, "%s", board_root);
  if (used < 0 || (size_t)used >= sizeof path) return -1;
  va_list arguments;
  va_start(arguments, format);
  int more = vsnprintf(path + used, sizeof path - (size_t)used, format, arguments);
  va_end(arguments);
  if (more < 0 || (size_t)(used + more) >= sizeof path) return -1;
  int descriptor = open(path, O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return -1;
  size_t filled = 0;
  while (filled < size - 1) {
    ssize_t got = read(descriptor, text + filled, size - 1 - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    filled += (size_t)got;
  }
  close(descriptor);
  text[filled] = 0;
  return (long)filled;
}

double board_number(double otherwise, const char *format, ...) {
  char path[256], text[64], *end;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(path, sizeof path, format, arguments);
  va_end(arguments);
  if (board_slurp(text, sizeof text, "%s", path) <= 0) return otherwise;
  double value = strtod(text, &end);
  return end == text ? otherwise : value;
}

int board_emit(struct report *report) {
  report_add(report, "}\n");
  if (report->overflow) return -1;
  return write_all(STDOUT_FILENO, report->text, report->used);
}

int board_refuse(const char *format, ...) {
  static struct report report;
  char reason[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(reason, sizeof reason, format, arguments);
  va_end(arguments);
  report_reset(&report);
  report_add(&report, "{\"event\":\"refused\",\"reason\":");
  report_string(&report, reason, strlen(reason));
  board_emit(&report);
  return EXIT_REFUSED;
}

static int keep(int argc, char **argv) {
  int pin = 0, silence_s = 60;
  for (int i = 2; i < argc; i++) {
    if (!strcmp(argv[i], "pin")) {
      pin = 1;
    } else if (!strcmp(argv[i], "silence") && i + 1 < argc) {
      silence_s = atoi(argv[++i]);
      if (silence_s < 1 || silence_s > 86400) return board_refuse("silence is 1 to 86400 seconds");
    } else {
      return board_refuse("unknown word %.32s", argv[i]);
    }
  }
  return board_keep(argv[0], argv[1], pin, silence_s);
}

int main(int argc, char **argv) {
  argc--, argv++;
  if (argc > 1 && !strcmp(argv[0], "--root")) {
    board_root = argv[1];
    argc -= 2, argv += 2;
  }
  if (argc == 2 && !strcmp(argv[0], "probe")) return board_probe(argv[1]);
  if (argc > 1 && !strcmp(argv[0], "digest")) return board_digest(argc - 1, argv + 1);
  if (argc > 2 && !strcmp(argv[0], "have")) return board_have(argv[1], argc - 2, argv + 2);
  if (argc == 2 && !strcmp(argv[0], "receive")) return board_receive(argv[1]);
  if (argc > 2 && !strcmp(argv[0], "keep")) return keep(argc - 1, argv + 1);
  return board_refuse("probe, digest, have, receive or keep");
}
