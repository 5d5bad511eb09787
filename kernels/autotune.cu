#include "kernels/autotune.h"
#include "kernels/cublaslt.cuh"

#include <errno.h>
#include <map>
#include <mutex>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

namespace {

/* A line is `checksum algorithm key`: 16 and 2 * 64 hexadecimal digits, and a word. The checksum is of what follows it,
 * so that a torn line is no line. */
struct {
    std::mutex mutex;
    bool asked; /* whether the environment was read */
    std::string path;
    std::map<std::string, std::string> algorithm; /* of a key, as digits */
} tuned;

constexpr size_t SUM = 16, DIGITS = 2 * sizeof(cublasLtMatmulAlgo_t), LINE = 4096;

std::string checksum(const std::string &text) {
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (unsigned char c : text)
        hash = (hash ^ c) * 1099511628211u;
    char digits[SUM + 1];
    snprintf(digits, sizeof digits, "%016llx", (unsigned long long)hash);
    return digits;
}

std::string line_of(const std::string &key, const std::string &digits) {
    std::string text = digits + " " + key;
    return checksum(text) + " " + text;
}

/* Adds the lines of the file, unless they are known already. A file that cannot be read has none. */
void read_lines(const std::string &path) {
    FILE *file = fopen(path.c_str(), "r");
    if (!file) return;
    char buffer[LINE];
    while (fgets(buffer, sizeof buffer, file)) {
        std::string line = buffer;
        if (line.size() < SUM + DIGITS + 4 || line.back() != '\n') continue;
        line.pop_back();
        std::string digits = line.substr(SUM + 1, DIGITS), key = line.substr(SUM + DIGITS + 2);
        if (line == line_of(key, digits)) tuned.algorithm.emplace(key, digits);
    }
    fclose(file);
}

/* A new file in the place of the old one, with what others have added to that since. */
bool write_lines() {
    read_lines(tuned.path);
    std::string aside = tuned.path + "." + std::to_string((long long)getpid());
    FILE *file = fopen(aside.c_str(), "w");
    if (!file) return false;
    bool written = true;
    for (const auto &entry : tuned.algorithm)
        written = written && fprintf(file, "%s\n", line_of(entry.first, entry.second).c_str()) > 0;
    written = fclose(file) == 0 && written && rename(aside.c_str(), tuned.path.c_str()) == 0;
    int reason = errno;
    if (!written) remove(aside.c_str());
    errno = reason;
    return written;
}

int begin(const char *path) {
    tuned.asked = true;
    tuned.algorithm.clear();
    tuned.path = path ? path : "";
    if (!path || write_lines()) return 0;
    tuned.path.clear();
    return -1;
}

/* Called with the lock held. */
bool on() {
    if (tuned.asked) return !tuned.path.empty();
    const char *path = getenv("SYZ_AUTOTUNE");
    if (begin(path && *path ? path : nullptr) != 0)
        fprintf(stderr, "SYZ_AUTOTUNE: %s cannot be written (%s): products are not timed\n", path, strerror(errno));
    return !tuned.path.empty();
}

} // namespace

int syz_cuda_autotune(const char *path) {
    std::lock_guard<std::mutex> lock(tuned.mutex);
    return begin(path);
}

bool syz_cuda::autotune_on() {
    std::lock_guard<std::mutex> lock(tuned.mutex);
    return on();
}

bool syz_cuda::autotune_find(const std::string &key, cublasLtMatmulAlgo_t *algo) {
    std::lock_guard<std::mutex> lock(tuned.mutex);
    auto found = tuned.algorithm.find(key);
    if (found == tuned.algorithm.end()) return false;
    unsigned char bytes[sizeof *algo];
    for (size_t k = 0; k < sizeof bytes; k++)
        bytes[k] = (unsigned char)strtoul(found->second.substr(2 * k, 2).c_str(), nullptr, 16);
    memcpy(algo, bytes, sizeof bytes);
    return true;
}

void syz_cuda::autotune_keep(const std::string &key, const cublasLtMatmulAlgo_t &algo) {
    std::lock_guard<std::mutex> lock(tuned.mutex);
    unsigned char bytes[sizeof algo];
    memcpy(bytes, &algo, sizeof bytes);
    std::string digits;
    for (unsigned char byte : bytes) {
        char two[3];
        snprintf(two, sizeof two, "%02x", byte);
        digits += two;
    }
    tuned.algorithm[key] = digits;
    if (on()) write_lines(); /* a full disk later on costs the file, not the run */
}
