// Activations of feed-forward layers, gated ones as gate ← act(gate) · up.
#include "dispatch.h"

BODY void compress_silu_gate_body(float *gate, const float *up, size_t count) {
  for (size_t i = 0; i < count; i++) gate[i] = gate[i] / (1.0f + exponential(-gate[i])) * up[i];
}
VARIANTS(void, compress_silu_gate, (float *gate, const float *up, size_t count), (gate, up, count))

// 0.5 · (1 + tanh(y)) = 1 / (1 + e^(−2y)).
BODY void compress_gelu_tanh_gate_body(float *gate, const float *up, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const float x = gate[i];
    const float y = 0.7978845608f * (x + 0.044715f * x * x * x);
    gate[i] = x / (1.0f + exponential(-2.0f * y)) * up[i];
  }
}
VARIANTS(void, compress_gelu_tanh_gate, (float *gate, const float *up, size_t count), (gate, up, count))

BODY void compress_gelu_body(float *x, size_t count) {
  for (size_t i = 0; i < count; i++) x[i] = 0.5f * x[i] * (1.0f + erff(x[i] * 0.7071067812f));
}
VARIANTS(void, compress_gelu, (float *x, size_t count), (x, count))

BODY void compress_relu_body(float *x, size_t count) {
  for (size_t i = 0; i < count; i++) x[i] = x[i] > 0.0f ? x[i] : 0.0f;
}
VARIANTS(void, compress_relu, (float *x, size_t count), (x, count))

BODY void compress_multiply_body(float *a, const float *b, size_t count) {
  for (size_t i = 0; i < count; i++) a[i] *= b[i];
}
VARIANTS(void, compress_multiply, (float *a, const float *b, size_t count), (a, b, count))
