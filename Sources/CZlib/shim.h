#ifndef COMPRESS_ZLIB_SHIM_H
#define COMPRESS_ZLIB_SHIM_H

#include <zlib.h>

// Swift cannot see the macros that begin a stream. Window bits: -15 for bare deflate data, 15 + 32 for zlib or gzip, told by the header,
// 15 + 16 for gzip.
static inline int zlib_begin_inflate(z_streamp stream, int window_bits) { return inflateInit2(stream, window_bits); }

static inline int zlib_begin_deflate(z_streamp stream, int level, int window_bits) {
  return deflateInit2(stream, level, Z_DEFLATED, window_bits, 8, Z_DEFAULT_STRATEGY);
}

#endif
