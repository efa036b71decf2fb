/*
 * The payload: a bare-metal guest that runs test cases.
 *
 * What a case has at hand. A case is a function with a line in the table in
 * cases.c; it returns NULL for success, or in a few words what went wrong.
 */
#ifndef GMEM_LAB_PAYLOAD_H
#define GMEM_LAB_PAYLOAD_H

#define MAX_CPUS 16
#define AP_STACK_SIZE 16384
#define TRAMPOLINE 0x8000       /* where the other processors start, and wake */
#define RESUME_INFO 0x9000      /* the start info after a wake-up */

#ifndef __ASSEMBLER__

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_SIZE 4096
#define WAKE_VECTOR 32

struct start_info {             /* Xen's hvm_start_info */
    uint32_t magic, version, flags, nr_modules;
    uint64_t modules, command_line, rsdp;
};

struct test_case {
    const char *name;
    const char *(*run)(void);
    const char *help;
};

extern const struct test_case cases[];      /* ends with a NULL name */

extern const char exception_entries[32][16];    /* in start.S */
extern const char trampoline[], trampoline_end[];   /* in smp.S */
extern const char resume[], resume_end[];
extern char payload_end[];                      /* from the linker script */

/* main.c */

/* Runs a list of cases, and says how each ended; returns how many failed. */
uint64_t run_cases(const char *s);

/* A number of the case that runs, as in "fill,base=1G,size=0x1000". */
uint64_t arg(const char *key, uint64_t otherwise);

/*
 * To the debug port, from any processor; lines of several do not mix. Knows
 * %s, %u, %d and %x; numbers are uint64_t or int64_t.
 */
void say(const char *format, ...);

/* The cases after the one that runs. */
const char *cases_left(void);

/* base= and size= of the case: RAM that does not hold the payload itself. */
const char *arg_range(uint64_t **start, uint64_t **end);

/* The same for any range. */
const char *check_range(uint64_t base, uint64_t size,
                        uint64_t **start, uint64_t **end);

void load_idt(void);

/* cases.c */

/* The pattern: what a word at an address has, by seed. */
uint64_t pattern(const uint64_t *at, uint64_t seed);

/* Writes the pattern; checks it: NULL, or what is wrong. */
void fill(uint64_t start, uint64_t end, uint64_t seed);
const char *check_filled(uint64_t start, uint64_t end, uint64_t seed);

/*
 * Q35's shadow RAM below 1 MiB becomes one with the RAM above it, and parts with
 * it again: each time QEMU takes all of low memory out of KVM and VFIO, and puts
 * it back.
 */
void turn_shadow_ram(void);

/* smp.c */

typedef uint32_t spinlock;

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

unsigned this_cpu(void);

struct interrupt_frame;
void wake_entry(struct interrupt_frame *frame);
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

static inline int64_t map_gpa(uint64_t gpa, uint64_t pages, uint64_t attributes)
{
    return hypercall(HC_MAP_GPA_RANGE, gpa, pages, attributes);
}

/* KVM_FEATURE_HC_MAP_GPA_RANGE in the CPUID leaves of KVM. */
bool has_map_gpa(void);

/* As arg_range() for conversions, which are of whole pages. */
const char *arg_pages(const char *base_key, const char *size_key,
                      uint64_t *start, uint64_t *end);

/* One request, which must succeed. */
const char *convert(uint64_t start, uint64_t end, bool private);

const char *check_zero(uint64_t start, uint64_t end);

/* model.c */

struct extent {
    uint64_t start, end;
};

/*
 * dry= of the case: 0: conversions are KVM's; else a model's, in which these
 * extents are all the RAM there is. 1: a right one; 2: it forgets to zero a
 * page now and then, and does not see overflows; 3: processors can lose each
 * other's changes. So it is seen that a case finds what is wrong.
 */
const char *arg_dry(const struct extent *ram, unsigned n);

/* Whether there is a model, and what it says. */
bool model_hypercall(uint64_t number, uint64_t a0, uint64_t a1, uint64_t a2,
                     int64_t *status);

void model_end(void);           /* at a case's end */

/*
 * Memory behind the payload, zeroed, until the case's end. NULL if there is not
 * as much below the limit.
 */
void *scratch(size_t size, uint64_t limit);

/* virtio-fuzz.c */

/*
 * Whether there are virtio devices for the fuzzer, and one step with one of
 * them: requests in rings that are anywhere in the area, or elsewhere.
 */
bool virtio_fuzz_start(struct extent area, uint64_t hole, bool self);
void virtio_fuzz(uint64_t *random);
void virtio_fuzz_end(void);

/* Cases of other files than cases.c */
const char *run_smp(void);
const char *run_cpuid_map_gpa(void);
const char *run_convert(void);
const char *run_zero(void);
const char *run_private_share(void);
const char *run_self(void);
const char *run_dma(void);
const char *run_edu(void);
const char *run_virtio(void);
const char *run_balloon(void);
const char *run_report(void);
const char *run_hint(void);
const char *run_ring(void);
const char *run_flush(void);
const char *run_bar(void);
const char *run_requests(void);
const char *run_storm(void);
const char *run_fuzz(void);
const char *run_bench(void);
const char *run_churn(void);
const char *run_suspend(void);
const char *run_serve(void);
const char *run_toggle(void);
const char *run_calm(void);

/* Instructions */

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

static inline void outl(uint16_t port, uint32_t value)
{
    asm volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void outw(uint16_t port, uint16_t value)
{
    asm volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint32_t inl(uint16_t port)
{
    uint32_t value;
    asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

/* Configuration space of a device on PCI bus 0, function 0 */

static inline uint32_t pci_read(uint32_t slot, uint32_t offset)
{
    outl(0xcf8, 1u << 31 | slot << 11 | offset);
    return inl(0xcfc);
}

static inline void pci_write(uint32_t slot, uint32_t offset, uint32_t value)
{
    outl(0xcf8, 1u << 31 | slot << 11 | offset);
    outl(0xcfc, value);
}

static inline uint64_t rdtsc(void)
{
    uint32_t low, high;
    asm volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

static inline void cpuid(uint32_t leaf, uint32_t regs[4])
{
    asm volatile("cpuid"
                 : "=a"(regs[0]), "=b"(regs[1]), "=c"(regs[2]), "=d"(regs[3])
                 : "a"(leaf), "c"(0));
}

static inline void pause(void)
{
    asm volatile("pause" : : : "memory");
}

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
#endif
