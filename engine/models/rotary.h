/* Tables of rotary positions, kept for ids that come again: they depend on the image's size alone, and making them
 * takes the CPU milliseconds in which a GPU would wait. */
#ifndef SYZ_MODELS_ROTARY_H
#define SYZ_MODELS_ROTARY_H

#include "tensor/tensor.h"

enum { SYZ_ROTARY_KEPT = 4 };

typedef struct {
    float *ids; /* numel values: what the tables were made of; NULL: this place is free */
    int64_t numel;
    int device;
    uint64_t used;         /* when they were last asked for */
    syz_tensor *tables[2]; /* cosines and sines, retained */
} syz_rotary_entry;

/* Zeroed at first. */
typedef struct {
    syz_rotary_entry entries[SYZ_ROTARY_KEPT];
    uint64_t clock;
    uint64_t dropped; /* how often tables were freed to make room: whoever kept their address looks at this */
} syz_rotary;

/* rotation[0] cosines and rotation[1] sines [T, D/2] on the current device, as syz_rope_table() makes them of ids f32
 * [T,axes] on the CPU; of those that were used last, SYZ_ROTARY_KEPT are kept. */
syz_status syz_rotary_tables(syz_rotary *kept, syz_tensor *rotation[2], syz_tensor *ids, const int64_t *axes_dims,
                             int axes, double theta);
void syz_rotary_clear(syz_rotary *kept);

#endif
