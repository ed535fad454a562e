/* One inference runtime behind a few calls; see runtime_litert.c, runtime_onnx.c, runtime_tvm.c.
 *
 * Every call that can fail returns 0, or -1 after fault(). A process loads one model and exits, so
 * that nothing is ever unloaded. */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { MAX_RANK = 8, MAX_TENSORS = 8 };

enum element { ELEMENT_FLOAT32, ELEMENT_INT8, ELEMENT_UINT8 };

struct tensor {
  void *handle; /* the runtime's own */
  void *data;   /* valid between map() and unmap() */
  size_t bytes;
  enum element element;
  int rank;
  int64_t shape[MAX_RANK];
  char *name; /* only where the runtime binds by name */
};

struct model {
  void *handle;
  struct tensor inputs[MAX_TENSORS], outputs[MAX_TENSORS];
  size_t input_count, output_count;
  int fully_accelerated; /* 1 yes, 0 no, -1 the runtime does not say */
};

struct runtime_options {
  int threads;
  const char *kernels; /* "delegate" or "builtin", LiteRT only */
};

struct runtime {
  const char *name;
  const char *probe; /* a symbol by which the library is recognised */
  const char *(*version)(void *library);
  int (*init)(void *library, const struct runtime_options *options);
  int (*load)(const char *path, struct model *model);
  int (*invoke)(struct model *model);
  int (*map)(struct tensor *tensor, int for_writing);
  int (*unmap)(struct tensor *tensor);
};

extern const struct runtime litert_runtime, onnx_runtime, tvm_runtime;
