/* Rotary position embedding as FLUX applies it, its tables, and the sinusoidal embedding of the timestep. */
#include "kernels/kernels.h"
#include "ops/ops.h"

#include <math.h>

static syz_status check_rope(const syz_call *c) {
    syz_shape x = c->in[0]->shape, table = c->in[1]->shape;
    SYZ_TRY(syz_need_real(c, 0));
    SYZ_TRY(syz_need_dtype(c, 1, SYZ_F32));
    SYZ_TRY(syz_need_dtype(c, 2, SYZ_F32));
    SYZ_TRY(syz_need_rank(c, 0, 4));
    SYZ_TRY(syz_need_rank(c, 1, 2));
    SYZ_TRY(syz_need_same_shape(c, 1, 2));
    if (table.dim[0] == x.dim[1] && 2 * table.dim[1] == x.dim[3]) return SYZ_OK;
    return syz_fail(SYZ_ESHAPE, "rope: x %s and tables %s are not [B,T,H,D] and [T,D/2]", syz_dims(c->in[0]),
                    syz_dims(c->in[1]));
}

syz_status syz_forward_rope(syz_call *c) {
    SYZ_TRY(check_rope(c));
    if (!(c->out = syz_empty_like(c->in[0]))) return syz_error_status();
    return syz_ran(c, c->kernels->rope(syz_reals(c->out), syz_reals(c->in[0]), syz_f32(c->in[1]), syz_f32(c->in[2]),
                                       c->in[0]->shape.dim, 1));
}

syz_status syz_backward_rope(syz_call *c, syz_tensor *gout, syz_tensor *gin[]) {
    if (!c->needs[0]) return SYZ_OK;
    if (!(gin[0] = syz_empty_like(gout))) return syz_error_status();
    return syz_ran(c, c->kernels->rope(syz_reals(gin[0]), syz_reals(gout), syz_f32(c->in[1]), syz_f32(c->in[2]),
                                       gout->shape.dim, -1));
}

syz_status syz_rope_table(syz_tensor **cosine, syz_tensor **sine, const syz_tensor *ids, const int64_t *axes_dims,
                          int axes, double theta) {
    int64_t half = 0;
    if (syz_failed()) return syz_error_status();
    if (ids->dtype != SYZ_F32 || ids->shape.n != 2 || ids->shape.dim[1] != axes)
        return syz_fail(SYZ_ESHAPE, "rope_table: ids have shape %s, f32 [T,%d] is needed", syz_dims(ids), axes);
    for (int a = 0; a < axes; a++) {
        if (axes_dims[a] < 2 || axes_dims[a] % 2 || axes_dims[a] > 65536)
            return syz_fail(SYZ_ESHAPE, "rope_table: axis %d has %lld dimensions, an even number is needed", a,
                            (long long)axes_dims[a]);
        half += axes_dims[a] / 2;
    }
    int64_t tokens = ids->shape.dim[0];
    syz_shape shape = SYZ_SHAPE(tokens, half);
    if (!(ids = syz_copy_to((syz_tensor *)(uintptr_t)ids, 0))) return syz_error_status();
    syz_tensor *tables[] = {syz_host_zeros(SYZ_F32, shape), syz_host_zeros(SYZ_F32, shape)};
    if (!tables[0] || !tables[1]) return syz_error_status();
    float *c = syz_f32(tables[0]), *s = syz_f32(tables[1]);
    for (int64_t token = 0; token < tokens; token++) {
        for (int a = 0; a < axes; a++) {
            for (int64_t k = 0; k < axes_dims[a]; k += 2) {
                double angle = syz_f32(ids)[token * axes + a] * (1.0 / pow(theta, (double)k / (double)axes_dims[a]));
                *c++ = (float)cos(angle);
                *s++ = (float)sin(angle);
            }
        }
    }
    *cosine = syz_copy_to(tables[0], syz_device_current());
    *sine = syz_copy_to(tables[1], syz_device_current());
    return syz_error_status();
}

syz_status syz_forward_timestep_embedding(syz_call *c) {
    int64_t dim = c->i[0];
    SYZ_TRY(syz_need_real(c, 0));
    SYZ_TRY(syz_need_rank(c, 0, 1));
    if (dim < 2 || dim % 2)
        return syz_fail(SYZ_EINVAL, "timestep_embedding: dim is %lld, an even number is needed", (long long)dim);
    int64_t batch = c->in[0]->shape.dim[0];
    if (!(c->out = syz_empty(c->real, SYZ_SHAPE(batch, dim)))) return syz_error_status();
    return syz_ran(c, c->kernels->timestep_embedding(syz_reals(c->out), syz_reals(c->in[0]), batch, dim));
}
