/*
 * Conversions that the guest does not ask for: it just accesses a page as what
 * the page is not. All processors do so with the same pages, each with a word
 * of its own in every page, which no conversion may change.
 */
#include "payload.h"

#define MOST_PAGES 256

static struct {
    uint64_t start, pages, count, seed;
    bool failed;
    uint64_t words[MAX_CPUS][MOST_PAGES];
} area;

static bool check_access(unsigned cpu, uint64_t page, bool private)
{
    uint64_t at = area.start + page * PAGE_SIZE + cpu * 8;
    uint64_t *word = (uint64_t *)(private != launched ? twin_of(at) : at);
    uint64_t value = *word;

    if (value != area.words[cpu][page]) {
        say("# at %x, %s, CPU %u: %x, not %x\n", at,
            private ? "private" : "shared", (uint64_t)cpu, value,
            area.words[cpu][page]);
        __atomic_store_n(&area.failed, true, __ATOMIC_RELAXED);
        return false;
    }
    *word = ++area.words[cpu][page];
    return true;
}

static void access_pages(unsigned cpu, void *opaque)
{
    uint64_t random = area.seed + cpu;

    (void)opaque;
    for (uint64_t i = 0; i < area.count; i++) {
        uint64_t r = random_number(&random);

        if (!check_access(cpu, r % area.pages, r >> 63) ||
            __atomic_load_n(&area.failed, __ATOMIC_RELAXED)) {
            return;
        }
    }
}

static const char *run_access(void)
{
    uint64_t end;
    unsigned cpus;
    const char *why = arg_pages("base", "size", &area.start, &end);

    why = why ? why : arg_cpus(&cpus);
    if (why) {
        return why;
    }
    area.pages = (end - area.start) / PAGE_SIZE;
    if (area.pages > MOST_PAGES || area.start >> 30 != (end - 1) >> 30) {
        return "size= is more than 1 MiB, or not in one GiB";
    }
    area.count = arg("count", 1000);
    area.seed = arg("seed", 1);
    area.failed = false;
    twin_of(area.start);        /* makes the tables before others look */
    for (unsigned cpu = 0; cpu < cpus; cpu++) {
        for (uint64_t page = 0; page < area.pages; page++) {
            *(uint64_t *)(area.start + page * PAGE_SIZE + cpu * 8) = 0;
            area.words[cpu][page] = 0;
        }
    }
    on_all_cpus(cpus, access_pages, NULL);
    for (unsigned cpu = 0; cpu < cpus && !area.failed; cpu++) {
        for (uint64_t page = 0; page < area.pages; page++) {
            check_access(cpu, page, false);
        }
    }
    return area.failed ? "a word has changed" : NULL;
}

CASE(run_access, "access",
     "base=N,size=N[,cpus=N][,count=1000][,seed=1]: all processors access pages as private "
     "and as shared memory, which converts them; needs guest-memfd-twin");
