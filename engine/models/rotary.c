#include "models/rotary.h"
#include "core/alloc.h"

#include <stdlib.h>
#include <string.h>

static void clear_entry(syz_rotary_entry *entry) {
    free(entry->ids);
    syz_release(entry->tables[0]);
    syz_release(entry->tables[1]);
    *entry = (syz_rotary_entry){0};
}

void syz_rotary_clear(syz_rotary *kept) {
    for (int k = 0; k < SYZ_ROTARY_KEPT; k++)
        clear_entry(&kept->entries[k]);
}

static syz_rotary_entry *find(syz_rotary *kept, const syz_tensor *ids) {
    for (int k = 0; k < SYZ_ROTARY_KEPT; k++) {
        syz_rotary_entry *entry = &kept->entries[k];
        if (entry->ids && entry->numel == syz_numel(ids) && entry->device == syz_device_current() &&
            memcmp(entry->ids, syz_f32(ids), syz_nbytes(ids)) == 0)
            return entry;
    }
    return NULL;
}

/* A free place, or that of the tables whose last use is longest ago, emptied. */
static syz_rotary_entry *make_room(syz_rotary *kept) {
    syz_rotary_entry *oldest = &kept->entries[0];
    for (int k = 1; k < SYZ_ROTARY_KEPT; k++)
        if (kept->entries[k].used < oldest->used) oldest = &kept->entries[k];
    if (oldest->ids) kept->dropped++;
    clear_entry(oldest);
    return oldest;
}

static syz_status make(syz_rotary_entry *entry, const syz_tensor *ids, const int64_t *axes_dims, int axes,
                       double theta) {
    syz_tensor *tables[2];
    SYZ_TRY(syz_rope_table(&tables[0], &tables[1], ids, axes_dims, axes, theta));
    float *values = syz_alloc((size_t)syz_numel(ids), sizeof *values);
    if (!values) return SYZ_ENOMEM;
    memcpy(values, syz_f32(ids), syz_nbytes(ids));
    *entry = (syz_rotary_entry){.ids = values, .numel = syz_numel(ids), .device = syz_device_current()};
    for (int k = 0; k < 2; k++)
        entry->tables[k] = syz_retain(tables[k]);
    return SYZ_OK;
}

syz_status syz_rotary_tables(syz_rotary *kept, syz_tensor *rotation[2], syz_tensor *ids, const int64_t *axes_dims,
                             int axes, double theta) {
    if (syz_failed()) return syz_error_status();
    SYZ_TRY(syz_scope_push());
    syz_rotary_entry *entry = find(kept, ids);
    if (!entry) {
        entry = make_room(kept);
        make(entry, ids, axes_dims, axes, theta);
    }
    syz_scope_pop();
    if (syz_failed()) return syz_error_status();
    entry->used = ++kept->clock;
    for (int k = 0; k < 2; k++)
        if (!(rotation[k] = syz_alias(entry->tables[k]))) return syz_error_status();
    return SYZ_OK;
}
