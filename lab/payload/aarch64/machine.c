/*
 * The payload on QEMU's "virt": its start, its processors by PSCI, and the
 * cases that make use of it.
 */
#include "payload.h"
#include "arm64.h"

enum {                          /* PSCI's functions */
    PSCI_CPU_ON = 0xc4000003,
    PSCI_SYSTEM_RESET = 0x84000009,
};

enum { PSCI_INVALID_PARAMETERS = -2 };

enum {                          /* tokens of a device tree */
    FDT_BEGIN_NODE = 1,
    FDT_END_NODE = 2,
    FDT_PROPERTY = 3,
    FDT_END = 9,
};

char ap_stacks[MAX_CPUS - 1][AP_STACK_SIZE] __attribute__((aligned(16)));

static int64_t psci(uint64_t function, uint64_t a1, uint64_t a2, uint64_t a3)
{
    register uint64_t x0 asm("x0") = function;
    register uint64_t x1 asm("x1") = a1;
    register uint64_t x2 asm("x2") = a2;
    register uint64_t x3 asm("x3") = a3;

    asm volatile("hvc #0" : "+r"(x0), "+r"(x1), "+r"(x2), "+r"(x3)
                 : : "memory");
    return x0;
}

/* Start */

static uint32_t fdt_number(const void *at)
{
    return __builtin_bswap32(*(const uint32_t *)at);
}

/* "bootargs" of the device tree, or NULL: no other node has such a property. */
static const char *boot_arguments(const void *fdt)
{
    const char *at = (const char *)fdt + fdt_number(fdt + 8);
    const char *names = (const char *)fdt + fdt_number(fdt + 12);

    for (;;) {
        uint32_t token = fdt_number(at), size;
        const char *rest;

        at += 4;
        switch (token) {
        case FDT_BEGIN_NODE:
            while (*at) {
                at++;
            }
            at = (const char *)(((uintptr_t)at + 4) & -4);
            break;
        case FDT_PROPERTY:
            size = fdt_number(at);
            rest = skip_prefix(names + fdt_number(at + 4), "bootargs");
            at += 8;
            if (rest && !*rest) {
                return at;
            }
            at += (size + 3) & -4;
            break;
        case FDT_END:
            return NULL;
        }
    }
}

void start(const void *fdt)
{
    struct start_info info = {
        .command_line = (uintptr_t)boot_arguments(fdt),
    };

    payload_main(&info);
}

/* Exceptions: each is the end, and says where it came from. */

void exception(uint64_t syndrome, uint64_t pc, uint64_t at)
{
    say("not ok %s: exception, syndrome %x, pc %x, address %x, CPU %u\n",
        case_name(), syndrome, pc, at, (uint64_t)this_cpu());
    finish(1);
}

void set_up_traps(void)
{
}

/* Processors */

unsigned this_cpu(void)
{
    uint64_t affinity;

    asm("mrs %0, mpidr_el1" : "=r"(affinity));
    return affinity & 0xff;
}

void prepare_other_cpus(void)
{
}

void reset_other_cpus(void)
{
}

void start_other_cpus(void)
{
    for (uint64_t cpu = 1; cpu < MAX_CPUS; cpu++) {
        if (psci(PSCI_CPU_ON, cpu, (uintptr_t)ap_start, cpu) ==
            PSCI_INVALID_PARAMETERS) {
            break;
        }
    }
}

void set_up_cpu(void)
{
}

void sleep_until_woken(void)
{
    asm volatile("wfe" : : : "memory");
}

void wake_other_cpus(void)
{
    asm volatile("dsb sy; sev" : : : "memory");
}

/*
 * KVM wakes a processor for its timer, whose interrupt no GIC need know of. An
 * emulated one would sleep on.
 */
void doze(void)
{
    uint64_t frequency;

    asm("mrs %0, cntfrq_el0" : "=r"(frequency));
    asm volatile("msr cntv_tval_el0, %0; msr cntv_ctl_el0, %1; isb; wfi;"
                 "msr cntv_ctl_el0, xzr"
                 : : "r"(frequency / 100), "r"(1ULL) : "memory");
}

/* What there is none of */

int64_t kvm_hypercall(uint64_t number, uint64_t a0, uint64_t a1, uint64_t a2)
{
    (void)number, (void)a0, (void)a1, (void)a2;
    return GUEST_ENOSYS;
}

uint64_t twin_of(uint64_t at)
{
    return at;
}

void turn_shadow_ram(void)
{
}

/* Cases */

/* Boots count= more times; a byte of memory, which resets leave, counts. */
static const char *run_reset(void)
{
    /* Where neither QEMU nor the payload has anything */
    volatile uint8_t *boots = (uint8_t *)RAM_START + (1 << 20);

    say("boot %u\n", (uint64_t)*boots);
    if (*boots == arg("count", 1)) {
        *boots = 0;
        return NULL;
    }
    ++*boots;
    psci(PSCI_SYSTEM_RESET, 0, 0, 0);
    return "PSCI does not reset the machine";
}

CASE(run_reset, "reset", "[count=1]: resets the machine count times");

void wait_for_test(const char *word)
{
    serial_set_up();
    say("%s\n", word);
    while (!serial_has_byte()) {
        doze();
    }
    serial_byte();
}

static const char *run_wait(void)
{
    wait_for_test("waiting");
    return NULL;
}

CASE(run_wait, "wait", "for a byte on the serial port");
