/*
 * The payload's limits on arm64, for C and for assembly.
 */
#ifndef GMEM_LAB_LIMITS_H
#define GMEM_LAB_LIMITS_H

#define MAX_CPUS 16
#define RAM_START 0x40000000ULL
#define MAPPED_GIB 63           /* from RAM_START on, mapped one to one */
#define PCI_WINDOW 0x10000000   /* where registers of PCI devices have room */
#define AP_STACK_SIZE 16384

#endif
