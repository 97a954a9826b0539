// The fast Walsh-Hadamard transform, in double so that a rotated weight is as good as one rounded once.
#include "dispatch.h"

// Strides 1, 2 and 4 at once: eight numbers stay in registers.
BODY void transform_eight(double *x) {
  double a[8], b[8];
  for (size_t i = 0; i < 4; i++) {
    a[i] = x[i] + x[i + 4];
    a[i + 4] = x[i] - x[i + 4];
  }
  for (size_t i = 0; i < 8; i += 4)
    for (size_t j = i; j < i + 2; j++) {
      b[j] = a[j] + a[j + 2];
      b[j + 2] = a[j] - a[j + 2];
    }
  for (size_t i = 0; i < 8; i += 2) {
    x[i] = b[i] + b[i + 1];
    x[i + 1] = b[i] - b[i + 1];
  }
}

BODY void compress_walsh_hadamard_body(double *x, size_t count) {
  size_t half = 1;
  if (count >= 8) {
    for (size_t i = 0; i < count; i += 8) transform_eight(x + i);
    half = 8;
  }
  for (; half < count; half *= 2)
    for (size_t i = 0; i < count; i += 2 * half) {
      double *restrict low = x + i, *restrict high = x + i + half;
      for (size_t j = 0; j < half; j++) {
        const double a = low[j], b = high[j];
        low[j] = a + b;
        high[j] = a - b;
      }
    }
}
VARIANTS(void, compress_walsh_hadamard, (double *x, size_t count), (x, count))
