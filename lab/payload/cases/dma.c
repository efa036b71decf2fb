/*
 * A case of the payload: a device of QEMU's own reads or writes memory.
 */
#include "payload.h"

/*
 * A device writes into memory: fw_cfg's DMA, 4 bytes of its signature. It tells
 * if that did not work; then memory must be as it was.
 */
static const char *run_dma(void)
{
    static struct {
        uint32_t control, length;
        uint64_t address;
    } __attribute__((aligned(16))) request;     /* big endian */
    const uint32_t signature = 0x554d4551;      /* "QEMU" */
    uint64_t at = arg("at", 0);
    uint32_t *target = (uint32_t *)at, before = *target, want;
    bool refused, expected = arg("refused", 0);

    request.control = __builtin_bswap32(1 << 3 | 1 << 1);   /* select 0, read */
    request.length = __builtin_bswap32(sizeof(*target));
    request.address = __builtin_bswap64(at);
    fw_cfg_start_dma((uintptr_t)&request);
    while (__atomic_load_n(&request.control, __ATOMIC_ACQUIRE) &
           ~__builtin_bswap32(1)) {
        pause();
    }
    refused = request.control;
    want = refused ? before : signature;
    say("# DMA %s\n", refused ? "refused" : "done");
    if (*target != want) {
        say("# %x, not %x\n", (uint64_t)*target, (uint64_t)want);
        return "the device has written something else";
    }
    return refused == expected ? NULL : "that was not expected";
}

CASE(run_dma, "dma", "at=[,refused=1]: a device writes there, or cannot");
