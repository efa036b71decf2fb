/*
 * Free memory that a guest reports or hints to virtio-balloon
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_BALLOON_FREE_H
#define HW_VIRTIO_BALLOON_FREE_H

#include "hw/virtio/virtio.h"

/**
 * virtio_balloon_report: free the memory that an element of the reporting queue
 *     names
 * @elem: the element; its buffers can have any address and size
 *
 * Frees both halves of memory that can be private.  Pages keep their state and
 * are zero when the guest uses them again.  Called with the BQL held.
 */
void virtio_balloon_report(const VirtQueueElement *elem);

/**
 * virtio_balloon_hint: tell the migration that it need not send the memory that
 *     an element of the hinting queue names
 * @elem: the element; its buffers can have any address and size
 *
 * No memory is private while a migration runs; what has become private since is
 * passed over.  Can be called without the BQL.
 */
void virtio_balloon_hint(const VirtQueueElement *elem);

#endif
