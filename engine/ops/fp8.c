/* Linear layers in e4m3: activations are rounded with a scale of each call's own, weights with one that is kept beside
 * them. */
#include "ops/fp8.h"
#include "core/flops.h"
#include "kernels/kernels.h"
#include "ops/ops.h"

#include <string.h>

enum { UNIT = 16, SMALLEST = 128 }; /* of sizes: what the library asks, and what is worth a rounding pass */

static bool wanted;

/* Weights keep their codes, one byte a value, until they change. */
syz_status syz_set_fp8(bool on) {
    if (on && syz_grad_enabled())
        return syz_fail(SYZ_EINVAL, "fp8 products are for evaluations without gradients: call this inside no_grad");
    wanted = on;
    return SYZ_OK;
}

bool syz_fp8_wanted(void) {
    return wanted;
}

/* Layers of conditions, whose input is a row for each sample, and the narrow first and last ones stay as they are. */
bool syz_fp8_applies(const syz_tensor *x, const syz_tensor *weight, int64_t begin) {
    if (!wanted || syz_grad_enabled() || x->shape.n < 3 || weight->shape.n != 2) return false;
    int64_t n = weight->shape.dim[0], k = x->shape.dim[x->shape.n - 1], all = weight->shape.dim[1];
    return n >= SMALLEST && k >= SMALLEST && n % UNIT == 0 && k % UNIT == 0 && all % UNIT == 0 && begin % UNIT == 0 &&
           syz_numel(x) > 0;
}

static syz_status check_device(const syz_call *c) {
    bool possible = false;
    SYZ_TRY(syz_ran(c, c->kernels->has_fp8(&possible)));
    if (possible) return SYZ_OK;
    return syz_fail(SYZ_EUNSUPPORTED, "%s has no products in fp8, which begin with sm_89: leave rollout = \"fp8\" out",
                    syz_device_text(c->device));
}

syz_status syz_fp8_product(const syz_call *c, syz_tensor *y, const syz_tensor *x, syz_tensor *weight, int64_t begin,
                           const syz_real *bias, bool add, bool gelu) {
    if (!y || syz_failed()) return syz_error_status();
    SYZ_TRY(check_device(c));
    syz_tensor *codes = syz_empty(SYZ_U8, x->shape), *scale = syz_empty(SYZ_F32, (syz_shape){0});
    syz_fp8_weight w = syz_fp8_of(weight, c->real);
    if (!codes || !scale || !w.codes) return syz_error_status();
    syz_product p;
    memset(&p, 0, sizeof p); /* its bytes are a key */
    p.batch = 1;
    p.k = x->shape.dim[x->shape.n - 1];
    p.m = syz_numel(x) / p.k;
    p.n = weight->shape.dim[0];
    p.a[1] = p.k;
    p.a[2] = p.b[1] = 1;
    p.b[2] = weight->shape.dim[1];
    p.add = add;
    syz_flops_count(2.0 * (double)p.m * (double)p.n * (double)p.k);
    SYZ_TRY(syz_ran(c, c->kernels->quantize_fp8(syz_data(codes), syz_f32(scale), syz_reals(x), syz_numel(x))));
    return syz_ran(c, c->kernels->matmul_fp8(syz_reals(y), syz_data(codes), w.codes + begin, syz_f32(scale), w.scale,
                                             bias, &p, gelu));
}
