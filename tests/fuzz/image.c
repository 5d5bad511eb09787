/* PNG and JPEG. Checksums would hide everything behind the first changed byte of a PNG, so it is also tried with its
 * checksums repaired. */
#include "io/image.h"
#include "fuzz/fuzz.h"

#include <string.h>
#include <zlib.h>

static void decode(const uint8_t *data, size_t size) {
    syz_scope_push();
    syz_tensor *image = syz_image_decode(data, size, "fuzz");
    fuzz_check_outcome(image);
    if (image) fuzz_check(syz_nbytes(image) > 0 && syz_nbytes(image) <= 3 * SYZ_IMAGE_MAX_PIXELS);
    syz_scope_pop();
}

static uint32_t load_u32(const uint8_t *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void repair_checksums(uint8_t *data, size_t size) {
    for (size_t at = 8; size - at >= 12;) {
        uint32_t length = load_u32(data + at);
        if (length > size - at - 12) return;
        uint32_t sum = (uint32_t)crc32(0, data + at + 4, length + 4);
        for (int i = 0; i < 4; i++)
            data[at + 8 + length + (size_t)i] = (uint8_t)(sum >> (24 - 8 * i));
        at += 12 + length;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    decode(data, size);
    if (size < 8 || data[0] != 0x89) return 0;
    uint8_t *copy = malloc(size);
    fuzz_check(copy);
    memcpy(copy, data, size);
    repair_checksums(copy, size);
    decode(copy, size);
    free(copy);
    return 0;
}
