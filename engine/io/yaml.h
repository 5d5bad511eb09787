/* YAML for configurations: one document of maps, sequences and scalars, as jansson values.
 *
 * Plain scalars follow the core schema of YAML 1.2 (`yes` is text, `1e-5` a number). Keys are text. Not accepted:
 * aliases, duplicate keys, tags other than !!str, NaN and infinity, more than 1 MiB or 64 levels. */
#ifndef SYZ_IO_YAML_H
#define SYZ_IO_YAML_H

#include "syzygy.h"

#include <jansson.h>

#define SYZ_YAML_MAX_BYTES ((size_t)1 << 20)
#define SYZ_YAML_MAX_DEPTH 64

/* A new reference, or NULL; an empty document is null. `name` is the file to blame in the error message. */
json_t *syz_yaml_parse(const char *text, size_t size, const char *name);
json_t *syz_yaml_load(const char *path);

/* Block-style text that parses back to an equal value; the caller frees it. */
char *syz_yaml_emit(const json_t *value);

#endif
