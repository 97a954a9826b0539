#pragma once

#include <stddef.h>
#include <stdint.h>

/// The driver of libFuzzer: parses its options and calls `body` until they say that it is enough.
int LLVMFuzzerRunDriver(int *count, char ***arguments, int (*body)(const uint8_t *data, size_t size));
