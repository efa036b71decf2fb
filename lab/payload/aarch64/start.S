/*
 * The payload's first instructions: from the boot protocol of arm64's Linux (EL1, no MMU,
 * the device tree's address in x0) to where RAM is mapped one to one; and the entries of
 * exceptions.
 */
#include "limits.h"

#define DEVICE 0x0060000000000405   /* a block of 1 GiB: no execution, MAIR's byte 1 */
#define NORMAL 0x0000000000000701   /* the same, inner shareable, byte 0 */
#define DEVICES_FROM 256            /* in GiB: the configuration space of PCI */

    .section .text.head, "ax"
    .globl _start
_start:                             /* the header of an Image */
    b 1f
    .long 0
    .quad 0                         /* offset from a multiple of 2 MiB */
    .quad payload_size
    .quad 0xa                       /* little-endian, 4 KiB pages, anywhere */
    .quad 0, 0, 0
    .ascii "ARM\x64"
    .long 0

1:  mov x19, x0
    /* One table of 512 GiB, written behind the caches' back */
    ldr x0, =page_table
    mov x1, #0                      /* GiB */
    ldr x2, =DEVICE
    ldr x3, =NORMAL
2:  sub x4, x1, #1
    cmp x4, #DEVICES_FROM - 1       /* neither the first nor one of the last */
    csel x5, x3, x2, lo
    orr x5, x5, x1, lsl #30
    dc ivac, x0
    str x5, [x0], #8
    add x1, x1, #1
    cmp x1, #512
    b.ne 2b
    dsb sy
    bl turn_mmu_on
    ldr x0, =stack_top
    mov sp, x0
    mov x0, x19
    bl start
3:  wfi
    b 3b

/* PSCI starts another processor here, with its number in x0. */
    .text
    .globl ap_start
ap_start:
    mov x19, x0
    bl turn_mmu_on
    ldr x0, =ap_stacks
    mov x1, #AP_STACK_SIZE
    madd x0, x19, x1, x0            /* ap_stacks[number - 1]'s end */
    mov sp, x0
    mov x0, x19
    bl ap_main
4:  wfi
    b 4b

turn_mmu_on:
    ldr x0, =exception_entries
    msr vbar_el1, x0
    mov x0, #0x00ff                 /* bytes: normal memory, and devices */
    msr mair_el1, x0
    /* 39 bits by TTBR0 alone, cacheable tables, 40 bits of physical addresses */
    ldr x0, =0x200803519
    msr tcr_el1, x0
    ldr x0, =page_table
    msr ttbr0_el1, x0
    tlbi vmalle1
    ic iallu
    dsb sy
    isb
    ldr x0, =0x30d01805             /* MMU, caches, and what is always set */
    msr sctlr_el1, x0
    isb
    ret

/* Exceptions: what they are, and where, to C, for good. */
    .balign 2048
exception_entries:
    .rept 16
    .balign 128
    mrs x0, esr_el1
    mrs x1, elr_el1
    mrs x2, far_el1
    bl exception
    .endr

    .bss
    .balign 4096
page_table:
    .skip 4096
    .skip 32768
    .balign 16
stack_top:
