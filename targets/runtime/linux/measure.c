#define _GNU_SOURCE
#include "measure.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "fault.h"
#include "markers.h"
#include "state.h"
#include "watch.h"
#include "yardstick.h"

/* The model is opened here and named to the runtime by this descriptor: a path of constant length
 * keeps the runtime's heap the same for every model file. */
enum { MODEL_DESCRIPTOR = 100 };
#define MODEL_PATH "/proc/self/fd/100"

enum { LINE_BYTES = 64 };
static const double WARM_AGREEMENT = 0.02; /* the last two batches of a warm-up agree within this */

static double samples_ns[MAX_SAMPLES];
static volatile unsigned char sink;

struct sweep {
  volatile unsigned char *data; /* larger than the private caches; NULL when emulated or warm */
  size_t bytes;
};

static int64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000ll + time.tv_nsec;
}

static const char *element_name(enum element element) {
  return element == ELEMENT_FLOAT32 ? "float32" : element == ELEMENT_INT8 ? "int8" : "uint8";
}

/* A fixed pattern: [-1, 1) for float32, [-64, 64) around the middle for the integers. */
static void fill(struct tensor *tensor) {
  uint32_t state = 12345;
  if (tensor->element == ELEMENT_FLOAT32) {
    float *values = tensor->data;
    for (size_t i = 0; i < tensor->bytes / sizeof *values; i++) {
      state = state * 1664525u + 1013904223u;
      values[i] = (float)(int32_t)state / 2147483648.0f;
    }
    return;
  }
  uint8_t *values = tensor->data;
  uint8_t middle = tensor->element == ELEMENT_UINT8 ? 128 : 0;
  for (size_t i = 0; i < tensor->bytes; i++) {
    state = state * 1664525u + 1013904223u;
    values[i] = (uint8_t)((int32_t)state >> 25) + middle;
  }
}

/* Fill `tensor` from a file that must have exactly its size. */
static int fill_from(struct tensor *tensor, const char *path) {
  int descriptor = open(path, O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return fault("cannot open the input %s: %s", path, strerror(errno));
  size_t filled = 0;
  char extra;
  while (filled < tensor->bytes) {
    ssize_t got = read(descriptor, (char *)tensor->data + filled, tensor->bytes - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fault("cannot read the input %s: %s", path, strerror(errno));
    if (got == 0) break;
    filled += (size_t)got;
  }
  if (filled < tensor->bytes || read(descriptor, &extra, 1) != 0)
    return fault("the input %s has not the %zu bytes that the model takes", path, tensor->bytes);
  close(descriptor);
  return 0;
}

static int prepare_inputs(const struct runtime *runtime, const struct job *job,
                          struct model *model) {
  for (size_t i = 0; i < model->input_count; i++) {
    struct tensor *tensor = &model->inputs[i];
    if (runtime->map(tensor, 1)) return -1;
    if (i == 0 && job->input[0]) {
      if (fill_from(tensor, job->input)) return -1;
    } else {
      fill(tensor);
    }
    if (runtime->unmap(tensor)) return -1;
  }
  return 0;
}

static int write_output(const struct runtime *runtime, const char *path, struct tensor *tensor) {
  int descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor < 0) return fault("cannot create the output %s: %s", path, strerror(errno));
  if (runtime->map(tensor, 0)) return -1;
  /* a full disk may show only when the file is closed */
  if (write_all(descriptor, tensor->data, tensor->bytes) || close(descriptor))
    return fault("cannot write the output %s: %s", path, strerror(errno));
  return runtime->unmap(tensor);
}

static int load(const struct runtime *runtime, const struct job *job, struct model *model) {
  int descriptor = open(job->model, O_RDONLY);
  if (descriptor < 0) return fault("cannot open %s: %s", job->model, strerror(errno));
  if (dup2(descriptor, MODEL_DESCRIPTOR) < 0) return fault("dup2: %s", strerror(errno));
  close(descriptor);
  if (runtime->load(MODEL_PATH, model)) return -1;
  if (!model->input_count || !model->output_count)
    return fault("the model has no input or no output");
  return 0;
}

/* Push the weights out of the caches and bring the inputs in: the state in which a block finds the
 * caches inside a network. */
static int make_cold(const struct runtime *runtime, struct model *model,
                     const struct sweep *sweep) {
  for (size_t i = 0; sweep->data && i < sweep->bytes; i += LINE_BYTES) sink += sweep->data[i];
  MARK_FLUSH();
  MARK_TOUCH();
  for (size_t i = 0; i < model->input_count; i++) {
    struct tensor *tensor = &model->inputs[i];
    if (runtime->map(tensor, 0)) return -1;
    const volatile unsigned char *bytes = tensor->data;
    for (size_t k = 0; k < tensor->bytes; k += 16) sink += bytes[k];
    if (runtime->unmap(tensor)) return -1;
  }
  return 0;
}

/* Invoke `count` times; the time of one of them, in ns, or -1 after fault(). */
static double timed_batch(const struct runtime *runtime, struct model *model, int64_t count) {
  int64_t begin = now_ns();
  for (int64_t i = 0; i < count; i++) {
    MARK_ON();
    int status = runtime->invoke(model);
    MARK_OFF();
    if (status) return -1;
  }
  return (double)(now_ns() - begin) / (double)count;
}

/* Untimed invokes: as many as asked for and, on real hardware, in batches that double until the
 * time is over and two batches agree. `invoke_ns` receives the last batch's time of one invoke. */
static int warm_up(const struct runtime *runtime, struct model *model, const struct job *job,
                   int emulated, double *invoke_ns) {
  int64_t begin = now_ns();
  for (long i = 0; i < job->warmups; i++)
    if (runtime->invoke(model)) return -1;
  *invoke_ns = job->warmups ? (double)(now_ns() - begin) / (double)job->warmups : 0;
  if (emulated || !job->warmup_ns) return 0;
  double previous = 0;
  for (int64_t count = 1;; count *= 2) {
    int64_t batch = now_ns();
    for (int64_t i = 0; i < count; i++)
      if (runtime->invoke(model)) return -1;
    int64_t end = now_ns();
    *invoke_ns = (double)(end - batch) / (double)count;
    double change = previous > 0 ? *invoke_ns / previous - 1 : 1;
    int steady = change < WARM_AGREEMENT && change > -WARM_AGREEMENT;
    if (end - begin >= (steady ? 1 : 4) * job->warmup_ns) return 0;
    previous = *invoke_ns;
  }
}

/* Invokes of one sample: more than one only where MAX_SAMPLES single ones would not fill min_ns. */
static int64_t batch_size(const struct job *job, double invoke_ns) {
  if (job->cold || job->watch || invoke_ns <= 0) return 1;
  double needed = (double)job->min_ns / (invoke_ns * (MAX_SAMPLES / 2));
  return needed > 1 ? (int64_t)needed + 1 : 1;
}

static void report_tensor(struct report *report, const char *key, const struct tensor *tensor) {
  report_add(report, "\"%s\":{\"bytes\":%zu,\"type\":\"%s\",\"shape\":[", key, tensor->bytes,
             element_name(tensor->element));
  for (int i = 0; i < tensor->rank; i++)
    report_add(report, "%s%lld", i ? "," : "", (long long)tensor->shape[i]);
  report_add(report, "]},");
}

int measure(const struct runtime *runtime, const struct job *job,
            const struct measure_options *options, struct report *report) {
  static struct model model;
  static struct device_state before, after;
  static struct watch watch;
  double yardsticks[2] = {0, 0};
  struct rusage usage;
  struct sweep sweep = {NULL, 0};
  if (!options->emulated) {
    state_read(&before, options->cpu);
    yardsticks[0] = yardstick_ns();
  }

  int64_t load_begin = now_ns();
  if (load(runtime, job, &model)) return -1;
  int64_t load_ns = now_ns() - load_begin;
  if (prepare_inputs(runtime, job, &model)) return -1;
  if (job->cold && !options->emulated) {
    sweep.bytes = 2 * private_cache_bytes(options->cpu);
    void *memory = mmap(NULL, sweep.bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED) return fault("no memory to sweep the caches: %s", strerror(errno));
    memset(memory, 1, sweep.bytes); /* distinct pages, not the zero page */
    sweep.data = memory;
  }

  double invoke_ns = 0;
  MARK_RESET();
  MARK_TOUCH();
  if (warm_up(runtime, &model, job, options->emulated, &invoke_ns)) return -1;
  int64_t per_sample = options->emulated ? 1 : batch_size(job, invoke_ns);
  int64_t min_ns = options->emulated ? 0 : job->min_ns;
  long samples = 0;
  getrusage(RUSAGE_SELF, &usage);
  long preemptions = usage.ru_nivcsw;
  if (job->watch) watch_begin(&watch, job->runs);
  for (double spent = 0;
       samples < MAX_SAMPLES && (samples < job->runs || spent < (double)min_ns);) {
    if (job->cold && make_cold(runtime, &model, &sweep)) return -1;
    double sample = timed_batch(runtime, &model, per_sample);
    if (sample < 0) return -1;
    if (job->watch && watch_invoke(&watch, runtime, &model.outputs[0])) return -1;
    samples_ns[samples++] = sample;
    spent += sample * (double)per_sample;
  }
  getrusage(RUSAGE_SELF, &usage);
  preemptions = usage.ru_nivcsw - preemptions;
  if (!options->emulated) {
    yardsticks[1] = yardstick_ns();
    state_read(&after, options->cpu);
  }
  if (job->output[0] && write_output(runtime, job->output, &model.outputs[0])) return -1;

  report_add(report, "\"load_ns\":%lld,\"regions\":%lld,\"invokes_per_sample\":%lld,",
             (long long)load_ns, (long long)(samples * per_sample), (long long)per_sample);
  report_add(report, "\"fully_accelerated\":%s,",
             model.fully_accelerated < 0 ? "null"
             : model.fully_accelerated   ? "true"
                                         : "false");
  report_tensor(report, "input", &model.inputs[0]);
  report_tensor(report, "output", &model.outputs[0]);
  if (!options->emulated) {
    getrusage(RUSAGE_SELF, &usage);
    report_add(report, "\"preemptions\":%ld,", preemptions);
    report_add(report, "\"peak_rss_bytes\":%lld,\"before\":", (long long)usage.ru_maxrss * 1024);
    state_report(report, &before);
    report_add(report, ",\"after\":");
    state_report(report, &after);
    report_add(report, ",\"yardstick_ns\":[%.1f,%.1f],", yardsticks[0], yardsticks[1]);
  }
  if (job->watch) watch_report(report, &watch);
  report_add(report, "\"samples_ns\":[");
  for (long i = 0; i < samples; i++) report_add(report, "%s%.1f", i ? "," : "", samples_ns[i]);
  report_add(report, "]");
  return 0;
}
