#include "counts.h"

emu_counts emu_counted;
unsigned emu_lazy_streams;
