/*
 * The payload's balloon: memory that is given to it, reported or hinted free.
 */
#include "virtio.h"

#define F_FREE_PAGE_HINT (1ULL << 3)
#define F_REPORTING      (1ULL << 5)

enum { HINT_COMMAND = 8, FIRST_COMMAND = 0x80000000 };  /* configuration */

enum { QUEUE_SIZE = 8 };

static struct desc desc[QUEUE_SIZE] __attribute__((aligned(16)));
static uint16_t avail[16];
static uint16_t used[64] __attribute__((aligned(4)));
static struct device balloon;
static struct queue queue;

static const char *set_up(unsigned number, uint64_t features)
{
    queue = (struct queue) {
        .number = number, .size = QUEUE_SIZE,
        .features = F_VERSION_1 | features,
        .desc = (uintptr_t)desc, .avail = (uintptr_t)avail,
        .used = (uintptr_t)used,
    };
    if (!virtio_find(VIRTIO_BALLOON, &balloon, 1)) {
        return "there is no virtio-balloon-pci";
    }
    avail[1] = used[1] = 0;
    virtio_set_up(&balloon, &queue);
    return NULL;
}

static const char *send(void)
{
    virtio_send(&balloon, &queue, 0);
    return virtio_wait(virtio_is_answered, &balloon, &queue, LONG_WAIT)
           ? NULL : "the balloon does not answer";
}

/* Gives memory to the balloon, or takes it back. */
static const char *run_balloon(void)
{
    static uint32_t frames[256];
    uint64_t at, end;
    const char *why = arg_pages("base", "size", &at, &end) ?:
                      set_up(arg("deflate", 0), 0);

    while (!why && at < end) {
        uint32_t n = 0;

        for (; n < 256 && at < end; at += PAGE_SIZE) {
            frames[n++] = at / PAGE_SIZE;
        }
        desc[0] = (struct desc) { (uintptr_t)frames, 4 * n };
        why = send();
    }
    virtio_reset(&balloon);
    return why;
}

CASE(run_balloon, "balloon",
     "base=,size=[,deflate=1]: gives it to the balloon");

/* Names the range, which may be any, in buffers of @step bytes. */
static const char *send_range(uint64_t at, uint64_t left, uint64_t step)
{
    const char *why;

    do {
        unsigned n = 0;

        do {
            uint64_t size = left < step ? left : step;

            desc[n] = (struct desc) { at, size, DESC_WRITE | DESC_NEXT, n + 1 };
            at += size;
            left -= size;
        } while (++n < QUEUE_SIZE && left);
        desc[n - 1].flags = DESC_WRITE;
        why = send();
    } while (!why && left);
    return why;
}

/*
 * What is no good to name: all but the lowest RAM and far more, MMIO (also the
 * device's own), nothing at all, the last page, more than that, parts of pages.
 */
static const struct {
    uint64_t at, size, step;
} any[] = {
    { 64 << 20, 0xffffffff, 0xffffffff },
    { 0xe0000000, 256 << 20, 256 << 20 },
    { 0xfe000000, 32 << 20, 1 << 20 },
    { 32ULL << 30, 0xfffff000, 0xfffff000 },
    { -4096ULL, 4096, 4096 },
    { -4096ULL, 64 << 20, 64 << 20 },
    { 0x5000007, 0x5003, 0x1001 },
};

/* What the case asks for; any=1: what is no good as well. */
static const char *send_all(void)
{
    const uint64_t size = arg("size", 0);
    const char *why = send_range(arg("base", 0), size, arg("step", size));

    for (unsigned i = 0;
         !why && arg("any", 0) && i < sizeof(any) / sizeof(*any); i++) {
        why = send_range(any[i].at, any[i].size, any[i].step);
        if (why) {
            say("# at %x\n", any[i].at);
        }
    }
    return why;
}

/* Free page reporting. */
static const char *run_report(void)
{
    const char *why = set_up(arg("queue", 3), F_REPORTING) ?: send_all();
    bool broken = virtio_is_broken(&balloon);

    virtio_reset(&balloon);
    if (arg("broken", 0)) {
        return broken ? NULL : "the balloon is not broken";
    }
    return why;
}

CASE(run_report, "report",
     "base=,size=[,step=][,any=1][,queue=3][,broken=1]: reports to the "
     "balloon that it is free");

/* Free page hinting: when a migration asks for hints, or at any time. */
static const char *run_hint(void)
{
    static uint32_t command;
    const char *why = set_up(arg("queue", 3), F_FREE_PAGE_HINT);

    if (!why && !arg("unasked", 0)) {
        say("hint: ready\n");
        do {
            command = virtio_config(&balloon, HINT_COMMAND);
        } while (command < FIRST_COMMAND);
        desc[0] = (struct desc) { (uintptr_t)&command, 4 };
        why = send();
    }
    why = why ?: send_all();
    virtio_reset(&balloon);
    return why;
}

CASE(run_hint, "hint",
     "base=,size=[,step=][,any=1][,queue=3][,unasked=1]: hints that it is "
     "free, when a migration asks");
