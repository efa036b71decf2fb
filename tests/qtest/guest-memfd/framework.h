/*
 * What the tests of memory-backend-guest-memfd share: what the host has,
 * machines, QMP, and calls of QEMU that fail
 *
 * The guest's firmware is one HLT after the other, or arm64's WFI: nothing but
 * the test changes the memory map.  What the host lacks is found by asking KVM,
 * and the tests that need it are skipped.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TEST_GUEST_MEMFD_FRAMEWORK_H
#define TEST_GUEST_MEMFD_FRAMEWORK_H

#include "qemu/units.h"
#include "qobject/qdict.h"
#include "libqtest.h"

#define TYPE "memory-backend-guest-memfd"
#define TYPE_MEMFD "memory-backend-memfd"
#define RAM_SIZE (64 * MiB)
/* Of the firmware; where there is less of it, RAM shows up below 1 MiB. */
#define BIOS_SIZE (128 * KiB)
#define WAIT_MS 600000  /* for what hangs, not for what is slow */

/* What a test needs of the host */
enum {
    NEED_KVM = 1 << 0,
    NEED_GMEM = 1 << 1,
    NEED_NO_GMEM = 1 << 2,
    NEED_SMM = 1 << 3,
    NEED_UFFD = 1 << 4,
    NEED_NODES = 1 << 5,
    NEED_CACHESTAT = 1 << 6,
    NEED_PROTECTED = 1 << 7,
    NEED_TCG = 1 << 8,
    NEED_LOCK = 1 << 9,
    NEED_NO_LOCK = 1 << 10,
};

typedef struct Machine {
    const char *name;
    const char *type;
    bool smm;
    const char *args;
} Machine;

extern const Machine machine_pc;
extern const Machine machine_q35;
extern const Machine machine_pc_smm;
extern const Machine machine_q35_smm;
extern const Machine machine_q35_vga;

/* All of these */
#define MACHINES 5
extern const Machine *const machines[MACHINES];

/* Else it is arm64, where "virt" stands for each of the above. */
bool is_pc(void);

/* Where the machine's RAM begins */
uint64_t ram_start(void);

/* A folder for the files of a test, and the firmware in it */
extern char *tmpdir;
extern char *bios;

/* Finds what the host has, and makes the folder; test_end() removes it. */
void test_begin(void);
void test_end(void);

/*
 * Adds the test /ARCH/guest-memfd/@path, or .../@path/@variant, which calls
 * @run(@opaque).  It is skipped when the host lacks something of @need.
 */
void add_test(const char *path, const char *variant,
              void (*run)(const void *opaque), const void *opaque,
              unsigned need);

/*
 * A test of the machine @m, which is its variant and its argument.  Where there
 * is but one machine, it is added for machine_pc alone.
 */
void add_machine_test(const char *path, void (*run)(const void *opaque),
                      const Machine *m);

/* Virtual machines */

/* Arguments for @m without memory; the caller frees them. */
char *machine_args(const Machine *m);

/* @m with its memory in ram0 and the arguments @extra */
QTestState *start_machine(const Machine *m, const char *extra);

/* QEMU started with @option has to say @expected and to exit with status 1. */
void assert_exits(const char *accel, const char *option, const char *expected);

/* The same on a machine with properties, as for -machine */
void assert_machine_exits(const char *machine, const char *accel,
                          const char *option, const char *expected);

/* Writes a register of the host bridge, if that is a PC's. */
void config_write(QTestState *qts, uint8_t reg, uint8_t value);

/* The first register that says what is RAM between 640 KiB and 1 MiB */
int pam_base(const Machine *m);

/* QMP */

/* @rsp has to be an error with the text @expected; it is freed. */
void assert_fails(QDict *rsp, const char *expected);

/* Waits until the status in the answer of @query is @expected. */
void wait_status(QTestState *qts, const char *query, const char *expected);

/* Makes a guest_memfd backend; @props is JSON, with neither type nor ID. */
QDict *object_add(QTestState *qts, const char *id, const char *props);
void object_add_ok(QTestState *qts, const char *id, const char *props);

QDict *object_del(QTestState *qts, const char *id);
void object_del_ok(QTestState *qts, const char *id);

/* The element of a query's answer that has this ID; NULL if there is none */
QDict *query_by_id(QTestState *qts, const char *query, const char *id);

/* @id has @expected bytes of memory, if the kernel can tell. */
void assert_allocated(QTestState *qts, const char *id, int64_t expected);

/* Files that QEMU has open */
int count_fds(QTestState *qts);

/* RCU frees RAM blocks, and closes their files, a moment later: waits. */
void assert_fds(QTestState *qts, int expected);

/* Faults */

/* From here to fault_end(), QEMU is started with guest-memfd-fault.so. */
void fault_begin(void);
void fault_end(void);

/*
 * From here to fault_disarm(), the @nth call @op of such a QEMU fails with
 * @error, or each one if @nth is 0; see guest-memfd-fault.c.
 */
void fault_arm(const char *op, int error, int nth);
void fault_disarm(void);

#endif
