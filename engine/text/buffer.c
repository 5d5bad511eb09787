#include "text/buffer.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "core/alloc.h"
#include "core/error.h"

void syz_buffer_reserve(syz_buffer *buffer, size_t more) {
    if (buffer->failed || buffer->room - buffer->n > more) return;
    size_t room = buffer->n + more + buffer->room / 2 + 64;
    char *text = syz_alloc(room, 1);
    if (!text) {
        buffer->failed = true;
        return;
    }
    if (buffer->n > 0) memcpy(text, buffer->text, buffer->n);
    free(buffer->text);
    buffer->text = text;
    buffer->room = room;
}

void syz_buffer_put(syz_buffer *buffer, const char *text, size_t n) {
    syz_buffer_reserve(buffer, n);
    if (buffer->failed || n == 0) return;
    memcpy(buffer->text + buffer->n, text, n);
    buffer->n += n;
}

void syz_buffer_put_char(syz_buffer *buffer, int32_t c) {
    utf8proc_uint8_t bytes[4];
    syz_buffer_put(buffer, (char *)bytes, (size_t)utf8proc_encode_char(c, bytes));
}

void syz_buffer_free(syz_buffer *buffer) {
    free(buffer->text);
    *buffer = (syz_buffer){0};
}

syz_status syz_buffer_take(syz_buffer *buffer, char **text, size_t *n) {
    *text = NULL;
    syz_buffer_put(buffer, "", 1);
    if (buffer->failed) {
        syz_buffer_free(buffer);
        return SYZ_ENOMEM;
    }
    *text = buffer->text;
    *n = buffer->n - 1;
    *buffer = (syz_buffer){0};
    return SYZ_OK;
}

int32_t syz_utf8_next(size_t *size, const char *text, size_t at, size_t n) {
    utf8proc_int32_t c = (unsigned char)text[at];
    *size = 1;
    if (c < 0x80) return c;
    utf8proc_ssize_t used = utf8proc_iterate((const utf8proc_uint8_t *)text + at, (utf8proc_ssize_t)(n - at), &c);
    if (used <= 0) return -1;
    *size = (size_t)used;
    return c;
}

syz_status syz_utf8_check(const char *text, size_t n) {
    for (size_t at = 0, size; at < n; at += size)
        if (syz_utf8_next(&size, text, at, n) < 0)
            return syz_fail(SYZ_EINVAL, "text is not UTF-8 (byte 0x%02x at offset %zu)", text[at] & 0xff, at);
    return SYZ_OK;
}

bool syz_is_space(int32_t c) {
    return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}
