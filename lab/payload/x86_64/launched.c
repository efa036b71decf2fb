/*
 * The payload as a guest that was launched: how it asks for conversions, how
 * its other processors start, and the case that looks at what was launched.
 */
#include "payload.h"
#include "launch.h"
#include "x86.h"

bool launched, code_is_private;
uint32_t may_start;             /* payload.rom's other processors wait for it */

/* It is no hypercall, which KVM would have to emulate: see DOORBELL. */
int64_t ask_at_doorbell(uint64_t gpa, uint64_t pages, uint64_t attributes)
{
    int32_t status;

    asm volatile("inl %w1, %0"
                 : "=a"(status)
                 : "d"(DOORBELL), "b"(gpa), "c"(pages), "S"(attributes)
                 : "memory");
    return status;
}

void let_others_start(void)
{
    __atomic_store_n(&may_start, 1, __ATOMIC_RELEASE);
}

static const char *check_empty(void)
{
    return check_zero(ZEROS, ZEROS + ZERO_SIZE);
}

/* SEV-SNP's page with CPUID's answers: a count, and 48 bytes for each */
static const char *check_cpuid(void)
{
    const uint32_t *page = (const uint32_t *)CPUID;
    const uint32_t count = page[0];

    if (!count || count > 64) {
        return "the page with CPUID's answers has no count";
    }
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t *answer = page + 4 + i * 12;

        if (!answer[0]) {
            say("cpuid %u answers, maker %x %x %x\n", (uint64_t)count,
                (uint64_t)answer[7], (uint64_t)answer[9], (uint64_t)answer[8]);
            return answer[7] ? NULL : "CPUID's first answer is empty";
        }
    }
    return "CPUID's first answer is not there";
}

static const char *check_snp(void)
{
    const uint64_t *hashes = (const uint64_t *)HASHES;

    say("secrets version %u\n", (uint64_t)*(const uint32_t *)SECRETS);
    if (arg("hashes", 0) ? !hashes[0] : hashes[0] | hashes[1]) {
        return "hashes are where none are to be, or are not there";
    }
    return check_cpuid();
}

/* TDX's list of memory; its types: 1 (start), 3 (memory), 0xffff (end) */
static const char *check_tdx(void)
{
    const uint8_t *at = (const uint8_t *)HOB;
    const uint8_t *end = at + HOB_SIZE;
    uint64_t memory = 0;

    if (*(const uint16_t *)at != 1) {
        return "the HOB list does not begin with its header";
    }
    while (at < end && *(const uint16_t *)at != 0xffff) {
        const uint16_t *hob = (const uint16_t *)at;

        if (hob[0] == 3) {
            memory += *(const uint64_t *)(at + 40);
        }
        if (!hob[1]) {
            return "the HOB list has an entry without length";
        }
        at += hob[1];
    }
    say("memory %u MiB\n", memory >> 20);
    return at < end ? NULL : "the HOB list has no end";
}

static const char *run_launched(void)
{
    if (!launched) {
        return "the payload was not started as payload.rom";
    }
    return check_empty() ?: arg("tdx", 0) ? check_tdx() : check_snp();
}

CASE(run_launched, "launched",
     "[tdx=1][,hashes=1]: are the pages beside the firmware as they should be?");

/* The code stays as it is, in place, also the one that runs. */
static const char *run_share_code(void)
{
    const uint64_t end = ((uintptr_t)payload_end + PAGE_SIZE - 1) & -PAGE_SIZE;
    const char *why = convert((uintptr_t)payload_start, end, false);

    if (!why) {
        code_is_private = false;
    }
    return why;
}

CASE(run_share_code, "share-code",
     "the payload itself becomes shared memory, so that it can use devices");
