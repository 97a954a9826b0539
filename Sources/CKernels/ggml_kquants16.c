// Q2_K, Q3_K, Q6_K: 256 weights in sixteen groups of 16, which fill the lanes.
#include "ggml_lanes.h"

// The weights of a super-block's elements, from the importance of its columns: importance · √(factor · mean x² + x²).
BODY void weigh_block(const float *x, const float *importance, const lanes *v, float factor, lanes *w) {
  float sum = 0;
  for (size_t i = 0; i < 256; i++) sum += x[i] * x[i];
  const lanes variance = SPLAT(factor * sum / 256);
  lanes q[16];
  gather(importance, 16, 16, q);
  weigh(v, q, &variance, 16, w);
}

// The lanes of one group's codes.
BODY void scatter(const lanes *codes, size_t group, float offset, uint8_t *out) {
  for (size_t i = 0; i < 16; i++) out[i] = (uint8_t)(int32_t)(codes[i][group] + offset);
}

// Two bits of 256 codes: four runs of 32 share 32 bytes.
BODY void pack_twos(const uint8_t *codes, uint8_t *out) {
  for (size_t h = 0; h < 2; h++)
    for (size_t i = 0; i < 32; i++) {
      const uint8_t *c = codes + 128 * h + i;
      out[32 * h + i] = (c[0] & 3) | (uint8_t)((c[32] & 3) << 2) | (uint8_t)((c[64] & 3) << 4) | (uint8_t)((c[96] & 3) << 6);
    }
}

// MARK: Q2_K

BODY float scale_codes(const float *values, uint8_t *codes) {
  float most = 0;
  for (int g = 0; g < 16; g++) most = values[g] > most ? values[g] : most;
  const float factor = most > 0 ? 15.0f / most : 0;
  for (int g = 0; g < 16; g++) {
    const float code = factor * values[g];
    codes[g] = (uint8_t)(int32_t)round_even(code > 0 ? (code < 15.0f ? code : 15.0f) : 0);
  }
  return most / 15.0f;
}

BODY void quantize_q2(const float *x, const float *importance, size_t columns, uint8_t *out) {
  for (size_t first = 0; first < columns; first += 256, out += 84) {
    lanes v[16], w[16];
    struct affine_grid grid;
    gather(x + first, 16, 16, v);
    if (importance) {
      weigh_block(x + first, importance + first, v, 1, w);
      fit_affine(v, w, 16, 3, -0.9f, 0.05f, 36, 0, &grid);
    } else {
      for (size_t i = 0; i < 16; i++) w[i] = ABSOLUTE(v[i]);
      fit_affine(v, w, 16, 3, -0.5f, 0.1f, 15, 1, &grid);
    }
    const lanes minimums = -grid.low;
    uint8_t scale[16], minimum[16], codes[256];
    float d, dmin;
    if (importance) {
      // Lane 0 holds the scales, lane 1 the minimums.
      lanes values[16], weights[16], found[16], factor;
      for (int g = 0; g < 16; g++) {
        values[g] = weights[g] = SPLAT(0);
        values[g][0] = grid.scale[g];
        values[g][1] = minimums[g];
        weights[g][0] = weights[g][1] = grid.weight[g];
      }
      fit_positive(values, weights, 16, 15, found, &factor);
      for (int g = 0; g < 16; g++) {
        scale[g] = (uint8_t)(int32_t)found[g][0];
        minimum[g] = (uint8_t)(int32_t)found[g][1];
      }
      d = factor[0];
      dmin = factor[1];
    } else {
      float values[16];
      memcpy(values, &grid.scale, sizeof values);
      d = scale_codes(values, scale);
      memcpy(values, &minimums, sizeof values);
      dmin = scale_codes(values, minimum);
    }
    d = store_half(out + 80, d);
    dmin = store_half(out + 82, dmin);
    for (size_t g = 0; g < 16; g++) {
      out[g] = scale[g] | (uint8_t)(minimum[g] << 4);
      const float step = d * (float)scale[g];
      if (step != 0) {
        lanes row;
        memcpy(&row, x + first + 16 * g, sizeof row);
        const lane_bytes bytes = __builtin_convertvector(CODE((row + dmin * (float)minimum[g]) / step, 0, 3), lane_bytes);
        memcpy(codes + 16 * g, &bytes, sizeof bytes);
      } else {
        for (size_t i = 0; i < 16; i++)
          codes[16 * g + i] = (uint8_t)(int32_t)CODE(grid.code_scale * (v[i] - grid.code_low), 0, 3)[g];
      }
    }
    pack_twos(codes, out + 16);
  }
}

BODY void compress_quantize_q2_k_body(const float *x, const float *importance, size_t columns, uint8_t *out) {
  if (importance)
    quantize_q2(x, importance, columns, out);
  else
    quantize_q2(x, 0, columns, out);
}
VARIANTS(
    void, compress_quantize_q2_k, (const float *x, const float *importance, size_t columns, uint8_t *out), (x, importance, columns, out))

// MARK: Q3_K

// Codes −32 … 31 of sixteen scales, as 0 … 63, and what one of them is worth.
BODY float signed_scale_codes(const float *scales, uint8_t *codes) {
  float most = 0, value = 0;
  for (int g = 0; g < 16; g++)
    if (fabsf(scales[g]) > most) {
      most = fabsf(scales[g]);
      value = scales[g];
    }
  if (value == 0) {
    memset(codes, 32, 16);
    return 0;
  }
  const float factor = -32.0f / value;
  for (int g = 0; g < 16; g++) {
    const float code = factor * scales[g];
    codes[g] = (uint8_t)(32 + (int32_t)round_even(code > -32 ? (code < 31 ? code : 31) : -32));
  }
  return 1 / factor;
}

BODY void quantize_q3(const float *x, const float *importance, size_t columns, uint8_t *out) {
  for (size_t first = 0; first < columns; first += 256, out += 110) {
    lanes v[16], found[16], scales;
    uint8_t scale[16], codes[256];
    float d;
    lane_mask alive;
    gather(x + first, 16, 16, v);
    if (importance) {
      lanes w[16], sum = SPLAT(0), values[16], weights[16];
      struct signed_grid grid, outer;
      weigh_block(x + first, importance + first, v, 2, w);
      for (size_t i = 0; i < 16; i++) sum += w[i];
      fit_signed(v, w, 16, 4, &grid);
      for (size_t i = 0; i < 16; i++) found[i] = CODE(grid.code_scale * v[i], -4, 3);
      alive = grid.alive;
      // The scales are themselves quantized by the same search, in one lane.
      for (int g = 0; g < 16; g++) {
        values[g] = weights[g] = SPLAT(0);
        values[g][0] = grid.scale[g];
        weights[g][0] = sum[g];
      }
      fit_signed(values, weights, 16, 32, &outer);
      for (int g = 0; g < 16; g++) {
        const lanes code = CODE(outer.code_scale * values[g], -32, 31);
        scale[g] = outer.alive[0] ? (uint8_t)(int32_t)(code[0] + 32) : 0;
      }
      d = outer.scale[0];
    } else {
      float values[16];
      fit_signed_by_descent(v, 16, 4, found, &scales, &alive);
      memcpy(values, &scales, sizeof values);
      d = signed_scale_codes(values, scale);
    }
    d = store_half(out + 108, d);
    memset(out + 96, 0, 12);
    for (size_t g = 0; g < 16; g++) {
      out[96 + g % 8] |= (uint8_t)((scale[g] & 15) << (g < 8 ? 0 : 4));
      out[104 + g % 4] |= (uint8_t)((scale[g] >> 4) << (2 * (g / 4)));
      const float step = d * ((float)scale[g] - 32);
      if (step != 0) {
        lanes row;
        memcpy(&row, x + first + 16 * g, sizeof row);
        const lane_bytes bytes = __builtin_convertvector(CODE(row / step, -4, 3) + 4.0f, lane_bytes);
        memcpy(codes + 16 * g, &bytes, sizeof bytes);
      } else if (alive[g]) {
        scatter(found, g, 4, codes + 16 * g);
      } else {
        memset(codes + 16 * g, 0, 16);
      }
    }
    for (size_t i = 0; i < 32; i++) {
      uint8_t byte = 0;
      for (size_t k = 0; k < 8; k++) byte |= (uint8_t)((codes[32 * k + i] >> 2) << k);
      out[i] = byte;
    }
    pack_twos(codes, out + 32);
  }
}

BODY void compress_quantize_q3_k_body(const float *x, const float *importance, size_t columns, uint8_t *out) {
  if (importance)
    quantize_q3(x, importance, columns, out);
  else
    quantize_q3(x, 0, columns, out);
}
VARIANTS(
    void, compress_quantize_q3_k, (const float *x, const float *importance, size_t columns, uint8_t *out), (x, importance, columns, out))

// MARK: Q6_K

BODY void quantize_q6(const float *x, const float *importance, size_t columns, uint8_t *out) {
  for (size_t first = 0; first < columns; first += 256, out += 210) {
    lanes v[16], w[16];
    struct signed_grid grid;
    gather(x + first, 16, 16, v);
    if (importance)
      gather(importance + first, 16, 16, w);
    else
      for (size_t i = 0; i < 16; i++) w[i] = v[i] * v[i];
    fit_signed(v, w, 16, 32, &grid);
    float most = 0, value = 0;
    for (int g = 0; g < 16; g++)
      if (fabsf(grid.scale[g]) > most) {
        most = fabsf(grid.scale[g]);
        value = grid.scale[g];
      }
    if (most < GGML_EPSILON) {
      memset(out, 0, 210);
      continue;
    }
    const float factor = -128.0f / value, d = store_half(out + 208, 1 / factor);
    uint8_t codes[256];
    for (size_t g = 0; g < 16; g++) {
      const float code = factor * grid.scale[g];
      const int32_t scale = (int32_t)round_even(code > -128 ? (code < 127 ? code : 127) : -128);
      out[192 + g] = (uint8_t)scale;
      const float step = d * (float)scale;
      if (step != 0) {
        lanes row;
        memcpy(&row, x + first + 16 * g, sizeof row);
        const lane_bytes bytes = __builtin_convertvector(CODE(row / step, -32, 31) + 32.0f, lane_bytes);
        memcpy(codes + 16 * g, &bytes, sizeof bytes);
      } else {
        for (size_t i = 0; i < 16; i++)
          codes[16 * g + i] = grid.alive[g] ? (uint8_t)(int32_t)(CODE(grid.code_scale * v[i], -32, 31)[g] + 32) : 0;
      }
    }
    for (size_t h = 0; h < 2; h++)
      for (size_t i = 0; i < 32; i++) {
        const uint8_t *c = codes + 128 * h + i;
        out[64 * h + i] = (c[0] & 15) | (uint8_t)(c[64] << 4);
        out[64 * h + 32 + i] = (c[32] & 15) | (uint8_t)(c[96] << 4);
        out[128 + 32 * h + i] = (c[0] >> 4) | (uint8_t)((c[32] >> 4) << 2) | (uint8_t)((c[64] >> 4) << 4) | (uint8_t)((c[96] >> 4) << 6);
      }
  }
}

BODY void compress_quantize_q6_k_body(const float *x, const float *importance, size_t columns, uint8_t *out) {
  if (importance)
    quantize_q6(x, importance, columns, out);
  else
    quantize_q6(x, 0, columns, out);
}
VARIANTS(
    void, compress_quantize_q6_k, (const float *x, const float *importance, size_t columns, uint8_t *out), (x, importance, columns, out))
