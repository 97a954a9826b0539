// Makes one call into the file system fail, or ends the process there: for tests of what a run leaves behind.
//
//   clang -shared -fPIC -O1 -o faults.so tools/faults.c -ldl
//   FAULTS_UNDER=/dir FAULTS_AT=17 FAULTS_MODE=fail LD_PRELOAD=./faults.so compress …
//
// Counted is every call that opens, reads, maps, writes, lengthens, names, removes or synchronizes something under FAULTS_UNDER, in the order in
// which the process makes them. The call of number FAULTS_AT does nothing and returns an error as a full disk or a broken one gives (mode
// `fail`), or the process gets SIGKILL instead (mode `stop`). FAULTS_LOG, if named, gets one line for every call: its number, its name and the path.
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
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long calls;
static __thread int inside;

static int is_under(const char *path) {
  const char *place = getenv("FAULTS_UNDER");
  return place && path && strncmp(path, place, strlen(place)) == 0;
}

static const char *path_of(int descriptor, char *path) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t length = readlink(link, path, PATH_MAX - 1);
  if (length < 0) return NULL;
  path[length] = 0;
  return path;
}

static void note(long number, const char *name, const char *path) {
  const char *file = getenv("FAULTS_LOG");
  if (!file) return;
  int log = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (log < 0) return;
  dprintf(log, "%ld %s %s\n", number, name, path);
  close(log);
}

// Whether this call is the one that fails; does not return where the process is to end.
static int fails(const char *name, const char *path) {
  if (inside || !is_under(path)) return 0;
  inside = 1;
  long number = atomic_fetch_add(&calls, 1) + 1;
  note(number, name, path);
  const char *at = getenv("FAULTS_AT");
  int hit = at && atol(at) == number;
  if (hit && strcmp(getenv("FAULTS_MODE") ? getenv("FAULTS_MODE") : "fail", "stop") == 0) kill(getpid(), SIGKILL);
  inside = 0;
  return hit;
}

static int fails_at(const char *name, int descriptor) {
  char path[PATH_MAX];
  if (inside || !path_of(descriptor, path)) return 0;
  return fails(name, path);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAIL(code) return errno = (code), -1

static int opened(const char *name, int at, const char *path, int flags, mode_t mode) {
  if (fails(name, path)) FAIL((flags & O_ACCMODE) == O_RDONLY ? EIO : ENOSPC);
  return NEXT(openat)(at, path, flags, mode);
}

static mode_t mode_of(int flags, va_list list) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0; }

#define OPEN(name, ...) \
  va_list list; \
  va_start(list, flags); \
  mode_t mode = mode_of(flags, list); \
  va_end(list); \
  return opened(name, __VA_ARGS__, path, flags, mode)

int open(const char *path, int flags, ...) { OPEN("open", AT_FDCWD); }
int open64(const char *path, int flags, ...) { OPEN("open", AT_FDCWD); }
int openat(int at, const char *path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  mode_t mode = mode_of(flags, list);
  va_end(list);
  static int (*next)(int, const char *, int, ...);
  if (!next) next = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, "openat");
  if (fails("openat", path)) FAIL((flags & O_ACCMODE) == O_RDONLY ? EIO : ENOSPC);
  return next(at, path, flags, mode);
}

ssize_t read(int file, void *bytes, size_t count) {
  if (fails_at("read", file)) FAIL(EIO);
  return NEXT(read)(file, bytes, count);
}
ssize_t pread(int file, void *bytes, size_t count, off_t offset) {
  if (fails_at("pread", file)) FAIL(EIO);
  return NEXT(pread)(file, bytes, count, offset);
}
ssize_t write(int file, const void *bytes, size_t count) {
  if (fails_at("write", file)) FAIL(ENOSPC);
  return NEXT(write)(file, bytes, count);
}
ssize_t pwrite(int file, const void *bytes, size_t count, off_t offset) {
  if (fails_at("pwrite", file)) FAIL(ENOSPC);
  return NEXT(pwrite)(file, bytes, count, offset);
}
ssize_t writev(int file, const struct iovec *pieces, int count) {
  if (fails_at("writev", file)) FAIL(ENOSPC);
  return NEXT(writev)(file, pieces, count);
}
ssize_t copy_file_range(int from, off_t *first, int to, off_t *second, size_t count, unsigned flags) {
  if (fails_at("copy_file_range", to)) FAIL(ENOSPC);
  return NEXT(copy_file_range)(from, first, to, second, count, flags);
}
int ftruncate(int file, off_t length) {
  if (fails_at("ftruncate", file)) FAIL(ENOSPC);
  return NEXT(ftruncate)(file, length);
}
int fsync(int file) {
  if (fails_at("fsync", file)) FAIL(EIO);
  return NEXT(fsync)(file);
}
int fdatasync(int file) {
  if (fails_at("fdatasync", file)) FAIL(EIO);
  return NEXT(fdatasync)(file);
}
int rename(const char *from, const char *to) {
  if (fails("rename", to)) FAIL(EIO);
  return NEXT(rename)(from, to);
}
int renameat2(int from, const char *old, int to, const char *new, unsigned flags) {
  if (fails("renameat2", new)) FAIL(EIO);
  return NEXT(renameat2)(from, old, to, new, flags);
}
int mkdir(const char *path, mode_t mode) {
  if (fails("mkdir", path)) FAIL(ENOSPC);
  return NEXT(mkdir)(path, mode);
}
int unlink(const char *path) {
  if (fails("unlink", path)) FAIL(EIO);
  return NEXT(unlink)(path);
}
int rmdir(const char *path) {
  if (fails("rmdir", path)) FAIL(EIO);
  return NEXT(rmdir)(path);
}
void *mmap(void *place, size_t length, int protection, int flags, int file, off_t offset) {
  static void *(*next)(void *, size_t, int, int, int, off_t);
  if (!next) next = (void *(*)(void *, size_t, int, int, int, off_t))dlsym(RTLD_NEXT, "mmap");
  if (file >= 0 && fails_at("mmap", file)) return errno = ENOMEM, MAP_FAILED;
  return next(place, length, protection, flags, file, offset);
}
