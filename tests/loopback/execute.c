/* Lets a program that runs under qemu-aarch64 start others that way, where the kernel cannot: loaded
 * before the C library, it turns every exec into one of the emulator. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_WORDS = 4096 };

int execve(const char *path, char *const arguments[], char *const environment[]) {
  static const char *words[MAX_WORDS], *variables[MAX_WORDS];
  const char *const head[] = {QEMU, "-cpu", "cortex-a72", "-L", ROOT, "-E", "LD_PRELOAD=" SHIM,
                              "-0", arguments[0]};
  size_t count = sizeof head / sizeof *head, kept = 0;
  if (!strcmp(path, "/proc/self/exe")) path = BUSYBOX;
  if (access(path, X_OK)) return -1;
  memcpy(words, head, sizeof head);
  words[count++] = path;
  for (size_t i = 1; arguments[i] && count < MAX_WORDS - 1; i++) words[count++] = arguments[i];
  words[count] = NULL;
  for (size_t i = 0; environment && environment[i] && kept < MAX_WORDS - 1; i++)
    if (strncmp(environment[i], "LD_PRELOAD=", 11)) variables[kept++] = environment[i];
  variables[kept] = NULL;
  return (int)syscall(SYS_execve, QEMU, words, variables);
}

int execv(const char *path, char *const arguments[]) { return execve(path, arguments, environ); }

int execvp(const char *file, char *const arguments[]) {
  char path[4096];
  const char *folders = getenv("PATH");
  if (strchr(file, '/') || !folders) return execve(file, arguments, environ);
  for (const char *at = folders; *at; at += *at == ':') {
    size_t length = strcspn(at, ":");
    if (length + strlen(file) + 2 < sizeof path) {
      memcpy(path, at, length);
      path[length] = '/';
      strcpy(path + length + 1, file);
      if (!access(path, X_OK)) return execve(path, arguments, environ);
    }
    at += length;
  }
  errno = ENOENT;
  return -1;
}
