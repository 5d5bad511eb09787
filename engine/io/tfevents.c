/* TensorBoard event files: TFRecord frames (length, masked CRC-32C, bytes, masked CRC-32C) around Event messages in the
 * protobuf wire format. One event is one write: a killed run leaves at most one torn record at the end, which the next
 * open cuts off. */
#include "core/alloc.h"
#include "core/error.h"
#include "io/file.h"
#include "tensor/tensor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_VERSION "brain.Event:2"

struct syz_events {
    char *path;
    int fd;
};

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

/* A message under construction. Running out of memory is remembered in `failed`, with the error pending. */
typedef struct {
    uint8_t *data;
    size_t size, capacity;
    bool failed;
} buffer;

static void put(buffer *b, const void *data, size_t size) {
    if (b->failed) return;
    if (size > b->capacity - b->size) {
        size_t capacity = 2 * b->capacity + size + 64;
        uint8_t *grown = syz_alloc(capacity, 1);
        b->failed = !grown;
        if (!grown) return;
        if (b->size) memcpy(grown, b->data, b->size);
        free(b->data);
        b->data = grown;
        b->capacity = capacity;
    }
    if (size) memcpy(b->data + b->size, data, size);
    b->size += size;
}

static void put_little_endian(buffer *b, uint64_t value, int bytes) {
    uint8_t data[8];
    for (int i = 0; i < bytes; i++)
        data[i] = (uint8_t)(value >> (8 * i));
    put(b, data, (size_t)bytes);
}

static void put_varint(buffer *b, uint64_t value) {
    uint8_t data[10];
    size_t n = 0;
    do {
        data[n++] = (uint8_t)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
        value >>= 7;
    } while (value);
    put(b, data, n);
}

/* Protobuf fields: a key of number and wire type, then the value. */
static void put_integer(buffer *b, int field, int64_t value) {
    put_varint(b, (uint64_t)field << 3 | 0);
    put_varint(b, (uint64_t)value);
}

static void put_double(buffer *b, int field, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_varint(b, (uint64_t)field << 3 | 1);
    put_little_endian(b, bits, 8);
}

static void put_bytes(buffer *b, int field, const void *data, size_t size) {
    put_varint(b, (uint64_t)field << 3 | 2);
    put_varint(b, size);
    put(b, data, size);
}

static void put_float(buffer *b, int field, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_varint(b, (uint64_t)field << 3 | 5);
    put_little_endian(b, bits, 4);
}

/* ---- records ----------------------------------------------------------------------------------------------------- */

/* CRC-32C (Castagnoli, reflected), four bits at a time. */
static uint32_t crc32c(const uint8_t *data, size_t size) {
    static const uint32_t table[16] = {
        0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
        0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
    };
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

static uint32_t masked_crc(const uint8_t *data, size_t size) {
    uint32_t crc = crc32c(data, size);
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static syz_status write_all(const syz_events *events, const uint8_t *data, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t n = write(events->fd, data + done, size - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            return syz_fail(SYZ_EIO, "%s: cannot write: %s", events->path, n < 0 ? strerror(errno) : "nothing written");
        }
        done += (size_t)n;
    }
    return SYZ_OK;
}

/* Frame the event, append it, and free the event. A record that could not be written whole is taken back, so that the
 * next one does not follow a torn one. */
static syz_status append_record(const syz_events *events, buffer *event) {
    buffer record = {.data = NULL};
    syz_status status;
    put_little_endian(&record, event->size, 8);
    if (!record.failed) put_little_endian(&record, masked_crc(record.data, 8), 4);
    if (!event->failed) put(&record, event->data, event->size);
    put_little_endian(&record, event->failed ? 0 : masked_crc(event->data, event->size), 4);
    if (event->failed || record.failed) {
        status = syz_error_status();
    } else {
        off_t before = lseek(events->fd, 0, SEEK_END);
        status = write_all(events, record.data, record.size);
        if (status != SYZ_OK && before >= 0 && ftruncate(events->fd, before) != 0) {
            syz_fail(SYZ_EIO, "%s: cannot take back a torn record: %s", events->path, strerror(errno));
        }
    }
    free(record.data);
    free(event->data);
    return status;
}

static uint64_t load(const uint8_t *data, int bytes) {
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; i--)
        value = value << 8 | data[i];
    return value;
}

/* The length of the whole, undamaged records at the start of the bytes. */
static size_t intact_size(const uint8_t *data, size_t size) {
    size_t at = 0;
    while (size - at >= 16) {
        uint64_t length = load(data + at, 8);
        if (load(data + at + 8, 4) != masked_crc(data + at, 8) || length > size - at - 16) break;
        if (load(data + at + 12 + length, 4) != masked_crc(data + at + 12, (size_t)length)) break;
        at += 16 + (size_t)length;
    }
    return at;
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

static buffer new_event(double wall_time, int64_t step) {
    buffer event = {.data = NULL};
    put_double(&event, 1, wall_time);
    put_integer(&event, 2, step);
    return event;
}

/* Wraps one Summary.Value into its Summary (field 5 of the event) and appends the event; frees `value`. */
static syz_status append_summary(syz_events *events, buffer *value, int64_t step, double wall_time) {
    buffer summary = {.data = NULL}, event = new_event(wall_time, step);
    if (!value->failed) put_bytes(&summary, 1, value->data, value->size);
    if (!summary.failed) put_bytes(&event, 5, summary.data, summary.size);
    event.failed = event.failed || summary.failed || value->failed;
    free(value->data);
    free(summary.data);
    return append_record(events, &event);
}

syz_status syz_events_scalar(syz_events *events, const char *tag, int64_t step, double value, double wall_time) {
    if (syz_failed()) return syz_error_status();
    buffer message = {.data = NULL};
    put_bytes(&message, 1, tag, strlen(tag));
    put_float(&message, 2, (float)value);
    return append_summary(events, &message, step, wall_time);
}

syz_status syz_events_image(syz_events *events, const char *tag, int64_t step, const syz_tensor *image,
                            double wall_time) {
    uint8_t *png;
    size_t size;
    SYZ_TRY(syz_image_encode(&png, &size, image, 0));
    buffer message = {.data = NULL}, picture = {.data = NULL};
    put_integer(&picture, 1, image->shape.dim[0]);
    put_integer(&picture, 2, image->shape.dim[1]);
    put_integer(&picture, 3, 3); /* RGB */
    put_bytes(&picture, 4, png, size);
    free(png);
    put_bytes(&message, 1, tag, strlen(tag));
    if (!picture.failed) put_bytes(&message, 4, picture.data, picture.size);
    message.failed = message.failed || picture.failed;
    free(picture.data);
    return append_summary(events, &message, step, wall_time);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* Cut a torn end off an existing file; refuse to touch one that is not an event file. */
static syz_status repair(syz_events *events, bool *is_new) {
    syz_mapping *file = syz_file_map(events->path);
    if (!file) return syz_error_status();
    *is_new = file->size == 0;
    size_t intact = intact_size(file->bytes, file->size);
    syz_status status = SYZ_OK;
    if (!*is_new &&
        (intact == 0 || !memmem(file->bytes, intact < 64 ? intact : 64, FILE_VERSION, strlen(FILE_VERSION)))) {
        status = syz_fail(SYZ_EFORMAT, "%s: exists and is not a TensorBoard event file", events->path);
    } else if (intact < file->size && ftruncate(events->fd, (off_t)intact) != 0) {
        status = syz_fail(SYZ_EIO, "%s: cannot cut off its torn end: %s", events->path, strerror(errno));
    }
    syz_mapping_release(file);
    return status;
}

syz_events *syz_events_open(const char *path, double wall_time) {
    if (syz_failed()) return NULL;
    syz_events *events = syz_alloc(1, sizeof *events);
    if (!events) return NULL;
    events->fd = -1;
    events->path = syz_strdup(path);
    if (events->path) events->fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666);
    bool is_new = false;
    if (events->path && events->fd < 0) {
        syz_fail(errno == ENOENT ? SYZ_ENOTFOUND : SYZ_EIO, "%s: cannot open: %s", path, strerror(errno));
    } else if (events->path && repair(events, &is_new) == SYZ_OK && is_new) {
        buffer event = {.data = NULL};
        put_double(&event, 1, wall_time);
        put_bytes(&event, 3, FILE_VERSION, strlen(FILE_VERSION));
        append_record(events, &event);
    }
    if (!syz_failed()) return events;
    syz_events_close(events);
    return NULL;
}

void syz_events_close(syz_events *events) {
    if (!events) return;
    if (events->fd >= 0) close(events->fd);
    free(events->path);
    free(events);
}
