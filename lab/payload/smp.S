/*
 * How the other processors start: from real mode, at TRAMPOLINE, where smp.c
 * copies this code, straight into 64 bits with the first processor's tables.
 */
#include "payload.h"
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

    .code64
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
