/* The one OpenMP pool and the cancel flag that operations poll. */
#include "core/threads.h"
#include "core/error.h"

#include <omp.h>
#include <signal.h>

static volatile sig_atomic_t canceled;

void syz_cancel(void) {
    canceled = 1;
}

void syz_cancel_clear(void) {
    canceled = 0;
}

syz_status syz_check_cancel(void) {
    if (!canceled) return SYZ_OK;
    return syz_fail(SYZ_ECANCELED, "interrupted");
}

void syz_set_threads(int threads) {
    omp_set_num_threads(threads < 1 ? 1 : threads);
}

int syz_threads(void) {
    return omp_get_max_threads();
}
