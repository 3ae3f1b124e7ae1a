/* Loaded before libc (LD_PRELOAD): counts what changes files under FAULT_UNDER, with FAULT_MATCH only
   those whose path holds it, and at the operation
   FAULT_AT kills the process (FAULT_KIND=kill), asks it to end (term), fails it once (once) or it
   and all later ones (full), as a full disk does. FAULT_LOG gets a line for each operation. Without FAULT_UNDER nothing
   happens. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long operations;

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Whether the operation is to fail. */
static int faulty(const char *operation, const char *path) {
  const char *under = getenv("FAULT_UNDER");
  if (!under || !path || strncmp(path, under, strlen(under))) return 0;
  const char *match = getenv("FAULT_MATCH");
  if (match && !strstr(path, match)) return 0;
  const char *at_text = getenv("FAULT_AT"), *kind = getenv("FAULT_KIND"), *log = getenv("FAULT_LOG");
  long at = at_text ? atol(at_text) : 0, number = atomic_fetch_add(&operations, 1) + 1;
  if (log) {
    int file = NEXT(open)(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    dprintf(file, "%ld %s %s\n", number, operation, path);
    close(file);
  }
  if (!at || !kind || number < at || (number > at && strcmp(kind, "full"))) return 0;
  if (!strcmp(kind, "kill")) kill(getpid(), SIGKILL);
  if (!strcmp(kind, "term")) {
    kill(getpid(), SIGTERM);
    return 0;
  }
  errno = ENOSPC;
  return 1;
}

static int faulty_file(const char *operation, int file) {
  char link[64], path[PATH_MAX];
  if (!getenv("FAULT_UNDER")) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return faulty(operation, path);
}

static int faulty_name(const char *operation, int folder, const char *name) {
  char link[64], path[PATH_MAX], whole[2 * PATH_MAX];
  if (!getenv("FAULT_UNDER")) return 0;
  if (name[0] == '/') return faulty(operation, name);
  snprintf(link, sizeof link, folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", folder);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  snprintf(whole, sizeof whole, "%s/%s", path, name);
  return faulty(operation, whole);
}

#define WRITES (O_CREAT | O_TRUNC)
#define MODE                     \
  mode_t mode = 0;               \
  if (flags & (O_CREAT | O_TMPFILE)) { \
    va_list rest;                \
    va_start(rest, flags);       \
    mode = va_arg(rest, mode_t); \
    va_end(rest);                \
  }

int open(const char *name, int flags, ...) {
  MODE if ((flags & WRITES) && faulty_name("open", AT_FDCWD, name)) return -1;
  return NEXT(open)(name, flags, mode);
}
int open64(const char *name, int flags, ...) {
  MODE if ((flags & WRITES) && faulty_name("open", AT_FDCWD, name)) return -1;
  return NEXT(open64)(name, flags, mode);
}
int openat(int folder, const char *name, int flags, ...) {
  MODE if ((flags & WRITES) && faulty_name("open", folder, name)) return -1;
  return NEXT(openat)(folder, name, flags, mode);
}
int openat64(int folder, const char *name, int flags, ...) {
  MODE if ((flags & WRITES) && faulty_name("open", folder, name)) return -1;
  return NEXT(openat64)(folder, name, flags, mode);
}
ssize_t write(int file, const void *content, size_t size) {
  return faulty_file("write", file) ? -1 : NEXT(write)(file, content, size);
}
ssize_t pwrite(int file, const void *content, size_t size, off_t at) {
  return faulty_file("write", file) ? -1 : NEXT(pwrite)(file, content, size, at);
}
ssize_t pwrite64(int file, const void *content, size_t size, off_t at) {
  return faulty_file("write", file) ? -1 : NEXT(pwrite64)(file, content, size, at);
}
ssize_t writev(int file, const struct iovec *parts, int count) {
  return faulty_file("write", file) ? -1 : NEXT(writev)(file, parts, count);
}
int ftruncate(int file, off_t size) {
  return faulty_file("truncate", file) ? -1 : NEXT(ftruncate)(file, size);
}
int ftruncate64(int file, off_t size) {
  return faulty_file("truncate", file) ? -1 : NEXT(ftruncate64)(file, size);
}
int fsync(int file) { return faulty_file("sync", file) ? -1 : NEXT(fsync)(file); }
int fdatasync(int file) { return faulty_file("sync", file) ? -1 : NEXT(fdatasync)(file); }
int rename(const char *from, const char *to) {
  return faulty_name("rename", AT_FDCWD, to) ? -1 : NEXT(rename)(from, to);
}
int renameat(int one, const char *from, int other, const char *to) {
  return faulty_name("rename", other, to) ? -1 : NEXT(renameat)(one, from, other, to);
}
int renameat2(int one, const char *from, int other, const char *to, unsigned flags) {
  return faulty_name("rename", other, to) ? -1 : NEXT(renameat2)(one, from, other, to, flags);
}
int mkdir(const char *name, mode_t mode) {
  return faulty_name("mkdir", AT_FDCWD, name) ? -1 : NEXT(mkdir)(name, mode);
}
int unlink(const char *name) {
  return faulty_name("unlink", AT_FDCWD, name) ? -1 : NEXT(unlink)(name);
}
int unlinkat(int folder, const char *name, int flags) {
  return faulty_name("unlink", folder, name) ? -1 : NEXT(unlinkat)(folder, name, flags);
}
