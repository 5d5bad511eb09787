/* Scaled dot-product attention, block by block: of the Tq x Tk scores only one block exists at a time. A block of
 * queries, keys or values is first packed (zero-padded to whole vectors), then the products run in the cache. */
#include "kernels/kernels.h"
#include "kernels/simd_math.h"
#include "kernels/tile.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { QUERIES = 64, MAX_KEYS = 128, MAX_GROUP = 8 };

/* Keys per block: fewer for wide heads, so that the packed blocks stay in the second-level cache. */
static int64_t keys_per_block(const syz_attention_shape *p) {
    int64_t most = p->d <= 128 ? MAX_KEYS : 64;
    return p->tk < most ? p->tk : most;
}

/* The tokens of one head in an array: where the first lies, and the step to the next. */
typedef struct {
    int64_t start, step;
} rows;

static inline int64_t row(const rows *r, int64_t token) {
    return r->start + token * r->step;
}

/* to [n, width] = factor * from, padded with zeros */
static void pack(float *restrict to, int64_t width, const float *restrict from, int64_t step, int64_t n, int64_t d,
                 float factor) {
    for (int64_t i = 0; i < n; i++, to += width, from += step) {
        for (int64_t c = 0; c < d; c++)
            to[c] = factor * from[c];
        for (int64_t c = d; c < width; c++)
            to[c] = 0;
    }
}

/* to [d, width] = from^T, padded with zeros. In squares of one cache line's width: tokens lie kilobytes apart, and a
 * column of them at a time would leave none of the lines it reads in the cache for the next. */
static void pack_transposed(float *restrict to, int64_t width, const float *restrict from, int64_t step, int64_t n,
                            int64_t d) {
    for (int64_t j0 = 0; j0 < n; j0 += SYZ_LANES) {
        for (int64_t c0 = 0; c0 < d; c0 += SYZ_LANES) {
            int64_t j1 = j0 + SYZ_LANES < n ? j0 + SYZ_LANES : n, c1 = c0 + SYZ_LANES < d ? c0 + SYZ_LANES : d;
            for (int64_t j = j0; j < j1; j++)
                for (int64_t c = c0; c < c1; c++)
                    to[c * width + j] = from[j * step + c];
        }
    }
    for (int64_t c = 0; c < d; c++)
        for (int64_t j = n; j < width; j++)
            to[c * width + j] = 0;
}

/* One head's view of the arrays. */
typedef struct {
    const syz_attention_shape *p;
    const float *mask;         /* this head's, or NULL */
    rows q, k, v, y;           /* the gradients lie as their arrays do */
    int64_t b, h, width, keys; /* padded head size, keys per block */
} head;

static rows rows_at(const int64_t step[2], int64_t b, int64_t offset) {
    return (rows){b * step[0] + offset, step[1]};
}

static head head_of(const syz_attention_shape *p, const float *mask, int64_t index) {
    head x = {.p = p, .b = index / p->h, .h = index % p->h};
    int64_t offset = x.h * p->d, contiguous[] = {p->tq * p->h * p->d, p->h * p->d};
    x.q = rows_at(p->q, x.b, offset);
    x.k = rows_at(p->k, x.b, offset);
    x.v = rows_at(p->v, x.b, offset);
    x.y = rows_at(contiguous, x.b, offset);
    x.width = syz_lanes_up(p->d);
    x.keys = keys_per_block(p);
    x.mask = mask ? mask + x.b * p->mask_b + x.h * p->mask_h : NULL;
    return x;
}

/* Adds the mask to s [nq, ld], and -inf where causality or padding forbids a key. */
static void apply_masks(float *s, int64_t ld, const head *x, int64_t q0, int64_t nq, int64_t k0, int64_t nk) {
    for (int64_t i = 0; i < nq; i++, s += ld) {
        int64_t allowed = nk;
        if (x->p->causal && q0 + i - k0 + 1 < nk) allowed = q0 + i - k0 + 1;
        if (allowed < 0) allowed = 0;
        const float *mask = x->mask ? x->mask + (q0 + i) * x->p->mask_q + k0 : NULL;
        for (int64_t j = 0; mask && j < allowed; j++)
            s[j] += mask[j];
        for (int64_t j = allowed; j < ld; j++)
            s[j] = -INFINITY;
    }
}

/* ---- forward ---- */

/* A block of queries and what has been summed up for it so far. */
typedef struct {
    float *q, *o; /* [64,width] */
    float max[QUERIES], sum[QUERIES];
} query_block;

/* Several blocks of queries share a packed block of keys and values. */
typedef struct {
    float *kt, *v, *s; /* [d,keys] [keys,width] [64,keys] */
    query_block block[MAX_GROUP];
} forward_work;

static size_t forward_floats(const syz_attention_shape *p, int64_t group) {
    int64_t width = syz_lanes_up(p->d), keys = syz_lanes_up(keys_per_block(p));
    return (size_t)(2 * group * QUERIES * width + p->d * keys + keys * width + QUERIES * keys);
}

static void forward_layout(forward_work *w, float *memory, const syz_attention_shape *p, int64_t group) {
    int64_t width = syz_lanes_up(p->d), keys = syz_lanes_up(keys_per_block(p));
    w->kt = memory;
    w->v = w->kt + p->d * keys;
    w->s = w->v + keys * width;
    for (int64_t g = 0; g < group; g++) {
        w->block[g].q = w->s + QUERIES * keys + 2 * g * QUERIES * width;
        w->block[g].o = w->block[g].q + QUERIES * width;
    }
}

/* s becomes exp(s - max so far); what was accumulated under a smaller maximum is scaled down. */
static void soften(float *s, query_block *w, int64_t nq, int64_t ld, int64_t width, bool first) {
    for (int64_t i = 0; i < nq; i++, s += ld) {
        float top = first ? -INFINITY : w->max[i], sum = 0;
#pragma omp simd reduction(max : top)
        for (int64_t j = 0; j < ld; j++)
            top = s[j] > top ? s[j] : top;
        float base = top == -INFINITY ? 0 : top; /* everything masked so far */
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < ld; j++) {
            s[j] = syz_expf(s[j] - base);
            sum += s[j];
        }
        if (!first) {
            float shrink = syz_expf(w->max[i] - base);
            sum += w->sum[i] * shrink;
            for (int64_t c = 0; c < width; c++)
                w->o[i * width + c] *= shrink;
        }
        w->max[i] = top;
        w->sum[i] = sum;
    }
}

/* One block of queries against the packed keys k0..k0+nk. */
static void meet_keys(const head *x, forward_work *w, query_block *block, int64_t q0, int64_t nq, int64_t k0,
                      int64_t nk) {
    int64_t ld = syz_lanes_up(nk), width = x->width;
    syz_tile_product((syz_tile){w->s, block->q, w->kt, ld, width, 1, ld, x->p->d, false}, nq, ld);
    apply_masks(w->s, ld, x, q0, nq, k0, nk);
    soften(w->s, block, nq, ld, width, k0 == 0);
    syz_tile_product((syz_tile){block->o, w->s, w->v, width, ld, 1, width, nk, k0 > 0}, nq, width);
}

/* Rows q0..q0+nq of one head, from what was summed up. */
static void finish_block(float *y, float *lse, const head *x, const query_block *block, int64_t q0, int64_t nq) {
    const syz_attention_shape *p = x->p;
    float *to = y + row(&x->y, q0);
    lse += (x->b * p->h + x->h) * p->tq + q0;
    for (int64_t i = 0; i < nq; i++, to += x->y.step) {
        bool seen = block->sum[i] > 0 || block->sum[i] != block->sum[i]; /* NaN passes through */
        float factor = seen ? 1.0f / block->sum[i] : 0;
        for (int64_t c = 0; c < p->d; c++)
            to[c] = factor * block->o[i * x->width + c];
        /* a row without any key: +inf makes its probabilities 0 in the backward pass too */
        lse[i] = seen ? block->max[i] + logf(block->sum[i]) : INFINITY;
    }
}

/* The queries first..last of one head. */
static void forward_group(float *y, float *lse, const float *q, const float *k, const float *v, const head *x,
                          forward_work *w, int64_t first, int64_t last) {
    const syz_attention_shape *p = x->p;
    int64_t end = p->causal && last < p->tk ? last : p->tk, n = (last - first + QUERIES - 1) / QUERIES, nq[MAX_GROUP];
    for (int64_t g = 0; g < n; g++) {
        int64_t q0 = first + g * QUERIES;
        nq[g] = last - q0 < QUERIES ? last - q0 : QUERIES;
        pack(w->block[g].q, x->width, q + row(&x->q, q0), x->q.step, nq[g], p->d, p->scale);
    }
    for (int64_t k0 = 0; k0 < end; k0 += x->keys) {
        int64_t nk = end - k0 < x->keys ? end - k0 : x->keys;
        pack_transposed(w->kt, syz_lanes_up(nk), k + row(&x->k, k0), x->k.step, nk, p->d);
        pack(w->v, x->width, v + row(&x->v, k0), x->v.step, nk, p->d, 1);
        for (int64_t g = 0; g < n; g++) {
            int64_t q0 = first + g * QUERIES;
            if (!p->causal || k0 < q0 + nq[g]) meet_keys(x, w, &w->block[g], q0, nq[g], k0, nk);
        }
    }
    for (int64_t g = 0; g < n; g++)
        finish_block(y, lse, x, &w->block[g], first + g * QUERIES, nq[g]);
}

/* Blocks of queries per task: as many as leave every thread a task. Rows do not depend on it. */
static int64_t group_of(const syz_attention_shape *p, int64_t blocks, int threads) {
    int64_t group = p->b * p->h * blocks / threads;
    if (group > blocks) group = blocks;
    return group < 1 ? 1 : group > MAX_GROUP ? MAX_GROUP : group;
}

int syz_cpu_attention(float *y, float *lse, const float *q, const float *k, const float *v, const float *mask,
                      const syz_attention_shape *p) {
    int threads = omp_get_max_threads();
    int64_t blocks = (p->tq + QUERIES - 1) / QUERIES, group = group_of(p, blocks, threads);
    int64_t groups = (blocks + group - 1) / group, tasks = p->b * p->h * groups;
    if (tasks < threads) threads = (int)tasks;
    size_t floats = (forward_floats(p, group) + 15) / 16 * 16;
    float *memory = aligned_alloc(64, floats * sizeof *memory * (size_t)threads);
    if (!memory) return -1;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t task = 0; task < tasks; task++) {
        forward_work w;
        forward_layout(&w, memory + floats * (size_t)omp_get_thread_num(), p, group);
        head x = head_of(p, mask, task / groups);
        int64_t first = task % groups * group * QUERIES, last = first + group * QUERIES;
        forward_group(y, lse, q, k, v, &x, &w, first, last < p->tq ? last : p->tq);
    }
    free(memory);
    return 0;
}

/* ---- backward ---- */

typedef struct {
    const float *q, *k, *v, *mask, *y, *lse, *dy;
    float *dq, *dk, *dv;
} arrays;

typedef struct {
    float *q, *g, *k, *kt, *vt, *p, *ds, *dk, *dv; /* blocks as in forward; p, ds [64,keys] */
    float *dq, *delta;                             /* whole head: [tq,width] and rowsum(dy * y) [tq] */
} backward_work;

static size_t backward_layout(backward_work *w, float *memory, const syz_attention_shape *p) {
    int64_t width = syz_lanes_up(p->d), keys = syz_lanes_up(keys_per_block(p));
    int64_t size[] = {QUERIES * width, QUERIES * width, keys * width, p->d * keys,   p->d * keys,        QUERIES * keys,
                      QUERIES * keys,  keys * width,    keys * width, p->tq * width, syz_lanes_up(p->tq)};
    float **part[] = {&w->q, &w->g, &w->k, &w->kt, &w->vt, &w->p, &w->ds, &w->dk, &w->dv, &w->dq, &w->delta};
    size_t used = 0;
    for (int n = 0; n < 11; n++) {
        *part[n] = memory + used;
        used += (size_t)size[n];
    }
    return (used + 15) / 16 * 16;
}

static void row_sums(float *delta, const arrays *a, const head *x) {
    for (int64_t i = 0, at = x->y.start; i < x->p->tq; i++, at += x->y.step) {
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < x->p->d; c++)
            sum += a->dy[at + c] * a->y[at + c];
        delta[i] = sum;
    }
}

/* p = exp(s - lse) from the scores in p, and ds = p (dp - delta) from the dp in ds */
static void differentiate(backward_work *w, const float *lse, const float *delta, int64_t nq, int64_t ld) {
    for (int64_t i = 0; i < nq; i++) {
        float *s = w->p + i * ld, *ds = w->ds + i * ld, shift = lse[i], row = delta[i];
#pragma omp simd
        for (int64_t j = 0; j < ld; j++) {
            s[j] = syz_expf(s[j] - shift);
            ds[j] = s[j] * (ds[j] - row);
        }
    }
}

/* One block of queries against the packed block of keys: adds to w->dq, w->dk, w->dv. */
static void backward_block(const arrays *a, const head *x, backward_work *w, int64_t q0, int64_t nq, int64_t k0,
                           int64_t nk) {
    const syz_attention_shape *p = x->p;
    int64_t ld = syz_lanes_up(nk), width = x->width;
    pack(w->q, width, a->q + row(&x->q, q0), x->q.step, nq, p->d, p->scale);
    pack(w->g, width, a->dy + row(&x->y, q0), x->y.step, nq, p->d, 1);
    syz_tile_product((syz_tile){w->p, w->q, w->kt, ld, width, 1, ld, p->d, false}, nq, ld);
    apply_masks(w->p, ld, x, q0, nq, k0, nk);
    syz_tile_product((syz_tile){w->ds, w->g, w->vt, ld, width, 1, ld, p->d, false}, nq, ld);
    differentiate(w, a->lse + (x->b * p->h + x->h) * p->tq + q0, w->delta + q0, nq, ld);
    if (a->dv) syz_tile_product((syz_tile){w->dv, w->p, w->g, width, 1, ld, width, nq, true}, nk, width);
    if (a->dk) syz_tile_product((syz_tile){w->dk, w->ds, w->q, width, 1, ld, width, nq, true}, nk, width);
    if (a->dq) syz_tile_product((syz_tile){w->dq + q0 * width, w->ds, w->k, width, ld, 1, width, nk, true}, nq, width);
}

/* Keys first..end of one head: their dk and dv, and their part of dq in w->dq. */
static void backward_keys(const arrays *a, const head *x, backward_work *w, int64_t first, int64_t end) {
    const syz_attention_shape *p = x->p;
    int64_t width = x->width;
    memset(w->dq, 0, (size_t)(p->tq * width) * sizeof *w->dq);
    row_sums(w->delta, a, x);
    for (int64_t k0 = first; k0 < end; k0 += x->keys) {
        int64_t nk = end - k0 < x->keys ? end - k0 : x->keys, ld = syz_lanes_up(nk);
        pack(w->k, width, a->k + row(&x->k, k0), x->k.step, nk, p->d, 1);
        pack_transposed(w->kt, ld, a->k + row(&x->k, k0), x->k.step, nk, p->d);
        pack_transposed(w->vt, ld, a->v + row(&x->v, k0), x->v.step, nk, p->d);
        memset(w->dk, 0, (size_t)(nk * width) * sizeof *w->dk);
        memset(w->dv, 0, (size_t)(nk * width) * sizeof *w->dv);
        for (int64_t q0 = p->causal ? k0 / QUERIES * QUERIES : 0; q0 < p->tq; q0 += QUERIES)
            backward_block(a, x, w, q0, p->tq - q0 < QUERIES ? p->tq - q0 : QUERIES, k0, nk);
        for (int64_t j = 0; j < nk; j++) {
            if (a->dk) memcpy(a->dk + row(&x->k, k0 + j), w->dk + j * width, (size_t)p->d * sizeof *w->dk);
            if (a->dv) memcpy(a->dv + row(&x->v, k0 + j), w->dv + j * width, (size_t)p->d * sizeof *w->dv);
        }
    }
}

/* dq of one head: the parts added in order, times the scale. */
static void write_dq(const arrays *a, const head *x, const backward_work *w, int parts) {
    const syz_attention_shape *p = x->p;
    for (int64_t i = 0; a->dq && i < p->tq; i++) {
        float *to = a->dq + row(&x->q, i);
        for (int64_t c = 0; c < p->d; c++) {
            float sum = w[0].dq[i * x->width + c];
            for (int s = 1; s < parts; s++)
                sum += w[s].dq[i * x->width + c];
            to[c] = p->scale * sum;
        }
    }
}

/* With fewer heads than threads (the autoencoder has one), the keys of each head are divided among the threads. */
static void backward_heads(const arrays *a, const syz_attention_shape *p, backward_work *w, int threads) {
    int64_t heads = p->b * p->h;
    if (heads >= threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
        for (int64_t n = 0; n < heads; n++) {
            head x = head_of(p, a->mask, n);
            backward_work *mine = w + omp_get_thread_num();
            backward_keys(a, &x, mine, 0, p->tk);
            write_dq(a, &x, mine, 1);
        }
        return;
    }
    for (int64_t n = 0; n < heads; n++) {
        head x = head_of(p, a->mask, n);
#pragma omp parallel for schedule(static) num_threads(threads)
        for (int part = 0; part < threads; part++)
            backward_keys(a, &x, w + part, p->tk * part / threads, p->tk * (part + 1) / threads);
        write_dq(a, &x, w, threads);
    }
}

int syz_cpu_attention_backward(float *dq, float *dk, float *dv, const float *q, const float *k, const float *v,
                               const float *mask, const float *y, const float *lse, const float *dy,
                               const syz_attention_shape *p) {
    arrays a = {q, k, v, mask, y, lse, dy, dq, dk, dv};
    int threads = omp_get_max_threads();
    backward_work layout, *w = calloc((size_t)threads, sizeof *w);
    size_t floats = backward_layout(&layout, NULL, p);
    float *memory = aligned_alloc(64, floats * sizeof *memory * (size_t)threads);
    int status = w && memory ? 0 : -1;
    if (status == 0) {
        for (int n = 0; n < threads; n++)
            backward_layout(&w[n], memory + floats * (size_t)n, p);
        backward_heads(&a, p, w, threads);
    }
    free(memory);
    free(w);
    return status;
}
