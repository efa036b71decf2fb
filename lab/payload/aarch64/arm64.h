/*
 * What start.S and the C files of arm64's payload have in common.
 */
#ifndef GMEM_LAB_ARM64_H
#define GMEM_LAB_ARM64_H

extern char ap_start[];         /* in start.S: where other processors begin */

/* machine.c; start.S calls both. */
void start(const void *fdt);
void exception(uint64_t syndrome, uint64_t pc, uint64_t at);

#endif
