/*
 * The payload's processor and machine, as all of it may use them: instructions,
 * PCI, fw_cfg and the ports that a test reads. Here: arm64, QEMU's "virt". What
 * functions do is said in x86-64's.
 */
#ifndef GMEM_LAB_PROCESSOR_H
#define GMEM_LAB_PROCESSOR_H

#include <stdbool.h>
#include <stdint.h>
#include "limits.h"

enum {                          /* addresses of devices */
    UART = 0x09000000,
    FW_CFG = 0x09020000,
};
#define PCI_CONFIG 0x4010000000ULL

enum {                          /* the registers of a PL011 */
    UART_DATA = 0,
    UART_FLAGS = 0x18,
    UART_CONTROL = 0x30,
};

void set_up_traps(void);
void prepare_other_cpus(void);
void reset_other_cpus(void);
void start_other_cpus(void);
void set_up_cpu(void);
void sleep_until_woken(void);
void wake_other_cpus(void);
void doze(void);
unsigned this_cpu(void);

/* Nothing is launched, converted or hidden here: there is no private memory. */
static const bool launched;
int64_t kvm_hypercall(uint64_t number, uint64_t a0, uint64_t a1, uint64_t a2);
uint64_t twin_of(uint64_t at);
void turn_shadow_ram(void);

/* Instructions */

/* In cycles of a clock that always runs */
static inline uint64_t timestamp(void)
{
    uint64_t value;
    asm volatile("isb; mrs %0, cntvct_el0" : "=r"(value) : : "memory");
    return value;
}

static inline void pause(void)
{
    asm volatile("yield" : : : "memory");
}

/* Registers: instructions that KVM knows without a look at them. */

static inline void mmio_write8(uint64_t at, uint8_t value)
{
    asm volatile("strb %w0, [%1]" : : "r"(value), "r"(at) : "memory");
}

static inline void mmio_write16(uint64_t at, uint16_t value)
{
    asm volatile("strh %w0, [%1]" : : "r"(value), "r"(at) : "memory");
}

static inline void mmio_write32(uint64_t at, uint32_t value)
{
    asm volatile("str %w0, [%1]" : : "r"(value), "r"(at) : "memory");
}

static inline void mmio_write64(uint64_t at, uint64_t value)
{
    asm volatile("str %0, [%1]" : : "r"(value), "r"(at) : "memory");
}

static inline uint8_t mmio_read8(uint64_t at)
{
    uint32_t value;
    asm volatile("ldrb %w0, [%1]" : "=r"(value) : "r"(at) : "memory");
    return value;
}

static inline uint16_t mmio_read16(uint64_t at)
{
    uint32_t value;
    asm volatile("ldrh %w0, [%1]" : "=r"(value) : "r"(at) : "memory");
    return value;
}

static inline uint32_t mmio_read32(uint64_t at)
{
    uint32_t value;
    asm volatile("ldr %w0, [%1]" : "=r"(value) : "r"(at) : "memory");
    return value;
}

/* Configuration space of a device on PCI bus 0, function 0 */

static inline uint32_t pci_read(uint32_t slot, uint32_t offset)
{
    return mmio_read32(PCI_CONFIG + (slot << 15) + offset);
}

static inline void pci_write(uint32_t slot, uint32_t offset, uint32_t value)
{
    mmio_write32(PCI_CONFIG + (slot << 15) + offset, value);
}

/* fw_cfg: QEMU's docs/specs/fw_cfg.rst */

enum { FW_CFG_CPUS = 0x05, FW_CFG_DIRECTORY = 0x19 };

static inline void fw_cfg_select(uint16_t key)
{
    mmio_write16(FW_CFG + 8, __builtin_bswap16(key));
}

static inline uint8_t fw_cfg_read(void)
{
    return mmio_read8(FW_CFG);
}

static inline void fw_cfg_start_dma(uint64_t request)
{
    mmio_write64(FW_CFG + 16, __builtin_bswap64(request));
}

/* The serial port: what the payload says, and what it is told */

static inline void put_byte(char c)
{
    mmio_write8(UART + UART_DATA, c);
}

/* Enabled, to send and to receive */
static inline void serial_set_up(void)
{
    mmio_write32(UART + UART_CONTROL, 0x301);
}

static inline bool serial_has_byte(void)
{
    return !(mmio_read32(UART + UART_FLAGS) & 0x10);    /* empty */
}

static inline char serial_byte(void)
{
    return mmio_read32(UART + UART_DATA);
}

static inline _Noreturn void end_machine(bool failed)
{
    (void)failed;
    for (;;) {
        asm volatile("wfi");
    }
}

/* Says the word, and goes on when the test sends a byte to the serial port. */
void wait_for_test(const char *word);

#endif
