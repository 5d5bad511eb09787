#include "kernels/attention_cudnn.h"

static syz_cudnn_layout rows(const syz_attention_cudnn *a, int64_t tokens, const int64_t step[3]) {
    return (syz_cudnn_layout){{a->b, a->h, tokens, a->d}, {step[0], step[1], step[2], 1}};
}

static syz_cudnn_layout transposed(syz_cudnn_layout t) {
    return (syz_cudnn_layout){{t.dim[0], t.dim[1], t.dim[3], t.dim[2]}, {t.step[0], t.step[1], t.step[3], t.step[2]}};
}

static syz_cudnn_layout contiguous(int64_t b, int64_t h, int64_t m, int64_t n) {
    return (syz_cudnn_layout){{b, h, m, n}, {h * m * n, m * n, n, 1}};
}

static syz_descriptor bf16(syz_cudnn_graph *g, int64_t id, syz_cudnn_layout layout) {
    return syz_cudnn_tensor(g, id, CUDNN_DATA_BFLOAT16, layout);
}

static syz_descriptor inner_f32(syz_cudnn_graph *g, syz_cudnn_layout layout) {
    return syz_cudnn_inner(g, CUDNN_DATA_FLOAT, layout);
}

/* scores where the query's index is at least the key's, the lowest number elsewhere */
static syz_descriptor causal(syz_cudnn_graph *g, syz_descriptor scores, syz_cudnn_layout s) {
    syz_descriptor row = syz_cudnn_inner(g, CUDNN_DATA_INT32, s), column = syz_cudnn_inner(g, CUDNN_DATA_INT32, s);
    syz_descriptor sees = syz_cudnn_inner(g, CUDNN_DATA_BOOLEAN, s), kept = inner_f32(g, s);
    syz_cudnn_index(g, 2, scores, row);
    syz_cudnn_index(g, 3, scores, column);
    syz_cudnn_pointwise(g, CUDNN_POINTWISE_CMP_GE, row, column, NULL, sees);
    syz_cudnn_pointwise(g, CUDNN_POINTWISE_BINARY_SELECT, scores, syz_cudnn_number(g, SYZ_ATTENTION_LOWEST), sees,
                        kept);
    return kept;
}

/* scores + bias, masked, as far as there is either */
static syz_descriptor masked(syz_cudnn_graph *g, const syz_attention_cudnn *a, syz_descriptor scores,
                             syz_cudnn_layout s) {
    if (a->bias) {
        syz_descriptor biased = inner_f32(g, s), bias = bf16(g, SYZ_ATTENTION_BIAS, contiguous(1, a->h, a->tq, a->tk));
        syz_cudnn_pointwise(g, CUDNN_POINTWISE_ADD, scores, bias, NULL, biased);
        scores = biased;
    }
    return a->causal ? causal(g, scores, s) : scores;
}

/* ---- forward ---- */

static void forward_node(syz_cudnn_graph *g, const syz_attention_cudnn *a) {
    syz_descriptor d = syz_cudnn_create(g, CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR);
    syz_cudnn_layout lse = contiguous(a->b, a->h, a->tq, 1);
    syz_cudnn_link(g, d, CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, bf16(g, SYZ_ATTENTION_Q, rows(a, a->tq, a->q)));
    syz_cudnn_link(g, d, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, bf16(g, SYZ_ATTENTION_K, rows(a, a->tk, a->k)));
    syz_cudnn_link(g, d, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, bf16(g, SYZ_ATTENTION_V, rows(a, a->tk, a->v)));
    syz_cudnn_link(g, d, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, bf16(g, SYZ_ATTENTION_Y, rows(a, a->tq, a->y)));
    syz_cudnn_link(g, d, CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC,
                   syz_cudnn_tensor(g, SYZ_ATTENTION_LSE, CUDNN_DATA_FLOAT, lse));
    syz_cudnn_link(g, d, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC, syz_cudnn_number(g, SYZ_ATTENTION_SCALE));
    syz_cudnn_add_node(g, d);
}

/* y = softmax(scale q k^T + bias, masked) v, and the log of each row's sum of exponentials */
static void forward_graph(syz_cudnn_graph *g, const syz_attention_cudnn *a) {
    syz_cudnn_layout s = contiguous(a->b, a->h, a->tq, a->tk), r = contiguous(a->b, a->h, a->tq, 1);
    syz_descriptor product = inner_f32(g, s), scores = inner_f32(g, s), shifted = inner_f32(g, s);
    syz_descriptor e = inner_f32(g, s), p = syz_cudnn_inner(g, CUDNN_DATA_BFLOAT16, s);
    syz_descriptor top = inner_f32(g, r), sum = inner_f32(g, r), logarithm = inner_f32(g, r);
    syz_cudnn_product(g, bf16(g, SYZ_ATTENTION_Q, rows(a, a->tq, a->q)),
                      bf16(g, SYZ_ATTENTION_K, transposed(rows(a, a->tk, a->k))), product);
    syz_cudnn_pointwise(g, CUDNN_POINTWISE_MUL, product, syz_cudnn_number(g, SYZ_ATTENTION_SCALE), NULL, scores);
    scores = masked(g, a, scores, s);
    syz_cudnn_reduce(g, CUDNN_REDUCE_TENSOR_MAX, scores, top);
    syz_cudnn_pointwise(g, CUDNN_POINTWISE_SUB, scores, top, NULL, shifted);
    syz_cudnn_pointwise(g, CUDNN_POINTWISE_EXP, shifted, NULL, NULL, e);
    syz_cudnn_reduce(g, CUDNN_REDUCE_TENSOR_ADD, e, sum);
    syz_cudnn_pointwise(g, CUDNN_POINTWISE_LOG, sum, NULL, NULL, logarithm);
    syz_cudnn_pointwise(g, CUDNN_POINTWISE_ADD, top, logarithm, NULL,
                        syz_cudnn_tensor(g, SYZ_ATTENTION_LSE, CUDNN_DATA_FLOAT, r));
    syz_cudnn_pointwise(g, CUDNN_POINTWISE_DIV, e, sum, NULL, p);
    syz_cudnn_product(g, p, bf16(g, SYZ_ATTENTION_V, rows(a, a->tk, a->v)),
                      bf16(g, SYZ_ATTENTION_Y, rows(a, a->tq, a->y)));
}

void syz_attention_forward_graph(syz_cudnn_graph *g, const syz_attention_cudnn *a) {
    if (a->causal || a->bias)
        forward_graph(g, a);
    else
        forward_node(g, a);
}

/* ---- backward: the order of nodes is what cuDNN's engine looks for ---- */

typedef struct {
    syz_cudnn_layout q, k, s, r; /* queries, keys, scores, one number for each row */
    syz_descriptor scale, dy, p; /* p = exp(scale q k^T - lse) */
} backward_parts;

/* sum = rowsum(dy * y); p = exp(scale q k^T - lse); dv = p^T dy */
static void value_gradient(syz_cudnn_graph *g, const syz_attention_cudnn *a, backward_parts *b, syz_descriptor q,
                           syz_descriptor sum) {
    syz_cudnn_layout s = b->s, v = rows(a, a->tk, a->v);
    syz_descriptor weighted = inner_f32(g, contiguous(a->b, a->h, a->tq, a->d)), row = inner_f32(g, b->r);
    syz_descriptor product = inner_f32(g, s), scores = inner_f32(g, s), shifted = inner_f32(g, s);
    syz_descriptor p_t = syz_cudnn_inner(g, CUDNN_DATA_BFLOAT16, transposed(s));
    syz_cudnn_pointwise(g, CUDNN_POINTWISE_MUL, b->dy, bf16(g, SYZ_ATTENTION_Y, rows(a, a->tq, a->y)), NULL, weighted);
    syz_cudnn_reduce(g, CUDNN_REDUCE_TENSOR_ADD, weighted, row);
    syz_cudnn_pointwise(g, CUDNN_POINTWISE_MUL, row, syz_cudnn_number(g, SYZ_ATTENTION_ONE), NULL, sum);
    syz_cudnn_product(g, q, bf16(g, SYZ_ATTENTION_K, transposed(b->k)), product);
    syz_cudnn_pointwise(g, CUDNN_POINTWISE_MUL, product, b->scale, NULL, scores);
    scores = masked(g, a, scores, s);
    syz_cudnn_pointwise(g, CUDNN_POINTWISE_SUB, scores, syz_cudnn_tensor(g, SYZ_ATTENTION_LSE, CUDNN_DATA_FLOAT, b->r),
                        NULL, shifted);
    syz_cudnn_pointwise(g, CUDNN_POINTWISE_EXP, shifted, NULL, NULL, b->p);
    syz_cudnn_reshape(g, b->p, p_t);
    syz_cudnn_product(g, p_t, b->dy, bf16(g, SYZ_ATTENTION_DV, v));
}

/* ds = scale p (dy v^T - sum); dk = ds^T q; dq = ds k. With a sum of dq in f32 as one more array the engine would add
 * to it in whatever order its blocks arrive; without, it keeps ds in its workspace, and the order is fixed. */
static void query_key_gradients(syz_cudnn_graph *g, const syz_attention_cudnn *a, const backward_parts *b,
                                syz_descriptor q, syz_descriptor sum) {
    syz_cudnn_layout s = b->s;
    syz_descriptor dp = inner_f32(g, s), centred = inner_f32(g, s), unscaled = inner_f32(g, s), ds = inner_f32(g, s);
    syz_descriptor ds_t = syz_cudnn_inner(g, CUDNN_DATA_BFLOAT16, transposed(s));
    syz_descriptor keys = syz_cudnn_inner(g, CUDNN_DATA_BFLOAT16, b->k);
    syz_cudnn_product(g, b->dy, bf16(g, SYZ_ATTENTION_V, transposed(rows(a, a->tk, a->v))), dp);
    syz_cudnn_pointwise(g, CUDNN_POINTWISE_SUB, dp, sum, NULL, centred);
    syz_cudnn_pointwise(g, CUDNN_POINTWISE_MUL, centred, b->p, NULL, unscaled);
    syz_cudnn_pointwise(g, CUDNN_POINTWISE_MUL, unscaled, b->scale, NULL, ds);
    syz_cudnn_reshape(g, ds, ds_t);
    syz_cudnn_product(g, ds_t, q, bf16(g, SYZ_ATTENTION_DK, b->k));
    syz_cudnn_reshape(g, bf16(g, SYZ_ATTENTION_K, transposed(b->k)), keys);
    syz_cudnn_product(g, ds, keys, bf16(g, SYZ_ATTENTION_DQ, b->q));
}

void syz_attention_backward_graph(syz_cudnn_graph *g, const syz_attention_cudnn *a) {
    g->refused = 1u << CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
    backward_parts b = {.q = rows(a, a->tq, a->q), .k = rows(a, a->tk, a->k)};
    b.s = contiguous(a->b, a->h, a->tq, a->tk);
    b.r = contiguous(a->b, a->h, a->tq, 1);
    b.scale = syz_cudnn_number(g, SYZ_ATTENTION_SCALE);
    b.p = inner_f32(g, b.s);
    b.dy = bf16(g, SYZ_ATTENTION_DY, rows(a, a->tq, a->y));
    syz_descriptor q = bf16(g, SYZ_ATTENTION_Q, b.q);
    syz_descriptor sum = syz_cudnn_tensor(g, SYZ_ATTENTION_SUM, CUDNN_DATA_FLOAT, b.r);
    value_gradient(g, a, &b, q, sum);
    query_key_gradients(g, a, &b, q, sum);
}
