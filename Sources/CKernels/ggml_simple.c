// Q4_0, Q4_1, Q5_0, Q5_1, Q8_0: blocks of 32 weights with a scale of their own. With importance, sixteen blocks are searched at a time.
#include "ggml_lanes.h"

// Codes 0 … 31 of a block: low nibbles in 16 bytes (element i beside element i + 16), fifth bits in a word before them.
BODY void pack_nibbles(const uint8_t *codes, uint8_t *out) {
  for (size_t i = 0; i < 16; i++) out[i] = (codes[i] & 15) | (uint8_t)(codes[i + 16] << 4);
}

BODY void pack_fifth_bits(const uint8_t *codes, uint8_t *out) {
  uint32_t word = 0;
  for (size_t i = 0; i < 32; i++) word |= (uint32_t)(codes[i] >> 4) << i;
  memcpy(out, &word, 4);
}

// With importance the weights of a row share its mean square.
BODY void weigh_row(const float *x, const float *importance, float variance, size_t first, size_t blocks, lanes *v, lanes *w) {
  lanes q[32];
  const lanes spread = SPLAT(variance);
  gather(x + first, 32, blocks, v);
  gather(importance + first, 32, blocks, q);
  weigh(v, q, &spread, 32, w);
}

BODY float mean_square(const float *x, size_t columns) {
  float sum = 0;
  for (size_t i = 0; i < columns; i++) sum += x[i] * x[i];
  return sum / (float)columns;
}

// MARK: Symmetric: d · (code − half)

BODY void quantize_symmetric(const float *x, const float *importance, size_t columns, uint8_t *out, float half) {
  const size_t stride = half == 8 ? 18 : 22;
  const float variance = importance ? mean_square(x, columns) : 0;
  for (size_t first = 0; first < columns; first += LANES * 32) {
    const size_t blocks = columns - first < LANES * 32 ? (columns - first) / 32 : LANES;
    lanes v[32], w[32];
    struct signed_grid grid;
    if (importance) {
      weigh_row(x, importance, variance, first, blocks, v, w);
      fit_signed(v, w, 32, half, &grid);
    }
    for (size_t b = 0; b < blocks; b++, out += stride) {
      const float *block = x + first + 32 * b;
      uint8_t codes[32];
      if (importance) {
        store_half(out, grid.scale[b]);
        const float scale = grid.code_scale[b];
        for (size_t i = 0; i < 32; i++) {
          const float code = scale * block[i];
          codes[i] = grid.alive[b] ? (uint8_t)(int32_t)(round_even(code > -half ? (code < half - 1 ? code : half - 1) : -half) + half) : 0;
        }
      } else {
        float most = 0, value = 0;
        for (size_t i = 0; i < 32; i++) most = fabsf(block[i]) > most ? fabsf(block[i]) : most;
        for (size_t i = 0; i < 32; i++)
          if (fabsf(block[i]) == most) {
            value = block[i];
            break;
          }
        const float d = value / -half, inverse = d != 0 ? 1 / d : 0;
        store_half(out, d);
        for (size_t i = 0; i < 32; i++) {
          const float code = block[i] * inverse + (half + 0.5f);
          codes[i] = (uint8_t)(int32_t)(code > 0 ? (code < 2 * half - 1 ? code : 2 * half - 1) : 0);
        }
      }
      if (half == 16) pack_fifth_bits(codes, out + 2);
      pack_nibbles(codes, out + (half == 16 ? 6 : 2));
    }
  }
}

BODY void compress_quantize_q4_0_body(const float *x, const float *importance, size_t columns, uint8_t *out) {
  if (importance)
    quantize_symmetric(x, importance, columns, out, 8);
  else
    quantize_symmetric(x, 0, columns, out, 8);
}
VARIANTS(
    void, compress_quantize_q4_0, (const float *x, const float *importance, size_t columns, uint8_t *out), (x, importance, columns, out))

BODY void compress_quantize_q5_0_body(const float *x, const float *importance, size_t columns, uint8_t *out) {
  if (importance)
    quantize_symmetric(x, importance, columns, out, 16);
  else
    quantize_symmetric(x, 0, columns, out, 16);
}
VARIANTS(
    void, compress_quantize_q5_0, (const float *x, const float *importance, size_t columns, uint8_t *out), (x, importance, columns, out))

// MARK: Affine: d · code + m

BODY void quantize_affine(const float *x, const float *importance, size_t columns, uint8_t *out, float top) {
  const size_t stride = top == 15 ? 20 : 24;
  const float variance = importance ? mean_square(x, columns) : 0;
  for (size_t first = 0; first < columns; first += LANES * 32) {
    const size_t blocks = columns - first < LANES * 32 ? (columns - first) / 32 : LANES;
    lanes v[32], w[32];
    struct affine_grid grid;
    if (importance) {
      weigh_row(x, importance, variance, first, blocks, v, w);
      fit_affine(v, w, 32, top, -0.9f, 0.05f, 36, 0, &grid);
    }
    for (size_t b = 0; b < blocks; b++, out += stride) {
      const float *block = x + first + 32 * b;
      uint8_t codes[32];
      if (importance) {
        store_half(out, grid.scale[b]);
        store_half(out + 2, grid.low[b]);
        const float scale = grid.code_scale[b], low = grid.code_low[b];
        for (size_t i = 0; i < 32; i++) {
          const float code = scale * (block[i] - low);
          codes[i] = (uint8_t)(int32_t)round_even(code > 0 ? (code < top ? code : top) : 0);
        }
      } else {
        float low = block[0], high = block[0];
        for (size_t i = 1; i < 32; i++) {
          low = block[i] < low ? block[i] : low;
          high = block[i] > high ? block[i] : high;
        }
        const float d = (high - low) / top, inverse = d != 0 ? 1 / d : 0;
        store_half(out, d);
        store_half(out + 2, low);
        for (size_t i = 0; i < 32; i++) {
          const float code = (block[i] - low) * inverse + 0.5f;
          codes[i] = (uint8_t)(int32_t)(code > 0 ? (code < top ? code : top) : 0);
        }
      }
      if (top == 31) pack_fifth_bits(codes, out + 4);
      pack_nibbles(codes, out + (top == 31 ? 8 : 4));
    }
  }
}

BODY void compress_quantize_q4_1_body(const float *x, const float *importance, size_t columns, uint8_t *out) {
  if (importance)
    quantize_affine(x, importance, columns, out, 15);
  else
    quantize_affine(x, 0, columns, out, 15);
}
VARIANTS(
    void, compress_quantize_q4_1, (const float *x, const float *importance, size_t columns, uint8_t *out), (x, importance, columns, out))

BODY void compress_quantize_q5_1_body(const float *x, const float *importance, size_t columns, uint8_t *out) {
  if (importance)
    quantize_affine(x, importance, columns, out, 31);
  else
    quantize_affine(x, 0, columns, out, 31);
}
VARIANTS(
    void, compress_quantize_q5_1, (const float *x, const float *importance, size_t columns, uint8_t *out), (x, importance, columns, out))

// MARK: Q8_0: d · code, importance or not

BODY void compress_quantize_q8_0_body(const float *x, const float *importance, size_t columns, uint8_t *out) {
  (void)importance;
  for (size_t first = 0; first < columns; first += 32, out += 34) {
    float most = 0;
    for (size_t i = 0; i < 32; i++) most = fabsf(x[first + i]) > most ? fabsf(x[first + i]) : most;
    const float d = most / 127.0f, inverse = d != 0 ? 1 / d : 0;
    store_half(out, d);
    for (size_t i = 0; i < 32; i++) {
      // Half away from zero.
      const float code = x[first + i] * inverse, magnitude = fabsf(code);
      const float whole = (float)(int32_t)(magnitude < 127.0f ? magnitude : 127.0f);
      const float rounded = magnitude - whole >= 0.5f && whole < 127.0f ? whole + 1 : whole;
      out[2 + i] = (uint8_t)(int8_t)(int32_t)(code < 0 ? -rounded : rounded);
    }
  }
}
VARIANTS(
    void, compress_quantize_q8_0, (const float *x, const float *importance, size_t columns, uint8_t *out), (x, importance, columns, out))
