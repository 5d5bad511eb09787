/* Attention: in bf16 by a plan of cuDNN where it has one, otherwise, and in f32, by products and the softmax below.
 * Both ways keep the same numbers for backward, so that one direction may take the one way and the other the other. */
#include "kernels/attention.cuh"
#include "kernels/attention_cudnn.h"
#include "kernels/cudnn_plans.cuh"
#include "kernels/reduce.cuh"
#include "kernels/simd_math.h"
#include "syzygy.h"

#include <math.h>
#include <string.h>

int64_t syz_cuda::attention_scores = (int64_t)256 << 20;

namespace {

using namespace syz_cuda;

/* ---- by a plan ---- */

struct plan_key {
    syz_attention_cudnn shape;
    bool backward;
};

void describe(syz_cudnn_graph *g, const void *key_) {
    const plan_key *key = (const plan_key *)key_;
    if (key->backward)
        syz_attention_backward_graph(g, &key->shape);
    else
        syz_attention_forward_graph(g, &key->shape);
}

/* Heads and rows of whole 16 bytes. */
bool even(const syz_attention_shape &s) {
    int64_t bits = s.d;
    for (int n = 0; n < 2; n++)
        bits |= s.q[n] | s.k[n] | s.v[n];
    return bits % 8 == 0;
}

void set_steps(int64_t to[3], int64_t batch, int64_t head, int64_t token) {
    to[0] = batch;
    to[1] = head;
    to[2] = token;
}

/* A mask goes into a plan when it has a number of its own for each head, query and key, as T5's bias does; padding,
 * which may leave a query without any key, does not: cuDNN would make that row NaN. */
bool plannable(const syz_attention_shape &s, const float *mask) {
    return even(s) && (!mask || (s.mask_b == 0 && s.mask_h == s.tq * s.tk && s.mask_q == s.tk));
}

const cudnn_plan *plan_of(const syz_attention_shape &s, const float *mask, bool backward) {
    plan_key key;
    memset(&key, 0, sizeof key);
    syz_attention_cudnn &a = key.shape;
    a.b = s.b;
    a.h = s.h;
    a.tq = s.tq;
    a.tk = s.tk;
    a.d = s.d;
    set_steps(a.q, s.q[0], s.d, s.q[1]);
    set_steps(a.k, s.k[0], s.d, s.k[1]);
    set_steps(a.v, s.v[0], s.d, s.v[1]);
    set_steps(a.y, s.tq * s.h * s.d, s.d, s.h * s.d);
    a.causal = s.causal;
    a.bias = mask != nullptr;
    key.backward = backward;
    return plannable(s, mask) ? find_plan(describe, &key, sizeof key) : nullptr;
}

/* The arrays that a plan gets: what is there, the numbers, and the mask in bf16. */
struct plan_arrays {
    cudnn_array array[CUDNN_ARRAYS];
    int count = 0;
    float scale, one = 1, lowest = -INFINITY;
    scratch<syz_bf16> bias;

    plan_arrays(const syz_attention_shape &s, const float *mask, cudaStream_t stream)
        : scale(s.scale), bias(mask ? s.h * s.tq * s.tk : 8, stream) {
        add(SYZ_ATTENTION_SCALE, &scale);
        if (s.causal) add(SYZ_ATTENTION_LOWEST, &lowest);
        if (mask) add(SYZ_ATTENTION_BIAS, bias.data);
    }
    void add(int64_t id, const void *data) { array[count++] = {id, data}; }
    int run(const cudnn_plan *plan, const syz_attention_shape &s, const float *mask, cudaStream_t stream) {
        if (!bias.data) return -1;
        if (mask && cast<float>(bias.data, SYZ_BF16, mask, SYZ_F32, s.h * s.tq * s.tk, stream) != 0) return -1;
        return run_plan(plan, array, count, stream);
    }
};

int planned_forward(const cudnn_plan *plan, syz_bf16 *y, float *lse, const syz_bf16 *q, const syz_bf16 *k,
                    const syz_bf16 *v, const float *mask, const syz_attention_shape &s, cudaStream_t stream) {
    plan_arrays a(s, mask, stream);
    a.add(SYZ_ATTENTION_Q, q);
    a.add(SYZ_ATTENTION_K, k);
    a.add(SYZ_ATTENTION_V, v);
    a.add(SYZ_ATTENTION_Y, y);
    a.add(SYZ_ATTENTION_LSE, lse);
    return a.run(plan, s, mask, stream);
}

/* Elements from the first to behind the last of heads that lie at these steps. */
int64_t extent(const syz_attention_shape &s, int64_t tokens, const int64_t step[2]) {
    return (s.b - 1) * step[0] + (tokens - 1) * step[1] + s.h * s.d;
}

/* All arrays of both directions. */
template <typename T>
struct operands {
    T *dq, *dk, *dv;
    const T *q, *k, *v;
    const float *mask;
    const T *y;
    const float *lse;
    const T *dy;
};

/* The plan writes all three gradients; what is not wanted goes into scratch. */
int planned_backward(const cudnn_plan *plan, const operands<syz_bf16> &o, const syz_attention_shape &s,
                     cudaStream_t stream) {
    scratch<syz_bf16> dq(o.dq ? 8 : extent(s, s.tq, s.q), stream), dk(o.dk ? 8 : extent(s, s.tk, s.k), stream),
        dv(o.dv ? 8 : extent(s, s.tk, s.v), stream);
    scratch<float> sum(s.b * s.h * s.tq, stream);
    if (!dq.data || !dk.data || !dv.data || !sum.data) return -1;
    plan_arrays a(s, o.mask, stream);
    a.add(SYZ_ATTENTION_Q, o.q);
    a.add(SYZ_ATTENTION_K, o.k);
    a.add(SYZ_ATTENTION_V, o.v);
    a.add(SYZ_ATTENTION_Y, o.y);
    a.add(SYZ_ATTENTION_LSE, o.lse);
    a.add(SYZ_ATTENTION_DY, o.dy);
    a.add(SYZ_ATTENTION_DQ, o.dq ? o.dq : dq.data);
    a.add(SYZ_ATTENTION_DK, o.dk ? o.dk : dk.data);
    a.add(SYZ_ATTENTION_DV, o.dv ? o.dv : dv.data);
    a.add(SYZ_ATTENTION_SUM, sum.data);
    a.add(SYZ_ATTENTION_ONE, &a.one);
    return a.run(plan, s, o.mask, stream);
}

/* ---- by products: the queries first..first+rows of all heads of one sample ---- */

struct chunk {
    int64_t heads, first, rows, queries, keys, dim; /* scores [heads,rows,keys] */
    const float *mask;                              /* this sample's, or NULL */
    int64_t mask_h, mask_q;
    float scale;
    bool causal;

    /* What the softmax sees of score j in row `row` of the chunk. */
    __device__ float logit(float score, int64_t row, int64_t j) const {
        int64_t head = row / rows, query = first + row - head * rows;
        if (causal && j > query) return -INFINITY;
        score *= scale;
        return mask ? score + mask[head * mask_h + query * mask_q + j] : score;
    }
    /* Where that row's head lies in one sample's [queries,heads,dim], and its number in [heads,queries]. */
    __device__ int64_t token_row(int64_t row) const {
        int64_t head = row / rows;
        return ((first + row - head * rows) * heads + head) * dim;
    }
    __device__ int64_t head_row(int64_t row) const {
        int64_t head = row / rows;
        return head * queries + first + row - head * rows;
    }
};

/* p = softmax of the scores' rows, lse [heads,queries]; p may be the scores. */
template <int GROUP, typename T>
static __global__ void probabilities(T *p, float *lse, const float *scores, chunk c) {
    int64_t row = group_row<GROUP>(), at = row * c.keys;
    int rank = group_rank<GROUP>();
    float top = -INFINITY, sum = 0;
    if (row >= c.heads * c.rows) return;
    for (int64_t j = rank; j < c.keys; j += GROUP)
        top = maximum()(c.logit(scores[at + j], row, j), top);
    top = group_reduce<GROUP>(top, maximum());
    float base = top == -INFINITY ? 0.0f : top; /* everything masked */
    for (int64_t j = rank; j < c.keys; j += GROUP)
        sum += syz_expf(c.logit(scores[at + j], row, j) - base);
    sum = group_sum<GROUP>(sum);
    bool seen = sum > 0 || sum != sum; /* NaN passes through */
    float factor = seen ? 1.0f / sum : 0.0f;
    for (int64_t j = rank; j < c.keys; j += GROUP)
        p[at + j] = store<T>(syz_expf(c.logit(scores[at + j], row, j) - base) * factor);
    /* a row without any key: +inf makes its probabilities 0 in the backward pass too */
    if (rank == 0) lse[c.head_row(row)] = seen ? top + logf(sum) : INFINITY;
}

/* p = exp(logits - lse) and ds = p (dp - sum(y dy)); y, dy, lse are this sample's. p may be the scores, ds may be dp.
 */
template <int GROUP, typename T>
static __global__ void score_gradients(T *p, T *ds, const float *scores, const float *dp, const T *y, const T *dy,
                                       const float *lse, chunk c) {
    int64_t row = group_row<GROUP>(), at = row * c.keys;
    int rank = group_rank<GROUP>();
    if (row >= c.heads * c.rows) return;
    int64_t from = c.token_row(row);
    float sum = 0, shift = lse[c.head_row(row)];
    for (int64_t i = rank; i < c.dim; i += GROUP)
        sum += load(y[from + i]) * load(dy[from + i]);
    sum = group_sum<GROUP>(sum);
    for (int64_t j = rank; j < c.keys; j += GROUP) {
        float probability = syz_expf(c.logit(scores[at + j], row, j) - shift), slope = probability * (dp[at + j] - sum);
        p[at + j] = store<T>(probability);
        ds[at + j] = store<T>(slope);
    }
}

/* y, whose heads lie behind each other in rows `step` apart, = factor * x [heads,rows,dim] */
template <typename T>
static __global__ void place_heads(T *y, const float *x, int64_t heads, int64_t rows, int64_t dim, int64_t step,
                                   float factor) {
    int64_t i = thread_index();
    if (i >= heads * rows * dim) return;
    int64_t line = i / dim, head = line / rows;
    y[(line - head * rows) * step + head * dim + i - line * dim] = store<T>(factor * x[i]);
}

template <typename T>
int place(T *y, const float *x, int64_t heads, int64_t rows, int64_t dim, int64_t step, float factor,
          cudaStream_t stream) {
    return launch(place_heads<T>, cuts(heads * rows * dim, THREADS), THREADS, stream, y, x, heads, rows, dim, step,
                  factor);
}

/* y [heads,m,n] in f32 = a b, with the steps of a and b from head to head, row to row and column to column */
template <typename T>
int multiply(float *y, const T *a, const T *b, int64_t heads, int64_t m, int64_t n, int64_t k,
             const int64_t (&a_step)[3], const int64_t (&b_step)[3], cudaStream_t stream) {
    syz_product p = {};
    p.batch = heads;
    p.m = m;
    p.n = n;
    p.k = k;
    memcpy(p.a, a_step, sizeof p.a);
    memcpy(p.b, b_step, sizeof p.b);
    p.wide = 1;
    return matmul<T>(y, a, b, nullptr, &p, stream);
}

/* A warp does a row of few keys, a block one of many. */
int64_t blocks_of(const chunk &c) {
    int64_t rows = c.heads * c.rows;
    return c.keys <= WARP_ROW ? group_blocks<WARP>(rows) : group_blocks<THREADS>(rows);
}

int64_t rows_at_once(const syz_attention_shape &s) {
    int64_t rows = attention_scores / (s.h * s.tk * (int64_t)sizeof(float));
    return rows < 1 ? 1 : rows > s.tq ? s.tq : rows;
}

chunk chunk_of(const syz_attention_shape &s, const float *mask, int64_t sample, int64_t first, int64_t most) {
    chunk c = {
        s.h,     first,   s.tq - first < most ? s.tq - first : most, s.tq, s.tk, s.d, nullptr, s.mask_h, s.mask_q,
        s.scale, s.causal};
    if (mask) c.mask = mask + sample * s.mask_b;
    return c;
}

/* f(sample, chunk) for all queries, until one fails. */
template <typename F>
int each_chunk(const syz_attention_shape &s, const float *mask, F f) {
    int64_t most = rows_at_once(s);
    for (int64_t sample = 0; sample < s.b; sample++)
        for (int64_t first = 0; first < s.tq; first += most)
            if (f(sample, chunk_of(s, mask, sample, first, most)) != 0) return -1;
    return 0;
}

/* In f32 what is computed from the scores takes their place; bf16 needs arrays of its own. */
template <typename T>
struct narrow_scores {
    scratch<T> own;
    T *data;

    narrow_scores(float *wide, int64_t n, cudaStream_t stream)
        : own(sizeof(T) == sizeof(float) ? 8 : n, stream),
          data(sizeof(T) == sizeof(float) ? (T *)(void *)wide : own.data) {}
};

template <typename T>
int forward(T *y, float *lse, const T *q, const T *k, const T *v, const float *mask, const syz_attention_shape &s,
            cudaStream_t stream) {
    int64_t size = s.h * rows_at_once(s), width = s.h * s.d;
    scratch<float> scores(size * s.tk, stream), product(size * s.d, stream);
    narrow_scores<T> p(scores.data, size * s.tk, stream);
    if (!scores.data || !product.data || !p.data) return -1;
    return each_chunk(s, mask, [&](int64_t b, const chunk &c) {
        const T *queries = q + b * s.q[0] + c.first * s.q[1], *keys = k + b * s.k[0], *rows = v + b * s.v[0];
        if (multiply(scores.data, queries, keys, s.h, c.rows, s.tk, s.d, {s.d, s.q[1], 1}, {s.d, 1, s.k[1]}, stream) !=
            0)
            return -1;
        auto kernel = s.tk <= WARP_ROW ? probabilities<WARP, T> : probabilities<THREADS, T>;
        if (launch(kernel, blocks_of(c), THREADS, stream, p.data, lse + b * s.h * s.tq, scores.data, c) != 0) return -1;
        if (multiply(product.data, p.data, rows, s.h, c.rows, s.d, s.tk, {c.rows * s.tk, s.tk, 1}, {s.d, s.v[1], 1},
                     stream) != 0)
            return -1;
        return place(y + (b * s.tq + c.first) * width, product.data, s.h, c.rows, s.d, width, 1.0f, stream);
    });
}

/* What backward needs for a chunk, and one sample's sums over chunks. */
template <typename T>
struct backward_work {
    int64_t size, sums;
    scratch<float> scores, dp, dq, dk, dv, part;
    narrow_scores<T> p, ds;

    backward_work(const syz_attention_shape &s, cudaStream_t stream)
        : size(s.h * rows_at_once(s)), sums(s.h * s.tk * s.d), scores(size * s.tk, stream), dp(size * s.tk, stream),
          dq(size * s.d, stream), dk(sums, stream), dv(sums, stream), part(sums, stream),
          p(scores.data, size * s.tk, stream), ds(dp.data, size * s.tk, stream) {}
    bool good() const {
        return scores.data && dp.data && dq.data && dk.data && dv.data && part.data && p.data && ds.data;
    }
    /* to = x^T y of the first chunk, += of the others; x [heads,rows,keys] */
    int add_transposed(float *to, const T *x, const T *y, int64_t step, const chunk &c, cudaStream_t stream) {
        float *into = c.first ? part.data : to;
        if (multiply(into, x, y, c.heads, c.keys, c.dim, c.rows, {c.rows * c.keys, 1, c.keys}, {c.dim, step, 1},
                     stream) != 0)
            return -1;
        return c.first ? axpy<float>(to, part.data, 1.0f, sums, stream) : 0;
    }
};

/* p and ds of a chunk, from its scores and dp */
template <typename T>
int differentiate(backward_work<T> &w, const operands<T> &o, const syz_attention_shape &s, int64_t b, const chunk &c,
                  cudaStream_t stream) {
    int64_t sample = b * s.tq * s.h * s.d, row = c.first * s.h * s.d;
    if (multiply(w.scores.data, o.q + b * s.q[0] + c.first * s.q[1], o.k + b * s.k[0], s.h, c.rows, s.tk, s.d,
                 {s.d, s.q[1], 1}, {s.d, 1, s.k[1]}, stream) != 0)
        return -1;
    if (multiply(w.dp.data, o.dy + sample + row, o.v + b * s.v[0], s.h, c.rows, s.tk, s.d, {s.d, s.h * s.d, 1},
                 {s.d, 1, s.v[1]}, stream) != 0)
        return -1;
    auto kernel = s.tk <= WARP_ROW ? score_gradients<WARP, T> : score_gradients<THREADS, T>;
    return launch(kernel, blocks_of(c), THREADS, stream, w.p.data, w.ds.data, w.scores.data, w.dp.data, o.y + sample,
                  o.dy + sample, o.lse + b * s.h * s.tq, c);
}

template <typename T>
int backward(const operands<T> &o, const syz_attention_shape &s, cudaStream_t stream) {
    backward_work<T> w(s, stream);
    if (!w.good()) return -1;
    return each_chunk(s, o.mask, [&](int64_t b, const chunk &c) {
        int64_t row = s.h * s.d, queries = b * s.q[0] + c.first * s.q[1];
        if (differentiate(w, o, s, b, c, stream) != 0) return -1;
        if (o.dv && w.add_transposed(w.dv.data, w.p.data, o.dy + (b * s.tq + c.first) * row, row, c, stream) != 0)
            return -1;
        if (o.dk && w.add_transposed(w.dk.data, w.ds.data, o.q + queries, s.q[1], c, stream) != 0) return -1;
        if (o.dq && (multiply(w.dq.data, w.ds.data, o.k + b * s.k[0], s.h, c.rows, s.d, s.tk, {c.rows * s.tk, s.tk, 1},
                              {s.d, s.k[1], 1}, stream) != 0 ||
                     place(o.dq + queries, w.dq.data, s.h, c.rows, s.d, s.q[1], s.scale, stream) != 0))
            return -1;
        if (c.first + c.rows < s.tq) return 0;
        if (o.dv && place(o.dv + b * s.v[0], w.dv.data, s.h, s.tk, s.d, s.v[1], 1.0f, stream) != 0) return -1;
        return o.dk ? place(o.dk + b * s.k[0], w.dk.data, s.h, s.tk, s.d, s.k[1], s.scale, stream) : 0;
    });
}

} // namespace

template <typename REAL>
int syz_cuda::attention(REAL *y, float *lse, const REAL *q, const REAL *k, const REAL *v, const float *mask,
                        const syz_attention_shape *shape, cudaStream_t stream) {
    if (shape->b * shape->h * shape->tq == 0) return 0;
    if constexpr (sizeof(REAL) == sizeof(syz_bf16)) {
        const cudnn_plan *plan = aligned(y, q, k, v) && aligned(lse) ? plan_of(*shape, mask, false) : nullptr;
        if (plan) return planned_forward(plan, y, lse, q, k, v, mask, *shape, stream);
    }
    return forward(y, lse, q, k, v, mask, *shape, stream);
}

template <typename REAL>
int syz_cuda::attention_backward(REAL *dq, REAL *dk, REAL *dv, const REAL *q, const REAL *k, const REAL *v,
                                 const float *mask, const REAL *y, const float *lse, const REAL *dy,
                                 const syz_attention_shape *shape, cudaStream_t stream) {
    operands<REAL> o = {dq, dk, dv, q, k, v, mask, y, lse, dy};
    if (shape->b * shape->h * shape->tq == 0) return 0;
    if constexpr (sizeof(REAL) == sizeof(syz_bf16)) {
        bool usable = aligned(dq, dk, dv) && aligned(q, k, v, y, dy) && aligned(lse);
        const cudnn_plan *plan = usable ? plan_of(*shape, mask, true) : nullptr;
        if (plan) return planned_backward(plan, o, *shape, stream);
    }
    return backward(o, *shape, stream);
}

SYZ_BOTH(attention)
SYZ_BOTH(attention_backward)
