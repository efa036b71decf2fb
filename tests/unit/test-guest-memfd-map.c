/*
 * Unit test of system/guest-memfd-map.c: who is told what, in which order, and
 * what is left when a step fails
 *
 * The accelerator, users of shared memory and the two halves are models that
 * are wrong as soon as the map is; any call of them can be made to fail.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/thread.h"
#include "qemu/units.h"
#include "system/guest-memfd-map.h"

#define PAGE 4096
#define MAX_PAGES 512
#define NR_MAPS 2
#define NR_CALLS 16
#define NR_STEPS 64

typedef struct Model {
    GuestMemfdMap map;          /* first: ops get its address */
    bool attribute[MAX_PAGES];  /* private */
    bool used[MAX_PAGES];       /* by users of shared memory */
    /* Contents of each half; 0 is what freed memory reads as. */
    int half[2][MAX_PAGES];
} Model;

/* What happened since it was cleared */
static char steps[NR_STEPS + 1];
static int nr_calls, nr_steps;
/* Call number fail_at and later ones fail if bit 0, 1, ... of fail is set. */
static int fail_at, fail_error;
static unsigned fail;
/* A call of the accelerator that fails has changed so many pages. */
static uint64_t fail_done;

static int step(char name)
{
    if (nr_steps < NR_STEPS) {
        steps[nr_steps++] = name;
        steps[nr_steps] = 0;
    }
    if (nr_calls >= fail_at && nr_calls < fail_at + 32 &&
        fail >> (nr_calls - fail_at) & 1) {
        nr_calls++;
        return -fail_error;
    }
    nr_calls++;
    return 0;
}

static void reset_steps(int at, unsigned which, int error)
{
    fail_at = at;
    fail = which;
    fail_error = error;
    fail_done = 0;
    nr_calls = nr_steps = 0;
    steps[0] = 0;
}

static void model_discard(GuestMemfdMap *map, uint64_t offset, uint64_t size)
{
    Model *m = container_of(map, Model, map);
    uint64_t page;

    if (nr_steps < NR_STEPS) {
        steps[nr_steps++] = 'd';
        steps[nr_steps] = 0;
    }
    g_assert_cmpuint(size, >, 0);
    for (page = offset / PAGE; page < (offset + size) / PAGE; page++) {
        g_assert_true(m->used[page]);
        m->used[page] = false;
    }
}

static int model_populate(GuestMemfdMap *map, uint64_t offset, uint64_t size)
{
    Model *m = container_of(map, Model, map);
    uint64_t page;
    int ret = step('p');

    g_assert_cmpuint(size, >, 0);
    for (page = offset / PAGE; !ret && page < (offset + size) / PAGE; page++) {
        g_assert_false(m->used[page]);
        m->used[page] = true;
    }
    return ret;
}

static int model_set_private(GuestMemfdMap *map, uint64_t offset,
                             uint64_t size, bool private, uint64_t *done)
{
    Model *m = container_of(map, Model, map);
    uint64_t page;
    int ret = step(private ? 'P' : 'S');

    if (ret) {
        *done = MIN(fail_done * PAGE, size - PAGE);
        size = *done;
    }
    for (page = offset / PAGE; page < (offset + size) / PAGE; page++) {
        /* Users must have let go: a pinned page cannot become private. */
        g_assert_false(private && m->used[page]);
        m->attribute[page] = private;
    }
    return ret;
}

static int model_drop(GuestMemfdMap *map, uint64_t offset, uint64_t size,
                      bool private)
{
    Model *m = container_of(map, Model, map);
    uint64_t page;
    int ret = step(private ? 'x' : 'X');

    for (page = offset / PAGE; !ret && page < (offset + size) / PAGE; page++) {
        g_assert_true(m->attribute[page] != private);
        m->half[private][page] = 0;
    }
    return ret;
}

static int model_acquire(GuestMemfdMap *map, uint64_t offset, uint64_t size)
{
    Model *m = container_of(map, Model, map);
    uint64_t page;
    int ret = step('a');

    for (page = offset / PAGE; !ret && page < (offset + size) / PAGE; page++) {
        m->half[false][page] |= m->attribute[page];
    }
    return ret;
}

static const GuestMemfdMapOps model_ops = {
    .discard = model_discard,
    .populate = model_populate,
    .set_private = model_set_private,
    .drop = model_drop,
};

static void model_init(Model *m, uint64_t pages, bool private)
{
    uint64_t page;

    memset(m, 0, sizeof(*m));
    guest_memfd_map_init(&m->map, &model_ops, pages * PAGE, PAGE, private);
    for (page = 0; page < pages; page++) {
        m->attribute[page] = private;
        m->used[page] = !private;
    }
}

static bool map_private(Model *m, uint64_t page)
{
    uint64_t offset = page * PAGE;

    return guest_memfd_map_next_run(&m->map, &offset, offset + PAGE, true);
}

/* Map = attributes = what users were told = what is not free */
static void model_check(Model *m)
{
    uint64_t page, private = 0;

    for (page = 0; page < m->map.nr_pages; page++) {
        bool p = map_private(m, page);

        g_assert_cmpint(m->attribute[page], ==, p);
        g_assert_cmpint(m->used[page], ==, !p);
        private += p;
    }
    g_assert_cmpuint(guest_memfd_map_private_size(&m->map), ==,
                     private * PAGE);
}

static int64_t model_convert(GuestMemfdPiece *pieces, int n, bool private)
{
    int64_t ret;

    guest_memfd_lock();
    ret = guest_memfd_map_convert(pieces, n, private, NULL);
    guest_memfd_unlock();
    return ret;
}

static int64_t model_convert_one(Model *m, uint64_t page, uint64_t n,
                                 bool private)
{
    GuestMemfdPiece piece = { &m->map, page * PAGE, n * PAGE };

    return model_convert(&piece, 1, private);
}

/* Who is told what, and that each run is told once */
static void test_order(void)
{
    static const struct {
        uint64_t page, n;
        bool private;
        int64_t ret;
        const char *steps;
    } cases[] = {
        { 10, 4, true, 4, "dPX" },
        { 10, 4, true, 0, "" },
        { 11, 1, false, 1, "Spx" },
        { 11, 1, false, 0, "" },
        { 13, 1, false, 1, "Spx" },
        /* Private: 10, 12.  The attribute is set once, and freed at once. */
        { 0, 64, true, 62, "dddPX" },
        { 0, 64, true, 0, "" },
        { 20, 30, false, 30, "Spx" },
        { 0, 100, false, 34, "Sppx" },
        { 0, 100, false, 0, "" },
        { MAX_PAGES - 1, 1, true, 1, "dPX" },
        { 0, MAX_PAGES, true, MAX_PAGES - 1, "dPX" },
        { 0, MAX_PAGES, false, MAX_PAGES, "Spx" },
    };
    Model m;
    int i;

    model_init(&m, MAX_PAGES, false);
    model_check(&m);
    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        reset_steps(0, 0, 0);
        g_assert_cmpint(model_convert_one(&m, cases[i].page, cases[i].n,
                                    cases[i].private), ==, cases[i].ret);
        g_assert_cmpstr(steps, ==, cases[i].steps);
        model_check(&m);
    }
    guest_memfd_map_destroy(&m.map);
}

/* A mixed range of 2 MiB: as many calls of users as runs to change */
static void test_mixed(void)
{
    Model m;
    int i;

    model_init(&m, 512, false);
    for (i = 0; i < 512; i += 4) {
        model_convert_one(&m, i, 1 + i / 4 % 3, true);
    }
    reset_steps(0, 0, 0);
    model_convert_one(&m, 0, 512, false);
    g_assert_cmpint(nr_calls, ==, 1 + 128 + 1);
    model_check(&m);
    guest_memfd_map_destroy(&m.map);
}

/* Two pieces may show the same pages: they change once. */
static void test_map_alias(void)
{
    Model m;
    GuestMemfdPiece pieces[2];

    model_init(&m, 64, false);
    pieces[0] = (GuestMemfdPiece) { &m.map, 0, 32 * PAGE };
    pieces[1] = (GuestMemfdPiece) { &m.map, 16 * PAGE, 32 * PAGE };
    reset_steps(0, 0, 0);
    g_assert_cmpint(model_convert(pieces, 2, true), ==, 48);
    g_assert_cmpstr(steps, ==, "dPdPXX");
    model_check(&m);
    guest_memfd_map_destroy(&m.map);
}

static void random_pieces(Model *models, GuestMemfdPiece *pieces)
{
    int i;

    for (i = 0; i < NR_MAPS; i++) {
        uint64_t page = g_test_rand_int_range(0, models[i].map.nr_pages);
        uint64_t n = g_test_rand_int_range(1, models[i].map.nr_pages - page +
                                           1);

        pieces[i] = (GuestMemfdPiece) {
            &models[i].map, page * PAGE, n * PAGE,
        };
    }
}

/*
 * Any call fails, with any errno: all is as it was, and no contents are lost,
 * unless there is no way back, and then that is told.
 */
static void test_failures(void)
{
    static const int errors[] = { EINVAL, ENOMEM, EAGAIN, EINTR, EIO, ENOSPC,
                                  EFAULT, EBUSY };
    static Model models[NR_MAPS];
    int round, i, at, failed = 0, stuck = 0;

    for (i = 0; i < NR_MAPS; i++) {
        model_init(&models[i], 40 + i * 60, i % 2);
    }
    for (round = 0; round < 3000; round++) {
        GuestMemfdPiece pieces[NR_MAPS];
        bool private = g_test_rand_bit();
        int error = errors[round % ARRAY_SIZE(errors)];
        int n = 1 + round % NR_MAPS;

        random_pieces(models, pieces);
        for (at = 0; at < NR_CALLS; at++) {
            Model before[NR_MAPS];
            int64_t ret;

            memcpy(before, models, sizeof(models));
            for (i = 0; i < NR_MAPS; i++) {
                memset(models[i].half, 0x11, sizeof(models[i].half));
            }
            reset_steps(at, 1, error);
            fail_done = round % 7;
            ret = model_convert(pieces, n, private);
            for (i = 0; i < NR_MAPS; i++) {
                model_check(&models[i]);
            }
            if (nr_calls <= at) {
                g_assert_cmpint(ret, >=, 0);
                break;      /* there is no such call, it has worked */
            }
            if (ret == -ENOTRECOVERABLE) {
                /* The first of two was freed: there is no way back. */
                g_assert_cmpint(n, ==, 2);
                stuck++;
                break;
            }
            g_assert_cmpint(ret, ==, -error);
            failed++;
            for (i = 0; i < NR_MAPS; i++) {
                uint64_t page;

                g_assert_cmpmem(models[i].attribute, sizeof(bool) * MAX_PAGES,
                                before[i].attribute, sizeof(bool) * MAX_PAGES);
                g_assert_cmpmem(models[i].used, sizeof(bool) * MAX_PAGES,
                                before[i].used, sizeof(bool) * MAX_PAGES);
                for (page = 0; page < models[i].map.nr_pages; page++) {
                    bool p = before[i].attribute[page];

                    g_assert_cmphex(models[i].half[p][page], ==, 0x11111111);
                }
            }
        }
    }
    g_assert_cmpint(failed, >, 1000);
    g_assert_cmpint(stuck, >, 100);
    for (i = 0; i < NR_MAPS; i++) {
        guest_memfd_map_destroy(&models[i].map);
    }
}

static int64_t begin(Model *m, uint64_t page, uint64_t n,
                     GuestMemfdPending *pending, bool private)
{
    GuestMemfdPiece piece = { &m->map, page * PAGE, n * PAGE };

    return guest_memfd_map_convert(&piece, 1, private, pending);
}

/* Contents as no conversion leaves them */
static void write_halves(Model *m, int value)
{
    uint64_t page;

    for (page = 0; page < m->map.nr_pages; page++) {
        m->half[m->attribute[page]][page] = value;
    }
}

/* Conversions that are taken back later lose no state and no contents. */
static void test_pending_undo(void)
{
    static Model m, before;
    int round;

    model_init(&m, 300, false);
    reset_steps(0, 0, 0);
    for (round = 0; round < 200; round++) {
        bool private = g_test_rand_bit();
        g_autoptr(GuestMemfdPending) pending = guest_memfd_pending_new(private);
        uint64_t page;
        int i, ret;

        model_convert_one(&m, g_test_rand_int_range(0, 250),
                    g_test_rand_int_range(1, 50), g_test_rand_bit());
        write_halves(&m, 1 + round);
        before = m;
        guest_memfd_lock();
        for (i = 0; i < 3; i++) {
            g_assert_cmpint(begin(&m, g_test_rand_int_range(0, 200),
                                  g_test_rand_int_range(1, 100), pending,
                                  private), >=, 0);
        }
        /* What a vCPU writes meanwhile is not seen later. */
        write_halves(&m, 1000);
        do {
            ret = guest_memfd_pending_undo(pending);
            g_assert_cmpint(ret, >=, 0);
        } while (ret);
        guest_memfd_unlock();
        g_assert_cmpmem(m.attribute, sizeof(m.attribute),
                        before.attribute, sizeof(m.attribute));
        for (page = 0; page < 300; page++) {
            bool p = m.attribute[page];

            if (m.half[p][page] != 1000) {      /* it was not converted */
                g_assert_cmpint(m.half[p][page], ==, 1 + round);
                g_assert_cmpint(m.half[!p][page], !=, 1000);
            }
        }
        model_check(&m);
    }
    guest_memfd_map_destroy(&m.map);
}

typedef struct Counted {
    int calls;
    uint64_t pages;
} Counted;

static void count_pages(GuestMemfdMap *map, uint64_t pages, void *opaque)
{
    Counted *counted = opaque;

    counted->calls++;
    counted->pages += pages;
}

/* Nothing is freed until all parts are there; then it is, one by one. */
static void test_pending_finish(void)
{
    g_autoptr(GuestMemfdPending) pending = guest_memfd_pending_new(true);
    Counted counted = { 0 };
    GuestMemfdPiece other;
    Model m;

    model_init(&m, 64, false);
    reset_steps(0, 0, 0);
    guest_memfd_lock();
    g_assert_cmpint(begin(&m, 0, 16, pending, true), ==, 16);
    g_assert_cmpint(begin(&m, 8, 24, pending, true), ==, 16);
    g_assert_cmpstr(steps, ==, "dPdP");

    other = (GuestMemfdPiece) { &m.map, 31 * PAGE, PAGE };
    g_assert_true(guest_memfd_pending_overlaps(pending, &other, 1));
    other.offset = 32 * PAGE;
    g_assert_false(guest_memfd_pending_overlaps(pending, &other, 1));
    /* Its memory could be freed together with pages of the request. */
    m.map.free_size = 512 * PAGE;
    g_assert_true(guest_memfd_pending_overlaps(pending, &other, 1));
    m.map.free_size = PAGE;

    g_assert_cmpint(guest_memfd_pending_finish(pending), ==, 1);
    g_assert_cmpint(guest_memfd_pending_finish(pending), ==, 0);
    g_assert_cmpstr(steps, ==, "dPdPXX");
    guest_memfd_unlock();
    /* One request, whatever its parts were */
    guest_memfd_pending_count(pending, count_pages, &counted);
    g_assert_cmpuint(counted.calls, ==, 1);
    g_assert_cmpuint(counted.pages, ==, 32);
    model_check(&m);
    guest_memfd_map_destroy(&m.map);
}

/* There is a way back if the first part cannot be freed, and none later. */
static void test_pending_finish_fails(void)
{
    int at;

    for (at = 0; at < 2; at++) {
        g_autoptr(GuestMemfdPending) pending = guest_memfd_pending_new(true);
        Model m;
        int ret;

        model_init(&m, 64, false);
        reset_steps(2 + at, 1, EIO);
        guest_memfd_lock();
        begin(&m, 0, 16, pending, true);
        begin(&m, 16, 16, pending, true);
        do {
            ret = guest_memfd_pending_finish(pending);
        } while (ret == 1);
        g_assert_cmpint(ret, ==, at ? -ENOTRECOVERABLE : -EIO);
        if (at == 0) {
            g_assert_cmpint(guest_memfd_pending_undo(pending), ==, 1);
            g_assert_cmpint(guest_memfd_pending_undo(pending), ==, 0);
            g_assert_cmpuint(guest_memfd_map_private_size(&m.map), ==, 0);
        }
        guest_memfd_unlock();
        model_check(&m);
        guest_memfd_map_destroy(&m.map);
    }
}

/* Pages whose state changes before the end keep what they have since. */
static void test_pending_reset(void)
{
    g_autoptr(GuestMemfdPending) pending = guest_memfd_pending_new(true);
    Model m;

    model_init(&m, 64, false);
    reset_steps(0, 0, 0);
    guest_memfd_lock();
    begin(&m, 0, 32, pending, true);
    guest_memfd_unlock();
    model_convert_one(&m, 8, 8, false);
    m.half[false][8] = 5;
    guest_memfd_lock();
    g_assert_cmpint(guest_memfd_pending_finish(pending), ==, 0);
    guest_memfd_unlock();
    g_assert_cmpint(m.half[false][8], ==, 5);
    g_assert_cmpuint(guest_memfd_map_private_size(&m.map), ==, 24 * PAGE);
    model_check(&m);
    guest_memfd_map_destroy(&m.map);
}

/* Readers and users must not have pages from first to last - 1 that change. */
static void check_in_flight(const Model *before, Model *m, bool private,
                            uint64_t first, uint64_t last)
{
    uint64_t page;

    for (page = 0; page < m->map.nr_pages; page++) {
        bool in_flight = page >= first && page < last &&
                         before->attribute[page] != private;

        if (in_flight) {
            g_assert_false(m->used[page]);
        }
        g_assert_cmpint(map_private(m, page), ==,
                        in_flight || m->attribute[page]);
        g_assert_cmpint(m->used[page], ==, !map_private(m, page));
    }
}

/*
 * The accelerator changes a part of a piece and asks to wait with the rest,
 * once or twice.  Meanwhile the lock is free, and readers get "private" for the
 * whole piece.  Then the change goes on and is finished or undone; or the
 * accelerator fails; or the block is unplugged.
 */
enum { FLIGHT_FINISH, FLIGHT_UNDO, FLIGHT_FAIL, FLIGHT_FORGET, FLIGHT_WAYS };

static void in_flight(bool private, bool mixed, int way, int waits,
                      uint64_t done)
{
    GuestMemfdPending *pending = guest_memfd_pending_new(private);
    static Model m, before;
    GuestMemfdPiece pieces[3];
    Counted counted = { 0 };
    int i, pages = mixed ? 40 : 48;
    int64_t ret;

    model_init(&m, 100, !private);
    reset_steps(0, 0, 0);
    if (mixed) {
        model_convert_one(&m, 20, 4, private);
        model_convert_one(&m, 28, 4, private);
    }
    write_halves(&m, 7);
    before = m;
    for (i = 0; i < 3; i++) {
        pieces[i] = (GuestMemfdPiece) { &m.map, 16 * i * PAGE, 16 * PAGE };
    }

    /* The second piece waits; the first has made all its calls. */
    reset_steps(private ? 1 : 2, (1u << waits) - 1, EAGAIN);
    fail_done = done;
    guest_memfd_lock();
    ret = guest_memfd_map_convert(pieces, 3, private, pending);
    while (guest_memfd_pending_in_flight(pending) && --waits) {
        g_assert_cmpint(ret, ==, -EAGAIN);
        guest_memfd_unlock();
        check_in_flight(&before, &m, private, 16, 32);
        guest_memfd_lock();
        ret = guest_memfd_pending_continue(pending);
    }
    g_assert_cmpint(ret, ==, -EAGAIN);
    g_assert_true(guest_memfd_pending_in_flight(pending));
    g_assert_true(guest_memfd_pending_overlaps(pending, &pieces[1], 1));
    g_assert_false(guest_memfd_pending_overlaps(pending, &pieces[2], 1));
    guest_memfd_unlock();
    check_in_flight(&before, &m, private, 16, 32);
    g_assert_true(guest_memfd_map_has_private(&m.map, 16 * PAGE, PAGE));

    guest_memfd_lock();
    switch (way) {
    case FLIGHT_FINISH:
        g_assert_cmpint(guest_memfd_pending_continue(pending), ==, pages);
        while ((ret = guest_memfd_pending_finish(pending)) == 1) {
            continue;
        }
        guest_memfd_pending_count(pending, count_pages, &counted);
        g_assert_cmpint(counted.calls, ==, 1);
        g_assert_cmpuint(counted.pages, ==, pages);
        break;
    case FLIGHT_FAIL:
        reset_steps(0, 1, EIO);
        fail_done = done;
        g_assert_cmpint(guest_memfd_pending_continue(pending), ==, -EIO);
        /* fall through */
    case FLIGHT_UNDO:
        while ((ret = guest_memfd_pending_undo(pending)) == 1) {
            continue;
        }
        break;
    case FLIGHT_FORGET:
        ret = guest_memfd_pending_forget(pending, &m.map);
        break;
    }
    guest_memfd_unlock();
    g_assert_cmpint(ret, ==, 0);
    g_assert_false(guest_memfd_pending_in_flight(pending));

    model_check(&m);
    for (i = 0; i < m.map.nr_pages; i++) {
        bool same = way == FLIGHT_FINISH ? i >= 48
                                         : way != FLIGHT_FORGET || i >= 16;

        if (same) {
            g_assert_cmpint(m.attribute[i], ==, before.attribute[i]);
            g_assert_cmpint(m.half[m.attribute[i]][i], ==, 7);
        } else {
            g_assert_cmpint(m.attribute[i], ==, private);
        }
    }
    guest_memfd_pending_free(pending);
    guest_memfd_map_destroy(&m.map);
}

static void test_in_flight(void)
{
    int i, way, waits, done;

    for (i = 0; i < 4; i++) {
        for (way = 0; way < FLIGHT_WAYS; way++) {
            for (waits = 1; waits <= 3; waits++) {
                for (done = 0; done < 16; done += 3) {
                    in_flight(i & 1, i & 2, way, waits, done);
                }
            }
        }
    }
}

/* A block is unplugged: what a request has left to do passes over it. */
static void test_pending_forget(void)
{
    bool finish;

    for (finish = false; ; finish = true) {
        g_autoptr(GuestMemfdPending) pending = guest_memfd_pending_new(false);
        Model m, gone;
        int ret;

        model_init(&m, 64, false);
        model_init(&gone, 64, false);
        model_convert_one(&m, 0, 32, true);
        model_convert_one(&gone, 0, 32, true);
        model_convert_one(&gone, 4, 4, false);        /* several runs */
        guest_memfd_lock();
        g_assert_cmpint(begin(&gone, 0, 16, pending, false), ==, 12);
        g_assert_cmpint(begin(&m, 0, 16, pending, false), ==, 16);
        g_assert_cmpint(begin(&gone, 16, 16, pending, false), ==, 16);
        guest_memfd_pending_forget(pending, &gone.map);
        reset_steps(0, 0, 0);
        do {
            ret = finish ? guest_memfd_pending_finish(pending)
                         : guest_memfd_pending_undo(pending);
            g_assert_cmpint(ret, >=, 0);
        } while (ret);
        g_assert_cmpuint(guest_memfd_map_private_size(&m.map), ==,
                         (finish ? 16 : 32) * PAGE);
        g_assert_cmpuint(guest_memfd_map_private_size(&gone.map), ==, 0);
        guest_memfd_unlock();
        guest_memfd_map_destroy(&m.map);
        guest_memfd_map_destroy(&gone.map);
        if (finish) {
            break;
        }
    }
}

/* The undo fails, too: that is told, so that the VM can be stopped. */
static void test_undo_fails(void)
{
    static const struct {
        bool private;
        int at;
        unsigned fail;
        const char *steps;
    } cases[] = {
        { true, 0, 3, "dPp" },      /* attribute, then users */
        { false, 1, 3, "SpP" },     /* users, then attribute */
        { true, 1, 3, "dPXS" },     /* freeing, then attribute */
        { true, 1, 5, "dPXSpP" },   /* freeing, then users */
        { false, 2, 3, "SpxdPp" },  /* freeing, then attribute */
    };
    int i;

    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        Model m;

        model_init(&m, 16, !cases[i].private);
        reset_steps(cases[i].at, cases[i].fail, ENOMEM);
        g_assert_cmpint(model_convert_one(&m, 3, 5, cases[i].private), ==,
                        -ENOTRECOVERABLE);
        g_assert_cmpstr(steps, ==, cases[i].steps);
        guest_memfd_map_destroy(&m.map);
    }
}

/* Shared memory is allocated first of all, and freed if pages stay private. */
static void test_acquire(void)
{
    static const GuestMemfdMapOps ops = {
        .discard = model_discard,
        .populate = model_populate,
        .acquire = model_acquire,
        .set_private = model_set_private,
        .drop = model_drop,
    };
    static const struct {
        int at;
        int64_t ret;
        const char *steps;
    } cases[] = {
        /* Pages 2 and 4 are private */
        { 0, -ENOMEM, "aXX" },
        { 1, -ENOMEM, "aSXX" },
        { 2, -ENOMEM, "aSpPPXX" },
        { 3, -ENOMEM, "aSppdPPXX" },
        { 4, -ENOMEM, "aSppxdPXdPX" },
        { 5, 2, "aSppx" },
    };
    int i;

    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        Model m;

        model_init(&m, 16, false);
        m.map.ops = &ops;
        reset_steps(0, 0, 0);
        model_convert_one(&m, 2, 1, true);
        model_convert_one(&m, 4, 1, true);
        g_assert_cmpstr(steps, ==, "dPXdPX");
        reset_steps(cases[i].at, 1, ENOMEM);
        g_assert_cmpint(model_convert_one(&m, 0, 16, false), ==, cases[i].ret);
        g_assert_cmpstr(steps, ==, cases[i].steps);
        g_assert_cmpint(m.half[false][2], ==, cases[i].ret > 0);
        g_assert_cmpint(m.half[false][3], ==, 0);
        g_assert_cmpint(m.half[false][4], ==, cases[i].ret > 0);
        model_check(&m);
        guest_memfd_map_destroy(&m.map);
    }
}

/*
 * Where a page keeps its place, nothing is freed; an undo that something is in
 * the way of changes nothing, and can be tried again.
 */
static void test_in_place(void)
{
    static const GuestMemfdMapOps ops = {
        .discard = model_discard,
        .populate = model_populate,
        .set_private = model_set_private,
    };
    GuestMemfdPending *pending = guest_memfd_pending_new(true);
    GuestMemfdPiece piece;
    uint64_t offset;
    Model m;

    model_init(&m, 16, false);
    m.map.ops = &ops;
    reset_steps(0, 0, 0);
    g_assert_cmpint(model_convert_one(&m, 2, 4, true), ==, 4);
    g_assert_cmpint(model_convert_one(&m, 0, 16, false), ==, 4);
    g_assert_cmpstr(steps, ==, "dPSp");
    model_check(&m);

    guest_memfd_lock();
    piece = (GuestMemfdPiece) { &m.map, 2 * PAGE, 8 * PAGE };
    reset_steps(0, 1, EAGAIN);
    fail_done = 3;
    g_assert_cmpint(guest_memfd_map_convert(&piece, 1, true, pending), ==,
                    -EAGAIN);
    g_assert_true(guest_memfd_pending_busy(pending, &offset) == &m.map);
    g_assert_cmpuint(offset, ==, 5 * PAGE);
    g_assert_cmpint(guest_memfd_pending_continue(pending), ==, 8);
    g_assert_cmpint(guest_memfd_pending_finish(pending), ==, 0);
    guest_memfd_pending_free(pending);

    pending = guest_memfd_pending_new(false);
    g_assert_cmpint(guest_memfd_map_convert(&piece, 1, false, pending), ==, 8);
    model_check(&m);
    reset_steps(0, 1, EAGAIN);
    fail_done = 2;
    g_assert_cmpint(guest_memfd_pending_undo(pending), ==, -EAGAIN);
    g_assert_cmpstr(steps, ==, "dPSp");
    model_check(&m);
    g_assert_cmpint(guest_memfd_pending_undo(pending), ==, 0);
    guest_memfd_pending_free(pending);
    guest_memfd_unlock();
    model_check(&m);
    g_assert_cmpuint(guest_memfd_map_private_size(&m.map), ==, 8 * PAGE);
    guest_memfd_map_destroy(&m.map);
}

/* next_run() against the model, from any offset */
static void test_runs(void)
{
    Model m;
    int round;

    model_init(&m, 300, true);
    reset_steps(0, 0, 0);
    for (round = 0; round < 500; round++) {
        uint64_t page = g_test_rand_int_range(0, 300);
        uint64_t end = g_test_rand_int_range(page, 301), first, n;
        bool private = g_test_rand_bit();
        uint64_t offset = page * PAGE;

        model_convert_one(&m, g_test_rand_int_range(0, 250),
                    g_test_rand_int_range(1, 50), g_test_rand_bit());
        n = guest_memfd_map_next_run(&m.map, &offset, end * PAGE, private);
        for (first = page; first < end && m.attribute[first] != private;
             first++) {
            continue;
        }
        if (first == end) {
            g_assert_cmpuint(n, ==, 0);
            continue;
        }
        g_assert_cmpuint(offset, ==, first * PAGE);
        for (page = first; page < end && m.attribute[page] == private;
             page++) {
            continue;
        }
        g_assert_cmpuint(n, ==, (page - first) * PAGE);
    }
    guest_memfd_map_destroy(&m.map);
}

/*
 * Many threads, neighbouring and overlapping ranges: nothing gets lost.  Run
 * by the thread sanitizer as well (make check-sanitize).
 */
#define NR_THREADS 4
#define STORM_ROUNDS 5000

static Model storm_models[NR_MAPS];

static void *storm(void *opaque)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(GPOINTER_TO_UINT(opaque));
    int round, i;

    for (round = 0; round < STORM_ROUNDS; round++) {
        GuestMemfdPiece pieces[NR_MAPS];
        int64_t ret;

        for (i = 0; i < NR_MAPS; i++) {
            Model *m = &storm_models[i];
            uint64_t page = g_rand_int_range(rand, 0, m->map.nr_pages - 8);

            pieces[i] = (GuestMemfdPiece) {
                &m->map, page * PAGE, g_rand_int_range(rand, 1, 8) * PAGE,
            };
        }
        ret = model_convert(pieces, 1 + round % NR_MAPS, g_rand_boolean(rand));
        g_assert_cmpint(ret, >=, 0);
        guest_memfd_lock();
        guest_memfd_map_private_size(&storm_models[0].map);
        guest_memfd_unlock();
    }
    return NULL;
}

static void test_map_storm(void)
{
    QemuThread threads[NR_THREADS];
    unsigned seed = g_test_rand_int();
    int i;

    g_test_message("seed %u", seed);
    for (i = 0; i < NR_MAPS; i++) {
        model_init(&storm_models[i], 200, i % 2);
    }
    reset_steps(0, 0, 0);
    for (i = 0; i < NR_THREADS; i++) {
        qemu_thread_create(&threads[i], "storm", storm,
                           GUINT_TO_POINTER(seed + i), QEMU_THREAD_JOINABLE);
    }
    for (i = 0; i < NR_THREADS; i++) {
        qemu_thread_join(&threads[i]);
    }
    for (i = 0; i < NR_MAPS; i++) {
        model_check(&storm_models[i]);
        guest_memfd_map_destroy(&storm_models[i].map);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/guest-memfd/map/order", test_order);
    g_test_add_func("/guest-memfd/map/mixed", test_mixed);
    g_test_add_func("/guest-memfd/map/alias", test_map_alias);
    g_test_add_func("/guest-memfd/map/failures", test_failures);
    g_test_add_func("/guest-memfd/map/pending/undo", test_pending_undo);
    g_test_add_func("/guest-memfd/map/pending/finish", test_pending_finish);
    g_test_add_func("/guest-memfd/map/pending/finish-fails",
                    test_pending_finish_fails);
    g_test_add_func("/guest-memfd/map/pending/reset", test_pending_reset);
    g_test_add_func("/guest-memfd/map/pending/forget", test_pending_forget);
    g_test_add_func("/guest-memfd/map/in-flight", test_in_flight);
    g_test_add_func("/guest-memfd/map/undo-fails", test_undo_fails);
    g_test_add_func("/guest-memfd/map/acquire", test_acquire);
    g_test_add_func("/guest-memfd/map/in-place", test_in_place);
    g_test_add_func("/guest-memfd/map/runs", test_runs);
    g_test_add_func("/guest-memfd/map/storm", test_map_storm);
    return g_test_run();
}
