/*
 * The payload's conversions between private and shared memory: KVM's hypercall,
 * or the model's.
 */
#include "payload.h"

bool converts_in_place;

int64_t hypercall(uint64_t number, uint64_t a0, uint64_t a1, uint64_t a2)
{
    int64_t status;

    return model_hypercall(number, a0, a1, a2, &status)
           ? status : kvm_hypercall(number, a0, a1, a2);
}

int64_t map_gpa(uint64_t gpa, uint64_t pages, uint64_t attributes)
{
    return hypercall(HC_MAP_GPA_RANGE, gpa, pages, attributes);
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

const char *check_converted(uint64_t start, uint64_t end, uint64_t seed)
{
    return converts_in_place ? check_filled(start, end, seed)
                             : check_zero(start, end);
}
