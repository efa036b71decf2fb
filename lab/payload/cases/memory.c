/*
 * Cases of the payload that fill memory and look at it.
 */
#include "payload.h"

static const char *run_fill(void)
{
    uint64_t *start, *end;
    const char *why = arg_range(&start, &end);

    if (!why) {
        fill((uintptr_t)start, (uintptr_t)end, arg("seed", 0));
    }
    return why;
}

CASE(run_fill, "fill", "base=,size=[,seed=]: writes a pattern");

static const char *run_verify(void)
{
    uint64_t *start, *end;
    const char *why = arg_range(&start, &end);

    return why ?: check_filled((uintptr_t)start, (uintptr_t)end,
                               arg("seed", 0));
}

CASE(run_verify, "verify",
     "base=,size=[,seed=]: checks the pattern that fill wrote");

static const char *run_checksum(void)
{
    uint64_t *p, *end, sum = 0xcbf29ce484222325;
    const char *why = arg_range(&p, &end);

    if (why) {
        return why;
    }
    while (p < end) {
        sum = (sum ^ *p++) * 0x100000001b3;     /* FNV-1a, by words */
    }
    say("checksum %x\n", sum);
    return NULL;
}

CASE(run_checksum, "checksum", "base=,size=: says a checksum of the range");

static uint64_t dirty_value(uint64_t pass, uintptr_t address)
{
    return address >> 12 << 32 | (uint32_t)pass;
}

/*
 * Each page gets a number that is its own in each pass, after the one of the
 * pass before was checked: at any time pages get dirty.
 */
static const char *run_dirty(void)
{
    uint64_t passes = arg("passes", UINT64_MAX), step = arg("step", 4096) / 8;
    uint64_t *start, *end;
    const char *why = arg_range(&start, &end);
    volatile uint64_t *p;       /* volatile: each access must be made */

    if (why) {
        return why;
    }
    if (!step) {
        return "step= must be at least 8";
    }
    for (uint64_t pass = 0; pass <= passes; pass++) {
        for (p = start; p < end; p += step) {
            uint64_t want = dirty_value(pass - 1, (uintptr_t)p), value = *p;

            if (pass && value != want) {
                say("FAIL: pass %u, at %x: %x, not %x\n",
                    pass, (uintptr_t)p, value, want);
                return "a write was lost";
            }
            *p = dirty_value(pass, (uintptr_t)p);
        }
        say("pass %u\n", pass);
    }
    return NULL;
}

CASE(run_dirty, "dirty",
     "base=,size=[,step=4K][,passes=]: checks and rewrites a word per page");

static const char *run_zero(void)
{
    uint64_t *start, *end;
    const char *why = arg_range(&start, &end);

    return why ?: check_zero((uintptr_t)start, (uintptr_t)end);
}

CASE(run_zero, "zero", "base=,size=: is all of it zero?");

static const char *run_hello(void)
{
    say("hello\n");
    return NULL;
}

CASE(run_hello, "hello", "says hello");
