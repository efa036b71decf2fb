/*
 * The payload's virtio devices: PCI, version 1.0, without interrupts; answers
 * are looked for in the used ring. Firmware has placed the registers, or
 * the driver does.
 */
#ifndef GMEM_LAB_VIRTIO_H
#define GMEM_LAB_VIRTIO_H

#include "payload.h"

#define F_INDIRECT  (1ULL << 28)
#define F_EVENT_IDX (1ULL << 29)
#define F_VERSION_1 (1ULL << 32)
#define F_ACCESS    (1ULL << 33)    /* confidential guests must take it */
#define F_PACKED    (1ULL << 34)

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4 };

enum { VIRTIO_BLK = 2, VIRTIO_BALLOON = 5, VIRTIO_PMEM = 27 };  /* types */

enum { BLK_IN, BLK_OUT, SECTOR = 512 };

struct desc {
    uint64_t address;
    uint32_t size;
    uint16_t flags, next;
};

struct device {
    unsigned type;
    uint64_t common, notify, config;    /* addresses of registers */
    uint32_t multiplier;
};

/* A queue, where its parts are, and how many requests it has got. */
struct queue {
    unsigned number, size;
    uint64_t features, desc, avail, used;
    uint16_t sent;
};

/* Devices of the type, or of any (0), up to that many; returns how many. */
unsigned virtio_find(unsigned type, struct device *devices, unsigned most);

void virtio_reset(const struct device *d);

/* From a reset to where the device works with this one queue. */
void virtio_set_up(const struct device *d, struct queue *q);

bool virtio_is_broken(const struct device *d);

/* Makes the chain that begins there available, and tells the device. */
void virtio_add(struct queue *q, uint16_t head);
void virtio_kick(const struct device *d, const struct queue *q);
void virtio_send(const struct device *d, struct queue *q, uint16_t head);

bool virtio_is_answered(const struct queue *q);

/* With F_EVENT_IDX: has the device taken all requests? */
bool virtio_is_taken(const struct queue *q);

/* Until the condition is true, the device broken, or so much time over. */
bool virtio_wait(bool (*condition)(const struct queue *),
                 const struct device *d, const struct queue *q,
                 uint64_t cycles);

/* What a device that need not answer gets, and one that has to. */
#define SHORT_WAIT 300000000ULL
#define LONG_WAIT  1000000000000ULL

/* A word of the device's own configuration. */
uint32_t virtio_config(const struct device *d, unsigned at);

/* Any access to a register of the common configuration. */
void virtio_random_access(const struct device *d, uint64_t random);

#endif
