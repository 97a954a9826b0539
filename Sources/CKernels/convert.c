// BF16 and F16 to and from F32. BF16 is the upper half of F32; F16 goes through the exponent trick: shifted into place, its value is
// off by exactly 2¹¹², so one multiplication handles normal and subnormal numbers alike.
#include "dispatch.h"

const char *compress_instruction_set(void) {
  switch (compress_isa()) {
    case COMPRESS_AVX512: return "avx512";
    case COMPRESS_AVX2: return "avx2";
    default: return "baseline";
  }
}

BODY void compress_bf16_to_f32_body(const uint16_t *in, float *out, size_t count) {
  for (size_t i = 0; i < count; i++) out[i] = compress_float((uint32_t)in[i] << 16);
}
VARIANTS(void, compress_bf16_to_f32, (const uint16_t *in, float *out, size_t count), (in, out, count))

BODY void compress_f16_to_f32_body(const uint16_t *in, float *out, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const uint32_t sign = (uint32_t)(in[i] & 0x8000) << 16;
    const uint32_t magnitude = (uint32_t)(in[i] & 0x7FFF) << 13;
    const uint32_t finite = compress_bits(compress_float(magnitude) * 0x1p112f);
    const uint32_t special = magnitude | 0x7F800000u;
    out[i] = compress_float(sign | (magnitude >= 0x0F800000u ? special : finite));
  }
}
VARIANTS(void, compress_f16_to_f32, (const uint16_t *in, float *out, size_t count), (in, out, count))

BODY void compress_f32_to_bf16_body(const float *in, uint16_t *out, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const uint32_t bits = compress_bits(in[i]);
    const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
    const uint32_t quiet = (bits >> 16) | 0x40u;
    out[i] = (uint16_t)((bits & 0x7FFFFFFFu) > 0x7F800000u ? quiet : rounded);
  }
}
VARIANTS(void, compress_f32_to_bf16, (const float *in, uint16_t *out, size_t count), (in, out, count))

BODY void compress_f32_to_f16_body(const float *in, uint16_t *out, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const uint32_t bits = compress_bits(in[i]);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    const uint32_t magnitude = bits & 0x7FFFFFFFu;
    // A subnormal half is the integer nearest to |x| · 2²⁴; adding 0.5 (whose ulp is 2⁻²⁴) leaves that integer in the low bits.
    const uint32_t subnormal = compress_bits(compress_float(magnitude) + 0.5f) - 0x3F000000u;
    const uint32_t normal = (magnitude - 0x38000000u + 0xFFFu + ((magnitude >> 13) & 1u)) >> 13;
    const uint32_t special = magnitude > 0x7F800000u ? 0x7E00u : 0x7C00u;
    const uint32_t half = magnitude < 0x38800000u ? subnormal : (magnitude < 0x477FF000u ? normal : special);
    out[i] = (uint16_t)(sign | half);
  }
}
VARIANTS(void, compress_f32_to_f16, (const float *in, uint16_t *out, size_t count), (in, out, count))

BODY int compress_has_nonfinite_body(const float *in, size_t count) {
  uint32_t found = 0;
  for (size_t i = 0; i < count; i++) found |= (compress_bits(in[i]) & 0x7F800000u) == 0x7F800000u;
  return (int)found;
}
VARIANTS(int, compress_has_nonfinite, (const float *in, size_t count), (in, count))

BODY int compress_has_nonfinite16_body(const uint16_t *in, uint16_t exponent, size_t count) {
  uint16_t found = 0;
  for (size_t i = 0; i < count; i++) found |= (in[i] & exponent) == exponent;
  return found;
}
VARIANTS(int, compress_has_nonfinite16, (const uint16_t *in, uint16_t exponent, size_t count), (in, exponent, count))
