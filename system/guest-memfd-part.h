/*
 * Private memory of a VM: a part of a request to convert guest memory
 *
 * The memory map cuts a range of guest addresses into pieces, each of one RAM
 * block.  A GuestMemfdPart is as many of them as are converted at once.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_GUEST_MEMFD_PART_H
#define SYSTEM_GUEST_MEMFD_PART_H

#include "exec/hwaddr.h"
#include "system/guest-memfd-block.h"

/*
 * Nearly every request has one part of one piece, so parts are on the stack.
 * More pieces than this are the next part's; can be changed at any time.
 */
#define GUEST_MEMFD_PART_PIECES 8

typedef struct GuestMemfdPart {
    hwaddr end;                 /* the guest address behind it */
    int n;
    GuestMemfdPiece pieces[GUEST_MEMFD_PART_PIECES];
    MemoryRegion *regions[GUEST_MEMFD_PART_PIECES]; /* of them; referenced */
} GuestMemfdPart;

/**
 * guest_memfd_part_find: find the pieces from a guest address on
 * @part: is set to them, even if that fails; to be passed to
 *     guest_memfd_part_unref() afterwards
 * @start: guest physical address
 * @end: guest physical address to stop at
 * @to_private: the state that the memory is to have
 * @most: stop after this many bytes that can be private
 *
 * Memory that cannot be private is shared already, be it RAM, ROM, a device's
 * or nothing at all, so there is nothing to convert to shared.
 *
 * Called with the BQL held.
 *
 * Returns: 0; -EINVAL if the memory cannot become private, or if pages would be
 *     converted in part
 */
int guest_memfd_part_find(GuestMemfdPart *part, hwaddr start, hwaddr end,
                          bool to_private, uint64_t most);

/* guest_memfd_part_unref: give the memory regions of a part back */
void guest_memfd_part_unref(GuestMemfdPart *part);

/**
 * guest_memfd_part_convert: convert a part
 * @part: from guest_memfd_part_find(), with the BQL held since then
 * @to_private: as for that
 * @pending: as for guest_memfd_map_convert()
 *
 * Returns: as guest_memfd_map_convert(); -EBUSY if a migration needs the memory
 *     to stay shared
 */
int64_t guest_memfd_part_convert(GuestMemfdPart *part, bool to_private,
                                 GuestMemfdPending *pending);

#endif
