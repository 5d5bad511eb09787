/* Matrix products by cuBLASLt: row-major y = a b is column-major y^T = b^T a^T, without a copy of anything. So the
 * library's a is our b, its rows are our columns, and a bias along its rows is one along our columns. */
#include "kernels/cublaslt.cuh"
#include "syzygy.h"

#include <string.h>

namespace {

using namespace syz_cuda;

template <typename T>
constexpr int32_t type_of = sizeof(T) == 2 ? CUDA_R_16BF : CUDA_R_32F;

/* A matrix of `outer` by `inner` elements at these steps: its rows behind each other, or, flipped, its columns. False
 * where neither are contiguous. */
bool lay_out(int64_t outer, int64_t inner, int64_t outer_step, int64_t inner_step, int64_t *ld, int32_t *flip) {
    if (outer == 1) outer_step = inner_step == 1 ? inner : 1; /* the step of a single row may be anything */
    if (inner == 1) inner_step = outer_step == 1 ? outer : 1;
    *flip = !(inner_step == 1 && outer_step >= inner);
    *ld = *flip ? inner_step : outer_step;
    return !*flip || (outer_step == 1 && inner_step >= outer);
}

template <typename REAL>
bool translate(lt_product *p, const syz_product &s, bool wide, int epilogue) {
    memset(p, 0, sizeof *p);
    p->rows = s.n;
    p->cols = s.m;
    p->depth = s.k;
    p->batch = s.batch;
    p->a_step = s.b[0];
    p->b_step = s.a[0];
    p->type = type_of<REAL>;
    p->result_type = wide ? CUDA_R_32F : type_of<REAL>;
    p->epilogue = epilogue;
    p->add = s.add != 0;
    return lay_out(s.k, s.n, s.b[1], s.b[2], &p->lda, &p->a_flip) &&
           lay_out(s.m, s.k, s.a[1], s.a[2], &p->ldb, &p->b_flip);
}

template <typename REAL>
int run(const syz_product &s, bool wide, int epilogue, const lt_operands &operands, cudaStream_t stream) {
    lt_product p;
    if (!translate<REAL>(&p, s, wide, epilogue))
        return failed("neither the rows nor the columns of an operand are contiguous");
    return lt_run(p, operands, stream);
}

/* y (of type R) = a b + bias of the same type */
template <typename REAL, typename R>
int with_bias(R *y, const REAL *a, const void *b, const R *bias, const syz_product &s, cudaStream_t stream) {
    constexpr bool wide = sizeof(R) != sizeof(REAL);
    int result = run<REAL>(s, wide, CUBLASLT_EPILOGUE_BIAS, {b, a, y, bias, nullptr}, stream);
    if (result != LT_NONE) return result;
    if (run<REAL>(s, wide, CUBLASLT_EPILOGUE_DEFAULT, {b, a, y, nullptr, nullptr}, stream) != 0) return -1;
    syz_nest rows = {2, {s.batch * s.m, s.n}, {s.n, 1}, {0, 1}};
    return binary<R>(y, y, bias, &rows, SYZ_BINARY_ADD, stream);
}

} // namespace

template <typename REAL>
int syz_cuda::matmul(void *y, const REAL *a, const void *b, const REAL *bias, const syz_product *product,
                     cudaStream_t stream) {
    bool wide = product->wide && sizeof(REAL) == 2;
    if (!bias)
        return run<REAL>(*product, wide, CUBLASLT_EPILOGUE_DEFAULT, {b, a, y, nullptr, nullptr}, stream) == 0 ? 0 : -1;
    if (!wide) return with_bias<REAL, REAL>((REAL *)y, a, b, bias, *product, stream);
    scratch<float> widened(product->n, stream); /* cuBLASLt wants the bias in y's type */
    if (!widened.data ||
        cast<float>(widened.data, SYZ_F32, bias, sizeof(REAL) == 2 ? SYZ_BF16 : SYZ_F32, product->n, stream) != 0)
        return -1;
    return with_bias<REAL, float>((float *)y, a, b, widened.data, *product, stream);
}

template <typename REAL>
int syz_cuda::matmul_gelu(REAL *y, REAL *pre, const REAL *a, const void *b, const REAL *bias,
                          const syz_product *product, cudaStream_t stream) {
    int epilogue = bias ? (pre ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_BIAS)
                        : (pre ? CUBLASLT_EPILOGUE_GELU_AUX : CUBLASLT_EPILOGUE_GELU);
    /* What cuBLASLt asks of that output; asked without it too, so that a block has the same bits recorded and not. */
    bool fits = product->n % 8 == 0 && aligned(pre);
    int result = fits ? run<REAL>(*product, false, epilogue, {b, a, y, bias, pre}, stream) : (int)LT_NONE;
    if (result != LT_NONE) return result;
    REAL *to = pre ? pre : y;
    syz_product narrow = *product;
    narrow.wide = 0;
    if (matmul<REAL>(to, a, b, bias, &narrow, stream) != 0) return -1;
    return unary<REAL>(y, to, product->batch * product->m * product->n, SYZ_UNARY_gelu_tanh, stream);
}

template <typename REAL>
int syz_cuda::matmul_bias_gradient(float *y, float *dbias, const REAL *a, const REAL *b, const syz_product *product,
                                   cudaStream_t stream) {
    int result = run<REAL>(*product, sizeof(REAL) == 2, CUBLASLT_EPILOGUE_BGRADB, {b, a, y, dbias, nullptr}, stream);
    if (result != LT_NONE) return result;
    syz_product wide = *product;
    wide.wide = 1;
    if (matmul<REAL>(y, a, b, nullptr, &wide, stream) != 0) return -1;
    syz_norm_shape columns = {product->k, product->m, product->k, 0};
    return modulate_backward<REAL>(nullptr, nullptr, dbias, a, a, nullptr, &columns, stream);
}

/* Only the CPU rounds f32 operands, and asks. */
template <typename REAL>
int syz_cuda::has_bf16(bool *faster, cudaStream_t) {
    *faster = true;
    return 0;
}

SYZ_BOTH(matmul)
SYZ_BOTH(matmul_gelu)
SYZ_BOTH(matmul_bias_gradient)
SYZ_F32(has_bf16)
