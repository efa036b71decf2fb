/*
 * The second address of memory, where accesses mean the other kind of memory,
 * in a VM that guest-memfd-twin (tests/qtest) has given to it.
 */
#include "payload.h"
#include "x86.h"

#define TWIN (1ULL << 39)       /* there, too; one entry of the first table */
#define GIB_PAGES 512           /* of 2 MiB */

uint64_t twin_of(uint64_t at)
{
    static uint64_t pdpt[512] __attribute__((aligned(PAGE_SIZE)));
    static uint64_t directory[GIB_PAGES] __attribute__((aligned(PAGE_SIZE)));
    const uint64_t gib = at >> 30;

    if (!pdpt[gib]) {
        /* All of the one GiB that the case uses */
        for (uint64_t i = 0; i < GIB_PAGES; i++) {
            directory[i] = TWIN | gib << 30 | i << 21 | 0x83;
        }
        pdpt[gib] = (uintptr_t)directory | 3;
        pml4[1] = (uintptr_t)pdpt | 3;
    }
    return at + TWIN;
}
