// Q4_K, Q5_K: 256 weights in eight groups of 32, each with a 6-bit scale and a 6-bit minimum. Two super-blocks fill the lanes.
#include "ggml_lanes.h"

// Scales and minimums of eight groups, 6 bits each, in 12 bytes.
BODY void pack_scales(const uint8_t *scales, const uint8_t *minimums, uint8_t *out) {
  memset(out, 0, 12);
  for (int g = 0; g < 4; g++) {
    out[g] = scales[g] | (uint8_t)((scales[g + 4] >> 4) << 6);
    out[g + 4] = minimums[g] | (uint8_t)((minimums[g + 4] >> 4) << 6);
    out[g + 8] = (scales[g + 4] & 15) | (uint8_t)((minimums[g + 4] & 15) << 4);
  }
}

// The codes of a run of `length` weights for the scale and minimum as stored.
BODY void requantize(const float *x, float scale, float minimum, float top, size_t length, uint8_t *codes) {
  for (size_t i = 0; i < length; i += LANES) {
    lanes v;
    memcpy(&v, x + i, sizeof v);
    const lane_bytes bytes = __builtin_convertvector(CODE((v + minimum) / scale, 0, top), lane_bytes);
    memcpy(codes + i, &bytes, sizeof bytes);
  }
}

struct super_block {
  float d, dmin;
  uint8_t scales[8], minimums[8];
};

// Without importance the largest scale takes the largest code.
BODY float scale_codes(const float *values, uint8_t *codes) {
  float most = 0;
  for (int g = 0; g < 8; g++) most = values[g] > most ? values[g] : most;
  const float factor = most > 0 ? 63.0f / most : 0;
  for (int g = 0; g < 8; g++) {
    const float code = factor * values[g];
    codes[g] = (uint8_t)(int32_t)round_even(code > 0 ? (code < 63.0f ? code : 63.0f) : 0);
  }
  return most / 63.0f;
}

BODY void quantize_q45(const float *x, const float *importance, size_t columns, uint8_t *out, int bits) {
  const float top = bits == 4 ? 15 : 31;
  const size_t stride = bits == 4 ? 144 : 176;
  for (size_t first = 0; first < columns; first += LANES * 32) {
    const size_t blocks = columns - first >= LANES * 32 ? 2 : 1;
    lanes v[32], w[32], variance = SPLAT(0);
    gather(x + first, 32, blocks * 8, v);
    if (importance) {
      float sums[2] = {0, 0};
      for (size_t i = 0; i < 256; i++)
        for (size_t b = 0; b < blocks; b++) sums[b] += x[first + b * 256 + i] * x[first + b * 256 + i];
      for (int g = 0; g < LANES; g++) variance[g] = 2 * sums[g / 8] / 256;
      lanes q[32];
      gather(importance + first, 32, blocks * 8, q);
      weigh(v, q, &variance, 32, w);
    } else {
      for (size_t i = 0; i < 32; i++) variance += v[i] * v[i];
      const lanes mean = __builtin_elementwise_sqrt(variance / 32);
      for (size_t i = 0; i < 32; i++) w[i] = mean + ABSOLUTE(v[i]);
    }
    struct affine_grid grid;
    if (importance)
      fit_affine(v, w, 32, top, -0.9f, 0.05f, 36, 0, &grid);
    else if (bits == 4)
      fit_affine(v, w, 32, top, -1.0f, 0.1f, 20, 0, &grid);
    else
      fit_affine(v, w, 32, top, -0.5f, 0.1f, 15, 0, &grid);

    struct super_block block[2];
    const lanes minimums = -grid.low;
    if (importance) {
      // Lane 2b holds the scales of block b, lane 2b + 1 its minimums.
      lanes values[8], weights[8], codes[8], d;
      for (int g = 0; g < 8; g++) {
        values[g] = weights[g] = SPLAT(0);
        for (int b = 0; b < 2; b++) {
          values[g][2 * b] = grid.scale[8 * b + g];
          values[g][2 * b + 1] = minimums[8 * b + g];
          weights[g][2 * b] = weights[g][2 * b + 1] = grid.weight[8 * b + g];
        }
      }
      fit_positive(values, weights, 8, 63, codes, &d);
      for (int b = 0; b < 2; b++) {
        block[b].d = d[2 * b];
        block[b].dmin = d[2 * b + 1];
        for (int g = 0; g < 8; g++) {
          block[b].scales[g] = (uint8_t)(int32_t)codes[g][2 * b];
          block[b].minimums[g] = (uint8_t)(int32_t)codes[g][2 * b + 1];
        }
      }
    } else {
      float scale[LANES], minimum[LANES];
      memcpy(scale, &grid.scale, sizeof scale);
      memcpy(minimum, &minimums, sizeof minimum);
      for (int b = 0; b < 2; b++) {
        block[b].d = scale_codes(scale + 8 * b, block[b].scales);
        block[b].dmin = scale_codes(minimum + 8 * b, block[b].minimums);
      }
    }

    for (size_t b = 0; b < blocks; b++, out += stride) {
      const float d = store_half(out, block[b].d), dmin = store_half(out + 2, block[b].dmin);
      pack_scales(block[b].scales, block[b].minimums, out + 4);
      uint8_t codes[256];
      for (size_t g = 0; g < 8; g++) {
        const float scale = d * (float)block[b].scales[g];
        if (scale != 0) {
          requantize(x + first + b * 256 + g * 32, scale, dmin * (float)block[b].minimums[g], top, 32, codes + g * 32);
        } else {
          // A group whose scale vanished keeps the codes of its search.
          for (size_t i = 0; i < 32; i++)
            codes[g * 32 + i] = (uint8_t)(int32_t)CODE(grid.code_scale * (v[i] - grid.code_low), 0, top)[b * 8 + g];
        }
      }
      uint8_t *low = out + 16;
      if (bits == 5) {
        uint8_t *high = low;
        low += 32;
        for (size_t i = 0; i < 32; i++) {
          uint8_t byte = 0;
          for (size_t g = 0; g < 8; g++) byte |= (uint8_t)((codes[g * 32 + i] >> 4) << g);
          high[i] = byte;
        }
      }
      for (size_t c = 0; c < 4; c++)
        for (size_t i = 0; i < 32; i++) low[32 * c + i] = (codes[64 * c + i] & 15) | (uint8_t)(codes[64 * c + 32 + i] << 4);
    }
  }
}

BODY void compress_quantize_q4_k_body(const float *x, const float *importance, size_t columns, uint8_t *out) {
  if (importance)
    quantize_q45(x, importance, columns, out, 4);
  else
    quantize_q45(x, 0, columns, out, 4);
}
VARIANTS(
    void, compress_quantize_q4_k, (const float *x, const float *importance, size_t columns, uint8_t *out), (x, importance, columns, out))

BODY void compress_quantize_q5_k_body(const float *x, const float *importance, size_t columns, uint8_t *out) {
  if (importance)
    quantize_q45(x, importance, columns, out, 5);
  else
    quantize_q45(x, 0, columns, out, 5);
}
VARIANTS(
    void, compress_quantize_q5_k, (const float *x, const float *importance, size_t columns, uint8_t *out), (x, importance, columns, out))
