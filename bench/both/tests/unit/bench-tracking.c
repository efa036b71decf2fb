/*
 * What it costs QEMU to keep track of private memory, by the size of the VM, of
 * the range, and by the number of listeners
 *
 * Prints for each case: bytes of the VM, of the range, its runs that differ
 * (1: uniform), listeners, and the median of the nanoseconds a conversion.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "bench-tracking.h"

#define PAGE 4096
#define SAMPLES 101
#define BATCH 8

static uint64_t calls;

static int count_populate(RamDiscardListener *rdl, MemoryRegionSection *section)
{
    calls++;
    return 0;
}

static void count_discard(RamDiscardListener *rdl, MemoryRegionSection *section)
{
    calls++;
}

void bench_listener_init(RamDiscardListener *rdl)
{
    ram_discard_listener_init(rdl, count_populate, count_discard, true);
}

/* Every other run of the range gets that state already. */
static void mix(uint64_t at, uint64_t size, uint64_t run, bool private)
{
    uint64_t i;

    for (i = run; i < size; i += 2 * run) {
        bench_engine_convert(at + i, run, private);
    }
}

static int compare(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

/* There and back, in nanoseconds; what mixes the range is not timed */
static int64_t there_and_back(uint64_t at, uint64_t size, uint64_t run)
{
    int64_t ns = 0, begin;
    int i;

    if (!run) {
        /* Often enough for the clock not to count. */
        begin = get_clock();
        for (i = 0; i < 2 * BATCH; i++) {
            bench_engine_convert(at, size, !(i & 1));
        }
        return (get_clock() - begin) / BATCH;
    }
    for (i = 0; i < 2; i++) {
        mix(at, size, run, !i);
        begin = get_clock();
        bench_engine_convert(at, size, !i);
        ns += get_clock() - begin;
    }
    return ns;
}

/* @run: 0 for a uniform range */
static void measure(uint64_t vm, uint64_t size, uint64_t run, int listeners)
{
    static int64_t ns[SAMPLES];
    int i;

    bench_engine_init(vm, listeners);
    /* The first access to a bitmap is the kernel's time. */
    bench_engine_convert(0, vm, true);
    bench_engine_convert(0, vm, false);
    for (i = 0; i < SAMPLES; i++) {
        /* In the middle: neither end of the bitmap is near. */
        ns[i] = there_and_back(vm / 2, size, run);
    }
    bench_engine_destroy();
    qsort(ns, SAMPLES, sizeof(*ns), compare);
    printf("%" PRIu64 " %" PRIu64 " %" PRIu64 " %d %" PRId64 "\n", vm, size,
           run ? size / run / 2 : 1, listeners, ns[SAMPLES / 2] / 2);
}

int main(void)
{
    uint64_t vm;

    for (vm = 4 * GiB; vm <= 4 * TiB; vm *= 4) {
        measure(vm, PAGE, 0, 1);
    }
    measure(4 * GiB, 2 * MiB, 64 * KiB, 1);
    measure(4 * GiB, 2 * MiB, 64 * KiB, 8);
    return 0;
}
