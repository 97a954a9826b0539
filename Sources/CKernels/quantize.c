// Uniform quantization of one group of weights. Division, not multiplication by the reciprocal, and rounding of the signed code after its
// zero point is added: the codes are then the ones compressed-tensors' definition gives, ties included.
#include "dispatch.h"

BODY float code(float w, float scale, float zero, float top) {
  const float middle = 0.5f * (top + 1.0f);
  float q = w / scale + (zero - middle);
  // Far outside any grid, and inside what round_even is exact for.
  q = q < -4096.0f ? -4096.0f : q;
  q = q > 4096.0f ? 4096.0f : q;
  q = round_even(q) + middle;
  q = q < 0 ? 0 : q;
  return q > top ? top : q;
}

BODY void compress_range_body(const float *w, size_t count, float *smallest, float *largest) {
  // Written in vectors: which of two NaNs is kept depends on the order, so no compiler rearranges a minimum by itself.
  typedef float lanes __attribute__((ext_vector_type(16)));
  typedef float lanes8 __attribute__((ext_vector_type(8)));
  typedef float lanes4 __attribute__((ext_vector_type(4)));
  const size_t width = sizeof(lanes) / sizeof(float);
  float low = count > 0 ? w[0] : 0, high = low;
  size_t i = 0;
  if (count >= width) {
    lanes lows = w[0], highs = w[0], values;
    for (; i + width <= count; i += width) {
      memcpy(&values, w + i, sizeof values);
      lows = values < lows ? values : lows;
      highs = values > highs ? values : highs;
    }
    const lanes8 low8 = lows.lo < lows.hi ? lows.lo : lows.hi, high8 = highs.lo > highs.hi ? highs.lo : highs.hi;
    const lanes4 low4 = low8.lo < low8.hi ? low8.lo : low8.hi, high4 = high8.lo > high8.hi ? high8.lo : high8.hi;
    for (size_t lane = 0; lane < 4; lane++) {
      low = low4[lane] < low ? low4[lane] : low;
      high = high4[lane] > high ? high4[lane] : high;
    }
  }
  for (; i < count; i++) {
    low = w[i] < low ? w[i] : low;
    high = w[i] > high ? w[i] : high;
  }
  *smallest = low;
  *largest = high;
}
VARIANTS(
    void, compress_range, (const float *w, size_t count, float *smallest, float *largest), (w, count, smallest, largest))

BODY size_t compress_count_zeros_body(const float *w, size_t count) {
  size_t zeros = 0;
  // Pieces that 32-bit counts are wide enough for, because vectors hold twice as many of them.
  for (size_t start = 0; start < count; start += 1u << 30) {
    const size_t end = count - start < 1u << 30 ? count : start + (1u << 30);
    uint32_t found = 0;
    for (size_t i = start; i < end; i++) found += w[i] == 0;
    zeros += found;
  }
  return zeros;
}
VARIANTS(size_t, compress_count_zeros, (const float *w, size_t count), (w, count))

BODY void compress_quantize_body(const float *w, float scale, float zero, float top, uint8_t *codes, size_t count) {
  for (size_t i = 0; i < count; i++) codes[i] = (uint8_t)(int32_t)code(w[i], scale, zero, top);
}
VARIANTS(
    void, compress_quantize, (const float *w, float scale, float zero, float top, uint8_t *codes, size_t count),
    (w, scale, zero, top, codes, count))

BODY void compress_dequantize_body(const uint8_t *codes, float scale, float zero, float *out, size_t count) {
  for (size_t i = 0; i < count; i++) out[i] = scale * ((float)codes[i] - zero);
}
VARIANTS(
    void, compress_dequantize, (const uint8_t *codes, float scale, float zero, float *out, size_t count),
    (codes, scale, zero, out, count))

BODY void compress_dequantize_biased_body(const uint8_t *codes, float scale, float bias, float *out, size_t count) {
#pragma clang fp contract(off)
  for (size_t i = 0; i < count; i++) out[i] = scale * (float)codes[i] + bias;
}
VARIANTS(
    void, compress_dequantize_biased, (const uint8_t *codes, float scale, float bias, float *out, size_t count),
    (codes, scale, bias, out, count))

BODY void compress_round_to_grid_body(const float *w, float scale, float zero, float top, float *out, size_t count) {
  for (size_t i = 0; i < count; i++) out[i] = scale * (code(w[i], scale, zero, top) - zero);
}
VARIANTS(
    void, compress_round_to_grid, (const float *w, float scale, float zero, float top, float *out, size_t count),
    (w, scale, zero, top, out, count))

// The code by the reciprocal of the scale, good enough for an error: where it is another one, the weight lies midway between the two.
BODY float near_code(float w, float inverse, float zero, float top) {
  float q = w * inverse + zero;
  q = q > 0 ? q : 0;
  q = q < top ? q : top;
  return round_even(q);
}

BODY float quantization_error(
    const float *w, const float *importance, int weighted, float scale, float zero, float top, size_t count) {
  const float inverse = 1.0f / scale;
  float lane[16] = {0};
  float sum = 0;
  size_t i = 0;
  for (; i + 16 <= count; i += 16)
    for (size_t j = 0; j < 16; j++) {
      const float e = w[i + j] - scale * (near_code(w[i + j], inverse, zero, top) - zero);
      lane[j] += (weighted ? importance[i + j] * e : e) * e;
    }
  for (; i < count; i++) {
    const float e = w[i] - scale * (near_code(w[i], inverse, zero, top) - zero);
    sum += (weighted ? importance[i] * e : e) * e;
  }
  return sum + sum_of_lanes(lane);
}

// The choice is a constant in each call, so the inlined loops have no branch in them.
BODY float compress_quantization_error_body(
    const float *w, const float *importance, float scale, float zero, float top, size_t count) {
  if (importance) return quantization_error(w, importance, 1, scale, zero, top, count);
  return quantization_error(w, importance, 0, scale, zero, top, count);
}
VARIANTS(
    float, compress_quantization_error,
    (const float *w, const float *importance, float scale, float zero, float top, size_t count),
    (w, importance, scale, zero, top, count))

BODY void code_moments(
    const float *w, const float *importance, int weighted, float scale, float zero, float top, float *product, float *square,
    size_t count) {
  float products[16] = {0}, squares[16] = {0};
  float p = 0, s = 0;
  size_t i = 0;
  for (; i + 16 <= count; i += 16)
    for (size_t j = 0; j < 16; j++) {
      const float q = code(w[i + j], scale, zero, top) - zero;
      const float factor = weighted ? importance[i + j] * q : q;
      products[j] += factor * w[i + j];
      squares[j] += factor * q;
    }
  for (; i < count; i++) {
    const float q = code(w[i], scale, zero, top) - zero;
    const float factor = weighted ? importance[i] * q : q;
    p += factor * w[i];
    s += factor * q;
  }
  *product = p + sum_of_lanes(products);
  *square = s + sum_of_lanes(squares);
}

// The choice is a constant in each call, so the inlined loops have no branch in them.
BODY void compress_code_moments_body(
    const float *w, const float *importance, float scale, float zero, float top, float *product, float *square, size_t count) {
  if (importance)
    code_moments(w, importance, 1, scale, zero, top, product, square, count);
  else
    code_moments(w, importance, 0, scale, zero, top, product, square, count);
}
VARIANTS(
    void, compress_code_moments,
    (const float *w, const float *importance, float scale, float zero, float top, float *product, float *square, size_t count),
    (w, importance, scale, zero, top, product, square, count))
