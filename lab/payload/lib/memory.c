/*
 * What the payload does with memory: patterns, whole ranges, and the memory
 * that cases take notes in.
 */
#include "payload.h"

static uintptr_t scratch_next;

/* splitmix64's mixing. */
uint64_t pattern(const uint64_t *at, uint64_t seed)
{
    uint64_t x = (uintptr_t)at + seed * 0x9e3779b97f4a7c15;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

void fill(uint64_t start, uint64_t end, uint64_t seed)
{
    for (uint64_t *p = (uint64_t *)start; p < (uint64_t *)end; p++) {
        *p = pattern(p, seed);
    }
}

const char *check_filled(uint64_t start, uint64_t end, uint64_t seed)
{
    for (uint64_t *p = (uint64_t *)start; p < (uint64_t *)end; p++) {
        uint64_t value = *p;

        if (value != pattern(p, seed)) {
            say("# at %x: %x, not %x\n", (uintptr_t)p, value, pattern(p, seed));
            return "wrong contents";
        }
    }
    return NULL;
}

const char *check_zero(uint64_t start, uint64_t end)
{
    for (uint64_t *p = (uint64_t *)start; p < (uint64_t *)end; p++) {
        uint64_t value = *p;

        if (value) {
            say("# at %x: %x, not zero\n", (uintptr_t)p, value);
            return "not zero";
        }
    }
    return NULL;
}

void *scratch(size_t size, uint64_t limit)
{
    uint64_t *start;

    if (!scratch_next) {
        scratch_next = (uintptr_t)payload_end;
    }
    scratch_next = (scratch_next + 63) & -64;
    if (scratch_next > limit || limit - scratch_next < size) {
        return NULL;
    }
    start = (uint64_t *)scratch_next;
    scratch_next += (size + 7) & -8;
    for (uint64_t *p = start; p < (uint64_t *)scratch_next; p++) {
        *p = 0;
    }
    return start;
}

void scratch_end(void)
{
    scratch_next = 0;
}
