// Rotary position embedding in the half-split layout of Hugging Face checkpoints (Su et al. 2021).
#include "dispatch.h"

BODY void compress_rotary_body(float *row, const float *cosine, const float *sine, size_t heads, size_t head_size) {
  const size_t half = head_size / 2;
  for (size_t h = 0; h < heads; h++) {
    float *low = row + h * head_size, *high = low + half;
    for (size_t i = 0; i < half; i++) {
      const float a = low[i], b = high[i];
      low[i] = a * cosine[i] - b * sine[i];
      high[i] = b * cosine[i] + a * sine[i];
    }
  }
}
VARIANTS(
    void, compress_rotary, (float *row, const float *cosine, const float *sine, size_t heads, size_t head_size),
    (row, cosine, sine, heads, head_size))
