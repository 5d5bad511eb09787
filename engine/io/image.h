/* Images as u8 tensors [H,W,3]; image.c is the public side, png.c and jpeg.c hold one codec each. */
#ifndef SYZ_IO_IMAGE_H
#define SYZ_IO_IMAGE_H

#include "syzygy.h"

#define SYZ_IMAGE_MAX_BYTES  ((size_t)256 << 20)
#define SYZ_IMAGE_MAX_SIDE   32768
#define SYZ_IMAGE_MAX_PIXELS ((uint64_t)64 << 20)

/* The tensor [H,W,3] for an image that claims this size, after the caps; NULL with an error that names the file. */
syz_tensor *syz_image_new(uint64_t width, uint64_t height, const char *name);

syz_tensor *syz_png_decode(const uint8_t *data, size_t size, const char *name);
syz_tensor *syz_jpeg_decode(const uint8_t *data, size_t size, const char *name);

/* `pixels` are height * width * 3 bytes. *data is the caller's, to be freed. */
syz_status syz_png_encode(uint8_t **data, size_t *size, const uint8_t *pixels, int width, int height);
syz_status syz_jpeg_encode(uint8_t **data, size_t *size, const uint8_t *pixels, int width, int height, int quality);

#endif
