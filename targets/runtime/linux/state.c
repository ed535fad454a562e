#define _GNU_SOURCE
#include "state.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_ZONES = 32, MAX_COOLERS = 64, MAX_SENSORS = 32 };

static char text[256];
static const char *root = "";

void state_root(const char *folder) { root = folder; }

/* The first line of a small file in `text`; 0 when it cannot be read. */
static int slurp(const char *path) {
  char whole[512];
  if (snprintf(whole, sizeof whole, "%s%s", root, path) >= (int)sizeof whole) return 0;
  int descriptor = open(whole, O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return 0;
  ssize_t got = read(descriptor, text, sizeof text - 1);
  close(descriptor);
  if (got <= 0) return 0;
  text[got] = 0;
  text[strcspn(text, "\n")] = 0;
  return 1;
}

/* `format` holds one %d, for the number of a processor, zone or sensor. */
static int slurp_numbered(const char *format, int number) {
  char path[128];
  snprintf(path, sizeof path, format, number);
  return slurp(path);
}

/* The processor's own sensor where the zones have names, else the first one. */
static double temperature(void) {
  int chosen = 0;
  for (int i = 0; i < MAX_ZONES; i++) {
    if (!slurp_numbered("/sys/class/thermal/thermal_zone%d/type", i)) continue;
    if (!strncmp(text, "cpu", 3) || !strncmp(text, "soc", 3) || !strcmp(text, "x86_pkg_temp")) {
      chosen = i;
      break;
    }
  }
  return slurp_numbered("/sys/class/thermal/thermal_zone%d/temp", chosen)
             ? strtod(text, NULL) / 1e3
             : -1;
}

static void throttling(struct device_state *state, int cpu) {
  /* Raspberry Pi: bits 0 to 3 say under-voltage, capped clock, throttled, soft limit, now; 16 to
   * 19 that it happened since the start */
  if (slurp("/sys/devices/platform/soc/soc:firmware/get_throttled")) {
    unsigned long bits = strtoul(text, NULL, 16);
    state->throttled = (bits & 0xf) != 0;
    state->throttle_events = (double)(bits >> 16 & 0xf);
  }
  /* the same board's hardware monitor, which other kernels have instead: under-voltage, now */
  for (int i = 0; i < MAX_SENSORS && state->throttled < 0; i++) {
    if (!slurp_numbered("/sys/class/hwmon/hwmon%d/name", i)) continue;
    if (!strcmp(text, "rpi_volt") && slurp_numbered("/sys/class/hwmon/hwmon%d/in0_lcrit_alarm", i))
      state->throttled = text[0] != '0';
  }
  /* any board: the kernel cools the processor by its clock */
  for (int i = 0; i < MAX_COOLERS; i++) {
    if (!slurp_numbered("/sys/class/thermal/cooling_device%d/type", i)) continue;
    if (!strstr(text, "cpufreq") && strcmp(text, "Processor")) continue;
    if (!slurp_numbered("/sys/class/thermal/cooling_device%d/cur_state", i)) continue;
    if (state->throttled < 1) state->throttled = strtol(text, NULL, 10) > 0;
  }
  /* Intel: counters of a core and of its package */
  static const char *const counters[] = {"core_throttle_count", "package_throttle_count"};
  for (size_t i = 0; i < sizeof counters / sizeof *counters; i++) {
    char path[128];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/thermal_throttle/%s", cpu,
             counters[i]);
    if (!slurp(path)) continue;
    if (state->throttle_events < 0) state->throttle_events = 0;
    state->throttle_events += strtod(text, NULL);
  }
}

void state_read(struct device_state *state, int cpu) {
  state->clock_hz = state->load = state->throttle_events = -1;
  state->throttled = -1;
  state->governor[0] = 0;
  if (slurp_numbered("/sys/devices/system/cpu/cpu%d/cpufreq/scaling_cur_freq", cpu))
    state->clock_hz = strtod(text, NULL) * 1e3;
  if (slurp_numbered("/sys/devices/system/cpu/cpu%d/cpufreq/scaling_governor", cpu))
    snprintf(state->governor, sizeof state->governor, "%.31s", text);
  state->temperature_c = temperature();
  throttling(state, cpu);
  if (slurp("/proc/loadavg")) state->load = strtod(text, NULL);
}

static void number_or_null(struct report *report, const char *key, double value, int known) {
  if (known)
    report_add(report, "\"%s\":%.17g,", key, value);
  else
    report_add(report, "\"%s\":null,", key);
}

void state_report(struct report *report, const struct device_state *state) {
  report_add(report, "{");
  number_or_null(report, "clock_hz", state->clock_hz, state->clock_hz > 0);
  number_or_null(report, "temperature_c", state->temperature_c, state->temperature_c > 0);
  number_or_null(report, "load", state->load, state->load >= 0);
  if (state->throttled < 0)
    report_add(report, "\"throttled\":null,");
  else
    report_add(report, "\"throttled\":%s,", state->throttled ? "true" : "false");
  number_or_null(report, "throttle_events", state->throttle_events, state->throttle_events >= 0);
  report_add(report, "\"governor\":");
  if (state->governor[0])
    report_string(report, state->governor, strlen(state->governor));
  else
    report_add(report, "null");
  report_add(report, "}");
}

size_t private_cache_bytes(int cpu) {
  size_t largest = 0;
  for (int index = 0; index < 8; index++) {
    char path[128];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cache/index%d/level", cpu, index);
    if (!slurp(path) || strtol(text, NULL, 10) > 2) continue;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cache/index%d/size", cpu, index);
    if (!slurp(path)) continue;
    char *unit;
    size_t bytes = strtoul(text, &unit, 10);
    if (*unit == 'K') bytes <<= 10;
    if (*unit == 'M') bytes <<= 20;
    if (bytes > largest) largest = bytes;
  }
  return largest ? largest : (size_t)1 << 20;
}
