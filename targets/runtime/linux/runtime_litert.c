/* libLiteRt.so 2.x. The wheel ships no headers: the prototypes of its public C API are declared
 * here, checked with 2.3.0. Every LiteRt handle is an opaque pointer. */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "fault.h"
#include "runtime.h"

typedef void *handle;

struct ranked_type {
  int32_t element;
  uint32_t rank : 7, has_strides : 1;
  int32_t dimensions[8];
  uint32_t strides[8];
};

enum { ACCELERATOR_CPU = 1, LOCK_READ = 0, LOCK_WRITE = 1, TYPE_FLOAT32 = 1, TYPE_INT8 = 9 };

#define API(F)                                                                    \
  F(CreateEnvironment, (int, const void *, handle *))                             \
  F(CreateModelFromFile, (handle, const char *, handle *))                        \
  F(CreateOptions, (handle *))                                                    \
  F(SetOptionsHardwareAccelerators, (handle, int))                                \
  F(CreateOpaqueOptions, (const char *, void *, void (*)(void *), handle *))      \
  F(AddOpaqueOptions, (handle, handle))                                           \
  F(CreateCompiledModel, (handle, handle, handle, handle *))                      \
  F(GetNumModelSignatures, (handle, size_t *))                                    \
  F(GetModelSignature, (handle, size_t, handle *))                                \
  F(GetNumSignatureInputs, (handle, size_t *))                                    \
  F(GetNumSignatureOutputs, (handle, size_t *))                                   \
  F(GetSignatureInputTensorByIndex, (handle, size_t, handle *))                   \
  F(GetSignatureOutputTensorByIndex, (handle, size_t, handle *))                  \
  F(GetRankedTensorType, (handle, struct ranked_type *))                          \
  F(GetCompiledModelInputBufferRequirements, (handle, size_t, size_t, handle *))  \
  F(GetCompiledModelOutputBufferRequirements, (handle, size_t, size_t, handle *)) \
  F(CreateManagedTensorBufferFromRequirements,                                    \
    (handle, const struct ranked_type *, handle, handle *))                       \
  F(GetTensorBufferPackedSize, (handle, size_t *))                                \
  F(LockTensorBuffer, (handle, void **, int))                                     \
  F(UnlockTensorBuffer, (handle))                                                 \
  F(RunCompiledModel, (handle, size_t, size_t, handle *, size_t, handle *))       \
  F(CompiledModelIsFullyAccelerated, (handle, bool *))

#define DECLARE(name, arguments) static int(*name) arguments;
API(DECLARE)

#define TRY(call)                                                           \
  do {                                                                      \
    int status_ = (call);                                                   \
    if (status_) return fault("LiteRt: %s gave status %d", #call, status_); \
  } while (0)

static handle environment;
static char cpu_options[96]; /* a TOML text: LiteRT's own format for them */
static handle input_buffers[MAX_TENSORS], output_buffers[MAX_TENSORS];

static void keep(void *unused) { (void)unused; }

/* The library has no call that tells its version; the caller knows it from the package. */
static const char *version(void *library) {
  (void)library;
  return "";
}

static int init(void *library, const struct runtime_options *options) {
#define RESOLVE(name, arguments)                           \
  if (!(*(void **)&name = dlsym(library, "LiteRt" #name))) \
    return fault("the library lacks LiteRt" #name ": not a LiteRT 2.x");
  API(RESOLVE)
  snprintf(cpu_options, sizeof cpu_options, "kernel_mode = \"%s\"\nnum_threads = %d\n",
           options->kernels, options->threads);
  TRY(CreateEnvironment(0, NULL, &environment));
  return 0;
}

static int describe(handle type_of, handle requirements, handle *buffer, struct tensor *tensor) {
  struct ranked_type type;
  memset(&type, 0, sizeof type);
  TRY(GetRankedTensorType(type_of, &type));
  if (type.rank > MAX_RANK) return fault("a tensor of rank %u", (unsigned)type.rank);
  tensor->rank = (int)type.rank;
  for (unsigned i = 0; i < type.rank; i++) {
    if (type.dimensions[i] < 0) type.dimensions[i] = 1; /* a dynamic batch */
    tensor->shape[i] = type.dimensions[i];
  }
  if (type.element == TYPE_FLOAT32)
    tensor->element = ELEMENT_FLOAT32;
  else if (type.element == TYPE_INT8)
    tensor->element = ELEMENT_INT8;
  else
    return fault("an input or output of LiteRT type %d; float32 and int8 are known",
                 (int)type.element);
  TRY(CreateManagedTensorBufferFromRequirements(environment, &type, requirements, buffer));
  TRY(GetTensorBufferPackedSize(*buffer, &tensor->bytes));
  tensor->handle = *buffer;
  return 0;
}

static int load(const char *path, struct model *model) {
  handle file, options, opaque, compiled, signature, tensor, requirements;
  size_t signatures = 0;
  TRY(CreateModelFromFile(environment, path, &file));
  TRY(CreateOptions(&options));
  TRY(SetOptionsHardwareAccelerators(options, ACCELERATOR_CPU));
  TRY(CreateOpaqueOptions("xnnpack", cpu_options, keep, &opaque));
  TRY(AddOpaqueOptions(options, opaque));
  TRY(CreateCompiledModel(environment, file, options, &compiled));
  TRY(GetNumModelSignatures(file, &signatures));
  if (!signatures) return fault("the model has no signature");
  TRY(GetModelSignature(file, 0, &signature));
  TRY(GetNumSignatureInputs(signature, &model->input_count));
  TRY(GetNumSignatureOutputs(signature, &model->output_count));
  if (model->input_count > MAX_TENSORS || model->output_count > MAX_TENSORS)
    return fault("more than %d inputs or outputs", MAX_TENSORS);
  for (size_t i = 0; i < model->input_count; i++) {
    TRY(GetSignatureInputTensorByIndex(signature, i, &tensor));
    TRY(GetCompiledModelInputBufferRequirements(compiled, 0, i, &requirements));
    if (describe(tensor, requirements, &input_buffers[i], &model->inputs[i])) return -1;
  }
  for (size_t i = 0; i < model->output_count; i++) {
    TRY(GetSignatureOutputTensorByIndex(signature, i, &tensor));
    TRY(GetCompiledModelOutputBufferRequirements(compiled, 0, i, &requirements));
    if (describe(tensor, requirements, &output_buffers[i], &model->outputs[i])) return -1;
  }
  bool accelerated = false;
  TRY(CompiledModelIsFullyAccelerated(compiled, &accelerated));
  model->fully_accelerated = accelerated;
  model->handle = compiled;
  return 0;
}

static int invoke(struct model *model) {
  TRY(RunCompiledModel(model->handle, 0, model->input_count, input_buffers, model->output_count,
                       output_buffers));
  return 0;
}

static int map(struct tensor *tensor, int for_writing) {
  TRY(LockTensorBuffer(tensor->handle, &tensor->data, for_writing ? LOCK_WRITE : LOCK_READ));
  return 0;
}

static int unmap(struct tensor *tensor) {
  TRY(UnlockTensorBuffer(tensor->handle));
  tensor->data = NULL;
  return 0;
}

const struct runtime litert_runtime = {
    "litert", "LiteRtCreateEnvironment", version, init, load, invoke, map, unmap};
