/*
 * The payload's limits on x86-64, for C and for assembly.
 */
#ifndef GMEM_LAB_LIMITS_H
#define GMEM_LAB_LIMITS_H

#define MAX_CPUS 16
#define MAPPED_GIB 64           /* memory from 0 on, mapped one to one */

#endif
