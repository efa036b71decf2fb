/*
 * The payload's table of requests to convert memory, good and bad, and the case
 * that makes them: each must have the expected status, and change what it is to
 * change and no more.
 */
#include "payload.h"

enum place {
    ZERO,                       /* offset is the address */
    AREA,                       /* base= */
    AREA_END,
    HOLE,                       /* hole= */
    HOLE_AFTER_AREA,            /* only where the hole is at the area's end */
};

enum before {                   /* the area's state before the request */
    SHARED,
    PRIVATE,
    MIXED,                      /* every other page */
};

enum {
    OK = 0,
    EINVAL = GUEST_EINVAL,
    ENOSYS = GUEST_ENOSYS,
    P = MAP_GPA_PRIVATE,
    MIN_SIZE = 16 * PAGE_SIZE,
    ANY = 1,                    /* OK or EINVAL: not for us to say */
    FIRMWARE = 2,               /* OK if the guest was launched, or EINVAL */
};

#define KiB 1024ULL
#define GiB (1ULL << 30)

static const struct request {
    const char *name;
    enum place place;
    uint64_t offset, pages, attributes;
    int64_t expected;
    enum before before;
    uint64_t number;            /* of the hypercall, if another one */
} requests[] = {
    { "RAM to private", AREA, 0, 4, P, OK },
    { "RAM to private, the last page", AREA_END, -4 * KiB, 1, P, OK },
    { "RAM to private, as it is", AREA, 0, 4, P, OK, PRIVATE },
    { "RAM to private, as half of it is", AREA, 0, 16, P, OK, MIXED },
    { "RAM to private, as half of it is, an odd part",
      AREA, 4 * KiB, 7, P, OK, MIXED },
    { "RAM to shared", AREA, 0, 4, 0, OK, PRIVATE },
    { "RAM to shared, the last page", AREA_END, -4 * KiB, 1, 0, OK, PRIVATE },
    { "RAM to shared, as it is", AREA, 0, 4, 0, OK },
    { "RAM to shared, as half of it is", AREA, 0, 16, 0, OK, MIXED },
    { "RAM to shared, as half of it is, an odd part",
      AREA, 4 * KiB, 7, 0, OK, MIXED },

    { "2M pages, said of 4 KiB", AREA, 4 * KiB, 1, 1 | P, OK },
    { "2M pages, said of 4 KiB, to shared", AREA, 4 * KiB, 1, 1, OK, PRIVATE },
    { "1G pages, said of 12 KiB", AREA, 4 * KiB, 3, 2 | P, OK },
    { "1G pages, said of 12 KiB, to shared", AREA, 4 * KiB, 3, 2, OK, PRIVATE },
    { "page size 3", AREA, 0, 1, 3 | P, ANY },
    { "page size 4", AREA, 0, 1, 4 | P, ANY },
    { "page size 8", AREA, 0, 1, 8 | P, ANY },
    { "page size 15, to shared", AREA, 0, 1, 15, ANY, PRIVATE },

    { "no pages", AREA, 0, 0, P, EINVAL },
    { "no pages, to shared", AREA, 0, 0, 0, EINVAL, PRIVATE },
    { "no pages, at 0", ZERO, 0, 0, P, EINVAL },
    { "an address not of a page", AREA, 1, 1, P, EINVAL },
    { "an address not of a page, to shared",
      AREA, 2 * KiB, 1, 0, EINVAL, PRIVATE },
    { "an address not of a page, its last byte", AREA, 4095, 1, P, EINVAL },
    { "the last byte of all", ZERO, -1, 1, P, EINVAL },
    { "attribute bit 5", AREA, 0, 1, 0x20, EINVAL },
    { "attribute bit 5, to private", AREA, 0, 1, 0x20 | P, EINVAL },
    { "attribute bit 8", AREA, 0, 1, 0x100 | P, EINVAL },
    { "attribute bit 32", AREA, 0, 1, 1ULL << 32 | P, EINVAL },
    { "attribute bit 63, to shared", AREA, 0, 1, 1ULL << 63, EINVAL, PRIVATE },
    { "all attribute bits", AREA, 0, 1, -1, EINVAL },

    { "2^52 pages: no bytes, if it overflows", AREA, 0, 1ULL << 52, P, EINVAL },
    { "2^52 pages, to shared", AREA, 0, 1ULL << 52, 0, EINVAL, PRIVATE },
    { "2^52 + 1 pages: one page, if it overflows",
      AREA, 0, (1ULL << 52) + 1, P, EINVAL },
    { "2^52 + 1 pages, to shared",
      AREA, 0, (1ULL << 52) + 1, 0, EINVAL, PRIVATE },
    { "2^63 pages", AREA, 0, 1ULL << 63, P, EINVAL },
    { "2^63 + 1 pages, to shared",
      AREA, 0, (1ULL << 63) + 1, 0, EINVAL, PRIVATE },
    { "2^64 - 1 pages", AREA, 0, -1, P, EINVAL },
    { "2^64 - 1 pages, to shared", AREA, 0, -1, 0, EINVAL, PRIVATE },
    { "2^52 - 1 pages: beyond 2^64", AREA, 0, (1ULL << 52) - 1, P, EINVAL },
    { "2^52 - 1 pages, to shared",
      AREA, 0, (1ULL << 52) - 1, 0, EINVAL, PRIVATE },
    { "2^20 + 1 pages: one page in 32 bits",
      AREA, 0, (1 << 20) + 1, P, EINVAL },
    { "2^32 + 1 pages: one page in 32 bits",
      AREA, 0, (1ULL << 32) + 1, P, EINVAL },
    { "2^51 pages, to private", AREA, 0, 1ULL << 51, P, EINVAL },
    { "from the last page on, beyond 2^64", ZERO, -4 * KiB, 2, P, EINVAL },
    { "from the last page on, beyond 2^64, to shared",
      ZERO, -4 * KiB, 2, 0, EINVAL },
    { "from the last GiB into low memory", ZERO, -GiB, 1 << 19, P, EINVAL },
    { "the last page", ZERO, -4 * KiB, 1, P, EINVAL },
    { "the last page, to shared", ZERO, -4 * KiB, 1, 0, ANY },
    { "the first page beyond 52 bits", ZERO, 1ULL << 52, 1, P, EINVAL },
    { "the first page beyond 52 bits, to shared", ZERO, 1ULL << 52, 1, 0, ANY },
    { "the last page of 52 bits", ZERO, (1ULL << 52) - 4 * KiB, 1, P, EINVAL },
    { "the last page of 52 bits, to shared",
      ZERO, (1ULL << 52) - 4 * KiB, 1, 0, ANY },
    { "over the end of 52 bits", ZERO, (1ULL << 52) - 4 * KiB, 2, P, EINVAL },
    { "an address with its top bit set", ZERO, 1ULL << 63, 1, P, EINVAL },
    { "bit 63 and the area's address", AREA, 1ULL << 63, 1, P, EINVAL },
    { "bit 52 and the area's address", AREA, 1ULL << 52, 1, P, EINVAL },

    { "a hole", HOLE, 0, 1, P, EINVAL },
    { "a hole, to shared", HOLE, 0, 1, 0, OK },
    { "16 pages of a hole", HOLE, 0, 16, P, EINVAL },
    { "16 pages of a hole, to shared", HOLE, 0, 16, 0, OK },
    { "RAM and the hole behind it", HOLE_AFTER_AREA, -8 * KiB, 4, P, EINVAL },
    { "RAM and the hole behind it, half private",
      HOLE_AFTER_AREA, -32 * KiB, 9, P, EINVAL, MIXED },
    { "RAM and the hole behind it, to shared",
      HOLE_AFTER_AREA, -8 * KiB, 4, 0, OK, PRIVATE },
    { "RAM and the hole behind it, half private, to shared",
      HOLE_AFTER_AREA, -32 * KiB, 9, 0, OK, MIXED },
    { "the hole under 1 MiB", ZERO, 0xa0000, 1, P, FIRMWARE },
    { "the hole under 1 MiB, to shared", ZERO, 0xa0000, 1, 0, OK },
    { "the HPET", ZERO, 0xfed00000, 1, P, EINVAL },
    { "the HPET, to shared", ZERO, 0xfed00000, 1, 0, OK },
    { "the I/O APIC", ZERO, 0xfec00000, 1, P, EINVAL },
    { "the I/O APIC, to shared", ZERO, 0xfec00000, 1, 0, OK },
    { "the local APIC", ZERO, 0xfee00000, 1, P, EINVAL },
    { "the local APIC, to shared", ZERO, 0xfee00000, 1, 0, OK },
    { "ROM", ZERO, 0xfffff000, 1, P, FIRMWARE },
    { "ROM, to shared", ZERO, 0xfffff000, 1, 0, OK },
    { "the last GiB under 4 GiB", ZERO, 3 * GiB, 1 << 18, P, EINVAL },

    { "hypercall 2", AREA, 0, 1, P, ENOSYS, .number = 2 },
    { "hypercall 3", AREA, 0, 1, P, ENOSYS, .number = 3 },
    { "hypercall 13", AREA, 0, 1, P, ENOSYS, .number = 13 },
    { "hypercall 2^32 + 12",
      AREA, 0, 1, P, ENOSYS, .number = (1ULL << 32) + 12 },
    { "hypercall 2^64 - 1", AREA, 0, 1, P, ENOSYS, .number = -1 },
};

static bool is_private(enum before state, uint64_t page)
{
    return state == PRIVATE || (state == MIXED && page % 2);
}

/* The area has that state, and the pattern. */
static const char *prepare(const struct extent *area, enum before state,
                           uint64_t seed)
{
    uint64_t pages = (area->end - area->start) / PAGE_SIZE;
    int64_t status = map_gpa(area->start, pages, state == PRIVATE ? P : 0);

    for (uint64_t i = 1; state == MIXED && !status && i < pages; i += 2) {
        status = map_gpa(area->start + i * PAGE_SIZE, 1, P);
    }
    if (status) {
        say("# status %d\n", status);
        return "the area cannot be converted";
    }
    for (uint64_t *p = (uint64_t *)area->start; p < (uint64_t *)area->end;
         p++) {
        *p = pattern(p, seed);
    }
    return NULL;
}

/*
 * From first to last all pages whose state the request changes are zero; in
 * place no page changes.
 */
static bool check(const struct extent *area, const struct request *r,
                  uint64_t gpa, bool done, uint64_t seed)
{
    uint64_t end = gpa + r->pages * PAGE_SIZE;
    bool private = r->attributes & P;

    for (uint64_t *p = (uint64_t *)area->start; p < (uint64_t *)area->end;
         p++) {
        uintptr_t at = (uintptr_t)p;
        bool was = is_private(r->before, (at - area->start) / PAGE_SIZE);
        bool zero = done && at >= gpa && at < end && was != private &&
                    !converts_in_place;
        uint64_t value = *p, want = zero ? 0 : pattern(p, seed);

        if (value != want) {
            say("# at %x: %x, not %x\n", at, value, want);
            return false;
        }
    }
    return true;
}

static const char *requests_run(const struct extent *area, uint64_t hole)
{
    const uint64_t places[] = {
        [ZERO] = 0, [AREA] = area->start, [AREA_END] = area->end,
        [HOLE] = hole, [HOLE_AFTER_AREA] = hole,
    };
    const size_t n = sizeof(requests) / sizeof(*requests);
    const char *why = NULL;

    for (size_t i = 0; i < n; i++) {
        const struct request *r = &requests[i];
        uint64_t gpa = places[r->place] + r->offset;
        int64_t status, wanted = r->expected;
        bool expected;

        if (wanted == FIRMWARE) {
            wanted = launched ? OK : EINVAL;
        }
        if (r->place == HOLE_AFTER_AREA && hole != area->end) {
            say("# left out: %s\n", r->name);
            continue;
        }
        why = prepare(area, r->before, i) ?: why;
        status = hypercall(r->number ?: HC_MAP_GPA_RANGE,
                           gpa, r->pages, r->attributes);
        expected = status == wanted ||
                   (wanted == ANY && (status == OK || status == EINVAL));
        if (wanted == ANY) {
            say("# %s: %d, expected: 0 or -22\n", r->name, status);
        } else {
            say("# %s: %d, expected: %d\n", r->name, status, wanted);
        }
        if (!expected) {
            say("# the request above: wrong status\n");
            why = "wrong status";
        } else if (!check(area, r, gpa, !status && !r->number, i)) {
            say("# the request above: wrong contents\n");
            why = "wrong contents";
        }
    }
    say("%u requests\n", n);
    return prepare(area, SHARED, 0) ?: why;
}

static const char *run_requests(void)
{
    struct extent area;
    uint64_t hole = arg("hole", 0);
    const char *why = arg_pages("base", "size", &area.start, &area.end);

    if (!why && (area.end - area.start < MIN_SIZE || area.end > 3 * GiB)) {
        why = "size= must be 64K at least, and all of it below 3 GiB";
    }
    if (!why && (!hole || hole % PAGE_SIZE)) {
        why = "hole= must be the address of 16 pages where nothing is";
    }
    why = why ?: arg_dry(&area, 1) ?: requests_run(&area, hole);
    model_end();
    return why;
}

CASE(run_requests, "requests",
     "base=,size=,hole=[,dry=]: a table of requests, good and bad");
