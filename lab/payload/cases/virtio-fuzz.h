/*
 * The payload's random requests to virtio devices, which the case "fuzz" makes.
 */
#ifndef GMEM_LAB_VIRTIO_FUZZ_H
#define GMEM_LAB_VIRTIO_FUZZ_H

#include "payload.h"

/*
 * Whether there are virtio devices for the fuzzer, and one step with one of
 * them: requests in rings that are anywhere in the area, or elsewhere.
 */
bool virtio_fuzz_start(struct extent area, uint64_t hole, bool self);
void virtio_fuzz(uint64_t *random);
void virtio_fuzz_end(void);

#endif
