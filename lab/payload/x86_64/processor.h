/*
 * The payload's processor and machine, as all of it may use them: instructions,
 * PCI, fw_cfg and the ports that a test reads. Here: x86-64, a PC.
 */
#ifndef GMEM_LAB_PROCESSOR_H
#define GMEM_LAB_PROCESSOR_H

#include <stdbool.h>
#include <stdint.h>
#include "limits.h"

/* What an architecture provides */

void set_up_traps(void);

/*
 * Other processors, in this order: get ready to have them; reset all; start
 * all, each of which calls set_up_cpu(); wake all that sleep.
 */
void prepare_other_cpus(void);
void reset_other_cpus(void);
void start_other_cpus(void);
void set_up_cpu(void);
void sleep_until_woken(void);
void wake_other_cpus(void);

/* The first processor halts for 2 ms: to poll costs an emulator much. */
void doze(void);

unsigned this_cpu(void);

/*
 * Was this guest launched, as firmware? Then all its memory is private at
 * first. While its code is, KVM can emulate no instruction of it.
 */
extern bool launched, code_is_private;

int64_t kvm_hypercall(uint64_t number, uint64_t a0, uint64_t a1, uint64_t a2);

/*
 * Where an address of RAM is private memory, or shared memory if the guest was
 * launched, in a VM that guest-memfd-twin has given a second address to.
 * Addresses of one GiB only.
 */
uint64_t twin_of(uint64_t at);

/* Makes QEMU take all of low memory out of KVM and VFIO, and put it back. */
void turn_shadow_ram(void);

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

/* In cycles of a clock that always runs */
static inline uint64_t timestamp(void)
{
    uint32_t low, high;
    asm volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

static inline void pause(void)
{
    asm volatile("pause" : : : "memory");
}

/* Registers: plain moves, as KVM has few instructions that it can emulate. */

static inline void mmio_write8(uint64_t at, uint8_t value)
{
    asm volatile("movb %0, (%1)" : : "q"(value), "r"(at) : "memory");
}

static inline void mmio_write16(uint64_t at, uint16_t value)
{
    asm volatile("movw %0, (%1)" : : "r"(value), "r"(at) : "memory");
}

static inline void mmio_write32(uint64_t at, uint32_t value)
{
    asm volatile("movl %0, (%1)" : : "r"(value), "r"(at) : "memory");
}

static inline uint8_t mmio_read8(uint64_t at)
{
    uint8_t value;
    asm volatile("movb (%1), %0" : "=q"(value) : "r"(at) : "memory");
    return value;
}

static inline uint16_t mmio_read16(uint64_t at)
{
    uint16_t value;
    asm volatile("movw (%1), %0" : "=r"(value) : "r"(at) : "memory");
    return value;
}

static inline uint32_t mmio_read32(uint64_t at)
{
    uint32_t value;
    asm volatile("movl (%1), %0" : "=r"(value) : "r"(at) : "memory");
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

/* fw_cfg: QEMU's docs/specs/fw_cfg.rst */

enum { FW_CFG_CPUS = 0x05, FW_CFG_DIRECTORY = 0x19 };

static inline void fw_cfg_select(uint16_t key)
{
    outw(0x510, key);
}

static inline uint8_t fw_cfg_read(void)
{
    return inb(0x511);
}

static inline void fw_cfg_start_dma(uint64_t request)
{
    outl(0x514, __builtin_bswap32(request >> 32));
    outl(0x518, __builtin_bswap32(request));
}

/* The debug port, for what the payload says, and the first serial port */

static inline void put_byte(char c)
{
    outb(0xe9, c);
}

/* Have it keep 16 bytes for us. */
static inline void serial_set_up(void)
{
    outb(0x3f8 + 2, 1);
}

static inline bool serial_has_byte(void)
{
    return inb(0x3f8 + 5) & 1;
}

static inline char serial_byte(void)
{
    return inb(0x3f8);
}

/*
 * The isa-debug-exit device at 0xf4, if there is one: QEMU exits with 1 when
 * all passed, else with 3. Without it, the processor halts.
 */
static inline _Noreturn void end_machine(bool failed)
{
    outb(0xf4, failed);
    for (;;) {
        asm volatile("cli; hlt");
    }
}

/* Says the word, and goes on when the test presses a key and releases it. */
void wait_for_test(const char *word);

#endif
