/*
 * Cases of the payload that make use of a PC: its reset, keyboard, I/O ports
 * and shadow RAM.
 */
#include "payload.h"
#include "x86.h"

/* Boots count= more times; a byte of CMOS RAM, which resets leave, counts. */
static const char *run_reset(void)
{
    const uint8_t at = 0x6f;
    uint64_t count = arg("count", 1);
    uint8_t boots;

    outb(0x70, at);
    boots = inb(0x71);
    say("boot %u\n", (uint64_t)boots);
    outb(0x70, at);
    if (boots == count) {
        outb(0x71, 0);
        return NULL;
    }
    outb(0x71, boots + 1);
    if (arg("keyboard", 0)) {
        outb(0x64, 0xfe);
    } else {
        outb(0xcf9, 2);
        outb(0xcf9, 6);
    }
    for (;;) {
        asm volatile("hlt");
    }
}

CASE(run_reset, "reset",
     "[count=1][,keyboard=1]: resets the machine count times");

void wait_for_test(const char *word)
{
    say("%s\n", word);
    while (!(inb(0x64) & 1) || !(inb(0x60) & 0x80)) {
        doze();
    }
}

static const char *run_wait(void)
{
    wait_for_test("waiting");
    return NULL;
}

CASE(run_wait, "wait", "for a key");

/* What a device needs to be told: an ejection, a reset. */
static const char *run_out(void)
{
    uint64_t port = arg("port", 0), value = arg("value", 0);

    switch (arg("size", 1)) {
    case 1:
        outb(port, value);
        return NULL;
    case 2:
        outw(port, value);
        return NULL;
    case 4:
        outl(port, value);
        return NULL;
    default:
        return "size= must be 1, 2 or 4";
    }
}

CASE(run_out, "out", "port=,value=[,size=1]: writes to an I/O port");

void turn_shadow_ram(void)
{
    const uint32_t pam = 0x90;      /* bit 5: whether 0xf0000 can be written */
    uint32_t before = pci_read(0, pam);

    pci_write(0, pam, before ^ 0x20);
    pci_write(0, pam, before);
}

static const char *run_shadow(void)
{
    turn_shadow_ram();
    return NULL;
}

CASE(run_shadow, "shadow", "turns shadow RAM over, twice");
