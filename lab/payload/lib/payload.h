/*
 * The payload: a bare-metal guest that runs test cases.
 *
 * What a case has at hand. A case is a function that returns NULL for success,
 * or in a few words what went wrong; CASE() behind it makes it known. What the
 * processor and the machine give to all of it is in processor.h, of which each
 * architecture has one.
 */
#ifndef GMEM_LAB_PAYLOAD_H
#define GMEM_LAB_PAYLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "processor.h"

#define PAGE_SIZE 4096

struct start_info {             /* Xen's hvm_start_info */
    uint32_t magic, version, flags, nr_modules;
    uint64_t modules, command_line, rsdp;
};

struct test_case {
    const char *name;
    const char *(*run)(void);
    const char *help;
};

#define CASE(function, name, help)                                          \
    static const struct test_case function##_case = {                       \
        name, function, help                                                \
    };                                                                      \
    static const struct test_case *const function##_entry                   \
        __attribute__((used, section("cases"))) = &function##_case

/* From the linker script */
extern const struct test_case *const cases_start[], *const cases_end[];
extern char payload_start[], payload_end[];

/* main.c */

/* What all begins with; info may be NULL. */
void payload_main(const struct start_info *info);

/* Runs a list of cases, and says how each ended; returns how many failed. */
uint64_t run_cases(const char *s);

typedef uint32_t spinlock;

/* runtime.c */

/*
 * To the debug port, from any processor; lines of several do not mix. Knows
 * %s, %u, %d and %x; numbers are uint64_t or int64_t.
 */
void say(const char *format, ...);

_Noreturn void finish(uint64_t failed);

/* words.c */

bool is_space(char c);

/* Where the text after the prefix goes on, or NULL. */
const char *skip_prefix(const char *text, const char *prefix);

/* The word's case is the one that runs; returns its name. */
const char *begin_case(const char *word);

const char *case_name(void);

/* The cases after the one that runs. */
const char *cases_left(void);

/* A number of the case that runs, as in "fill,base=1G,size=0x1000". */
uint64_t arg(const char *key, uint64_t otherwise);

/*
 * base= and size= of the case: RAM that does not hold the payload itself. base=
 * counts from where RAM begins.
 */
const char *arg_range(uint64_t **start, uint64_t **end);

/* The same for conversions, which are of whole pages. */
const char *arg_pages(const char *base_key, const char *size_key,
                      uint64_t *start, uint64_t *end);

/* The same for any range. */
const char *check_range(uint64_t base, uint64_t size,
                        uint64_t **start, uint64_t **end);

/* memory.c */

/* The pattern: what a word at an address has, by seed. */
uint64_t pattern(const uint64_t *at, uint64_t seed);

/* Writes the pattern; checks it: NULL, or what is wrong. */
void fill(uint64_t start, uint64_t end, uint64_t seed);
const char *check_filled(uint64_t start, uint64_t end, uint64_t seed);

const char *check_zero(uint64_t start, uint64_t end);

/*
 * Memory behind the payload, zeroed, until scratch_end(). NULL if there is not
 * as much below the limit.
 */
void *scratch(size_t size, uint64_t limit);
void scratch_end(void);

/* smp.c */

/*
 * cpus= of the case, or all there are, MAX_CPUS at most; starts them. NULL, or
 * why not.
 */
const char *arg_cpus(unsigned *cpus);

/* Runs a function on the first n processors at once; returns after the last. */
void on_all_cpus(unsigned n, void (*function)(unsigned cpu, void *opaque),
                 void *opaque);

/*
 * The same on the first n but this one, and returns at once; returns after the
 * last.
 */
void start_others(unsigned n, void (*function)(unsigned cpu, void *opaque),
                  void *opaque);
void wait_for_others(void);

/* Where a processor starts, after the first; the architecture calls it. */
void ap_main(unsigned cpu);

/* convert.c */

enum {
    HC_MAP_GPA_RANGE = 12,
    MAP_GPA_PRIVATE = 0x10,
    GUEST_EBUSY = -16,          /* KVM's statuses for guests */
    GUEST_EINVAL = -22,
    GUEST_ENOSYS = -1000,
};

/* A hypercall; of the model instead, when the case has one. */
int64_t hypercall(uint64_t number, uint64_t a0, uint64_t a1, uint64_t a2);

int64_t map_gpa(uint64_t gpa, uint64_t pages, uint64_t attributes);

/* One request, which must succeed. */
const char *convert(uint64_t start, uint64_t end, bool private);

/* Do pages keep their contents when they are converted? The case "in-place". */
extern bool converts_in_place;

/*
 * After a conversion of pages that were filled: are they zero, or, in place,
 * do they still have the pattern?
 */
const char *check_converted(uint64_t start, uint64_t end, uint64_t seed);

/* model.c */

struct extent {
    uint64_t start, end;
};

/*
 * dry= of the case: 0: conversions are KVM's; else a model's, in which these
 * extents are all the RAM there is. 1: a right one; 2: it forgets to zero a
 * page now and then (in place: zeroes one), and does not see overflows; 3:
 * processors can lose each other's changes. So it is seen that a case finds
 * what is wrong.
 */
const char *arg_dry(const struct extent *ram, unsigned n);

/* Whether there is a model, and what it says. */
bool model_hypercall(uint64_t number, uint64_t a0, uint64_t a1, uint64_t a2,
                     int64_t *status);

void model_end(void);           /* at a case's end; of scratch() as well */

/* Inline */

static inline void spin_lock(spinlock *lock)
{
    while (__atomic_exchange_n(lock, 1, __ATOMIC_ACQUIRE)) {
        while (__atomic_load_n(lock, __ATOMIC_RELAXED)) {
            pause();
        }
    }
}

static inline void spin_unlock(spinlock *lock)
{
    __atomic_store_n(lock, 0, __ATOMIC_RELEASE);
}

/* A random number, of the splitmix64 generator. */
static inline uint64_t random_number(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

#endif
