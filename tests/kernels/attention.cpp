/* Attention by cuDNN's plans, which the emulated cuDNN interprets, and by products: both against the CPU's kernel. */
#include "kernels/attention.cuh"
#include "check.hpp"
#include "cudnn_graph.hpp"

#include <cmath>

enum mask_kind { NONE, CAUSAL, BIAS, CAUSAL_BIAS, PADDING };

/* Which way bf16 must go, forward and backward: by a plan or by products. f32 always goes by products. */
struct attention_case {
    int64_t b, h, tq, tk, d;
    mask_kind mask;
    bool packed, forward_plan, backward_plan;
};

/* FLUX's and the towers' way; lengths that differ; every mask; heads that are too wide for a plan, or no 16 bytes; one
 * wide head as in the autoencoder; samples whose keys are all padding. */
static const attention_case shapes[] = {
    {2, 2, 37, 37, 16, NONE, true, true, true},         {1, 3, 5, 70, 8, NONE, false, true, true},
    {1, 2, 70, 9, 24, NONE, false, true, true},         {1, 1, 1, 1, 8, NONE, false, true, true},
    {2, 2, 33, 33, 16, CAUSAL, false, true, true},      {1, 2, 9, 40, 8, CAUSAL, false, true, true},
    {2, 3, 21, 21, 8, BIAS, false, true, true},         {1, 2, 19, 19, 16, CAUSAL_BIAS, true, true, true},
    {1, 2, 17, 17, 136, NONE, true, true, false},       {1, 1, 35, 35, 512, NONE, false, false, false},
    {2, 2, 40, 40, 12, NONE, true, false, false},       {3, 2, 11, 300, 8, PADDING, false, false, false},
    {2, 1, 13, 13, 5, CAUSAL_BIAS, true, false, false},
};

struct problem {
    syz_attention_shape shape;
    array<float> mask{0};
    int64_t q_size, k_size, k_at, v_at; /* of the packed array, or of separate ones */
    const float *mask_or_null() const { return mask.size() ? (const float *)mask : nullptr; }
};

static problem problem_of(const attention_case &c) {
    problem p;
    int64_t row = c.h * c.d, wide = c.packed ? 3 * row : row;
    p.shape = {};
    syz_attention_shape &s = p.shape;
    s.b = c.b;
    s.h = c.h;
    s.tq = c.tq;
    s.tk = c.tk;
    s.d = c.d;
    s.scale = 1.0f / sqrtf((float)c.d);
    s.causal = c.mask == CAUSAL || c.mask == CAUSAL_BIAS;
    s.q[0] = c.tq * wide;
    s.k[0] = s.v[0] = c.tk * wide;
    s.q[1] = s.k[1] = s.v[1] = wide;
    p.q_size = c.b * s.q[0];
    p.k_size = c.b * s.k[0];
    p.k_at = c.packed ? row : 0;
    p.v_at = c.packed ? 2 * row : 0;
    if (c.mask == BIAS || c.mask == CAUSAL_BIAS) { /* numbers that bf16 has */
        p.mask = floats(numbers<syz_bf16>(c.h * c.tq * c.tk, 2));
        s.mask_h = c.tq * c.tk;
        s.mask_q = c.tk;
    }
    if (c.mask == PADDING) { /* sample 0 has no keys, the others a few less each */
        p.mask = array<float>(c.b * c.tk);
        s.mask_b = c.tk;
        for (int64_t i = 0; i < p.mask.size(); i++)
            p.mask[i] = i / c.tk == 0 || i % c.tk >= c.tk - i / c.tk * 5 ? -INFINITY : 0.0f;
    }
    return p;
}

/* Where the first values of k and v are: in arrays of their own, or behind q. */
template <typename T>
struct inputs {
    array<T> q, k, v;
    const problem &p;
    bool packed;

    inputs(const problem &p_, bool packed_, size_t shift)
        : q(numbers<T>(p_.q_size, 1, 0, shift)), k(numbers<T>(packed_ ? 0 : p_.k_size, 1, 0, shift)),
          v(numbers<T>(packed_ ? 0 : p_.k_size, 1, 0, shift)), p(p_), packed(packed_) {}
    T *keys() { return packed ? q.data() + p.k_at : k.data(); }
    T *values() { return packed ? q.data() + p.v_at : v.data(); }
};

static void went_by_plan(const char *what, int before, bool expected) {
    int runs = emu_cudnn::executions - before;
    if (runs != (expected ? emu::ORDERS : 0))
        failed("%s: %d plans ran, a plan is %sexpected", what, runs, expected ? "" : "not ");
}

/* bf16: the probabilities are rounded, so each of them is off by 2^-9 of itself; likewise the gradients of scores. */
template <typename T>
constexpr double slack = is_bf16<T> ? 6e-3 : 2e-6;

template <typename T>
static void forward_of(const problem &p, const attention_case &c, inputs<T> &in, array<T> &y, array<float> &lse) {
    array<float> expected(y.size()), cpu_lse(lse.size());
    array<float> q = floats(in.q), k = floats(in.k), v = floats(in.v);
    syz_cpu_attention(expected, cpu_lse, q, c.packed ? q.data() + p.k_at : k.data(),
                      c.packed ? q.data() + p.v_at : v.data(), p.mask_or_null(), &p.shape);
    int before = emu_cudnn::executions;
    run([&] { return syz_cuda::attention<T>(y, lse, in.q, in.keys(), in.values(), p.mask_or_null(), &p.shape, 0); },
        {y, lse});
    went_by_plan("forward", before, is_bf16<T> && c.forward_plan);
    compare("y", y, expected, 0, slack<T>);
    compare("lse", lse, cpu_lse, 2e-6, 2e-6);
}

/* Backward gets the CPU's numbers, rounded to T, so that it is compared alone. */
template <typename T>
static void backward_of(const problem &p, const attention_case &c, inputs<T> &in, const array<T> &y,
                        const array<float> &lse) {
    array<T> dy = numbers<T>(y.size(), 1, 0, y.shift);
    inputs<T> out(p, c.packed, y.shift);
    array<float> q = floats(in.q), k = floats(in.k), v = floats(in.v), dq(q.size()), dk(k.size()), dv(v.size());
    auto part = [&](array<float> &packed, array<float> &own, int64_t at) {
        return c.packed ? packed.data() + at : own.data();
    };
    syz_cpu_attention_backward(dq, part(dq, dk, p.k_at), part(dq, dv, p.v_at), q, part(q, k, p.k_at),
                               part(q, v, p.v_at), p.mask_or_null(), floats(y), lse, floats(dy), &p.shape);
    auto kernel = [&](T *to_q, T *to_k, T *to_v) {
        return syz_cuda::attention_backward<T>(to_q, to_k, to_v, in.q, in.keys(), in.values(), p.mask_or_null(), y, lse,
                                               dy, &p.shape, 0);
    };
    int before = emu_cudnn::executions;
    run([&] { return kernel(out.q, out.keys(), out.values()); }, {out.q, out.k, out.v});
    went_by_plan("backward", before, is_bf16<T> && c.backward_plan);
    double size = is_bf16<T> ? 3e-2 : 2e-5;
    compare("dq", out.q, dq, 0, size);
    compare("dk", out.k, dk, 0, size);
    compare("dv", out.v, dv, 0, size);
    if (c.packed) return;
    inputs<T> alone(p, false, y.shift);
    run([&] { return kernel(alone.q, nullptr, nullptr); }, {alone.q});
    compare_exactly("dq alone", alone.q, out.q);
    run([&] { return kernel(nullptr, alone.k, nullptr); }, {alone.k});
    compare_exactly("dk alone", alone.k, out.k);
    run([&] { return kernel(nullptr, nullptr, alone.v); }, {alone.v});
    compare_exactly("dv alone", alone.v, out.v);
}

template <typename T>
static void check_case(const attention_case &c, size_t shift) {
    problem p = problem_of(c);
    inputs<T> in(p, c.packed, shift);
    array<T> y(c.b * c.tq * c.h * c.d, shift);
    array<float> lse(c.b * c.h * c.tq);
    forward_of<T>(p, c, in, y, lse);
    backward_of<T>(p, c, in, y, lse);
}

template <typename T>
static void attention() {
    for (const attention_case &c : shapes)
        check_case<T>(c, 0);
}

/* The scores of a few queries at a time. */
template <typename T>
static void pieces() {
    int64_t usual = syz_cuda::attention_scores;
    syz_cuda::attention_scores = 2 * 50 * 4 * 16; /* 16 queries of two heads */
    check_case<T>({2, 2, 50, 50, 12, CAUSAL, true, false, false}, 0);
    check_case<T>({1, 2, 41, 50, 5, NONE, false, false, false}, 0);
    syz_cuda::attention_scores = 1;
    check_case<T>({1, 2, 3, 50, 4, NONE, false, false, false}, 0);
    syz_cuda::attention_scores = usual;
}

/* Arrays that are no multiple of 16 bytes away from 0 are not for cuDNN. */
template <typename T>
static void unaligned() {
    check_case<T>({1, 2, 20, 20, 16, NONE, true, false, false}, 1);
}

/* A row of equal scores: the log-sum-exp is the natural logarithm, of the scaled scores. */
template <typename T>
static void known_rows() {
    const int64_t keys = 24;
    syz_attention_shape s = {};
    s.b = s.h = s.tq = 1;
    s.tk = keys;
    s.d = 8;
    s.q[1] = s.k[1] = s.v[1] = 8;
    s.scale = 0.5f;
    array<T> q(8), k(keys * 8), v(keys * 8), y(8);
    for (int64_t i = 0; i < k.size(); i++) {
        k[i] = store<T>(1);
        v[i] = store<T>(i % 8 == 3 ? 2 : 1);
    }
    for (int i = 0; i < 8; i++)
        q[i] = store<T>(1);
    array<float> lse(1), expected_lse(1), expected(8);
    expected_lse[0] = 4 + logf((float)keys);
    for (int i = 0; i < 8; i++)
        expected[i] = i == 3 ? 2 : 1;
    run([&] { return syz_cuda::attention<T>(y, lse, q, k, v, nullptr, &s, 0); }, {y, lse});
    compare("lse", lse, expected_lse, 1e-6, 0);
    compare("y", y, expected, 1e-5, 0);
}

MAIN(BOTH(attention), BOTH(pieces), BOTH(unaligned), BOTH(known_rows))
