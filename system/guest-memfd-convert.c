/*
 * Private memory of a VM: requests to convert guest memory
 *
 * A *request* is a range of guest addresses and a direction.  It is worked off
 * in *parts*: what lies in few RAM blocks and takes a moment.  The memory map
 * cuts a part into *pieces*, each of one RAM block; guest-memfd-map.c finds in
 * each piece the *change* to be made, and in that the *runs* of pages that do
 * not have the right state yet.
 *
 * Most requests have one part.  A longer one is a GuestMemfdRequest: it lets
 * go of the BQL between its parts, and a vCPU that has to stop, for whatever
 * reason, leaves it *interrupted*, makes its guest ask again, and goes on then.
 * Nothing is freed until all parts have been made, so that a request which
 * fails has lost nothing.  Until then no other request changes the same pages:
 * it waits for one that is being worked on, and undoes an interrupted one.
 *
 * Requests are worked off with the BQL held, like all other changes of the
 * memory map: no listener comes or goes, no memory is unplugged and no memslot
 * is registered anew in the middle of a part.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/qapi-events-guest-memfd.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "hw/core/cpu.h"
#include "migration/misc.h"
#include "system/address-spaces.h"
#include "system/guest-memfd.h"
#include "system/kvm_gmem.h"
#include "trace.h"

/*
 * The size of a part, in bytes.  Others wait for the BQL as long as a part
 * takes: 16 MiB are some 10 ms under an emulated KVM, the slowest that was
 * measured, and far less on a real one.  Can be changed at any time.
 */
#define GUEST_MEMFD_PART (16 * MiB)

/*
 * How long a request sleeps without the BQL between two parts, in us: long
 * enough for a thread that waits for the BQL to get it, since a mutex is not
 * handed over, and short beside a part.
 */
#define GUEST_MEMFD_GIVE_WAY_US 100

/*
 * A request that has changed so much, in bytes, gives way at its end as well: a
 * guest that makes one after another would hold the BQL nearly all the time.
 * Smaller ones take no longer than the sleep.
 */
#define GUEST_MEMFD_GIVE_WAY_AFTER (1 * MiB)

/* How long to wait before looking whether a vCPU has to stop, in ms */
#define GUEST_MEMFD_WAIT_MS 10

typedef struct GuestMemfdRequest {
    CPUState *cpu;              /* who asks for it; NULL: not interruptible */
    hwaddr start, end;
    bool to_private;

    hwaddr next;                /* what comes before has been changed */
    int error;                  /* a part has failed: it is being undone */
    bool finishing;             /* there is no way back */
    bool give_way;              /* the BQL may be released */
    int64_t pages;
    int64_t ns;
    GuestMemfdMap *first;       /* that it touches: it has the statistics */
    GuestMemfdPending *pending;
    GPtrArray *regions;         /* referenced: pending points to their maps */
    QLIST_ENTRY(GuestMemfdRequest) entry;
} GuestMemfdRequest;

/* Both with the BQL */
static QLIST_HEAD(, GuestMemfdRequest) requests_interrupted =
    QLIST_HEAD_INITIALIZER(requests_interrupted);
static GuestMemfdRequest *request_running;
static QemuCond request_cond;

static void __attribute__((constructor)) guest_memfd_init_cond(void)
{
    qemu_cond_init(&request_cond);
}

static bool migration_ended;

/* Does a migration, of either direction, need all memory to stay shared? */
static bool guest_memfd_migration_runs(void)
{
    return !migration_ended &&
           (migration_is_running() || migration_incoming_while_running());
}

void guest_memfd_end_migration(void)
{
    migration_ended = true;
}

/* Parts: on the stack, since nearly every request has one of one piece */

typedef struct Part {
    hwaddr end;
    int n;
    GuestMemfdPiece pieces[8];  /* more are the next part */
    MemoryRegion *regions[8];   /* referenced */
} Part;

static void part_unref(Part *part)
{
    while (part->n) {
        memory_region_unref(part->regions[--part->n]);
    }
}

/*
 * Check one section of the memory map.
 *
 * Only memory that KVM takes from the guest_memfd can be private: not memory
 * that is registered by address (see kvm-gmem.c).  What cannot be private is
 * shared already, whatever it is.
 */
static int part_check(const MemoryRegionSection *section, hwaddr address,
                      GuestMemfdBlock *block, uint64_t size, bool to_private)
{
    if (!block) {
        return to_private ? -EINVAL : 0;
    }
    if (!QEMU_IS_ALIGNED(section->offset_within_region | size | address,
                         block->map.page_size)) {
        return -EINVAL;
    }
    return to_private ? kvm_gmem_check_bound(block->rb, address, size) : 0;
}

/* Find the part that begins at @start, of at most @left bytes of RAM. */
static int part_find(Part *part, hwaddr start, hwaddr end, bool to_private,
                     uint64_t left)
{
    part->end = start;
    part->n = 0;
    while (part->end < end && left && part->n < ARRAY_SIZE(part->pieces)) {
        MemoryRegionSection section = memory_region_find(get_system_memory(),
                                                         part->end,
                                                         end - part->end);
        MemoryRegion *mr = section.mr;
        hwaddr address = section.offset_within_address_space;
        GuestMemfdBlock *block = mr ? guest_memfd_of(mr->ram_block) : NULL;
        uint64_t size = int128_get64(section.size);
        int ret;

        if (!mr || address > part->end) {
            /* Nothing is there. */
            if (to_private) {
                memory_region_unref(mr);
                return -EINVAL;
            }
        }
        if (!mr) {
            part->end = end;
            break;
        }
        size = block ? MIN(size, left) : size;
        ret = part_check(&section, address, block, size, to_private);
        if (ret || !block) {
            memory_region_unref(mr);
        } else {
            part->pieces[part->n] = (GuestMemfdPiece) {
                .map = &block->map,
                .offset = section.offset_within_region,
                .size = size,
            };
            part->regions[part->n++] = mr;
            left -= size;
        }
        if (ret) {
            return ret;
        }
        part->end = address + size;
    }
    return 0;
}

/* Can all of that be converted? */
static int guest_memfd_check_range(hwaddr start, hwaddr end, bool to_private)
{
    int ret = 0;
    Part part;

    for (; start < end && !ret; start = part.end) {
        ret = part_find(&part, start, end, to_private, UINT64_MAX);
        part_unref(&part);
    }
    return ret;
}

static int64_t part_convert(const Part *part, bool to_private,
                            GuestMemfdPending *pending)
{
    int64_t ret;
    int i;

    if (!part->n) {
        return 0;
    }
    /* A migration may have begun since the part before. */
    if (to_private && guest_memfd_migration_runs()) {
        return -EBUSY;
    }
    for (i = 0; to_private && i < part->n; i++) {
        const RAMBlock *rb = part->regions[i]->ram_block;

        ret = kvm_gmem_end_dirty_log(guest_memfd_of(rb), part->pieces[i].offset,
                                     part->pieces[i].size);
        if (ret) {
            return ret;
        }
    }
    guest_memfd_lock();
    ret = guest_memfd_map_convert(part->pieces, part->n, to_private, pending);
    guest_memfd_unlock();
    return ret;
}

/* Requests of several parts */

static GuestMemfdRequest *request_new(CPUState *cpu, hwaddr start, hwaddr end,
                                      bool to_private, bool give_way)
{
    GuestMemfdRequest *r = g_new0(GuestMemfdRequest, 1);

    r->cpu = cpu;
    r->start = r->next = start;
    r->end = end;
    r->to_private = to_private;
    r->give_way = give_way;
    r->pending = guest_memfd_pending_new(to_private);
    r->regions = g_ptr_array_new_with_free_func(
                     (GDestroyNotify)memory_region_unref);
    return r;
}

static void request_free(GuestMemfdRequest *r)
{
    guest_memfd_pending_free(r->pending);
    g_ptr_array_unref(r->regions);
    g_free(r);
}

/* Keep the regions of a part referenced as long as r->pending has its maps. */
static void request_take_regions(GuestMemfdRequest *r, Part *part)
{
    while (part->n) {
        MemoryRegion *mr = part->regions[--part->n];
        guint len = r->regions->len;

        if (len && g_ptr_array_index(r->regions, len - 1) == mr) {
            memory_region_unref(mr);
        } else {
            g_ptr_array_add(r->regions, mr);
        }
    }
}

static bool request_overlaps(const GuestMemfdRequest *r, const Part *part)
{
    return guest_memfd_pending_overlaps(r->pending, part->pieces, part->n);
}

static bool request_cpu_must_stop(const CPUState *cpu)
{
    return cpu && qatomic_read(&cpu->exit_request);
}

static void request_give_way(void)
{
    /* Give way to those who wait for the BQL. */
    bql_unlock();
    g_usleep(GUEST_MEMFD_GIVE_WAY_US);
    bql_lock();
}

/* Change the next part.  Returns 0, or -errno. */
static int request_change(GuestMemfdRequest *r)
{
    int64_t ret;
    Part part;

    ret = part_find(&part, r->next, r->end, r->to_private, GUEST_MEMFD_PART);
    if (!ret && part.n && !r->first) {
        r->first = part.pieces[0].map;
    }
    if (!ret) {
        ret = part_convert(&part, r->to_private, r->pending);
    }
    request_take_regions(r, &part);
    if (ret < 0) {
        return ret;
    }
    r->next = part.end;
    r->pages += ret;
    return 0;
}

/* Do what takes a moment.  Returns 1 if there is more, 0 at the end. */
static int request_step(GuestMemfdRequest *r)
{
    int ret;

    if (!r->error && r->next < r->end) {
        r->error = request_change(r);
        return 1;
    }
    if (r->error == -ENOTRECOVERABLE) {
        return 0;
    }
    guest_memfd_lock();
    if (r->error) {
        ret = guest_memfd_pending_undo(r->pending);
    } else {
        ret = guest_memfd_pending_finish(r->pending);
        r->finishing = true;
    }
    guest_memfd_unlock();
    if (ret < 0) {
        r->finishing = false;
        r->error = r->error ? -ENOTRECOVERABLE : ret;
        return 1;
    }
    return ret;
}

static void request_count(GuestMemfdRequest *r)
{
    if (r->first) {
        guest_memfd_lock();
        r->first->stats.ns += r->ns;
        if (r->error && r->error != -ECANCELED) {
            guest_memfd_map_count_failure(r->first, -r->error);
        }
        guest_memfd_unlock();
    }
}

static GuestMemfdRequest *request_overlapping(const Part *part)
{
    GuestMemfdRequest *r;

    if (request_running && request_overlaps(request_running, part)) {
        return request_running;
    }
    QLIST_FOREACH(r, &requests_interrupted, entry) {
        if (request_overlaps(r, part)) {
            return r;
        }
    }
    return NULL;
}

static int64_t request_run(GuestMemfdRequest *r, CPUState *cpu);

/*
 * Wait until no request is being worked on.  Lets go of the BQL.  Returns 0, or
 * -EINTR if @cpu has to stop.
 */
static int request_wait(CPUState *cpu)
{
    while (request_running) {
        if (request_cpu_must_stop(cpu)) {
            return -EINTR;
        }
        qemu_cond_timedwait_bql(&request_cond, GUEST_MEMFD_WAIT_MS);
    }
    return 0;
}

/*
 * End an interrupted request, for another one that needs its pages: undo it,
 * unless there is no way back.  Its vCPU will start again, if it ever does.
 */
static int request_end(GuestMemfdRequest *r, CPUState *cpu)
{
    int64_t ret;

    QLIST_REMOVE(r, entry);
    if (!r->finishing && !r->error) {
        r->error = -ECANCELED;
    }
    r->cpu = NULL;
    ret = request_run(r, cpu);
    return ret == -EINTR || ret == -ENOTRECOVERABLE ? ret : 0;
}

/*
 * Make sure that nobody else is at work on the pages of a part.  Returns 0 if
 * so; 1 if the BQL has been released and the memory map may be another one; or
 * -EINTR, -ENOTRECOVERABLE.
 */
static int request_make_way(const Part *part, CPUState *cpu)
{
    GuestMemfdRequest *other = request_overlapping(part);
    int ret;

    if (!other) {
        return 0;
    }
    if (request_running) {
        ret = request_wait(cpu);
    } else {
        ret = request_end(other, cpu);
    }
    return ret ?: 1;
}

/*
 * Work a request off, or until @cpu has to stop: then it is in the list of
 * interrupted ones again.  Otherwise it is freed.
 *
 * Returns: as guest_memfd_convert()
 */
static int64_t request_run(GuestMemfdRequest *r, CPUState *cpu)
{
    const int64_t begin = get_clock();
    int64_t ret;
    int more;

    assert(!request_running);
    request_running = r;
    do {
        more = request_step(r);
        if (more && request_cpu_must_stop(cpu)) {
            r->ns += get_clock() - begin;
            QLIST_INSERT_HEAD(&requests_interrupted, r, entry);
            trace_guest_memfd_interrupted(r->start, r->end - r->start,
                                          r->to_private, r->next);
            ret = -EINTR;
            goto out;
        }
        if (more && r->give_way) {
            request_give_way();
        }
    } while (more);
    r->ns += get_clock() - begin;
    request_count(r);
    ret = r->error ?: r->pages;
    request_free(r);
out:
    request_running = NULL;
    qemu_cond_broadcast(&request_cond);
    return ret;
}

/* The interrupted request of a vCPU, if it asks for the same thing again */
static GuestMemfdRequest *request_again(CPUState *cpu, hwaddr start, hwaddr end,
                                        bool to_private)
{
    GuestMemfdRequest *r;

    QLIST_FOREACH(r, &requests_interrupted, entry) {
        if (cpu && r->cpu == cpu && r->start == start && r->end == end &&
            r->to_private == to_private) {
            return r;
        }
    }
    return NULL;
}

/*
 * One long request at a time.  Before its first part, all interrupted ones that
 * are in its way are ended, and those that its vCPU has left behind.
 */
static int64_t request_convert(hwaddr start, hwaddr end, bool to_private,
                               bool give_way, CPUState *cpu)
{
    GuestMemfdRequest *r, *next;
    int64_t ret = request_wait(cpu);

    if (ret) {
        return ret;
    }
    r = request_again(cpu, start, end, to_private);
    if (r) {
        QLIST_REMOVE(r, entry);
        return request_run(r, cpu);
    }
again:
    QLIST_FOREACH_SAFE(r, &requests_interrupted, entry, next) {
        if ((cpu && r->cpu == cpu) || (r->start < end && start < r->end)) {
            ret = request_end(r, cpu) ?: request_wait(cpu);
            if (ret) {
                return ret;
            }
            goto again;
        }
    }
    ret = guest_memfd_check_range(start, end, to_private);
    if (ret) {
        return ret;
    }
    return request_run(request_new(cpu, start, end, to_private, give_way), cpu);
}

/* With the BQL held, which is released in between only if @give_way. */
static int64_t guest_memfd_convert_range(hwaddr start, hwaddr size,
                                         bool to_private, bool give_way,
                                         CPUState *cpu)
{
    const int64_t begin = get_clock();
    const hwaddr end = start + size;
    int64_t ret;
    Part part;

    if (!give_way && request_running) {
        return -EBUSY;          /* it cannot be waited for */
    }
    ret = part_find(&part, start, end, to_private, GUEST_MEMFD_PART);
    while (!ret && give_way && part.end >= end &&
           (ret = request_make_way(&part, cpu)) == 1) {
        part_unref(&part);
        ret = part_find(&part, start, end, to_private, GUEST_MEMFD_PART);
    }
    if (!ret && part.end < end) {
        part_unref(&part);
        return request_convert(start, end, to_private, give_way, cpu);
    }
    ret = ret ?: part_convert(&part, to_private, NULL);
    if (part.n && ret != -EINTR) {
        GuestMemfdMap *map = part.pieces[0].map;

        guest_memfd_lock();
        map->stats.ns += get_clock() - begin;
        if (ret < 0) {
            guest_memfd_map_count_failure(map, -ret);
        }
        guest_memfd_unlock();
    }
    part_unref(&part);
    return ret;
}

void guest_memfd_conversion_failed(hwaddr start, uint64_t size,
                                   bool to_private, int error)
{
    BQL_LOCK_GUARD();           /* monitor.c has no other lock for its timers */

    trace_guest_memfd_convert(start, size, to_private, -error);
    qapi_event_send_guest_memfd_conversion_failed(start, size, to_private,
                                                  error, strerror(error));
}

int64_t guest_memfd_convert(hwaddr start, hwaddr size, bool to_private,
                            CPUState *cpu)
{
    const bool give_way = !bql_locked();
    int64_t ret = -EINVAL;
    BQL_LOCK_GUARD();

    if (size && QEMU_IS_ALIGNED(start | size, qemu_real_host_page_size()) &&
        start + size > start) {
        ret = guest_memfd_convert_range(start, size, to_private, give_way, cpu);
    }
    if (give_way && ret * (int64_t)qemu_real_host_page_size() >=
                    GUEST_MEMFD_GIVE_WAY_AFTER) {
        request_give_way();
    }
    if (ret == -EINTR) {
        return ret;
    }
    if (ret < 0) {
        guest_memfd_conversion_failed(start, size, to_private, -ret);
    } else {
        trace_guest_memfd_convert(start, size, to_private, ret);
    }
    return ret;
}

int64_t guest_memfd_fault(hwaddr start, hwaddr size, bool private)
{
    if (guest_memfd_initially_private()) {
        return guest_memfd_convert(start, size, private, NULL);
    }
    return 0;
}

void guest_memfd_forget_requests(void)
{
    GuestMemfdRequest *r, *next;

    assert(!request_running);
    QLIST_FOREACH_SAFE(r, &requests_interrupted, entry, next) {
        QLIST_REMOVE(r, entry);
        /* What is shared already: free its private half. */
        guest_memfd_lock();
        while (!r->to_private &&
               guest_memfd_pending_finish(r->pending) == 1) {
            continue;
        }
        guest_memfd_unlock();
        request_free(r);
    }
}

void guest_memfd_forget_block(GuestMemfdBlock *block)
{
    GuestMemfdRequest *r;

    if (request_running) {
        guest_memfd_pending_forget(request_running->pending, &block->map);
    }
    QLIST_FOREACH(r, &requests_interrupted, entry) {
        guest_memfd_pending_forget(r->pending, &block->map);
    }
}
