/*
 * The payload's requests to virtio devices about private memory: rings and
 * buffers that are in private memory, or that become private while the device
 * works with them.
 */
#include "virtio.h"

/*
 * Each piece of a request has two pages, and lies over the boundary between
 * them if it has more than a byte. Before and behind all of them are pages that
 * the device has no business in.
 */

enum { DATA_SIZE = 4096 };

enum piece { DESC, AVAIL, USED, INDIRECT, HEADER, DATA, ANSWER, PIECES };

enum when {                     /* memory becomes private */
    BEFORE_SET_UP,
    BEFORE_KICK,
    IN_FLIGHT,
    IN_FLIGHT_TWICE,            /* and shared again */
};

struct try {
    enum piece piece;
    enum when when;
    uint32_t type;              /* of the request */
    uint64_t start, end;        /* pages that become private */
};

static const struct {
    const char *name;
    unsigned first;             /* bytes in its first page */
    unsigned size;
} pieces[PIECES] = {
    [DESC] = { "descriptors", 32, 128 },
    [AVAIL] = { "available ring", 4, 22 },
    [USED] = { "used ring", 4, 70 },
    [INDIRECT] = { "indirect table", 32, 48 },
    [HEADER] = { "header", 8, 16 },
    [DATA] = { "data", DATA_SIZE / 2, DATA_SIZE },
    [ANSWER] = { "status", 1, 1 },
};

static struct {
    uint64_t start, seed;
    bool zero;                  /* must have become zero what was private */
    struct device device;
    struct queue queue;
    /* What came of it */
    uint64_t trials, answered, broken, silent, stale;
} trial;

static uint64_t piece_pages(enum piece piece)
{
    return trial.start + (1 + 2 * piece) * PAGE_SIZE;
}

static uint64_t place(enum piece piece)
{
    return piece_pages(piece) + PAGE_SIZE - pieces[piece].first;
}

static uint64_t layout_end(void)
{
    return piece_pages(PIECES) + PAGE_SIZE;
}

/* What the disk has, by word. */
static uint64_t disk_word(uint64_t i)
{
    return pattern((uint64_t *)(i * 8), trial.seed + 1);
}

static void write_disk_words(void)
{
    for (unsigned i = 0; i < DATA_SIZE / 8; i++) {
        ((uint64_t *)place(DATA))[i] = disk_word(i);
    }
}

static void write_request(bool indirect, uint32_t type)
{
    struct desc *desc = (struct desc *)place(DESC);
    uint32_t *header = (uint32_t *)place(HEADER);

    if (indirect) {
        desc[0] = (struct desc) {
            place(INDIRECT), 3 * sizeof(*desc), DESC_INDIRECT
        };
        desc = (struct desc *)place(INDIRECT);
    }
    desc[0] = (struct desc) { place(HEADER), 16, DESC_NEXT, 1 };
    desc[1] = (struct desc) {
        place(DATA), DATA_SIZE, DESC_NEXT | (type == BLK_IN ? DESC_WRITE : 0), 2
    };
    desc[2] = (struct desc) { place(ANSWER), 1, DESC_WRITE };
    header[0] = type;
    header[1] = header[2] = header[3] = 0;
    *(uint8_t *)place(ANSWER) = 0xff;
}

/* All of it shared and zero, but for the guards. */
static const char *clear(void)
{
    uint64_t end = piece_pages(PIECES);
    const char *why;

    why = convert(piece_pages(0), end, true) ?:
          convert(piece_pages(0), end, false);
    for (uint64_t at = piece_pages(0); converts_in_place && at < end; at += 8) {
        *(uint64_t *)at = 0;
    }
    fill(trial.start, piece_pages(0), trial.seed);
    fill(end, layout_end(), trial.seed);
    return why;
}

static const char *trial_check_guards(void)
{
    return check_filled(trial.start, piece_pages(0), trial.seed) ?:
           check_filled(piece_pages(PIECES), layout_end(), trial.seed);
}

/*
 * Can the disk have got that instead of the word? Zeros; or, in place, what was
 * written while the page was private.
 */
static bool is_instead(const uint64_t *word)
{
    return !*word ||
           (converts_in_place && *word == pattern(word, trial.seed + 2));
}

/*
 * A request with nothing private: it has to work. The disk may have something
 * instead of what it had not got before.
 */
static const char *request(uint32_t type, bool or_instead)
{
    uint64_t *data = (uint64_t *)place(DATA);
    const char *why = clear();

    if (why) {
        return why;
    }
    write_request(false, type);
    if (type == BLK_OUT) {
        write_disk_words();
    }
    virtio_set_up(&trial.device, &trial.queue);
    virtio_send(&trial.device, &trial.queue, 0);
    if (!virtio_wait(virtio_is_answered, &trial.device, &trial.queue,
                     LONG_WAIT)) {
        return "the device does not work with shared memory";
    }
    virtio_reset(&trial.device);
    if (*(uint8_t *)place(ANSWER)) {
        return "the device fails with shared memory";
    }
    for (unsigned i = 0; i < DATA_SIZE / 8; i++) {
        if (data[i] != disk_word(i) &&
            !(or_instead && is_instead(&data[i]))) {
            say("# word %u: %x, not %x\n", (uint64_t)i, data[i], disk_word(i));
            return "the device has other data";
        }
    }
    return trial_check_guards();
}

static const char *plain_request(uint32_t type)
{
    return request(type, false);
}

/*
 * Pages that are shared again are zero, or in place as they were, but for what
 * the device gives them.
 */
static const char *check_shared(const struct try *t)
{
    uint64_t written = pieces[t->piece].size, from = place(t->piece);
    bool device_writes = t->piece == USED || t->piece == ANSWER ||
                         (t->piece == DATA && t->type == BLK_IN);

    if ((trial.zero || converts_in_place) && t->when != IN_FLIGHT_TWICE) {
        device_writes = false;
    }
    for (uint64_t at = t->start; at < t->end; at += 8) {
        uint64_t value = *(uint64_t *)at, want = 0;

        if (converts_in_place) {
            want = pattern((uint64_t *)at, trial.seed + 2);
        }
        if (value == want) {
            continue;
        }
        trial.stale += t->when != IN_FLIGHT_TWICE;
        if (!device_writes || at + 8 <= from || at >= from + written ||
            (t->piece == DATA && value != disk_word((at - from) / 8))) {
            say("# at %x: %x, not %x\n", at, value, want);
            return "what was private has changed";
        }
    }
    return NULL;
}

/* What a device may make of it that gets a request with private parts. */
static const char *check_outcome(const struct try *t)
{
    const struct queue *q = &trial.queue;
    bool broken = virtio_is_broken(&trial.device), answered = false;

    if (t->piece != USED) {
        answered = virtio_is_answered(q);
        trial.answered += answered;
    }
    trial.broken += broken;
    trial.silent += !answered && !broken;
    if (t->when >= IN_FLIGHT) {
        /* It has got what it needs, unless it looks for another request. */
        return answered || t->piece == USED || (t->piece == AVAIL && broken)
               ? NULL : "no answer";
    }
    switch (t->piece) {
    case AVAIL:
        return answered ? "the device has seen a private ring" : NULL;
    case USED:
        /* A device that knows the ring already goes on with the shared half. */
        return broken || t->when != BEFORE_SET_UP ? NULL
               : "the device has got a private ring";
    default:
        return broken ? NULL : "the device has got at private memory";
    }
}

/* Until something has come of the request, or nothing seems to. */
static void wait_for_outcome(const struct try *t)
{
    bool may_be_silent = (t->piece == AVAIL && t->when < IN_FLIGHT) ||
                         (t->piece == USED && t->when != IN_FLIGHT_TWICE);

    virtio_wait(virtio_is_answered, &trial.device, &trial.queue,
                may_be_silent ? SHORT_WAIT : LONG_WAIT);
}

/* Pages are private when the device gets the request. */
static const char *request_with_private(const struct try *t)
{
    const struct device *d = &trial.device;
    struct queue *q = &trial.queue;
    const char *why;

    if (t->when == BEFORE_KICK) {
        virtio_set_up(d, q);
    }
    why = convert(t->start, t->end, true);
    if (why) {
        return why;
    }
    fill(t->start, t->end, trial.seed + 2);
    if (t->when == BEFORE_SET_UP) {
        virtio_set_up(d, q);
    }
    if (t->piece != AVAIL) {
        virtio_add(q, 0);
    } else {
        q->sent++;              /* what the device would have to see */
    }
    virtio_kick(d, q);
    return NULL;
}

/*
 * Pages become private when the device has got the request, which the test
 * holds until it is told to release it.
 */
static const char *request_in_flight(const struct try *t)
{
    const struct device *d = &trial.device;
    struct queue *q = &trial.queue;
    const char *why;

    virtio_set_up(d, q);
    wait_for_test("hold");
    virtio_send(d, q, 0);
    if (!virtio_wait(virtio_is_taken, d, q, LONG_WAIT)) {
        return "the device does not take a request";
    }
    why = convert(t->start, t->end, true);
    if (why) {
        return why;
    }
    if (t->piece != USED && virtio_is_answered(q)) {
        return "the disk has not held the request";
    }
    fill(t->start, t->end, trial.seed + 2);
    if (t->when == IN_FLIGHT_TWICE) {
        why = check_filled(t->start, t->end, trial.seed + 2) ?:
              convert(t->start, t->end, false);
    }
    wait_for_test("release");
    return why;
}

static const char *try_pages(const struct try *t)
{
    const char *why = plain_request(BLK_IN) ?: clear();
    bool private = t->when != IN_FLIGHT_TWICE;

    trial.trials++;
    write_request(t->piece == INDIRECT, t->type);
    if (t->type == BLK_OUT) {
        write_disk_words();
    }
    why = why ?: (t->when < IN_FLIGHT ? request_with_private(t)
                                      : request_in_flight(t));
    if (why) {
        return why;
    }
    wait_for_outcome(t);
    why = check_outcome(t);
    if (private) {
        why = why ?: check_filled(t->start, t->end, trial.seed + 2);
    }
    /* What is in flight comes to its end. */
    virtio_reset(&trial.device);
    if (private) {
        why = why ?: check_filled(t->start, t->end, trial.seed + 2) ?:
                     convert(t->start, t->end, false);
    }
    why = why ?: check_shared(t) ?: trial_check_guards();
    if (!why && t->type == BLK_OUT) {
        /* Nothing private, that is. */
        why = request(BLK_IN, t->when >= IN_FLIGHT) ?: plain_request(BLK_OUT);
    }
    return why ?: plain_request(BLK_IN);
}

static const char *try_all(bool flight)
{
    static const char *const names[] = {
        "before set-up", "before the kick", "in flight", "in flight, twice",
    };
    enum when first = flight ? IN_FLIGHT : BEFORE_SET_UP;
    const char *why = plain_request(BLK_OUT);

    for (unsigned i = 0; !why && i < 2 * (PIECES + 1) * 3; i++) {
        unsigned piece = i / 3 % (PIECES + 1), which = i % 3;
        struct try t = {
            /* And at last, data that the device reads. */
            .piece = piece < PIECES ? piece : DATA,
            .type = piece < PIECES ? BLK_IN : BLK_OUT,
            .when = first + i / 3 / (PIECES + 1),
        };

        if (t.piece == ANSWER && which) {
            continue;           /* it has but one page */
        }
        t.start = piece_pages(t.piece) + (which == 1) * PAGE_SIZE;
        t.end = t.start + (which == 2 ? 2 : 1) * PAGE_SIZE;
        why = try_pages(&t);
        if (why) {
            say("# %s private %s, page %u (2: both); seed %u\n",
                pieces[t.piece].name, names[t.when], (uint64_t)which,
                trial.seed);
        }
    }
    return why;
}

static const char *run_virtio(void)
{
    struct device disks[4];
    uint64_t disk = arg("disk", 0), flight = arg("flight", 0), end;
    unsigned n = virtio_find(VIRTIO_BLK, disks, 4);
    const char *why = arg_pages("base", "size", &trial.start, &end);

    if (why) {
        return why;
    }
    if (disk >= n) {
        return "there is no such virtio-blk-pci";
    }
    if (layout_end() > end) {
        return "size= must be 64K";
    }
    trial.device = disks[disk];
    trial.queue = (struct queue) {
        .size = 8, .features = F_VERSION_1 | F_INDIRECT | F_EVENT_IDX,
        .desc = place(DESC), .avail = place(AVAIL), .used = place(USED),
    };
    trial.seed = arg("seed", timestamp() & 0xffffffff);
    trial.zero = arg("zero", 0);
    say("# virtio: seed %u\n", trial.seed);
    trial.trials = trial.answered = trial.broken = trial.silent = 0;
    trial.stale = 0;
    why = try_all(flight);
    virtio_reset(&trial.device);
    say("virtio: %u trials, %u answered, %u broken, %u silent, %u stale words"
        "\n", trial.trials, trial.answered, trial.broken, trial.silent,
        trial.stale);
    return why ?: clear();
}

CASE(run_virtio, "virtio",
     "base=,size=64K[,disk=0][,flight=1][,zero=1][,seed=]: each part of a "
     "request in private memory, at first or while the disk has it; the test "
     "holds the disk then");
