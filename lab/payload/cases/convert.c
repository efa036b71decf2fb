/*
 * The payload's conversions by one processor: single requests, and contents
 * over conversions of several sizes.
 *
 * In a software-protected VM no exception tells private from shared memory: a
 * page just shows its private or its shared contents. The host discards a
 * page's contents when its state changes, so that it then reads as zero; or, in
 * place, keeps them. The cases rely on that.
 */
#include "payload.h"

static const char *run_in_place(void)
{
    converts_in_place = true;
    return NULL;
}

CASE(run_in_place, "in-place",
     "pages keep their contents when they are converted: for later cases");

static const char *run_converted(void)
{
    uint64_t *start, *end;
    const char *why = arg_range(&start, &end);

    return why ?: check_converted((uintptr_t)start, (uintptr_t)end,
                                  arg("seed", 0));
}

CASE(run_converted, "converted",
     "base=,size=[,seed=]: what fill wrote has been converted: it is zero, or, "
     "in place, still there");

/* Any range: QEMU is to judge, not us. */
static const char *run_convert(void)
{
    uint64_t size = arg("size", 0);
    int64_t status, want = -(int64_t)arg("expect", 0);

    if (size % PAGE_SIZE) {
        return "size= must be whole pages";
    }
    status = map_gpa(arg("base", 0), size / PAGE_SIZE,
                     arg("private", 0) ? MAP_GPA_PRIVATE : 0);
    say("convert: %d\n", status);
    if (status != want) {
        say("# expected: %d\n", want);
        return "wrong status";
    }
    return NULL;
}

CASE(run_convert, "convert",
     "base=,size=,private=0|1[,expect=ERRNO]: one request");

/* What is in the range but not in the piece has the pattern. */
static const char *check_around(uint64_t base, uint64_t end, uint64_t at,
                                uint64_t size, uint64_t seed)
{
    return check_filled(base, at, seed) ?: check_filled(at + size, end, seed);
}

/* A piece of a shared range becomes private and shared again, and no more. */
static const char *piece(uint64_t base, uint64_t end, uint64_t at,
                         uint64_t size, uint64_t seed)
{
    const char *why;

    say("# %x bytes at %x\n", size, at);
    fill(base, end, seed);
    why = convert(at, at + size, true) ?:
          check_converted(at, at + size, seed) ?:
          check_around(base, end, at, size, seed);
    if (why) {
        return why;
    }
    fill(at, at + size, seed + 1);
    return check_filled(at, at + size, seed + 1) ?:
           check_around(base, end, at, size, seed) ?:
           convert(at, at + size, true) ?:      /* it is already */
           check_filled(at, at + size, seed + 1) ?:
           convert(at, at + size, false) ?:
           check_converted(at, at + size, seed + 1) ?:
           check_around(base, end, at, size, seed);
}

/*
 * One request over pages of both states: only those change that have not got
 * the wanted one.
 */
static const char *mixed(uint64_t base, uint64_t end, bool private,
                         uint64_t seed)
{
    const char *why = convert(base, end, false);

    say("# mixed to %s\n", private ? "private" : "shared");
    for (uint64_t at = base; !why && at < end; at += 2 * PAGE_SIZE) {
        why = convert(at, at + PAGE_SIZE, true);
    }
    if (why) {
        return why;
    }
    fill(base, end, seed);
    why = convert(base, end, private);
    for (uint64_t at = base; !why && at < end; at += PAGE_SIZE) {
        bool was = !((at - base) / PAGE_SIZE & 1);

        why = was == private ? check_filled(at, at + PAGE_SIZE, seed)
                             : check_converted(at, at + PAGE_SIZE, seed);
    }
    return why;
}

static const char *private_share(uint64_t base, uint64_t end, uint64_t seed)
{
    static const uint64_t sizes[] = { 4096, 65536, 2 << 20 };
    const char *why = convert(base, end, false);

    for (size_t i = 0; !why && i < sizeof(sizes) / sizeof(*sizes); i++) {
        uint64_t size = sizes[i], middle = (base + end) / 2;
        uint64_t places[] = {
            base,
            base + PAGE_SIZE,                   /* not aligned to its size */
            middle - middle % size,
            end - size,
        };

        for (size_t j = 0; !why && j < sizeof(places) / sizeof(*places); j++) {
            uint64_t at = places[j], own_seed = seed + 2 * (4 * i + j);

            if (at >= base && at < end && end - at >= size) {
                why = piece(base, end, at, size, own_seed);
            }
        }
    }
    return why ?:
           piece(base, end, base, end - base, seed + 100) ?:
           mixed(base, end, true, seed + 102) ?:
           mixed(base, end, false, seed + 103) ?:
           convert(base, end, false);
}

static const char *run_private_share(void)
{
    struct extent ram;
    const char *why = arg_pages("base", "size", &ram.start, &ram.end);

    why = why ?: arg_dry(&ram, 1) ?:
          private_share(ram.start, ram.end, arg("seed", 0));
    model_end();
    return why;
}

CASE(run_private_share, "private-share",
     "base=,size=[,seed=][,dry=]: contents over conversions of several sizes");
