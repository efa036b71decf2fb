/*
 * payload.rom: the payload as firmware of a guest that is launched, SEV-SNP or
 * TDX. All processors come here in 64 bits. The first copies the payload to its
 * place in RAM, and the others wait until it starts them.
 *
 * The tables at the end tell QEMU what to launch besides the firmware itself:
 * AMD's and Intel's metadata for OVMF.
 */
#include "launch.h"

    .section .payload, "a"
    .incbin "payload.bin"

    .section .tables, "aw"
    /* The first GiB and the fourth, in pages of 1 GiB; accessed and dirty */
    .quad START_TABLES + 0x1000 + 0x23
    .skip 4096 - 8
    .quad 0x000000e3, 0x400000e3, 0x800000e3, 0xc00000e3
    .skip 4096 - 32

    .section .start, "ax"
    .code64
start:
    testl %edi, %edi
    jnz 1f
    cld
    movl $rom_payload, %esi
    movl $payload_start, %edi
    movl $rom_payload_end, %ecx
    subl %esi, %ecx
    rep movsb
    movl $payload_end, %ecx     /* the rest is zero */
    subl %edi, %ecx
    xorl %eax, %eax
    rep stosb
    movl $start_launched, %eax
    jmp *%rax
1:  pause
    cmpl $0, may_start
    je 1b
    movl $ap_start_launched, %eax
    jmp *%rax

    .macro section address, size, kind
    .long \address, \size, \kind
    .endm

    .balign 16
sev_metadata:
    .ascii "ASEV"
    .long sev_metadata_end - sev_metadata, 1, 4
    section ZEROS, ZERO_SIZE, 1
    section SECRETS, 4096, 2
    section CPUID, 4096, 3
    section HASHES, 4096, 0x10
sev_metadata_end:

    .macro tdx_section offset, raw, address, size, kind, flags
    .long \offset, \raw
    .quad \address, \size
    .long \kind, \flags
    .endm

tdx_metadata:
    .ascii "TDVF"
    .long tdx_metadata_end - tdx_metadata, 1, 3
    tdx_section 0, 0x20000, ROM, 0x20000, 0, 1
    tdx_section 0, 0, HOB, HOB_SIZE, 2, 0
    tdx_section 0, 0, ZEROS, ZERO_SIZE, 3, 0
tdx_metadata_end:

    .macro guid a, b, c, d, e
    .long \a
    .short \b, \c
    .byte \d >> 8, \d & 0xff
    .byte \e >> 40 & 0xff, \e >> 32 & 0xff, \e >> 24 & 0xff
    .byte \e >> 16 & 0xff, \e >> 8 & 0xff, \e & 0xff
    .endm

    .set TABLES_SIZE, 110
    .org 4096 - 32 - TABLES_SIZE
tables:
    .long HASHES, 4096
    .short 26
    guid 0x7255371f, 0x3a3b, 0x4b04, 0x927b, 0x1da6efa8d454
    .long START                 /* where SEV-ES's other processors start */
    .short 22
    guid 0x00f771de, 0x1a7e, 0x4fcb, 0x890e, 0x68c77e2fb44e
    .long ROM + 0x20000 - sev_metadata
    .short 22
    guid 0xdc886566, 0x984a, 0x4798, 0xa75e, 0x5585a7bf67cc
    .long ROM + 0x20000 - tdx_metadata
    .short 22
    guid 0xe47a6535, 0x984a, 0x4798, 0x865e, 0x4685a7bf8ec2
    .short TABLES_SIZE
    guid 0x96b582de, 0x1fb2, 0x45f7, 0xbaea, 0xa366c55a082d
    .if . - tables - TABLES_SIZE
    .error "TABLES_SIZE"
    .endif
    .skip 16
1:  hlt                         /* the reset vector of other guests */
    jmp 1b
    .org 4096
