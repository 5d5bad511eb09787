/* One product by cuBLASLt, as that library sees it: column-major, d [rows,cols] = a [rows,depth] b [depth,cols], and
 * what it does to the result before it is stored. matmul.cu translates. */
#ifndef SYZ_CUBLASLT_CUH
#define SYZ_CUBLASLT_CUH

#include "kernels/cuda.cuh"

#include <cublasLt.h>
#include <string>

namespace syz_cuda {

/* Its bytes are a key: set the struct to 0 first. */
struct lt_product {
    int64_t rows, cols, depth, batch;
    int64_t lda, ldb;          /* elements from column to column of what is stored */
    int64_t a_step, b_step;    /* elements from matrix to matrix; 0: one for the whole batch. d is contiguous */
    int32_t a_flip, b_flip;    /* stored transposed: a [depth,rows], b [cols,depth] */
    int32_t type, result_type; /* of a and b; of d, bias and aux */
    int32_t epilogue;
    int32_t add; /* d += */
};

struct lt_operands {
    const void *a, *b;
    void *d;
    const void *bias;                                   /* read, or written by BGRADB; NULL without */
    void *aux;                                          /* as d; NULL without */
    const float *scale_a = nullptr, *scale_b = nullptr; /* of e4m3 operands */
};

/* What lt_run returns beside 0 and -1: cuBLASLt has no algorithm for this, do it in steps. */
enum { LT_NONE = 1 };

/* Queues the product on the stream. The descriptors and the algorithm are kept for every product and alignment that has
 * been seen; the workspace for every stream. */
int lt_run(const lt_product &product, const lt_operands &operands, cudaStream_t stream);

/* ---- autotune.cu: the file of what was timed; keys are one word of text ---- */

bool autotune_on();
bool autotune_find(const std::string &key, cublasLtMatmulAlgo_t *algo);
void autotune_keep(const std::string &key, const cublasLtMatmulAlgo_t &algo);

} // namespace syz_cuda

#endif
