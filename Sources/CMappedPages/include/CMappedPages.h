#ifndef COMPRESS_MAPPED_PAGES_H
#define COMPRESS_MAPPED_PAGES_H

#include <stddef.h>

// Mapped files that another program cuts short while they are read.
//
// Touching a page behind the new end of such a file raises SIGBUS. Where the page belongs to a mapping that is watched, a page of zeros is put
// in its place, so that reading goes on, and the file is remembered: whoever reads asks for it before anything is made of what was read.
// Checking every read instead would cost a system call each.

// Watches a private, read-only mapping of a file. Returns 0 where there is no memory for it.
int compress_watch_mapping(const void *base, size_t length, const char *path);
// To be called before the mapping is undone.
void compress_forget_mapping(const void *base);
// Copies the path of a file that was cut short into `path` and forgets about it. Returns 0 where there is none.
int compress_take_cut_file(char *path, size_t capacity);

#endif
