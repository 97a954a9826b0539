// Half-quadratic quantization of one group (algorithm: HQQ.swift).
#include "dispatch.h"

BODY float level(float w, float inverse, float zero, float top) {
  float q = w * inverse + zero;
  q = q < -4096.0f ? -4096.0f : q;
  q = q > 4096.0f ? 4096.0f : q;
  q = round_even(q);
  q = q < 0 ? 0 : q;
  return q > top ? top : q;
}

BODY float compress_hqq_step_body(
    const float *w, float inverse, float zero, float top, float power, float beta, size_t count, float *next) {
  const float scale = 1.0f / inverse;
  double zeros = 0, distance = 0;
  for (size_t i = 0; i < count; i++) {
    const float q = level(w[i], inverse, zero, top);
    const float residual = w[i] - (q - zero) * scale;
    const float magnitude = fabsf(residual);
    // The generalised soft threshold; at zero the power is infinite and nothing remains.
    const float kept = magnitude > 0 ? magnitude - powf(magnitude, power - 1.0f) / beta : 0.0f;
    const float sparse = kept > 0 ? copysignf(kept, residual) : 0.0f;
    zeros += q - (w[i] - sparse) * inverse;
    distance += magnitude;
  }
  *next = count > 0 ? (float)(zeros / (double)count) : zero;
  return (float)distance;
}
VARIANTS(
    float, compress_hqq_step,
    (const float *w, float inverse, float zero, float top, float power, float beta, size_t count, float *next),
    (w, inverse, zero, top, power, beta, count, next))
