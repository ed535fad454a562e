#define _GNU_SOURCE
/* One user on a board at a time, and its clock at one speed meanwhile.
 *
 *   {"event":"waiting","owner":...,"age_s":N}    somebody else measures; again every ten seconds
 *   {"event":"kept","pinned":B,"note":...}       the board is ours until this process ends
 *   {"event":"released","restored":B}            after the end of standard input
 *
 * The lock is the kernel's (flock): it is free when its owner is gone, however that ended. The
 * caller must be heard on standard input; after its end, or a silence, we end too. A child that
 * nothing but the end of its parent wakes puts clocks and governors back, so that a killed parent
 * leaves no trace; what it has to put back is also in a file, for the next one to do should even
 * the child be killed. LOCK.busy is held (shared) by every runner: a lock is not ours before the
 * runners of earlier owners have ended. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "board.h"

enum { MAX_POLICIES = 256, TRY_MS = 200, TELL_MS = 10000, MAX_OWNER = 200 };

struct setting {
  int policy; /* -1: none */
  char governor[32];
  long min_khz;
};

static struct setting saved[MAX_POLICIES];
static int saved_count;
static char saved_path[4096];
static volatile sig_atomic_t stopped;
static struct report report;

static void stop(int number) {
  (void)number;
  stopped = 1;
}

static int64_t now_ms(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000ll + time.tv_nsec / 1000000;
}

/* Open a file in a folder where everybody may write: never through a link, for everybody. */
static int open_shared(const char *path) {
  int descriptor = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (descriptor >= 0 || errno != ENOENT) return descriptor;
  descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (descriptor >= 0) {
    fchmod(descriptor, 0666); /* whatever the umask */
    return descriptor;
  }
  return errno == EEXIST ? open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW) : -1;
}

/* 1 the caller is there, 0 it is gone or silent. */
static int heard(int64_t *last_ms, int silence_s, int wait_ms) {
  char bytes[256];
  struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
  int ready = poll(&input, 1, wait_ms);
  if (stopped) return 0;
  if (ready > 0) {
    if (read(STDIN_FILENO, bytes, sizeof bytes) <= 0) return 0;
    *last_ms = now_ms();
  }
  return now_ms() - *last_ms < silence_s * 1000ll;
}

static int refused(const char *what, const char *path) {
  return board_refuse("%s %.300s: %s", what, path, strerror(errno));
}

static int tell_waiting(int descriptor) {
  char owner[MAX_OWNER + 1];
  struct stat status;
  ssize_t got = pread(descriptor, owner, MAX_OWNER, 0);
  double age = fstat(descriptor, &status) ? -1 : (double)(time(NULL) - status.st_mtime);
  report_reset(&report);
  report_add(&report, "{\"event\":\"waiting\",\"owner\":");
  report_string(&report, owner, got > 0 ? (size_t)got : 0);
  report_add(&report, ",\"age_s\":%.0f", age < 0 ? 0 : age);
  return board_emit(&report);
}

/* 1 the lock is ours, 0 the caller went away, -1 refused. */
static int wait_for(int descriptor, int owner, int64_t *last_ms, int silence_s) {
  int64_t told_ms = -TELL_MS;
  while (flock(descriptor, LOCK_EX | LOCK_NB)) {
    if (errno != EWOULDBLOCK && errno != EINTR) return -1;
    if (now_ms() - told_ms >= TELL_MS) {
      if (tell_waiting(owner)) return 0;
      told_ms = now_ms();
    }
    if (!heard(last_ms, silence_s, TRY_MS)) return 0;
  }
  return 1;
}

static int set(int policy, const char *name, const char *value) {
  char path[512];
  snprintf(path, sizeof path, "%s/sys/devices/system/cpu/cpufreq/policy%d/%s", board_root, policy,
           name);
  int descriptor = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
  if (descriptor < 0) return -1;
  int status = write_all(descriptor, value, strlen(value));
  int error = errno;
  close(descriptor);
  errno = error;
  return status;
}

static int put_back(void) {
  char number[32];
  int status = 0;
  for (int i = 0; i < saved_count; i++) {
    snprintf(number, sizeof number, "%ld", saved[i].min_khz);
    if (saved[i].min_khz > 0) status |= set(saved[i].policy, "scaling_min_freq", number);
    if (saved[i].governor[0]) status |= set(saved[i].policy, "scaling_governor", saved[i].governor);
  }
  if (!status) unlink(saved_path);
  return status;
}

static int is_governor(const char *name) {
  size_t length = strlen(name);
  for (size_t i = 0; i < length; i++)
    if (!isalnum((unsigned char)name[i]) && name[i] != '_') return 0;
  return length > 0;
}

static void read_settings(void) {
  static char text[256];
  const char *base = "/sys/devices/system/cpu/cpufreq/policy%d/%s";
  saved_count = 0;
  for (int i = 0; i < MAX_POLICIES; i++) {
    struct setting *setting = &saved[saved_count];
    if (board_slurp(text, sizeof text, base, i, "scaling_governor") <= 0) continue;
    text[strcspn(text, "\n")] = 0;
    if (!is_governor(text) || strlen(text) >= sizeof setting->governor) continue;
    setting->policy = i;
    snprintf(setting->governor, sizeof setting->governor, "%.31s", text);
    setting->min_khz = (long)board_number(0, base, i, "scaling_min_freq");
    saved_count++;
  }
}

/* The boot that settings belong to: another one has put everything back already. */
static void boot_id(char id[64]) {
  memset(id, 0, 64);
  int descriptor = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  if (descriptor >= 0) {
    ssize_t got = read(descriptor, id, 63);
    (void)got;
    close(descriptor);
  }
  id[strcspn(id, "\n")] = 0;
}

static int write_settings(void) {
  char id[64], line[128];
  boot_id(id);
  unlink(saved_path);
  int descriptor =
      open(saved_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (descriptor < 0) return -1;
  snprintf(line, sizeof line, "boot %s\n", id);
  int status = write_all(descriptor, line, strlen(line));
  for (int i = 0; i < saved_count && !status; i++) {
    snprintf(line, sizeof line, "%d %s %ld\n", saved[i].policy, saved[i].governor,
             saved[i].min_khz);
    status = write_all(descriptor, line, strlen(line));
  }
  status |= fsync(descriptor);
  return close(descriptor) | status;
}

/* What an earlier owner could not put back. The file is believed only where it is our own user's. */
static void put_back_leftover(void) {
  char id[64], line[128], *save = NULL;
  static char text[1 << 14];
  struct stat status;
  int descriptor = open(saved_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (descriptor < 0) return;
  ssize_t got = fstat(descriptor, &status) || status.st_uid != geteuid() || !S_ISREG(status.st_mode)
                    ? -1
                    : read(descriptor, text, sizeof text - 1);
  close(descriptor);
  if (got <= 0) return;
  text[got] = 0;
  boot_id(id);
  snprintf(line, sizeof line, "boot %s", id);
  char *first = strtok_r(text, "\n", &save);
  if (!first || strcmp(first, line)) {
    unlink(saved_path);
    return;
  }
  saved_count = 0;
  for (char *next; (next = strtok_r(NULL, "\n", &save)) && saved_count < MAX_POLICIES;) {
    struct setting *setting = &saved[saved_count];
    if (sscanf(next, "%d %31s %ld", &setting->policy, setting->governor, &setting->min_khz) == 3 &&
        is_governor(setting->governor))
      saved_count++;
  }
  put_back();
  saved_count = 0;
}

/* All clocks at their highest; a reason where this is not allowed. */
static const char *pin_clocks(void) {
  static char reason[160];
  read_settings();
  if (!saved_count) return "the board has no clock governor";
  if (write_settings()) return "the settings to put back cannot be kept";
  for (int i = 0; i < saved_count; i++) {
    char most[32];
    snprintf(most, sizeof most, "%.0f",
             board_number(0, "/sys/devices/system/cpu/cpufreq/policy%d/scaling_max_freq",
                          saved[i].policy));
    if (set(saved[i].policy, "scaling_governor", "performance") ||
        (most[0] != '0' && set(saved[i].policy, "scaling_min_freq", most))) {
      snprintf(reason, sizeof reason, "the governor cannot be set: %s", strerror(errno));
      put_back();
      saved_count = 0;
      return reason;
    }
  }
  return NULL;
}

/* The child: waits for the parent's end, then puts back. Exit status 0 when all is as it was. */
static pid_t guard(int *parent_end) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC)) return -1;
  pid_t pid = fork();
  if (pid) {
    close(ends[0]);
    *parent_end = ends[1];
    return pid;
  }
  char byte;
  setsid(); /* a signal to the caller's group is not for us */
  for (int number = 1; number < 32; number++) signal(number, SIG_IGN);
  close(ends[1]);
  close(STDIN_FILENO), close(STDOUT_FILENO), close(STDERR_FILENO);
  while (read(ends[0], &byte, 1) < 0 && errno == EINTR) continue;
  _exit(put_back() ? 1 : 0);
}

int board_keep(const char *lock, const char *who, int pin, int silence_s) {
  static char busy_path[4096], owner[MAX_OWNER];
  struct sigaction action = {.sa_handler = stop};
  int64_t last_ms = now_ms();
  for (size_t i = 0; i < 3; i++) sigaction((int[]){SIGTERM, SIGHUP, SIGINT}[i], &action, NULL);
  signal(SIGPIPE, SIG_IGN);
  if (snprintf(busy_path, sizeof busy_path, "%s.busy", lock) >= (int)sizeof busy_path ||
      snprintf(saved_path, sizeof saved_path, "%s.saved", lock) >= (int)sizeof saved_path)
    return errno = ENAMETOOLONG, refused("cannot use", lock);
  int held = open_shared(lock), busy = open_shared(busy_path);
  if (held < 0 || busy < 0) return refused("cannot open the lock", lock);
  int got = wait_for(held, held, &last_ms, silence_s);
  if (got == 1) got = wait_for(busy, held, &last_ms, silence_s);
  if (got < 0) return refused("cannot lock", lock);
  if (got == 0) return 0;
  flock(busy, LOCK_UN);

  put_back_leftover();
  int length = snprintf(owner, sizeof owner, "%.150s, process %ld", who, (long)getpid());
  if (ftruncate(held, 0) || pwrite(held, owner, (size_t)length, 0) != length)
    return refused("cannot write to", lock);
  const char *note = pin ? pin_clocks() : "not asked for";
  int parent_end = -1;
  pid_t child = note ? 0 : guard(&parent_end);
  if (child < 0) {
    note = "no process to put the clocks back";
    put_back();
  }
  report_reset(&report);
  report_add(&report, "{\"event\":\"kept\",\"pinned\":%s,\"note\":", note ? "false" : "true");
  report_string(&report, note ? note : "", note ? strlen(note) : 0);
  int lost = board_emit(&report);
  while (!lost && heard(&last_ms, silence_s, 1000)) continue;

  int status = 0;
  if (child > 0) {
    close(parent_end);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  }
  report_reset(&report);
  report_add(&report, "{\"event\":\"released\",\"restored\":%s", status ? "false" : "true");
  board_emit(&report);
  return 0;
}
