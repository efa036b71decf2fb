/*
 * How the other processors start: from real mode, at TRAMPOLINE, where smp.c
 * copies this code, straight into 64 bits with the first processor's tables.
 */
#include "x86.h"
#include "long-mode.inc"

    .text
    .code16
    .globl trampoline
trampoline:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    prepare_long_mode
    lgdtl TRAMPOLINE + trampoline_gdt - trampoline
    movl $0x80000011, %eax      /* paging, protection, extension type */
    movl %eax, %cr0
    ljmpl $8, $ap_start
    .balign 4
trampoline_gdt:
    .word 23
    .long gdt
    .globl trampoline_end
trampoline_end:

/*
 * How a guest that was suspended goes on: from real mode, at TRAMPOLINE, where
 * suspend.c copies this code, to the entry that it was started at.
 */
    .code16
    .globl resume
resume:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl TRAMPOLINE + resume_gdt_pointer - resume
    movl $0x11, %eax            /* protection, extension type */
    movl %eax, %cr0
    ljmpl $8, $(TRAMPOLINE + resume_32 - resume)
    .code32
resume_32:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $RESUME_INFO, %ebx
    movl $_start, %eax
    jmp *%eax
    .balign 8
resume_gdt:
    .quad 0
    .quad 0x00cf9a000000ffff    /* 8: 32-bit code */
    .quad 0x00cf92000000ffff    /* 16: data */
resume_gdt_pointer:
    .word resume_gdt_pointer - resume_gdt - 1
    .long TRAMPOLINE + resume_gdt - resume
    .globl resume_end
resume_end:

    .code64
    .globl ap_start_launched
ap_start_launched:              /* from payload.rom */
    movl $pml4, %eax
    movq %rax, %cr3
    lgdt gdt_pointer
ap_start:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $1, %edi               /* its number: 1, 2, ... as they come */
    lock xaddl %edi, ap_next
    cmpl $MAX_CPUS, %edi
    jae 1f
    movl %edi, %eax
    imull $AP_STACK_SIZE, %eax
    leaq ap_stacks(%rax), %rsp  /* ap_stacks[number - 1]'s end */
    call ap_main
1:  hlt                         /* more than we have stacks for */
    jmp 1b

    .data
    .balign 4
ap_next:
    .long 1
