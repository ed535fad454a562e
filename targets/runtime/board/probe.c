#define _GNU_SOURCE
/* What a board is: read from procfs, sysfs and the device tree, one JSON line. */
#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "board.h"
#include "state.h"

enum { MAX_PROCESSORS = 256, MAX_POLICIES = 64, MAX_CACHES = 8 };

#if defined(__aarch64__)
enum { OWN_MACHINE = EM_AARCH64 };
static const char machine[] = "aarch64";
static const char *const folders[] = {"/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu",
                                      "/lib64", "/usr/lib64", "/lib", "/usr/lib"};
static const char loader[] = "/lib/ld-linux-aarch64.so.1", musl[] = "/lib/ld-musl-aarch64.so.1";
#elif defined(__x86_64__)
enum { OWN_MACHINE = EM_X86_64 };
static const char machine[] = "x86_64";
static const char *const folders[] = {"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu",
                                      "/lib64", "/usr/lib64", "/lib", "/usr/lib"};
static const char loader[] = "/lib64/ld-linux-x86-64.so.2", musl[] = "/lib/ld-musl-x86_64.so.1";
#else
#error "boards are aarch64 or x86-64"
#endif

static struct report report;
static char text[1 << 17];

/* Opening says more than access(): a file of sysfs may be read-only whatever its bits. */
static int opens(const char *path, int flags) {
  int descriptor = open(path, flags | O_CLOEXEC);
  if (descriptor >= 0) close(descriptor);
  return descriptor >= 0;
}

static void add_text(const char *key, const char *value) {
  report_add(&report, ",\"%s\":", key);
  size_t length = strcspn(value, "\n");
  if (length > 200) length = 200;
  if (length)
    report_string(&report, value, length);
  else
    report_add(&report, "null");
}

static void add_file(const char *key, const char *path) {
  add_text(key, board_slurp(text, sizeof text, "%s", path) > 0 ? text : "");
}

static void add_number(const char *key, double value) {
  if (value >= 0)
    report_add(&report, ",\"%s\":%.17g", key, value);
  else
    report_add(&report, ",\"%s\":null", key);
}

/* Why this program's instructions are not executed by a processor of its own kind; NULL where they
 * are, as far as one can tell. */
static const char *emulator(void) {
  /* user mode: emulators answer for /proc/self/exe, and not for this other name of it */
  unsigned char header[20];
  int descriptor = open("/proc/thread-self/exe", O_RDONLY | O_CLOEXEC);
  if (descriptor >= 0) {
    ssize_t got = read(descriptor, header, sizeof header);
    close(descriptor);
    if (got == sizeof header && (header[18] | header[19] << 8) != OWN_MACHINE)
      return "a user-mode emulator runs its programs";
  }
#if defined(__x86_64__)
  unsigned a, b, c, d;
  char name[13] = "";
  __cpuid(1, a, b, c, d);
  if (c >> 31) {
    __cpuid(0x40000000, a, b, c, d);
    memcpy(name, &b, 4), memcpy(name + 4, &c, 4), memcpy(name + 8, &d, 4);
    if (!strcmp(name, "TCGTCGTCGTCG")) return "its processor is QEMU's translator";
  }
#endif
  long got = board_slurp(text, sizeof text, "/proc/device-tree/compatible");
  for (long at = 0; at < got; at += (long)strlen(text + at) + 1)
    if (!strcmp(text + at, "linux,dummy-virt") || strstr(text + at, "qemu"))
      return "it is a virtual machine, whose processor may be emulated";
  return NULL;
}

/* "glibc 2.36", "musl", or "" for a board on which programs of this machine have no C library. */
static const char *libc_name(void) {
  static char found[32];
  static const char mark[] = "GNU C Library ", release[] = "release version ";
  char path[512];
  snprintf(path, sizeof path, "%s%s", board_root, musl);
  int has_musl = opens(path, O_RDONLY);
  snprintf(path, sizeof path, "%s%s", board_root, loader);
  if (!opens(path, O_RDONLY)) return has_musl ? "musl" : "";
  for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
    snprintf(path, sizeof path, "%s%s/libc.so.6", board_root, folders[i]);
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) continue;
    static char content[1 << 22];
    size_t filled = 0;
    ssize_t got;
    while (filled < sizeof content &&
           (got = read(descriptor, content + filled, sizeof content - filled)) > 0)
      filled += (size_t)got;
    close(descriptor);
    const char *line = memmem(content, filled, mark, sizeof mark - 1);
    if (!line) continue;
    size_t left = filled - (size_t)(line - content);
    const char *version = memmem(line, left < 256 ? left : 256, release, sizeof release - 1);
    int major, minor;
    char number[16] = "";
    if (!version || version + 32 > content + filled) continue;
    memcpy(number, version + sizeof release - 1, sizeof number - 1);
    if (sscanf(number, "%3d.%3d", &major, &minor) != 2) continue;
    snprintf(found, sizeof found, "glibc %d.%d", major, minor);
    return found;
  }
  return "glibc";
}

/* The fields of /proc/cpuinfo by which a core is known, for every processor. */
static void add_cores(void) {
  static char cpuinfo[1 << 17];
  static char line[256], features[2048], name[256];
  long implementer = -1, count = 0;
  double hz = -1;
  long got = board_slurp(cpuinfo, sizeof cpuinfo, "/proc/cpuinfo");
  report_add(&report, ",\"parts\":[");
  for (char *at = cpuinfo; got > 0 && *at; at += strcspn(at, "\n"), at += *at == '\n') {
    snprintf(line, sizeof line, "%.*s", (int)strcspn(at, "\n"), at);
    char *value = strchr(line, ':');
    if (!value) continue;
    value += 1 + strspn(value + 1, " ");
    if (!strncmp(line, "CPU implementer", 15)) implementer = strtol(value, NULL, 0);
    if (!strncmp(line, "CPU part", 8) && count < MAX_PROCESSORS)
      report_add(&report, "%s%ld", count++ ? "," : "", strtol(value, NULL, 0) & 0xfff);
    if (!strncmp(line, "Features", 8) || !strncmp(line, "flags", 5)) {
      const char *all = strchr(at, ':') + 1;
      all += strspn(all, " ");
      snprintf(features, sizeof features, "%.*s", (int)strcspn(all, "\n"), all);
    }
    if (!strncmp(line, "cpu MHz", 7) && strtod(value, NULL) * 1e6 > hz)
      hz = strtod(value, NULL) * 1e6;
    if (!strncmp(line, "model name", 10)) snprintf(name, sizeof name, "%s", value);
  }
  report_add(&report, "]");
  add_number("implementer", (double)implementer);
  add_number("processor_hz", hz);
  add_text("processor_name", name);
  report_add(&report, ",\"features\":");
  report_string(&report, features, strlen(features));
}

static void add_clocks(void) {
  int count = 0;
  report_add(&report, ",\"clocks\":[");
  for (int i = 0; i < MAX_PROCESSORS && count < MAX_POLICIES; i++) {
    const char *base = "/sys/devices/system/cpu/cpufreq/policy%d/%s";
    double most = board_number(-1, base, i, "cpuinfo_max_freq");
    if (most < 0) continue;
    report_add(&report, "%s{\"policy\":%d", count++ ? "," : "", i);
    add_number("max_hz", most * 1e3);
    add_number("min_hz", board_number(-1e-3, base, i, "cpuinfo_min_freq") * 1e3);
    add_number("now_hz", board_number(-1e-3, base, i, "scaling_cur_freq") * 1e3);
    char path[512];
    snprintf(path, sizeof path, "%.256s/sys/devices/system/cpu/cpufreq/policy%d/scaling_governor",
             board_root, i);
    report_add(&report, ",\"may_be_set\":%s", opens(path, O_WRONLY) ? "true" : "false");
    long got = board_slurp(text, sizeof text, base, i, "scaling_governor");
    add_text("governor", got > 0 ? text : "");
    report_add(&report, "}");
  }
  report_add(&report, "]");
}

static void add_caches(void) {
  int count = 0;
  report_add(&report, ",\"caches\":[");
  for (int i = 0; i < MAX_CACHES; i++) {
    const char *base = "/sys/devices/system/cpu/cpu0/cache/index%d/%s";
    char size[32] = "";
    double level = board_number(-1, base, i, "level");
    if (level < 1 || board_slurp(size, sizeof size, base, i, "size") <= 0) continue;
    char *unit;
    double bytes = strtod(size, &unit) * (*unit == 'K' ? 1024 : *unit == 'M' ? 1048576 : 1);
    report_add(&report, "%s{\"level\":%.0f", count++ ? "," : "", level);
    add_text("kind", board_slurp(text, sizeof text, base, i, "type") > 0 ? text : "");
    add_number("bytes", bytes);
    add_number("ways", board_number(-1, base, i, "ways_of_associativity"));
    add_number("line_bytes", board_number(-1, base, i, "coherency_line_size"));
    report_add(&report, "}");
  }
  report_add(&report, "]");
}

static double memory_bytes(void) {
  if (board_slurp(text, sizeof text, "/proc/meminfo") <= 0) return -1;
  const char *line = strstr(text, "MemTotal:");
  return line ? strtod(line + 9, NULL) * 1024 : -1;
}

int board_probe(const char *folder) {
  static struct device_state state;
  struct utsname system;
  struct statvfs room;
  report_add(&report, "{\"event\":\"board\",\"protocol\":%d,\"machine\":\"%s\"", BOARD_PROTOCOL,
             machine);
  const char *why = emulator();
  add_text("emulator", why ? why : "");
  add_text("kernel", uname(&system) ? "" : system.release);
  add_text("libc", libc_name());
  long online = sysconf(_SC_NPROCESSORS_ONLN);
  add_number("processors", (double)online);
  add_cores();
  if (board_slurp(text, sizeof text, "/proc/device-tree/model") > 0)
    add_text("model", text);
  else
    add_file("model", "/sys/class/dmi/id/product_name");
  add_clocks();
  add_caches();
  add_number("ram_bytes", memory_bytes());
  add_number("free_bytes",
             statvfs(folder, &room) ? -1 : (double)room.f_bavail * (double)room.f_frsize);
  state_root(board_root);
  state_read(&state, 0);
  report_add(&report, ",\"state\":");
  state_report(&report, &state);
  return board_emit(&report) ? EXIT_OUTPUT : 0;
}
