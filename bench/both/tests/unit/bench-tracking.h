/*
 * One page's change of state in QEMU's book-keeping, without the system calls
 * that follow from it: what bench-tracking.c measures of each engine
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BENCH_TRACKING_H
#define BENCH_TRACKING_H

#include "system/memory.h"

/* A listener that only counts */
void bench_listener_init(RamDiscardListener *rdl);

/* A VM of this size, all shared, with so many listeners */
void bench_engine_init(uint64_t size, int listeners);
void bench_engine_destroy(void);

void bench_engine_convert(uint64_t offset, uint64_t size, bool to_private);

#endif
