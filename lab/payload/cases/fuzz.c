/*
 * The payload's hostile requests: any arguments, from all processors at once.
 * Each must come back, with the status that is right if only one is; and memory
 * that no request may change keeps its contents.
 *
 * RAM is made private only in the area, without its first and last sixteenth,
 * which are guards. Beyond goes only what has to be refused, or what makes
 * memory shared, which it is. With self=1 some requests know no such limit, so
 * that the payload destroys itself sooner or later.
 *
 * Where there is a virtio disk it is made use of, too: see virtio-fuzz.c. With
 * self=1 any virtio device is.
 */
#include "payload.h"
#include "virtio-fuzz.h"

#define GiB (1ULL << 30)

enum { MAX_STATUSES = 16 };

struct request {
    uint64_t number, gpa, pages, attributes;
};

struct worker {
    uint64_t random, others;    /* statuses that had no place here */
    struct {
        int64_t status;
        uint64_t count;
    } statuses[MAX_STATUSES];
} __attribute__((aligned(64)));

static struct {
    struct extent area, inner;  /* with and without the guards */
    uint64_t hole, seed, steps;
    unsigned n_cpus;
    bool self, virtio, failed;
    struct worker workers[MAX_CPUS];
} fuzz;

/* One of the array. */
#define ONE_OF(array, r) ((array)[(r) % (sizeof(array) / sizeof(*(array)))])

static uint64_t choose_number(uint64_t r)
{
    /*
     * Not 5, 9 and 10: these kick processors, write to memory and send
     * interrupts, all of which is KVM's own affair. 11 yields, and is harmless.
     */
    static const uint64_t others[] = {
        0, 1, 2, 3, 4, 6, 7, 8, 11, 13, 14, 100, 0x7fffffff, 0x80000000,
        0x10000000cULL, 1ULL << 63 | 12, -1ULL,
    };

    return r % 16 ? HC_MAP_GPA_RANGE : ONE_OF(others, r >> 4);
}

static uint64_t choose_gpa(struct worker *w)
{
    static const uint64_t places[] = {
        0xa0000, 0xfec00000, 0xfed00000, 0xfeda0000, 0xfee00000, 0xfffff000,
        0xffffffff, 4 * GiB, 1ULL << 40, 1ULL << 46, (1ULL << 52) - 4096,
        1ULL << 52, (1ULL << 52) + 4096, 1ULL << 63, -4096ULL, -8192ULL,
        -1ULL, -(4 * GiB), -(2ULL << 20),
    };
    uint64_t r = random_number(&w->random), at = random_number(&w->random);
    uint64_t size = fuzz.inner.end - fuzz.inner.start;

    switch (r % 16) {
    default:
        return fuzz.inner.start + at % size / PAGE_SIZE * PAGE_SIZE;
    case 10:
        return fuzz.inner.start + at % size;
    case 11:
        return fuzz.inner.end - (1 + at % 4) * PAGE_SIZE;
    case 12:
        return fuzz.hole ? fuzz.hole + (at % 8 - 4) * PAGE_SIZE : at;
    case 13:
        return ONE_OF(places, at);
    case 14:
        return fuzz.self ? at % (fuzz.area.end) / PAGE_SIZE * PAGE_SIZE
                         : at >> (r >> 32) % 64;
    case 15:
        return fuzz.inner.start | 1ULL << (r >> 32) % 64;
    }
}

static uint64_t choose_pages(struct worker *w)
{
    static const uint64_t huge[] = {
        1 << 20, (1 << 20) + 1, 1ULL << 31, 1ULL << 32, (1ULL << 32) + 1,
        1ULL << 40, 1ULL << 51, (1ULL << 52) - 1, 1ULL << 52, (1ULL << 52) + 1,
        (1ULL << 52) + 16, 1ULL << 63, (1ULL << 63) + 1, -1ULL, -2ULL,
        -(1ULL << 20),
    };
    uint64_t r = random_number(&w->random), n = random_number(&w->random);
    uint64_t size = (fuzz.inner.end - fuzz.inner.start) / PAGE_SIZE;

    switch (r % 8) {
    default:
        return 1 + n % 16;
    case 4:
        return n % 512;
    case 5:
        return size - n % 2;
    case 6:
        return ONE_OF(huge, n);
    case 7:
        return n >> (r >> 32) % 64;
    }
}

static uint64_t choose_attributes(struct worker *w)
{
    uint64_t r = random_number(&w->random), bits = random_number(&w->random);
    uint64_t attributes = r & MAP_GPA_PRIVATE;

    switch (r >> 8 & 7) {
    default:
        return attributes;
    case 5:
        return attributes | bits % 16;
    case 6:
        return attributes | 1ULL << bits % 64;
    case 7:
        return bits;
    }
}

/* What there is no right answer to but EINVAL. */
static bool must_be_refused(const struct request *r)
{
    uint64_t end = r->gpa + r->pages * PAGE_SIZE;

    if (r->gpa % PAGE_SIZE || !r->pages || r->attributes & ~0x1fULL ||
        r->pages > UINT64_MAX / PAGE_SIZE || (end && end < r->gpa)) {
        return true;
    }
    /* No RAM that could be private from the I/O APIC to 4 GiB, or far above. */
    return r->attributes & MAP_GPA_PRIVATE &&
           ((r->gpa < 4 * GiB && end - 1 >= 0xfec00000) ||
            end - 1 >= 1ULL << 46);
}

static bool is_inside(const struct request *r)
{
    return r->gpa >= fuzz.inner.start && r->gpa < fuzz.inner.end &&
           r->pages <= (fuzz.inner.end - r->gpa) / PAGE_SIZE;
}

/* Whether it can do no harm where all goes well. */
static bool is_allowed(const struct request *r)
{
    if (r->number != HC_MAP_GPA_RANGE || is_inside(r)) {
        return true;
    }
    return r->gpa >= fuzz.area.start &&
           (must_be_refused(r) || !(r->attributes & MAP_GPA_PRIVATE));
}

static void count_status(struct worker *w, int64_t status, uint64_t n)
{
    for (int i = 0; i < MAX_STATUSES; i++) {
        if (!w->statuses[i].count) {
            w->statuses[i].status = status;
        }
        if (w->statuses[i].status == status) {
            w->statuses[i].count += n;
            return;
        }
    }
    w->others += n;
}

static bool is_right(const struct request *r, int64_t status)
{
    switch (r->number) {
    case HC_MAP_GPA_RANGE:
        break;
    case 1:
        return status == 0;
    case 11:
        return status == 0 || status == GUEST_ENOSYS;
    default:
        return status == GUEST_ENOSYS;
    }
    if (must_be_refused(r)) {
        return status == GUEST_EINVAL;
    }
    if (is_inside(r) && (r->attributes & 0xf) <= 2) {
        return status == 0;
    }
    return status == 0 || status == GUEST_EINVAL;
}

static void fuzz_work(unsigned cpu, void *opaque)
{
    struct worker *w = &fuzz.workers[cpu];
    uint64_t size = fuzz.inner.end - fuzz.inner.start;

    (void)opaque;
    for (uint64_t step = 0; step < fuzz.steps; step++) {
        uint64_t r = random_number(&w->random), *word;
        bool any = fuzz.self && (r >> 32) % 32 == 0;
        struct request request;
        int64_t status;

        do {
            request.number = choose_number(random_number(&w->random));
            request.gpa = choose_gpa(w);
            request.pages = choose_pages(w);
            request.attributes = choose_attributes(w);
        } while (!any && !is_allowed(&request));

        if (__atomic_load_n(&fuzz.failed, __ATOMIC_RELAXED)) {
            return;
        }
        status = hypercall(request.number, request.gpa, request.pages,
                           request.attributes);
        count_status(w, status, 1);
        if (!is_right(&request, status)) {
            __atomic_store_n(&fuzz.failed, true, __ATOMIC_RELAXED);
            say("# hypercall %u, %x, %x pages, attributes %x: %d; "
                "seed %u, CPU %u, step %u\n", request.number, request.gpa,
                request.pages, request.attributes, status, fuzz.seed,
                (uint64_t)cpu, step);
        }
        /*
         * Pages that others convert at this very moment are in use, too. What
         * is written is harmless as a part of a virtio descriptor.
         */
        word = (uint64_t *)(fuzz.inner.start + r % size / 8 * 8);
        if (r >> 63) {
            __atomic_store_n(word, r & 0xffffffff00000ff0, __ATOMIC_RELAXED);
        } else {
            __atomic_load_n(word, __ATOMIC_RELAXED);
        }
        if (fuzz.virtio && step % 8 == 0) {
            virtio_fuzz(&w->random);
        }
    }
}

static const char *check_guard(uint64_t start, uint64_t end, bool write)
{
    for (uint64_t *p = (uint64_t *)start; p < (uint64_t *)end; p++) {
        uint64_t want = pattern(p, fuzz.seed);

        if (write) {
            *p = want;
        } else if (*p != want) {
            say("# at %x: %x, not %x; seed %u\n",
                (uintptr_t)p, *p, want, fuzz.seed);
            return "memory that was not asked for has changed";
        }
    }
    return NULL;
}

static const char *fuzz_check_guards(bool write)
{
    return check_guard(fuzz.area.start, fuzz.inner.start, write) ?:
           check_guard(fuzz.inner.end, fuzz.area.end, write);
}

static void say_statuses(void)
{
    struct worker all = { 0 };
    uint64_t sum;

    for (unsigned cpu = 0; cpu < fuzz.n_cpus; cpu++) {
        struct worker *w = &fuzz.workers[cpu];

        all.others += w->others;
        for (int i = 0; i < MAX_STATUSES && w->statuses[i].count; i++) {
            count_status(&all, w->statuses[i].status, w->statuses[i].count);
        }
    }
    sum = all.others;
    for (int i = 0; i < MAX_STATUSES && all.statuses[i].count; i++) {
        sum += all.statuses[i].count;
        say("fuzz: status %d: %u\n",
            all.statuses[i].status, all.statuses[i].count);
    }
    if (all.others) {
        say("fuzz: other statuses: %u\n", all.others);
    }
    say("fuzz: %u hypercalls, seed %u\n", sum, fuzz.seed);
}

static const char *fuzz_run(void)
{
    struct extent *area = &fuzz.area;
    uint64_t guard, pages;
    const char *why;
    int64_t status;

    why = arg_pages("base", "size", &area->start, &area->end) ?:
          arg_dry(area, 1) ?: arg_cpus(&fuzz.n_cpus);
    if (why) {
        return why;
    }
    pages = (area->end - area->start) / PAGE_SIZE;
    if (pages < 32 || area->end > 0xfec00000) {
        return "size= must be 128K at least, and all of it below 0xfec00000";
    }
    guard = pages / 16 * PAGE_SIZE;
    fuzz.inner.start = area->start + guard;
    fuzz.inner.end = area->end - guard;
    fuzz.hole = arg("hole", 0);
    fuzz.self = arg("self", 0);
    fuzz.seed = arg("seed", timestamp() & 0xffffffff);
    fuzz.steps = (arg("count", 100000) + fuzz.n_cpus - 1) / fuzz.n_cpus;
    fuzz.failed = false;
    say("# fuzz: seed %u, %u processors\n", fuzz.seed, (uint64_t)fuzz.n_cpus);
    for (unsigned i = 0; i < MAX_CPUS; i++) {
        fuzz.workers[i] = (struct worker) {
            .random = fuzz.seed + i * 0xd1342543de82ef95,
        };
    }
    status = map_gpa(area->start, pages, 0);
    if (status) {
        say("# status %d\n", status);
        return "the area cannot be converted";
    }
    fuzz_check_guards(true);
    fuzz.virtio = !arg("dry", 0) &&
                  virtio_fuzz_start(fuzz.inner, fuzz.hole, fuzz.self);
    on_all_cpus(fuzz.n_cpus, fuzz_work, NULL);
    virtio_fuzz_end();
    say_statuses();
    if (fuzz.failed) {
        return "a wrong status";
    }
    return fuzz.self ? NULL : fuzz_check_guards(false);
}

static const char *run_fuzz(void)
{
    const char *why = fuzz_run();

    model_end();
    return why;
}

CASE(run_fuzz, "fuzz",
     "base=,size=[,hole=][,count=100000][,seed=][,cpus=][,self=1][,dry=]: "
     "any arguments; what is outside the area keeps its contents");
