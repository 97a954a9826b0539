// Run-time choice of the instruction set. Each operation is written once, as an always-inlined body; VARIANTS compiles it once per
// instruction set, so the compiler vectorises the same source for each, and DISPATCH calls the best one the machine has.
#ifndef COMPRESS_DISPATCH_H
#define COMPRESS_DISPATCH_H

#include "CKernels.h"

#include <math.h>
#include <string.h>

#define BODY static inline __attribute__((always_inline))

enum compress_isa { COMPRESS_BASELINE, COMPRESS_AVX2, COMPRESS_AVX512 };

#if defined(__x86_64__)

static inline enum compress_isa compress_isa(void) {
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    return COMPRESS_AVX512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return COMPRESS_AVX2;
  return COMPRESS_BASELINE;
}

#define VARIANTS(result, name, parameters, arguments)                                                            \
  static result name##_baseline parameters { return name##_body arguments; }                                     \
  __attribute__((target("avx2,fma"))) static result name##_avx2 parameters { return name##_body arguments; }     \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))) static result name##_avx512 parameters { \
    return name##_body arguments;                                                                                \
  }                                                                                                              \
  result name parameters {                                                                                       \
    switch (compress_isa()) {                                                                                    \
      case COMPRESS_AVX512: return name##_avx512 arguments;                                                      \
      case COMPRESS_AVX2: return name##_avx2 arguments;                                                          \
      default: return name##_baseline arguments;                                                                 \
    }                                                                                                            \
  }

#else

static inline enum compress_isa compress_isa(void) { return COMPRESS_BASELINE; }

#define VARIANTS(result, name, parameters, arguments) \
  result name parameters { return name##_body arguments; }

#endif

static inline float compress_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static inline uint32_t compress_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Adding and subtracting 1.5 · 2²³ rounds to nearest even in every instruction set, where rintf is a library call in some.
// Exact for |x| < 2²², which callers ensure.
BODY float round_even(float x) {
  const float magic = 12582912.0f;
  return (x + magic) - magic;
}

// eˣ to about 2 ulp for x in [−87, 88]; smaller x gives a number below 2⁻¹²⁵. Cody–Waite reduction by ln 2, then a degree-6 polynomial.
BODY float exponential(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const float n = round_even(x * 1.44269504f);
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * compress_float((uint32_t)((int32_t)n + 127) << 23);
}

// By halves, so that the additions do not wait for each other.
BODY float sum_of_lanes(float lane[16]) {
  for (size_t half = 8; half > 0; half /= 2)
    for (size_t j = 0; j < half; j++) lane[j] += lane[j + half];
  return lane[0];
}

#endif
