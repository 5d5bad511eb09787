/* Products of operands in e4m3 by cuBLASLt, which multiplies with both scales from device memory. */
#include "kernels/cublaslt.cuh"
#include "kernels/fp8.h"
#include "kernels/reduce.cuh"

#include <algorithm>

namespace {

using namespace syz_cuda;

enum { PARTS = 1024 }; /* blocks of either pass */

/* part [blocks] = the largest magnitude that each block has seen */
template <int N, typename REAL>
__global__ void amax_kernel(float *part, const REAL *x, int64_t n) {
    float largest = 0;
    for (int64_t i = thread_index() * N; i < n; i += (int64_t)gridDim.x * THREADS * N) {
        if (i + N <= n) {
            pack<REAL, N> values = read<N>(x + i);
            for (int k = 0; k < N; k++)
                largest = maximum()(fabsf(load(values.value[k])), largest);
        } else {
            for (int64_t k = i; k < n; k++)
                largest = maximum()(fabsf(load(x[k])), largest);
        }
    }
    largest = group_reduce<THREADS>(largest, maximum());
    if (threadIdx.x == 0) part[blockIdx.x] = largest;
}

/* Every block finds the largest of the `parts` for itself. */
template <int N, typename REAL>
__global__ void quantize_kernel(uint8_t *y, float *scale, const float *part, int parts, const REAL *x, int64_t n) {
    float largest = 0, found, factor;
    for (int k = (int)threadIdx.x; k < parts; k += THREADS)
        largest = maximum()(part[k], largest);
    syz_e4m3_scale(group_reduce<THREADS>(largest, maximum()), &found, &factor);
    if (thread_index() == 0) *scale = found;
    for (int64_t i = thread_index() * N; i < n; i += (int64_t)gridDim.x * THREADS * N) {
        if (i + N <= n) {
            pack<REAL, N> values = read<N>(x + i);
            pack<uint8_t, N> codes;
            for (int k = 0; k < N; k++)
                codes.value[k] = syz_to_e4m3(load(values.value[k]) * factor);
            write(y + i, codes);
        } else {
            for (int64_t k = i; k < n; k++)
                y[k] = syz_to_e4m3(load(x[k]) * factor);
        }
    }
}

template <int N, typename REAL>
int quantize(uint8_t *y, float *scale, const REAL *x, int64_t n, cudaStream_t stream) {
    int blocks = (int)std::min<int64_t>(std::max<int64_t>(cuts(n, THREADS * N), 1), PARTS);
    scratch<float> part(blocks, stream);
    if (!part.data || launch(amax_kernel<N, REAL>, blocks, THREADS, stream, part.data, x, n) != 0) return -1;
    return launch(quantize_kernel<N, REAL>, blocks, THREADS, stream, y, scale, (const float *)part.data, blocks, x, n);
}

} // namespace

template <typename REAL>
int syz_cuda::quantize_fp8(uint8_t *y, float *scale, const REAL *x, int64_t n, cudaStream_t stream) {
    return aligned(x, y) ? quantize<lanes_of<REAL>>(y, scale, x, n, stream) : quantize<1>(y, scale, x, n, stream);
}

/* e4m3 operands come in one layout only: a transposed, b not, in cuBLASLt's words; it is how activations and weights of
 * a linear layer lie. Bias and GELU are epilogues where it has them for a result in bf16. */
template <typename REAL>
int syz_cuda::matmul_fp8(REAL *y, const uint8_t *a, const uint8_t *b, const float *scale_a, const float *scale_b,
                         const REAL *bias, const syz_product *s, bool gelu, cudaStream_t stream) {
    lt_product p;
    memset(&p, 0, sizeof p);
    p.rows = s->n;
    p.cols = s->m;
    p.depth = s->k;
    p.batch = 1;
    p.lda = s->b[2];
    p.ldb = s->a[1];
    p.a_flip = 1;
    p.type = CUDA_R_8F_E4M3;
    p.result_type = sizeof(REAL) == 2 ? CUDA_R_16BF : CUDA_R_32F;
    p.add = s->add != 0;
    lt_operands o = {b, a, y, bias, nullptr, scale_b, scale_a};
    p.epilogue = gelu   ? (bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU)
                 : bias ? CUBLASLT_EPILOGUE_BIAS
                        : CUBLASLT_EPILOGUE_DEFAULT;
    bool bare = !bias && !gelu;
    int result = bare || sizeof(REAL) == 2 ? lt_run(p, o, stream) : (int)LT_NONE;
    if (result != LT_NONE || bare) return result == 0 ? 0 : -1;
    p.epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    o.bias = nullptr;
    if (lt_run(p, o, stream) != 0) return -1;
    syz_nest rows = {2, {s->m, s->n}, {s->n, 1}, {0, 1}};
    if (bias && binary<REAL>(y, y, bias, &rows, SYZ_BINARY_ADD, stream) != 0) return -1;
    return gelu ? unary<REAL>(y, y, s->m * s->n, SYZ_UNARY_gelu_tanh, stream) : 0;
}

/* From Ada on. */
template <typename REAL>
int syz_cuda::has_fp8(bool *possible, cudaStream_t) {
    int device = 0, major = 0, minor = 0; /* asked in every call: all properties at once would take a millisecond */
    if (status(cudaGetDevice(&device)) != 0 ||
        status(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device)) != 0 ||
        status(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device)) != 0)
        return -1;
    *possible = major * 10 + minor >= 89;
    return 0;
}

SYZ_BOTH(quantize_fp8)
SYZ_BOTH(matmul_fp8)
SYZ_F32(has_fp8)
