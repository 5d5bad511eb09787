/* PNG through libpng. libpng reports errors by longjmp: each jump stays inside one function here, which owns nothing.
 */
#include "core/alloc.h"
#include "core/error.h"
#include "io/image.h"

#include <png.h>
#include <stdlib.h>
#include <string.h>

/* ---- decoding ---------------------------------------------------------------------------------------------------- */

typedef struct {
    png_structp png;
    png_infop info;
    const uint8_t *data;
    size_t size, at;
    const char *name;
    syz_tensor *image; /* [H,W,3] */
    uint8_t *rgba;     /* H * W * 4, for images with transparency only */
    size_t width, height;
} decoder;

static void decode_error(png_structp png, png_const_charp message) {
    decoder *d = png_get_error_ptr(png);
    syz_fail(SYZ_EFORMAT, "%s: not a valid PNG: %s", d->name, message);
    png_longjmp(png, 1);
}

static void ignore_warning(png_structp png, png_const_charp message) {
    (void)png, (void)message;
}

static void decode_bytes(png_structp png, png_bytep out, size_t count) {
    decoder *d = png_get_io_ptr(png);
    if (count > d->size - d->at) png_error(png, "the file ends too early");
    memcpy(out, d->data + d->at, count);
    d->at += count;
}

/* Everything becomes 8-bit RGB, or RGBA if there is transparency. */
static void set_transforms(decoder *d) {
    png_set_scale_16(d->png);
    png_set_expand(d->png); /* palettes, low-bit grey and transparency chunks */
    png_set_gray_to_rgb(d->png);
    png_set_interlace_handling(d->png);
    png_read_update_info(d->png, d->info);
}

static bool decode_header(decoder *d) {
    if (setjmp(png_jmpbuf(d->png))) return false;
    png_set_user_limits(d->png, SYZ_IMAGE_MAX_SIDE, SYZ_IMAGE_MAX_SIDE);
    png_set_chunk_malloc_max(d->png, 1 << 20);
    png_set_keep_unknown_chunks(d->png, PNG_HANDLE_CHUNK_NEVER, NULL, -1); /* all but pixels, palette, transparency */
    png_set_read_fn(d->png, d, decode_bytes);
    png_read_info(d->png, d->info);
    d->width = png_get_image_width(d->png, d->info);
    d->height = png_get_image_height(d->png, d->info);
    /* Deflate shrinks at most 1032-fold: a tiny file that claims a large picture is refused before memory is taken. */
    if (png_get_rowbytes(d->png, d->info) * d->height / 1032 > d->size) png_error(d->png, "too short for its picture");
    set_transforms(d);
    return true;
}

static bool decode_rows(decoder *d) {
    if (setjmp(png_jmpbuf(d->png))) return false;
    size_t channels = d->rgba ? 4 : 3;
    uint8_t *pixels = d->rgba ? d->rgba : syz_data(d->image);
    int passes = png_get_interlace_type(d->png, d->info) == PNG_INTERLACE_NONE ? 1 : PNG_INTERLACE_ADAM7_PASSES;
    for (int pass = 0; pass < passes; pass++)
        for (size_t y = 0; y < d->height; y++)
            png_read_row(d->png, pixels + y * d->width * channels, NULL);
    png_read_end(d->png, NULL);
    return true;
}

static void composite_on_white(decoder *d) {
    const uint8_t *in = d->rgba;
    uint8_t *out = syz_data(d->image);
    for (size_t i = 0; i < d->width * d->height; i++, in += 4, out += 3) {
        unsigned alpha = in[3];
        for (int c = 0; c < 3; c++)
            out[c] = (uint8_t)((in[c] * alpha + 255 * (255 - alpha) + 127) / 255);
    }
}

static bool decode_image(decoder *d) {
    if (!decode_header(d)) return false;
    d->image = syz_image_new(d->width, d->height, d->name);
    if (!d->image) return false;
    if (png_get_channels(d->png, d->info) == 4) {
        d->rgba = syz_alloc(d->width * d->height, 4);
        if (!d->rgba) return false;
    }
    if (!decode_rows(d)) return false;
    if (d->rgba) composite_on_white(d);
    return true;
}

syz_tensor *syz_png_decode(const uint8_t *data, size_t size, const char *name) {
    decoder d = {.data = data, .size = size, .name = name};
    d.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &d, decode_error, ignore_warning);
    d.info = d.png ? png_create_info_struct(d.png) : NULL;
    bool done = false;
    if (!d.info)
        syz_fail(SYZ_ENOMEM, "%s: out of memory", name);
    else
        done = decode_image(&d);
    png_destroy_read_struct(&d.png, &d.info, NULL);
    free(d.rgba);
    return done ? d.image : NULL;
}

/* ---- encoding ---------------------------------------------------------------------------------------------------- */

typedef struct {
    png_structp png;
    png_infop info;
    const uint8_t *pixels;
    int width, height;
    uint8_t *data;
    size_t size, capacity;
} encoder;

static void encode_error(png_structp png, png_const_charp message) {
    syz_fail(SYZ_EINTERNAL, "cannot encode a PNG: %s", message);
    png_longjmp(png, 1);
}

static void encode_bytes(png_structp png, png_bytep in, size_t count) {
    encoder *e = png_get_io_ptr(png);
    if (count > e->capacity - e->size) {
        size_t capacity = 2 * e->capacity + count;
        uint8_t *data = realloc(e->data, capacity);
        if (!data) png_error(png, "out of memory");
        e->data = data;
        e->capacity = capacity;
    }
    memcpy(e->data + e->size, in, count);
    e->size += count;
}

static void encode_flush(png_structp png) {
    (void)png;
}

static bool encode_image(encoder *e) {
    if (setjmp(png_jmpbuf(e->png))) return false;
    png_set_write_fn(e->png, e, encode_bytes, encode_flush);
    png_set_IHDR(e->png, e->info, (png_uint_32)e->width, (png_uint_32)e->height, 8, PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(e->png, e->info);
    for (int y = 0; y < e->height; y++)
        png_write_row(e->png, e->pixels + (size_t)y * (size_t)e->width * 3);
    png_write_end(e->png, NULL);
    return true;
}

syz_status syz_png_encode(uint8_t **data, size_t *size, const uint8_t *pixels, int width, int height) {
    encoder e = {.pixels = pixels, .width = width, .height = height};
    e.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, encode_error, ignore_warning);
    e.info = e.png ? png_create_info_struct(e.png) : NULL;
    bool done = false;
    if (!e.info)
        syz_fail(SYZ_ENOMEM, "cannot encode a PNG: out of memory");
    else
        done = encode_image(&e);
    png_destroy_write_struct(&e.png, &e.info);
    if (!done) {
        free(e.data);
        return syz_error_status();
    }
    *data = e.data;
    *size = e.size;
    return SYZ_OK;
}
