#define _GNU_SOURCE
#include "CMappedPages.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

// The handler reads the list without a lock, so that slots are only ever added to it and used again.
struct slot {
  _Atomic uintptr_t base; // 0 where the slot is free
  _Atomic size_t length;
  char *_Atomic path;
  struct slot *next;
};

static struct slot *_Atomic slots;
// The path of the first file that was found cut and not asked about yet; it is not freed while it stands here.
static char *_Atomic cut;
static pthread_mutex_t changing = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction before;
static size_t page_size;

static void on_bus_error(int number, siginfo_t *info, void *context) {
  const int error = errno;
  const uintptr_t at = (uintptr_t)info->si_addr;
  for (struct slot *slot = atomic_load(&slots); slot; slot = slot->next) {
    const uintptr_t base = atomic_load(&slot->base);
    if (base == 0 || at < base || at - base >= atomic_load(&slot->length)) continue;
    void *page = (void *)(at & ~(uintptr_t)(page_size - 1));
    if (mmap(page, page_size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) break;
    char *none = NULL;
    atomic_compare_exchange_strong(&cut, &none, atomic_load(&slot->path));
    errno = error;
    return;
  }
  // Somebody else's: it strikes again, and ends the process as it would have.
  sigaction(SIGBUS, &before, NULL);
  errno = error;
}

int compress_watch_mapping(const void *base, size_t length, const char *path) {
  char *copy = strdup(path);
  if (!copy) return 0;
  pthread_mutex_lock(&changing);
  if (page_size == 0) {
    page_size = (size_t)sysconf(_SC_PAGESIZE);
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &before);
  }
  struct slot *slot = atomic_load(&slots);
  while (slot && atomic_load(&slot->base) != 0) slot = slot->next;
  const int is_new = !slot;
  if (is_new) slot = calloc(1, sizeof *slot);
  if (slot) {
    atomic_store(&slot->path, copy);
    atomic_store(&slot->length, length);
    atomic_store(&slot->base, (uintptr_t)base);
    if (is_new) {
      slot->next = atomic_load(&slots);
      atomic_store(&slots, slot);
    }
  } else {
    free(copy);
  }
  pthread_mutex_unlock(&changing);
  return slot != NULL;
}

void compress_forget_mapping(const void *base) {
  pthread_mutex_lock(&changing);
  for (struct slot *slot = atomic_load(&slots); slot; slot = slot->next) {
    if (atomic_load(&slot->base) != (uintptr_t)base) continue;
    atomic_store(&slot->base, 0);
    char *path = atomic_exchange(&slot->path, NULL);
    // Whoever asks will free it.
    if (atomic_load(&cut) != path) free(path);
    break;
  }
  pthread_mutex_unlock(&changing);
}

int compress_take_cut_file(char *path, size_t capacity) {
  if (capacity == 0 || !atomic_load(&cut)) return 0;
  pthread_mutex_lock(&changing);
  char *found = atomic_exchange(&cut, NULL);
  if (found) {
    strncpy(path, found, capacity - 1);
    path[capacity - 1] = 0;
    int is_watched = 0;
    for (struct slot *slot = atomic_load(&slots); slot; slot = slot->next) is_watched |= atomic_load(&slot->path) == found;
    if (!is_watched) free(found);
  }
  pthread_mutex_unlock(&changing);
  return found != NULL;
}
