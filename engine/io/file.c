#include "io/file.h"

#include "core/alloc.h"
#include "core/error.h"

#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <sanitizer/asan_interface.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* Open a regular file. O_NONBLOCK keeps a named pipe in a stranger's folder from blocking the open. */
static syz_status open_regular(int *fd, uint64_t *size, const char *path) {
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0) {
        return syz_fail(errno == ENOENT ? SYZ_ENOTFOUND : SYZ_EIO, "%s: cannot open: %s", path, strerror(errno));
    }
    struct stat info;
    if (fstat(*fd, &info) == 0 && S_ISREG(info.st_mode)) {
        *size = (uint64_t)info.st_size;
        return SYZ_OK;
    }
    close(*fd);
    return syz_fail(SYZ_EIO, "%s: not a regular file", path);
}

/* Read until `size` bytes or the end of the file; the count, or -1 with errno. */
static ssize_t read_full(int fd, uint8_t *data, size_t size) {
    size_t done = 0;
    while (done < size) {
        ssize_t n = read(fd, data + done, size - done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        if (n == 0) break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

syz_status syz_file_read(uint8_t **data, size_t *size, const char *path, size_t cap) {
    *data = NULL;
    *size = 0;
    if (syz_failed()) return syz_error_status();
    int fd;
    uint64_t length;
    SYZ_TRY(open_regular(&fd, &length, path));
    syz_status status = SYZ_OK;
    uint8_t *bytes = NULL;
    if (length > cap) {
        status =
            syz_fail(SYZ_EFORMAT, "%s: has %llu bytes, at most %zu are read", path, (unsigned long long)length, cap);
    } else if (!(bytes = syz_alloc((size_t)length + 1, 1))) {
        status = syz_error_status();
    } else {
        ssize_t n = read_full(fd, bytes, (size_t)length);
        if (n < 0) status = syz_fail(SYZ_EIO, "%s: cannot read: %s", path, strerror(errno));
        if (n >= 0 && (uint64_t)n != length) status = syz_fail(SYZ_EIO, "%s: shrank while it was read", path);
    }
    close(fd);
    if (status != SYZ_OK) {
        free(bytes);
        return status;
    }
    bytes[length] = 0;
    *data = bytes;
    *size = (size_t)length;
    return SYZ_OK;
}

/* The zeros between the end of a mapped file and the end of its page, which sanitizer builds make unreadable. */
static inline size_t last_page_rest(size_t size) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (page - size % page) % page;
}

syz_mapping *syz_file_map(const char *path) {
    if (syz_failed()) return NULL;
    syz_mapping *mapping = syz_alloc(1, sizeof *mapping);
    int fd;
    uint64_t size;
    if (!mapping || open_regular(&fd, &size, path) != SYZ_OK) {
        free(mapping);
        return NULL;
    }
    *mapping = (syz_mapping){.refs = 1, .size = (size_t)size};
    void *bytes = size ? mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, 0) : NULL;
    int error = errno;
    close(fd);
    if (bytes == MAP_FAILED) {
        free(mapping);
        return syz_fail_null(SYZ_EIO, "%s: cannot map: %s", path, strerror(error));
    }
    mapping->bytes = bytes;
    if (size) ASAN_POISON_MEMORY_REGION(mapping->bytes + size, last_page_rest(size));
    return mapping;
}

void syz_mapping_release(void *owner) {
    syz_mapping *mapping = owner;
    if (!mapping || --mapping->refs > 0) return;
    if (mapping->size) {
        ASAN_UNPOISON_MEMORY_REGION(mapping->bytes + mapping->size, last_page_rest(mapping->size));
        munmap(mapping->bytes, mapping->size);
    }
    free(mapping);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

struct syz_file_writer {
    int fd;
    bool failed;
    uint64_t reserved, written;
    char *path, *temporary, *folder;
};

static void free_writer(syz_file_writer *writer) {
    if (writer->fd >= 0) close(writer->fd);
    free(writer->path);
    free(writer->temporary);
    free(writer->folder);
    free(writer);
}

/* The folder that holds `path`, to be freed. */
static char *parent_folder(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return syz_strdup(".");
    return slash == path ? syz_strdup("/") : syz_format("%.*s", (int)(slash - path), path);
}

/* Give the file its blocks now. File systems that cannot are left alone: they report a full disk at the write. */
static syz_status reserve_space(syz_file_writer *writer, uint64_t bytes) {
    if (bytes == 0) return SYZ_OK;
    if (bytes > INT64_MAX) return syz_fail(SYZ_EINVAL, "%s: too large", writer->path);
    int error;
    do {
        error = fallocate(writer->fd, 0, 0, (off_t)bytes) == 0 ? 0 : errno;
    } while (error == EINTR);
    if (error == ENOSPC || error == EDQUOT || error == EFBIG || error == EIO) {
        return syz_fail(SYZ_EIO, "%s: cannot reserve %llu bytes: %s", writer->path, (unsigned long long)bytes,
                        strerror(error));
    }
    writer->reserved = error == 0 ? bytes : 0;
    return SYZ_OK;
}

syz_file_writer *syz_file_begin(const char *path, uint64_t reserve) {
    if (syz_failed()) return NULL;
    syz_file_writer *writer = syz_alloc(1, sizeof *writer);
    if (!writer) return NULL;
    writer->fd = -1;
    writer->path = syz_strdup(path);
    writer->folder = parent_folder(path);
    writer->temporary = syz_format("%s.tmp-XXXXXX", path);
    if (!writer->path || !writer->folder || !writer->temporary) {
        free_writer(writer);
        return NULL;
    }
    writer->fd = mkostemp(writer->temporary, O_CLOEXEC);
    if (writer->fd < 0) {
        syz_fail(errno == ENOENT ? SYZ_ENOTFOUND : SYZ_EIO, "%s: cannot create: %s", path, strerror(errno));
        free_writer(writer);
        return NULL;
    }
    /* mkostemp makes private files; give this one the permissions an ordinary new file has. */
    mode_t mask = umask(0);
    umask(mask);
    if (fchmod(writer->fd, 0666 & ~mask) != 0 || reserve_space(writer, reserve) != SYZ_OK) {
        syz_fail(SYZ_EIO, "%s: cannot create: %s", path, strerror(errno));
        syz_file_discard(writer);
        return NULL;
    }
    return writer;
}

syz_status syz_file_put(syz_file_writer *writer, const void *data, size_t size) {
    const uint8_t *bytes = data;
    for (size_t done = 0; done < size;) {
        ssize_t n = write(writer->fd, bytes + done, size - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            writer->failed = true;
            return syz_fail(SYZ_EIO, "%s: cannot write: %s", writer->path, n < 0 ? strerror(errno) : "nothing written");
        }
        done += (size_t)n;
        writer->written += (uint64_t)n;
    }
    return SYZ_OK;
}

/* Make a rename in this folder survive a power cut. */
static int sync_folder(const char *folder) {
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -1;
    int result = fsync(fd);
    if (result != 0 && errno == EINVAL) result = 0; /* a file system without folder sync */
    close(fd);
    return result;
}

syz_status syz_file_finish(syz_file_writer *writer) {
    if (writer->failed) return syz_fail(SYZ_EIO, "%s: not saved, an earlier write failed", writer->path);
    if (writer->fd < 0) return SYZ_OK;
    bool done = writer->reserved <= writer->written || ftruncate(writer->fd, (off_t)writer->written) == 0;
    done = done && fsync(writer->fd) == 0;
    if (done) {
        int fd = writer->fd;
        writer->fd = -1;
        done = close(fd) == 0;
    }
    if (done) return SYZ_OK;
    writer->failed = true;
    return syz_fail(SYZ_EIO, "%s: cannot save: %s", writer->path, strerror(errno));
}

syz_status syz_file_commit(syz_file_writer *writer) {
    syz_status status = syz_file_finish(writer);
    if (status == SYZ_OK && rename(writer->temporary, writer->path) != 0)
        status = syz_fail(SYZ_EIO, "%s: cannot save: %s", writer->path, strerror(errno));
    if (status != SYZ_OK) {
        syz_file_discard(writer);
        return status;
    }
    if (sync_folder(writer->folder) != 0)
        status = syz_fail(SYZ_EIO, "%s: cannot sync its folder: %s", writer->path, strerror(errno));
    free_writer(writer);
    return status;
}

syz_status syz_rename(const char *from, const char *to) {
    char *source = parent_folder(from), *target = parent_folder(to);
    syz_status status = source && target ? SYZ_OK : SYZ_ENOMEM;
    if (!status && rename(from, to) != 0) {
        status =
            syz_fail(errno == ENOENT ? SYZ_ENOTFOUND : SYZ_EIO, "%s: cannot become %s: %s", from, to, strerror(errno));
    }
    if (!status && (sync_folder(target) != 0 || (strcmp(source, target) != 0 && sync_folder(source) != 0))) {
        status = syz_fail(SYZ_EIO, "%s: cannot sync its folder: %s", to, strerror(errno));
    }
    free(source);
    free(target);
    return status;
}

void syz_file_discard(syz_file_writer *writer) {
    if (!writer) return;
    if (writer->temporary) unlink(writer->temporary);
    free_writer(writer);
}

syz_status syz_file_remove(const char *path) {
    char *folder = parent_folder(path);
    if (!folder) return syz_error_status();
    syz_status status = SYZ_OK;
    if (unlink(path) != 0) {
        if (errno != ENOENT) status = syz_fail(SYZ_EIO, "%s: cannot remove: %s", path, strerror(errno));
    } else if (sync_folder(folder) != 0) {
        status = syz_fail(SYZ_EIO, "%s: cannot sync its folder: %s", path, strerror(errno));
    }
    free(folder);
    return status;
}

syz_status syz_file_write(const char *path, const void *data, size_t size) {
    syz_file_writer *writer = syz_file_begin(path, size);
    if (!writer) return syz_error_status();
    syz_file_put(writer, data, size);
    return syz_file_commit(writer);
}

syz_status syz_make_folders(const char *path) {
    char *copy = syz_strdup(path);
    if (!copy) return syz_error_status();
    syz_status status = SYZ_OK;
    for (char *end = copy + 1; status == SYZ_OK && copy[0] && end[-1]; end++) {
        if (*end != '/' && *end != '\0') continue;
        char saved = *end;
        *end = '\0';
        int error = mkdir(copy, 0777) == 0 ? 0 : errno;
        struct stat info;
        if (error && !(stat(copy, &info) == 0 && S_ISDIR(info.st_mode))) {
            status = syz_fail(SYZ_EIO, "%s: cannot make the folder: %s", copy,
                              error == EEXIST ? "a file has that name" : strerror(error));
        }
        *end = saved;
    }
    free(copy);
    return status;
}

/* ---- SHA-256 ----------------------------------------------------------------------------------------------------- */

static void sum_text(char text[SYZ_SHA256_TEXT], struct sha256_ctx *sum) {
    uint8_t digest[SHA256_DIGEST_SIZE];
    sha256_digest(sum, sizeof digest, digest);
    for (size_t i = 0; i < sizeof digest; i++) {
        snprintf(text + 2 * i, 3, "%02x", digest[i]);
    }
}

void syz_sha256(char text[SYZ_SHA256_TEXT], const void *data, size_t size) {
    struct sha256_ctx sum;
    sha256_init(&sum);
    sha256_update(&sum, size, data);
    sum_text(text, &sum);
}

syz_status syz_sha256_file(char text[SYZ_SHA256_TEXT], const char *path) {
    text[0] = '\0';
    if (syz_failed()) return syz_error_status();
    int fd;
    uint64_t size;
    SYZ_TRY(open_regular(&fd, &size, path));
    struct sha256_ctx sum;
    sha256_init(&sum);
    uint8_t buffer[1 << 16];
    ssize_t n;
    while ((n = read_full(fd, buffer, sizeof buffer)) > 0) {
        sha256_update(&sum, (size_t)n, buffer);
    }
    syz_status status = n < 0 ? syz_fail(SYZ_EIO, "%s: cannot read: %s", path, strerror(errno)) : SYZ_OK;
    close(fd);
    if (status == SYZ_OK) sum_text(text, &sum);
    return status;
}
