/*
 * Unit test of RAMBlockHoles: a memfd against a model
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include "exec/cpu-common.h"
#include "exec/target_page.h"
#include "qapi/error.h"
#include "qemu/memfd.h"
#include "qemu/units.h"
#include "system/address-spaces.h"
#include "system/memory.h"
#include "system/ram-block-holes.h"
#include "system/ramblock.h"

#define PAGES 4096
#define CHUNK_SHIFT 8           /* of the dirty log, in pages */

static size_t page_size;
static RAMBlock block;
static bool held[PAGES];        /* the model */

/* What ram-block-holes.c needs of the rest of QEMU, and is not tested here */

AddressSpace address_space_memory;
const TargetPageBits target_page = { .decided = true, .bits = 12,
                                     .mask = -1 << 12 };

void cpu_physical_memory_read(hwaddr addr, void *buf, hwaddr len)
{
    g_assert_not_reached();
}

MemoryRegion *flatview_translate(FlatView *fv, hwaddr addr, hwaddr *xlat,
                                 hwaddr *len, bool is_write, MemTxAttrs attrs)
{
    g_assert_not_reached();
}

/* The file */

static void setup(void)
{
    block.fd = qemu_memfd_create("holes", PAGES * page_size, false, 0, 0,
                                 &error_abort);
    block.flags = RAM_SHARED;
    block.page_size = page_size;
    block.used_length = PAGES * page_size;
    block.clear_bmap_shift = CHUNK_SHIFT;
    block.holes_known = 0;
    block.host = mmap(NULL, PAGES * page_size, PROT_READ | PROT_WRITE,
                      MAP_SHARED, block.fd, 0);
    g_assert(block.host != MAP_FAILED);
    memset(held, 0, sizeof(held));
}

static void teardown(void)
{
    munmap(block.host, PAGES * page_size);
    close(block.fd);
    memset(&block, 0, sizeof(block));
}

static void put(unsigned page)
{
    block.host[page * page_size] = 1;
    held[page] = true;
}

static void punch(unsigned page, unsigned n)
{
    g_assert_cmpint(fallocate(block.fd, FALLOC_FL_PUNCH_HOLE |
                              FALLOC_FL_KEEP_SIZE, page * page_size,
                              n * page_size), ==, 0);
    memset(held + page, 0, n * sizeof(held[0]));
}

/* Pages far apart, runs of them, and holes in between */
static void put_some(void)
{
    unsigned page, n;

    for (page = 0; page < PAGES; page += 1 + g_test_rand_int_range(0, 200)) {
        for (n = g_test_rand_int_range(1, 40); n && page < PAGES; n--) {
            put(page++);
        }
    }
}

static unsigned count_held(void)
{
    unsigned page, n = 0;

    for (page = 0; page < PAGES; page++) {
        n += held[page];
    }
    return n;
}

/* Nothing but the model's pages exist: nobody has read a hole. */
static void assert_holes_untouched(void)
{
    struct stat st;

    g_assert_cmpint(fstat(block.fd, &st), ==, 0);
    g_assert_cmpuint(st.st_blocks * 512, ==, count_held() * page_size);
}

static void test_count(void)
{
    setup();
    put_some();
    g_assert_cmpint(ram_file_count_pages(block.fd, 0, 0, true), ==,
                    count_held());
    g_assert_cmpint(ram_file_count_pages(-1, 0, 0, true), ==, -EBADF);
    teardown();
}

/* One page after the other, as the first pass of a migration */
static void test_sequential(void)
{
    RAMBlockHoles holes = { 0 };
    unsigned page;

    setup();
    put_some();
    for (page = 0; page < PAGES; page++) {
        g_assert(ram_block_is_hole(&holes, &block, page * page_size,
                                   page_size) == !held[page]);
    }
    assert_holes_untouched();
    teardown();
}

static void test_run(void)
{
    RAMBlockHoles holes = { 0 };
    uint64_t offset, run;
    bool hole;

    setup();
    put_some();
    for (offset = 0; offset < block.used_length; offset += run) {
        const uint64_t left = block.used_length - offset;
        const uint64_t size = g_test_rand_int_range(1, MIN(left, 1 * MiB) + 1);
        uint64_t i;

        run = ram_block_holes_run(&holes, &block, offset, size, &hole);
        g_assert_cmpuint(run, >, 0);
        g_assert_cmpuint(run, <=, size);
        for (i = offset; i < offset + run; i++) {
            g_assert(hole == !held[i / page_size]);
        }
        g_assert(ram_block_all_holes(&holes, &block, offset, run) == hole);
    }
    assert_holes_untouched();
    teardown();
}

static void test_look(void)
{
    RAMBlockHoles holes = { 0 };
    ram_addr_t offsets[128];
    unsigned first, i;

    setup();
    put_some();
    for (first = 0; first < PAGES - 256; first += 100) {
        for (i = 0; i < ARRAY_SIZE(offsets); i++) {
            offsets[i] = (first + i + (i >= 64 ? 128 : 0)) * page_size;
        }
        ram_block_holes_look(&holes, &block, offsets, i, page_size);
        for (i = 0; i < ARRAY_SIZE(offsets); i++) {
            g_assert(ram_block_holes_has(&holes, &block, offsets[i],
                                         page_size) ==
                     !held[offsets[i] / page_size]);
        }
    }
    /* Too far apart, none, not in order: nothing is known. */
    offsets[0] = 0;
    offsets[1] = (PAGES - 1) * page_size;
    punch(0, PAGES);
    ram_block_holes_look(&holes, &block, offsets, 2, page_size);
    g_assert_false(ram_block_holes_has(&holes, &block, 0, page_size));
    ram_block_holes_look(&holes, &block, offsets, 0, page_size);
    g_assert_false(ram_block_holes_has(&holes, &block, 0, page_size));
    ram_block_holes_look(&holes, &block, offsets + 1, 1, page_size);
    g_assert_true(ram_block_holes_has(&holes, &block, offsets[1], page_size));
    offsets[2] = 0;
    ram_block_holes_look(&holes, &block, offsets + 1, 2, page_size);
    g_assert_false(ram_block_holes_has(&holes, &block, 0, page_size));
    teardown();
}

/*
 * The source of a migration: pages are written to at any time.  In the model
 * of the accelerator, a write is logged if it comes after the chunk's log was
 * cleared.  What is sent, and sent again if logged, is what there is.
 */
static void test_holes_migration(void)
{
    static unsigned long clear_bmap;    /* not NULL: there is a log */
    static bool dirty[PAGES], logged[PAGES], cleared[PAGES >> CHUNK_SHIFT];
    static bool sent[PAGES];            /* as not zero */
    RAMBlockHoles holes = { 0 };
    int pass, i;

    setup();
    block.clear_bmap = &clear_bmap;
    put_some();
    memset(dirty, true, sizeof(dirty));
    memset(sent, false, sizeof(sent));
    for (pass = 0; pass < 100; pass++) {
        const bool last = pass == 99;   /* the guest has stopped */
        unsigned page;

        memset(cleared, false, sizeof(cleared));
        for (page = 0; page < PAGES; page++) {
            if (!dirty[page]) {
                continue;
            }
            dirty[page] = false;
            cleared[page >> CHUNK_SHIFT] = true;
            sent[page] = !ram_block_is_hole(&holes, &block, page * page_size,
                                            page_size) &&
                         block.host[page * page_size];
            if (!last && g_test_rand_int_range(0, 20) == 0) {
                unsigned at = g_test_rand_bit() ?
                              g_test_rand_int_range(0, PAGES) :
                              MIN(page + g_test_rand_int_range(0, 600),
                                  PAGES - 1);

                put(at);
                /* Where it is not cleared, the page is dirty yet. */
                logged[at] |= cleared[at >> CHUNK_SHIFT] || !dirty[at];
            }
        }
        for (i = 0; i < PAGES; i++) {
            dirty[i] |= logged[i];
            logged[i] = false;
        }
        ram_block_holes_forget(&holes);
    }
    for (i = 0; i < PAGES; i++) {
        g_assert(sent[i] == held[i]);
    }
    teardown();
}

/* A jump costs no system call; what is known is used nevertheless. */
static void test_jump(void)
{
    RAMBlockHoles holes = { 0 };

    setup();
    g_assert_true(ram_block_is_hole(&holes, &block, 0, page_size));
    g_assert_true(ram_block_is_hole(&holes, &block, 5 * page_size, page_size));
    g_assert_false(ram_block_is_hole(&holes, &block, 1000 * page_size,
                                     page_size));
    g_assert_true(ram_block_is_hole(&holes, &block, 1001 * page_size,
                                    page_size));
    ram_block_holes_forget(&holes);
    g_assert_true(ram_block_is_hole(&holes, &block, 2000 * page_size,
                                    page_size));
    teardown();
}

/* Such memory has none, whatever a file says. */
static void test_none(void)
{
    RAMBlockHoles holes = { 0 };
    g_autofree char *path = NULL;
    int fd = block.fd, disk;
    bool hole;

    setup();
    fd = block.fd;

    block.flags = 0;                    /* a private mapping */
    g_assert_false(ram_block_is_hole(&holes, &block, 0, page_size));
    g_assert_cmpuint(ram_block_holes_run(&holes, &block, 0, 100, &hole), ==,
                     100);
    g_assert_false(hole);
    block.flags = RAM_SHARED;

    block.holes_known = 0;
    block.page_size = 2 * MiB;
    g_assert_false(ram_block_is_hole(&holes, &block, 0, page_size));
    block.page_size = page_size;

    block.holes_known = 0;
    block.fd = -1;
    g_assert_false(ram_block_is_hole(&holes, &block, 0, page_size));

    block.holes_known = 0;
    disk = open("/proc/self/exe", O_RDONLY);
    g_assert_cmpint(disk, >=, 0);
    block.fd = disk;
    g_assert_false(ram_block_is_hole(&holes, &block, 0, page_size));
    close(disk);

    block.holes_known = 0;
    block.fd = fd;
    g_assert_true(ram_block_is_hole(&holes, &block, 0, page_size));
    teardown();
}

int main(int argc, char **argv)
{
    int64_t ret;

    g_test_init(&argc, &argv, NULL);
    page_size = qemu_real_host_page_size();
    setup();
    ret = ram_file_count_pages(block.fd, 0, 0, true);
    teardown();
    if (ret == -ENOSYS) {
        g_test_skip("the kernel has no cachestat()");
        return g_test_run();
    }
    g_test_add_func("/ram-block-holes/count", test_count);
    g_test_add_func("/ram-block-holes/sequential", test_sequential);
    g_test_add_func("/ram-block-holes/run", test_run);
    g_test_add_func("/ram-block-holes/look", test_look);
    g_test_add_func("/ram-block-holes/migration", test_holes_migration);
    g_test_add_func("/ram-block-holes/jump", test_jump);
    g_test_add_func("/ram-block-holes/none", test_none);
    return g_test_run();
}
