// IQ4_NL, IQ4_XS: codes into a fixed table of sixteen levels, denser around zero. Blocks of 32; IQ4_XS puts eight of them under one half.
#include "ggml_lanes.h"

static const float table[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

// The level nearest to x, a tie to the upper one. Midpoints of neighbouring levels are exact.
BODY void nearest_level(const lanes *x, lanes *level) {
  lanes found = SPLAT(table[0]);
  for (int k = 0; k < 15; k++) found += SELECT(*x >= 0.5f * (table[k] + table[k + 1]), SPLAT(table[k + 1] - table[k]), SPLAT(0));
  *level = found;
}

BODY uint8_t nearest_code(float x) {
  uint8_t code = 0;
  for (int k = 0; k < 15; k++) code += x >= 0.5f * (table[k] + table[k + 1]);
  return code;
}

// The scale with which the table fits best, one block a lane; 0 for a block of zeros.
BODY void fit_table(const lanes *x, const lanes *w, lanes *scale) {
  lanes most = SPLAT(0), value = SPLAT(0);
  for (size_t i = 0; i < 32; i++) {
    const lane_mask more = ABSOLUTE(x[i]) > most;
    most = SELECT(more, ABSOLUTE(x[i]), most);
    value = SELECT(more, x[i], value);
  }
  const lane_mask alive = most >= GGML_EPSILON;
  value = SELECT(alive, value, SPLAT(1));
  lanes found = SPLAT(0), best = SPLAT(0);
  for (int t = -8; t <= 7; t++) {
    const lanes inverse = t == -8 ? 1 / (-value / table[0]) : SPLAT((float)t + table[0]) / value;
    lanes sum_x = SPLAT(0), sum_2 = SPLAT(0);
    for (size_t i = 0; i < 32; i++) {
      const lanes scaled = inverse * x[i];
      lanes level;
      nearest_level(&scaled, &level);
      const lanes wq = w[i] * level;
      sum_x += wq * x[i];
      sum_2 += wq * level;
    }
    const lane_mask better = (sum_2 > 0) & (t == -8 ? (lane_mask){0} - 1 : sum_x * sum_x > best * sum_2);
    found = SELECT(better, sum_x / sum_2, found);
    best = SELECT(better, found * sum_x, best);
  }
  *scale = SELECT(alive, found, SPLAT(0));
}

BODY void pack_levels(const float *x, float inverse, uint8_t *out) {
  for (size_t i = 0; i < 16; i++) out[i] = nearest_code(inverse * x[i]) | (uint8_t)(nearest_code(inverse * x[i + 16]) << 4);
}

BODY void quantize_iq4(const float *x, const float *importance, size_t columns, uint8_t *out, size_t per_block) {
  for (size_t first = 0; first < columns; first += LANES * 32) {
    const size_t blocks = columns - first < LANES * 32 ? (columns - first) / 32 : LANES;
    lanes v[32], w[32], scales;
    gather(x + first, 32, blocks, v);
    if (importance) {
      lanes q[32], variance = SPLAT(0);
      if (per_block == 1) {
        for (size_t i = 0; i < 32; i++) variance += v[i] * v[i];
        variance *= 2.0f / 32;
      } else {
        float sums[2] = {0, 0};
        for (size_t i = 0; i < 256; i++)
          for (size_t b = 0; b < blocks / 8; b++) sums[b] += x[first + b * 256 + i] * x[first + b * 256 + i];
        for (int g = 0; g < LANES; g++) variance[g] = sums[g / 8] * (2.0f / 256);
      }
      gather(importance + first, 32, blocks, q);
      weigh(v, q, &variance, 32, w);
    } else {
      for (size_t i = 0; i < 32; i++) w[i] = v[i] * v[i];
    }
    fit_table(v, w, &scales);
    float scale[LANES];
    memcpy(scale, &scales, sizeof scale);
    if (per_block == 1) {
      for (size_t b = 0; b < blocks; b++, out += 18) {
        store_half(out, scale[b]);
        pack_levels(x + first + 32 * b, scale[b] != 0 ? 1 / scale[b] : 0, out + 2);
      }
      continue;
    }
    for (size_t b = 0; b < blocks / 8; b++, out += 136) {
      float most = 0, value = 0;
      for (size_t g = 0; g < 8; g++)
        if (fabsf(scale[8 * b + g]) > most) {
          most = fabsf(scale[8 * b + g]);
          value = scale[8 * b + g];
        }
      const float d = -value / 32, inverse = d != 0 ? 1 / d : 0;
      store_half(out, d);
      memset(out + 2, 0, 6);
      for (size_t g = 0; g < 8; g++) {
        const float code = inverse * scale[8 * b + g];
        const float l = round_even(code > -32 ? (code < 31 ? code : 31) : -32);
        const float step = d * l;
        pack_levels(x + first + 256 * b + 32 * g, step != 0 ? 1 / step : 0, out + 8 + 16 * g);
        const uint32_t stored = (uint32_t)((int32_t)l + 32);
        out[4 + g / 2] |= (uint8_t)((stored & 15) << (4 * (g % 2)));
        out[2 + g / 4] |= (uint8_t)((stored >> 4) << (2 * (g % 4)));
      }
    }
  }
}

BODY void compress_quantize_iq4_nl_body(const float *x, const float *importance, size_t columns, uint8_t *out) {
  if (importance)
    quantize_iq4(x, importance, columns, out, 1);
  else
    quantize_iq4(x, 0, columns, out, 1);
}
VARIANTS(
    void, compress_quantize_iq4_nl, (const float *x, const float *importance, size_t columns, uint8_t *out), (x, importance, columns, out))

BODY void compress_quantize_iq4_xs_body(const float *x, const float *importance, size_t columns, uint8_t *out) {
  if (importance)
    quantize_iq4(x, importance, columns, out, 8);
  else
    quantize_iq4(x, 0, columns, out, 8);
}
VARIANTS(
    void, compress_quantize_iq4_xs, (const float *x, const float *importance, size_t columns, uint8_t *out), (x, importance, columns, out))
