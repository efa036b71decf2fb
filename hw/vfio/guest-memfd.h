/*
 * VFIO in machines with private memory
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_GUEST_MEMFD_H
#define HW_VFIO_GUEST_MEMFD_H

#include "hw/vfio/vfio-container.h"
#include "system/memory.h"

/**
 * vfio_guest_memfd_check_attach: can a device be assigned in this machine?
 * @as: the address space of the device's DMA
 * @errp: set if not: behind a vIOMMU in a machine with private memory
 *
 * Also looks after memory that is plugged, and after vIOMMUs that are created,
 * later.
 *
 * Returns: false if not
 */
bool vfio_guest_memfd_check_attach(AddressSpace *as, Error **errp);

#endif
