/*
 * The payload's way to KVM: the instruction for hypercalls, and KVM's CPUID.
 */
#include "payload.h"
#include "x86.h"

bool is_amd(void)
{
    uint32_t regs[4];

    cpuid(0, regs);
    return regs[1] == 0x68747541 /* "Auth" */ ||
           regs[1] == 0x6f677948 /* "Hygo" */;
}

int64_t kvm_hypercall(uint64_t number, uint64_t a0, uint64_t a1, uint64_t a2)
{
    static int amd = -1;        /* CPUID is an exit; once is enough */
    int64_t status;

    if (launched) {
        return number == HC_MAP_GPA_RANGE ? ask_at_doorbell(a0, a1, a2)
                                          : GUEST_ENOSYS;
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

static const char *run_cpuid_map_gpa(void)
{
    return has_map_gpa() ? NULL : "CPUID does not have the feature";
}

CASE(run_cpuid_map_gpa, "cpuid-map-gpa",
     "does KVM say that it has the hypercall?");
