/*
 * Small cases of the payload with one virtio device, or another.
 */
#include "virtio.h"

/* Starts a device; what it makes of that is the test's business. */
static const char *run_ring(void)
{
    const uint64_t base = RAM_START + arg("base", 0);
    struct queue q = {
        .size = 8, .features = F_VERSION_1,
        .desc = base, .avail = base + 256, .used = base + 512,
    };
    struct device d;

    if (!virtio_find(arg("type", 0), &d, 1)) {
        return "there is no such device";
    }
    virtio_set_up(&d, &q);
    if (arg("private", 0)) {
        const char *why = convert(base, base + PAGE_SIZE, true);

        if (why) {
            return why;
        }
        virtio_kick(&d, &q);
    }
    return NULL;
}

CASE(run_ring, "ring",
     "type=,base=[,private=1]: starts a virtio device with a queue that is "
     "there, and no request; then makes the queue private, and has the device "
     "look");

/* VIRTIO_PMEM_REQ_TYPE_FLUSH */
static const char *run_flush(void)
{
    static struct desc desc[2] __attribute__((aligned(16)));
    static uint16_t avail[8];
    static uint16_t used[12] __attribute__((aligned(4)));
    static uint32_t type, result;
    struct queue q = {
        .size = 2, .features = F_VERSION_1, .desc = (uintptr_t)desc,
        .avail = (uintptr_t)avail, .used = (uintptr_t)used,
    };
    struct device d;

    if (!virtio_find(VIRTIO_PMEM, &d, 1)) {
        return "there is no virtio-pmem-pci";
    }
    type = 0;
    result = -1;
    avail[1] = used[1] = 0;
    desc[0] = (struct desc) { (uintptr_t)&type, 4, DESC_NEXT, 1 };
    desc[1] = (struct desc) { (uintptr_t)&result, 4, DESC_WRITE };
    virtio_set_up(&d, &q);
    virtio_send(&d, &q, 0);
    if (!virtio_wait(virtio_is_answered, &d, &q, LONG_WAIT)) {
        return "virtio-pmem does not answer";
    }
    virtio_reset(&d);
    return __atomic_load_n(&result, __ATOMIC_ACQUIRE) ? "the flush failed"
                                                      : NULL;
}

CASE(run_flush, "flush", "has virtio-pmem write back its memory");

static const char *run_bar(void)
{
    for (unsigned slot = 0; slot < 32; slot++) {
        if (pci_read(slot, 0) == arg("id", 0)) {
            uint64_t bar = (pci_read(slot, 0x10) & ~15u) |
                           (uint64_t)pci_read(slot, 0x14) << 32;
            uint32_t *at = (uint32_t *)(bar + arg("at", 0));

            pci_write(slot, 4, pci_read(slot, 4) | 2);
            say("bar: %x\n", (uint64_t)__atomic_load_n(at, __ATOMIC_RELAXED));
            return NULL;
        }
    }
    return "there is no such device";
}

CASE(run_bar, "bar", "id=,at=: reads a register in the first BAR of a device");
