/* A libLiteRt.so for tests of isolation: it does what the model file's first word says.
 *
 *   abort, segfault, hang, exit, chatter (fills its output, then aborts),
 *   patricide (kills the runner), fine */
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef void *handle;
static char order[32];
static float buffer[4];

int LiteRtCreateEnvironment(int n, const void *o, handle *e) { (void)n, (void)o; *e = order; return 0; }
int LiteRtCreateModelFromFile(handle e, const char *path, handle *m) {
  (void)e;
  FILE *file = fopen(path, "r");
  if (!file || fscanf(file, "%31s", order) != 1) return 1;
  *m = order;
  return 0;
}
int LiteRtCreateOptions(handle *o) { *o = order; return 0; }
int LiteRtSetOptionsHardwareAccelerators(handle o, int a) { (void)o, (void)a; return 0; }
int LiteRtCreateOpaqueOptions(const char *i, void *d, void (*f)(void *), handle *o) {
  (void)i, (void)d, (void)f;
  *o = order;
  return 0;
}
int LiteRtAddOpaqueOptions(handle o, handle q) { (void)o, (void)q; return 0; }
int LiteRtCreateCompiledModel(handle e, handle m, handle o, handle *c) {
  (void)e, (void)m, (void)o;
  *c = order;
  return 0;
}
int LiteRtGetNumModelSignatures(handle m, size_t *n) { (void)m; *n = 1; return 0; }
int LiteRtGetModelSignature(handle m, size_t i, handle *s) { (void)m, (void)i; *s = order; return 0; }
int LiteRtGetNumSignatureInputs(handle s, size_t *n) { (void)s; *n = 1; return 0; }
int LiteRtGetNumSignatureOutputs(handle s, size_t *n) { (void)s; *n = 1; return 0; }
int LiteRtGetSignatureInputTensorByIndex(handle s, size_t i, handle *t) { (void)s, (void)i; *t = order; return 0; }
int LiteRtGetSignatureOutputTensorByIndex(handle s, size_t i, handle *t) { (void)s, (void)i; *t = order; return 0; }
int LiteRtGetRankedTensorType(handle t, int32_t *type) {
  (void)t;
  type[0] = 1; /* float32 */
  type[1] = 1; /* rank */
  type[2] = 4;
  return 0;
}
int LiteRtGetCompiledModelInputBufferRequirements(handle c, size_t s, size_t i, handle *r) {
  (void)c, (void)s, (void)i;
  *r = order;
  return 0;
}
int LiteRtGetCompiledModelOutputBufferRequirements(handle c, size_t s, size_t i, handle *r) {
  (void)c, (void)s, (void)i;
  *r = order;
  return 0;
}
int LiteRtCreateManagedTensorBufferFromRequirements(handle e, const void *t, handle r, handle *b) {
  (void)e, (void)t, (void)r;
  *b = buffer;
  return 0;
}
int LiteRtGetTensorBufferPackedSize(handle b, size_t *n) { (void)b; *n = sizeof buffer; return 0; }
int LiteRtLockTensorBuffer(handle b, void **p, int w) { (void)w; *p = b; return 0; }
int LiteRtUnlockTensorBuffer(handle b) { (void)b; return 0; }
int LiteRtCompiledModelIsFullyAccelerated(handle c, bool *f) { (void)c; *f = true; return 0; }
int LiteRtRunCompiledModel(handle c, size_t s, size_t n, handle *i, size_t m, handle *o) {
  (void)c, (void)s, (void)n, (void)i, (void)m, (void)o;
  if (!strcmp(order, "abort")) {
    fprintf(stderr, "INFO: nothing special\nFATAL: the weights are cursed\n");
    abort();
  }
  if (!strcmp(order, "segfault")) *(volatile int *)8 = 1;
  if (!strcmp(order, "hang")) for (;;) pause();
  if (!strcmp(order, "exit")) exit(0);
  if (!strcmp(order, "patricide")) kill(getppid(), SIGKILL), pause();
  if (!strcmp(order, "chatter")) {
    for (int k = 0; k < 20000; k++) {
      puts("{\"event\":\"result\",\"job\":0} a line that is not an event");
      fprintf(stderr, "noise %d\n", k);
    }
    fflush(stdout);
    abort();
  }
  return 0;
}
