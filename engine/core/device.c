#include "core/device.h"
#include "core/alloc.h"
#include "kernels/device.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { DEVICES = 16 };

static const char *const tag_names[] = {
#define SYZ_TAG(symbol, text) text,
    SYZ_MEMORY_TAGS(SYZ_TAG)
#undef SYZ_TAG
};

static struct {
    size_t live[SYZ_MEMORY_TAG_COUNT], at_peak[SYZ_MEMORY_TAG_COUNT]; /* bytes by use: now, and when most was in use */
    size_t total, peak, limit;
} use[DEVICES + 1];

static _Thread_local int current, selected;
static _Thread_local syz_memory_tag current_tag;

/* NULL in a build without CUDA. */
static const syz_device_backend *backend(void) {
#ifdef SYZ_CUDA
    return &syz_cuda_backend;
#else
    return NULL;
#endif
}

/* ---- settings of the thread ---- */

syz_memory_tag syz_memory_tag_swap(syz_memory_tag tag) {
    syz_memory_tag before = current_tag;
    current_tag = tag;
    return before;
}

syz_memory_tag syz_memory_tag_current(void) {
    return current_tag;
}

int syz_device_swap(int device) {
    int before = current;
    current = device;
    return before;
}

syz_status syz_set_device(int device) {
    SYZ_TRY(syz_device_check(device));
    current = device;
    return SYZ_OK;
}

int syz_device_current(void) {
    return current;
}

/* ---- devices ---- */

/* Devices do not come and go while a process runs, and asking takes a millisecond. */
int syz_device_count(void) {
    static int known;
    if (known == 0 && backend()) known = backend()->count();
    return known < DEVICES ? known : DEVICES;
}

const char *syz_device_text(int device) {
    static _Thread_local char text[4][20];
    static _Thread_local unsigned turn;
    if (device == 0) return "the CPU";
    char *to = text[turn++ % 4];
    snprintf(to, sizeof text[0], "cuda:%d", device - 1);
    return to;
}

syz_status syz_device_check(int device) {
    if (device == 0) return SYZ_OK;
    if (!backend())
        return syz_fail(SYZ_EUNSUPPORTED, "%s: this build has no CUDA: configure it with `cmake --preset cuda`",
                        syz_device_text(device));
    int count = syz_device_count();
    if (count == 0) return syz_fail(SYZ_EUNSUPPORTED, "%s: %s", syz_device_text(device), backend()->text());
    if (device < 0 || device > count)
        return syz_fail(SYZ_EINVAL, "there is no device %s: this machine has cuda:0 to cuda:%d",
                        syz_device_text(device), count - 1);
    return SYZ_OK;
}

syz_status syz_device_parse(int *device, const char *name) {
    int number = 0, end = 0;
    *device = 0;
    if (strcmp(name, "cpu") == 0) return SYZ_OK;
    bool numbered = sscanf(name, "cuda:%d%n", &number, &end) == 1 && name[end] == '\0' && number >= 0;
    if (!numbered && strcmp(name, "cuda") != 0)
        return syz_fail(SYZ_EINVAL, "unknown device \"%s\": cpu, cuda, or cuda: and a number", name);
    SYZ_TRY(syz_device_check(number + 1));
    *device = number + 1;
    return SYZ_OK;
}

syz_status syz_device_select(int device) {
    if (device == 0 || device == selected) return SYZ_OK;
    SYZ_TRY(syz_device_check(device));
    if (backend()->select(device) != 0)
        return syz_fail(SYZ_EINTERNAL, "%s cannot be used: %s", syz_device_text(device), backend()->text());
    selected = device;
    return SYZ_OK;
}

const syz_backend *syz_device_kernels(int device, syz_dtype real) {
    if (device == 0 || !backend()) return &syz_cpu;
    return real == SYZ_BF16 ? backend()->bf16 : backend()->f32;
}

syz_status syz_synchronize(void) {
    for (int device = 1; device <= syz_device_count(); device++)
        if (use[device].total && backend()->synchronize(device) != 0)
            return syz_fail(SYZ_EINTERNAL, "%s: %s", syz_device_text(device), backend()->text());
    return SYZ_OK;
}

/* ---- memory ---- */

/* What helps against memory that is used for this. */
static const char *const remedies[] = {
    [SYZ_MEMORY_ACTIVATIONS] = "memory = \"checkpoint\", a smaller batch or smaller images",
    [SYZ_MEMORY_WEIGHTS] = "a pipeline with dtype = \"bf16\"",
    [SYZ_MEMORY_GRADIENTS] = "LoRA",
    [SYZ_MEMORY_OPTIMIZER] = "moments = \"8bit\" or \"host\", or LoRA",
};

typedef struct {
    char text[24];
} amount;

static amount amount_of(size_t bytes) {
    amount a;
    bool large = bytes >= (size_t)1 << 30;
    snprintf(a.text, sizeof a.text, "%.2f %s", (double)bytes / (large ? 0x1p30 : 0x1p20), large ? "GiB" : "MiB");
    return a;
}

/* Uses, the largest first. */
static void sort_uses(int order[SYZ_MEMORY_TAG_COUNT], const size_t *bytes) {
    for (int n = 0; n < SYZ_MEMORY_TAG_COUNT; n++) {
        int at = n;
        for (; at > 0 && bytes[order[at - 1]] < bytes[n]; at--)
            order[at] = order[at - 1];
        order[at] = n;
    }
}

/* `used` bytes of `size` are written already. */
static size_t append(char *text, size_t size, size_t used, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int added = used < size ? vsnprintf(text + used, size - used, format, arguments) : 0;
    va_end(arguments);
    return used + (size_t)(added > 0 ? added : 0);
}

static syz_status no_memory(int device, size_t bytes) {
    const size_t *live = use[device].live;
    char uses[256] = "", help[256] = "";
    int order[SYZ_MEMORY_TAG_COUNT];
    size_t unused = 0, total = 0, written = 0, advised = 0, held = use[device].total, limit = use[device].limit;
    backend()->memory(device, &unused, &total);
    size_t busy = total - unused > held ? total - unused : held;
    sort_uses(order, live);
    for (int n = 0; n < SYZ_MEMORY_TAG_COUNT; n++) {
        size_t part = live[order[n]];
        if (part == 0) continue;
        written = append(uses, sizeof uses, written, "%s %s, ", tag_names[order[n]], amount_of(part).text);
        if (part >= held / 8)
            advised = append(help, sizeof help, advised, "%s%s", advised ? "; " : "", remedies[order[n]]);
    }
    append(uses, sizeof uses, written, "other %s", amount_of(busy - held).text);
    return syz_fail(SYZ_ENOMEM, "out of memory on %s: %s asked, %s of %s in use (%s); what helps: %s",
                    syz_device_text(device), amount_of(bytes).text, amount_of(limit ? held : busy).text,
                    amount_of(limit ? limit : total).text, uses, advised ? help : "a smaller batch or smaller images");
}

syz_status syz_kernel_failed(int device, const char *format, ...) {
    char what[512];
    va_list arguments;
    if (syz_failed()) return syz_error_status();
    if (device && backend()->lacking()) return no_memory(device, backend()->lacking());
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    return syz_fail(SYZ_EINTERNAL, "%s failed in its kernel%s%s", what, device ? ": " : "",
                    device ? backend()->text() : "");
}

void *syz_device_allocate(int device, size_t bytes, syz_memory_tag tag) {
    if (syz_device_select(device) != SYZ_OK) return NULL;
    bool over = use[device].limit && use[device].total + bytes > use[device].limit;
    void *memory = over || syz_fault_hits() ? NULL : backend()->allocate(device, bytes);
    if (!memory) return no_memory(device, bytes), NULL;
    use[device].live[tag] += bytes;
    use[device].total += bytes;
    if (use[device].total > use[device].peak) {
        use[device].peak = use[device].total;
        memcpy(use[device].at_peak, use[device].live, sizeof use[device].live);
    }
    return memory;
}

void syz_device_release(int device, void *memory, size_t bytes, syz_memory_tag tag) {
    if (!memory) return;
    backend()->release(device, memory);
    use[device].live[tag] -= bytes;
    use[device].total -= bytes;
}

void syz_device_retag(int device, size_t bytes, syz_memory_tag from, syz_memory_tag to) {
    use[device].live[from] -= bytes;
    use[device].live[to] += bytes;
}

void syz_device_trim(void) {
    for (int device = 1; device <= DEVICES; device++)
        if (use[device].peak) backend()->trim(device);
}

void *syz_pinned_allocate(size_t bytes) {
    void *memory = syz_fault_hits() ? NULL : backend()->pin(bytes ? bytes : 1);
    if (memory) return memory;
    return syz_fail_null(SYZ_ENOMEM, "out of pinned memory of the host: %.2f GiB asked", (double)bytes / 0x1p30);
}

void syz_pinned_release(void *memory) {
    syz_synchronize();
    backend()->unpin(memory);
}

syz_status syz_device_memory(int device, syz_device_use *report) {
    *report = (syz_device_use){0};
    SYZ_TRY(syz_device_check(device));
    if (device == 0) return syz_fail(SYZ_EINVAL, "the memory of the CPU is reported by syz_memory_stats()");
    report->live = use[device].total;
    report->peak = use[device].peak;
    backend()->memory(device, &report->unused, &report->total);
    if (use[device].limit) {
        size_t left = use[device].limit > use[device].total ? use[device].limit - use[device].total : 0;
        if (left < report->unused) report->unused = left;
    }
    for (int tag = 0; tag < SYZ_MEMORY_TAG_COUNT; tag++) {
        report->uses[tag].name = tag_names[tag];
        report->uses[tag].live = use[device].live[tag];
        report->uses[tag].at_peak = use[device].at_peak[tag];
    }
    return SYZ_OK;
}

void syz_device_reset_peak(int device) {
    use[device].peak = use[device].total;
    memcpy(use[device].at_peak, use[device].live, sizeof use[device].live);
}

void syz_device_limit(int device, size_t bytes) {
    if (device > 0 && device <= DEVICES) use[device].limit = bytes;
}

syz_status syz_device_copy(void *to, int to_device, const void *from, int from_device, size_t bytes) {
    if (bytes == 0) return SYZ_OK;
    if (to_device == 0 && from_device == 0) {
        memcpy(to, from, bytes);
        return SYZ_OK;
    }
    SYZ_TRY(syz_device_select(to_device ? to_device : from_device));
    if (backend()->copy(to, to_device, from, from_device, bytes) == 0) return SYZ_OK;
    return syz_fail(SYZ_EINTERNAL, "copying %zu bytes from %s to %s failed: %s", bytes, syz_device_text(from_device),
                    syz_device_text(to_device), backend()->text());
}

syz_status syz_device_zero(int device, void *memory, size_t bytes) {
    if (bytes == 0) return SYZ_OK;
    if (device == 0) {
        memset(memory, 0, bytes);
        return SYZ_OK;
    }
    SYZ_TRY(syz_device_select(device));
    if (backend()->zero(device, memory, bytes) == 0) return SYZ_OK;
    return syz_fail(SYZ_EINTERNAL, "clearing %zu bytes of %s failed: %s", bytes, syz_device_text(device),
                    backend()->text());
}

/* ---- recordings ---- */

syz_status syz_device_record(int device) {
    SYZ_TRY(syz_device_select(device));
    if (backend()->record_begin(device) == 0) return SYZ_OK;
    return syz_fail(SYZ_EINTERNAL, "%s cannot record: %s", syz_device_text(device), backend()->text());
}

void *syz_device_recorded(int device) {
    void *recording = backend()->record_end(device);
    if (recording || syz_failed()) return recording;
    return syz_fail_null(SYZ_EINTERNAL, "%s could not record: %s", syz_device_text(device), backend()->text());
}

syz_status syz_device_replay(int device, void *recording) {
    SYZ_TRY(syz_device_select(device));
    if (backend()->replay(device, recording) == 0) return SYZ_OK;
    return syz_fail(SYZ_EINTERNAL, "%s could not repeat its recorded work: %s", syz_device_text(device),
                    backend()->text());
}

void syz_device_forget(int device, void *recording) {
    if (recording) backend()->forget(device, recording);
}

/* ---- the second stream ---- */

syz_status syz_stream_fork(int device) {
    SYZ_TRY(syz_device_select(device));
    if (backend()->fork(device) == 0) return syz_error_status();
    return syz_fail(SYZ_EINTERNAL, "%s has no second stream: %s", syz_device_text(device), backend()->text());
}

void syz_stream_back(int device) {
    backend()->back(device);
}

syz_status syz_stream_join(int device) {
    if (backend()->join(device) == 0) return syz_error_status();
    return syz_fail(SYZ_EINTERNAL, "%s cannot join its streams: %s", syz_device_text(device), backend()->text());
}

/* ---- what there is ---- */

void syz_cuda_status(syz_cuda_report *report) {
    *report = (syz_cuda_report){0};
    if (!backend()) return;
    syz_device_libraries found = backend()->libraries();
    *report = (syz_cuda_report){.built = true,
                                .driver = found.driver,
                                .runtime = found.runtime,
                                .cudnn = found.cudnn,
                                .nccl = found.nccl,
                                .devices = syz_device_count()};
    if (report->devices == 0) snprintf(report->problem, sizeof report->problem, "%s", backend()->text());
}

syz_status syz_device_describe(int device, syz_device_info *info) {
    syz_device_description found;
    *info = (syz_device_info){0};
    SYZ_TRY(syz_device_check(device));
    if (device == 0) return syz_fail(SYZ_EINVAL, "the CPU is described by core.machine()");
    if (backend()->describe(device, &found) != 0)
        return syz_fail(SYZ_EINTERNAL, "%s: %s", syz_device_text(device), backend()->text());
    snprintf(info->name, sizeof info->name, "%s", found.name);
    info->compute = found.compute;
    info->memory = found.memory;
    return SYZ_OK;
}
