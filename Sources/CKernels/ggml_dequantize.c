// The numbers that ggml's blocks stand for, `columns` of them, in the arithmetic of ggml: products and sums rounded one by one.
#include "ggml_lanes.h"

#define DEQUANTIZE(name) VARIANTS(void, compress_dequantize_##name, (const uint8_t *in, float *out, size_t columns), (in, out, columns))

BODY void nibbles(const uint8_t *in, float *low, float *high, size_t count) {
  for (size_t i = 0; i < count; i++) {
    low[i] = (float)(in[i] & 15);
    high[i] = (float)(in[i] >> 4);
  }
}

BODY void compress_dequantize_q4_0_body(const uint8_t *in, float *out, size_t columns) {
  for (size_t b = 0; b < columns / 32; b++, in += 18, out += 32) {
    const float d = load_half(in);
    nibbles(in + 2, out, out + 16, 16);
    for (size_t i = 0; i < 32; i++) out[i] = (out[i] - 8) * d;
  }
}
DEQUANTIZE(q4_0)

BODY void compress_dequantize_q4_1_body(const uint8_t *in, float *out, size_t columns) {
  for (size_t b = 0; b < columns / 32; b++, in += 20, out += 32) {
    const float d = load_half(in), m = load_half(in + 2);
    nibbles(in + 4, out, out + 16, 16);
    for (size_t i = 0; i < 32; i++) out[i] = out[i] * d + m;
  }
}
DEQUANTIZE(q4_1)

BODY void fives(const uint8_t *bits, const uint8_t *in, float *out) {
  uint32_t word;
  memcpy(&word, bits, 4);
  nibbles(in, out, out + 16, 16);
  for (size_t i = 0; i < 32; i++) out[i] += (float)((word >> i & 1) << 4);
}

BODY void compress_dequantize_q5_0_body(const uint8_t *in, float *out, size_t columns) {
  for (size_t b = 0; b < columns / 32; b++, in += 22, out += 32) {
    const float d = load_half(in);
    fives(in + 2, in + 6, out);
    for (size_t i = 0; i < 32; i++) out[i] = (out[i] - 16) * d;
  }
}
DEQUANTIZE(q5_0)

BODY void compress_dequantize_q5_1_body(const uint8_t *in, float *out, size_t columns) {
  for (size_t b = 0; b < columns / 32; b++, in += 24, out += 32) {
    const float d = load_half(in), m = load_half(in + 2);
    fives(in + 4, in + 8, out);
    for (size_t i = 0; i < 32; i++) out[i] = out[i] * d + m;
  }
}
DEQUANTIZE(q5_1)

BODY void compress_dequantize_q8_0_body(const uint8_t *in, float *out, size_t columns) {
  for (size_t b = 0; b < columns / 32; b++, in += 34, out += 32) {
    const float d = load_half(in);
    for (size_t i = 0; i < 32; i++) out[i] = (float)(int8_t)in[2 + i] * d;
  }
}
DEQUANTIZE(q8_0)

BODY void compress_dequantize_q2_k_body(const uint8_t *in, float *out, size_t columns) {
  for (size_t b = 0; b < columns / 256; b++, in += 84, out += 256) {
    const float d = load_half(in + 80), dmin = load_half(in + 82);
    for (size_t g = 0; g < 16; g++) {
      const float scale = d * (float)(in[g] & 15), minimum = dmin * (float)(in[g] >> 4);
      const uint8_t *codes = in + 16 + 32 * (g / 8) + 16 * (g % 2);
      const unsigned shift = 2 * (unsigned)(g % 8 / 2);
      for (size_t i = 0; i < 16; i++) out[16 * g + i] = scale * (float)(codes[i] >> shift & 3) - minimum;
    }
  }
}
DEQUANTIZE(q2_k)

BODY void compress_dequantize_q3_k_body(const uint8_t *in, float *out, size_t columns) {
  for (size_t b = 0; b < columns / 256; b++, in += 110, out += 256) {
    const float d = load_half(in + 108);
    for (size_t g = 0; g < 16; g++) {
      const int low = g < 8 ? in[96 + g] & 15 : in[88 + g] >> 4;
      const int high = in[104 + g % 4] >> (2 * (g / 4)) & 3;
      const float scale = d * (float)((low | high << 4) - 32);
      const uint8_t *codes = in + 32 + 32 * (g / 8) + 16 * (g % 2), *mask = in + 16 * (g % 2);
      const unsigned shift = 2 * (unsigned)(g % 8 / 2), bit = (unsigned)(g / 2);
      for (size_t i = 0; i < 16; i++)
        out[16 * g + i] = scale * (float)((codes[i] >> shift & 3) + ((mask[i] >> bit & 1) << 2) - 4);
    }
  }
}
DEQUANTIZE(q3_k)

BODY void group_scale(const uint8_t *s, size_t g, float *scale, float *minimum) {
  *scale = (float)(g < 4 ? s[g] & 63 : (s[g + 4] & 15) | (s[g - 4] >> 6) << 4);
  *minimum = (float)(g < 4 ? s[g + 4] & 63 : (s[g + 4] >> 4) | (s[g] >> 6) << 4);
}

BODY void compress_dequantize_q4_k_body(const uint8_t *in, float *out, size_t columns) {
  for (size_t b = 0; b < columns / 256; b++, in += 144, out += 256) {
    const float d = load_half(in), dmin = load_half(in + 2);
    for (size_t c = 0; c < 4; c++) nibbles(in + 16 + 32 * c, out + 64 * c, out + 64 * c + 32, 32);
    for (size_t g = 0; g < 8; g++) {
      float scale, minimum;
      group_scale(in + 4, g, &scale, &minimum);
      const float step = d * scale, base = dmin * minimum;
      for (size_t i = 0; i < 32; i++) out[32 * g + i] = step * out[32 * g + i] - base;
    }
  }
}
DEQUANTIZE(q4_k)

BODY void compress_dequantize_q5_k_body(const uint8_t *in, float *out, size_t columns) {
  for (size_t b = 0; b < columns / 256; b++, in += 176, out += 256) {
    const float d = load_half(in), dmin = load_half(in + 2);
    for (size_t c = 0; c < 4; c++) nibbles(in + 48 + 32 * c, out + 64 * c, out + 64 * c + 32, 32);
    for (size_t g = 0; g < 8; g++) {
      float scale, minimum;
      group_scale(in + 4, g, &scale, &minimum);
      const float step = d * scale, base = dmin * minimum;
      for (size_t i = 0; i < 32; i++) {
        const float code = out[32 * g + i] + (float)((in[16 + i] >> g & 1) << 4);
        out[32 * g + i] = step * code - base;
      }
    }
  }
}
DEQUANTIZE(q5_k)

BODY void compress_dequantize_q6_k_body(const uint8_t *in, float *out, size_t columns) {
  for (size_t b = 0; b < columns / 256; b++, in += 210, out += 256) {
    const float d = load_half(in + 208);
    for (size_t g = 0; g < 16; g++) {
      const float scale = d * (float)(int8_t)in[192 + g];
      const size_t h = g / 8, k = g % 8 / 2;
      const uint8_t *low = in + 64 * h + 32 * (k % 2) + 16 * (g % 2), *high = in + 128 + 32 * h + 16 * (g % 2);
      const unsigned nibble = k < 2 ? 0 : 4, shift = 2 * (unsigned)k;
      for (size_t i = 0; i < 16; i++)
        out[16 * g + i] = scale * (float)(((low[i] >> nibble & 15) | (high[i] >> shift & 3) << 4) - 32);
    }
  }
}
DEQUANTIZE(q6_k)

static const float iq4_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static const float fp4_levels[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

BODY void levels_of(const uint8_t *in, const float *table, float scale, float *out, size_t half) {
  for (size_t i = 0; i < half; i++) {
    out[i] = scale * table[in[i] & 15];
    out[i + half] = scale * table[in[i] >> 4];
  }
}

BODY void compress_dequantize_iq4_nl_body(const uint8_t *in, float *out, size_t columns) {
  for (size_t b = 0; b < columns / 32; b++, in += 18, out += 32) levels_of(in + 2, iq4_levels, load_half(in), out, 16);
}
DEQUANTIZE(iq4_nl)

BODY void compress_dequantize_iq4_xs_body(const uint8_t *in, float *out, size_t columns) {
  for (size_t b = 0; b < columns / 256; b++, in += 136, out += 256) {
    const float d = load_half(in);
    for (size_t g = 0; g < 8; g++) {
      const int scale = (in[4 + g / 2] >> (4 * (g % 2)) & 15) | (in[2 + g / 4] >> (2 * (g % 4)) & 3) << 4;
      levels_of(in + 8 + 16 * g, iq4_levels, d * (float)(scale - 32), out + 32 * g, 16);
    }
  }
}
DEQUANTIZE(iq4_xs)

BODY void compress_dequantize_mxfp4_body(const uint8_t *in, float *out, size_t columns) {
  for (size_t b = 0; b < columns / 32; b++, in += 17, out += 32) {
    // Half of 2^(e − 127), because the levels are doubled; the two smallest are subnormal.
    const float d = compress_float(in[0] == 0 ? 0x00200000u : in[0] == 1 ? 0x00400000u : (uint32_t)(in[0] - 1) << 23);
    levels_of(in + 1, fp4_levels, d, out, 16);
  }
}
DEQUANTIZE(mxfp4)

BODY void compress_dequantize_nvfp4_body(const uint8_t *in, float *out, size_t columns) {
  for (size_t b = 0; b < columns / 64; b++, in += 36, out += 64)
    for (size_t s = 0; s < 4; s++) {
      const int exponent = in[s] >> 3 & 15, mantissa = in[s] & 7;
      float d = exponent == 0 ? 0.5f * (float)mantissa * 0x1p-9f
                              : 0.5f * (1 + (float)mantissa / 8) * compress_float((uint32_t)(exponent + 120) << 23);
      if (in[s] == 0x7F) d = 0;
      levels_of(in + 4 + 8 * s, fp4_levels, d, out + 16 * s, 8);
    }
}
DEQUANTIZE(nvfp4)
