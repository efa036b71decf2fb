/*
 * The payload's measurements of conversions: bench/run has it run them under
 * several engines. Times are TSC cycles.
 */
#include "payload.h"

#define MAX_SAMPLES 1024

struct samples {
    uint64_t n, cycles[MAX_SAMPLES];
};

static struct samples samples[2];       /* to shared, to private */
static bool touches;

/* Kept in order. */
static void add_sample(struct samples *s, uint64_t cycles)
{
    uint64_t i = s->n++;

    for (; i && s->cycles[i - 1] > cycles; i--) {
        s->cycles[i] = s->cycles[i - 1];
    }
    s->cycles[i] = cycles;
}

/*
 * Once; of a mixed range every other run is in that state already. With
 * touch=1, what counts is the first access to each page afterwards.
 */
static const char *bench_measure(uint64_t start, uint64_t end, uint64_t run,
                                 bool private)
{
    const char *why = NULL;
    uint64_t begin, after;

    for (uint64_t at = start + run; run && !why && at < end; at += 2 * run) {
        why = convert(at, at + run, private);
    }
    if (!why) {
        begin = timestamp();
        why = convert(start, end, private);
        after = timestamp();
        if (touches) {
            begin = after;
            for (uint64_t at = start; at < end; at += PAGE_SIZE) {
                *(uint64_t *)at = at;
            }
            after = timestamp();
        }
        add_sample(&samples[private], after - begin);
    }
    return why;
}

static const char *run_bench(void)
{
    uint64_t count = arg("count", 10), run = arg("run", 0), start, end;
    const char *why = arg_pages("base", "size", &start, &end);

    touches = arg("touch", 0);

    if (!why && (!count || count > MAX_SAMPLES || run % PAGE_SIZE)) {
        why = "count= must be 1 to 1024, and run= whole pages";
    }
    /* The first time is for the caches. */
    why = why ?: bench_measure(start, end, run, true) ?:
          bench_measure(start, end, run, false);
    samples[false].n = samples[true].n = 0;
    for (uint64_t i = 0; !why && i < count; i++) {
        why = bench_measure(start, end, run, true) ?:
              bench_measure(start, end, run, false);
    }
    /* The lower quartile: the machine outside may have more to do than this. */
    if (!why) {
        say("bench: size %u run %u private %u shared %u\n", end - start, run,
            samples[true].cycles[count / 4], samples[false].cycles[count / 4]);
    }
    return why;
}

CASE(run_bench, "bench",
     "base=,size=[,run=][,count=10][,touch=1]: says what conversions take, "
     "uniform or mixed; or the first access to each page afterwards");

/* As guests do when they start: each processor converts a part of memory. */
static struct {
    uint64_t start, part, step;
    bool private, failed;
} parts;

static void convert_part(unsigned cpu, void *opaque)
{
    uint64_t at = parts.start + cpu * parts.part, end = at + parts.part;

    (void)opaque;
    for (; at < end; at += parts.step) {
        if (convert(at, at + parts.step, parts.private)) {
            __atomic_store_n(&parts.failed, true, __ATOMIC_RELAXED);
            return;
        }
    }
}

static const char *run_bench_parts(void)
{
    uint64_t count = arg("count", 3), end;
    unsigned cpus;
    const char *why = arg_pages("base", "size", &parts.start, &end);

    why = why ?: arg_cpus(&cpus);
    if (why) {
        return why;
    }
    parts.part = (end - parts.start) / cpus;
    parts.step = arg("step", 2 << 20);
    if (!parts.step || parts.step % PAGE_SIZE || parts.part % parts.step ||
        !count || count > MAX_SAMPLES) {
        return "each processor must have a multiple of step=";
    }
    samples[false].n = samples[true].n = 0;
    for (uint64_t i = 0; i < 2 * count; i++) {
        uint64_t begin = timestamp();

        parts.private = !(i & 1);
        on_all_cpus(cpus, convert_part, NULL);
        add_sample(&samples[parts.private], timestamp() - begin);
    }
    say("bench: size %u run %u private %u shared %u\n", end - parts.start,
        parts.step, samples[true].cycles[0], samples[false].cycles[0]);
    return parts.failed ? "a conversion failed" : NULL;
}

CASE(run_bench_parts, "bench-parts",
     "base=,size=[,step=2M][,cpus=][,count=3]: says what it takes when each "
     "processor converts its part, in steps");

/* All of the range to private and back again, and each time written to. */
static const char *run_churn(void)
{
    uint64_t step = arg("step", 2 << 20), start, end;
    volatile uint64_t *page;    /* volatile: each access must be made */
    const char *why = arg_pages("base", "size", &start, &end);

    if (!why && (!step || step % PAGE_SIZE || (end - start) % step)) {
        why = "step= must be a part of size=";
    }
    for (uint64_t i = 0; !why && i < 2 * arg("count", 10); i++) {
        for (uint64_t at = start; !why && at < end; at += step) {
            why = convert(at, at + step, !(i & 1));
            for (uint64_t done = 0; done < step; done += PAGE_SIZE) {
                page = (uint64_t *)(at + done);
                *page = at;
            }
        }
    }
    return why;
}

CASE(run_churn, "churn",
     "base=,size=[,step=2M][,count=10]: back and forth, and written to each "
     "time");

/* Words anywhere in the range: what counts is to find the page. */
static const char *run_bench_random(void)
{
    uint64_t count = arg("count", 1000000), seed = arg("seed", 1), sum = 0;
    uint64_t begin;
    uint64_t *start, *end;
    const char *why = arg_range(&start, &end);

    if (why) {
        return why;
    }
    begin = timestamp();
    for (uint64_t i = 0; i < count; i++) {
        sum += start[random_number(&seed) % (end - start)];
    }
    begin = timestamp() - begin;
    say("bench: random %u cycles %u sum %u\n", count, begin, sum);
    return NULL;
}

CASE(run_bench_random, "bench-random",
     "base=,size=[,count=1000000][,seed=1]: says what it takes to read words at random");
