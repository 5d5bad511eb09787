/* What a plain scalar means in the core schema of YAML 1.2; the reader and the emitter must agree on it. */
#ifndef SYZ_IO_YAML_SCALAR_H
#define SYZ_IO_YAML_SCALAR_H

typedef enum {
    SYZ_YAML_STRING,
    SYZ_YAML_NULL,
    SYZ_YAML_TRUE,
    SYZ_YAML_FALSE,
    SYZ_YAML_INT,        /* decimal, with an optional sign */
    SYZ_YAML_OCTAL,      /* 0o17 */
    SYZ_YAML_HEX,        /* 0x1F */
    SYZ_YAML_FLOAT,      /* as strtod reads it */
    SYZ_YAML_NOT_FINITE, /* .inf, .nan */
} syz_yaml_kind;

syz_yaml_kind syz_yaml_classify(const char *text);

#endif
