/* QEMU TCG plugin for Cortex-M boards (qemu-system-arm): which basic blocks ran how often inside the
 * runs that the firmware marks, layer by layer; how often they were entered by a taken branch; and
 * which flash lines they missed in small caches.
 *
 * The firmware marks with hints that execute as NOP (see targets/runtime/mcu/protocol/mark.h):
 *   0xa1 RUN   0xa3 LAYER   0xa4 LAYER_DONE   0xa2 DONE
 *
 * Arguments: out=FILE, flash=ADDRESS, size=BYTES of the flash, line=BYTES (a power of two),
 * data=LINES and code=LINES of two fully associative LRU caches of it (0: none), both emptied at
 * RUN. The file:
 *   edgeofa-cortex-m 1
 *   B <block> <code, 4 hexadecimal digits per halfword>               once, at first use
 *   C <block> <executions> <taken> <data misses> <code misses>
 *   L <layer> <counted blocks>                                        ends a layer, from 0
 *   R <run> <counted blocks> <layers>       ends a run, from 0: what ran outside its layers
 * A file without its last R line was cut off.
 *
 * A block was entered by a taken branch when it does not follow the block before it. A load of any
 * size counts as one access of the line that it begins in. */
#define _POSIX_C_SOURCE 200809L
#include "qemu_plugin_api.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;
QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv);

enum { MAX_BLOCKS = 1 << 20, MAX_RUNS = 1 << 16, MAX_LAYERS = 1 << 12, MAX_LINES = 1 << 12 };
enum { BUCKETS = 1 << 12, MAX_HALFWORDS = 1024 };

#define MARKER(n) (0xf3af8000u | (n))

typedef enum { OUTSIDE, LAYER, PLACES } Place;

typedef struct {
  uint64_t executions, taken, data_misses, code_misses;
} Counts;

typedef struct Block {
  uint64_t address;
  uint32_t halfwords, id;
  uint16_t *code;
  Counts counts[PLACES];
  struct Block *next, *in_bucket;
} Block;

typedef struct {
  uint32_t lines, *line;
} Cache;

static Cache data_cache, code_cache;
static unsigned line_shift;
static uint64_t flash_first, flash_end;
static Block *blocks, *bucket[BUCKETS], *previous;
static uint32_t n_blocks, n_ids, n_runs, n_layers;
static bool running;
static Place place;
static FILE *out;

static void fail(const char *what) {
  fprintf(stderr, "edgeofa plugin: %s\n", what);
  _Exit(96);
}

/* ---- caches ---- */

/* Whether `line` was missing; it is the most recent one afterwards. */
static bool misses(Cache *c, uint32_t line) {
  uint32_t found = 0;
  while (found + 1 < c->lines && c->line[found] != line) found++;
  bool missed = c->line[found] != line;
  memmove(c->line + 1, c->line, found * sizeof *c->line);
  c->line[0] = line;
  return missed;
}

static void empty(Cache *c) {
  for (uint32_t i = 0; i < c->lines; i++) c->line[i] = UINT32_MAX;
}

static bool in_flash(uint64_t address) { return address >= flash_first && address < flash_end; }

static void on_access(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *block) {
  (void)vcpu;
  if (!running || !in_flash(address) || qemu_plugin_mem_is_store(info)) return;
  if (misses(&data_cache, (uint32_t)(address >> line_shift)))
    ((Block *)block)->counts[place].data_misses++;
}

static void on_block(unsigned vcpu, void *argument) {
  (void)vcpu;
  if (!running) return;
  Block *b = argument;
  Counts *counts = &b->counts[place];
  counts->executions++;
  if (previous != NULL && b->address != previous->address + 2u * previous->halfwords)
    counts->taken++;
  previous = b;
  if (code_cache.lines == 0 || !in_flash(b->address)) return;
  uint32_t last = (uint32_t)((b->address + 2u * b->halfwords - 1) >> line_shift);
  for (uint32_t line = (uint32_t)(b->address >> line_shift); line <= last; line++)
    if (misses(&code_cache, line)) counts->code_misses++;
}

/* ---- markers ---- */

static uint32_t write_counts(Place of) {
  uint32_t counted = 0;
  for (Block *b = blocks; b != NULL; b = b->next) {
    Counts *c = &b->counts[of];
    if (c->executions == 0) continue;
    counted++;
    if (b->id == 0) {
      b->id = ++n_ids;
      fprintf(out, "B %" PRIu32 " ", b->id);
      for (uint32_t i = 0; i < b->halfwords; i++) fprintf(out, "%04x", b->code[i]);
      fputc('\n', out);
    }
    fprintf(out, "C %" PRIu32 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", b->id,
            c->executions, c->taken, c->data_misses, c->code_misses);
    memset(c, 0, sizeof *c);
  }
  return counted;
}

static void mark_run(unsigned vcpu, void *unused) {
  (void)vcpu, (void)unused;
  if (n_runs >= MAX_RUNS) fail("too many runs");
  for (Block *b = blocks; b != NULL; b = b->next) memset(b->counts, 0, sizeof b->counts);
  empty(&data_cache);
  empty(&code_cache);
  previous = NULL;
  n_layers = 0;
  place = OUTSIDE;
  running = true;
}

static void mark_layer(unsigned vcpu, void *unused) {
  (void)vcpu, (void)unused;
  if (running) place = LAYER;
}

static void mark_layer_done(unsigned vcpu, void *unused) {
  (void)vcpu, (void)unused;
  if (!running || place != LAYER) return;
  if (n_layers >= MAX_LAYERS) fail("too many layers");
  place = OUTSIDE;
  uint32_t counted = write_counts(LAYER);
  fprintf(out, "L %" PRIu32 " %" PRIu32 "\n", n_layers++, counted);
}

static void mark_done(unsigned vcpu, void *unused) {
  (void)vcpu, (void)unused;
  if (!running) return;
  if (place == LAYER) mark_layer_done(0, NULL);
  running = false;
  uint32_t counted = write_counts(OUTSIDE);
  fprintf(out, "R %" PRIu32 " %" PRIu32 " %" PRIu32 "\n", n_runs++, counted, n_layers);
  if (fflush(out) != 0) fail("cannot write the trace file");
}

static qemu_plugin_vcpu_udata_cb_t marker(uint32_t word) {
  switch (word) {
    case MARKER(0xa1): return mark_run;
    case MARKER(0xa2): return mark_done;
    case MARKER(0xa3): return mark_layer;
    case MARKER(0xa4): return mark_layer_done;
    default: return NULL;
  }
}

/* ---- QEMU's side ---- */

/* QEMU may translate the same code again (its buffer is finite): that is the same block. */
static Block *find(uint64_t address, const uint16_t *code, uint32_t halfwords) {
  Block **first = &bucket[(address >> 1) % BUCKETS];
  for (Block *b = *first; b != NULL; b = b->in_bucket)
    if (b->address == address && b->halfwords == halfwords &&
        memcmp(b->code, code, halfwords * sizeof *code) == 0)
      return b;
  Block *b = calloc(1, sizeof *b);
  uint16_t *copy = calloc(halfwords + 1, sizeof *copy);
  if (b == NULL || copy == NULL || ++n_blocks > MAX_BLOCKS) fail("too many basic blocks");
  memcpy(copy, code, halfwords * sizeof *copy);
  *b = (Block){.address = address, .halfwords = halfwords, .code = copy, .next = blocks,
               .in_bucket = *first};
  blocks = *first = b;
  return b;
}

static void on_translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
  (void)id;
  uint16_t code[MAX_HALFWORDS];
  uint32_t halfwords = 0;
  size_t n = qemu_plugin_tb_n_insns(tb);
  for (size_t i = 0; i < n; i++) {
    struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
    if (MAX_HALFWORDS - halfwords < 2) fail("a block of impossible length");
    uint16_t *first = code + halfwords;
    memcpy(first, qemu_plugin_insn_data(insn), 2);
    /* not qemu_plugin_insn_size: QEMU 7.2 adds the halfword that it looks at behind an instruction
     * near the end of a page */
    bool is_long = *first >> 11 >= 0x1d;
    if (is_long) memcpy(first, qemu_plugin_insn_data(insn), 4);
    uint32_t word = is_long ? (uint32_t)first[0] << 16 | first[1] : 0;
    qemu_plugin_vcpu_udata_cb_t mark = marker(word);
    if (mark != NULL)
      qemu_plugin_register_vcpu_insn_exec_cb(insn, mark, QEMU_PLUGIN_CB_NO_REGS, NULL);
    halfwords += is_long ? 2 : 1;
  }
  Block *b = find(qemu_plugin_tb_vaddr(tb), code, halfwords);
  qemu_plugin_register_vcpu_tb_exec_cb(tb, on_block, QEMU_PLUGIN_CB_NO_REGS, b);
  /* QEMU 7.2 calls back for no load when loads alone are asked for */
  for (size_t i = 0; data_cache.lines != 0 && i < n; i++)
    qemu_plugin_register_vcpu_mem_cb(qemu_plugin_tb_get_insn(tb, i), on_access,
                                     QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_RW, b);
}

/* The value of key=NUMBER; false when arg is another key's or the number is above max. */
static bool number(const char *arg, const char *key, unsigned long max, unsigned long *value) {
  size_t n = strlen(key);
  if (strncmp(arg, key, n) != 0 || arg[n] != '=') return false;
  char *end;
  *value = strtoul(arg + n + 1, &end, 0);
  return *end == '\0' && *value <= max;
}

static bool allocate(Cache *c, unsigned long lines) {
  c->lines = (uint32_t)lines;
  c->line = calloc(lines + 1, sizeof *c->line);
  return c->line != NULL;
}

int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv) {
  unsigned long line = 0, flash = 0, size = 0, data = 0, code = 0;
  const char *path = NULL;
  if (strcmp(info->target_name, "arm") != 0 || !info->system_emulation) return 1;
  for (int i = 0; i < argc; i++) {
    if (strncmp(argv[i], "out=", 4) == 0) path = argv[i] + 4;
    else if (number(argv[i], "flash", UINT32_MAX, &flash) ||
             number(argv[i], "size", UINT32_MAX, &size) || number(argv[i], "line", 4096, &line) ||
             number(argv[i], "data", MAX_LINES, &data) || number(argv[i], "code", MAX_LINES, &code))
      continue;
    else {
      fprintf(stderr, "edgeofa plugin: bad argument %.100s\n", argv[i]);
      return 1;
    }
  }
  if (path == NULL || line == 0 || (line & (line - 1)) != 0 || size == 0 ||
      !allocate(&data_cache, data) || !allocate(&code_cache, code)) {
    fputs("edgeofa plugin: out=, flash=, size=, line= are needed\n", stderr);
    return 1;
  }
  flash_first = flash;
  flash_end = (uint64_t)flash + size;
  while (1ul << line_shift < line) line_shift++;
  out = fopen(path, "wx");
  if (out == NULL) fail("cannot create the trace file");
  fputs("edgeofa-cortex-m 1\n", out);
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
  return 0;
}
