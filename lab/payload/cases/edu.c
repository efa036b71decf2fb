/*
 * The payload: QEMU's "edu" device, which does DMA by its own, as an assigned
 * device does.  All numbers are from QEMU's docs/specs/edu.rst.
 */
#include "payload.h"

enum {
    EDU_ID = 0x11e81234,                /* device and vendor */
    EDU_BUFFER = 0x40000,               /* of a page, as the device counts */
    EDU_SOURCE = 0x80, EDU_TARGET = 0x88, EDU_COUNT = 0x90, EDU_COMMAND = 0x98,
    EDU_RUN = 1, EDU_TO_MEMORY = 2,
};

static void edu_write(uint64_t bar, uint64_t offset, uint64_t value)
{
    __atomic_store_n((uint64_t *)(bar + offset), value, __ATOMIC_RELEASE);
}

/* Address of the registers of the device with that number, or 0 */
static uint64_t find_edu(uint64_t number)
{
    for (uint32_t slot = 0; slot < 32; slot++) {
        uint32_t bar;

        if (pci_read(slot, 0) != EDU_ID || number--) {
            continue;
        }
        bar = pci_read(slot, 0x10);
        pci_write(slot, 4, pci_read(slot, 4) | 6);  /* memory, bus master */
        return bar & ~15u;
    }
    return 0;
}

static void start_dma(uint64_t bar, uint64_t from, uint64_t to,
                      uint64_t command)
{
    edu_write(bar, EDU_SOURCE, from);
    edu_write(bar, EDU_TARGET, to);
    edu_write(bar, EDU_COUNT, PAGE_SIZE);
    edu_write(bar, EDU_COMMAND, command | EDU_RUN);
}

static bool is_running(uint64_t bar)
{
    return __atomic_load_n((uint64_t *)(bar + EDU_COMMAND), __ATOMIC_ACQUIRE) &
           EDU_RUN;
}

static void finish_dma(uint64_t bar)
{
    while (is_running(bar)) {
        pause();
    }
}

static void read_memory(uint64_t bar, uint64_t from)
{
    start_dma(bar, from, EDU_BUFFER, 0);
    finish_dma(bar);
}

/*
 * The device begins a tenth of a second after its start: convert meanwhile. On
 * a machine that has something else to do that can be too late; then try again.
 */
static const char *write_memory(uint64_t bar, uint64_t to, uint64_t during,
                                uint64_t seed)
{
    const char *why = NULL;
    bool in_time;

    do {
        fill(to, to + PAGE_SIZE, seed);
        start_dma(bar, EDU_BUFFER, to, EDU_TO_MEMORY);
        if (during < 2) {
            why = convert(to, to + PAGE_SIZE, during);
        }
        in_time = during == 2 || is_running(bar);
        finish_dma(bar);
        if (!in_time && !why) {
            why = convert(to, to + PAGE_SIZE, !during);
        }
    } while (!in_time && !why);
    return why;
}

static const char *check_same(uint64_t a, uint64_t b, bool same)
{
    for (uint64_t i = 0; i < PAGE_SIZE; i += 8) {
        if ((*(uint64_t *)(a + i) == *(uint64_t *)(b + i)) != same) {
            return same ? "the device has not copied it"
                        : "the device has got at it";
        }
    }
    return NULL;
}

/*
 * The device copies a page to another and back: the one that is in question,
 * and one that it can always get at. What it cannot write must be as it was,
 * and what it cannot read must not be found elsewhere.
 */
static const char *run_edu(void)
{
    uint64_t at = arg("at", 0), via = arg("via", 0), during = arg("during", 2);
    uint64_t seed = arg("seed", 1);
    bool refused = arg("refused", 0);
    uint64_t bar = find_edu(arg("device", 0));
    const char *why;

    if (!bar) {
        return "there is no such edu device";
    }
    if (!at || !via || at % PAGE_SIZE || via % PAGE_SIZE) {
        return "at= and via= must be pages";
    }
    fill(via, via + PAGE_SIZE, seed);
    read_memory(bar, via);
    why = write_memory(bar, at, during, seed + 1);
    if (why) {
        return why;
    }
    if (!refused) {
        why = check_same(at, via, true);
    } else if (during == 2) {
        why = check_filled(at, at + PAGE_SIZE, seed + 1);
    } else {
        why = check_converted(at, at + PAGE_SIZE, seed + 1);
    }
    if (why) {
        return why;
    }
    fill(at, at + PAGE_SIZE, seed + 2);
    read_memory(bar, at);
    start_dma(bar, EDU_BUFFER, via, EDU_TO_MEMORY);
    finish_dma(bar);
    return check_same(at, via, !refused);
}

CASE(run_edu, "edu",
     "at=,via=[,refused=1][,during=0|1][,device=0][,seed=]: an edu device "
     "copies between pages, and at= is converted before it begins");
