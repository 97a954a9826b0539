// Root mean square normalisation. The sum runs in 16 lanes with a fixed order of reduction, so it vectorises without reassociation flags.
#include "dispatch.h"

BODY void compress_rms_norm_body(const float *x, const float *weight, float epsilon, float *out, size_t count) {
  float lane[16] = {0};
  size_t i = 0;
  for (; i + 16 <= count; i += 16)
    for (size_t j = 0; j < 16; j++) lane[j] += x[i + j] * x[i + j];
  double sum = 0;
  for (size_t j = 0; j < 16; j++) sum += lane[j];
  for (; i < count; i++) sum += (double)x[i] * x[i];
  const float factor = (float)(1.0 / sqrt(sum / (double)count + epsilon));
  for (i = 0; i < count; i++) out[i] = x[i] * factor * weight[i];
}
VARIANTS(
    void, compress_rms_norm, (const float *x, const float *weight, float epsilon, float *out, size_t count),
    (x, weight, epsilon, out, count))

// Layer normalisation without its bias: two sums, since the squares of centred values lose nothing to the mean.
BODY void compress_layer_norm_body(const float *x, const float *weight, float epsilon, float *out, size_t count) {
  float lane[16] = {0};
  size_t i = 0;
  for (; i + 16 <= count; i += 16)
    for (size_t j = 0; j < 16; j++) lane[j] += x[i + j];
  double sum = 0;
  for (size_t j = 0; j < 16; j++) sum += lane[j];
  for (; i < count; i++) sum += x[i];
  const float mean = (float)(sum / (double)count);
  float square[16] = {0};
  for (i = 0; i + 16 <= count; i += 16)
    for (size_t j = 0; j < 16; j++) square[j] += (x[i + j] - mean) * (x[i + j] - mean);
  double squares = 0;
  for (size_t j = 0; j < 16; j++) squares += square[j];
  for (; i < count; i++) squares += (double)(x[i] - mean) * (x[i] - mean);
  const float factor = (float)(1.0 / sqrt(squares / (double)count + epsilon));
  for (i = 0; i < count; i++) out[i] = (x[i] - mean) * factor * weight[i];
}
VARIANTS(
    void, compress_layer_norm, (const float *x, const float *weight, float epsilon, float *out, size_t count),
    (x, weight, epsilon, out, count))

BODY double compress_squared_distance_body(const float *a, const float *b, size_t count) {
  float lane[16] = {0};
  double sum = 0;
  size_t i = 0;
  if (b) {
    for (; i + 16 <= count; i += 16)
      for (size_t j = 0; j < 16; j++) lane[j] += (a[i + j] - b[i + j]) * (a[i + j] - b[i + j]);
    for (; i < count; i++) sum += (double)(a[i] - b[i]) * (a[i] - b[i]);
  } else {
    for (; i + 16 <= count; i += 16)
      for (size_t j = 0; j < 16; j++) lane[j] += a[i + j] * a[i + j];
    for (; i < count; i++) sum += (double)a[i] * a[i];
  }
  for (size_t j = 0; j < 16; j++) sum += lane[j];
  return sum;
}
VARIANTS(double, compress_squared_distance, (const float *a, const float *b, size_t count), (a, b, count))

BODY void compress_add_body(float *a, const float *b, size_t count) {
  for (size_t i = 0; i < count; i++) a[i] += b[i];
}
VARIANTS(void, compress_add, (float *a, const float *b, size_t count), (a, b, count))
