// The scale searches of ggml's block types, sixteen groups of weights at a time, one group a lane.
//
// Every sum runs over the elements of one group in their order, in single precision, without fused multiply-adds: the order that decides
// the bytes llama.cpp writes. Only independent groups share an instruction, so vectors change no result.
#ifndef COMPRESS_GGML_LANES_H
#define COMPRESS_GGML_LANES_H

#include "dispatch.h"

#pragma STDC FP_CONTRACT OFF

#define LANES 16
typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef int32_t lane_mask __attribute__((vector_size(4 * LANES)));
typedef uint8_t lane_bytes __attribute__((vector_size(LANES)));

#define SPLAT(value) ((lanes){0} + (value))
#define SELECT(mask, a, b) ((lanes)(((lane_mask)(a) & (mask)) | ((lane_mask)(b) & ~(mask))))
#define ABSOLUTE(x) ((lanes)((lane_mask)(x) & 0x7FFFFFFF))
// Clipped before it is rounded, which is the same for whole bounds and keeps round_even inside its range; NaN becomes `bottom`.
#define CLIPPED(x, bottom, top) ({                   \
  const lanes clip_x = (x);                          \
  const lanes clip_b = SPLAT(bottom), clip_t = SPLAT(top); \
  const lanes clip_l = SELECT(clip_x > clip_b, clip_x, clip_b); \
  SELECT(clip_l < clip_t, clip_l, clip_t);           \
})
#define ROUNDED(x) (((x) + 12582912.0f) - 12582912.0f)
#define CODE(x, bottom, top) ROUNDED(CLIPPED(x, bottom, top))

// Below this a group counts as zero.
#define GGML_EPSILON 1e-15f

static inline __attribute__((always_inline)) int any(const lane_mask *mask) {
  int32_t found = 0;
  for (int i = 0; i < LANES; i++) found |= (*mask)[i];
  return found != 0;
}

// Element i of group g into x[i][g]; the lanes of absent groups are zero.
BODY void gather(const float *groups, size_t length, size_t count, lanes *x) {
  float *out = (float *)x;
  if (count < LANES) memset(out, 0, length * sizeof(lanes));
  for (size_t g = 0; g < count; g++)
    for (size_t i = 0; i < length; i++) out[i * LANES + g] = groups[g * length + i];
}

// Weights of the elements: importance · √(variance + x²).
BODY void weigh(const lanes *x, const lanes *importance, const lanes *variance, size_t length, lanes *w) {
  for (size_t i = 0; i < length; i++) w[i] = importance[i] * __builtin_elementwise_sqrt(*variance + x[i] * x[i]);
}

// x = scale · code + low with low ≤ 0: the grid whose weighted error is smallest among `steps` + 2 candidates, each refitted to its codes.
// The codes are CODE((x − code_low) · code_scale, 0, top).
struct affine_grid {
  lanes scale, low, code_scale, code_low, weight;
};

BODY void fit_affine(
    const lanes *x, const lanes *w, size_t length, float top, float first, float step, int steps, int absolute, struct affine_grid *grid) {
  lanes low = x[0], high = x[0], sum_w = w[0], sum_x = w[0] * x[0];
  for (size_t i = 1; i < length; i++) {
    low = SELECT(x[i] < low, x[i], low);
    high = SELECT(x[i] > high, x[i], high);
    sum_w += w[i];
    sum_x += w[i] * x[i];
  }
  low = SELECT(low > 0, SPLAT(0), low);
  const lane_mask alive = high > low;
  lanes code_scale = SPLAT(top) / SELECT(alive, high - low, SPLAT(1));
  lanes scale = SPLAT(1) / code_scale, code_low = low, best = SPLAT(0);
  for (size_t i = 0; i < length; i++) {
    const lanes e = scale * CODE(code_scale * (x[i] - low), 0, top) + low - x[i];
    best += w[i] * (absolute ? ABSOLUTE(e) : e * e);
  }
  for (int is = 0; is <= steps; is++) {
    const lanes candidate = SPLAT(first + step * (float)is + top) / (high - low);
    lanes codes[32], sum_l = SPLAT(0), sum_l2 = SPLAT(0), sum_xl = SPLAT(0);
    for (size_t i = 0; i < length; i++) {
      const lanes l = CODE(candidate * (x[i] - low), 0, top);
      const lanes wl = w[i] * l;
      codes[i] = l;
      sum_l += wl;
      sum_l2 += wl * l;
      sum_xl += wl * x[i];
    }
    const lanes determinant = sum_w * sum_l2 - sum_l * sum_l;
    lanes new_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
    lanes new_low = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
    const lane_mask positive = new_low > 0;
    new_scale = SELECT(positive, sum_xl / sum_l2, new_scale);
    new_low = SELECT(positive, SPLAT(0), new_low);
    lanes error = SPLAT(0);
    for (size_t i = 0; i < length; i++) {
      const lanes e = new_scale * codes[i] + new_low - x[i];
      error += w[i] * (absolute ? ABSOLUTE(e) : e * e);
    }
    const lane_mask better = alive & (determinant > 0) & (error < best);
    best = SELECT(better, error, best);
    scale = SELECT(better, new_scale, scale);
    code_scale = SELECT(better, candidate, code_scale);
    // Later candidates start from the new minimum, as in ggml.
    code_low = SELECT(better, low, code_low);
    low = SELECT(better, new_low, low);
  }
  grid->scale = SELECT(alive, scale, SPLAT(0));
  grid->code_scale = SELECT(alive, code_scale, SPLAT(0));
  grid->code_low = code_low;
  grid->low = low;
  grid->weight = sum_w;
}

// x = scale · code with codes −half … half − 1. The codes are CODE(code_scale · x, −half, half − 1), in lanes that are `alive`.
struct signed_grid {
  lanes scale, code_scale;
  lane_mask alive;
};

BODY void largest(const lanes *x, size_t length, lanes *signed_largest, lane_mask *alive) {
  lanes most = SPLAT(0), value = SPLAT(0);
  for (size_t i = 0; i < length; i++) {
    const lane_mask more = ABSOLUTE(x[i]) > most;
    most = SELECT(more, ABSOLUTE(x[i]), most);
    value = SELECT(more, x[i], value);
  }
  *alive = most >= GGML_EPSILON;
  *signed_largest = SELECT(*alive, value, SPLAT(1));
}

BODY void fit_signed(const lanes *x, const lanes *w, size_t length, float half, struct signed_grid *grid) {
  lanes most, wx[32];
  lane_mask alive;
  largest(x, length, &most, &alive);
  for (size_t i = 0; i < length; i++) wx[i] = w[i] * x[i];
  lanes code_scale = SPLAT(-half) / most, scale = SPLAT(0), best = SPLAT(0);
  for (int is = -10; is <= 9; is++) {
    if (is == 0) continue;
    // The plain grid first, then the ones around it.
    const lanes candidate = is == -10 ? code_scale : -(SPLAT(half + 0.1f * (float)is)) / most;
    lanes sum_xl = SPLAT(0), sum_l2 = SPLAT(0);
    for (size_t i = 0; i < length; i++) {
      const lanes l = CODE(candidate * x[i], -half, half - 1);
      sum_xl += wx[i] * l;
      sum_l2 += w[i] * l * l;
    }
    const lane_mask better = (sum_l2 > 0) & (is == -10 ? (lane_mask){0} - 1 : sum_xl * sum_xl > best * sum_l2);
    scale = SELECT(better, sum_xl / sum_l2, scale);
    best = SELECT(better, scale * sum_xl, best);
    code_scale = SELECT(better, candidate, code_scale);
  }
  grid->scale = SELECT(alive, scale, SPLAT(0));
  grid->code_scale = code_scale;
  grid->alive = alive;
}

// As above with w = x², from the plain grid alone, its codes improved one at a time. `codes` are −half … half − 1.
BODY void fit_signed_by_descent(const lanes *x, size_t length, float half, lanes *codes, lanes *scale, lane_mask *alive) {
  lanes most, sum_xl = SPLAT(0), sum_l2 = SPLAT(0);
  largest(x, length, &most, alive);
  const lanes code_scale = SPLAT(-half) / most;
  for (size_t i = 0; i < length; i++) {
    codes[i] = CODE(code_scale * x[i], -half, half - 1);
    const lanes w = x[i] * x[i];
    sum_xl += w * x[i] * codes[i];
    sum_l2 += w * codes[i] * codes[i];
  }
  for (int round = 0; round < 5; round++) {
    lane_mask changed = {0};
    for (size_t i = 0; i < length; i++) {
      const lanes w = x[i] * x[i], l = codes[i];
      lanes xl = sum_xl - w * x[i] * l, l2 = sum_l2 - w * l * l;
      lane_mask accept = xl > 0;
      const lanes new = CODE(x[i] * l2 / xl, -half, half - 1);
      xl += w * x[i] * new;
      l2 += w * new * new;
      accept &= (new != l) & (l2 > 0) & (xl * xl * sum_l2 > sum_xl * sum_xl * l2);
      codes[i] = SELECT(accept, new, l);
      sum_xl = SELECT(accept, xl, sum_xl);
      sum_l2 = SELECT(accept, l2, sum_l2);
      changed |= accept;
    }
    if (!any(&changed)) break;
  }
  *scale = SELECT(*alive & (sum_l2 > 0), sum_xl / sum_l2, SPLAT(0));
}

// x = scale · code with x ≥ 0 and codes 0 … top: what quantizes the scales of a super-block, one super-block a lane.
BODY void fit_positive(const lanes *x, const lanes *w, size_t length, float top, lanes *codes, lanes *scale) {
  lanes most = SPLAT(0);
  for (size_t i = 0; i < length; i++) most = SELECT(x[i] > most, x[i], most);
  const lane_mask alive = most >= GGML_EPSILON;
  most = SELECT(alive, most, SPLAT(1));
  lanes code_scale = SPLAT(top) / most, best = SPLAT(0);
  for (int is = -5; is <= 4; is++) {
    if (is == 0) continue;
    const lanes candidate = is == -5 ? code_scale : SPLAT(0.1f * (float)is + top) / most;
    const lanes step = SPLAT(1) / candidate;
    lanes error = SPLAT(0);
    for (size_t i = 0; i < length; i++) {
      const lanes e = x[i] - step * CODE(candidate * x[i], 0, top);
      error += w[i] * e * e;
    }
    const lane_mask better = is == -5 ? (lane_mask){0} - 1 : error < best;
    best = SELECT(better, error, best);
    code_scale = SELECT(better, candidate, code_scale);
  }
  lanes sum_xl = SPLAT(0), sum_l2 = SPLAT(0);
  for (size_t i = 0; i < length; i++) {
    codes[i] = CODE(code_scale * x[i], 0, top);
    sum_xl += w[i] * x[i] * codes[i];
    sum_l2 += w[i] * codes[i] * codes[i];
  }
  for (int round = 0; round < 5; round++) {
    lane_mask changed = {0};
    for (size_t i = 0; i < length; i++) {
      const lanes l = codes[i];
      lanes xl = sum_xl - w[i] * x[i] * l, l2 = sum_l2 - w[i] * l * l;
      lane_mask accept = (xl > 0) & (l2 > 0);
      const lanes new = CODE(x[i] * l2 / xl, 0, top);
      xl += w[i] * x[i] * new;
      l2 += w[i] * new * new;
      accept &= (new != l) & (xl * xl * sum_l2 > sum_xl * sum_xl * l2);
      codes[i] = SELECT(accept, new, l);
      sum_xl = SELECT(accept, xl, sum_xl);
      sum_l2 = SELECT(accept, l2, sum_l2);
      changed |= accept;
    }
    if (!any(&changed)) break;
  }
  // Weights that are all zero say nothing: the plain scale stands.
  *scale = SELECT(alive, SELECT(sum_l2 > 0, sum_xl / sum_l2, SPLAT(1) / code_scale), SPLAT(0));
  for (size_t i = 0; i < length; i++) codes[i] = SELECT(alive, codes[i], SPLAT(0));
}

// MARK: Halves

BODY uint16_t half_of(float value) {
  const uint32_t bits = compress_bits(value), magnitude = bits & 0x7FFFFFFFu;
  const uint32_t subnormal = compress_bits(compress_float(magnitude) + 0.5f) - 0x3F000000u;
  const uint32_t normal = (magnitude - 0x38000000u + 0xFFFu + ((magnitude >> 13) & 1u)) >> 13;
  const uint32_t special = magnitude > 0x7F800000u ? 0x7E00u : 0x7C00u;
  const uint32_t half = magnitude < 0x38800000u ? subnormal : (magnitude < 0x477FF000u ? normal : special);
  return (uint16_t)(((bits >> 16) & 0x8000u) | half);
}

BODY float float_of(uint16_t half) {
  const uint32_t magnitude = (uint32_t)(half & 0x7FFF) << 13;
  const uint32_t finite = compress_bits(compress_float(magnitude) * 0x1p112f);
  return compress_float(((uint32_t)(half & 0x8000) << 16) | (magnitude >= 0x0F800000u ? magnitude | 0x7F800000u : finite));
}

// Stores a value as a half and returns what is read back.
BODY float store_half(uint8_t *out, float value) {
  const uint16_t half = half_of(value);
  out[0] = (uint8_t)half;
  out[1] = (uint8_t)(half >> 8);
  return float_of(half);
}

BODY float load_half(const uint8_t *in) { return float_of((uint16_t)(in[0] | in[1] << 8)); }

#endif
