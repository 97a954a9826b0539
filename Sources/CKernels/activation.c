// Gated activations of feed-forward layers: gate ← act(gate) · up.
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
