/* Matrix products by oneDNN. Transposes are steps in the descriptors, never copies. */
#include "core/alloc.h"
#include "kernels/kernels.h"
#include "kernels/onednn.h"
#include "kernels/product.h"
#include "kernels/tile.h"
#include "syzygy.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    char family[8];
    syz_product product;
    int64_t bias;
} matmul_key;

/* [batch, rows, cols], without the batch dimension where the product has none. An operand that the whole batch shares
 * (step 0) has size 1 there: oneDNN broadcasts it. */
static int describe(dnnl_memory_desc_t *md, const syz_product *p, int64_t rows, int64_t cols, const int64_t step[3],
                    dnnl_data_type_t type) {
    bool flat = p->batch == 1;
    dnnl_dims_t dim = {step[0] ? p->batch : 1, rows, cols}, flat_dim = {rows, cols};
    dnnl_dims_t stride = {step[0] ? step[0] : rows * cols, step[1], step[2]}, flat_stride = {step[1], step[2]};
    dnnl_status_t status =
        dnnl_memory_desc_init_by_strides(md, flat ? 2 : 3, flat ? flat_dim : dim, type, flat ? flat_stride : stride);
    return status == dnnl_success ? 0 : -1;
}

static int create(syz_dnnl *made, const void *key) {
    const matmul_key *k = key;
    const syz_product *p = &k->product;
    dnnl_data_type_t type = p->bf16 ? dnnl_bf16 : dnnl_f32;
    dnnl_memory_desc_t a, b, y, bias;
    dnnl_matmul_desc_t desc;
    if (describe(&a, p, p->m, p->k, p->a, type) != 0 || describe(&b, p, p->k, p->n, p->b, type) != 0 ||
        describe(&y, p, p->m, p->n, (int64_t[]){p->m * p->n, p->n, 1}, dnnl_f32) != 0 ||
        describe(&bias, p, 1, p->n, (int64_t[]){0, p->n, 1}, dnnl_f32) != 0)
        return -1;
    if (dnnl_matmul_desc_init(&desc, &a, &b, k->bias ? &bias : NULL, &y) != dnnl_success ||
        syz_dnnl_primitive(made, &desc, NULL, NULL) != 0)
        return -1;
    if (syz_dnnl_argument(made, DNNL_ARG_SRC, &a) != 0 || syz_dnnl_argument(made, DNNL_ARG_WEIGHTS, &b) != 0 ||
        syz_dnnl_argument(made, DNNL_ARG_DST, &y) != 0)
        return -1;
    return k->bias ? syz_dnnl_argument(made, DNNL_ARG_BIAS, &bias) : 0;
}

/* The operand's elements as bf16 in a buffer that is kept for the next call; `slot` 0 or 1. */
static void *as_bf16(int slot, const float *x, const syz_product *p, int64_t rows, int64_t cols,
                     const int64_t step[3]) {
    static struct {
        void *data;
        size_t bytes;
    } buffer[2];
    int64_t n = (step[0] ? p->batch : 1) * rows * cols;
    size_t bytes = ((size_t)n * 2 + 63) / 64 * 64;
    if (buffer[slot].bytes < bytes) {
        free(buffer[slot].data);
        buffer[slot].data = aligned_alloc(64, bytes);
        buffer[slot].bytes = buffer[slot].data ? bytes : 0;
    }
    if (buffer[slot].data) syz_cpu_cast(buffer[slot].data, SYZ_BF16, x, SYZ_F32, n);
    return buffer[slot].data;
}

/* A weight gradient: the rows of a lie in the columns. Below AVX-512, oneDNN reaches half to three quarters of the
 * speed there that packing does. */
static bool better_packed(const syz_product *p, const float *bias) {
    return SYZ_LANES < 16 && p->batch == 1 && !p->bf16 && !bias && p->a[1] == 1 && p->m > 1;
}

/* Added when it is complete: as if it had been made elsewhere, to the last bit. */
static int add_product(float *y, const float *a, const void *b, const float *bias, const syz_product *product) {
    syz_product alone = *product;
    int64_t n = product->batch * product->m * product->n;
    size_t bytes = (size_t)n * sizeof *y;
    alone.add = 0;
    float *made = syz_block_alloc(bytes);
    int status = made && syz_cpu_matmul(made, a, b, bias, &alone) == 0 ? syz_cpu_axpy(y, made, 1, n) : -1;
    syz_block_free(made, bytes);
    return status;
}

int syz_cpu_matmul(void *y, const float *a, const void *b, const float *bias, const syz_product *product) {
    if (product->add) return add_product(y, a, b, bias, product);
    if (better_packed(product, bias)) return syz_packed_product(y, a, b, product);
    matmul_key key;
    memset(&key, 0, sizeof key);
    strcpy(key.family, "matmul");
    key.product = *product;
    key.product.wide = 0;
    key.bias = bias != NULL;
    syz_dnnl *op = syz_dnnl_find(&key, sizeof key, create);
    if (!op) return -1;
    void *data[] = {(void *)a, (void *)b, y, (void *)bias};
    if (product->bf16) {
        data[0] = as_bf16(0, a, product, product->m, product->k, product->a);
        if (!product->b_rounded) data[1] = as_bf16(1, b, product, product->k, product->n, product->b);
        if (!data[0] || !data[1]) return -1;
    }
    return syz_dnnl_run(op, data);
}

int syz_cpu_matmul_gelu(float *y, float *pre, const float *a, const void *b, const float *bias,
                        const syz_product *product) {
    float *to = pre ? pre : y;
    if (syz_cpu_matmul(to, a, b, bias, product) != 0) return -1;
    return syz_cpu_unary(y, to, product->batch * product->m * product->n, SYZ_UNARY_gelu_tanh);
}

int syz_cpu_matmul_bias_gradient(float *y, float *dbias, const float *a, const float *b, const syz_product *product) {
    if (syz_cpu_matmul(y, a, b, NULL, product) != 0) return -1;
    syz_nest rows = {.n = 2, .dim = {product->k, product->m}, .a = {0, 1}}, one = {.n = 1, .dim = {product->k}};
    return syz_cpu_sum(dbias, a, product->m == 1 ? &one : &rows, 1, product->m);
}

int syz_cpu_has_bf16(bool *faster) {
    *faster = syz_dnnl_has_bf16();
    return 0;
}
