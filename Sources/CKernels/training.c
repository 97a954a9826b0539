// Training of the codes of a quantized group: latent codes as weights, the gradient back through the rounding, and the optimiser's step.
#include "dispatch.h"

// Clipped first, which keeps it inside what round_even is exact for: the bounds are whole numbers, so that the order does not matter.
// What is no number stays so.
BODY float latent_code(float u, float top) {
  u = u < 0 ? 0 : u;
  u = u > top ? top : u;
  return round_even(u);
}

BODY void compress_dequantize_latents_body(const float *u, float scale, float zero, float top, float *out, size_t count) {
  for (size_t i = 0; i < count; i++) out[i] = scale * (latent_code(u[i], top) - zero);
}
VARIANTS(
    void, compress_dequantize_latents, (const float *u, float scale, float zero, float top, float *out, size_t count),
    (u, scale, zero, top, out, count))

BODY void compress_latent_pullback_body(
    const float *restrict u, float scale, float zero, float top, float *restrict dw, float *restrict product, float *restrict sum,
    size_t count) {
  const float low = -0.5f, high = top + 0.5f;
  float products[16] = {0}, sums[16] = {0};
  float p = 0, s = 0;
  size_t i = 0;
  for (; i + 16 <= count; i += 16)
    for (size_t j = 0; j < 16; j++) {
      const float g = dw[i + j], z = u[i + j];
      products[j] += g * (latent_code(z, top) - zero);
      sums[j] += g;
      dw[i + j] = ((z >= low) & (z <= high)) ? scale * g : 0.0f;
    }
  for (; i < count; i++) {
    const float g = dw[i], z = u[i];
    p += g * (latent_code(z, top) - zero);
    s += g;
    dw[i] = ((z >= low) & (z <= high)) ? scale * g : 0.0f;
  }
  *product = p + sum_of_lanes(products);
  *sum = s + sum_of_lanes(sums);
}
VARIANTS(
    void, compress_latent_pullback,
    (const float *u, float scale, float zero, float top, float *dw, float *product, float *sum, size_t count),
    (u, scale, zero, top, dw, product, sum, count))

// Not sqrtf, which sets errno and so is a call for every element.
BODY void compress_adamw_body(
    float *restrict p, const float *restrict gradient, float factor, float *restrict m, float *restrict v, float rate, float beta1,
    float beta2, float correction1, float correction2, float epsilon, float decay, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const float g = gradient[i] * factor;
    const float first = beta1 * m[i] + (1.0f - beta1) * g;
    const float second = beta2 * v[i] + (1.0f - beta2) * g * g;
    m[i] = first;
    v[i] = second;
    p[i] -= rate * (first * correction1 / (__builtin_elementwise_sqrt(second * correction2) + epsilon) + decay * p[i]);
  }
}
VARIANTS(
    void, compress_adamw,
    (float *p, const float *gradient, float factor, float *m, float *v, float rate, float beta1, float beta2, float correction1,
     float correction2, float epsilon, float decay, size_t count),
    (p, gradient, factor, m, v, rate, beta1, beta2, correction1, correction2, epsilon, decay, count))
