/* What a diffusion transformer does between its projections: queries and keys of one or two streams are normalised and
 * turned on their way into the one sequence that attends to itself. Only the result is kept for the backward pass: to
 * normalise again costs less than to hold a copy of queries and keys in every block. */
#include "core/flops.h"
#include "kernels/kernels.h"
#include "ops/broadcast.h"
#include "ops/ops.h"

#include <math.h>

enum {
    Q,
    K,
    V,
    NORM_Q,
    NORM_K,
    STREAM,
    COS = 2 * STREAM,
    SIN
}; /* inputs; those of the second stream begin at STREAM */

typedef struct {
    int streams;
    int64_t batch, width, heads, dim, total, tokens[2], begin[2]; /* where each stream begins in the sequence */
} sequence;

/* ---- checks ---- */

static syz_status check_stream(const syz_call *c, int first, const sequence *s) {
    for (int k = first; k < first + STREAM; k++)
        SYZ_TRY(syz_need_real(c, k));
    SYZ_TRY(syz_need_rank(c, first + Q, 3));
    SYZ_TRY(syz_need_same_shape(c, first + Q, first + K));
    SYZ_TRY(syz_need_same_shape(c, first + Q, first + V));
    for (int k = first + NORM_Q; k <= first + NORM_K; k++) {
        if (syz_shape_equal(c->in[k]->shape, SYZ_SHAPE(s->dim))) continue;
        return syz_fail(SYZ_ESHAPE, "joint_attention: norm weight %s is not [%lld], twice the columns of the tables",
                        syz_dims(c->in[k]), (long long)s->dim);
    }
    syz_shape x = c->in[first + Q]->shape;
    if (syz_numel(c->in[first + Q]) == 0)
        return syz_fail(SYZ_ESHAPE, "joint_attention: there are no tokens in %s", syz_dims(c->in[first + Q]));
    if (x.dim[0] == s->batch && x.dim[2] == s->width) return SYZ_OK;
    return syz_fail(SYZ_ESHAPE, "joint_attention: streams %s and %s differ in more than their length",
                    syz_dims(c->in[Q]), syz_dims(c->in[first + Q]));
}

/* The second stream is whole or absent. */
static syz_status count_streams(const syz_call *c, int *streams) {
    int given = 0;
    for (int k = STREAM; k < COS; k++)
        given += c->in[k] != NULL;
    *streams = given ? 2 : 1;
    if (given % STREAM == 0) return SYZ_OK;
    return syz_fail(SYZ_EINVAL, "joint_attention: the second stream needs q2, k2, v2, norm_q2 and norm_k2, or none");
}

static syz_status check_tables(const syz_call *c, const sequence *s) {
    if (c->in[COS]->shape.dim[0] != s->total)
        return syz_fail(SYZ_ESHAPE, "joint_attention: tables %s for %lld tokens", syz_dims(c->in[COS]),
                        (long long)s->total);
    if (c->needs[COS] || c->needs[SIN])
        return syz_fail(SYZ_EUNSUPPORTED, "joint_attention: the tables get no gradient, pass ones that require none");
    return SYZ_OK;
}

static syz_status read_call(const syz_call *c, sequence *s) {
    *s = (sequence){0};
    SYZ_TRY(count_streams(c, &s->streams));
    for (int k = COS; k <= SIN; k++)
        SYZ_TRY(syz_need_dtype(c, k, SYZ_F32));
    SYZ_TRY(syz_need_rank(c, COS, 2));
    SYZ_TRY(syz_need_same_shape(c, COS, SIN));
    SYZ_TRY(syz_need_rank(c, Q, 3));
    s->dim = 2 * c->in[COS]->shape.dim[1];
    s->batch = c->in[Q]->shape.dim[0];
    s->width = c->in[Q]->shape.dim[2];
    if (s->dim == 0 || s->width % s->dim != 0)
        return syz_fail(SYZ_ESHAPE, "joint_attention: %s cannot be cut into heads of %lld, twice the columns of %s",
                        syz_dims(c->in[Q]), (long long)s->dim, syz_dims(c->in[COS]));
    s->heads = s->width / s->dim;
    for (int n = 0; n < s->streams; n++) {
        SYZ_TRY(check_stream(c, n * STREAM, s));
        s->begin[n] = s->total;
        s->total += s->tokens[n] = c->in[n * STREAM + Q]->shape.dim[1];
    }
    return check_tables(c, s);
}

/* ---- the sequence ---- */

static void *at(const syz_tensor *t, int64_t offset) {
    return (char *)syz_data(t) + offset * (int64_t)syz_dtype_size(t->dtype);
}

/* Stream n: x its own tensor, y the sequence. */
static syz_head_rows rows_of(const sequence *s, int n) {
    return (syz_head_rows){
        s->batch, s->tokens[n], s->heads, s->dim, {s->tokens[n] * s->width, s->width}, {s->total * s->width, s->width}};
}

static syz_tensor *new_sequence(const syz_call *c, const sequence *s) {
    return syz_empty(c->real, SYZ_SHAPE(s->batch, s->total, s->width));
}

/* One stream's share of all sequences to or from its own tensor. */
static int move(const syz_call *c, const sequence *s, int n, syz_tensor *whole, syz_tensor *part, bool into) {
    syz_nest nest = {.n = 2, .dim = {s->batch, s->tokens[n] * s->width}, .a = {0, 1}, .b = {0, 1}};
    nest.a[0] = s->width * (into ? s->tokens[n] : s->total);
    nest.b[0] = s->width * (into ? s->total : s->tokens[n]);
    syz_nest_simplify(&nest);
    void *joined = at(whole, s->begin[n] * s->width), *own = syz_data(part);
    return c->kernels->copy(into ? joined : own, into ? own : joined, &nest, syz_dtype_size(part->dtype));
}

/* A stream alone is the sequence. */
static syz_tensor *join_values(const syz_call *c, const sequence *s) {
    if (s->streams == 1) return c->in[V];
    syz_tensor *v = new_sequence(c, s);
    for (int n = 0; v && n < 2; n++)
        if (syz_ran(c, move(c, s, n, v, c->in[n * STREAM + V], true)) != SYZ_OK) return NULL;
    return v;
}

/* The normalised and turned queries or keys of all streams; rstd[n] (or NULL): [B,T,H] of each stream. */
static syz_tensor *join_normed(const syz_call *c, const sequence *s, int which, syz_tensor *rstd[2]) {
    syz_tensor *y = new_sequence(c, s);
    for (int n = 0; y && n < s->streams; n++) {
        syz_head_rows rows = rows_of(s, n);
        int64_t angle = s->begin[n] * (s->dim / 2);
        syz_tensor *x = c->in[n * STREAM + which], *weight = c->in[n * STREAM + NORM_Q + which];
        if (rstd && !(rstd[n] = syz_empty(SYZ_F32, SYZ_SHAPE(s->batch, s->tokens[n], s->heads)))) return NULL;
        int result = c->kernels->head_norm(at(y, s->begin[n] * s->width), rstd ? syz_f32(rstd[n]) : NULL, syz_reals(x),
                                           syz_reals(weight), syz_f32(c->in[COS]) + angle, syz_f32(c->in[SIN]) + angle,
                                           &rows, (float)c->f[0]);
        if (syz_ran(c, result) != SYZ_OK) return NULL;
    }
    return y;
}

static syz_attention_shape attention_of(const sequence *s) {
    syz_attention_shape p = {.b = s->batch, .h = s->heads, .tq = s->total, .tk = s->total, .d = s->dim};
    p.q[0] = p.k[0] = p.v[0] = s->total * s->width;
    p.q[1] = p.k[1] = p.v[1] = s->width;
    p.scale = 1.0f / sqrtf((float)s->dim);
    return p;
}

static void count(const sequence *s, int products) {
    syz_flops_count(2.0 * products * (double)(s->batch * s->width) * (double)(s->total * s->total));
}

/* out = attention of the sequence; saved: out and the log of each row's sum of exponentials [B,H,T] */
syz_status syz_forward_joint_attention(syz_call *c) {
    sequence s;
    SYZ_TRY(read_call(c, &s));
    syz_attention_shape p = attention_of(&s);
    syz_tensor *q = join_normed(c, &s, Q, NULL), *k = join_normed(c, &s, K, NULL), *v = join_values(c, &s);
    syz_tensor *lse = syz_empty(SYZ_F32, SYZ_SHAPE(s.batch, s.heads, s.total));
    c->out = new_sequence(c, &s);
    if (syz_failed()) return syz_error_status();
    c->saved[0] = c->out;
    c->saved[1] = lse;
    count(&s, 2);
    if (c->kernels->attention(syz_reals(c->out), syz_f32(lse), syz_reals(q), syz_reals(k), syz_reals(v), NULL, &p) != 0)
        return syz_attention_failed(c, "blocks", c->out);
    return SYZ_OK;
}

/* ---- backward ---- */

static bool wanted(const syz_call *c, const sequence *s, int which) {
    bool any = false;
    for (int n = 0; n < s->streams; n++)
        any |= c->needs[n * STREAM + which] || (which != V && c->needs[n * STREAM + NORM_Q + which]);
    return any;
}

/* dy, the gradient of the joined values, to the streams that it came from. */
static syz_status part_values(syz_call *c, const sequence *s, syz_tensor *dy, syz_tensor *gin[]) {
    if (s->streams == 1) gin[V] = dy;
    for (int n = 0; n < 2 && s->streams == 2; n++) {
        int k = n * STREAM + V;
        if (!c->needs[k]) continue;
        if (!(gin[k] = syz_empty_like(c->in[k]))) return syz_error_status();
        SYZ_TRY(syz_ran(c, move(c, s, n, dy, gin[k], false)));
    }
    return SYZ_OK;
}

/* dy, the gradient of the joined queries or keys, back through rotation and norm. */
static syz_status part_normed(syz_call *c, const sequence *s, int which, syz_tensor *dy, syz_tensor *const rstd[2],
                              syz_tensor *gin[]) {
    for (int n = 0; n < s->streams; n++) {
        int x = n * STREAM + which, w = n * STREAM + NORM_Q + which;
        syz_head_rows rows = rows_of(s, n);
        int64_t angle = s->begin[n] * (s->dim / 2);
        if (!c->needs[x] && !c->needs[w]) continue;
        syz_tensor *dx = s->streams == 1 ? dy : syz_empty_like(c->in[x]);
        if (c->needs[x]) gin[x] = dx;
        if (c->needs[w]) gin[w] = syz_empty(SYZ_F32, c->in[w]->shape);
        if (syz_failed()) return syz_error_status();
        SYZ_TRY(syz_ran(c, c->kernels->head_norm_backward(
                               syz_reals(dx), c->needs[w] ? syz_f32(gin[w]) : NULL, at(dy, s->begin[n] * s->width),
                               syz_reals(c->in[x]), syz_f32(rstd[n]), syz_reals(c->in[w]), syz_f32(c->in[COS]) + angle,
                               syz_f32(c->in[SIN]) + angle, &rows)));
    }
    return SYZ_OK;
}

syz_status syz_backward_joint_attention(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    sequence s;
    SYZ_TRY(read_call(c, &s));
    syz_attention_shape p = attention_of(&s);
    syz_tensor *rstd[2][2], *joined[3], *grad[3] = {0};
    syz_real *d[3] = {0};
    joined[Q] = join_normed(c, &s, Q, rstd[Q]);
    joined[K] = join_normed(c, &s, K, rstd[K]);
    joined[V] = join_values(c, &s);
    for (int n = 0; n < 3; n++) {
        if (wanted(c, &s, n)) grad[n] = new_sequence(c, &s);
        d[n] = grad[n] ? syz_reals(grad[n]) : NULL;
    }
    if (syz_failed()) return syz_error_status();
    count(&s, 5);
    if (c->kernels->attention_backward(d[Q], d[K], d[V], syz_reals(joined[Q]), syz_reals(joined[K]),
                                       syz_reals(joined[V]), NULL, syz_reals(c->saved[0]), syz_f32(c->saved[1]),
                                       syz_reals(gout), &p) != 0)
        return syz_attention_failed(c, "the gradient", gout);
    for (int n = 0; n < 2; n++)
        if (grad[n]) SYZ_TRY(part_normed(c, &s, n, grad[n], rstd[n], gin));
    return grad[V] ? part_values(c, &s, grad[V], gin) : SYZ_OK;
}
