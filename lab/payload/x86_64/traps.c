/*
 * The payload's exceptions: each is the end, and says where it came from.
 */
#include "payload.h"
#include "x86.h"

struct gate {
    uint16_t offset_low, selector, flags, offset_middle;
    uint32_t offset_high, zero;
};

static struct gate idt[WAKE_VECTOR + 1];

void exception(uint64_t number, uint64_t error, uint64_t rip, uint64_t cr2)
{
    say("not ok %s: exception %u, error code %x, rip %x, cr2 %x, CPU %u\n",
        case_name(), number, error, rip, cr2, (uint64_t)this_cpu());
    finish(1);
}

void set_gate(int number, uint64_t entry)
{
    idt[number] = (struct gate) {
        .offset_low = entry, .selector = 8, .flags = 0x8e00,
        .offset_middle = entry >> 16, .offset_high = entry >> 32,
    };
}

void load_idt(void)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) pointer = { sizeof(idt) - 1, (uintptr_t)idt };

    asm volatile("lidt %0" : : "m"(pointer));
}

void set_up_traps(void)
{
    for (int i = 0; i < 32; i++) {
        set_gate(i, (uintptr_t)exception_entries[i]);
    }
    load_idt();
}
