/*
 * The payload: suspend to RAM, and wake up.
 *
 * A processor that wakes up starts in firmware, which jumps to the waking
 * vector in real mode. QEMU loads what -kernel names anew then, so that the
 * payload begins at its start once more: with a command line of what is left to
 * do.
 */
#include "payload.h"
#include "x86.h"

struct acpi_table {
    char signature[4];
    uint32_t length;
    uint8_t rest[28];
} __attribute__((packed));

/* A 32-bit number in a table, which need not be aligned. */
static uint32_t number_at(const void *table, size_t offset)
{
    uint32_t value;

    __builtin_memcpy(&value, (const char *)table + offset, sizeof(value));
    return value;
}

static bool has_signature(const void *at, const char *signature)
{
    for (size_t i = 0; signature[i]; i++) {
        if (((const char *)at)[i] != signature[i]) {
            return false;
        }
    }
    return true;
}

/* The FADT, or NULL */
static const void *find_fadt(void)
{
    for (uintptr_t at = 0xe0000; at < 0x100000; at += 16) {
        const struct acpi_table *rsdt;

        if (!has_signature((const void *)at, "RSD PTR ")) {
            continue;
        }
        rsdt = (const void *)(uintptr_t)number_at((const void *)at, 16);
        for (uint32_t i = 36; i < rsdt->length; i += 4) {
            const void *table = (const void *)(uintptr_t)number_at(rsdt, i);

            if (has_signature(table, "FACP")) {
                return table;
            }
        }
    }
    return NULL;
}

static const char *run_suspend(void)
{
    const void *fadt = find_fadt();
    struct start_info *info = (void *)RESUME_INFO;
    char *left = (char *)(info + 1), *end = left;
    volatile uint32_t *vector;  /* volatile: firmware reads it, nobody here */

    if (!fadt) {
        return "there is no FADT";
    }
    __builtin_memcpy((void *)TRAMPOLINE, resume, resume_end - resume);
    for (const char *s = "in-place"; converts_in_place && *s; s++) {
        *end++ = *s;
    }
    for (const char *s = cases_left(); *s; s++) {
        *end++ = *s;
    }
    *end = '\0';
    *info = (struct start_info) { .command_line = (uintptr_t)left };
    vector = (uint32_t *)(uintptr_t)(number_at(fadt, 36) + 12);
    *vector = TRAMPOLINE;
    say("suspended\n");
    /* SLP_EN and QEMU's SLP_TYP of S3, in PM1a_CNT */
    outw(number_at(fadt, 64), 1 << 13 | 1 << 10);
    for (;;) {
        asm volatile("hlt");
    }
}

CASE(run_suspend, "suspend", "to RAM; goes on when the machine wakes up");
