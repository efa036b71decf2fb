/*
 * The payload's driver for virtio devices, see virtio.h.
 */
#include "virtio.h"

enum {                          /* fields of the common configuration */
    FEATURE_SELECT = 0x00,
    FEATURE = 0x04,
    DRIVER_FEATURE_SELECT = 0x08,
    DRIVER_FEATURE = 0x0c,
    STATUS = 0x14,
    QUEUE_SELECT = 0x16,
    QUEUE_SIZE = 0x18,
    QUEUE_ENABLE = 0x1c,
    QUEUE_NOTIFY_OFF = 0x1e,
    QUEUE_DESC = 0x20,
    QUEUE_AVAIL = 0x28,
    QUEUE_USED = 0x30,
};

enum {
    STATUS_DRIVER = 1 | 2,
    STATUS_DRIVER_OK = 4,
    STATUS_FEATURES_OK = 8,
    STATUS_NEEDS_RESET = 0x40,
};

static void write64(uint64_t at, uint64_t value)
{
    mmio_write32(at, value);
    mmio_write32(at + 4, value >> 32);
}

/* PCI */

/* The bytes from there on, up to the next multiple of 4. */
static uint32_t pci_field(unsigned slot, unsigned at)
{
    return pci_read(slot, at & ~3) >> at % 4 * 8;
}

/* The address that a capability names. */
static uint64_t pci_address(unsigned slot, unsigned capability)
{
    unsigned bar = 0x10 + (pci_field(slot, capability + 4) & 7) * 4;
    uint64_t base = pci_field(slot, bar);

    if (base < PAGE_SIZE) {
        /* No firmware has placed it. */
        base |= PCI_WINDOW | slot << 20 | (bar - 0x10) << 14;
        pci_write(slot, bar, base);
    }
    if ((base & 6) == 4) {
        base |= (uint64_t)pci_field(slot, bar + 4) << 32;
    }
    return (base & -16) + pci_field(slot, capability + 8);
}

/* The type of the virtio device, or 0. */
static unsigned pci_type(unsigned slot)
{
    uint32_t id = pci_field(slot, 0);

    if ((id & 0xffff) != 0x1af4) {
        return 0;
    }
    switch (id >> 16) {         /* of those that know version 0.9 as well */
    case 0x1001:
        return VIRTIO_BLK;
    case 0x1002:
        return VIRTIO_BALLOON;
    default:
        return id >> 16 >= 0x1040 ? (id >> 16) - 0x1040 : pci_field(slot, 0x2e);
    }
}

static void find_registers(unsigned slot, struct device *d)
{
    unsigned at = pci_field(slot, 0x34) & 0xff;

    *d = (struct device) { .type = pci_type(slot) };
    for (; at; at = pci_field(slot, at + 1) & 0xff) {
        if ((pci_field(slot, at) & 0xff) != 9) {
            continue;
        }
        switch (pci_field(slot, at + 3) & 0xff) {
        case 1:
            d->common = pci_address(slot, at);
            break;
        case 2:
            d->notify = pci_address(slot, at);
            d->multiplier = pci_field(slot, at + 16);
            break;
        case 4:
            d->config = pci_address(slot, at);
            break;
        }
    }
    /* Memory space and bus mastering. */
    pci_write(slot, 4, pci_read(slot, 4) | 6);
}

unsigned virtio_find(unsigned type, struct device *devices, unsigned most)
{
    unsigned n = 0;

    for (unsigned slot = 0; slot < 32 && n < most; slot++) {
        unsigned found = pci_type(slot);

        if (found && (!type || found == type)) {
            find_registers(slot, &devices[n++]);
        }
    }
    return n;
}

/* Devices and queues */

void virtio_reset(const struct device *d)
{
    mmio_write8(d->common + STATUS, 0);
    while (mmio_read8(d->common + STATUS)) {
        pause();
    }
}

static uint64_t offered_features(const struct device *d)
{
    uint64_t features;

    mmio_write32(d->common + FEATURE_SELECT, 1);
    features = (uint64_t)mmio_read32(d->common + FEATURE) << 32;
    mmio_write32(d->common + FEATURE_SELECT, 0);
    return features | mmio_read32(d->common + FEATURE);
}

/* A driver does not clear what the device has said. */
static void add_status(const struct device *d, uint8_t status)
{
    mmio_write8(d->common + STATUS, mmio_read8(d->common + STATUS) | status);
}

void virtio_set_up(const struct device *d, struct queue *q)
{
    uint64_t features = offered_features(d) & (q->features | F_ACCESS);

    virtio_reset(d);
    add_status(d, STATUS_DRIVER);
    for (int i = 0; i < 2; i++) {
        mmio_write32(d->common + DRIVER_FEATURE_SELECT, i);
        mmio_write32(d->common + DRIVER_FEATURE, features >> 32 * i);
    }
    add_status(d, STATUS_FEATURES_OK);
    mmio_write16(d->common + QUEUE_SELECT, q->number);
    mmio_write16(d->common + QUEUE_SIZE, q->size);
    write64(d->common + QUEUE_DESC, q->desc);
    write64(d->common + QUEUE_AVAIL, q->avail);
    write64(d->common + QUEUE_USED, q->used);
    mmio_write16(d->common + QUEUE_ENABLE, 1);
    add_status(d, STATUS_DRIVER_OK);
    q->sent = 0;
}

void virtio_kick(const struct device *d, const struct queue *q)
{
    uint32_t at;

    mmio_write16(d->common + QUEUE_SELECT, q->number);
    at = mmio_read16(d->common + QUEUE_NOTIFY_OFF) * d->multiplier;
    mmio_write16(d->notify + at, q->number);
}

void virtio_add(struct queue *q, uint16_t head)
{
    uint16_t *avail = (uint16_t *)q->avail;

    avail[2 + q->sent++ % q->size] = head;
    __atomic_store_n(&avail[1], q->sent, __ATOMIC_RELEASE);
}

void virtio_send(const struct device *d, struct queue *q, uint16_t head)
{
    virtio_add(q, head);
    virtio_kick(d, q);
}

bool virtio_is_broken(const struct device *d)
{
    return mmio_read8(d->common + STATUS) & STATUS_NEEDS_RESET;
}

bool virtio_is_answered(const struct queue *q)
{
    uint16_t *used = (uint16_t *)q->used;

    return __atomic_load_n(&used[1], __ATOMIC_ACQUIRE) == q->sent;
}

bool virtio_is_taken(const struct queue *q)
{
    uint16_t *event = (uint16_t *)(q->used + 4 + 8 * q->size);

    return __atomic_load_n(event, __ATOMIC_ACQUIRE) == q->sent;
}

bool virtio_wait(bool (*condition)(const struct queue *),
                 const struct device *d, const struct queue *q,
                 uint64_t cycles)
{
    uint64_t start = timestamp();

    while (!condition(q)) {
        if (timestamp() - start > cycles || virtio_is_broken(d)) {
            return condition(q);
        }
        pause();
    }
    return true;
}

uint32_t virtio_config(const struct device *d, unsigned at)
{
    return mmio_read32(d->config + at);
}

void virtio_random_access(const struct device *d, uint64_t r)
{
    uint64_t at = d->common + (r >> 8) % 64;

    switch (r % 4) {
    case 0:
        mmio_write8(at, r >> 32);
        break;
    case 1:
        mmio_write16(at & -2, r >> 32);
        break;
    case 2:
        mmio_write32(at & -4, r >> 32);
        break;
    case 3:
        mmio_read32(at & -4);
    }
}
