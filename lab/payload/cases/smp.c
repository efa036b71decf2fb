/*
 * The payload's case for its processors: they all count, with a lock and
 * without.
 */
#include "payload.h"

struct counters {
    spinlock lock;
    uint64_t count, locked, atomic;
    unsigned here, cpus;
};

static void count_up(unsigned cpu, void *opaque)
{
    struct counters *c = opaque;

    /* Only if all are here at the same time does it go on. */
    __atomic_fetch_add(&c->here, 1, __ATOMIC_ACQ_REL);
    while (__atomic_load_n(&c->here, __ATOMIC_ACQUIRE) != c->cpus) {
        pause();
    }
    for (uint64_t i = 0; i < c->count; i++) {
        spin_lock(&c->lock);
        c->locked++;
        spin_unlock(&c->lock);
        __atomic_fetch_add(&c->atomic, 1, __ATOMIC_RELAXED);
    }
    say("# CPU %u of %u has counted; it says it is %u\n", (uint64_t)cpu,
        (uint64_t)c->cpus, (uint64_t)this_cpu());
}

static const char *run_smp(void)
{
    struct counters c = { .count = arg("count", 10000) };
    const char *why = arg_cpus(&c.cpus);

    if (why) {
        return why;
    }
    for (int round = 0; round < 2; round++) {
        c.here = 0;
        on_all_cpus(c.cpus, count_up, &c);
    }
    if (c.locked != 2 * c.cpus * c.count || c.atomic != c.locked) {
        say("# locked %u, atomic %u\n", c.locked, c.atomic);
        return "counts got lost";
    }
    say("%u processors\n", (uint64_t)c.cpus);
    return NULL;
}

CASE(run_smp, "smp",
     "[cpus=][,count=10000]: all processors count, with a lock");
