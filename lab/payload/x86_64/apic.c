/*
 * The payload's other processors, by the local APIC: how they start and wake.
 * While the payload's code is private they cannot halt, nor reach the APIC, so
 * they just look for work.
 */
#include "payload.h"
#include "x86.h"

enum {                          /* the local APIC's registers */
    APIC_EOI = 0xb0,
    APIC_SPURIOUS = 0xf0,
    APIC_COMMAND = 0x300,
    APIC_TIMER = 0x320,
    APIC_PIC = 0x350,
    APIC_TIMER_COUNT = 0x380,
    APIC_TIMER_DIVIDE = 0x3e0,
};

/* The PIC's interrupts are not for us. */
#define APIC_MASKED 0x10000
#define DIVIDE_BY_1 0xb

/* Ten milliseconds, as KVM's and QEMU's timers have 1 GHz */
#define DOZE_COUNT 10000000

enum {                          /* commands, to all processors but this one */
    OTHERS_FIXED = 0xc4000,
    OTHERS_INIT = 0xc4500,
    OTHERS_START = 0xc4600,
};

struct interrupt_frame;

static bool prepared, x2apic;

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

static __attribute__((interrupt))
void wake_entry(struct interrupt_frame *frame)
{
    (void)frame;
    write_apic(APIC_EOI, 0);
}

void set_up_cpu(void)
{
    load_idt();
    if (code_is_private) {
        return;
    }
    if (x2apic) {
        write_msr(0x1b, read_msr(0x1b) | 0xc00);
    }
    write_apic(APIC_SPURIOUS, 0x1ff);
    write_apic(APIC_PIC, APIC_MASKED);
}

void prepare_other_cpus(void)
{
    uint32_t regs[4];

    if (!code_is_private) {
        cpuid(1, regs);
        x2apic = regs[2] >> 21 & 1;
    }
    set_gate(WAKE_VECTOR, (uintptr_t)wake_entry);
    prepared = true;
    set_up_cpu();
}

void reset_other_cpus(void)
{
    if (code_is_private) {
        return;
    }
    __builtin_memcpy((void *)TRAMPOLINE, trampoline,
                     trampoline_end - trampoline);
    write_apic(APIC_COMMAND, OTHERS_INIT);
}

void start_other_cpus(void)
{
    if (code_is_private) {
        let_others_start();
        return;
    }
    write_apic(APIC_COMMAND, OTHERS_START | TRAMPOLINE >> 12);
}

void wake_other_cpus(void)
{
    if (!code_is_private) {
        write_apic(APIC_COMMAND, OTHERS_FIXED | WAKE_VECTOR);
    }
}

void sleep_until_woken(void)
{
    if (code_is_private) {
        pause();
        return;
    }
    /* A wake-up that comes before the hlt waits for the sti. */
    asm volatile("sti; hlt; cli" : : : "memory");
}

void doze(void)
{
    if (code_is_private) {
        pause();
        return;
    }
    if (prepared) {
        set_up_cpu();       /* a suspension takes it all away */
    } else {
        prepare_other_cpus();
    }
    write_apic(APIC_TIMER_DIVIDE, DIVIDE_BY_1);
    write_apic(APIC_TIMER, WAKE_VECTOR);
    write_apic(APIC_TIMER_COUNT, DOZE_COUNT);
    sleep_until_woken();
}
