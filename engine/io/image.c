#include "io/image.h"

#include "core/alloc.h"
#include "core/error.h"
#include "io/file.h"
#include "tensor/tensor.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

syz_tensor *syz_image_new(uint64_t width, uint64_t height, const char *name) {
    if (width == 0 || height == 0 || width > SYZ_IMAGE_MAX_SIDE || height > SYZ_IMAGE_MAX_SIDE ||
        width * height > SYZ_IMAGE_MAX_PIXELS) {
        return syz_fail_null(SYZ_EFORMAT,
                             "%s: an image of %llu x %llu pixels, sides of 1 to %d and at most %llu pixels are read",
                             name, (unsigned long long)width, (unsigned long long)height, SYZ_IMAGE_MAX_SIDE,
                             (unsigned long long)SYZ_IMAGE_MAX_PIXELS);
    }
    return syz_host_zeros(SYZ_U8, SYZ_SHAPE((int64_t)height, (int64_t)width, 3));
}

syz_tensor *syz_image_decode(const void *data, size_t size, const char *name) {
    if (syz_failed()) return NULL;
    if (size >= 8 && memcmp(data, "\x89PNG\r\n\x1a\n", 8) == 0) return syz_png_decode(data, size, name);
    if (size >= 3 && memcmp(data, "\xff\xd8\xff", 3) == 0) return syz_jpeg_decode(data, size, name);
    return syz_fail_null(SYZ_EFORMAT, "%s: neither a PNG nor a JPEG image", name);
}

syz_tensor *syz_image_load(const char *path) {
    uint8_t *data;
    size_t size;
    if (syz_file_read(&data, &size, path, SYZ_IMAGE_MAX_BYTES) != SYZ_OK) return NULL;
    syz_tensor *image = syz_image_decode(data, size, path);
    free(data);
    return image;
}

/* The pixels of an image tensor as bytes; *owned is freed by the caller. */
static const uint8_t *image_bytes(uint8_t **owned, const syz_tensor *image) {
    *owned = NULL;
    if (syz_failed()) return NULL;
    if (!image || !syz_alive(image)) return syz_fail_null(SYZ_EINVAL, "image: its scope has ended");
    if (image->shape.n != 3 || image->shape.dim[2] != 3 || syz_numel(image) == 0 ||
        image->shape.dim[0] > SYZ_IMAGE_MAX_SIDE || image->shape.dim[1] > SYZ_IMAGE_MAX_SIDE) {
        return syz_fail_null(SYZ_ESHAPE, "image: shape %s, not [H,W,3] with sides of 1 to %d", syz_dims(image),
                             SYZ_IMAGE_MAX_SIDE);
    }
    if (image->dtype == SYZ_U8) return syz_data(image);
    if (image->dtype != SYZ_F32) {
        return syz_fail_null(SYZ_EDTYPE, "image: dtype %s, not u8 or f32", syz_dtype_name(image->dtype));
    }
    int64_t n = syz_numel(image);
    uint8_t *bytes = syz_alloc((size_t)n, 1);
    if (!bytes) return NULL;
    const float *values = syz_f32(image);
    for (int64_t i = 0; i < n; i++) {
        float v = values[i] > 0 ? values[i] : 0; /* NaN becomes 0 */
        bytes[i] = (uint8_t)((v < 1 ? v : 1) * 255 + 0.5f);
    }
    *owned = bytes;
    return bytes;
}

static syz_status encode(uint8_t **data, size_t *size, const syz_tensor *image, int jpeg_quality) {
    uint8_t *owned;
    const uint8_t *pixels = image_bytes(&owned, image);
    if (!pixels) return syz_error_status();
    int height = (int)image->shape.dim[0], width = (int)image->shape.dim[1];
    syz_status status = jpeg_quality ? syz_jpeg_encode(data, size, pixels, width, height, jpeg_quality)
                                     : syz_png_encode(data, size, pixels, width, height);
    free(owned);
    return status;
}

syz_status syz_image_encode(uint8_t **data, size_t *size, const syz_tensor *image, int jpeg_quality) {
    *data = NULL;
    *size = 0;
    if (jpeg_quality < 0 || jpeg_quality > 100)
        return syz_fail(SYZ_EINVAL, "JPEG quality %d, not 1 to 100 (0 for PNG)", jpeg_quality);
    if (!image || image->device == 0) return encode(data, size, image, jpeg_quality);
    SYZ_TRY(syz_scope_push());
    syz_tensor *near = syz_copy_to((syz_tensor *)(uintptr_t)image, 0);
    syz_status status = near ? encode(data, size, near, jpeg_quality) : syz_error_status();
    syz_scope_pop();
    return status;
}

syz_status syz_image_save(const char *path, const syz_tensor *image) {
    const char *dot = strrchr(path, '.');
    bool png = dot && strcasecmp(dot, ".png") == 0;
    if (!png && !(dot && (strcasecmp(dot, ".jpg") == 0 || strcasecmp(dot, ".jpeg") == 0))) {
        return syz_fail(SYZ_EINVAL, "%s: images are saved as .png, .jpg or .jpeg", path);
    }
    uint8_t *data;
    size_t size;
    SYZ_TRY(syz_image_encode(&data, &size, image, png ? 0 : 95));
    syz_status status = syz_file_write(path, data, size);
    free(data);
    return status;
}
