/* What the emulated CUDA runtime was asked for, for tests that pin it. Plain C. */
#ifndef SYZ_EMU_COUNTS_H
#define SYZ_EMU_COUNTS_H

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    long from_host, to_host; /* copies */
    long waits;              /* for a stream, an event that has not happened by itself, or a device */
    long kernels;            /* launches and library calls, those inside a graph not counted */
    long graphs;             /* launched */
} emu_counts;

extern emu_counts emu_counted;

/* Which streams put off what they are given until somebody waits for it: those that are made from now on, by number of
 * their making on a device (0, 1); a set bit is a lazy stream. What reads another stream's result without waiting for
 * it then finds NaN. */
extern unsigned emu_lazy_streams;

#ifdef __cplusplus
}
#endif

#endif
