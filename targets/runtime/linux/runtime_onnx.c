#define _GNU_SOURCE
/* libonnxruntime.so. OrtApi is an append-only table of function pointers; the wheel ships no
 * headers, and what is used here lies in the part of version 1, addressed by its index. */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fault.h"
#include "runtime.h"

typedef void *handle;
typedef void (*function)(void);

enum {
  GET_ERROR_MESSAGE = 2,
  CREATE_ENV = 3,
  CREATE_SESSION = 7,
  RUN = 9,
  CREATE_SESSION_OPTIONS = 10,
  SET_GRAPH_OPTIMIZATION_LEVEL = 23,
  SET_INTRA_OP_THREADS = 24,
  SESSION_INPUT_COUNT = 30,
  SESSION_OUTPUT_COUNT = 31,
  SESSION_INPUT_TYPE = 33,
  SESSION_OUTPUT_TYPE = 34,
  SESSION_INPUT_NAME = 36,
  SESSION_OUTPUT_NAME = 37,
  CREATE_TENSOR_WITH_DATA = 49,
  CAST_TO_TENSOR_INFO = 55,
  TENSOR_ELEMENT_TYPE = 60,
  DIMENSIONS_COUNT = 61,
  DIMENSIONS = 62,
  CREATE_CPU_MEMORY_INFO = 69,
  DEFAULT_ALLOCATOR = 78,
  RELEASE_TYPE_INFO = 98
};
enum { TYPE_FLOAT32 = 1, TYPE_UINT8 = 2, TYPE_INT8 = 3 };
enum { LOGGING_ERROR = 3, ALL_OPTIMIZATIONS = 99, ARENA_ALLOCATOR = 1, DEFAULT_MEMORY = 0 };

struct api_base {
  const function *(*get_api)(uint32_t version);
  const char *(*get_version)(void);
};

static const function *api;
static handle environment, memory_info, allocator;
static int intra_op_threads;
static handle input_values[MAX_TENSORS], output_values[MAX_TENSORS];
static const char *input_names[MAX_TENSORS], *output_names[MAX_TENSORS];

#define FUNCTION(index, arguments) ((handle(*) arguments)api[index])

/* Every call returns a status, NULL when all is well. */
static int check(const char *what, handle status) {
  if (!status) return 0;
  const char *(*message)(handle) = (const char *(*)(handle))api[GET_ERROR_MESSAGE];
  return fault("onnxruntime: %s: %s", what, message(status));
}

#define TRY(index, arguments, ...)                                         \
  do {                                                                     \
    if (check(#index, FUNCTION(index, arguments)(__VA_ARGS__))) return -1; \
  } while (0)

static struct api_base *base_of(void *library) {
  struct api_base *(*get)(void);
  *(void **)&get = dlsym(library, "OrtGetApiBase");
  return get();
}

static const char *version(void *library) { return base_of(library)->get_version(); }

static int init(void *library, const struct runtime_options *options) {
  if (!(api = base_of(library)->get_api(1))) return fault("onnxruntime without API version 1");
  /* since 1.29 the official builds report home by default: a thread, a database, and the network,
   * none of which has a place in a measurement */
  if (setenv("ORT_DISABLE_TELEMETRY", "1", 1)) return fault("setenv: %s", strerror(errno));
  intra_op_threads = options->threads;
  TRY(CREATE_ENV, (int, const char *, handle *), LOGGING_ERROR, "edgeofa", &environment);
  TRY(CREATE_CPU_MEMORY_INFO, (int, int, handle *), ARENA_ALLOCATOR, DEFAULT_MEMORY, &memory_info);
  TRY(DEFAULT_ALLOCATOR, (handle *), &allocator);
  return 0;
}

static int describe(handle session, int output, size_t index, struct tensor *tensor) {
  handle type, info;
  int element;
  size_t rank, elements = 1;
  if (output)
    TRY(SESSION_OUTPUT_TYPE, (handle, size_t, handle *), session, index, &type);
  else
    TRY(SESSION_INPUT_TYPE, (handle, size_t, handle *), session, index, &type);
  TRY(CAST_TO_TENSOR_INFO, (handle, handle *), type, &info);
  if (!info) return fault("an input or output that is not a tensor");
  TRY(TENSOR_ELEMENT_TYPE, (handle, int *), info, &element);
  TRY(DIMENSIONS_COUNT, (handle, size_t *), info, &rank);
  if (rank > MAX_RANK) return fault("a tensor of rank %zu", rank);
  TRY(DIMENSIONS, (handle, int64_t *, size_t), info, tensor->shape, rank);
  ((void (*)(handle))api[RELEASE_TYPE_INFO])(type);
  tensor->rank = (int)rank;
  for (size_t i = 0; i < rank; i++) {
    if (tensor->shape[i] < 1) tensor->shape[i] = 1; /* a dynamic batch */
    if (__builtin_mul_overflow(elements, (size_t)tensor->shape[i], &elements))
      return fault("a tensor that does not fit into memory");
  }
  if (element == TYPE_FLOAT32)
    tensor->element = ELEMENT_FLOAT32;
  else if (element == TYPE_INT8)
    tensor->element = ELEMENT_INT8;
  else if (element == TYPE_UINT8)
    tensor->element = ELEMENT_UINT8;
  else
    return fault("an input or output of ONNX type %d; float32, int8 and uint8 are known", element);
  size_t width = element == TYPE_FLOAT32 ? 4 : 1;
  if (elements > SIZE_MAX / 2 / width) return fault("a tensor that does not fit into memory");
  tensor->bytes = elements * width;
  tensor->data = aligned_alloc(64, (tensor->bytes + 63) & ~(size_t)63);
  if (!tensor->data) return fault("no memory for a tensor of %zu bytes", tensor->bytes);
  memset(tensor->data, 0, tensor->bytes);
  TRY(CREATE_TENSOR_WITH_DATA, (handle, void *, size_t, const int64_t *, size_t, int, handle *),
      memory_info, tensor->data, tensor->bytes, tensor->shape, rank, element, &tensor->handle);
  if (output)
    TRY(SESSION_OUTPUT_NAME, (handle, size_t, handle, char **), session, index, allocator,
        &tensor->name);
  else
    TRY(SESSION_INPUT_NAME, (handle, size_t, handle, char **), session, index, allocator,
        &tensor->name);
  return 0;
}

static int load(const char *path, struct model *model) {
  handle options, session;
  TRY(CREATE_SESSION_OPTIONS, (handle *), &options);
  TRY(SET_INTRA_OP_THREADS, (handle, int), options, intra_op_threads);
  TRY(SET_GRAPH_OPTIMIZATION_LEVEL, (handle, int), options, ALL_OPTIMIZATIONS);
  TRY(CREATE_SESSION, (handle, const char *, handle, handle *), environment, path, options,
      &session);
  TRY(SESSION_INPUT_COUNT, (handle, size_t *), session, &model->input_count);
  TRY(SESSION_OUTPUT_COUNT, (handle, size_t *), session, &model->output_count);
  if (model->input_count > MAX_TENSORS || model->output_count > MAX_TENSORS)
    return fault("more than %d inputs or outputs", MAX_TENSORS);
  for (size_t i = 0; i < model->input_count; i++) {
    if (describe(session, 0, i, &model->inputs[i])) return -1;
    input_values[i] = model->inputs[i].handle;
    input_names[i] = model->inputs[i].name;
  }
  for (size_t i = 0; i < model->output_count; i++) {
    if (describe(session, 1, i, &model->outputs[i])) return -1;
    output_values[i] = model->outputs[i].handle;
    output_names[i] = model->outputs[i].name;
  }
  model->fully_accelerated = -1;
  model->handle = session;
  return 0;
}

static int invoke(struct model *model) {
  TRY(RUN,
      (handle, handle, const char *const *, const handle *, size_t, const char *const *, size_t,
       handle *),
      model->handle, NULL, input_names, input_values, model->input_count, output_names,
      model->output_count, output_values);
  return 0;
}

/* The buffers are the runner's own: always mapped. */
static int map(struct tensor *tensor, int for_writing) {
  (void)tensor, (void)for_writing;
  return 0;
}

static int unmap(struct tensor *tensor) {
  (void)tensor;
  return 0;
}

const struct runtime onnx_runtime = {"onnxruntime", "OrtGetApiBase", version, init,
                                     load,          invoke,          map,     unmap};
