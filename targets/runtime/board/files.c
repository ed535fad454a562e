#define _GNU_SOURCE
/* Files by the digest of their content. One appears whole and right, or not at all: it is written
 * under another name, its size and digest are checked while it comes, and then it is renamed.
 *
 * Standard input of "receive" is, for each file, a line "SHA256 BYTES MODE" (mode x or -) and the
 * bytes. One {"event":"received","sha256":...} answers each. Exit status 3: the input ended inside
 * a file. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "board.h"
#include "sha256.h"

enum { HEX = 64, MAX_LINE = 128 };
static const long long MAX_BYTES = 1ll << 32;

static struct report report;

static int is_digest(const char *text) {
  return strlen(text) == HEX && strspn(text, "0123456789abcdef") == HEX;
}

static void hex(const uint8_t digest[32], char text[HEX + 1]) {
  for (int i = 0; i < 32; i++) snprintf(text + 2 * i, 3, "%02x", digest[i]);
}

static int answer(const char *event, const char *digest) {
  report_reset(&report);
  report_add(&report, "{\"event\":\"%s\",\"sha256\":\"%s\"", event, digest);
  return board_emit(&report);
}

int board_digest(int count, char **paths) {
  for (int i = 0; i < count; i++) {
    uint8_t digest[32];
    char text[HEX + 1];
    int descriptor = open(paths[i], O_RDONLY | O_CLOEXEC);
    if (descriptor < 0 || sha256_of(descriptor, digest))
      return board_refuse("%.300s: %s", paths[i], strerror(errno));
    close(descriptor);
    hex(digest, text);
    if (answer("digest", text)) return EXIT_OUTPUT;
  }
  return 0;
}

int board_have(const char *folder, int count, char **digests) {
  for (int i = 0; i < count; i++) {
    char path[4096], text[HEX + 1];
    uint8_t digest[32];
    if (!is_digest(digests[i])) return board_refuse("not a digest: %.80s", digests[i]);
    if (snprintf(path, sizeof path, "%s/%s", folder, digests[i]) >= (int)sizeof path)
      return board_refuse("the folder's name is too long");
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (descriptor < 0) continue;
    int failed = sha256_of(descriptor, digest);
    close(descriptor);
    if (failed) continue;
    hex(digest, text);
    if (strcmp(text, digests[i])) {
      unlink(path); /* the disk, or somebody, has changed it */
      continue;
    }
    if (answer("have", text)) return EXIT_OUTPUT;
  }
  return 0;
}

/* One line of standard input without reading beyond it; 1 read, 0 at the end, -1 when it is cut. */
static int next_line(char line[MAX_LINE]) {
  for (size_t used = 0; used < MAX_LINE - 1;) {
    ssize_t got = read(STDIN_FILENO, line + used, 1);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return used ? -1 : 0;
    if (line[used] == '\n') {
      line[used] = 0;
      return 1;
    }
    used++;
  }
  return -1;
}

/* Copy `bytes` of standard input; 0, -1 with errno, or 1 when the input ends before. */
static int copy(int descriptor, long long bytes) {
  static char chunk[1 << 16];
  while (bytes > 0) {
    size_t wanted = bytes < (long long)sizeof chunk ? (size_t)bytes : sizeof chunk;
    ssize_t got = read(STDIN_FILENO, chunk, wanted);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return 1;
    if (write_all(descriptor, chunk, (size_t)got)) return -1;
    bytes -= got;
  }
  return 0;
}

static int receive_one(const char *folder, const char *expected, long long bytes, int executable) {
  char path[4096], temporary[4096 + 32], text[HEX + 1];
  uint8_t digest[32];
  if (snprintf(path, sizeof path, "%s/%s", folder, expected) >= (int)sizeof path)
    return board_refuse("the folder's name is too long");
  snprintf(temporary, sizeof temporary, "%s/.%s.%ld", folder, expected, (long)getpid());
  unlink(temporary);
  int descriptor = open(temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, executable ? 0700 : 0600);
  if (descriptor < 0) return board_refuse("%.300s: %s", temporary, strerror(errno));
  int status = copy(descriptor, bytes);
  /* what lies on the disk is what is checked; a full disk may show only now */
  if (!status && (fsync(descriptor) || lseek(descriptor, 0, SEEK_SET))) status = -1;
  if (!status && sha256_of(descriptor, digest)) status = -1;
  int error = errno;
  if (close(descriptor) && !status) status = -1, error = errno;
  if (!status) {
    hex(digest, text);
    if (strcmp(text, expected)) {
      unlink(temporary);
      return board_refuse("a file came with another digest");
    }
    if (rename(temporary, path)) status = -1, error = errno;
  }
  if (status) unlink(temporary);
  if (status < 0) return board_refuse("a file cannot be written: %s", strerror(error));
  if (status > 0) return EXIT_CUT;
  return answer("received", expected) ? EXIT_OUTPUT : 0;
}

int board_receive(const char *folder) {
  char line[MAX_LINE], digest[HEX + 1], mode;
  long long bytes;
  int got;
  while ((got = next_line(line)) == 1) {
    if (sscanf(line, "%64s %lld %c", digest, &bytes, &mode) != 3 || !is_digest(digest) ||
        bytes < 0 || bytes > MAX_BYTES || (mode != 'x' && mode != '-'))
      return board_refuse("not the head of a file: %.80s", line);
    int status = receive_one(folder, digest, bytes, mode == 'x');
    if (status) return status;
  }
  return got < 0 ? EXIT_CUT : 0;
}
