/*
 * The payload's first instructions: from the PVH entry (32 bit, no paging, the
 * start info's address in ebx) into 64 bits with RAM mapped one to one; or from
 * payload.rom; and the entries of exceptions.
 */
#include "limits.h"
#include "long-mode.inc"

    .section .note.pvh, "a", @note
    .long 4, 8, 18              /* name, value, XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .quad _start

/* The tables that map RAM; from 32 or 64 bits */
    .macro build_page_tables
    /* 2 MiB pages, for processors without larger ones. */
    movl $page_directories, %edi
    movl $0x83, %eax            /* present, writable, large */
    xorl %edx, %edx             /* address, high half */
1:  movl %eax, (%edi)
    movl %edx, 4(%edi)
    addl $8, %edi
    addl $0x200000, %eax
    adcl $0, %edx
    cmpl $page_directories + MAPPED_GIB * 4096, %edi
    jb 1b

    movl $pdpt, %edi
    movl $page_directories + 3, %eax
2:  movl %eax, (%edi)
    addl $8, %edi
    addl $4096, %eax
    cmpl $pdpt + MAPPED_GIB * 8, %edi
    jb 2b
    movl $pdpt + 3, pml4
    .endm

    .text
    .code32
    .globl _start
_start:
    cli
    movl $stack_top, %esp

    build_page_tables
    prepare_long_mode
    movl $0x80000011, %eax      /* paging, protection, extension type */
    movl %eax, %cr0
    lgdt gdt_pointer
    ljmp $8, $3f

    .code64
3:  movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %ebx, %edi
    call payload_main
    hlt

/*
 * The entry of a guest that was launched: in 64 bits, from payload.rom, whose
 * segments are like those of our table.
 */
    .globl start_launched
start_launched:
    movl $stack_top, %esp
    build_page_tables
    movl $pml4, %eax
    movq %rax, %cr3
    lgdt gdt_pointer
    movb $1, launched
    movb $1, code_is_private
    xorl %edi, %edi
    call payload_main
    hlt

/* Exceptions: number and error code onto the stack, then to C, for good. */
    .macro vector n
    .balign 16
    .if !(\n == 8 || (\n >= 10 && \n <= 14) || \n == 17 || \
          \n == 21 || \n == 29 || \n == 30)
    push $0
    .endif
    push $\n
    jmp exception_common
    .endm

    .balign 16
    .globl exception_entries    /* 16 bytes each */
exception_entries:
    .set n, 0
    .rept 32
    vector n
    .set n, n + 1
    .endr

exception_common:
    pop %rdi                    /* number */
    pop %rsi                    /* error code */
    mov (%rsp), %rdx            /* rip */
    mov %cr2, %rcx
    and $-16, %rsp
    call exception
    hlt

    .section .rodata
    .balign 8
    .globl gdt
gdt:
    .quad 0
    .quad 0x00af9a000000ffff    /* 8: 64-bit code */
    .quad 0x00cf92000000ffff    /* 16: data */
    .globl gdt_pointer
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .quad gdt

    .bss
    .balign 4096
    .globl pml4
pml4:
    .skip 4096
pdpt:
    .skip 4096
page_directories:
    .skip MAPPED_GIB * 4096
    .skip 32768
stack_top:
