// Rounding to floats of few bits (E4M3, E2M1, E2M3: no infinities). A number's binade gives the step of the grid around it; below the
// smallest normal number the step no longer shrinks. Halves go to even, magnitudes beyond the largest to the largest.
#include "dispatch.h"

typedef struct {
  float magnitude, step, count;
  uint32_t binade;
} rounded;

BODY rounded round_magnitude(float x, unsigned mantissa, int min_exponent, float largest) {
  rounded r;
  float a = fabsf(x);
  a = a > largest ? largest : a;
  const uint32_t lowest = (uint32_t)(min_exponent + 127);
  uint32_t e = compress_bits(a) >> 23;
  e = e < lowest ? lowest : e;
  r.binade = e - lowest;
  r.step = compress_float((e - mantissa) << 23);
  r.count = round_even(a * compress_float((254 + mantissa - e) << 23));
  r.magnitude = r.count * r.step;
  return r;
}

BODY void compress_minifloat_encode_body(
    const float *x, float scale, unsigned mantissa, int min_exponent, float largest, uint8_t sign, uint8_t *codes, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const float v = x[i] / scale;
    const rounded r = round_magnitude(v, mantissa, min_exponent, largest);
    // The implicit leading one of a normal number is what carries its exponent field to binade + 1.
    const uint32_t code = (r.binade << mantissa) + (uint32_t)(int32_t)r.count;
    codes[i] = (uint8_t)(code | (compress_bits(v) >> 31 ? sign : 0));
  }
}
VARIANTS(
    void, compress_minifloat_encode,
    (const float *x, float scale, unsigned mantissa, int min_exponent, float largest, uint8_t sign, uint8_t *codes, size_t count),
    (x, scale, mantissa, min_exponent, largest, sign, codes, count))

BODY void compress_minifloat_decode_body(const uint8_t *codes, const float *table, float scale, float *out, size_t count) {
  for (size_t i = 0; i < count; i++) out[i] = table[codes[i]] * scale;
}
VARIANTS(
    void, compress_minifloat_decode, (const uint8_t *codes, const float *table, float scale, float *out, size_t count),
    (codes, table, scale, out, count))

BODY void compress_minifloat_round_body(
    const float *x, float scale, unsigned mantissa, int min_exponent, float largest, float *out, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const rounded r = round_magnitude(x[i] / scale, mantissa, min_exponent, largest);
    out[i] = (x[i] < 0 ? -r.magnitude : r.magnitude) * scale;
  }
}
VARIANTS(
    void, compress_minifloat_round,
    (const float *x, float scale, unsigned mantissa, int min_exponent, float largest, float *out, size_t count),
    (x, scale, mantissa, min_exponent, largest, out, count))

BODY float compress_minifloat_error_body(
    const float *x, const float *importance, float scale, unsigned mantissa, int min_exponent, float largest, size_t count) {
  float lane[16] = {0}, sum = 0;
  for (size_t i = 0; i < count; i++) {
    const rounded r = round_magnitude(x[i] / scale, mantissa, min_exponent, largest);
    const float e = fabsf(x[i]) - r.magnitude * scale;
    lane[i % 16] += (importance ? importance[i] * e : e) * e;
  }
  for (size_t j = 0; j < 16; j++) sum += lane[j];
  return sum;
}
VARIANTS(
    float, compress_minifloat_error,
    (const float *x, const float *importance, float scale, unsigned mantissa, int min_exponent, float largest, size_t count),
    (x, importance, scale, mantissa, min_exponent, largest, count))

// The sequential heart of GPTQ (see gptq.c) on a float grid: codes are left to `compress_minifloat_encode` of weight − error.
BODY void compress_gptq_block_minifloat_body(
    float *restrict target, const float *restrict weight, const float *restrict feedback, size_t feedback_stride,
    const float *restrict scale, unsigned mantissa, int min_exponent, float largest, float *restrict errors, size_t columns, size_t rows) {
  for (size_t i = 0; i < columns; i++) {
    const size_t at = i * rows;
    float *e = errors + at;
    for (size_t r = 0; r < rows; r++) {
      const float t = target[at + r], s = scale[at + r];
      const float magnitude = round_magnitude(t / s, mantissa, min_exponent, largest).magnitude * s;
      e[r] = weight[at + r] - (t < 0 ? -magnitude : magnitude);
    }
    for (size_t k = i + 1; k < columns; k++) {
      const float factor = feedback[i * feedback_stride + k];
      float *t = target + k * rows;
      for (size_t r = 0; r < rows; r++) t[r] += factor * e[r];
    }
  }
}
VARIANTS(
    void, compress_gptq_block_minifloat,
    (float *target, const float *weight, const float *feedback, size_t feedback_stride, const float *scale, unsigned mantissa,
     int min_exponent, float largest, float *errors, size_t columns, size_t rows),
    (target, weight, feedback, feedback_stride, scale, mantissa, min_exponent, largest, errors, columns, rows))
