/* Character references of HTML, as Python's html.unescape and ftfy read them; names are those of HTML 4. */
#ifndef SYZ_TEXT_ENTITIES_H
#define SYZ_TEXT_ENTITIES_H

#include "syzygy.h"

/* The reference that text[0..n), which begins with '&', begins with: its length, 0 if it is none. `*code` is the
 * character, -1 for a number that stands for nothing. Leniently: without semicolons too. */
size_t syz_entity(const char *text, size_t n, bool leniently, int32_t *code);

/* What a C1 control character means in Windows-1252; any other character itself. */
int32_t syz_windows_code(int32_t c);

#endif
