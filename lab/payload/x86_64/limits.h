/*
 * The payload's limits on x86-64, for C and for assembly.
 */
#ifndef GMEM_LAB_LIMITS_H
#define GMEM_LAB_LIMITS_H

#define MAX_CPUS 16
#define RAM_START 0ULL
#define MAPPED_GIB 64           /* from RAM_START on, mapped one to one */
#define PCI_WINDOW 0xe0000000   /* where registers of PCI devices have room */

#endif
