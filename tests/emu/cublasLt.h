/* cuBLASLt on the CPU: the part of its interface that kernels/cublaslt.cu uses, on host arrays, with the documented
 * meaning and the documented refusals. Where the library would read past a matrix, run into an unaligned address or
 * return NOT_SUPPORTED on some device, this one returns an error and says why in emu::the().error. */
#ifndef SYZ_EMU_CUBLASLT_H
#define SYZ_EMU_CUBLASLT_H

#include "cuda_bf16.h"
#include "cuda_runtime.h"

#include <algorithm>

enum cublasStatus_t {
    CUBLAS_STATUS_SUCCESS = 0,
    CUBLAS_STATUS_ALLOC_FAILED = 3,
    CUBLAS_STATUS_INVALID_VALUE = 7,
    CUBLAS_STATUS_NOT_SUPPORTED = 15
};
enum cudaDataType_t { CUDA_R_32F = 0, CUDA_R_16BF = 14, CUDA_R_8F_E4M3 = 28 };
enum cublasComputeType_t { CUBLAS_COMPUTE_32F = 68 };
enum cublasOperation_t { CUBLAS_OP_N, CUBLAS_OP_T };

enum cublasLtEpilogue_t {
    CUBLASLT_EPILOGUE_DEFAULT = 1,
    CUBLASLT_EPILOGUE_BIAS = 4,
    CUBLASLT_EPILOGUE_GELU = 32,
    CUBLASLT_EPILOGUE_GELU_AUX = 32 | 128,
    CUBLASLT_EPILOGUE_GELU_BIAS = 32 | 4,
    CUBLASLT_EPILOGUE_GELU_AUX_BIAS = 32 | 128 | 4,
    CUBLASLT_EPILOGUE_BGRADA = 256,
    CUBLASLT_EPILOGUE_BGRADB = 512
};

enum cublasLtMatmulDescAttributes_t {
    CUBLASLT_MATMUL_DESC_TRANSA,
    CUBLASLT_MATMUL_DESC_TRANSB,
    CUBLASLT_MATMUL_DESC_EPILOGUE,
    CUBLASLT_MATMUL_DESC_BIAS_POINTER,
    CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE,
    CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE,
    CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER,
    CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD,
    CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE,
    CUBLASLT_MATMUL_DESC_A_SCALE_POINTER,
    CUBLASLT_MATMUL_DESC_B_SCALE_POINTER
};
enum cublasLtMatrixLayoutAttribute_t {
    CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT,
    CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET
};
enum cublasLtMatmulPreferenceAttributes_t {
    CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES
};

typedef struct cublasLtContext {
    int device;
} * cublasLtHandle_t;

typedef struct cublasLtLayout {
    cudaDataType_t type;
    uint64_t rows, cols;
    int64_t ld, step;
    int32_t batch;
} * cublasLtMatrixLayout_t;

typedef struct cublasLtDesc {
    cublasComputeType_t compute;
    cudaDataType_t scale;
    int32_t flip_a, flip_b, bias_type;
    uint32_t epilogue;
    void *bias, *aux;
    const float *scale_a, *scale_b;
    int64_t bias_step, aux_ld, aux_step;
} * cublasLtMatmulDesc_t;

typedef struct cublasLtPreference {
    uint64_t workspace;
    uint32_t alignment[4]; /* A, B, C, D */
} * cublasLtMatmulPreference_t;

/* number, hash of the problem, workspace, alignments of A, B, C, D, bias and aux as powers of two */
typedef struct {
    uint64_t data[8];
} cublasLtMatmulAlgo_t;

typedef struct {
    cublasLtMatmulAlgo_t algo;
    size_t workspaceSize;
    cublasStatus_t state;
    float wavesCount;
} cublasLtMatmulHeuristicResult_t;

namespace emu {

enum { LT_ALGORITHMS = 10 };

inline struct lt_state {
    uint32_t refused;                   /* epilogues for which there is no algorithm, as a mask */
    int asked, products;                /* calls of the heuristics and of cublasLtMatmul that succeeded */
    double milliseconds[LT_ALGORITHMS]; /* what each algorithm takes */
} lt;

inline cublasStatus_t lt_refuse(cublasStatus_t status, const char *why) {
    snprintf(the().error, sizeof the().error, "cuBLASLt: %s", why);
    return status;
}

struct lt_problem {
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a, b, c, d;
    int64_t rows, cols, depth;
};

/* fp8: A transposed and B not, 16-byte columns, both scales. */
inline cublasStatus_t lt_check_fp8(const lt_problem &p) {
    const cublasStatus_t unsupported = CUBLAS_STATUS_NOT_SUPPORTED;
    if (p.b->type != CUDA_R_8F_E4M3 || p.c->type != p.d->type || p.d->type == CUDA_R_8F_E4M3)
        return lt_refuse(unsupported, "this combination of types");
    if (!p.op->flip_a || p.op->flip_b) return lt_refuse(unsupported, "fp8: the layout is not TN");
    if (p.depth % 16 || p.rows % 16 || p.a->ld % 16 || p.b->ld % 16)
        return lt_refuse(unsupported, "fp8: a size is no multiple of 16");
    if (!p.op->scale_a || !p.op->scale_b) return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "fp8: a scale is missing");
    if (p.d->type == CUDA_R_32F && p.op->epilogue != CUBLASLT_EPILOGUE_DEFAULT)
        return lt_refuse(unsupported, "fp8: this epilogue of an f32 result");
    return CUBLAS_STATUS_SUCCESS;
}

/* What the library checks before it looks at an address. */
inline cublasStatus_t lt_check_layouts(lt_problem *p) {
    const cublasStatus_t invalid = CUBLAS_STATUS_INVALID_VALUE, unsupported = CUBLAS_STATUS_NOT_SUPPORTED;
    if (!p->op || !p->a || !p->b || !p->c || !p->d) return lt_refuse(invalid, "a descriptor is missing");
    if (p->op->compute != CUBLAS_COMPUTE_32F || p->op->scale != CUDA_R_32F)
        return lt_refuse(unsupported, "the compute type");
    p->rows = (int64_t)(p->op->flip_a ? p->a->cols : p->a->rows);
    p->depth = (int64_t)(p->op->flip_a ? p->a->rows : p->a->cols);
    p->cols = (int64_t)(p->op->flip_b ? p->b->rows : p->b->cols);
    if ((int64_t)(p->op->flip_b ? p->b->cols : p->b->rows) != p->depth) return lt_refuse(invalid, "depths differ");
    for (cublasLtMatrixLayout_t l : {p->a, p->b, p->c, p->d}) {
        if (l->rows == 0 || l->cols == 0) return lt_refuse(invalid, "an empty matrix");
        if (l->ld < (int64_t)l->rows) return lt_refuse(invalid, "a leading dimension is less than the rows");
        if (l->batch != p->d->batch || l->batch < 1) return lt_refuse(invalid, "batch counts differ");
        if (l->step < 0) return lt_refuse(invalid, "a negative batch step");
    }
    for (cublasLtMatrixLayout_t l : {p->c, p->d}) {
        if ((int64_t)l->rows != p->rows || (int64_t)l->cols != p->cols) return lt_refuse(invalid, "the result's shape");
        if (l->batch > 1 && l->step < l->ld * ((int64_t)l->cols - 1) + (int64_t)l->rows)
            return lt_refuse(invalid, "results of the batch overlap");
    }
    if (p->a->type == CUDA_R_8F_E4M3) return lt_check_fp8(*p);
    if (p->op->scale_a || p->op->scale_b) return lt_refuse(unsupported, "scales of operands that are not fp8");
    if (p->a->type != p->b->type || p->c->type != p->d->type || (p->a->type == CUDA_R_32F && p->d->type != CUDA_R_32F))
        return lt_refuse(unsupported, "this combination of types");
    return CUBLAS_STATUS_SUCCESS;
}

inline bool lt_takes_bias(uint32_t epilogue) {
    return epilogue & (CUBLASLT_EPILOGUE_BIAS | CUBLASLT_EPILOGUE_BGRADA | CUBLASLT_EPILOGUE_BGRADB);
}
inline bool lt_takes_aux(uint32_t epilogue) {
    return epilogue & 128;
}

inline cublasStatus_t lt_check_epilogue(const lt_problem &p) {
    const cublasStatus_t invalid = CUBLAS_STATUS_INVALID_VALUE, unsupported = CUBLAS_STATUS_NOT_SUPPORTED;
    const auto &op = *p.op;
    switch (op.epilogue) {
    case CUBLASLT_EPILOGUE_DEFAULT:
    case CUBLASLT_EPILOGUE_BIAS:
    case CUBLASLT_EPILOGUE_GELU:
    case CUBLASLT_EPILOGUE_GELU_AUX:
    case CUBLASLT_EPILOGUE_GELU_BIAS:
    case CUBLASLT_EPILOGUE_GELU_AUX_BIAS:
    case CUBLASLT_EPILOGUE_BGRADA:
    case CUBLASLT_EPILOGUE_BGRADB:
        break;
    default:
        return lt_refuse(invalid, "there is no such epilogue");
    }
    size_t size = p.d->type == CUDA_R_16BF ? 2 : 4;
    if (lt_takes_bias(op.epilogue)) {
        if (!op.bias) return lt_refuse(invalid, "the epilogue needs a bias pointer");
        if ((uintptr_t)op.bias % size) return lt_refuse(invalid, "the bias is not aligned");
        if (op.bias_type != -1 && op.bias_type != p.d->type)
            return lt_refuse(unsupported, "the bias is not of the result's type");
    }
    if (lt_takes_aux(op.epilogue)) {
        if (!op.aux) return lt_refuse(invalid, "the epilogue needs an auxiliary pointer");
        if ((uintptr_t)op.aux % 16) return lt_refuse(invalid, "the auxiliary output is not aligned");
        if (op.aux_ld < p.rows || op.aux_ld % 8)
            return lt_refuse(invalid, "the auxiliary leading dimension: at least the rows, and a multiple of 8");
        if (p.d->batch > 1 && (op.aux_step % 8 || op.aux_step < op.aux_ld * p.cols))
            return lt_refuse(invalid, "the auxiliary batch stride");
    }
    return CUBLAS_STATUS_SUCCESS;
}

inline cublasStatus_t lt_check(lt_problem *p) {
    cublasStatus_t status = lt_check_layouts(p);
    return status == CUBLAS_STATUS_SUCCESS ? lt_check_epilogue(*p) : status;
}

inline uint64_t lt_hash(const lt_problem &p) {
    uint64_t hash = 1469598103934665603u;
    auto add = [&](int64_t value) { hash = (hash ^ (uint64_t)value) * 1099511628211u; };
    for (cublasLtMatrixLayout_t l : {p.a, p.b, p.c, p.d})
        for (int64_t value : {(int64_t)l->type, (int64_t)l->rows, (int64_t)l->cols, l->ld, l->step, (int64_t)l->batch})
            add(value);
    for (int64_t value : {(int64_t)p.op->flip_a, (int64_t)p.op->flip_b, (int64_t)p.op->epilogue})
        add(value);
    return hash;
}

inline uint32_t lt_alignment(const void *pointer) {
    uint32_t bits = (uint32_t)((uintptr_t)pointer & 255) | 256u;
    return bits & (~bits + 1);
}

/* ---- the product ---- */

inline float lt_e4m3(uint8_t code) {
    int exponent = code >> 3 & 15, mantissa = code & 7;
    if ((code & 0x7f) == 0x7f) return NAN;
    float x = exponent ? ldexpf(8.0f + (float)mantissa, exponent - 10) : ldexpf((float)mantissa, -9);
    return code & 0x80 ? -x : x;
}

inline float lt_load(const void *data, cudaDataType_t type, int64_t i) {
    if (type == CUDA_R_8F_E4M3) return lt_e4m3(((const uint8_t *)data)[i]);
    return type == CUDA_R_32F ? ((const float *)data)[i] : __bfloat162float(((const __nv_bfloat16 *)data)[i]);
}
inline void lt_store(void *data, cudaDataType_t type, int64_t i, float value) {
    if (type == CUDA_R_32F)
        ((float *)data)[i] = value;
    else
        ((__nv_bfloat16 *)data)[i] = __float2bfloat16_rn(value);
}

inline float lt_gelu(float x) {
    return 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
}

/* [lines,depth]: the rows of op(a), or the columns of op(b) */
inline std::vector<float> lt_lines(const void *data, cublasLtMatrixLayout_t l, int64_t batch, bool by_column) {
    int64_t lines = (int64_t)(by_column ? l->cols : l->rows), depth = (int64_t)(by_column ? l->rows : l->cols);
    std::vector<float> x((size_t)(lines * depth));
    for (int64_t i = 0; i < lines; i++)
        for (int64_t k = 0; k < depth; k++)
            x[(size_t)(i * depth + k)] =
                lt_load(data, l->type, batch * l->step + (by_column ? i * l->ld + k : k * l->ld + i));
    return x;
}

inline void lt_sums(const lt_problem &p, const std::vector<float> &lines) {
    for (size_t i = 0; i < lines.size() / (size_t)p.depth; i++) {
        float sum = 0;
        for (int64_t k = 0; k < p.depth; k++)
            sum += lines[i * (size_t)p.depth + (size_t)k];
        lt_store(p.op->bias, p.d->type, (int64_t)i, sum);
    }
}

inline void lt_multiply(const lt_problem &p, float alpha, const void *a, const void *b, float beta, const void *c,
                        void *d, int64_t batch) {
    const auto &op = *p.op;
    std::vector<float> left = lt_lines(a, p.a, batch, op.flip_a), right = lt_lines(b, p.b, batch, !op.flip_b);
    if (op.epilogue == CUBLASLT_EPILOGUE_BGRADA) lt_sums(p, left);
    if (op.epilogue == CUBLASLT_EPILOGUE_BGRADB) lt_sums(p, right);
    for (int64_t j = 0; j < p.cols; j++)
        for (int64_t i = 0; i < p.rows; i++) {
            float sum = 0;
            for (int64_t k = 0; k < p.depth; k++)
                sum += left[(size_t)(i * p.depth + k)] * right[(size_t)(j * p.depth + k)];
            if (op.scale_a) sum *= *op.scale_a * *op.scale_b;
            float y = alpha * sum;
            if (beta != 0) y += beta * lt_load(c, p.c->type, batch * p.c->step + j * p.c->ld + i);
            if (op.epilogue & CUBLASLT_EPILOGUE_BIAS) y += lt_load(op.bias, p.d->type, batch * op.bias_step + i);
            if (lt_takes_aux(op.epilogue)) lt_store(op.aux, p.d->type, batch * op.aux_step + j * op.aux_ld + i, y);
            if (op.epilogue & CUBLASLT_EPILOGUE_GELU) y = lt_gelu(y);
            lt_store(d, p.d->type, batch * p.d->step + j * p.d->ld + i, y);
        }
}

template <typename T>
cublasStatus_t lt_set(T *field, const void *value, size_t size) {
    if (!value || size != sizeof *field) return lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "the size of an attribute");
    memcpy(field, value, size);
    return CUBLAS_STATUS_SUCCESS;
}

template <typename T>
cublasStatus_t lt_new(T **made) {
    *made = new T();
    return CUBLAS_STATUS_SUCCESS;
}
template <typename T>
cublasStatus_t lt_delete(T *made) {
    delete made;
    return CUBLAS_STATUS_SUCCESS;
}

} // namespace emu

/* ---- the interface ---- */

inline size_t cublasLtGetVersion() {
    return 130000;
}
inline const char *cublasLtGetStatusString(cublasStatus_t status) {
    return status == CUBLAS_STATUS_ALLOC_FAILED    ? "CUBLAS_STATUS_ALLOC_FAILED"
           : status == CUBLAS_STATUS_NOT_SUPPORTED ? "CUBLAS_STATUS_NOT_SUPPORTED"
                                                   : "CUBLAS_STATUS_INVALID_VALUE";
}
inline cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
    return emu::lt_new(handle);
}

inline cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType_t type, uint64_t rows,
                                                 uint64_t cols, int64_t ld) {
    emu::lt_new(layout);
    **layout = {type, rows, cols, ld, 0, 1};
    return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
    return emu::lt_delete(layout);
}
inline cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                       cublasLtMatrixLayoutAttribute_t attribute, const void *value,
                                                       size_t size) {
    if (attribute == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT) return emu::lt_set(&layout->batch, value, size);
    return emu::lt_set(&layout->step, value, size);
}

inline cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *op, cublasComputeType_t compute,
                                               cudaDataType_t scale) {
    emu::lt_new(op);
    (*op)->compute = compute;
    (*op)->scale = scale;
    (*op)->bias_type = -1;
    (*op)->epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t op) {
    return emu::lt_delete(op);
}
inline cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t op, cublasLtMatmulDescAttributes_t attribute,
                                                     const void *value, size_t size) {
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return emu::lt_set(&op->flip_a, value, size);
    case CUBLASLT_MATMUL_DESC_TRANSB:
        return emu::lt_set(&op->flip_b, value, size);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return emu::lt_set(&op->epilogue, value, size);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return emu::lt_set(&op->bias, value, size);
    case CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE:
        return emu::lt_set(&op->bias_step, value, size);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
        return emu::lt_set(&op->bias_type, value, size);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER:
        return emu::lt_set(&op->aux, value, size);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD:
        return emu::lt_set(&op->aux_ld, value, size);
    case CUBLASLT_MATMUL_DESC_A_SCALE_POINTER:
        return emu::lt_set(&op->scale_a, value, size);
    case CUBLASLT_MATMUL_DESC_B_SCALE_POINTER:
        return emu::lt_set(&op->scale_b, value, size);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE:
        return emu::lt_set(&op->aux_step, value, size);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

inline cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference) {
    emu::lt_new(preference);
    **preference = {0, {256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
    return emu::lt_delete(preference);
}
inline cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                           cublasLtMatmulPreferenceAttributes_t attribute,
                                                           const void *value, size_t size) {
    if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) return emu::lt_set(&preference->workspace, value, size);
    return emu::lt_set(&preference->alignment[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, size);
}

/* Every algorithm but the first needs a workspace. */
inline cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t op,
                                                     cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                                     cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                                     cublasLtMatmulPreference_t preference, int most,
                                                     cublasLtMatmulHeuristicResult_t *results, int *count) {
    emu::lt_problem p = {op, a, b, c, d, 0, 0, 0};
    *count = 0;
    if (!handle || !preference || most < 1) return CUBLAS_STATUS_INVALID_VALUE;
    cublasStatus_t status = emu::lt_check(&p);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    emu::lt.asked++;
    if (op->epilogue & emu::lt.refused) return CUBLAS_STATUS_NOT_SUPPORTED;
    for (uint64_t number = 0; number < emu::LT_ALGORITHMS && *count < most; number++) {
        uint64_t need = number << 16;
        if (need > preference->workspace) continue;
        const uint32_t *given = preference->alignment;
        uint64_t extra = (uint64_t)emu::lt_alignment(op->bias) << 32 | emu::lt_alignment(op->aux);
        results[(*count)++] = {{{number, emu::lt_hash(p), need, given[0], given[1], given[2], given[3], extra}},
                               need,
                               CUBLAS_STATUS_SUCCESS,
                               1.0f};
    }
    return *count ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

inline cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t op, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                              cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t *algo,
                                              cublasLtMatmulHeuristicResult_t *result) {
    emu::lt_problem p = {op, a, b, c, d, 0, 0, 0};
    cublasStatus_t status = emu::lt_check(&p);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    if (algo->data[0] >= emu::LT_ALGORITHMS || algo->data[1] != emu::lt_hash(p)) return CUBLAS_STATUS_NOT_SUPPORTED;
    *result = {*algo, algo->data[2], CUBLAS_STATUS_SUCCESS, 1.0f};
    return CUBLAS_STATUS_SUCCESS;
}

inline cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t op, const void *alpha, const void *x,
                                     cublasLtMatrixLayout_t a, const void *y, cublasLtMatrixLayout_t b,
                                     const void *beta, const void *z, cublasLtMatrixLayout_t c, void *out,
                                     cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t *algo, void *workspace,
                                     size_t workspace_size, cudaStream_t stream) {
    cublasLtMatmulHeuristicResult_t result;
    if (!handle || !algo || !x || !y || !out || !alpha || !beta)
        return emu::lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "a pointer is missing");
    cublasStatus_t status = cublasLtMatmulAlgoCheck(handle, op, a, b, c, d, algo, &result);
    if (status != CUBLAS_STATUS_SUCCESS) return emu::lt_refuse(status, "the algorithm is of another product");
    if (result.workspaceSize > workspace_size || (workspace_size && ((uintptr_t)workspace & 255 || !workspace)))
        return emu::lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "the workspace: too small, or not at 256 bytes");
    if (a->type == CUDA_R_8F_E4M3 && ((uintptr_t)x % 16 || (uintptr_t)y % 16 || (uintptr_t)out % 16))
        return emu::lt_refuse(CUBLAS_STATUS_NOT_SUPPORTED, "fp8: an operand is not at 16 bytes");
    const void *pointers[] = {x, y, z, out};
    for (int k = 0; k < 4; k++)
        if (emu::lt_alignment(pointers[k]) < algo->data[3 + k])
            return emu::lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "an operand is less aligned than was promised");
    if ((emu::lt_takes_bias(op->epilogue) && emu::lt_alignment(op->bias) < algo->data[7] >> 32) ||
        (emu::lt_takes_aux(op->epilogue) && emu::lt_alignment(op->aux) < (uint32_t)algo->data[7]))
        return emu::lt_refuse(CUBLAS_STATUS_INVALID_VALUE, "bias or auxiliary: less aligned than was promised");
    /* what is run later must not hang on what the caller may change or destroy until then */
    auto op_ = *op;
    auto a_ = *a, b_ = *b, c_ = *c, d_ = *d;
    float scale = *(const float *)alpha, keep = *(const float *)beta;
    size_t used = std::min(workspace_size, (size_t)result.workspaceSize);
    emu_counted.kernels++;
    emu::submit(stream, [=]() mutable {
        emu::lt_problem p = {&op_, &a_, &b_, &c_, &d_, 0, 0, 0};
        emu::lt_check(&p);
        emu::access readable;
        for (int64_t batch = 0; batch < d_.batch; batch++)
            emu::lt_multiply(p, scale, x, y, keep, z, out, batch);
        if (workspace_size) memset(workspace, 0xff, used); /* in use */
        return cudaSuccess;
    });
    emu::lt.products++;
    emu::milliseconds += emu::lt.milliseconds[algo->data[0]];
    return CUBLAS_STATUS_SUCCESS;
}

#endif
