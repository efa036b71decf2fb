/*
 * Private memory of a VM: requests to convert guest memory
 *
 * A conversion has five levels:
 *
 *   request  what a guest asks for: a range of guest addresses and a direction
 *            (this file)
 *   part     what is converted with the BQL held: at most GUEST_MEMFD_PART_SIZE
 *            bytes of a request, in a few RAM blocks (guest-memfd-part.c)
 *   piece    what of a part lies in one RAM block; the memory map tells
 *   change   the pages of a piece between the first and the last that do not
 *            have the wanted state yet (guest-memfd-map.c)
 *   run      adjacent pages of a change that do not have the wanted state yet
 *
 * Most requests have one part.  A longer one is a GuestMemfdRequest.  It
 * releases the BQL between its parts.  When its vCPU has to stop, for whatever
 * reason, the request stays behind *interrupted*, the guest repeats its
 * hypercall, and the request goes on then.  Nothing is freed until all parts
 * have been converted, so a request that fails has lost nothing.  Until then no
 * other request changes the same pages: it waits for a request that is running,
 * and undoes an interrupted one.
 *
 * Where memory is converted in place, a page cannot become private while
 * somebody holds a reference to it.  The request then waits for that, for a
 * bounded time and without the BQL, as if it had another part.
 *
 * Parts are converted with the BQL held, like all other changes of the memory
 * map: no listener comes or goes, no memory is unplugged and no memory slot is
 * registered anew in the middle of a part.
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
#include "exec/target_page.h"
#include "hw/boards.h"
#include "hw/core/cpu.h"
#include "system/confidential-guest-support.h"
#include "system/guest-memfd-block.h"
#include "guest-memfd-part.h"
#include "trace.h"

/*
 * The size of a part, in bytes.  Others wait for the BQL as long as a part
 * takes: 16 MiB are some 10 ms under an emulated KVM, the slowest that was
 * measured, and far less on a real one.  Can be changed at any time.
 */
#define GUEST_MEMFD_PART_SIZE (16 * MiB)

/*
 * How long a request sleeps without the BQL to give way, in us: long enough for
 * a thread that waits for the BQL to get it, since a mutex is not handed over.
 */
#define GUEST_MEMFD_GIVE_WAY_US 100

/*
 * For how long requests hold the BQL before one gives way, in ns.  A guest that
 * makes one after another would else hold it nearly all the time.  Twenty times
 * the sleep: a guest has to lose little by it, and others must not wait long.
 */
#define GUEST_MEMFD_GIVE_WAY_AFTER_NS (2 * SCALE_MS)

/* How long to wait before looking whether a vCPU has to stop, in ms */
#define GUEST_MEMFD_WAIT_MS 10

typedef struct GuestMemfdRequest {
    CPUState *cpu;              /* who asks for it; NULL: not interruptible */
    hwaddr start, end;
    bool to_private;

    hwaddr next;                /* everything before it has been changed */
    hwaddr part_end;            /* of the part that is in flight */
    int error;                  /* a part has failed: undo the others */
    unsigned busy_tries;
    bool busy;                  /* sleep before the next step */
    bool has_busy_address;
    hwaddr busy_address;        /* of a page that stayed in use */
    bool finishing;             /* there is no way back */
    bool give_way;              /* the BQL may be released */
    int64_t pages;
    int64_t ns;
    GuestMemfdPending *pending;
    GPtrArray *regions;         /* referenced: pending points to their maps */
    QLIST_ENTRY(GuestMemfdRequest) entry;
} GuestMemfdRequest;

/* Both with the BQL */
static QLIST_HEAD(, GuestMemfdRequest) requests_interrupted =
    QLIST_HEAD_INITIALIZER(requests_interrupted);
static GuestMemfdRequest *request_running;
static QemuCond request_cond;

/*
 * For how long requests have held the BQL of late, in ns, and until when; with
 * the BQL
 */
static int64_t request_held_ns, request_held_until;

/* Of the request that has ended last; with the BQL */
static bool request_last_has_busy_address;
static hwaddr request_last_busy_address;

static void __attribute__((constructor)) request_init_cond(void)
{
    qemu_cond_init(&request_cond);
}

/* Those that have not ended: the one that runs, then the interrupted ones */
static GuestMemfdRequest *request_next(const GuestMemfdRequest *r)
{
    if (!r && request_running) {
        return request_running;
    }
    return !r || r == request_running ? QLIST_FIRST(&requests_interrupted)
                                      : QLIST_NEXT(r, entry);
}

#define REQUEST_FOREACH(r) \
    for (r = request_next(NULL); r; r = request_next(r))

/* Can a whole range be converted?  Returns 0, or -EINVAL. */
static int request_check_range(hwaddr start, hwaddr end, bool to_private)
{
    int ret = 0;
    GuestMemfdPart part;

    for (; start < end && !ret; start = part.end) {
        ret = guest_memfd_part_find(&part, start, end, to_private, UINT64_MAX);
        guest_memfd_part_unref(&part);
    }
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
static void request_take_regions(GuestMemfdRequest *r, GuestMemfdPart *part)
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

static bool request_overlaps(const GuestMemfdRequest *r,
                             const GuestMemfdPart *part)
{
    return guest_memfd_pending_overlaps(r->pending, part->pieces, part->n);
}

static bool request_cpu_must_stop(const CPUState *cpu)
{
    return cpu && qatomic_read(&cpu->exit_request);
}

/* Let go of the BQL for a while. */
static void request_sleep(unsigned us)
{
    bql_unlock();
    g_usleep(us);
    bql_lock();
}

/*
 * A request has held the BQL from @begin to @end, in ns.  The time since the
 * one before counts for those who wait: they could take it.
 */
static void request_add_held(int64_t begin, int64_t end)
{
    const int64_t gap = MAX(begin - request_held_until, 0);

    request_held_ns = MAX(request_held_ns - gap, 0) + end - begin;
    request_held_until = end;
}

/* Let those who wait for the BQL have it, if they have waited for long. */
static void request_give_way(void)
{
    if (request_held_ns >= GUEST_MEMFD_GIVE_WAY_AFTER_NS) {
        request_held_ns = 0;
        request_sleep(GUEST_MEMFD_GIVE_WAY_US);
    }
}

/*
 * A page cannot become private because something uses it.  Returns 0 to try
 * again, or -EAGAIN.
 */
static int request_wait_for_page(GuestMemfdRequest *r)
{
    r->busy = r->give_way && r->busy_tries++ < GUEST_MEMFD_BUSY_TRIES;
    return r->busy ? 0 : -EAGAIN;
}

/* Note which page the change in flight waits for. */
static void request_set_busy_address(GuestMemfdRequest *r)
{
    uint64_t offset;
    GuestMemfdMap *map = guest_memfd_pending_busy(r->pending, &offset);

    r->has_busy_address = guest_memfd_block_address(
        container_of(map, GuestMemfdBlock, map), offset, &r->busy_address);
}

/* Change the next part, or go on with the last.  Returns 0, or -errno. */
static int request_change(GuestMemfdRequest *r)
{
    int64_t ret;
    GuestMemfdPart part;

    if (guest_memfd_pending_in_flight(r->pending)) {
        guest_memfd_lock();
        ret = guest_memfd_pending_continue(r->pending);
        guest_memfd_unlock();
    } else {
        ret = guest_memfd_part_find(&part, r->next, r->end, r->to_private,
                                    GUEST_MEMFD_PART_SIZE);
        if (!ret) {
            r->part_end = part.end;
            ret = guest_memfd_part_convert(&part, r->to_private, r->pending);
        }
        request_take_regions(r, &part);
    }
    if (ret == -EAGAIN && guest_memfd_pending_in_flight(r->pending)) {
        ret = request_wait_for_page(r);
        if (ret) {
            request_set_busy_address(r);
        }
        return ret;
    }
    if (ret < 0) {
        return ret;
    }
    r->next = r->part_end;
    r->pages += ret;
    return 0;
}

/* Nobody works on the request: whoever looks at memory must find all states. */
static void request_end_flight(GuestMemfdRequest *r)
{
    int ret = 0;

    guest_memfd_lock();
    if (guest_memfd_pending_in_flight(r->pending)) {
        ret = guest_memfd_pending_undo(r->pending);
    }
    guest_memfd_unlock();
    if (ret < 0) {
        r->error = ret;
    }
}

/* Do what takes a moment.  Returns 1 if there is more, 0 at the end. */
static int request_step(GuestMemfdRequest *r)
{
    int ret;

    r->busy = false;
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
    if (ret == -EAGAIN && !request_wait_for_page(r)) {
        return 1;
    }
    if (ret < 0) {
        r->finishing = false;
        r->error = r->error ? -ENOTRECOVERABLE : ret;
        return 1;
    }
    return ret;
}

static void request_count_pages(GuestMemfdMap *map, uint64_t pages,
                                void *opaque)
{
    const GuestMemfdRequest *r = opaque;

    guest_memfd_block_count(container_of(map, GuestMemfdBlock, map),
                            r->to_private, pages, 0, 0);
}

/*
 * Count the time and the failure of a request for each block that it touches.
 * Called with guest_memfd_lock() held, as request_count_pages() is.
 */
static void request_count_result(MemoryRegion *const *regions, guint n,
                                 bool to_private, uint64_t ns, int error)
{
    guint i, before;

    for (i = 0; i < n; i++) {
        for (before = 0; regions[before]->ram_block != regions[i]->ram_block;) {
            before++;
        }
        if (before == i) {
            guest_memfd_block_count(guest_memfd_of(regions[i]->ram_block),
                                    to_private, 0, ns, error);
        }
    }
}

static void request_count(GuestMemfdRequest *r)
{
    /* -ECANCELED: the guest does not want it any more, nothing has failed. */
    const int error = r->error == -ECANCELED ? 0 : -r->error;

    guest_memfd_lock();
    if (!r->error) {
        guest_memfd_pending_count(r->pending, request_count_pages, r);
    }
    request_count_result((MemoryRegion **)r->regions->pdata, r->regions->len,
                         r->to_private, r->ns, error);
    guest_memfd_unlock();
}

static GuestMemfdRequest *request_overlapping(const GuestMemfdPart *part)
{
    GuestMemfdRequest *r;

    REQUEST_FOREACH(r) {
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
static int request_make_way(const GuestMemfdPart *part, CPUState *cpu)
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
        const int64_t step_begin = get_clock();

        more = request_step(r);
        request_add_held(step_begin, get_clock());
        if (more && request_cpu_must_stop(cpu)) {
            request_end_flight(r);
            r->ns += get_clock() - begin;
            QLIST_INSERT_HEAD(&requests_interrupted, r, entry);
            trace_guest_memfd_interrupted(r->start, r->end - r->start,
                                          r->to_private, r->next);
            ret = -EINTR;
            goto out;
        }
        if (more && r->busy) {
            request_sleep(GUEST_MEMFD_BUSY_US);
        } else if (more && r->give_way) {
            request_give_way();
        }
    } while (more);
    r->ns += get_clock() - begin;
    request_count(r);
    ret = r->error ?: r->pages;
    request_last_has_busy_address = r->has_busy_address;
    request_last_busy_address = r->busy_address;
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
static int64_t request_convert_long(hwaddr start, hwaddr end, bool to_private,
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
    ret = request_check_range(start, end, to_private);
    if (ret) {
        return ret;
    }
    return request_run(request_new(cpu, start, end, to_private, give_way), cpu);
}

/*
 * Convert a range that is page aligned.  Called with the BQL held, which is
 * released in between only if @give_way.
 */
static int64_t request_convert(hwaddr start, hwaddr end, bool to_private,
                               bool give_way, CPUState *cpu)
{
    const int64_t begin = get_clock();
    int64_t ret;
    GuestMemfdPart part;
    int i;

    if (!give_way && request_running) {
        return -EBUSY;          /* the caller cannot wait for it */
    }
    ret = guest_memfd_part_find(&part, start, end, to_private,
                                GUEST_MEMFD_PART_SIZE);
    while (!ret && give_way && part.end >= end &&
           (ret = request_make_way(&part, cpu)) == 1) {
        guest_memfd_part_unref(&part);
        ret = guest_memfd_part_find(&part, start, end, to_private,
                                    GUEST_MEMFD_PART_SIZE);
    }
    if (!ret && part.end < end) {
        guest_memfd_part_unref(&part);
        return request_convert_long(start, end, to_private, give_way, cpu);
    }
    ret = ret ?: guest_memfd_part_convert(&part, to_private, NULL);
    if (ret == -EAGAIN && give_way) {
        /* Something uses a page: wait for it. */
        guest_memfd_part_unref(&part);
        return request_convert_long(start, end, to_private, give_way, cpu);
    }
    if (ret != -EINTR) {
        const int64_t now = get_clock();

        request_add_held(begin, now);
        guest_memfd_lock();
        for (i = 0; ret > 0 && i < part.n; i++) {
            if (part.pieces[i].changed) {
                guest_memfd_block_count(
                    container_of(part.pieces[i].map, GuestMemfdBlock, map),
                    to_private, part.pieces[i].changed, 0, 0);
            }
        }
        request_count_result(part.regions, part.n, to_private,
                             now - begin, ret < 0 ? -ret : 0);
        guest_memfd_unlock();
    }
    guest_memfd_part_unref(&part);
    return ret;
}

static int64_t request_run_judged(hwaddr start, uint64_t size, bool to_private,
                                  bool valid, CPUState *cpu)
{
    const uint64_t page_size = qemu_real_host_page_size();
    const bool give_way = !bql_locked();
    int64_t ret = -EINVAL;
    BQL_LOCK_GUARD();

    request_last_has_busy_address = false;
    if (valid && size && QEMU_IS_ALIGNED(start | size, page_size) &&
        start + size > start) {
        ret = request_convert(start, start + size, to_private, give_way, cpu);
    }
    if (ret == -EINTR) {
        return ret;
    }
    trace_guest_memfd_convert(start, size, to_private, ret);
    if (ret < 0) {
        bool busy = ret == -EAGAIN && request_last_has_busy_address;

        if (busy) {
            warn_report_once("The guest's memory at 0x%" HWADDR_PRIx " cannot "
                             "become private while something uses it: an I/O "
                             "request of a device that does not end, a "
                             "vhost-user backend, or another process that has "
                             "the memory", request_last_busy_address);
        }
        qapi_event_send_guest_memfd_conversion_failed(
            start, size, to_private, -ret, strerror(-ret), busy,
            busy ? request_last_busy_address : 0);
    }
    if (give_way) {
        request_give_way();
    }
    return ret;
}

int64_t guest_memfd_convert(hwaddr start, hwaddr size, bool to_private,
                            CPUState *cpu)
{
    return request_run_judged(start, size, to_private, true, cpu);
}

int64_t guest_memfd_convert_pages(hwaddr start, uint64_t nr_pages,
                                  bool to_private, bool valid, CPUState *cpu)
{
    const uint64_t size = nr_pages * qemu_target_page_size();

    valid = valid && size / qemu_target_page_size() == nr_pages;
    return request_run_judged(start, size, to_private, valid, cpu);
}

bool guest_memfd_access_is_request(void)
{
    return current_machine->cgs && current_machine->cgs->access_is_request;
}

int64_t guest_memfd_fault(hwaddr start, hwaddr size, bool private,
                          CPUState *cpu)
{
    if (!guest_memfd_access_is_request()) {
        return 0;
    }
    return guest_memfd_convert(start, size, private, cpu);
}

bool guest_memfd_can_undo(GuestMemfdBlock *block, uint64_t offset,
                          uint64_t size)
{
    const GuestMemfdPiece piece = {
        .map = &block->map,
        .offset = offset,
        .size = size,
    };
    const GuestMemfdRequest *r;

    REQUEST_FOREACH(r) {
        if (!r->to_private &&
            guest_memfd_pending_overlaps(r->pending, &piece, 1)) {
            return true;
        }
    }
    return false;
}

static void request_add_size(GuestMemfdMap *map, uint64_t pages, void *opaque)
{
    uint64_t *size = opaque;

    *size += pages * map->page_size;
}

uint64_t guest_memfd_undo_size(void)
{
    const GuestMemfdRequest *r;
    uint64_t size = 0;

    REQUEST_FOREACH(r) {
        if (!r->to_private) {
            guest_memfd_pending_count(r->pending, request_add_size, &size);
        }
    }
    return size;
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

    REQUEST_FOREACH(r) {
        guest_memfd_pending_forget(r->pending, &block->map);
    }
}
