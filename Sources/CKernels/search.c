// The scale search of one group of weights: eight candidates at once, each in two neighbouring lanes that take every other weight, so next to
// nothing is added across lanes. The reciprocal is good enough to judge by: where it gives another code than the division, the weight lies
// midway between the two.
#include "dispatch.h"

#include <float.h>

#define CANDIDATES COMPRESS_CANDIDATES

typedef float lanes __attribute__((ext_vector_type(2 * CANDIDATES)));
typedef double pairs __attribute__((ext_vector_type(CANDIDATES)));

// Two neighbours for every candidate.
#define LOAD_PAIR(vector, from)              \
  do {                                       \
    double pair;                             \
    memcpy(&pair, (from), sizeof pair);      \
    const pairs spread = (pairs)pair;        \
    memcpy(&(vector), &spread, sizeof spread); \
  } while (0)

// Added to a small number, it leaves the number rounded to nearest even in the low bits; taken away again, the number itself is left.
// Clipping in between needs no bound on the number.
static const float magic = 12582912.0f;

BODY void candidate_moments(
    const float *w, const float *importance, int weighted, size_t count, const float *scales, float zero, float top, float *products,
    float *squares) {
  // Sums that take turns hide the latency of an addition.
  lanes inverse, x, product[2] = {0, 0}, square[2] = {0, 0};
  for (size_t j = 0; j < 2 * CANDIDATES; j++) inverse[j] = 1.0f / scales[j / 2];
  const lanes low = magic - zero, high = magic + (top - zero);
#define ADD(turn, factor)                  \
  do {                                     \
    lanes t = x * inverse + magic;         \
    t = t > low ? t : low;                 \
    t = t < high ? t : high;               \
    const lanes q = t - magic, f = factor; \
    product[turn] += f * x;                \
    square[turn] += f * q;                 \
  } while (0)
  size_t i = 0;
  for (; i + 4 <= count; i += 4)
    for (size_t turn = 0; turn < 2; turn++) {
      LOAD_PAIR(x, w + i + 2 * turn);
      lanes c = 1;
      if (weighted) LOAD_PAIR(c, importance + i + 2 * turn);
      ADD(turn, weighted ? c * q : q);
    }
  // Both lanes see each of the last weights, and each counts half of it.
  for (; i < count; i++) {
    x = w[i];
    ADD(0, (weighted ? 0.5f * importance[i] : 0.5f) * q);
  }
#undef ADD
  product[0] += product[1];
  square[0] += square[1];
  for (size_t j = 0; j < CANDIDATES; j++) {
    products[j] = product[0][2 * j] + product[0][2 * j + 1];
    squares[j] = square[0][2 * j] + square[0][2 * j + 1];
  }
}

BODY size_t compress_best_scale_body(
    const float *w, const float *importance, size_t count, float unit, float centre, const float *offsets, float zero, float top,
    float *gain, float *fitted) {
  float scales[CANDIDATES], products[CANDIDATES], squares[CANDIDATES], gains[CANDIDATES];
  for (size_t j = 0; j < CANDIDATES; j++) scales[j] = unit * (centre + offsets[j]);
  // The choice is a constant in each call, so the inlined loops have no branch in them.
  if (importance)
    candidate_moments(w, importance, 1, count, scales, zero, top, products, squares);
  else
    candidate_moments(w, importance, 0, count, scales, zero, top, products, squares);
  for (size_t j = 0; j < CANDIDATES; j++)
    gains[j] = squares[j] > 0 ? products[j] * products[j] / squares[j] : -FLT_MAX;
  size_t best = 0;
  for (size_t j = 1; j < CANDIDATES; j++) best = gains[j] > gains[best] ? j : best;
  *gain = gains[best];
  *fitted = squares[best] > 0 ? products[best] / squares[best] : 0;
  return best;
}
VARIANTS(
    size_t, compress_best_scale,
    (const float *w, const float *importance, size_t count, float unit, float centre, const float *offsets, float zero, float top,
     float *gain, float *fitted),
    (w, importance, count, unit, centre, offsets, zero, top, gain, fitted))

BODY void candidate_errors(
    const float *w, const float *importance, int weighted, size_t count, const float *scales, const float *zeros, float top,
    float *errors) {
  lanes scale, zero, x, sum[2] = {0, 0};
  for (size_t j = 0; j < 2 * CANDIDATES; j++) {
    scale[j] = scales[j / 2];
    zero[j] = zeros[j / 2];
  }
  const lanes inverse = 1.0f / scale, low = magic, high = magic + top;
#define ADD(turn, factor)                            \
  do {                                               \
    lanes t = (x * inverse + zero) + magic;          \
    t = t > low ? t : low;                           \
    t = t < high ? t : high;                         \
    const lanes e = x - scale * ((t - magic) - zero); \
    sum[turn] += factor * e;                         \
  } while (0)
  size_t i = 0;
  for (; i + 4 <= count; i += 4)
    for (size_t turn = 0; turn < 2; turn++) {
      LOAD_PAIR(x, w + i + 2 * turn);
      lanes c = 1;
      if (weighted) LOAD_PAIR(c, importance + i + 2 * turn);
      ADD(turn, (weighted ? c * e : e));
    }
  for (; i < count; i++) {
    x = w[i];
    ADD(0, (weighted ? 0.5f * importance[i] : 0.5f) * e);
  }
#undef ADD
  sum[0] += sum[1];
  for (size_t j = 0; j < CANDIDATES; j++) errors[j] = sum[0][2 * j] + sum[0][2 * j + 1];
}

BODY size_t compress_best_grid_body(
    const float *w, const float *importance, size_t count, const float *scales, const float *zeros, float top, float *error) {
  float errors[CANDIDATES];
  if (importance)
    candidate_errors(w, importance, 1, count, scales, zeros, top, errors);
  else
    candidate_errors(w, importance, 0, count, scales, zeros, top, errors);
  size_t best = 0;
  for (size_t j = 1; j < CANDIDATES; j++) best = errors[j] < errors[best] ? j : best;
  *error = errors[best];
  return best;
}
VARIANTS(
    size_t, compress_best_grid,
    (const float *w, const float *importance, size_t count, const float *scales, const float *zeros, float top, float *error),
    (w, importance, count, scales, zeros, top, error))
