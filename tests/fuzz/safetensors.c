/* Weight files: every tensor that an accepted file offers can be read to its last byte. */
#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int fd;
    syz_weights *weights = syz_weights_open(fuzz_file(&fd, data, size));
    fuzz_check_outcome(weights);
    size_t total = 0;
    unsigned sum = 0;
    syz_scope_push();
    for (int64_t i = 0; weights && i < syz_weights_count(weights); i++) {
        syz_weight_info info = syz_weights_info(weights, i);
        fuzz_check(syz_weights_find(weights, info.name) == i);
        total += info.bytes;
        syz_tensor *t = syz_weights_get(weights, info.name);
        if (!t) fuzz_check(syz_error_status() == SYZ_EUNSUPPORTED);
        syz_error_clear();
        if (t) fuzz_check(syz_nbytes(t) == info.bytes);
        for (size_t k = 0; t && k < info.bytes; k++)
            sum += ((const uint8_t *)syz_data(t))[k];
    }
    syz_scope_pop();
    fuzz_check(total <= size && sum <= 255 * size);
    syz_weights_close(weights);
    close(fd);
    return 0;
}
