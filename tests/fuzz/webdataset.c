/* WebDataset shards: all files of an accepted shard can be read, and there are no more bytes than the shard has. */
#include "fuzz/fuzz.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int fd;
    syz_webdataset *shard = syz_webdataset_open(fuzz_file(&fd, data, size));
    fuzz_check_outcome(shard);
    size_t total = 0;
    unsigned sum = 0;
    for (int64_t i = 0; shard && i < syz_webdataset_count(shard); i++) {
        syz_sample sample = syz_webdataset_sample(shard, i);
        fuzz_check(sample.count > 0 && sample.key[0]);
        for (int64_t j = 0; j < sample.count; j++) {
            fuzz_check(sample.files[j].extension[0] && !strchr(sample.files[j].extension, '/'));
            total += sample.files[j].size;
            for (size_t k = 0; k < sample.files[j].size; k++)
                sum += ((const uint8_t *)sample.files[j].data)[k];
        }
    }
    fuzz_check(total <= size && sum <= 255 * size);
    syz_webdataset_close(shard);
    close(fd);
    return 0;
}
