/* JPEG through libjpeg. It reports errors by a callback that must not return: each jump stays inside one function. */
#include "core/error.h"
#include "io/image.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <jerror.h>
#include <jpeglib.h>

/* A progressive file may hold any number of scans, each over the whole picture. Real ones have about ten. */
enum { MAX_SCANS = 100 };

typedef struct {
    struct jpeg_error_mgr base; /* first, so that cinfo->err points to this struct */
    jmp_buf jump;
    const char *name;
} error_handler;

static void fail_and_jump(j_common_ptr info) {
    error_handler *handler = (error_handler *)info->err;
    char text[JMSG_LENGTH_MAX];
    handler->base.format_message(info, text);
    syz_fail(SYZ_EFORMAT, "%s: not a valid JPEG: %s", handler->name, text);
    longjmp(handler->jump, 1);
}

/* Warnings are tolerated, except those that mean missing pixels: libjpeg would fill them with grey. */
static void check_warning(j_common_ptr info, int level) {
    int code = info->err->msg_code;
    if (level < 0 && (code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER)) fail_and_jump(info);
}

static void set_handler(error_handler *handler, const char *name) {
    jpeg_std_error(&handler->base);
    handler->base.error_exit = fail_and_jump;
    handler->base.emit_message = check_warning;
    handler->name = name;
}

/* ---- decoding ---------------------------------------------------------------------------------------------------- */

typedef struct {
    struct jpeg_decompress_struct info;
    struct jpeg_progress_mgr progress;
    error_handler handler;
    syz_tensor *image;
} decoder;

static void check_scans(j_common_ptr common) {
    j_decompress_ptr info = (j_decompress_ptr)common;
    error_handler *handler = (error_handler *)common->err;
    if (info->input_scan_number <= MAX_SCANS) return;
    syz_fail(SYZ_EFORMAT, "%s: more than %d JPEG scans", handler->name, MAX_SCANS);
    longjmp(handler->jump, 1);
}

static bool decode_image(decoder *d, const uint8_t *data, size_t size) {
    if (setjmp(d->handler.jump)) return false;
    jpeg_create_decompress(&d->info);
    d->progress.progress_monitor = check_scans;
    d->info.progress = &d->progress;
    d->info.mem->max_memory_to_use = 512L << 20;
    jpeg_mem_src(&d->info, data, size);
    jpeg_read_header(&d->info, TRUE);
    if (d->info.jpeg_color_space == JCS_CMYK || d->info.jpeg_color_space == JCS_YCCK) {
        syz_fail(SYZ_EUNSUPPORTED, "%s: a CMYK JPEG; convert it to RGB", d->handler.name);
        return false;
    }
    d->image = syz_image_new(d->info.image_width, d->info.image_height, d->handler.name);
    if (!d->image) return false;
    d->info.out_color_space = JCS_RGB;
    jpeg_start_decompress(&d->info);
    uint8_t *pixels = syz_data(d->image);
    while (d->info.output_scanline < d->info.output_height) {
        JSAMPROW row = pixels + (size_t)d->info.output_scanline * d->info.output_width * 3;
        jpeg_read_scanlines(&d->info, &row, 1);
    }
    jpeg_finish_decompress(&d->info);
    return true;
}

syz_tensor *syz_jpeg_decode(const uint8_t *data, size_t size, const char *name) {
    decoder d = {.image = NULL};
    set_handler(&d.handler, name);
    d.info.err = &d.handler.base;
    bool done = decode_image(&d, data, size);
    jpeg_destroy_decompress(&d.info);
    return done ? d.image : NULL;
}

/* ---- encoding ---------------------------------------------------------------------------------------------------- */

typedef struct {
    struct jpeg_compress_struct info;
    error_handler handler;
    unsigned char *data;
    unsigned long size;
} encoder;

static bool encode_image(encoder *e, const uint8_t *pixels, int width, int height, int quality) {
    if (setjmp(e->handler.jump)) return false;
    jpeg_create_compress(&e->info);
    jpeg_mem_dest(&e->info, &e->data, &e->size);
    e->info.image_width = (JDIMENSION)width;
    e->info.image_height = (JDIMENSION)height;
    e->info.input_components = 3;
    e->info.in_color_space = JCS_RGB;
    jpeg_set_defaults(&e->info);
    jpeg_set_quality(&e->info, quality, TRUE);
    jpeg_start_compress(&e->info, TRUE);
    while (e->info.next_scanline < e->info.image_height) {
        JSAMPROW row = (JSAMPROW)(uintptr_t)(pixels + (size_t)e->info.next_scanline * (size_t)width * 3);
        jpeg_write_scanlines(&e->info, &row, 1);
    }
    jpeg_finish_compress(&e->info);
    return true;
}

syz_status syz_jpeg_encode(uint8_t **data, size_t *size, const uint8_t *pixels, int width, int height, int quality) {
    encoder e = {.data = NULL};
    set_handler(&e.handler, "image");
    e.info.err = &e.handler.base;
    bool done = encode_image(&e, pixels, width, height, quality);
    jpeg_destroy_compress(&e.info);
    if (!done) {
        free(e.data);
        return syz_error_status();
    }
    *data = e.data;
    *size = e.size;
    return SYZ_OK;
}
