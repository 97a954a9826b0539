// MXFP4 (blocks of 32 under a power of two) and NVFP4 (blocks of 64, every 16 under an unsigned E4M3 scale): codes are 4-bit floats.
#include "ggml_lanes.h"

// Twice the values of E2M1.
static const float levels[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// The level nearest to x / scale, the first one of equals.
BODY uint8_t nearest(float x, float scale) {
  uint8_t code = 0;
  float best = fabsf(levels[0] * scale - x);
  for (int k = 1; k < 16; k++) {
    const float error = fabsf(levels[k] * scale - x);
    code = error < best ? (uint8_t)k : code;
    best = error < best ? error : best;
  }
  return code;
}

BODY void compress_quantize_mxfp4_body(const float *x, const float *importance, size_t columns, uint8_t *out) {
  (void)importance;
  for (size_t first = 0; first < columns; first += 32, out += 17) {
    float most = 0;
    for (size_t i = 0; i < 32; i++) most = fabsf(x[first + i]) > most ? fabsf(x[first + i]) : most;
    const int exponent = most > 0 ? (int)floorf(log2f(most)) - 2 + 127 : 0;
    out[0] = (uint8_t)(exponent < 0 ? 0 : exponent);
    const float d = compress_float(out[0] == 0 ? 0x00200000u : out[0] == 1 ? 0x00400000u : (uint32_t)(out[0] - 1) << 23);
    for (size_t i = 0; i < 16; i++) out[1 + i] = nearest(x[first + i], d) | (uint8_t)(nearest(x[first + 16 + i], d) << 4);
  }
}
VARIANTS(
    void, compress_quantize_mxfp4, (const float *x, const float *importance, size_t columns, uint8_t *out), (x, importance, columns, out))

// An unsigned E4M3 of at most 448; halves are rounded up.
BODY uint8_t ue4m3_of(float x) {
  if (!(x > 0)) return 0;
  x = x > 448 ? 448 : x;
  const uint32_t bits = compress_bits(x);
  const int exponent = (int)(bits >> 23) - 127 + 7;
  if (exponent <= 0) {
    const int mantissa = (int)(x * 512 + 0.5f);
    return (uint8_t)(mantissa > 7 ? 7 : mantissa);
  }
  uint32_t mantissa = ((bits >> 20) & 7) + ((bits >> 19) & 1);
  const int carried = exponent + (int)(mantissa >> 3);
  mantissa &= 7;
  return carried >= 15 ? 0x7E : (uint8_t)((uint32_t)carried << 3 | mantissa);
}

// Half the value of an unsigned E4M3, because the levels are doubled.
BODY float half_ue4m3(uint8_t byte) {
  if (byte == 0 || byte == 0x7F) return 0;
  const int exponent = (byte >> 3) & 15;
  const float mantissa = (float)(byte & 7);
  if (exponent == 0) return 0.5f * mantissa * 0x1p-9f;
  return 0.5f * (1 + mantissa / 8) * compress_float((uint32_t)(exponent + 120) << 23);
}

BODY void compress_quantize_nvfp4_body(const float *x, const float *importance, size_t columns, uint8_t *out) {
  (void)importance;
  for (size_t first = 0; first < columns; first += 64, out += 36)
    for (size_t s = 0; s < 4; s++) {
      const float *block = x + first + 16 * s;
      float most = 0;
      for (size_t i = 0; i < 16; i++) most = fabsf(block[i]) > most ? fabsf(block[i]) : most;
      out[s] = ue4m3_of(most / 6);
      const float d = half_ue4m3(out[s]);
      for (size_t i = 0; i < 8; i++) out[4 + 8 * s + i] = nearest(block[i], d) | (uint8_t)(nearest(block[i + 8], d) << 4);
    }
}
VARIANTS(
    void, compress_quantize_nvfp4, (const float *x, const float *importance, size_t columns, uint8_t *out), (x, importance, columns, out))
