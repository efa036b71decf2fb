/*
 * The payload's model of conversions, to test the cases themselves where there
 * is no private memory: with a right one they must pass, with a wrong one fail.
 */
#include "payload.h"

#define PAGES_PER_WORD 64

static struct {
    uint64_t kind;              /* dry= */
    unsigned n;
    struct extent ram[2];
    uint64_t *private[2];       /* a bit per page */
    uint64_t requests;
} model;

const char *arg_dry(const struct extent *ram, unsigned n)
{
    uint64_t kind = arg("dry", 0);

    if (kind > 3) {
        return "dry= must be 1, 2 or 3";
    }
    for (unsigned i = 0; kind && i < n; i++) {
        uint64_t pages = (ram[i].end - ram[i].start) / PAGE_SIZE;

        model.ram[i] = ram[i];
        model.private[i] = scratch(pages / PAGES_PER_WORD * 8 + 8,
                                   ram[0].start);
        if (!model.private[i]) {
            return "no room for notes below base=";
        }
    }
    model.n = n;
    model.kind = kind;
    return NULL;
}

void model_end(void)
{
    model.kind = 0;
    scratch_end();
}

static void zero_page(uint64_t at)
{
    uint64_t *p = (uint64_t *)at;

    for (size_t i = 0; i < PAGE_SIZE / 8; i++) {
        __atomic_store_n(p + i, 0, __ATOMIC_RELAXED);
    }
}

/* The pages of one word, from first to last, as far as they change. */
static void convert_word(unsigned i, uint64_t word, uint64_t mask, bool private,
                         bool forget)
{
    uint64_t *at = &model.private[i][word], old, changed;

    if (model.kind == 3) {
        old = __atomic_load_n(at, __ATOMIC_RELAXED);
    } else if (private) {
        old = __atomic_fetch_or(at, mask, __ATOMIC_ACQ_REL);
    } else {
        old = __atomic_fetch_and(at, ~mask, __ATOMIC_ACQ_REL);
    }
    changed = (private ? ~old : old) & mask;
    for (unsigned bit = 0; bit < PAGES_PER_WORD; bit++) {
        if (changed >> bit & 1) {
            if (forget == converts_in_place) {
                zero_page(model.ram[i].start +
                          (word * PAGES_PER_WORD + bit) * PAGE_SIZE);
            }
            forget = false;
        }
    }
    if (model.kind == 3) {
        __atomic_store_n(at, private ? old | mask : old & ~mask,
                         __ATOMIC_RELAXED);
    }
}

static int64_t model_map_gpa(uint64_t gpa, uint64_t pages, uint64_t attributes)
{
    uint64_t size = pages * PAGE_SIZE, end = gpa + size, covered = 0;
    bool private = attributes & MAP_GPA_PRIVATE;
    uint64_t n = __atomic_add_fetch(&model.requests, 1, __ATOMIC_RELAXED);
    bool forget = model.kind == 2 && n % 8 == 0;
    struct extent parts[2];

    if (gpa % PAGE_SIZE || !pages || attributes & ~0x1fULL) {
        return GUEST_EINVAL;
    }
    if (model.kind != 2 && (size / PAGE_SIZE != pages || (end && end < gpa))) {
        return GUEST_EINVAL;
    }
    for (unsigned i = 0; i < model.n; i++) {
        const struct extent *ram = &model.ram[i];

        parts[i].start = gpa > ram->start ? gpa : ram->start;
        parts[i].end = end - 1 < ram->end - 1 ? end : ram->end;
        if (parts[i].start < parts[i].end) {
            covered += parts[i].end - parts[i].start;
        }
    }
    if (private && covered != size) {
        return GUEST_EINVAL;
    }
    for (unsigned i = 0; i < model.n; i++) {
        uint64_t start = model.ram[i].start;

        while (parts[i].start < parts[i].end) {
            uint64_t page = (parts[i].start - start) / PAGE_SIZE;
            uint64_t left = (parts[i].end - parts[i].start) / PAGE_SIZE;
            uint64_t first = page % PAGES_PER_WORD;
            uint64_t some = PAGES_PER_WORD - first;

            some = some < left ? some : left;
            convert_word(i, page / PAGES_PER_WORD,
                         (-1ULL >> (PAGES_PER_WORD - some)) << first,
                         private, forget);
            forget = false;
            parts[i].start += some * PAGE_SIZE;
        }
    }
    return 0;
}

bool model_hypercall(uint64_t number, uint64_t a0, uint64_t a1, uint64_t a2,
                     int64_t *status)
{
    if (!model.kind) {
        return false;
    }
    *status = number == HC_MAP_GPA_RANGE ? model_map_gpa(a0, a1, a2)
              : number == 1 ? 0 : GUEST_ENOSYS;
    return true;
}
