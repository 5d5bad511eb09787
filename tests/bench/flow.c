/* How fast the engine runs the embedded flow transformer on this CPU: the counterpart of tests/oracle/bench_flow.py.
 *
 *   bench_flow [THREADS [BATCH [REPEAT [bf16]]]]
 *
 * BENCH_CPU=1 reports processor time instead of elapsed time: on a busy machine, with one thread, it is the fairer
 * figure.
 * The model is FluxTransformer2DModel with 2 double and 4 single blocks, 4 heads x 64, 16 image and 16 text tokens. A
 * training step is the flow-matching loss: forward, backward and AdamW on all parameters. Prints medians. */
#include "ops/ops.h"
#include "tensor/tensor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char config[] =
    "{\"_class_name\":\"FluxTransformer2DModel\",\"in_channels\":64,\"num_layers\":2,\"num_single_layers\":4,"
    "\"num_attention_heads\":4,\"attention_head_dim\":64,\"joint_attention_dim\":256,\"pooled_projection_dim\":256,"
    "\"axes_dims_rope\":[16,24,24],\"guidance_embeds\":false}";

enum { TOKENS = 16, MOST = 100 };

static struct {
    syz_model *model;
    syz_adamw *optimizer;
    syz_tensor *in[7], *target;
} bench;

static double now_ms(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static syz_tensor *velocity(void) {
    syz_tensor *out[1] = {0};
    int n;
    syz_model_call(bench.model, "forward", bench.in, 7, out, 1, &n);
    return out[0];
}

static void forward(void) {
    syz_no_grad_push();
    velocity();
    syz_no_grad_pop();
}

static void training_step(void) {
    syz_adamw_zero_grad(bench.optimizer);
    syz_tensor *loss = syz_mse_loss(velocity(), bench.target);
    if (loss) syz_backward(loss, NULL);
    syz_adamw_step(bench.optimizer, 1e-5);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median_ms(void (*function)(void), int repeat, clockid_t clock) {
    double time[MOST];
    for (int k = -2; k < repeat; k++) {
        double start = now_ms(clock);
        syz_scope_push();
        function();
        syz_scope_pop();
        if (k >= 0) time[k] = now_ms(clock) - start;
    }
    qsort(time, (size_t)repeat, sizeof *time, ascending);
    return time[repeat / 2];
}

static syz_status prepare(int64_t batch) {
    if (syz_model_create(&bench.model, config) != SYZ_OK || syz_model_init(bench.model, 1) != SYZ_OK)
        return syz_error_status();
    syz_model_set_requires_grad(bench.model, true);
    int64_t count = syz_model_param_count(bench.model);
    syz_tensor **params = malloc((size_t)count * sizeof *params);
    for (int64_t k = 0; params && k < count; k++)
        params[k] = syz_model_param(bench.model, k);
    syz_adamw_options options = {.lr = 1e-5, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.01};
    syz_adamw_create(&bench.optimizer, params, params ? count : 0, options);
    free(params);
    syz_rng rng = {.seed = 1};
    bench.in[0] = syz_randn(&rng, SYZ_SHAPE(batch, TOKENS, 64));
    bench.in[1] = syz_randn(&rng, SYZ_SHAPE(batch, TOKENS, 256));
    bench.in[2] = syz_randn(&rng, SYZ_SHAPE(batch, 256));
    bench.in[3] = syz_rand(&rng, SYZ_SHAPE(batch));
    bench.in[5] = syz_zeros(SYZ_F32, SYZ_SHAPE(TOKENS, 3));
    bench.in[6] = syz_zeros(SYZ_F32, SYZ_SHAPE(TOKENS, 3));
    bench.target = syz_randn(&rng, SYZ_SHAPE(batch, TOKENS, 64));
    for (int k = 0; bench.in[5] && k < TOKENS; k++) {
        syz_f32(bench.in[5])[3 * k + 1] = (float)(k / 4);
        syz_f32(bench.in[5])[3 * k + 2] = (float)(k % 4);
    }
    return syz_error_status();
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 2, batch = argc > 2 ? atoi(argv[2]) : 64;
    int repeat = argc > 3 ? atoi(argv[3]) : 5;
    bool bf16 = argc > 4 && !strcmp(argv[4], "bf16");
    if (threads < 1 || batch < 1 || repeat < 1 || repeat > MOST) {
        fprintf(stderr, "usage: bench_flow [THREADS [BATCH [REPEAT up to %d [bf16]]]]\n", MOST);
        return 2;
    }
    syz_set_threads(threads);
    syz_set_matmul_precision(bf16 ? SYZ_BF16 : SYZ_F32);
    syz_scope_push();
    if (prepare(batch) == SYZ_OK) {
        clockid_t clock = getenv("BENCH_CPU") ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC;
        double inference = median_ms(forward, repeat, clock), training = median_ms(training_step, repeat, clock);
        printf(
            "syzygy %s, %d threads, products in %s, batch %d: forward %.1f ms, training step %.1f ms, peak %zu MiB\n",
            syz_version(), threads, syz_dtype_name(syz_matmul_precision()), batch, inference, training,
            syz_memory_stats().peak >> 20);
    }
    if (syz_error_status() != SYZ_OK) fprintf(stderr, "bench_flow: %s\n", syz_error_message());
    syz_adamw_free(bench.optimizer);
    syz_model_release(bench.model);
    syz_scope_pop();
    return syz_error_status() != SYZ_OK;
}
