/*
 * The memory slots of a guest_memfd, as query-guest-memfd tells them
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TEST_GUEST_MEMFD_SLOTS_UTIL_H
#define TEST_GUEST_MEMFD_SLOTS_UTIL_H

#include "libqtest.h"

typedef struct Slot {
    uint64_t as, address, size, offset;
    char binding[16];
} Slot;

/* Those of @id, as an array of Slot; the caller frees it. */
GArray *query_slots(QTestState *qts, const char *id);

/*
 * What is to be so at any time: in address space 0, of the slots that KVM can
 * bind, the largest are bound, then the lowest, and no part of the file twice.
 * In other address spaces none is.  KVM refuses nothing, but for @refused.
 */
void check_slots(const GArray *slots, bool refused);

/* query_slots(), then check_slots() with nothing refused */
GArray *get_slots(QTestState *qts, const char *id);

bool slot_is(const Slot *slot, const char *binding);

/* The slots of @id as text, to compare and to print; the caller frees it. */
char *slots_text(QTestState *qts, const char *id);

/* How @id is registered at a guest address; NULL if it is not. */
const char *binding_at(QTestState *qts, const char *id, uint64_t as,
                       uint64_t address);

/* All of an address space's slots are like this, and there is one. */
void assert_all_slots(QTestState *qts, const char *id, uint64_t as,
                      const char *binding);

/*
 * Waits until it is so: dirty logging ends a while after what it was for.
 * @refused is as for check_slots().
 */
void wait_all_slots(QTestState *qts, const char *id, uint64_t as,
                    const char *binding, bool refused);

#endif
