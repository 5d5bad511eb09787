/* The emulation itself: what it must compute, and what it must refuse. */
#include "check.hpp"

static int launch(void (*kernel)(float *), float *y, int blocks, int threads) {
    return syz_cuda::launch(kernel, blocks, threads, 0, y);
}

static __global__ void rotate(float *y) {
    __shared__ float value[96];
    value[threadIdx.x] = (float)(threadIdx.x + 100 * blockIdx.x);
    __syncthreads();
    y[blockIdx.x * blockDim.x + threadIdx.x] = value[(threadIdx.x + 33) % 96];
}

static void barriers_order_shared_memory() {
    array<float> y(192), expected(192);
    for (int i = 0; i < 192; i++)
        expected[i] = (float)((i % 96 + 33) % 96 + 100 * (i / 96));
    run([&] { return launch(rotate, y, 2, 96); }, {y});
    compare("rotate", y, expected, 0, 0);
}

static __global__ void shuffles(float *y) {
    int i = (int)threadIdx.x;
    float *to = y + i * 4;
    to[0] = (float)__shfl_xor_sync(0xffffffffu, i, 5);
    to[1] = (float)__shfl_down_sync(0xffffffffu, i, 3);
    to[2] = (float)__shfl_sync(0xffffffffu, i, 7);
    to[3] = __shfl_xor_sync(0xffffffffu, to[0], 1);
}

static void lanes_exchange_values() {
    array<float> y(256), expected(256);
    for (int i = 0; i < 64; i++) {
        expected[4 * i] = (float)(i ^ 5);
        expected[4 * i + 1] = (float)(i % 32 + 3 < 32 ? i + 3 : i);
        expected[4 * i + 2] = (float)(i / 32 * 32 + 7);
        expected[4 * i + 3] = (float)(i ^ 1 ^ 5);
    }
    run([&] { return launch(shuffles, y, 1, 64); }, {y});
    compare("shuffles", y, expected, 0, 0);
}

static __global__ void count(float *y) {
    atomicAdd(y, 1.0f);
}

static void atomics_lose_nothing() {
    array<float> y(1), expected(1);
    expected[0] = 640;
    run([&] { return launch(count, y, 5, 128); }, {y});
    compare("count", y, expected, 0, 0);
}

static __global__ void unset(float *y) {
    __shared__ float value[32];
    if (blockIdx.x == 0) value[threadIdx.x] = 1;
    y[blockIdx.x * 32 + threadIdx.x] = value[threadIdx.x];
}

static void shared_memory_does_not_outlive_a_block() {
    array<float> y(64);
    emu::the().schedule = emu::FORWARD;
    if (launch(unset, y, 2, 32) != 0 || y[5] != 1 || y[32] == y[32]) failed("block 1 saw %g, not NaN", y[32]);
}

/* ---- refusals ---- */

static __global__ void half_of_the_block_waits(float *) {
    if (threadIdx.x < 32) __syncthreads();
}
static __global__ void two_places(float *) {
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
}
static __global__ void half_a_warp(float *y) {
    if (threadIdx.x < 16) y[0] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}
static __global__ void narrow_mask(float *y) {
    y[0] = __shfl_xor_sync(0xffffu, 1.0f, 1);
}
static __global__ void nothing(float *) {}

static void broken_kernels_fail() {
    static const struct {
        void (*kernel)(float *);
        int threads;
        const char *message;
    } broken[] = {
        {half_of_the_block_waits, 64, "divergent barrier"},
        {two_places, 64, "divergent barrier"},
        {half_a_warp, 32, "deadlock"},
        {narrow_mask, 32, "full mask"},
        {nothing, 33, "whole warps"},
    };
    array<float> y(64);
    for (const auto &b : broken) {
        for (int order = 0; order < emu::ORDERS; order++) {
            emu::the().schedule = (emu::order)order;
            emu::the().error[0] = 0;
            if (launch(b.kernel, y, 1, b.threads) == 0 || !strstr(emu::the().error, b.message))
                failed("schedule %d: expected '%s', not '%s'", order, b.message, emu::the().error);
        }
    }
}

MAIN({"barriers", barriers_order_shared_memory}, {"shuffles", lanes_exchange_values}, {"atomics", atomics_lose_nothing},
     {"shared memory", shared_memory_does_not_outlive_a_block}, {"refusals", broken_kernels_fail})
