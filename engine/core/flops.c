#include "core/flops.h"

#include "syzygy.h"

static double counts[SYZ_METERS], total;
static bool taken[SYZ_METERS];
static int current;

int syz_meter_take(void) {
    for (int k = 1; k < SYZ_METERS; k++) {
        if (taken[k]) continue;
        taken[k] = true;
        counts[k] = 0;
        return k;
    }
    return 0;
}

void syz_meter_return(int meter) {
    taken[meter] = false;
}

int syz_meter_swap(int meter) {
    int before = current;
    current = meter;
    return before;
}

int syz_meter_current(void) {
    return current;
}

double syz_meter_read(int meter) {
    return counts[meter];
}

void syz_flops_count(double flops) {
    counts[current] += flops;
    total += flops;
}

double syz_flops(void) {
    return total;
}
