/*
 * Pages of RAM blocks for which the host holds no memory
 *
 * A guest_memfd, a memfd and a file on tmpfs know which of their pages exist.
 * A page that does not exist is zero.  To read it would allocate it, so that
 * a migration or a dump that looks for zeros would have the host hold all of
 * the guest's memory.  RAMBlockHoles asks the file instead, with one system
 * call for many pages, and remembers the answer.
 *
 * Other memory has no holes here.  That goes for files on disk, where the page
 * cache does not tell what is in the file; for private mappings, which have
 * pages of their own; for huge pages; and for hosts before Linux 6.5.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_RAM_BLOCK_HOLES_H
#define SYSTEM_RAM_BLOCK_HOLES_H

#include "exec/cpu-common.h"
#include "exec/hwaddr.h"
#include "qemu/bitmap.h"

/* One system call for so many pages: 2 MiB on x86 */
#define RAM_BLOCK_HOLES_PAGES 512

/*
 * What is known about a part of a RAM block.  All zeros: nothing.
 *
 * The answers are as old as the system call.  A page that was a hole then can
 * have been written to since; a page that was no hole is never taken for one.
 * So a user must either know that nobody writes, or learn of each write that
 * comes after the system call in another way:
 *
 * - The source of a migration asks for a page only after it has cleared the
 *   page in its dirty bitmap and in the accelerator's dirty log.  The log is
 *   cleared by chunks (RAMBlock.clear_bmap_shift), and one answer never
 *   goes beyond a chunk.  So each write after the system call is logged
 *   and the page is sent again, although the rest of the answer may be used
 *   much later.  A write before the system call has allocated the page, which
 *   the file then has: page tables get a page only after the file has it.
 *   The next synchronization of the bitmap makes pages dirty that have been
 *   written since, and forgets the answers.
 * - The destination of a migration, where the guest does not run, asks only
 *   for pages that have not been received yet.
 * - A dump is made while the guest is stopped.
 */
typedef struct RAMBlockHoles {
    const RAMBlock *rb;
    uint64_t start;             /* what is known about: in bytes */
    uint64_t end;
    uint64_t next;              /* where a sequential user asks next */
    uint64_t ahead;             /* look so many pages ahead then */
    DECLARE_BITMAP(held, RAM_BLOCK_HOLES_PAGES);
} RAMBlockHoles;

/**
 * ram_block_holes_forget: forget all answers
 * @holes: what is known
 */
void ram_block_holes_forget(RAMBlockHoles *holes);

/**
 * ram_block_holes_run: find pages that all are holes, or all are not
 * @holes: what is known, and learnt now
 * @rb: the block
 * @offset: in @rb, in bytes
 * @size: in bytes, at least 1
 * @hole: set to whether these pages are holes
 *
 * Looks up to 2 MiB ahead of @offset.
 *
 * Returns: the number of bytes from @offset, from 1 to @size, that @hole
 *     holds for
 */
uint64_t ram_block_holes_run(RAMBlockHoles *holes, const RAMBlock *rb,
                             uint64_t offset, uint64_t size, bool *hole);

/**
 * ram_block_all_holes: are all pages of a range holes?
 * @holes: what is known, and learnt now
 * @rb: the block
 * @offset: in @rb, in bytes
 * @size: in bytes, at least 1
 *
 * Looks up to 2 MiB ahead.
 */
bool ram_block_all_holes(RAMBlockHoles *holes, const RAMBlock *rb,
                         uint64_t offset, uint64_t size);

/**
 * ram_block_is_hole: is a page a hole?
 * @holes: what is known, and learnt now
 * @rb: the block
 * @offset: of the page in @rb, in bytes
 * @size: of the page, in bytes
 *
 * For users that ask for one page after the other.  The farther they have gone
 * so, the farther the file is looked up ahead.  A user who jumps to a page is
 * told that it is no hole, without a system call: most probably the page is
 * dirty because the guest has written to it.
 *
 * Returns: true if all of the page is a hole
 */
bool ram_block_is_hole(RAMBlockHoles *holes, const RAMBlock *rb,
                       uint64_t offset, uint64_t size);

/**
 * ram_block_holes_look: look up a list of pages at once
 * @holes: set to what is known, for ram_block_holes_has()
 * @rb: the block
 * @offsets: of the pages in @rb, in bytes, in ascending order
 * @num: how many there are
 * @size: of a page, in bytes
 *
 * Nothing is looked up if the pages are far apart.
 */
void ram_block_holes_look(RAMBlockHoles *holes, const RAMBlock *rb,
                          const ram_addr_t *offsets, uint32_t num,
                          uint64_t size);

/**
 * ram_block_holes_has: is a page known to be a hole?
 * @holes: what is known
 * @rb: the block
 * @offset: of the page in @rb, in bytes
 * @size: of the page, in bytes
 */
bool ram_block_holes_has(const RAMBlockHoles *holes, const RAMBlock *rb,
                         uint64_t offset, uint64_t size);

/**
 * ram_block_holes_read: read guest memory, without allocating holes
 * @holes: what is known, and learnt now
 * @addr: guest physical address
 * @buf: where to put it
 * @size: in bytes
 *
 * As cpu_physical_memory_read().  Called with the BQL held.
 */
void ram_block_holes_read(RAMBlockHoles *holes, hwaddr addr, void *buf,
                          hwaddr size);

/**
 * ram_file_count_pages: how many pages of a file does the host hold?
 * @fd: the file
 * @offset: in bytes
 * @size: in bytes; 0: to the end of the file
 * @swapped: whether pages that are swapped out count
 *
 * Takes time for each page that there is, not for holes.
 *
 * Returns: the number, or -errno, as -ENOSYS before Linux 6.5
 */
int64_t ram_file_count_pages(int fd, uint64_t offset, uint64_t size,
                             bool swapped);

#endif
