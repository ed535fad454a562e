#include "job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fault.h"

enum { MAX_LINE = MAX_PATH + 32 };

static char buffer[1 << 16];
static size_t filled, position;

static int next_byte(void) {
  if (position == filled) {
    ssize_t got;
    do got = read(STDIN_FILENO, buffer, sizeof buffer);
    while (got < 0 && errno == EINTR);
    if (got < 0) return fault("cannot read the job list: %s", strerror(errno)), -2;
    if (got == 0) return -1;
    filled = (size_t)got, position = 0;
  }
  return (unsigned char)buffer[position++];
}

/* 1 a line (without its end), 0 the end of the list, -1 after fault(). */
static int next_line(char *line) {
  size_t length = 0;
  for (;;) {
    int byte = next_byte();
    if (byte == -2) return -1;
    if (byte == -1 && length == 0) return 0;
    if (byte == -1 || byte == '\n') {
      line[length] = 0;
      return 1;
    }
    if (byte == 0) return fault("a zero byte in the job list");
    if (length == MAX_LINE - 1) return fault("a line of the job list is longer than %d", MAX_LINE);
    line[length++] = (char)byte;
  }
}

static int number(const char *key, const char *text, int64_t maximum, int64_t *value) {
  char *end;
  errno = 0;
  long long parsed = strtoll(text, &end, 10);
  if (errno || end == text || *end || parsed < 0 || parsed > maximum)
    return fault("%s must be a number from 0 to %lld, not %.32s", key, (long long)maximum, text);
  *value = parsed;
  return 0;
}

static int path(const char *key, const char *text, char *target) {
  size_t length = strlen(text);
  if (length == 0 || length >= MAX_PATH)
    return fault("%s needs a path shorter than %d", key, MAX_PATH);
  memcpy(target, text, length + 1);
  return 0;
}

static int set(struct job *job, const char *key, const char *text) {
  const int64_t hour_ns = 3600ll * 1000000000ll;
  int64_t value = 0;
  if (!strcmp(key, "model")) return path(key, text, job->model);
  if (!strcmp(key, "input")) return path(key, text, job->input);
  if (!strcmp(key, "output")) return path(key, text, job->output);
  if (!strcmp(key, "min_ns")) return number(key, text, hour_ns, &job->min_ns);
  if (!strcmp(key, "warmup_ns")) return number(key, text, hour_ns, &job->warmup_ns);
  if (!strcmp(key, "timeout_ms")) return number(key, text, 24ll * 3600 * 1000, &job->timeout_ms);
  if (!strcmp(key, "warmups")) {
    if (number(key, text, 1000000, &value)) return -1;
    job->warmups = (long)value;
    return 0;
  }
  if (!strcmp(key, "runs")) {
    if (number(key, text, MAX_SAMPLES, &value)) return -1;
    job->runs = (long)value;
    return 0;
  }
  if (!strcmp(key, "cold")) {
    if (number(key, text, 1, &value)) return -1;
    job->cold = (int)value;
    return 0;
  }
  if (!strcmp(key, "watch")) {
    if (number(key, text, 1, &value)) return -1;
    job->watch = (int)value;
    return 0;
  }
  return fault("unknown key %.32s in the job list", key);
}

int job_read(struct job *job) {
  static char line[MAX_LINE];
  int lines = 0, got;
  memset(job, 0, sizeof *job);
  job->warmups = job->runs = 1;
  job->timeout_ms = 120000;
  while ((got = next_line(line)) == 1) {
    if (!line[0]) {
      if (lines) break;
      continue;
    }
    char *value = strchr(line, ' ');
    if (!value) return fault("a line of the job list without a value: %.32s", line);
    *value++ = 0;
    if (set(job, line, value)) return -1;
    lines++;
  }
  if (got < 0) return -1;
  if (!lines) return 0;
  if (!job->model[0]) return fault("a job without a model");
  if (job->runs < 1 || job->timeout_ms < 1) return fault("a job needs runs and timeout_ms above 0");
  return 1;
}
