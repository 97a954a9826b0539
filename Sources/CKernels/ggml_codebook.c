// The numbers that blocks of ggml's IQ1, IQ2, IQ3, TQ and one- and two-bit types stand for: types that are read and never written here.
#include "ggml_lanes.h"
#include "ggml_codebooks.h"

#define DEQUANTIZE(name) VARIANTS(void, compress_dequantize_##name, (const uint8_t *in, float *out, size_t columns), (in, out, columns))

static const float magnitudes2[4] = {8, 25, 43, 0};
static const float magnitudes3[8] = {4, 12, 20, 28, 36, 44, 52, 62};
static const float odd[8] = {1, 3, 5, 7, 9, 11, 13, 15};
static const float trits[4] = {-1, 0, 1, 0};

BODY uint32_t word32(const uint8_t *in) {
  uint32_t value;
  memcpy(&value, in, 4);
  return value;
}

BODY uint16_t word16(const uint8_t *in) {
  uint16_t value;
  memcpy(&value, in, 2);
  return value;
}

// Seven signs; the eighth makes their number even.
BODY uint32_t even_signs(uint32_t seven) {
  seven &= 127;
  return seven | (uint32_t)(__builtin_popcount(seven) & 1) << 7;
}

// Eight numbers of an entry of two bits each.
BODY void eight(uint16_t code, const float *numbers, uint32_t signs, float scale, float *out) {
  for (int j = 0; j < 8; j++) {
    const float value = scale * numbers[code >> 2 * j & 3];
    out[j] = signs >> j & 1 ? -value : value;
  }
}

// Four numbers of an entry of three bits each.
BODY void four(uint16_t code, const float *numbers, uint32_t signs, float scale, float *out) {
  for (int j = 0; j < 4; j++) {
    const float value = scale * numbers[code >> 3 * j & 7];
    out[j] = signs >> j & 1 ? -value : value;
  }
}

BODY void compress_dequantize_iq2_xxs_body(const uint8_t *in, float *out, size_t columns) {
  for (size_t b = 0; b < columns / 256; b++, in += 66) {
    const float d = load_half(in);
    for (int group = 0; group < 8; group++) {
      const uint8_t *part = in + 2 + 8 * group;
      const uint32_t word = word32(part + 4);
      const float scale = d * (0.5f + (float)(word >> 28)) * 0.25f;
      for (int l = 0; l < 4; l++, out += 8) eight(iq2_xxs_grid[part[l]], magnitudes2, even_signs(word >> 7 * l), scale, out);
    }
  }
}
DEQUANTIZE(iq2_xxs)

BODY void compress_dequantize_iq2_xs_body(const uint8_t *in, float *out, size_t columns) {
  for (size_t b = 0; b < columns / 256; b++, in += 74) {
    const float d = load_half(in);
    for (int group = 0; group < 8; group++) {
      const uint8_t scales = in[66 + group];
      for (int l = 0; l < 4; l++, out += 8) {
        const uint16_t code = word16(in + 2 + 8 * group + 2 * l);
        const float scale = d * (0.5f + (float)(l < 2 ? scales & 15 : scales >> 4)) * 0.25f;
        eight(iq2_xs_grid[code & 511], magnitudes2, even_signs(code >> 9), scale, out);
      }
    }
  }
}
DEQUANTIZE(iq2_xs)

BODY void compress_dequantize_iq2_s_body(const uint8_t *in, float *out, size_t columns) {
  for (size_t b = 0; b < columns / 256; b++, in += 82) {
    const float d = load_half(in);
    for (int group = 0; group < 8; group++) {
      const uint8_t high = in[66 + group], scales = in[74 + group];
      for (int l = 0; l < 4; l++, out += 8) {
        const uint32_t index = in[2 + 4 * group + l] | ((uint32_t)high << (8 - 2 * l) & 0x300);
        const float scale = d * (0.5f + (float)(l < 2 ? scales & 15 : scales >> 4)) * 0.25f;
        eight(iq2_s_grid[index], magnitudes2, in[34 + 4 * group + l], scale, out);
      }
    }
  }
}
DEQUANTIZE(iq2_s)

BODY void compress_dequantize_iq3_xxs_body(const uint8_t *in, float *out, size_t columns) {
  for (size_t b = 0; b < columns / 256; b++, in += 98) {
    const float d = load_half(in);
    for (int group = 0; group < 8; group++) {
      const uint32_t word = word32(in + 66 + 4 * group);
      const float scale = d * (0.5f + (float)(word >> 28)) * 0.5f;
      for (int l = 0; l < 4; l++, out += 8) {
        const uint32_t signs = even_signs(word >> 7 * l);
        const uint8_t *part = in + 2 + 8 * group + 2 * l;
        four(iq3_xxs_grid[part[0]], magnitudes3, signs, scale, out);
        four(iq3_xxs_grid[part[1]], magnitudes3, signs >> 4, scale, out + 4);
      }
    }
  }
}
DEQUANTIZE(iq3_xxs)

BODY void compress_dequantize_iq3_s_body(const uint8_t *in, float *out, size_t columns) {
  for (size_t b = 0; b < columns / 256; b++, in += 110) {
    const float d = load_half(in);
    for (int group = 0; group < 8; group++) {
      const uint32_t high = in[66 + group], scales = in[106 + group / 2];
      const float scale = d * (float)(1 + 2 * (group % 2 == 0 ? scales & 15 : scales >> 4));
      for (int l = 0; l < 4; l++, out += 8) {
        const uint32_t signs = in[74 + 4 * group + l];
        const uint8_t *part = in + 2 + 8 * group + 2 * l;
        four(iq3_s_grid[part[0] | (high << (8 - 2 * l) & 256)], odd, signs, scale, out);
        four(iq3_s_grid[part[1] | (high << (7 - 2 * l) & 256)], odd, signs >> 4, scale, out + 4);
      }
    }
  }
}
DEQUANTIZE(iq3_s)

// Eight of −1, 0 and 1, moved by an eighth.
BODY void shifted(uint16_t code, float scale, int isDown, float *out) {
  const float shift = isDown ? -0.125f : 0.125f;
  for (int j = 0; j < 8; j++) out[j] = scale * (trits[code >> 2 * j & 3] + shift);
}

BODY void compress_dequantize_iq1_s_body(const uint8_t *in, float *out, size_t columns) {
  for (size_t b = 0; b < columns / 256; b++, in += 50) {
    const float d = load_half(in);
    for (int group = 0; group < 8; group++) {
      const uint32_t high = word16(in + 34 + 2 * group);
      const float scale = d * (float)(2 * (high >> 12 & 7) + 1);
      for (int l = 0; l < 4; l++, out += 8)
        shifted(iq1_s_grid[in[2 + 4 * group + l] | (high >> 3 * l & 7) << 8], scale, high >> 15 & 1, out);
    }
  }
}
DEQUANTIZE(iq1_s)

// The scale of the block is spread over the top nibbles of the four words of its scales.
BODY void compress_dequantize_iq1_m_body(const uint8_t *in, float *out, size_t columns) {
  for (size_t b = 0; b < columns / 256; b++, in += 56) {
    uint16_t half = 0;
    for (int word = 0; word < 4; word++) half |= (uint16_t)((word16(in + 48 + 2 * word) >> 12) << 4 * word);
    const float d = load_half((const uint8_t *)&half);
    for (int group = 0; group < 8; group++) {
      const uint32_t scales = (uint32_t)word16(in + 48 + 2 * (group / 2)) >> 6 * (group % 2);
      for (int l = 0; l < 4; l++, out += 8) {
        const uint32_t high = (uint32_t)in[32 + 2 * group + l / 2] >> 4 * (l % 2);
        const float scale = d * (float)(2 * (scales >> 3 * (l / 2) & 7) + 1);
        shifted(iq1_s_grid[in[4 * group + l] | (high & 7) << 8], scale, high >> 3 & 1, out);
      }
    }
  }
}
DEQUANTIZE(iq1_m)

// Trit n of a byte that stands for five: the byte is a fraction of 256, and 3ⁿ brings the trit before the point.
BODY float trit(uint8_t byte, int n) {
  static const uint8_t powers[5] = {1, 3, 9, 27, 81};
  return (float)((uint8_t)(byte * powers[n]) * 3 >> 8) - 1;
}

BODY void compress_dequantize_tq1_0_body(const uint8_t *in, float *out, size_t columns) {
  for (size_t b = 0; b < columns / 256; b++, in += 54) {
    const float d = load_half(in + 52);
    for (int n = 0; n < 5; n++)
      for (int i = 0; i < 32; i++) *out++ = trit(in[i], n) * d;
    for (int n = 0; n < 5; n++)
      for (int i = 0; i < 16; i++) *out++ = trit(in[32 + i], n) * d;
    for (int n = 0; n < 4; n++)
      for (int i = 0; i < 4; i++) *out++ = trit(in[48 + i], n) * d;
  }
}
DEQUANTIZE(tq1_0)

BODY void compress_dequantize_tq2_0_body(const uint8_t *in, float *out, size_t columns) {
  for (size_t b = 0; b < columns / 256; b++, in += 66) {
    const float d = load_half(in + 64);
    for (int i = 0; i < 256; i++) *out++ = ((float)(in[i / 128 * 32 + i % 32] >> 2 * (i % 128 / 32) & 3) - 1) * d;
  }
}
DEQUANTIZE(tq2_0)

BODY void compress_dequantize_q1_0_body(const uint8_t *in, float *out, size_t columns) {
  for (size_t b = 0; b < columns / 128; b++, in += 18) {
    const float d = load_half(in);
    for (int i = 0; i < 128; i++) *out++ = in[2 + i / 8] >> i % 8 & 1 ? d : -d;
  }
}
DEQUANTIZE(q1_0)

BODY void compress_dequantize_q2_0_body(const uint8_t *in, float *out, size_t columns) {
  for (size_t b = 0; b < columns / 64; b++, in += 18) {
    const float d = load_half(in);
    for (int i = 0; i < 64; i++) *out++ = ((float)(in[2 + i / 4] >> 2 * (i % 4) & 3) - 1) * d;
  }
}
DEQUANTIZE(q2_0)
