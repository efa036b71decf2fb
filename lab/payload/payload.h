/*
 * The payload: a bare-metal guest that runs test cases.
 *
 * What a case has at hand. A case is a function with a line in the table in
 * cases.c; it returns NULL for success, or in a few words what went wrong.
 */
#ifndef GMEM_LAB_PAYLOAD_H
#define GMEM_LAB_PAYLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct test_case {
    const char *name;
    const char *(*run)(void);
    const char *help;
};

extern const struct test_case cases[];      /* ends with a NULL name */

extern const char exception_entries[32][16];    /* in start.S */
extern char payload_end[];                      /* from the linker script */

/* A number of the case that runs, as in "fill,base=1G,size=0x1000". */
uint64_t arg(const char *key, uint64_t otherwise);

/* To the debug port. Knows %s, %u and %x; numbers are uint64_t. */
void say(const char *format, ...);

/* base= and size= of the case: RAM that does not hold the payload itself. */
const char *arg_range(uint64_t **start, uint64_t **end);

static inline void outb(uint16_t port, uint8_t value)
{
    asm volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint8_t inb(uint16_t port)
{
    uint8_t value;
    asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline void outw(uint16_t port, uint16_t value)
{
    asm volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

#endif
