/* QEMU TCG plugin: which basic blocks of an aarch64 program ran how often, and what they cost in
 * the caches, inside the regions that the program marks.
 *
 * The program marks with instructions that have no effect (orr xN, xN, xN):
 *   x21 ON     count from here
 *   x22 OFF    stop, and write the region
 *   x23 FLUSH  drop every cache line that was never written (weights, code): a cold start
 *   x24 TOUCH  drive the caches without counting (warm-up)
 *   x25 RESET  empty both caches
 *
 * Arguments: out=PREFIX, and for each cache l1sets= l1ways= l2sets= l2ways= line=BYTES (powers of
 * two but for the ways). A program that forks takes the plugin's state with it, so each process
 * writes a file of its own, PREFIX.<process id>, opened at its first region:
 *   edgeofa-trace 1
 *   B <block> <hexadecimal code, one 8-digit word per instruction>       once, at first use
 *   C <block> <executions> <L1 misses: stream, other> <L2 misses: stream, other>
 *   R <region> <counted blocks> <L2 lines written back> <foreign accesses>     ends the region
 * A file without its last R line was cut off. Foreign accesses are those that threads other than
 * the marking one made to memory meanwhile: with any, the counts depend on the host's scheduler.
 *
 * Both caches are LRU, write-back and write-allocate; a miss that continues one of the last 32
 * sequences of lines is a stream miss, which a hardware prefetcher would have hidden in part. */
#define _POSIX_C_SOURCE 200809L
#include "qemu_plugin_api.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;
QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv);

enum { STREAMS = 32, MAX_SETS = 1 << 16, MAX_WAYS = 64, MAX_BLOCKS = 1 << 20, MAX_REGIONS = 4096 };
enum { L1_STREAM, L1_OTHER, L2_STREAM, L2_OTHER, MISS_KINDS };

#define MARKER(n) (0xaa000000u | (uint32_t)(n) << 16 | (uint32_t)(n) << 5 | (uint32_t)(n))

typedef struct Block {
  uint64_t count, start, miss[MISS_KINDS];
  uint32_t words, id, *code;
  struct Block *next;
} Block;

typedef struct {
  uint64_t line, used;
  bool valid, dirty;
} Way;

typedef struct {
  uint32_t sets, ways;
  Way *way;
  uint64_t stream[STREAMS];
  uint32_t oldest;
} Cache;

typedef enum { IDLE, TOUCHING, COUNTING } State;

static Cache l1, l2;
static unsigned line_shift;
static Block *blocks, uncounted;
static uint32_t n_blocks, n_ids, n_regions;
static State state = IDLE;
static unsigned counted_vcpu;
static uint64_t tick, written_back, foreign;
static char prefix[3072];
static FILE *out;

static void fail(const char *what) {
  qemu_plugin_outs("edgeofa plugin: ");
  qemu_plugin_outs(what);
  qemu_plugin_outs("\n");
  fprintf(stderr, "edgeofa plugin: %s\n", what);
  _Exit(96);
}

/* ---- caches ---- */

static bool continues_stream(Cache *c, uint64_t line) {
  for (int i = 0; i < STREAMS; i++)
    if (line - c->stream[i] <= 2) {
      c->stream[i] = line;
      return true;
    }
  c->stream[c->oldest++ % STREAMS] = line;
  return false;
}

/* Look a line up and bring it in. False on a miss; then *evicted is the dirty line that had to go,
 * or stays as it was. */
static bool look_up(Cache *c, uint64_t line, bool store, uint64_t *evicted, bool *has_evicted) {
  Way *set = c->way + (size_t)(line & (c->sets - 1)) * c->ways;
  tick++;
  for (uint32_t i = 0; i < c->ways; i++)
    if (set[i].line == line && set[i].valid) {
      set[i].used = tick;
      set[i].dirty |= store;
      return true;
    }
  Way *victim = set;
  for (uint32_t i = 1; i < c->ways && victim->valid; i++)
    if (!set[i].valid || set[i].used < victim->used) victim = &set[i];
  *has_evicted = victim->valid && victim->dirty;
  *evicted = victim->line;
  *victim = (Way){.line = line, .used = tick, .valid = true, .dirty = store};
  return false;
}

static void touch_line(Block *b, uint64_t line, bool store) {
  uint64_t evicted, lost;
  bool has_evicted, has_lost;
  if (look_up(&l1, line, store, &evicted, &has_evicted)) return;
  b->miss[continues_stream(&l1, line) ? L1_STREAM : L1_OTHER]++;
  if (has_evicted && !look_up(&l2, evicted, true, &lost, &has_lost) && has_lost) written_back++;
  if (look_up(&l2, line, false, &lost, &has_lost)) return;
  if (has_lost) written_back++;
  b->miss[continues_stream(&l2, line) ? L2_STREAM : L2_OTHER]++;
}

static void on_memory(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *block) {
  if (state == IDLE) return;
  if (state == COUNTING && vcpu != counted_vcpu) {
    foreign++;
    return;
  }
  Block *b = state == COUNTING ? block : &uncounted;
  bool store = qemu_plugin_mem_is_store(info);
  uint64_t first = address >> line_shift;
  uint64_t last = (address + (UINT64_C(1) << qemu_plugin_mem_size_shift(info)) - 1) >> line_shift;
  touch_line(b, first, store);
  if (last != first) touch_line(b, last, store);
}

static void empty(Cache *c) {
  memset(c->way, 0, sizeof *c->way * c->sets * c->ways);
  memset(c->stream, 0, sizeof c->stream);
  c->oldest = 0;
}

static void drop_unwritten(Cache *c) {
  for (size_t i = 0; i < (size_t)c->sets * c->ways; i++)
    if (!c->way[i].dirty) c->way[i].valid = false;
}

/* ---- markers ---- */

static void mark_on(unsigned vcpu, void *unused) {
  (void)unused;
  if (++n_regions > MAX_REGIONS) fail("too many regions");
  if (out == NULL) {
    char path[sizeof prefix + 24];
    snprintf(path, sizeof path, "%s.%ld", prefix, (long)getpid());
    out = fopen(path, "wx");
    if (out == NULL) fail("cannot create the trace file");
    fputs("edgeofa-trace 1\n", out);
  }
  for (Block *b = blocks; b != NULL; b = b->next) {
    b->start = b->count;
    memset(b->miss, 0, sizeof b->miss);
  }
  written_back = foreign = 0;
  counted_vcpu = vcpu;
  state = COUNTING;
}

static void mark_off(unsigned vcpu, void *unused) {
  (void)vcpu, (void)unused;
  if (state != COUNTING) return;
  state = IDLE;
  uint32_t counted = 0;
  for (Block *b = blocks; b != NULL; b = b->next) {
    if (b->count == b->start) continue;
    counted++;
    if (b->id == 0) {
      b->id = ++n_ids;
      fprintf(out, "B %" PRIu32 " ", b->id);
      for (uint32_t i = 0; i < b->words; i++) fprintf(out, "%08" PRIx32, b->code[i]);
      fputc('\n', out);
    }
    fprintf(out, "C %" PRIu32 " %" PRIu64, b->id, b->count - b->start);
    for (int k = 0; k < MISS_KINDS; k++) fprintf(out, " %" PRIu64, b->miss[k]);
    fputc('\n', out);
  }
  fprintf(out, "R %" PRIu32 " %" PRIu32 " %" PRIu64 " %" PRIu64 "\n", n_regions, counted,
          written_back, foreign);
  if (fflush(out) != 0) fail("cannot write the trace file");
}

static void mark_flush(unsigned vcpu, void *unused) {
  (void)vcpu, (void)unused;
  drop_unwritten(&l1);
  drop_unwritten(&l2);
}

static void mark_touch(unsigned vcpu, void *unused) {
  (void)vcpu, (void)unused;
  state = TOUCHING;
}

static void mark_reset(unsigned vcpu, void *unused) {
  (void)vcpu, (void)unused;
  empty(&l1);
  empty(&l2);
  tick = 0;
}

static qemu_plugin_vcpu_udata_cb_t marker(uint32_t word) {
  switch (word) {
    case MARKER(21): return mark_on;
    case MARKER(22): return mark_off;
    case MARKER(23): return mark_flush;
    case MARKER(24): return mark_touch;
    case MARKER(25): return mark_reset;
    default: return NULL;
  }
}

/* ---- QEMU's side ---- */

static void on_translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
  (void)id;
  size_t words = qemu_plugin_tb_n_insns(tb);
  Block *b = calloc(1, sizeof *b);
  uint32_t *code = calloc(words ? words : 1, sizeof *code);
  if (b == NULL || code == NULL || ++n_blocks > MAX_BLOCKS) fail("too many basic blocks");
  *b = (Block){.words = (uint32_t)words, .code = code, .next = blocks};
  blocks = b;
  for (size_t i = 0; i < words; i++) {
    struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
    if (qemu_plugin_insn_size(insn) == sizeof *code)
      memcpy(&code[i], qemu_plugin_insn_data(insn), sizeof *code);
    qemu_plugin_vcpu_udata_cb_t mark = marker(code[i]);
    if (mark != NULL)
      qemu_plugin_register_vcpu_insn_exec_cb(insn, mark, QEMU_PLUGIN_CB_NO_REGS, NULL);
    else
      qemu_plugin_register_vcpu_mem_cb(insn, on_memory, QEMU_PLUGIN_CB_NO_REGS,
                                       QEMU_PLUGIN_MEM_RW, b);
  }
  qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64, &b->count, 1);
}

static bool is_power_of_two(unsigned long n) { return n != 0 && (n & (n - 1)) == 0; }

/* The value of key=NUMBER; false when arg is another key's or the number is not in 1 .. max. */
static bool number(const char *arg, const char *key, unsigned long max, unsigned long *value) {
  size_t n = strlen(key);
  if (strncmp(arg, key, n) != 0 || arg[n] != '=') return false;
  char *end;
  *value = strtoul(arg + n + 1, &end, 10);
  return *end == '\0' && *value >= 1 && *value <= max;
}

static bool allocate(Cache *c) {
  if (!is_power_of_two(c->sets) || c->ways == 0) return false;
  c->way = calloc((size_t)c->sets * c->ways, sizeof *c->way);
  return c->way != NULL;
}

int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv) {
  unsigned long line = 0, v;
  if (strcmp(info->target_name, "aarch64") != 0) return 1;
  for (int i = 0; i < argc; i++) {
    if (strncmp(argv[i], "out=", 4) == 0 && strlen(argv[i] + 4) < sizeof prefix)
      strcpy(prefix, argv[i] + 4);
    else if (number(argv[i], "l1sets", MAX_SETS, &v)) l1.sets = (uint32_t)v;
    else if (number(argv[i], "l1ways", MAX_WAYS, &v)) l1.ways = (uint32_t)v;
    else if (number(argv[i], "l2sets", MAX_SETS, &v)) l2.sets = (uint32_t)v;
    else if (number(argv[i], "l2ways", MAX_WAYS, &v)) l2.ways = (uint32_t)v;
    else if (number(argv[i], "line", 4096, &v)) line = v;
    else {
      fprintf(stderr, "edgeofa plugin: bad argument %.100s\n", argv[i]);
      return 1;
    }
  }
  if (prefix[0] == '\0' || !is_power_of_two(line) || !allocate(&l1) || !allocate(&l2)) {
    fputs("edgeofa plugin: out=, l1sets=, l1ways=, l2sets=, l2ways=, line= are needed\n", stderr);
    return 1;
  }
  while (1ul << line_shift < line) line_shift++;
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
  return 0;
}
