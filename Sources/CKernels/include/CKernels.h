// The inner loops of compress: one operation per file, plain pointers and counts, no allocation, no state, no threads.
//
// Every function chooses its instruction set once, at run time. The plain definition of what each computes is
// `Tensors/Reference.swift`, and a test holds every function to it on ragged sizes.
#ifndef COMPRESS_CKERNELS_H
#define COMPRESS_CKERNELS_H

#include <stddef.h>
#include <stdint.h>

/// The instruction set the functions below run on: "avx512", "avx2", or "baseline" (SSE2, NEON).
const char *compress_instruction_set(void);

// Conversions; narrowing rounds to nearest even. (convert.c)
void compress_bf16_to_f32(const uint16_t *in, float *out, size_t count);
void compress_f16_to_f32(const uint16_t *in, float *out, size_t count);
void compress_f32_to_bf16(const float *in, uint16_t *out, size_t count);
void compress_f32_to_f16(const float *in, uint16_t *out, size_t count);
/// 1 where an element is infinite or not a number.
int compress_has_nonfinite(const float *in, size_t count);
/// The same of numbers of 16 bits whose exponent has the bits `exponent`.
int compress_has_nonfinite16(const uint16_t *in, uint16_t exponent, size_t count);

/// out = x / sqrt(mean(x²) + epsilon) · weight, for one row. (norm.c)
void compress_rms_norm(const float *x, const float *weight, float epsilon, float *out, size_t count);
/// out = (x − mean(x)) / sqrt(var(x) + epsilon) · weight, for one row. (norm.c)
void compress_layer_norm(const float *x, const float *weight, float epsilon, float *out, size_t count);
/// Σ (a − b)²; b may be null for Σ a². (norm.c)
double compress_squared_distance(const float *a, const float *b, size_t count);
/// a += b. (norm.c)
void compress_add(float *a, const float *b, size_t count);

/// row = softmax(scale · row), in place. (softmax.c)
void compress_softmax(float *row, float scale, size_t count);
/// log Σ exp(row). (softmax.c)
double compress_log_sum_exp(const float *row, size_t count);
/// Σ p · (log p − log q) with p = softmax(reference), q = softmax(row), given both rows' log-sum-exp. (softmax.c)
double compress_kl_divergence(const float *reference, double reference_lse, const float *row, double lse, size_t count);

/// gate = act(gate) · up, in place. (activation.c)
void compress_silu_gate(float *gate, const float *up, size_t count);
void compress_gelu_tanh_gate(float *gate, const float *up, size_t count);
/// x = gelu(x) with the error function, x = max(x, 0), and a = a · b, in place. (activation.c)
void compress_gelu(float *x, size_t count);
void compress_relu(float *x, size_t count);
void compress_multiply(float *a, const float *b, size_t count);

/// value = act(x) and slope = act'(x), the values those of the functions above; `value` may be `x`. (gradient.c)
void compress_silu_slope(const float *x, float *value, float *slope, size_t count);
void compress_gelu_tanh_slope(const float *x, float *value, float *slope, size_t count);
void compress_gelu_slope(const float *x, float *value, float *slope, size_t count);
/// The gradient dx of one row x from that of its norm, and what the row adds to the weight's; `dx` may be `dy` or `x`. (gradient.c)
void compress_rms_norm_pullback(
    const float *x, const float *weight, float epsilon, const float *dy, float *dx, float *weight_gradient, size_t count);
void compress_layer_norm_pullback(
    const float *x, const float *weight, float epsilon, const float *dy, float *dx, float *weight_gradient, size_t count);
/// dp = scale · p · (dp − Σ p · dp), in place: the gradient of a row from that of p = softmax(scale · row). (gradient.c)
void compress_softmax_pullback(const float *p, float *dp, float scale, size_t count);

/// out = scale · (clip(rint(u), 0, top) − zero); `top` is a whole number below 2²². (training.c)
void compress_dequantize_latents(const float *u, float scale, float zero, float top, float *out, size_t count);
/// The gradient of latent codes from that of their weights, in place, as if nothing were rounded: scale · dw where
/// −½ ≤ u ≤ top + ½, else 0. Leaves product = Σ dw · (clip(rint(u), 0, top) − zero) and sum = Σ dw. (training.c)
void compress_latent_pullback(
    const float *u, float scale, float zero, float top, float *dw, float *product, float *sum, size_t count);
/// With g = factor · gradient: m = β₁ · m + (1 − β₁) · g, v = β₂ · v + (1 − β₂) · g², and
/// p = p − rate · (correction1 · m / (√(correction2 · v) + epsilon) + decay · p). (training.c)
void compress_adamw(
    float *p, const float *gradient, float factor, float *m, float *v, float rate, float beta1, float beta2, float correction1,
    float correction2, float epsilon, float decay, size_t count);

/// Rotates the halves of every head of one row in place: cosine and sine hold half a head each. (rotary.c)
void compress_rotary(float *row, const float *cosine, const float *sine, size_t heads, size_t head_size);

/// Smallest and largest element; both 0 for no elements. (quantize.c)
void compress_range(const float *w, size_t count, float *smallest, float *largest);
/// How many elements are zero, of either sign. (quantize.c)
size_t compress_count_zeros(const float *w, size_t count);
/// codes = clip(rint(w / scale + zero − m) + m, 0, top) with m = (top + 1) / 2, the code of the signed zero. (quantize.c)
void compress_quantize(const float *w, float scale, float zero, float top, uint8_t *codes, size_t count);
/// out = scale · (codes − zero). (quantize.c)
void compress_dequantize(const uint8_t *codes, float scale, float zero, float *out, size_t count);
/// out = scale · codes + bias, without a fused multiply-add. (quantize.c)
void compress_dequantize_biased(const uint8_t *codes, float scale, float bias, float *out, size_t count);
/// out = scale · (code − zero) with the code that `compress_quantize` would choose; in place where out = w. (quantize.c)
void compress_round_to_grid(const float *w, float scale, float zero, float top, float *out, size_t count);
/// Σ importance · (w − scale · (code − zero))² over the codes that `compress_quantize` would choose, or their neighbours where a weight
/// lies midway; importance may be null. (quantize.c)
float compress_quantization_error(const float *w, const float *importance, float scale, float zero, float top, size_t count);

/// Over the codes of `compress_quantize`, with q = code − zero: product = Σ importance · w · q and square = Σ importance · q². (quantize.c)
void compress_code_moments(
    const float *w, const float *importance, float scale, float zero, float top, float *product, float *square, size_t count);

/// How many grids the searches below try at once.
#define COMPRESS_CANDIDATES 8

/// Of the scales unit · (centre + offsets[j]) the one whose codes, at the scale that fits them best, leave the least squared error.
///
/// Returns its index, with the error it takes away in `gain` and the fitted scale Σ importance · w · q / Σ importance · q² in `fitted`.
/// `offsets` has COMPRESS_CANDIDATES elements, `zero` is a whole number; a scale may be negative, but not zero. (search.c)
size_t compress_best_scale(
    const float *w, const float *importance, size_t count, float unit, float centre, const float *offsets, float zero, float top,
    float *gain, float *fitted);
/// Of COMPRESS_CANDIDATES scales and zero points the index of those with the least squared error, which is left in `error`. (search.c)
size_t compress_best_grid(
    const float *w, const float *importance, size_t count, const float *scales, const float *zeros, float top, float *error);

/// GPTQ inside one block of columns, many rows at once. (gptq.c)
///
/// All matrices are [columns × rows]: element (column, row) at column · rows + row. `target` enters as the original weights plus the
/// feedback of earlier blocks and is overwritten; `weight` is the original; `feedback` is the unit upper triangular factor's
/// [columns × columns] diagonal block with row stride `feedback_stride`. Leaves codes and the errors weight − dequantized.
void compress_gptq_block(
    float *target, const float *weight, const float *feedback, size_t feedback_stride, const float *scale, const float *zero, float top,
    uint8_t *codes, float *errors, size_t columns, size_t rows);

/// One sweep of coordinate descent inside one block of columns, many rows at once; matrices as for `compress_gptq_block`. (gptq.c)
///
/// `gradient` is (W − Q)·H, of which the [columns × columns] diagonal block is given with its row stride; `levels` are the codes less their
/// whole zero points. Each level in turn becomes the one that leaves the least loss, and `moves` what that takes from Q. A scale of 0 holds
/// its level where it is. The gradients of columns that have had their turn are not kept current.
void compress_descend_block(
    float *gradient, const float *hessian, size_t hessian_stride, const float *scale, const float *zero, float top, float *levels,
    float *moves, size_t columns, size_t rows);

/// SparseGPT inside one block of columns; matrices and feedback as for `compress_gptq_block`. (sparsegpt.c)
///
/// Where `mask` is not zero, a weight is removed and its error is all of it; a kept one becomes its target. With `group` > 0, which must
/// divide `columns`, the mask is chosen here: of every `group` columns the `pruned` ones with the lowest pivot · target² go, with the
/// targets they would have if all of the group were kept, and of equal ones those further left.
void compress_sparsegpt_block(
    float *target, const float *weight, const float *feedback, size_t feedback_stride, const float *pivots, size_t pruned, size_t group,
    uint8_t *mask, float *errors, size_t columns, size_t rows);

/// Floats of few bits: `mantissa` bits after the point, the smallest normal number 2^min_exponent, magnitudes up to `largest`.
/// codes = sign | exponent | mantissa of x / scale. (minifloat.c)
void compress_minifloat_encode(
    const float *x, float scale, unsigned mantissa, int min_exponent, float largest, uint8_t sign, uint8_t *codes, size_t count);
/// out = table[codes] · scale. (minifloat.c)
void compress_minifloat_decode(const uint8_t *codes, const float *table, float scale, float *out, size_t count);
/// out = scale · (x / scale, rounded). (minifloat.c)
void compress_minifloat_round(
    const float *x, float scale, unsigned mantissa, int min_exponent, float largest, float *out, size_t count);
/// Σ importance · (x − scale · (x / scale, rounded))²; importance may be null. (minifloat.c)
float compress_minifloat_error(
    const float *x, const float *importance, float scale, unsigned mantissa, int min_exponent, float largest, size_t count);
/// `compress_gptq_block` on a float grid; leaves errors only, from which the codes follow. (minifloat.c)
void compress_gptq_block_minifloat(
    float *target, const float *weight, const float *feedback, size_t feedback_stride, const float *scale, unsigned mantissa,
    int min_exponent, float largest, float *errors, size_t columns, size_t rows);

/// One step of half-quadratic quantization of a group: returns Σ |w − ŵ| for `zero` and leaves the zero point that follows. (hqq.c)
float compress_hqq_step(
    const float *w, float inverse, float zero, float top, float power, float beta, size_t count, float *next);

/// Packs codes of `bits` bits into a little-endian bit string; ceil(count · bits / 32) words, the last padded with zero bits. (pack.c)
void compress_pack_bits(const uint8_t *codes, size_t count, unsigned bits, uint32_t *words);
void compress_unpack_bits(const uint32_t *words, size_t count, unsigned bits, uint8_t *codes);

/// x · H in place, with H the Hadamard matrix of Sylvester: H[i][j] is −1 to the number of ones in i & j. (hadamard.c)
///
/// `count` is a power of two; nothing is normalised.
void compress_walsh_hadamard(double *x, size_t count);

/// One row of `columns` weights, a whole number of blocks, into ggml's block types; importance is null or a factor per column for its
/// squared error (types that have no use for it ignore it). Byte for byte what ggml writes where no multiply-adds are fused.
// (ggml_simple.c)
void compress_quantize_q4_0(const float *x, const float *importance, size_t columns, uint8_t *out);
void compress_quantize_q4_1(const float *x, const float *importance, size_t columns, uint8_t *out);
void compress_quantize_q5_0(const float *x, const float *importance, size_t columns, uint8_t *out);
void compress_quantize_q5_1(const float *x, const float *importance, size_t columns, uint8_t *out);
void compress_quantize_q8_0(const float *x, const float *importance, size_t columns, uint8_t *out);
// (ggml_kquants16.c)
void compress_quantize_q2_k(const float *x, const float *importance, size_t columns, uint8_t *out);
void compress_quantize_q3_k(const float *x, const float *importance, size_t columns, uint8_t *out);
void compress_quantize_q6_k(const float *x, const float *importance, size_t columns, uint8_t *out);
// (ggml_kquants.c)
void compress_quantize_q4_k(const float *x, const float *importance, size_t columns, uint8_t *out);
void compress_quantize_q5_k(const float *x, const float *importance, size_t columns, uint8_t *out);
// (ggml_iq4.c)
void compress_quantize_iq4_nl(const float *x, const float *importance, size_t columns, uint8_t *out);
void compress_quantize_iq4_xs(const float *x, const float *importance, size_t columns, uint8_t *out);
// (ggml_fp4.c)
void compress_quantize_mxfp4(const float *x, const float *importance, size_t columns, uint8_t *out);
void compress_quantize_nvfp4(const float *x, const float *importance, size_t columns, uint8_t *out);
/// The numbers that a row of blocks stands for. (ggml_dequantize.c)
void compress_dequantize_q4_0(const uint8_t *in, float *out, size_t columns);
void compress_dequantize_q4_1(const uint8_t *in, float *out, size_t columns);
void compress_dequantize_q5_0(const uint8_t *in, float *out, size_t columns);
void compress_dequantize_q5_1(const uint8_t *in, float *out, size_t columns);
void compress_dequantize_q8_0(const uint8_t *in, float *out, size_t columns);
void compress_dequantize_q2_k(const uint8_t *in, float *out, size_t columns);
void compress_dequantize_q3_k(const uint8_t *in, float *out, size_t columns);
void compress_dequantize_q4_k(const uint8_t *in, float *out, size_t columns);
void compress_dequantize_q5_k(const uint8_t *in, float *out, size_t columns);
void compress_dequantize_q6_k(const uint8_t *in, float *out, size_t columns);
void compress_dequantize_iq4_nl(const uint8_t *in, float *out, size_t columns);
void compress_dequantize_iq4_xs(const uint8_t *in, float *out, size_t columns);
void compress_dequantize_mxfp4(const uint8_t *in, float *out, size_t columns);
void compress_dequantize_nvfp4(const uint8_t *in, float *out, size_t columns);
/// The same for types that are read and never written. (ggml_codebook.c)
void compress_dequantize_iq2_xxs(const uint8_t *in, float *out, size_t columns);
void compress_dequantize_iq2_xs(const uint8_t *in, float *out, size_t columns);
void compress_dequantize_iq2_s(const uint8_t *in, float *out, size_t columns);
void compress_dequantize_iq3_xxs(const uint8_t *in, float *out, size_t columns);
void compress_dequantize_iq3_s(const uint8_t *in, float *out, size_t columns);
void compress_dequantize_iq1_s(const uint8_t *in, float *out, size_t columns);
void compress_dequantize_iq1_m(const uint8_t *in, float *out, size_t columns);
void compress_dequantize_tq1_0(const uint8_t *in, float *out, size_t columns);
void compress_dequantize_tq2_0(const uint8_t *in, float *out, size_t columns);
void compress_dequantize_q1_0(const uint8_t *in, float *out, size_t columns);
void compress_dequantize_q2_0(const uint8_t *in, float *out, size_t columns);

#endif
