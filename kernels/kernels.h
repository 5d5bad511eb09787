/* The contract between operations and backends: one table of kernels, listed once in kernels.def.
 *
 * Kernels trust their arguments (the operations checked them), depend on libc, OpenMP, oneDNN or CUDA only, take
 * scratch from their backend's allocator (the CPU's: core/alloc.h), and return 0, or a negative number when a library
 * or the machine failed. Arrays are contiguous unless strides are given. Every output is written with `=` unless its
 * comment says `+=`. Results do not depend on timing: each sum has a fixed order for a given number of threads. */
#ifndef SYZ_KERNELS_H
#define SYZ_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { SYZ_KERNEL_DIMS = 6 };

/* Loop nest over a contiguous result: sizes, and the step of each operand in elements (0 repeats it). */
typedef struct {
    int n;
    int64_t dim[SYZ_KERNEL_DIMS], a[SYZ_KERNEL_DIMS], b[SYZ_KERNEL_DIMS];
} syz_nest;

/* y[m,n] = a[m,k] b[k,n], `batch` times. Each operand is packed memory with steps in elements (batch, row, column):
 * exchanged row and column steps are a transpose; batch step 0 shares one matrix among the batch. Only b, where it need
 * not be rounded, may be some columns of a wider matrix. */
typedef struct {
    int64_t batch, m, n, k;
    int64_t a[3], b[3];
    int64_t bf16;      /* round f32 operands to bf16, accumulate in f32; the CPU's alone, 0 in CUDA */
    int64_t b_rounded; /* b is in bf16 already; the CPU's alone */
    int64_t wide; /* y is f32 though the operands are bf16, as gradients of parameters are; nothing where REAL is f32 */
    int64_t add;  /* y += the product; not with GELU */
} syz_product;

/* Attention over q [b,tq,h,d] and k, v [b,tk,h,d]. Heads lie behind each other in a token's row; steps from sample to
 * sample and from row to row, in elements, let all three be parts of one packed product. dq, dk and dv lie as q, k and
 * v do; y and dy are contiguous. */
typedef struct {
    int64_t b, h, tq, tk, d;
    int64_t q[2], k[2], v[2];       /* steps: samples, tokens */
    int64_t mask_b, mask_h, mask_q; /* the mask's steps; along the keys it is contiguous */
    float scale;
    bool causal; /* query i sees keys 0..i */
} syz_attention_shape;

/* Heads of `dim` values behind each other, [batch,tokens,heads,dim] with steps in elements from batch to batch and from
 * token to token, which leave room for what else is in the same rows. */
typedef struct {
    int64_t batch, tokens, heads, dim, x_step[2], y_step[2];
} syz_head_rows;

/* The numbers of AdamW's step t, each computed in double: decay = 1 - lr weight_decay, rest1 = 1 - beta1,
 * rest2 = 1 - beta2, step = lr / (1 - beta1^t), root = sqrt(1 - beta2^t). */
typedef struct {
    float decay, rest1, beta2, rest2, step, root, eps;
} syz_adamw_numbers;

enum { SYZ_MOMENT_BLOCK = 256 }; /* values that share one scale, where moments are kept in 8 bits */

typedef enum {
    SYZ_BINARY_ADD,
    SYZ_BINARY_SUB,
    SYZ_BINARY_MUL,
    SYZ_BINARY_DIV,
    SYZ_BINARY_MAX,
    SYZ_BINARY_MIN
} syz_binary;

typedef enum {
#define UNARY(name, y, dy) SYZ_UNARY_##name,
#include "kernels/unary.def"
#undef UNARY
} syz_unary;

/* Rows of `width`; each run of `span` rows shares one row of weights, used as offset + weight. */
typedef struct {
    int64_t rows, width, span;
    float offset;
} syz_norm_shape;

typedef struct {
    int64_t n, area, channels, groups;
    bool silu;
} syz_group_norm_shape;

enum { SYZ_GROUP_NORM_BLOCK = 512 }; /* positions summed in one go */

typedef struct {
    int64_t n, h, w, c, o, kh, kw, out_h, out_w, stride, top, left, bottom, right;
    int64_t bf16; /* as in syz_product */
} syz_conv;

/* A sparse matrix [out,in] whose rows are short runs: y[i] = sum over k < count[i] of weight[i * most + k] *
 * x[start[i] + k]. */
typedef struct {
    int64_t in, out, most;
    int64_t *start, *count;
    float *weight;
} syz_taps;

/* Elements of the type that a table of kernels is for: float, or bf16 on CUDA. */
typedef struct syz_real syz_real;

#define REAL syz_real

typedef struct {
#define KERNEL(name, params) int(*name) params;
#include "kernels/kernels.def"
#undef KERNEL
} syz_backend;

#undef REAL

extern const syz_backend syz_cpu;

#define REAL float /* what the CPU stores */

#define KERNEL(name, params) int syz_cpu_##name params;
#include "kernels/kernels.def"
#undef KERNEL

#undef REAL

#ifdef __cplusplus
}
#endif

#endif
