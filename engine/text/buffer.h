/* Text that grows, and characters of UTF-8. */
#ifndef SYZ_TEXT_BUFFER_H
#define SYZ_TEXT_BUFFER_H

#include "syzygy.h"

/* Zero to begin with. After a failed growth it takes nothing more, and syz_buffer_take() reports it. */
typedef struct {
    char *text;
    size_t n, room;
    bool failed;
} syz_buffer;

void syz_buffer_reserve(syz_buffer *buffer, size_t more);
void syz_buffer_put(syz_buffer *buffer, const char *text, size_t n);
void syz_buffer_put_char(syz_buffer *buffer, int32_t c);
void syz_buffer_free(syz_buffer *buffer);
/* Hands the text over, with a NUL behind its `*n` bytes; free() it. SYZ_ENOMEM. */
syz_status syz_buffer_take(syz_buffer *buffer, char **text, size_t *n);

/* SYZ_EINVAL, with byte and offset, if text[0..n) is not UTF-8. */
syz_status syz_utf8_check(const char *text, size_t n);
/* The character at `at`, and how many bytes it takes: at least 1, so that a scan over bad bytes (-1) still ends. */
int32_t syz_utf8_next(size_t *size, const char *text, size_t at, size_t n);
/* White_Space as in Unicode, and as in Rust. */
bool syz_is_space(int32_t c);

#endif
