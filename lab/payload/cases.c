/*
 * The payload's test cases. A new one is a function and a line in the table.
 */
#include "payload.h"

/* splitmix64's mixing. */
uint64_t pattern(const uint64_t *at, uint64_t seed)
{
    uint64_t x = (uintptr_t)at + seed * 0x9e3779b97f4a7c15;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

static const char *run_hello(void)
{
    say("hello\n");
    return NULL;
}

void fill(uint64_t start, uint64_t end, uint64_t seed)
{
    for (uint64_t *p = (uint64_t *)start; p < (uint64_t *)end; p++) {
        *p = pattern(p, seed);
    }
}

const char *check_filled(uint64_t start, uint64_t end, uint64_t seed)
{
    for (uint64_t *p = (uint64_t *)start; p < (uint64_t *)end; p++) {
        uint64_t value = *p;

        if (value != pattern(p, seed)) {
            say("# at %x: %x, not %x\n", (uintptr_t)p, value, pattern(p, seed));
            return "wrong contents";
        }
    }
    return NULL;
}

static const char *run_fill(void)
{
    uint64_t *start, *end;
    const char *why = arg_range(&start, &end);

    if (!why) {
        fill((uintptr_t)start, (uintptr_t)end, arg("seed", 0));
    }
    return why;
}

static const char *run_verify(void)
{
    uint64_t *start, *end;
    const char *why = arg_range(&start, &end);

    return why ?: check_filled((uintptr_t)start, (uintptr_t)end,
                               arg("seed", 0));
}

static const char *run_checksum(void)
{
    uint64_t *p, *end, sum = 0xcbf29ce484222325;
    const char *why = arg_range(&p, &end);

    if (why) {
        return why;
    }
    while (p < end) {
        sum = (sum ^ *p++) * 0x100000001b3;     /* FNV-1a, by words */
    }
    say("checksum %x\n", sum);
    return NULL;
}

static uint64_t dirty_value(uint64_t pass, uintptr_t address)
{
    return address >> 12 << 32 | (uint32_t)pass;
}

/*
 * Each page gets a number that is its own in each pass, after the one of the
 * pass before was checked: at any time pages get dirty.
 */
static const char *run_dirty(void)
{
    uint64_t passes = arg("passes", UINT64_MAX), step = arg("step", 4096) / 8;
    uint64_t *start, *end;
    const char *why = arg_range(&start, &end);
    volatile uint64_t *p;       /* volatile: each access must be made */

    if (why) {
        return why;
    }
    if (!step) {
        return "step= must be at least 8";
    }
    for (uint64_t pass = 0; pass <= passes; pass++) {
        for (p = start; p < end; p += step) {
            uint64_t want = dirty_value(pass - 1, (uintptr_t)p), value = *p;

            if (pass && value != want) {
                say("FAIL: pass %u, at %x: %x, not %x\n",
                    pass, (uintptr_t)p, value, want);
                return "a write was lost";
            }
            *p = dirty_value(pass, (uintptr_t)p);
        }
        say("pass %u\n", pass);
    }
    return NULL;
}

/* Boots count= more times; a byte of CMOS RAM, which no reset clears, counts. */
static const char *run_reset(void)
{
    const uint8_t at = 0x6f;
    uint64_t count = arg("count", 1);
    uint8_t boots;

    outb(0x70, at);
    boots = inb(0x71);
    say("boot %u\n", (uint64_t)boots);
    outb(0x70, at);
    if (boots == count) {
        outb(0x71, 0);
        return NULL;
    }
    outb(0x71, boots + 1);
    if (arg("keyboard", 0)) {
        outb(0x64, 0xfe);
    } else {
        outb(0xcf9, 2);
        outb(0xcf9, 6);
    }
    for (;;) {
        asm volatile("hlt");
    }
}

/* The test goes on when it has seen something: it presses a key, and releases it. */
static const char *run_wait(void)
{
    say("waiting\n");
    for (;;) {
        if (inb(0x64) & 1 && inb(0x60) & 0x80) {
            return NULL;
        }
        pause();
    }
}

void turn_shadow_ram(void)
{
    const uint32_t pam = 0x90;      /* bit 5: whether 0xf0000 can be written */
    uint32_t before = pci_read(0, pam);

    pci_write(0, pam, before ^ 0x20);
    pci_write(0, pam, before);
}

/* What a device needs to be told: an ejection, a reset. */
static const char *run_out(void)
{
    uint64_t port = arg("port", 0), value = arg("value", 0);

    switch (arg("size", 1)) {
    case 1:
        outb(port, value);
        return NULL;
    case 2:
        outw(port, value);
        return NULL;
    case 4:
        outl(port, value);
        return NULL;
    default:
        return "size= must be 1, 2 or 4";
    }
}

static const char *run_shadow(void)
{
    turn_shadow_ram();
    return NULL;
}

const struct test_case cases[] = {
    { "hello", run_hello, "says hello" },
    { "fill", run_fill, "base=,size=[,seed=]: writes a pattern" },
    { "verify", run_verify, "base=,size=[,seed=]: checks the pattern that fill wrote" },
    { "checksum", run_checksum, "base=,size=: says a checksum of the range" },
    { "dirty", run_dirty,
      "base=,size=[,step=4K][,passes=]: checks and rewrites a word per page" },
    { "reset", run_reset, "[count=1][,keyboard=1]: resets the machine count times" },
    { "suspend", run_suspend, "to RAM; goes on when the machine wakes up" },
    { "wait", run_wait, "for a key" },
    { "shadow", run_shadow, "turns shadow RAM over, twice" },
    { "out", run_out, "port=,value=[,size=1]: writes to an I/O port" },
    { "smp", run_smp, "[cpus=][,count=10000]: all processors count, with a lock" },
    { "cpuid-map-gpa", run_cpuid_map_gpa, "does KVM say that it has the hypercall?" },
    { "convert", run_convert,
      "base=,size=,private=0|1[,expect=ERRNO]: one request" },
    { "zero", run_zero, "base=,size=: is all of it zero?" },
    { "private-share", run_private_share,
      "base=,size=[,seed=][,dry=]: contents over conversions of several sizes" },
    { "requests", run_requests,
      "base=,size=,hole=[,dry=]: a table of requests, good and bad" },
    { "storm", run_storm,
      "base=,size=[,base2=,size2=][,hole=,holesize=][,count=100000][,seed=][,cpus=]"
      "[,shadows=STEPS][,show=1][,dry=]: all processors convert, and check all "
      "contents" },
    { "fuzz", run_fuzz,
      "base=,size=[,hole=][,count=100000][,seed=][,cpus=][,self=1][,dry=]: any "
      "arguments; what is outside the area keeps its contents" },
    { "dma", run_dma, "at=[,refused=1]: a device writes there, or cannot" },
    { "edu", run_edu,
      "at=,via=[,refused=1][,during=0|1][,device=0][,seed=]: an edu device "
      "copies between pages, and at= is converted before it begins" },
    { "virtio", run_virtio,
      "base=,size=64K[,disk=0][,flight=1][,zero=1][,seed=]: each part of a "
      "request in private memory, at first or while a throttled disk has it" },
    { "balloon", run_balloon, "base=,size=[,deflate=1]: gives it to the balloon" },
    { "report", run_report,
      "base=,size=[,step=][,any=1][,queue=3][,broken=1]: reports to the balloon that it is "
      "free" },
    { "hint", run_hint,
      "base=,size=[,step=][,any=1][,queue=3][,unasked=1]: hints that it is free, when a "
      "migration asks" },
    { "ring", run_ring,
      "type=,base=: starts a virtio device with a queue that is there, and no "
      "request" },
    { "flush", run_flush, "has virtio-pmem write back its memory" },
    { "bar", run_bar, "id=,at=: reads a register in the first BAR of a device" },
    { "self", run_self, "base=,size=8K: makes private the page that it runs on" },
    { "bench", run_bench,
      "base=,size=[,run=][,count=10]: says what conversions take, uniform or mixed" },
    { "churn", run_churn,
      "base=,size=[,step=2M][,count=10]: back and forth, and written to each time" },
    { "serve", run_serve, "runs the cases that come on the first serial port" },
    { "toggle", run_toggle,
      "base=,size=[,cpus=]: all processors but one convert, until the case calm" },
    { "calm", run_calm, "ends the case toggle" },
    { NULL }
};
