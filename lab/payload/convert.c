/*
 * The payload's conversions between private and shared memory: KVM's hypercall,
 * and the cases for one processor.
 *
 * In a software-protected VM no exception tells the two apart: a page just
 * shows its private or its shared contents. The host discards a page's contents
 * when its state changes, so that it then reads as zero; the cases rely on that.
 */
#include "payload.h"

static bool is_amd(void)
{
    uint32_t regs[4];

    cpuid(0, regs);
    return regs[1] == 0x68747541 /* "Auth" */ ||
           regs[1] == 0x6f677948 /* "Hygo" */;
}

int64_t hypercall(uint64_t number, uint64_t a0, uint64_t a1, uint64_t a2)
{
    static int amd = -1;        /* CPUID is an exit; once is enough */
    int64_t status;

    if (model_hypercall(number, a0, a1, a2, &status)) {
        return status;
    }
    if (amd < 0) {
        amd = is_amd();
    }
    /*
     * KVM would replace the other vendor's instruction, by writing to the
     * shared half of our code.
     */
    if (amd) {
        asm volatile("vmmcall" : "=a"(status)
                     : "a"(number), "b"(a0), "c"(a1), "d"(a2), "S"(0)
                     : "memory");
    } else {
        asm volatile("vmcall" : "=a"(status)
                     : "a"(number), "b"(a0), "c"(a1), "d"(a2), "S"(0)
                     : "memory");
    }
    return status;
}

bool has_map_gpa(void)
{
    uint32_t regs[4];

    /* Not at the first place if there are Hyper-V's leaves, too. */
    for (uint32_t leaf = 0x40000000; leaf < 0x40010000; leaf += 0x100) {
        cpuid(leaf, regs);
        /* "KVMKVMKVM\0\0\0" */
        if (regs[1] == 0x4b4d564b && regs[2] == 0x564b4d56 && regs[3] == 0x4d) {
            cpuid(leaf + 1, regs);
            return regs[0] >> 16 & 1;
        }
    }
    return false;
}

const char *run_cpuid_map_gpa(void)
{
    return has_map_gpa() ? NULL : "CPUID does not have the feature";
}

const char *arg_pages(const char *base_key, const char *size_key,
                      uint64_t *start, uint64_t *end)
{
    uint64_t *first, *last, base = arg(base_key, 0), size = arg(size_key, 0);
    const char *why = check_range(base, size, &first, &last);

    if (!why && (base | size) % PAGE_SIZE) {
        why = "base= and size= must name whole pages";
    }
    *start = base;
    *end = base + size;
    return why;
}

/* Any range: QEMU is to judge, not us. */
const char *run_convert(void)
{
    uint64_t size = arg("size", 0);
    int64_t status, want = -(int64_t)arg("expect", 0);

    if (size % PAGE_SIZE) {
        return "size= must be whole pages";
    }
    status = map_gpa(arg("base", 0), size / PAGE_SIZE,
                     arg("private", 0) ? MAP_GPA_PRIVATE : 0);
    say("convert: %d\n", status);
    if (status != want) {
        say("# expected: %d\n", want);
        return "wrong status";
    }
    return NULL;
}

const char *check_zero(uint64_t start, uint64_t end)
{
    for (uint64_t *p = (uint64_t *)start; p < (uint64_t *)end; p++) {
        uint64_t value = *p;

        if (value) {
            say("# at %x: %x, not zero\n", (uintptr_t)p, value);
            return "not zero";
        }
    }
    return NULL;
}

const char *run_zero(void)
{
    uint64_t *start, *end;
    const char *why = arg_range(&start, &end);

    return why ?: check_zero((uintptr_t)start, (uintptr_t)end);
}

const char *convert(uint64_t start, uint64_t end, bool private)
{
    int64_t status = map_gpa(start, (end - start) / PAGE_SIZE,
                             private ? MAP_GPA_PRIVATE : 0);

    if (status) {
        say("# %x to %x to %s: %d\n", start, end,
            private ? "private" : "shared", status);
        return "a conversion failed";
    }
    return NULL;
}

/* What is in the range but not in the piece has the pattern. */
static const char *check_around(uint64_t base, uint64_t end, uint64_t at,
                                uint64_t size, uint64_t seed)
{
    return check_filled(base, at, seed) ?: check_filled(at + size, end, seed);
}

/* A piece of a shared range becomes private and shared again, and no more. */
static const char *piece(uint64_t base, uint64_t end, uint64_t at,
                         uint64_t size, uint64_t seed)
{
    const char *why;

    say("# %x bytes at %x\n", size, at);
    fill(base, end, seed);
    why = convert(at, at + size, true) ?:
          check_zero(at, at + size) ?:
          check_around(base, end, at, size, seed);
    if (why) {
        return why;
    }
    fill(at, at + size, seed + 1);
    return check_filled(at, at + size, seed + 1) ?:
           check_around(base, end, at, size, seed) ?:
           convert(at, at + size, true) ?:      /* it is already */
           check_filled(at, at + size, seed + 1) ?:
           convert(at, at + size, false) ?:
           check_zero(at, at + size) ?:
           check_around(base, end, at, size, seed);
}

/*
 * One request over pages of both states: only those change that have not got
 * the wanted one.
 */
static const char *mixed(uint64_t base, uint64_t end, bool private,
                         uint64_t seed)
{
    const char *why = convert(base, end, false);

    say("# mixed to %s\n", private ? "private" : "shared");
    for (uint64_t at = base; !why && at < end; at += 2 * PAGE_SIZE) {
        why = convert(at, at + PAGE_SIZE, true);
    }
    if (why) {
        return why;
    }
    fill(base, end, seed);
    why = convert(base, end, private);
    for (uint64_t at = base; !why && at < end; at += PAGE_SIZE) {
        bool was = !((at - base) / PAGE_SIZE & 1);

        why = was == private ? check_filled(at, at + PAGE_SIZE, seed)
                             : check_zero(at, at + PAGE_SIZE);
    }
    return why;
}

static const char *private_share(uint64_t base, uint64_t end, uint64_t seed)
{
    static const uint64_t sizes[] = { 4096, 65536, 2 << 20 };
    const char *why = convert(base, end, false);

    for (size_t i = 0; !why && i < sizeof(sizes) / sizeof(*sizes); i++) {
        uint64_t size = sizes[i], middle = (base + end) / 2;
        uint64_t places[] = {
            base,
            base + PAGE_SIZE,                   /* not aligned to its size */
            middle - middle % size,
            end - size,
        };

        for (size_t j = 0; !why && j < sizeof(places) / sizeof(*places); j++) {
            uint64_t at = places[j], own_seed = seed + 2 * (4 * i + j);

            if (at >= base && at < end && end - at >= size) {
                why = piece(base, end, at, size, own_seed);
            }
        }
    }
    return why ?:
           piece(base, end, base, end - base, seed + 100) ?:
           mixed(base, end, true, seed + 102) ?:
           mixed(base, end, false, seed + 103) ?:
           convert(base, end, false);
}

const char *run_private_share(void)
{
    struct extent ram;
    const char *why = arg_pages("base", "size", &ram.start, &ram.end);

    why = why ?: arg_dry(&ram, 1) ?:
          private_share(ram.start, ram.end, arg("seed", 0));
    model_end();
    return why;
}

/*
 * The code's own page goes: the processor then runs on through a page of zeros,
 * each pair of which is "add %al, (%rax)", and as al and rax are 0, the status,
 * nothing comes of it. So this has an end, if all goes well: the next page
 * returns.
 */
const char *run_self(void)
{
    static const uint8_t rest[] = {
        0xba, 1, 0, 0, 0,               /* mov $1, %edx */
        0xe9, 0xf3, 0x0f, 0, 0,         /* jmp to the next page */
    };
    uint64_t status = HC_MAP_GPA_RANGE, pages = 1, mark = MAP_GPA_PRIVATE;
    uint64_t start, end;
    const char *why = arg_pages("base", "size", &start, &end);
    uint8_t *code = (uint8_t *)start, *next = code + PAGE_SIZE;

    if (why) {
        return why;
    }
    if (end - start < 2 * PAGE_SIZE) {
        return "size= must be two pages";
    }
    why = convert(start, end, false);
    if (why) {
        return why;
    }
    code[0] = 0x0f;
    code[1] = 0x01;
    code[2] = is_amd() ? 0xd9 : 0xc1;
    for (size_t i = 0; i < sizeof(rest); i++) {
        code[3 + i] = rest[i];
    }
    /* cmc; after an odd number of zeros, with the last, "add %dh, %ch"; dh is 0 */
    next[0] = 0xf5;
    next[1] = 0xc3;                     /* ret */
    say("# the page at %x, which runs, becomes private\n", start);
    asm volatile("call *%4"
                 : "+a"(status), "+d"(mark), "+c"(pages)
                 : "b"(start), "r"(code) : "memory", "cc");
    say("# status %d, %s\n", status,
        mark == 1 ? "and the code was still there" : "and the code was gone");
    if (status) {
        return "the conversion failed";
    }
    return mark == 1 ? "the page has kept its contents" : NULL;
}

/*
 * A device writes into memory: fw_cfg's DMA, 4 bytes of its signature. It tells
 * if that did not work; then memory must be as it was.
 */
const char *run_dma(void)
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
    outl(0x514, __builtin_bswap32((uintptr_t)&request >> 32));
    outl(0x518, __builtin_bswap32((uintptr_t)&request));
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
