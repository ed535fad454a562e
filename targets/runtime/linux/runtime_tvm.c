#define _GNU_SOURCE
/* Libraries that edgeofa's TVM back end makes, on libtvm_runtime.so of TVM 0.27 and libtvm_ffi.so
 * 0.1 below it. What is used of tvm-ffi's C interface is declared here, checked with 0.1.14.post1.
 *
 * Such a library exports two things:
 *
 *   const char edgeofa_interface[]    what it takes and gives, one line each:
 *       edgeofa-tvm 1
 *       input float32 1 224 224 3
 *       output float32 1 1000
 *       operators 53
 *   __tvm_ffi_main                    a packed function of the inputs and outputs in that order,
 *                                     every one a DLTensor whose memory is the caller's */
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fault.h"
#include "runtime.h"

enum { KIND_NONE = 0, KIND_TENSOR = 7, KIND_TEXT = 8 };
enum { CPU = 1, CODE_INT = 0, CODE_UINT = 1, CODE_FLOAT = 2 };
enum { MAX_INTERFACE = 4096, MAX_TENSOR_BYTES = 1 << 30, ALIGNMENT = 64 };
#if defined(__aarch64__)
enum { OWN_MACHINE = EM_AARCH64 };
#else
enum { OWN_MACHINE = EM_X86_64 };
#endif

struct any {
  int32_t kind;
  uint32_t zero;
  union {
    int64_t number;
    const void *pointer;
  };
};

struct bytes {
  const char *data;
  size_t size;
};

/* The head of every object is 24 bytes; this is what follows in an error. */
struct error {
  unsigned char head[24];
  struct bytes kind, message;
};

struct dl_tensor {
  void *data;
  int32_t device, device_number;
  int32_t rank;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
};

typedef int (*packed)(void *self, const struct any *arguments, int32_t count, struct any *result);

static void (*get_version)(uint32_t version[3]);
static int (*get_global)(const struct bytes *name, void **function);
static int (*call)(void *function, struct any *arguments, int32_t count, struct any *result);
static void (*take_error)(struct error **error);

static struct dl_tensor tensors[2 * MAX_TENSORS];
static struct any arguments[2 * MAX_TENSORS];
static int64_t strides[2 * MAX_TENSORS][MAX_RANK];
static int32_t argument_count;
static packed entry;

static const char *version(void *library) {
  static char text[40];
  uint32_t found[3] = {0, 0, 0};
  void (*get)(uint32_t version[3]);
  if ((*(void **)&get = dlsym(library, "TVMFFIGetVersion"))) get(found);
  snprintf(text, sizeof text, "tvm-ffi %u.%u.%u", found[0], found[1], found[2]);
  return text;
}

/* A call into TVM that did not return 0 has left an error behind. */
static int check(const char *what, int status) {
  struct error *error = NULL;
  if (!status) return 0;
  take_error(&error);
  if (!error) return fault("TVM: %s failed without a reason", what);
  int kind = error->kind.size < 64 ? (int)error->kind.size : 64;
  int message = error->message.size < 300 ? (int)error->message.size : 300;
  return fault("TVM: %s: %.*s: %.*s", what, kind, error->kind.data, message, error->message.data);
}

static int init(void *library, const struct runtime_options *options) {
  char threads[16];
  uint32_t found[3] = {0, 0, 0};
#define RESOLVE(pointer, name) \
  if (!(*(void **)&pointer = dlsym(library, name))) return fault("the library lacks " name);
  RESOLVE(get_version, "TVMFFIGetVersion")
  RESOLVE(get_global, "TVMFFIFunctionGetGlobal")
  RESOLVE(call, "TVMFFIFunctionCall")
  RESOLVE(take_error, "TVMFFIErrorMoveFromRaised")
  get_version(found);
  if (found[0] != 0 || found[1] != 1)
    return fault("tvm-ffi %u.%u: the runner knows 0.1", found[0], found[1]);
  snprintf(threads, sizeof threads, "%d", options->threads);
  /* where threads run is the kernel's affair, as with the other runtimes */
  if (setenv("TVM_NUM_THREADS", threads, 1) || setenv("TVM_BIND_THREADS", "0", 1))
    return fault("setenv: %s", strerror(errno));
  return 0;
}

/* Whether all that the loader is going to map is in the file: it crashes where something is not. */
static int check_whole(int descriptor, const Elf64_Ehdr *header) {
  struct stat file;
  Elf64_Phdr part;
  if (fstat(descriptor, &file)) return fault("cannot look at the model: %s", strerror(errno));
  if (header->e_phentsize != sizeof part) return fault("an ELF file of an unknown form");
  for (unsigned i = 0; i < header->e_phnum; i++) {
    off_t place = (off_t)(header->e_phoff + i * sizeof part);
    if (pread(descriptor, &part, sizeof part, place) != (ssize_t)sizeof part)
      return fault("the library was cut short");
    if (part.p_type == PT_LOAD && (part.p_offset > (uint64_t)file.st_size ||
                                   part.p_filesz > (uint64_t)file.st_size - part.p_offset))
      return fault("the library was cut short");
  }
  return 0;
}

/* The loader's own words for a file of another machine are "cannot open shared object file". */
static int check_header(int descriptor) {
  Elf64_Ehdr header;
  if (pread(descriptor, &header, sizeof header, 0) != (ssize_t)sizeof header ||
      memcmp(header.e_ident, ELFMAG, SELFMAG))
    return fault("not a shared library (no ELF header)");
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != OWN_MACHINE)
    return fault("a library for another processor (ELF machine %u; this one is %d)",
                 (unsigned)header.e_machine, (int)OWN_MACHINE);
  if (header.e_type != ET_DYN) return fault("an ELF file, but not a shared library");
  return check_whole(descriptor, &header);
}

static int check_file(const char *path) {
  int descriptor = open(path, O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return fault("cannot open the model: %s", strerror(errno));
  int status = check_header(descriptor);
  close(descriptor);
  return status;
}

/* "float32 1 224 224 3", up to the end of the line. */
static int parse_tensor(const char *text, struct tensor *tensor) {
  static const struct {
    const char *name;
    enum element element;
    size_t width;
  } elements[] = {{"float32 ", ELEMENT_FLOAT32, 4}, {"int8 ", ELEMENT_INT8, 1},
                  {"uint8 ", ELEMENT_UINT8, 1}};
  size_t kind = 0;
  while (kind < 3 && strncmp(text, elements[kind].name, strlen(elements[kind].name))) kind++;
  if (kind == 3) return fault("edgeofa_interface: no float32, int8 or uint8 in '%.32s'", text);
  tensor->element = elements[kind].element;
  tensor->bytes = elements[kind].width;
  text += strlen(elements[kind].name);
  while (*text && *text != '\n') {
    char *end;
    errno = 0;
    long long extent = strtoll(text, &end, 10);
    if (errno || end == text || extent < 1) return fault("edgeofa_interface: '%.32s'", text);
    if (tensor->rank == MAX_RANK) return fault("a tensor of rank %d or more", MAX_RANK + 1);
    if (__builtin_mul_overflow(tensor->bytes, (size_t)extent, &tensor->bytes) ||
        tensor->bytes > MAX_TENSOR_BYTES)
      return fault("a tensor of more than %d bytes", MAX_TENSOR_BYTES);
    tensor->shape[tensor->rank++] = extent;
    for (text = end; *text == ' '; text++) continue;
  }
  return 0;
}

/* Reads edgeofa_interface; lines that are not known belong to others. */
static int parse_interface(const char *text, struct model *model) {
  static const char magic[] = "edgeofa-tvm 1\n";
  if (strnlen(text, MAX_INTERFACE) == MAX_INTERFACE) return fault("edgeofa_interface has no end");
  if (strncmp(text, magic, sizeof magic - 1))
    return fault("edgeofa_interface is '%.20s', this runner knows 'edgeofa-tvm 1'", text);
  for (const char *line = text; line; line = strchr(line, '\n')) {
    if (*line == '\n') line++;
    int is_input = !strncmp(line, "input ", 6), is_output = !strncmp(line, "output ", 7);
    if (!is_input && !is_output) continue;
    size_t *count = is_input ? &model->input_count : &model->output_count;
    if (*count == MAX_TENSORS) return fault("more than %d inputs or outputs", MAX_TENSORS);
    struct tensor *tensor = is_input ? &model->inputs[*count] : &model->outputs[*count];
    if (parse_tensor(line + (is_input ? 6 : 7), tensor)) return -1;
    ++*count;
  }
  return 0;
}

static int add_argument(struct tensor *tensor) {
  struct dl_tensor *view = &tensors[argument_count];
  int64_t step = 1;
  size_t room = (tensor->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  if (!(tensor->data = aligned_alloc(ALIGNMENT, room)))
    return fault("no memory for a tensor of %zu bytes", tensor->bytes);
  memset(tensor->data, 0, room);
  for (int i = tensor->rank - 1; i >= 0; i--) {
    strides[argument_count][i] = step;
    step *= tensor->shape[i];
  }
  view->data = tensor->data;
  view->device = CPU;
  view->rank = tensor->rank;
  view->code = tensor->element == ELEMENT_FLOAT32  ? CODE_FLOAT
               : tensor->element == ELEMENT_UINT8 ? CODE_UINT
                                                  : CODE_INT;
  view->bits = tensor->element == ELEMENT_FLOAT32 ? 32 : 8;
  view->lanes = 1;
  view->shape = tensor->shape;
  view->strides = strides[argument_count];
  arguments[argument_count++] = (struct any){.kind = KIND_TENSOR, .pointer = view};
  return 0;
}

/* TVM's own loader also fills in the addresses through which a library calls back. */
static int register_library(const char *path) {
  static const char name[] = "ffi.Module.load_from_file.so";
  struct bytes loader = {name, sizeof name - 1};
  struct any words[2] = {{.kind = KIND_TEXT, .pointer = path}, {.kind = KIND_TEXT, .pointer = "so"}};
  struct any module = {.kind = KIND_NONE};
  void *function = NULL;
  if (check(name, get_global(&loader, &function))) return -1;
  if (!function) return fault("the library lacks %s", name);
  return check("loading the model", call(function, words, 2, &module));
}

static int load(const char *path, struct model *model) {
  if (check_file(path)) return -1;
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) return fault("%s", dlerror());
  const char *interface = dlsym(library, "edgeofa_interface");
  *(void **)&entry = dlsym(library, "__tvm_ffi_main");
  if (!interface || !entry)
    return fault("not a library of edgeofa's TVM back end (it lacks %s)",
                 interface ? "__tvm_ffi_main" : "edgeofa_interface");
  if (parse_interface(interface, model) || register_library(path)) return -1;
  for (size_t i = 0; i < model->input_count; i++)
    if (add_argument(&model->inputs[i])) return -1;
  for (size_t i = 0; i < model->output_count; i++)
    if (add_argument(&model->outputs[i])) return -1;
  model->fully_accelerated = 1; /* the back end refuses what it has no schedule for */
  model->handle = library;
  return 0;
}

static int invoke(struct model *model) {
  struct any result = {.kind = KIND_NONE};
  (void)model;
  return check("main", entry(NULL, arguments, argument_count, &result));
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

const struct runtime tvm_runtime = {"tvm", "TVMBackendParallelLaunch", version, init,
                                    load,  invoke,                     map,     unmap};
