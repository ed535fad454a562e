/* edgeofa-runner: runs models through a runtime's shared library and reports their times.
 *
 *   edgeofa-runner [--needed PATH] --library PATH [--threads N] [--kernels delegate|builtin]
 *                  [--cpu N] [--emulated] [--lease FILE] [--silence SECONDS] [--root DIR]
 *
 * The library is libLiteRt.so, libonnxruntime.so or libtvm_runtime.so; the last needs another one,
 * libtvm_ffi.so, which lies elsewhere and is loaded before it.
 * FILE is locked (shared) as long as a job may run, so that nobody else begins to measure before;
 * DIR is where the device's state is read, in tests. When nobody reads the results any more, or
 * the other end takes more than SECONDS to give a job or to take a result (a link that froze does
 * neither and does not end), the runner ends, with its job.
 *
 * The job list comes on standard input (see job.h); one JSON line per event goes to standard
 * output:
 *
 *   {"event":"runner","protocol":2,...}             once, when the library is loaded
 *   {"event":"start","job":I,"pid":P}               before a job
 *   {"event":"result","job":I,...}                  its measurement
 *   {"event":"error","job":I,"reason":...}          the runtime or the files refused it
 *   {"event":"crash","job":I,"reason":...}          it ended by a signal
 *   {"event":"timeout","job":I,"reason":...}        it was killed after timeout_ms
 *   {"event":"fatal","reason":...}                  nothing can be run; exit status 2
 *   {"event":"end","jobs":N}                        once, after the last job
 *
 * The parent only loads the library and reads jobs. Each job is a child of its own: a crash or a
 * hang costs that job only, and every job starts from the same process state. Under an emulator
 * with fixed addresses a job's counts therefore do not depend on its place in the list. For the
 * same reason nothing here allocates from the heap between jobs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fault.h"
#include "job.h"
#include "measure.h"
#include "report.h"
#include "runtime.h"
#include "state.h"
#include "virtual_clock.h"

enum { PROTOCOL = 2, LOG_BYTES = 1024 };
enum { EXIT_USAGE = 2, EXIT_OUTPUT = 4 };

static const struct runtime *const runtimes[] = {&litert_runtime, &onnx_runtime, &tvm_runtime};

struct settings {
  const char *library, *needed;
  struct runtime_options runtime;
  struct measure_options measure;
  int pin; /* processor to run on, -1 for any */
};

/* The last bytes that a child wrote to its standard error. */
struct log_tail {
  size_t used;
  char text[LOG_BYTES];
};

static int results = -1; /* where events go: the standard output that the caller gave us */
static struct report event;

/* Seconds that the other end may take to give us a job, or to take a result; 0 for ever. */
static int silence_s;

static void give_up(int number) {
  (void)number;
  _exit(EXIT_OUTPUT);
}

static int send_event(void) {
  alarm((unsigned)silence_s);
  int failed = write_all(results, event.text, event.used);
  alarm(0);
  return failed;
}

static int next_job(struct job *job) {
  alarm((unsigned)silence_s);
  int got = job_read(job);
  alarm(0);
  return got;
}

static void emit(void) {
  report_add(&event, "}\n");
  if (event.overflow) {
    fprintf(stderr, "edgeofa-runner: an event is larger than %d bytes\n", REPORT_BYTES);
    exit(EXIT_OUTPUT);
  }
  if (send_event()) {
    fprintf(stderr, "edgeofa-runner: cannot write results: %s\n", strerror(errno));
    exit(EXIT_OUTPUT);
  }
}

static void begin(const char *name, long job) {
  report_reset(&event);
  report_add(&event, "{\"event\":\"%s\"", name);
  if (job >= 0) report_add(&event, ",\"job\":%ld", job);
}

static void add_reason(const char *reason) {
  report_add(&event, ",\"reason\":");
  report_string(&event, reason, strlen(reason));
}

static int fatal(void) {
  begin("fatal", -1);
  add_reason(fault_reason());
  emit();
  return EXIT_USAGE;
}

static int64_t now_ms(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000ll + time.tv_nsec / 1000000;
}

static int integer(const char *name, const char *text, long low, long high, int *value) {
  char *end;
  long parsed = strtol(text, &end, 10);
  if (end == text || *end || parsed < low || parsed > high)
    return fault("%s must be a number from %ld to %ld", name, low, high);
  *value = (int)parsed;
  return 0;
}

/* A shared lock that we and our jobs hold until the last of us ends. */
static int lease(const char *path) {
  int descriptor = open(path, O_RDWR | O_NOFOLLOW); /* not closed on exec: jobs keep it too */
  if (descriptor < 0 || flock(descriptor, LOCK_SH | LOCK_NB))
    return fault("cannot lock %.300s: %s", path, strerror(errno));
  return 0;
}

static int parse(int argc, char **argv, struct settings *settings) {
  for (int i = 1; i < argc; i++) {
    const char *name = argv[i];
    if (!strcmp(name, "--emulated")) {
      settings->measure.emulated = 1;
      continue;
    }
    if (++i == argc) return fault("%s: unknown, or without its value", name);
    if (!strcmp(name, "--library")) {
      settings->library = argv[i];
    } else if (!strcmp(name, "--needed")) {
      settings->needed = argv[i];
    } else if (!strcmp(name, "--kernels")) {
      settings->runtime.kernels = argv[i];
      if (strcmp(argv[i], "delegate") && strcmp(argv[i], "builtin"))
        return fault("--kernels is delegate or builtin");
    } else if (!strcmp(name, "--lease")) {
      if (lease(argv[i])) return -1;
    } else if (!strcmp(name, "--silence")) {
      if (integer(name, argv[i], 1, 86400, &silence_s)) return -1;
    } else if (!strcmp(name, "--root")) {
      state_root(argv[i]);
    } else if (!strcmp(name, "--threads")) {
      if (integer(name, argv[i], 1, 256, &settings->runtime.threads)) return -1;
    } else if (!strcmp(name, "--cpu")) {
      if (integer(name, argv[i], 0, CPU_SETSIZE - 1, &settings->pin)) return -1;
    } else {
      return fault("unknown option %s", name);
    }
  }
  return settings->library ? 0 : fault("--library is missing");
}

static int pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET((size_t)cpu, &set);
  return sched_setaffinity(0, sizeof set, &set) == 0;
}

/* The child: never returns. Whatever the runtime prints goes to the log, never among the results.
 */
static void child(const struct runtime *runtime, void *library, const struct settings *settings,
                  const struct job *job, long number, pid_t parent, int result_pipe, int log_pipe) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(EXIT_OUTPUT); /* it died before it could be watched */
  dup2(log_pipe, STDERR_FILENO);
  dup2(log_pipe, STDOUT_FILENO);
  int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (nothing >= 0) dup2(nothing, STDIN_FILENO);
  if (settings->measure.emulated) virtual_clock_start();
  begin("result", number);
  report_add(&event, ",");
  if (runtime->init(library, &settings->runtime) ||
      measure(runtime, job, &settings->measure, &event)) {
    begin("error", number);
    add_reason(fault_reason());
  }
  report_add(&event, "}\n");
  int failed = event.overflow || write_all(result_pipe, event.text, event.used);
  _exit(failed);
}

static void log_append(struct log_tail *log, const char *bytes, size_t length) {
  if (length >= LOG_BYTES) {
    bytes += length - LOG_BYTES;
    length = LOG_BYTES;
    log->used = 0;
  }
  if (log->used + length > LOG_BYTES) {
    size_t excess = log->used + length - LOG_BYTES;
    memmove(log->text, log->text + excess, log->used - excess);
    log->used -= excess;
  }
  memcpy(log->text + log->used, bytes, length);
  log->used += length;
}

enum { WHOLE, LATE, UNHEARD };

/* Collect a child's result in `event` and its log until both pipes are closed, the time is up, or
 * nobody reads results any more. */
static int collect(int result_pipe, int log_pipe, int64_t deadline_ms, struct log_tail *log) {
  static char chunk[4096];
  struct pollfd pipes[3] = {{.fd = result_pipe, .events = POLLIN},
                            {.fd = log_pipe, .events = POLLIN},
                            {.fd = results}};
  while (pipes[0].fd >= 0 || pipes[1].fd >= 0) {
    int64_t left = deadline_ms - now_ms();
    if (left <= 0) return LATE;
    if (poll(pipes, 3, left > 1000 ? 1000 : (int)left) <= 0) continue;
    if (pipes[2].revents) return UNHEARD;
    for (int i = 0; i < 2; i++) {
      if (pipes[i].fd < 0 || !pipes[i].revents) continue;
      ssize_t got = read(pipes[i].fd, chunk, sizeof chunk);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0)
        pipes[i].fd = -1; /* poll() passes over negative descriptors */
      else if (i == 1)
        log_append(log, chunk, (size_t)got);
      else if (event.used + (size_t)got < REPORT_BYTES) {
        memcpy(event.text + event.used, chunk, (size_t)got);
        event.used += (size_t)got;
      } else
        event.overflow = 1;
    }
  }
  return WHOLE;
}

static void report_loss(const char *name, long number, const char *reason,
                        const struct log_tail *log) {
  begin(name, number);
  add_reason(reason);
  report_add(&event, ",\"log\":");
  report_string(&event, log->text, log->used);
  emit();
}

static int run_job(const struct runtime *runtime, void *library, const struct settings *settings,
                   const struct job *job, long number) {
  static struct log_tail log;
  static char reason[128];
  int result_pipe[2], log_pipe[2], status = 0;
  log.used = 0;
  if (pipe2(result_pipe, O_CLOEXEC) || pipe2(log_pipe, O_CLOEXEC))
    return fault("pipe: %s", strerror(errno));
  pid_t parent = getpid(), pid = fork();
  if (pid < 0) return fault("fork: %s", strerror(errno));
  if (pid == 0) child(runtime, library, settings, job, number, parent, result_pipe[1], log_pipe[1]);
  close(result_pipe[1]), close(log_pipe[1]);
  begin("start", number);
  report_add(&event, ",\"pid\":%ld", (long)pid);
  emit();

  report_reset(&event);
  int end = collect(result_pipe[0], log_pipe[0], now_ms() + job->timeout_ms, &log);
  if (end != WHOLE) kill(pid, SIGKILL);
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
  close(result_pipe[0]), close(log_pipe[0]);
  if (end == UNHEARD) {
    fprintf(stderr, "edgeofa-runner: nobody reads the results\n");
    exit(EXIT_OUTPUT);
  }

  int whole = !event.overflow && event.used > 1 && event.text[event.used - 1] == '\n';
  if (end == LATE) {
    snprintf(reason, sizeof reason, "no result within %lld ms", (long long)job->timeout_ms);
    report_loss("timeout", number, reason, &log);
  } else if (WIFSIGNALED(status)) {
    snprintf(reason, sizeof reason, "ended by signal %d (%s)", WTERMSIG(status),
             strsignal(WTERMSIG(status)));
    report_loss("crash", number, reason, &log);
  } else if (!whole || WEXITSTATUS(status)) {
    snprintf(reason, sizeof reason, "exit status %d without a result", WEXITSTATUS(status));
    report_loss("crash", number, reason, &log);
  } else if (!strncmp(event.text, "{\"event\":\"error\"", 16)) {
    event.used -= 2; /* reopen the object for the log */
    report_add(&event, ",\"log\":");
    report_string(&event, log.text, log.used);
    emit();
  } else if (send_event()) {
    fprintf(stderr, "edgeofa-runner: cannot write results: %s\n", strerror(errno));
    exit(EXIT_OUTPUT);
  }
  return 0;
}

int main(int argc, char **argv) {
  static struct job job;
  struct settings settings = {NULL, NULL, {1, "delegate"}, {0, 0}, -1};
  signal(SIGPIPE, SIG_IGN); /* a reader that went away is a write error */
  signal(SIGALRM, give_up);
  results = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 10);
  if (results < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0) {
    fprintf(stderr, "edgeofa-runner: no standard output: %s\n", strerror(errno));
    return EXIT_OUTPUT;
  }
  if (parse(argc, argv, &settings)) return fatal();

  if (settings.needed && !dlopen(settings.needed, RTLD_NOW | RTLD_GLOBAL))
    return fault("%s", dlerror()), fatal();
  void *library = dlopen(settings.library, RTLD_NOW | RTLD_GLOBAL);
  if (!library) return fault("%s", dlerror()), fatal();
  const struct runtime *runtime = NULL;
  for (size_t i = 0; i < sizeof runtimes / sizeof *runtimes; i++)
    if (dlsym(library, runtimes[i]->probe)) runtime = runtimes[i];
  if (!runtime) return fault("%s is neither LiteRT, onnxruntime nor TVM's runtime", settings.library), fatal();

  int pinned = settings.pin >= 0 && pin(settings.pin);
  if (pinned) settings.measure.cpu = settings.pin;
  begin("runner", -1);
  report_add(&event, ",\"protocol\":%d,\"runtime\":\"%s\",\"version\":", PROTOCOL, runtime->name);
  const char *version = runtime->version(library);
  report_string(&event, version, strlen(version));
  report_add(&event, ",\"pinned\":%s", pinned ? "true" : "false");
  emit();

  long number = 0;
  int got;
  while ((got = next_job(&job)) == 1)
    if (run_job(runtime, library, &settings, &job, number++)) return fatal();
  if (got < 0) return fatal();
  begin("end", -1);
  report_add(&event, ",\"jobs\":%ld", number);
  emit();
  return 0;
}
