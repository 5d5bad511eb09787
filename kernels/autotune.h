/* Products of the CUDA backend, timed. */
#ifndef SYZ_AUTOTUNE_H
#define SYZ_AUTOTUNE_H

#ifdef __cplusplus
extern "C" {
#endif

/* From now on the first product of each shape times the eight algorithms that cuBLASLt proposes and keeps the fastest,
 * here and in the file at `path`, where later processes find it; NULL: no longer. The environment variable
 * SYZ_AUTOTUNE=path does the same from the first product on. Products inside a captured graph are not timed.
 *
 * The file has a line for each device, version of cuBLASLt, shape and alignment. It is replaced as a whole; lines that
 * are torn, or that another device or version wrote, do no harm, and processes that write at the same time may lose
 * each other's newest lines, no more. Returns 0, or -1 when the file cannot be written (errno says why): then nothing
 * is timed. */
int syz_cuda_autotune(const char *path);

#ifdef __cplusplus
}
#endif

#endif
