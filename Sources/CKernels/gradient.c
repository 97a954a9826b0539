// Gradients of activations, norms and softmax. Sums run in 16 lanes with a fixed order of reduction, as they do on the way forward, and
// what the way forward computes is computed by the same expressions here, so that both agree to the bit.
#include "dispatch.h"

enum { LANES = 16 };

// Both sides of an element-wise loop may be the same row, element for element; without this, in-place calls would run one by one.
#define ELEMENTWISE _Pragma("clang loop vectorize(assume_safety)")

BODY double gathered(const float lane[LANES]) {
  double sum = 0;
  for (size_t j = 0; j < LANES; j++) sum += lane[j];
  return sum;
}

// A slope is constant to float precision where |x| is larger, and the product of a huge x and a clipped exponential would not be small.
BODY float bounded(float x, float bound) {
  x = x < -bound ? -bound : x;
  return x > bound ? bound : x;
}

// With σ = 1 / (1 + e^−x): slope = σ · (1 + x · (1 − σ)), where 1 − σ = e^−x · σ loses nothing to cancellation.
BODY void compress_silu_slope_body(const float *x, float *value, float *slope, size_t count) {
  ELEMENTWISE
  for (size_t i = 0; i < count; i++) {
    const float z = x[i];
    const float e = exponential(-z);
    const float sigma = 1.0f / (1.0f + e);
    value[i] = z / (1.0f + e);
    slope[i] = sigma * (1.0f + bounded(z, 88.0f) * (e * sigma));
  }
}
VARIANTS(void, compress_silu_slope, (const float *x, float *value, float *slope, size_t count), (x, value, slope, count))

// The same with σ(2y), y = √(2/π) · (x + 0.044715 · x³), and the derivative of 2y as a factor.
BODY void compress_gelu_tanh_slope_body(const float *x, float *value, float *slope, size_t count) {
  ELEMENTWISE
  for (size_t i = 0; i < count; i++) {
    const float z = x[i];
    const float y = 0.7978845608f * (z + 0.044715f * z * z * z);
    const float e = exponential(-2.0f * y);
    const float sigma = 1.0f / (1.0f + e);
    const float b = bounded(z, 16.0f);
    const float rise = 1.5957691216f * (1.0f + 0.134145f * b * b);
    value[i] = z / (1.0f + e);
    slope[i] = sigma * (1.0f + b * rise * (e * sigma));
  }
}
VARIANTS(void, compress_gelu_tanh_slope, (const float *x, float *value, float *slope, size_t count), (x, value, slope, count))

// Φ(x) + x · φ(x). The error function is a call for every element, so the exponentials have a loop of their own.
BODY void compress_gelu_slope_body(const float *x, float *value, float *slope, size_t count) {
  ELEMENTWISE
  for (size_t i = 0; i < count; i++) {
    const float b = bounded(x[i], 16.0f);
    slope[i] = 0.3989422804f * b * exponential(-0.5f * b * b);
  }
  for (size_t i = 0; i < count; i++) {
    const float z = x[i];
    const float twice = 1.0f + erff(z * 0.7071067812f);
    value[i] = 0.5f * z * twice;
    slope[i] += 0.5f * twice;
  }
}
VARIANTS(void, compress_gelu_slope, (const float *x, float *value, float *slope, size_t count), (x, value, slope, count))

// With g = w · dy and n = x · r: dx = r · (g − n · mean(g · n)). Squares of r do not appear, so that small rows do not overflow.
BODY void compress_rms_norm_pullback_body(
    const float *x, const float *weight, float epsilon, const float *dy, float *dx, float *weight_gradient, size_t count) {
  float square[LANES] = {0}, product[LANES] = {0};
  size_t i = 0;
  for (; i + LANES <= count; i += LANES)
    for (size_t j = 0; j < LANES; j++) {
      square[j] += x[i + j] * x[i + j];
      product[j] += weight[i + j] * dy[i + j] * x[i + j];
    }
  double squares = gathered(square), products = gathered(product);
  for (; i < count; i++) {
    squares += (double)x[i] * x[i];
    products += (double)weight[i] * dy[i] * x[i];
  }
  const double factor = 1.0 / sqrt(squares / (double)count + epsilon);
  const float r = (float)factor, along = (float)(products * factor / (double)count);
  ELEMENTWISE
  for (i = 0; i < count; i++) {
    const float n = x[i] * r, slope = dy[i];
    weight_gradient[i] += slope * n;
    dx[i] = r * (weight[i] * slope - n * along);
  }
}
VARIANTS(
    void, compress_rms_norm_pullback,
    (const float *x, const float *weight, float epsilon, const float *dy, float *dx, float *weight_gradient, size_t count),
    (x, weight, epsilon, dy, dx, weight_gradient, count))

// With g = w · dy and n = (x − mean(x)) · r: dx = r · (g − mean(g) − n · mean(g · n)).
BODY void compress_layer_norm_pullback_body(
    const float *x, const float *weight, float epsilon, const float *dy, float *dx, float *weight_gradient, size_t count) {
  float lane[LANES] = {0};
  size_t i = 0;
  for (; i + LANES <= count; i += LANES)
    for (size_t j = 0; j < LANES; j++) lane[j] += x[i + j];
  double sum = gathered(lane);
  for (; i < count; i++) sum += x[i];
  const float mean = (float)(sum / (double)count);
  float square[LANES] = {0}, product[LANES] = {0}, gradient[LANES] = {0};
  for (i = 0; i + LANES <= count; i += LANES)
    for (size_t j = 0; j < LANES; j++) {
      const float g = weight[i + j] * dy[i + j];
      square[j] += (x[i + j] - mean) * (x[i + j] - mean);
      product[j] += g * (x[i + j] - mean);
      gradient[j] += g;
    }
  double squares = gathered(square), products = gathered(product), gradients = gathered(gradient);
  for (; i < count; i++) {
    const double g = (double)weight[i] * dy[i];
    squares += (double)(x[i] - mean) * (x[i] - mean);
    products += g * (x[i] - mean);
    gradients += g;
  }
  const double factor = 1.0 / sqrt(squares / (double)count + epsilon);
  const float r = (float)factor, along = (float)(products * factor / (double)count), level = (float)(gradients / (double)count);
  ELEMENTWISE
  for (i = 0; i < count; i++) {
    const float n = (x[i] - mean) * r, slope = dy[i];
    weight_gradient[i] += slope * n;
    dx[i] = r * (weight[i] * slope - level - n * along);
  }
}
VARIANTS(
    void, compress_layer_norm_pullback,
    (const float *x, const float *weight, float epsilon, const float *dy, float *dx, float *weight_gradient, size_t count),
    (x, weight, epsilon, dy, dx, weight_gradient, count))

BODY void compress_softmax_pullback_body(const float *restrict p, float *restrict dp, float scale, size_t count) {
  float lane[LANES] = {0};
  size_t i = 0;
  for (; i + LANES <= count; i += LANES)
    for (size_t j = 0; j < LANES; j++) lane[j] += p[i + j] * dp[i + j];
  double sum = gathered(lane);
  for (; i < count; i++) sum += (double)p[i] * dp[i];
  const float mean = (float)sum;
  for (i = 0; i < count; i++) dp[i] = scale * p[i] * (dp[i] - mean);
}
VARIANTS(
    void, compress_softmax_pullback, (const float *p, float *dp, float scale, size_t count), (p, dp, scale, count))
