/*
 * The payload's storm of conversions: all processors convert at once, check
 * that each page has what it must have, and mark pages anew.
 *
 * What is to be expected is known at any time: a note per page says its state
 * and its mark. A request changes only pages whose locks it has. There is one
 * for 64 KiB: QEMU and KVM keep the state of many more pages in one word, so
 * that different processors change the same word at the same time.
 */
#include "payload.h"

#define PAGES_PER_LOCK 16
#define MOST_PAGES_BITS 10      /* 4 MiB */

enum {                          /* a page's note; the mark's number is above */
    NOTE_PRIVATE = 1,
    NOTE_MARKED = 2,            /* else it is zero */
    NOTE_NUMBER = 4,
};

struct area {
    struct extent at;
    uint32_t *notes;
    spinlock *locks;
};

struct worker {
    uint64_t random, step;
    uint64_t at;                /* where it converts, for others to disturb */
    uint64_t requests, refused, pages;
} __attribute__((aligned(64)));

static struct {
    struct area areas[2];       /* by address */
    unsigned n_areas, n_cpus;
    struct extent hole;
    uint64_t seed, steps;
    uint64_t shadows;           /* turned over after so many steps; 0: never */
    bool failed;
    struct worker workers[MAX_CPUS];
} storm;

static uint64_t mark(uint64_t at, uint32_t note)
{
    if (!(note & NOTE_MARKED)) {
        return 0;
    }
    return pattern((uint64_t *)at, storm.seed + note / NOTE_NUMBER) | 1;
}

static void set_mark(uint64_t at, uint32_t *note)
{
    uint64_t *page = (uint64_t *)at;

    *note = (*note + NOTE_NUMBER) | NOTE_MARKED;
    page[0] = page[PAGE_SIZE / 8 - 1] = mark(at, *note);
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static bool failed(void)
{
    return __atomic_load_n(&storm.failed, __ATOMIC_RELAXED);
}

static bool check_word(unsigned cpu, uint64_t at, uint64_t want, uint32_t note,
                       const char *when)
{
    uint64_t value = *(uint64_t *)at;

    if (value == want) {
        return true;
    }
    __atomic_store_n(&storm.failed, true, __ATOMIC_RELAXED);
    say("# at %x (%s), %s: %x, not %x; seed %u, CPU %u, step %u\n", at,
        note & NOTE_PRIVATE ? "private" : "shared", when, value, want,
        storm.seed, (uint64_t)cpu, storm.workers[cpu].step);
    return false;
}

/* The marks, and one other word; or all. */
static bool check_page(unsigned cpu, uint64_t at, uint32_t note, bool all,
                       const char *when)
{
    uint64_t want = mark(at, note), last = at + PAGE_SIZE - 8;
    uint64_t first = at + 8, end = last;

    if (!all) {
        uint64_t r = random_number(&storm.workers[cpu].random);
        first = at + 8 + r % (PAGE_SIZE / 8 - 2) * 8;
        end = first + 8;
    }
    if (!check_word(cpu, at, want, note, when) ||
        !check_word(cpu, last, want, note, when)) {
        return false;
    }
    for (; first < end; first += 8) {
        if (!check_word(cpu, first, 0, note, when)) {
            return false;
        }
    }
    return true;
}

static uint32_t *note_of(const struct area *area, uint64_t at)
{
    return &area->notes[(at - area->at.start) / PAGE_SIZE];
}

/* Locks are aligned by address. */
static spinlock *lock_of(const struct area *area, uint64_t at)
{
    const uint64_t size = PAGES_PER_LOCK * PAGE_SIZE;

    return &area->locks[at / size - area->at.start / size];
}

static uint64_t random_page(struct worker *w, struct extent in)
{
    uint64_t pages = (in.end - in.start) / PAGE_SIZE;

    return in.start + random_number(&w->random) % pages * PAGE_SIZE;
}

static bool check_some_pages(unsigned cpu)
{
    struct worker *w = &storm.workers[cpu];
    uint64_t r = random_number(&w->random);
    const struct area *area = &storm.areas[r % storm.n_areas];
    uint64_t at = random_page(w, area->at), end = area->at.end;
    spinlock *lock = lock_of(area, at);
    bool good = true;

    spin_lock(lock);
    for (; good && at < end && lock_of(area, at) == lock; at += PAGE_SIZE) {
        good = check_page(cpu, at, *note_of(area, at), false, "looked at");
    }
    spin_unlock(lock);
    return good;
}

/*
 * Read, without a lock, what another processor may convert at this very moment.
 * KVM can then find a fault that was for the state before, and leaves it to
 * QEMU to go on; whoever took it for a wish to convert the page back would undo
 * the other's conversion. The value can be anything.
 */
static void disturb(struct worker *w)
{
    struct worker *other =
        &storm.workers[random_number(&w->random) % storm.n_cpus];

    for (int i = 0; i < 8; i++) {
        uint64_t at = __atomic_load_n(&other->at, __ATOMIC_RELAXED);

        if (at) {
            __atomic_load_n((uint64_t *)at, __ATOMIC_RELAXED);
        }
    }
}

/* All that is mapped without a gap around an extent. */
static struct extent span_around(struct extent at)
{
    for (int again = 0; again < 2; again++) {
        for (unsigned i = 0; i <= storm.n_areas; i++) {
            struct extent e = storm.hole;

            if (i < storm.n_areas) {
                e = storm.areas[i].at;
            }
            if (e.start == e.end) {
                continue;
            }
            if (e.start == at.end) {
                at.end = e.end;
            } else if (e.end == at.start) {
                at.start = e.start;
            }
        }
    }
    return at;
}

/* Mostly small; may begin in an area and end in the other or in the hole. */
static struct extent choose(struct worker *w)
{
    uint64_t r = random_number(&w->random);
    uint64_t most = 1ULL << __builtin_ctzll(r | 1ULL << MOST_PAGES_BITS);
    uint64_t size = (1 + random_number(&w->random) % most) * PAGE_SIZE;
    struct extent in, span, chosen;
    uint64_t at;

    r >>= 32;
    if (storm.hole.start != storm.hole.end && r % 16 == 0) {
        in = storm.hole;
    } else {
        in = storm.areas[(r >> 4) % storm.n_areas].at;
    }
    span = span_around(in);
    at = random_page(w, in);
    if (r >> 8 & 1) {           /* its first page, or its last one */
        chosen.start = at;
        chosen.end = smaller(span.end, at + size);
    } else {
        chosen.end = at + PAGE_SIZE;
        chosen.start = chosen.end - smaller(chosen.end - span.start, size);
    }
    return chosen;
}

/* An area's part of a request. */
static struct extent part_of(const struct area *area, struct extent request)
{
    struct extent part = {
        larger(area->at.start, request.start),
        smaller(area->at.end, request.end),
    };

    if (part.start >= part.end) {
        part.start = part.end = area->at.start;
    }
    return part;
}

static void lock_all(struct extent request, bool lock)
{
    for (unsigned i = 0; i < storm.n_areas; i++) {
        const struct area *area = &storm.areas[i];
        struct extent part = part_of(area, request);
        spinlock *l, *last;

        if (part.start == part.end) {
            continue;
        }
        last = lock_of(area, part.end - 1);
        for (l = lock_of(area, part.start); l <= last; l++) {
            if (lock) {
                spin_lock(l);
            } else {
                spin_unlock(l);
            }
        }
    }
}

/*
 * What has changed is zero, what has not is as it was, and in place all is as
 * it was; then some new marks.
 */
static bool check_request(unsigned cpu, struct extent request,
                          bool private, bool refused)
{
    struct worker *w = &storm.workers[cpu];
    uint64_t r = random_number(&w->random);

    for (unsigned i = 0; i < storm.n_areas; i++) {
        const struct area *area = &storm.areas[i];
        struct extent part = part_of(area, request);
        const char *when = "as before";

        for (uint64_t at = part.start; at < part.end; at += PAGE_SIZE) {
            uint32_t *note = note_of(area, at);

            if (!refused && (*note & NOTE_PRIVATE) != private) {
                *note ^= NOTE_PRIVATE;
                if (!converts_in_place) {
                    *note &= ~NOTE_MARKED;
                }
                when = "converted";
                w->pages++;
            }
            if (!check_page(cpu, at, *note, r % 32 == 0, when)) {
                return false;
            }
            r = r >> 1 | r << 63;
            if (r & 1) {
                set_mark(at, note);
            }
        }
    }
    return true;
}

static bool make_request(unsigned cpu)
{
    struct worker *w = &storm.workers[cpu];
    struct extent e = choose(w);
    bool private = random_number(&w->random) & 1;
    bool in_hole = e.start < storm.hole.end && e.end > storm.hole.start;
    int64_t want = private && in_hole ? GUEST_EINVAL : 0, status;
    bool good;

    lock_all(e, true);
    __atomic_store_n(&w->at, in_hole ? 0 : e.start, __ATOMIC_RELAXED);
    status = map_gpa(e.start, (e.end - e.start) / PAGE_SIZE,
                     private ? MAP_GPA_PRIVATE : 0);
    good = status == want;
    if (!good) {
        __atomic_store_n(&storm.failed, true, __ATOMIC_RELAXED);
        say("# %x to %x to %s: %d, not %d; seed %u, CPU %u, step %u\n",
            e.start, e.end, private ? "private" : "shared", status, want,
            storm.seed, (uint64_t)cpu, w->step);
    } else {
        good = check_request(cpu, e, private, want != 0);
    }
    lock_all(e, false);
    w->requests++;
    w->refused += want != 0;
    return good;
}

static void storm_work(unsigned cpu, void *opaque)
{
    struct worker *w = &storm.workers[cpu];

    (void)opaque;
    for (w->step = 0; w->step < storm.steps && !failed(); w->step++) {
        if (!cpu && storm.shadows && w->step % storm.shadows == 0) {
            turn_shadow_ram();
        }
        if (!make_request(cpu)) {
            return;
        }
        disturb(w);
        if (w->step % 32 == 31 && !check_some_pages(cpu)) {
            return;
        }
    }
}

/* Each processor has its share of the pages. */
static void first_marks(unsigned cpu, void *opaque)
{
    (void)opaque;
    for (unsigned i = 0; i < storm.n_areas; i++) {
        const struct area *area = &storm.areas[i];

        for (uint64_t at = area->at.start + cpu * PAGE_SIZE; at < area->at.end;
             at += storm.n_cpus * PAGE_SIZE) {
            for (unsigned j = 0; j < PAGE_SIZE / 8; j++) {
                ((uint64_t *)at)[j] = 0;
            }
            set_mark(at, note_of(area, at));
        }
    }
}

static void check_all(unsigned cpu, void *opaque)
{
    (void)opaque;
    for (unsigned i = 0; i < storm.n_areas && !failed(); i++) {
        const struct area *area = &storm.areas[i];

        for (uint64_t at = area->at.start + cpu * PAGE_SIZE; at < area->at.end;
             at += storm.n_cpus * PAGE_SIZE) {
            uint32_t note = *note_of(area, at);

            if (!check_page(cpu, at, note, true, "at the end")) {
                return;
            }
        }
    }
}

/*
 * The guest's view, for the test to compare with QEMU's: a bit for each of 64
 * pages. All pages get a mark, so that QEMU cannot take a shared one for zeros.
 */
static void show(void)
{
    for (unsigned i = 0; i < storm.n_areas; i++) {
        const struct area *area = &storm.areas[i];
        uint64_t bits = 0, first = area->at.start;

        for (uint64_t at = first; at < area->at.end; at += PAGE_SIZE) {
            uint32_t *note = note_of(area, at);
            uint64_t n = (at - first) / PAGE_SIZE;

            set_mark(at, note);
            bits |= (uint64_t)!!(*note & NOTE_PRIVATE) << n;
            if (n == 63 || at + PAGE_SIZE == area->at.end) {
                say("private %x %x\n", first, bits);
                bits = 0;
                first = at + PAGE_SIZE;
            }
        }
    }
}

static bool overlap(struct extent a, struct extent b)
{
    return a.start < b.end && b.start < a.end;
}

static const char *arg_areas(void)
{
    struct extent ram[2];
    const char *why = arg_pages("base", "size", &ram[0].start, &ram[0].end);

    storm.n_areas = 1;
    if (!why && arg("size2", 0)) {
        why = arg_pages("base2", "size2", &ram[1].start, &ram[1].end);
        storm.n_areas = 2;
    }
    if (why) {
        return why;
    }
    storm.hole.start = arg("hole", 0);
    storm.hole.end = storm.hole.start + arg("holesize", 0);
    if ((storm.hole.start | storm.hole.end) % PAGE_SIZE ||
        storm.hole.end < storm.hole.start) {
        return "hole= and holesize= must name whole pages";
    }
    /* Locks are taken in the order of addresses; notes lie below all areas. */
    if (storm.n_areas == 2 && ram[1].start < ram[0].start) {
        return "base2= must be above base=";
    }
    if ((storm.n_areas == 2 && overlap(ram[0], ram[1])) ||
        overlap(ram[0], storm.hole) ||
        (storm.n_areas == 2 && overlap(ram[1], storm.hole))) {
        return "areas and hole must not overlap";
    }
    why = arg_dry(ram, storm.n_areas);
    for (unsigned i = 0; !why && i < storm.n_areas; i++) {
        struct area *area = &storm.areas[i];
        uint64_t pages = (ram[i].end - ram[i].start) / PAGE_SIZE;

        area->at = ram[i];
        area->notes = scratch(pages * sizeof(*area->notes), ram[0].start);
        area->locks = scratch((pages / PAGES_PER_LOCK + 2) * sizeof(spinlock),
                              ram[0].start);
        if (!area->notes || !area->locks) {
            why = "no room for notes below base=";
        }
    }
    return why;
}

static const char *storm_run(void)
{
    uint64_t requests = 0, refused = 0, pages = 0, count = arg("count", 100000);
    const char *why = arg_areas() ?: arg_cpus(&storm.n_cpus);

    if (why) {
        return why;
    }
    storm.failed = false;
    storm.seed = arg("seed", timestamp() & 0xffffffff);
    storm.shadows = arg("shadows", 0);
    storm.steps = (count + storm.n_cpus - 1) / storm.n_cpus;
    say("# storm: seed %u, %u processors\n", storm.seed,
        (uint64_t)storm.n_cpus);
    for (unsigned i = 0; i < MAX_CPUS; i++) {
        storm.workers[i] = (struct worker) {
            .random = storm.seed + i * 0xd1342543de82ef95,
        };
    }
    for (unsigned i = 0; i < storm.n_areas; i++) {
        struct extent at = storm.areas[i].at;
        int64_t status = map_gpa(at.start, (at.end - at.start) / PAGE_SIZE, 0);

        if (status) {
            say("# %x to %x to shared: %d\n", at.start, at.end, status);
            return "an area cannot be converted";
        }
    }
    on_all_cpus(storm.n_cpus, first_marks, NULL);
    on_all_cpus(storm.n_cpus, storm_work, NULL);
    if (!failed()) {
        on_all_cpus(storm.n_cpus, check_all, NULL);
    }
    if (!failed() && arg("show", 0)) {
        show();
    }
    for (unsigned i = 0; i < MAX_CPUS; i++) {
        requests += storm.workers[i].requests;
        refused += storm.workers[i].refused;
        pages += storm.workers[i].pages;
    }
    say("storm: %u conversions, %u refused, %u pages converted, seed %u\n",
        requests, refused, pages, storm.seed);
    return failed() ? "a conversion went wrong" : NULL;
}

static const char *run_storm(void)
{
    const char *why = storm_run();

    model_end();
    return why;
}

CASE(run_storm, "storm",
     "base=,size=[,base2=,size2=][,hole=,holesize=][,count=100000][,seed=]"
     "[,cpus=][,shadows=STEPS][,show=1][,dry=]: all processors convert, and "
     "check all contents");
