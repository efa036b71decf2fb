/*
 * Stands in, in a stock QEMU, for what the sw-protected-guest object and the
 * hooks that make stock start its VM need of our engine
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_GUEST_MEMFD_H
#define SYSTEM_GUEST_MEMFD_H

#include "qemu/bitmap.h"
#include "hw/boards.h"
#include "system/confidential-guest-support.h"
#include "system/ramblock.h"

static inline bool guest_memfd_initially_shared(void)
{
    return current_machine->cgs && current_machine->cgs->initially_shared;
}

/* Stock has all memory private at first. */
static inline void guest_memfd_all_shared(RamBlockAttributes *attributes)
{
    if (guest_memfd_initially_shared()) {
        bitmap_set(attributes->bitmap, 0, attributes->bitmap_size);
    }
}

/* The benchmark's guests are never reset. */
static inline int guest_memfd_reset(void)
{
    return 0;
}

#endif
