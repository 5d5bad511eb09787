/* Floating-point operations that were done, by whose work they are.
 *
 * Counted are matrix products, convolutions and attention, forward and backward, with what checkpointing repeats: two
 * for each multiply-add, as papers count. A meter belongs to a model; meter 0 takes what no model does. */
#ifndef SYZ_CORE_FLOPS_H
#define SYZ_CORE_FLOPS_H

enum { SYZ_METERS = 64 };

int syz_meter_take(void); /* a meter at 0; the shared meter 0 when all are taken */
void syz_meter_return(int meter);
/* What is counted from now on goes to this meter; returns the one it went to before. */
int syz_meter_swap(int meter);
int syz_meter_current(void);
double syz_meter_read(int meter);

void syz_flops_count(double flops);

#endif
