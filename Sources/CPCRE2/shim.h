#ifndef COMPRESS_PCRE2_SHIM_H
#define COMPRESS_PCRE2_SHIM_H

// The header declares its 8-bit names only when the width is chosen before it is read.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

// The generic names are macros that Swift cannot see.
static inline size_t pcre2_no_offset(void) { return PCRE2_UNSET; }

#endif
