/*
 * The payload's other processors: started when a case first asks for them, then
 * halted until there is something to run.
 */
#include "payload.h"

enum {                          /* the local APIC's registers */
    APIC_EOI = 0xb0,
    APIC_SPURIOUS = 0xf0,
    APIC_COMMAND = 0x300,
};

enum {                          /* commands, to all processors but this one */
    OTHERS_FIXED = 0xc4000,
    OTHERS_INIT = 0xc4500,
    OTHERS_START = 0xc4600,
};

char ap_stacks[MAX_CPUS - 1][AP_STACK_SIZE] __attribute__((aligned(16)));

static struct {
    void (*function)(unsigned cpu, void *opaque);
    void *opaque;
    unsigned cpus;
    unsigned number;            /* of the job: a new one is to be run */
    unsigned done;              /* processors, the first not counted */
} job;

static unsigned ready;          /* processors, the first not counted */
static bool x2apic;

static void write_msr(uint32_t msr, uint64_t value)
{
    asm volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value),
                 "d"((uint32_t)(value >> 32)) : "memory");
}

static uint64_t read_msr(uint32_t msr)
{
    uint32_t low, high;
    asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return (uint64_t)high << 32 | low;
}

static void write_apic(unsigned reg, uint32_t value)
{
    if (x2apic) {
        write_msr(0x800 + reg / 16, value);
    } else {
        /* A plain store: KVM has few instructions that it can emulate. */
        asm volatile("movl %0, (%1)"
                     : : "r"(value), "r"(0xfee00000ULL + reg) : "memory");
    }
}

static void enable_apic(void)
{
    if (x2apic) {
        write_msr(0x1b, read_msr(0x1b) | 0xc00);
    }
    write_apic(APIC_SPURIOUS, 0x1ff);
}

__attribute__((interrupt)) void wake_entry(struct interrupt_frame *frame)
{
    (void)frame;
    write_apic(APIC_EOI, 0);
}

unsigned this_cpu(void)
{
    uintptr_t at = (uintptr_t)__builtin_frame_address(0);
    uintptr_t first = (uintptr_t)ap_stacks;

    if (at < first || at >= first + sizeof(ap_stacks)) {
        return 0;
    }
    return 1 + (at - first) / AP_STACK_SIZE;
}

void ap_main(unsigned cpu)
{
    unsigned seen = 0;

    load_idt();
    enable_apic();
    __atomic_fetch_add(&ready, 1, __ATOMIC_RELEASE);
    for (;;) {
        while (__atomic_load_n(&job.number, __ATOMIC_ACQUIRE) == seen) {
            /* A wake-up that comes before the hlt waits for the sti. */
            asm volatile("sti; hlt; cli" : : : "memory");
        }
        seen++;
        if (cpu < job.cpus) {
            job.function(cpu, job.opaque);
        }
        __atomic_fetch_add(&job.done, 1, __ATOMIC_RELEASE);
    }
}

static bool wait_until_ready(unsigned n, uint64_t cycles)
{
    uint64_t start = rdtsc();

    while (__atomic_load_n(&ready, __ATOMIC_ACQUIRE) != n) {
        if (rdtsc() - start > cycles) {
            return false;
        }
        pause();
    }
    return true;
}

static bool start_cpus(unsigned others)
{
    uint32_t regs[4];

    cpuid(1, regs);
    x2apic = regs[2] >> 21 & 1;
    enable_apic();
    if (ready == others) {
        return true;
    }
    for (size_t i = 0; i < (size_t)(trampoline_end - trampoline); i++) {
        ((char *)TRAMPOLINE)[i] = trampoline[i];
    }
    write_apic(APIC_COMMAND, OTHERS_INIT);
    wait_until_ready(others, 10000000);
    write_apic(APIC_COMMAND, OTHERS_START | TRAMPOLINE >> 12);
    if (wait_until_ready(others, 1000000000)) {
        return true;
    }
    /* Lost, or just slow; one that has started does not heed it. */
    write_apic(APIC_COMMAND, OTHERS_START | TRAMPOLINE >> 12);
    return wait_until_ready(others, 100000000000);
}

const char *arg_cpus(unsigned *cpus)
{
    unsigned there;
    uint64_t wanted;

    outw(0x510, 5);             /* fw_cfg: the number of processors */
    there = inb(0x511);
    there |= inb(0x511) << 8;
    there = there < MAX_CPUS ? there : MAX_CPUS;
    wanted = arg("cpus", there);
    if (!wanted || wanted > there) {
        say("# there are %u processors (%u at most)\n",
            (uint64_t)there, (uint64_t)MAX_CPUS);
        return "cpus= is more than there are";
    }
    if (wanted > 1 && !start_cpus(there - 1)) {
        say("# %u of %u are ready\n",
            (uint64_t)__atomic_load_n(&ready, __ATOMIC_RELAXED),
            (uint64_t)there - 1);
        return "the other processors do not start";
    }
    *cpus = wanted;
    return NULL;
}

void start_others(unsigned n, void (*function)(unsigned cpu, void *opaque),
                  void *opaque)
{
    job.function = function;
    job.opaque = opaque;
    job.cpus = n;
    job.done = 0;
    __atomic_fetch_add(&job.number, 1, __ATOMIC_RELEASE);
    write_apic(APIC_COMMAND, OTHERS_FIXED | WAKE_VECTOR);
}

void wait_for_others(void)
{
    while (__atomic_load_n(&job.done, __ATOMIC_ACQUIRE) != ready) {
        pause();
    }
}

void on_all_cpus(unsigned n, void (*function)(unsigned cpu, void *opaque),
                 void *opaque)
{
    if (n > 1) {
        start_others(n, function, opaque);
    }
    function(0, opaque);
    if (n > 1) {
        wait_for_others();
    }
}

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

const char *run_smp(void)
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
