/*
 * What the x86-64 parts of the payload have in common, assembly included.
 */
#ifndef GMEM_LAB_X86_H
#define GMEM_LAB_X86_H

#include "limits.h"

#define AP_STACK_SIZE 16384
#define TRAMPOLINE 0x8000       /* where the other processors start, and wake */
#define RESUME_INFO 0x9000      /* the start info after a wake-up */

#ifndef __ASSEMBLER__

#define WAKE_VECTOR 32

extern const char exception_entries[32][16];        /* in start.S */
extern uint64_t pml4[512];                          /* there, too */
extern const char trampoline[], trampoline_end[];   /* in trampoline.S */
extern const char resume[], resume_end[];           /* there, too */

/* traps.c */
void set_gate(int number, uint64_t entry);
void load_idt(void);

/* launched.c: what stands for MAP_GPA_RANGE, and for the others' start */
int64_t ask_at_doorbell(uint64_t gpa, uint64_t pages, uint64_t attributes);
void let_others_start(void);

/* hypercall.c */
bool is_amd(void);

static inline void cpuid(uint32_t leaf, uint32_t regs[4])
{
    asm volatile("cpuid"
                 : "=a"(regs[0]), "=b"(regs[1]), "=c"(regs[2]), "=d"(regs[3])
                 : "a"(leaf), "c"(0));
}

#endif
#endif
