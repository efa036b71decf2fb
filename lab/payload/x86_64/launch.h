/*
 * Where payload.rom and the launch put things, for C and for assembly. Tests
 * name START and START_TABLES (tests/functional/guest_memfd_launch.py).
 */
#ifndef GMEM_LAB_LAUNCH_H
#define GMEM_LAB_LAUNCH_H

#define ROM 0xfffe0000          /* 128 KiB below 4 GiB */
#define START_TABLES 0xffffd000 /* two pages */
#define START 0xfffff000        /* all processors, in 64 bits; in edi: which */

/* Pages of RAM that payload.rom asks for */
#define SECRETS 0x10000         /* SEV-SNP's: the firmware's secrets */
#define CPUID 0x11000      /* SEV-SNP's: CPUID's answers */
#define HASHES 0x12000          /* SEV-SNP's: of what -kernel names */
#define ZEROS 0x14000      /* SEV-SNP's and TDX's: empty */
#define ZERO_SIZE 0x4000
#define HOB 0x20000             /* TDX's: what memory there is */
#define HOB_SIZE 0x2000

/* A port; reading it asks for a conversion: tests/qtest/guest-memfd-launch.c */
#define DOORBELL 0x5e0

#endif
