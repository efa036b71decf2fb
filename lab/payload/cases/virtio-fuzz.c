/*
 * Random requests to virtio devices: anywhere, with anything in them.
 *
 * A device does what it is told, so what it is told must be harmless where the
 * payload is to live on. What is put into the area, by us and by the fuzzer, is
 * such that no mixture of it makes a descriptor of RAM beyond: an address is of
 * the area, with a margin to its end, or of no RAM; a size is small, or more
 * than there is RAM; all at multiples of 16; and the index of a ring, which may
 * become a part of an address, stays small. With self=1 it need not be harmless
 * at times.
 */
#include "virtio.h"
#include "virtio-fuzz.h"

#define MARGIN (2ULL << 20)
#define MOST_SENT 15
#define ONE_OF(array, r) ((array)[(r) % (sizeof(array) / sizeof(*(array)))])

static struct {
    struct device devices[4];
    struct queue queues[4];
    unsigned n;
    struct extent area;
    uint64_t hole;
    bool self;
    spinlock lock;
    uint64_t set_ups, requests, broken;
} rings;

bool virtio_fuzz_start(struct extent area, uint64_t hole, bool self)
{
    rings.n = 0;
    rings.area = area;
    rings.hole = hole;
    rings.self = self;
    rings.set_ups = rings.requests = rings.broken = 0;
    if (self || area.end - area.start > 2 * MARGIN) {
        rings.n = virtio_find(self ? 0 : VIRTIO_BLK, rings.devices, 4);
    }
    for (unsigned i = 0; i < rings.n; i++) {
        rings.queues[i].size = 0;
    }
    return rings.n;
}

void virtio_fuzz_end(void)
{
    for (unsigned i = 0; i < rings.n; i++) {
        virtio_reset(&rings.devices[i]);
    }
    if (rings.n) {
        say("fuzz: %u virtio devices, %u set-ups, %u requests, %u times "
            "broken\n", (uint64_t)rings.n, rings.set_ups, rings.requests,
            rings.broken);
    }
    rings.n = 0;
}

static uint64_t choose_address(uint64_t *random)
{
    static const uint64_t nothing[] = {
        0xa0000, 0xfffff000, 0xfffffff0, 1ULL << 40, 1ULL << 46, 1ULL << 52,
        1ULL << 63, -4096ULL, -16ULL,
    };
    static const uint64_t something[] = {
        0, 0xfec00000, 0xfed00000, 0xfee00000, 0xb0000000, 0xf0000, 0xc0000,
    };
    uint64_t r = random_number(random), at = random_number(random);
    uint64_t size = rings.area.end - rings.area.start - MARGIN;
    bool any = rings.self && (r >> 40) % 8 == 0;

    switch (r % 16) {
    default:
        return rings.area.start + at % size / 16 * 16;
    case 10:
    case 11:
        return rings.area.start + at % size / PAGE_SIZE * PAGE_SIZE +
               (r >> 8 & 1) * (PAGE_SIZE - 16 * (at >> 58));
    case 12:
        return ONE_OF(nothing, at);
    case 13:
        return rings.hole ?: 1ULL << 40;
    case 14:
        return any ? ONE_OF(something, at) : 1ULL << 40 | at;
    case 15:
        if (!any) {
            return 1ULL << 63 | (at & -16);
        }
        return r >> 8 & 1 ? at >> (r >> 32) % 64
                          : rings.devices[at % rings.n].common + at % 64;
    }
}

static uint32_t choose_size(uint64_t *random)
{
    static const uint32_t huge[] = {
        0x80000000, 0x80000001, 0xfffff000, 0xfffffff0, 0xffffffff,
    };
    uint64_t r = random_number(random);

    switch (r % 8) {
    default:
        return (1 + (r >> 8) % 8) * SECTOR;
    case 4:
        return (r >> 8) % 256 * 16;
    case 5:
        return 1;
    case 6:
        return (r >> 8) % 16 * 16;
    case 7:
        return rings.self && r >> 60 == 0 ? r >> 16 : ONE_OF(huge, r >> 8);
    }
}

static bool is_in_area(uint64_t at)
{
    return at >= rings.area.start && at < rings.area.end - MARGIN;
}

static void random_set_up(const struct device *d, struct queue *q,
                          uint64_t *random)
{
    uint64_t r = random_number(random);

    rings.broken += virtio_is_broken(d);
    rings.set_ups++;
    *q = (struct queue) {
        .size = rings.self && !(r & 7) ? r >> 16 & 0xffff : 1u << (r >> 3) % 5,
        .features = F_VERSION_1 | (r >> 8 & 1) * F_INDIRECT |
                    (r >> 9 & 1) * F_EVENT_IDX |
                    (r >> 10) % 4 / 3 * F_PACKED,
        .desc = choose_address(random),
        .avail = choose_address(random),
        .used = choose_address(random),
    };
    virtio_set_up(d, q);
}

static void random_descriptor(struct desc *desc, const struct queue *q,
                              uint64_t *random)
{
    uint64_t r = random_number(random);

    *desc = (struct desc) {
        choose_address(random), choose_size(random), r % 8, (r >> 8) % 17,
    };
    if (q->features & F_PACKED) {
        desc->flags |= (r >> 16 & 3) << 14 | (r >> 18 & 1) << 7;
    }
}

/* Often enough all of it makes sense. */
static void random_chain(const struct queue *q, uint64_t *random)
{
    struct desc *desc = (struct desc *)q->desc;
    uint64_t r = random_number(random);
    bool in = r & 1;

    if (r % 16 > 3 && q->size >= 4) {
        uint64_t header = choose_address(random);

        if (is_in_area(header)) {
            ((uint64_t *)header)[0] = r >> 32 & 1 ? !in : r >> 33 & 15;
            ((uint64_t *)header)[1] = r >> 40 & 15;
        }
        desc[0] = (struct desc) { header, 16, DESC_NEXT, 1 };
        desc[1] = (struct desc) {
            choose_address(random), choose_size(random),
            DESC_NEXT | in * DESC_WRITE, 2,
        };
        desc[2] = (struct desc) { choose_address(random), 1, DESC_WRITE };
    }
    if (r % 16 < 7) {
        random_descriptor(&desc[(r >> 8) % q->size], q, random);
    }
}

void virtio_fuzz(uint64_t *random)
{
    uint64_t r = random_number(random);
    const struct device *d;
    struct queue *q;

    /* One processor at a time; the others go on converting. */
    if (!rings.n || __atomic_exchange_n(&rings.lock, 1, __ATOMIC_ACQUIRE)) {
        return;
    }
    d = &rings.devices[r % rings.n];
    q = &rings.queues[r % rings.n];
    if (!q->size || q->sent == MOST_SENT || (r >> 8) % 8 == 0) {
        random_set_up(d, q, random);
    }
    if (rings.self && (r >> 16) % 8 == 0) {
        virtio_random_access(d, random_number(random));
    }
    rings.requests++;
    if (is_in_area(q->desc) && q->size && q->size <= 16) {
        random_chain(q, random);
    }
    if (is_in_area(q->avail) && q->size) {
        virtio_send(d, q, (r >> 24) % 16 ? 0 : r >> 32);
    } else {
        virtio_kick(d, q);
    }
    spin_unlock(&rings.lock);
}
