/*
 * Which of the payload's processors this is: each knows it by its stack.
 */
#include "payload.h"
#include "x86.h"

char ap_stacks[MAX_CPUS - 1][AP_STACK_SIZE] __attribute__((aligned(16)));

unsigned this_cpu(void)
{
    uintptr_t at = (uintptr_t)__builtin_frame_address(0);
    uintptr_t first = (uintptr_t)ap_stacks;

    if (at < first || at >= first + sizeof(ap_stacks)) {
        return 0;
    }
    return 1 + (at - first) / AP_STACK_SIZE;
}
