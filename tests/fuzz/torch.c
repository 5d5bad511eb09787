/* Files of torch.save. Checksums would hide everything behind the first changed byte of a pickle, so what begins like a
 * pickle becomes the data.pkl of a fresh archive with a few storages. Every tensor that is accepted can be read to its
 * last byte, and none takes more memory than the file has. */
#include "fuzz/fuzz.h"
#include "torch_archive.h"

static void read_all(const uint8_t *data, size_t size) {
    int fd;
    syz_weights *weights = syz_weights_open(fuzz_file(&fd, data, size));
    fuzz_check_outcome(weights);
    for (int64_t i = 0; weights && i < syz_weights_count(weights); i++) {
        syz_weight_info info = syz_weights_info(weights, i);
        fuzz_check(syz_weights_find(weights, info.name) == i);
        fuzz_check(info.bytes <= size);
        syz_scope_push();
        syz_tensor *t = syz_weights_get(weights, info.name);
        if (!t) fuzz_check(syz_error_status() == SYZ_EUNSUPPORTED || syz_error_status() == SYZ_EFORMAT);
        syz_error_clear();
        if (t) fuzz_check(syz_nbytes(t) == info.bytes);
        unsigned sum = 0;
        for (size_t k = 0; t && k < info.bytes; k++)
            sum += ((const uint8_t *)syz_data(t))[k];
        fuzz_check(sum <= 255 * info.bytes);
        syz_scope_pop();
    }
    syz_weights_close(weights);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t values[512];
    static const archive_entry storages[] = {
        {"x/data/0", values, 60},  {"x/data/1", values, 96}, {"x/data/2", values, 480}, {"x/data/3", values, 8},
        {"x/data/4", values, 12},  {"x/data/5", values, 24}, {"x/data/6", values, 15},  {"x/data/7", values, 4},
        {"x/data/8", values, 120}, {"x/version", "3\n", 2},
    };
    enum { STORAGES = sizeof storages / sizeof *storages };
    read_all(data, size);
    if (size < 2 || data[0] != 0x80) return 0;
    archive_entry entries[STORAGES + 1] = {{"x/data.pkl", data, size}};
    memcpy(entries + 1, storages, sizeof storages);
    size_t rows[STORAGES + 1];
    uint8_t *archive = malloc(size + 4096);
    fuzz_check(archive);
    size_t length = archive_build(archive, rows, entries, STORAGES + 1);
    fuzz_check(length <= size + 4096);
    read_all(archive, length);
    free(archive);
    return 0;
}
