/*
 * lock=on of memory backends: where it is refused, and when memory is locked
 *
 * The test that drops CAP_IPC_LOCK is the last one.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include "hw/nvram/fw_cfg.h"
#include "qobject/qlist.h"
#include "guest-memfd/framework.h"
#include "guest-memfd/migration-util.h"
#include "guest-memfd/tests.h"

#define RAM "memory-backend-ram"

/* A machine with its memory in ram0, of type @type, and the arguments @extra */
static QTestState *start(const char *type, const char *extra)
{
    g_autofree char *args = machine_args(&machine_pc);

    return qtest_initf("%s -machine memory-backend=ram0 -m 64M "
                       "-object %s,id=ram0,size=64M %s", args, type, extra);
}

/* What a user types in the human monitor, and its answer */
static void assert_object_add(QTestState *qts, const char *option,
                              const char *expected)
{
    g_autofree char *out = qtest_hmp(qts, "object_add %s", option);

    if (expected ? !strstr(out, expected) : *out) {
        g_error("object_add %s: expected '%s', got: %s", option,
                expected ?: "", out);
    }
}

/* Bytes that the kernel has locked for QEMU */
static uint64_t vm_lck(QTestState *qts)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/status", qtest_pid(qts));
    g_autofree char *text = NULL;
    const char *line;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    line = strstr(text, "\nVmLck:");
    g_assert_nonnull(line);
    return g_ascii_strtoull(line + 7, NULL, 10) * KiB;
}

/* Does query-memdev say that @state, and @size bytes locked? */
static bool lock_is(QTestState *qts, const char *id, const char *state,
                    uint64_t size)
{
    QDict *info = query_by_id(qts, "query-memdev", id);
    const QDict *lock;
    bool is;

    g_assert_nonnull(info);
    lock = qdict_get_qdict(info, "lock");
    g_assert_nonnull(lock);
    g_assert_false(qdict_get_bool(info, "merge"));
    g_assert_cmpint(qdict_haskey(lock, "error"), ==,
                    g_str_equal(qdict_get_str(lock, "state"), "failed"));
    is = g_str_equal(qdict_get_str(lock, "state"), state) &&
         qdict_get_int(lock, "size") == size;
    qobject_unref(info);
    return is;
}

static void assert_lock(QTestState *qts, const char *id, const char *state,
                        uint64_t size)
{
    if (!lock_is(qts, id, state, size)) {
        g_autofree char *text = qtest_hmp(qts, "info memdev");

        g_error("%s: expected '%s', %" PRIu64 " bytes, got: %s", id, state,
                size, text);
    }
}

/* What changes in a bottom half, after QEMU has answered */
static void wait_lock(QTestState *qts, const char *id, const char *state,
                      uint64_t size)
{
    int ms;

    for (ms = 0; ms < WAIT_MS && !lock_is(qts, id, state, size); ms += 10) {
        g_usleep(10 * 1000);
    }
    assert_lock(qts, id, state, size);
}

/* Refusals */

typedef struct Refusal {
    const char *name;
    const char *accel;          /* that QEMU is started with, to be refused */
    unsigned need;
    const char *option;
    const char *expected;
    bool later;                 /* refuse it in a VM that runs, with KVM, too */
} Refusal;

static const Refusal refusals[] = {
    { "merge", "qtest", 0, RAM ",id=m,size=1M,lock=on,merge=on",
      "properties 'lock' and 'merge' are both on" },
    { "merge-first", "qtest", 0, RAM ",id=m,size=1M,merge=on,lock=on",
      "properties 'lock' and 'merge' are both on" },
    { "too-much", "qtest", 0, RAM ",id=m,size=1P,reserve=off,lock=on",
      "but the host has" },
    { "qtest", "qtest", 0, RAM ",id=m,size=1M,lock=on",
      "property 'lock' needs KVM" },
    { "tcg", "tcg", NEED_TCG, RAM ",id=m,size=1M,lock=on",
      "Start QEMU with '-accel kvm'" },
    { "merge-kvm", "kvm", NEED_KVM, RAM ",id=m,size=1M,lock=on,merge=on",
      "properties 'lock' and 'merge' are both on", true },
    { "too-much-kvm", "kvm", NEED_KVM,
      RAM ",id=m,size=1P,reserve=off,lock=on", "but the host has", true },
    { "capability", "kvm", NEED_KVM | NEED_NO_LOCK,
      RAM ",id=m,size=1M,lock=on",
      "this host's KVM cannot lock guest memory, which takes an arm64 host",
      true },
    { "capability-hint", "kvm", NEED_KVM | NEED_NO_LOCK,
      RAM ",id=m,size=1M,lock=on", "'-overcommit mem-lock=on'", true },
    { "capability-memfd", "kvm", NEED_KVM | NEED_NO_LOCK,
      TYPE_MEMFD ",id=m,size=1M,lock=on", "arm64", true },
    { "capability-file", "kvm", NEED_KVM | NEED_NO_LOCK,
      "memory-backend-file,id=m,size=1M,mem-path=/dev/shm,lock=on", "arm64",
      true },
    { "capability-shm", "kvm", NEED_KVM | NEED_NO_LOCK,
      "memory-backend-shm,id=m,size=1M,lock=on", "arm64", true },
    { "capability-guest-memfd", "kvm", NEED_GMEM | NEED_NO_LOCK,
      TYPE ",id=m,size=1M,lock=on", "arm64", true },
};

static void test_refused(const void *opaque)
{
    const Refusal *r = opaque;
    QTestState *qts;
    int i, fds;

    assert_exits(r->accel, r->option, r->expected);
    if (!r->later) {
        return;
    }
    qts = start(RAM, "");
    fds = count_fds(qts);
    for (i = 0; i < 10; i++) {
        assert_object_add(qts, r->option, r->expected);
        g_assert_null(query_by_id(qts, "query-memdev", "m"));
    }
    assert_fds(qts, fds);
    assert_object_add(qts, RAM ",id=m,size=1M,lock=off", NULL);
    qtest_quit(qts);
}

/* Without KVM, of each type of backend: as if there were no such property */
static void test_off(const void *opaque)
{
    static const char *const types[] = {
        RAM, TYPE_MEMFD, "memory-backend-shm",
        "memory-backend-file,mem-path=/dev/shm",
    };
    QTestState *qts = qtest_init("-accel qtest -machine none");
    int i;

    for (i = 0; i < ARRAY_SIZE(types); i++) {
        g_autofree char *option = g_strdup_printf(
            "%s,id=m%d,size=1M,lock=off,merge=on", types[i], i);
        g_autofree char *id = g_strdup_printf("m%d", i);
        g_autofree char *path = g_strdup_printf("/objects/%s", id);
        QDict *info;

        assert_object_add(qts, option, NULL);
        info = query_by_id(qts, "query-memdev", id);
        g_assert_false(qdict_haskey(info, "lock"));
        g_assert_true(qdict_get_bool(info, "merge"));
        qobject_unref(info);
        assert_fails(qtest_qmp(qts, "{'execute': 'qom-set', 'arguments': "
                               "{'path': %s, 'property': 'lock', "
                               "'value': true}}", path),
                     "property 'lock' cannot change any more");
    }
    qtest_quit(qts);
}

/* In a VM with memory that can be locked, what else cannot be done with it? */
static void test_refused_beside(const void *opaque)
{
    static const char port[] =
        "-m 64M,maxmem=1G -device pcie-root-port,id=rp0,chassis=1";
    static const char virtio_mem[] =
        "-m 64M,maxmem=1G -object " RAM ",id=v,size=256M "
        "-device virtio-mem-pci,memdev=v,id=vm0";
    static const char add[] =
        "{'execute': 'device_add', 'arguments': {'driver': 'virtio-mem-pci', "
        "'id': 'vm0', 'memdev': 'v', 'bus': 'rp0'}}";
    QTestState *qts = start(RAM ",lock=on", port);

    assert_fails(qtest_qmp(qts, "{'execute': 'qom-set', 'arguments': "
                           "{'path': '/objects/ram0', 'property': 'merge', "
                           "'value': true}}"),
                 "properties 'lock' and 'merge' are both on");
    assert_object_add(qts, RAM ",id=v,size=256M", NULL);
    assert_fails(qtest_qmp(qts, add), "Discarding RAM is disabled");
    qtest_quit(qts);

    /* The other way round, and when the memory is gone */
    qts = start(RAM, virtio_mem);
    assert_object_add(qts, RAM ",id=m,size=1M,lock=on",
                      "a device of this VM discards memory");
    qtest_quit(qts);
    qts = start(RAM, port);
    assert_object_add(qts, RAM ",id=m,size=1M,lock=on", NULL);
    assert_lock(qts, "m", "unplugged", 0);
    object_del_ok(qts, "m");
    assert_object_add(qts, RAM ",id=v,size=256M", NULL);
    qtest_qmp_assert_success(qts, add);
    qtest_quit(qts);
}

static QDict *set_capability(QTestState *qts, const char *name, bool on)
{
    return qtest_qmp(qts, "{'execute': 'migrate-set-capabilities', "
                     "'arguments': {'capabilities': [{'capability': %s, "
                     "'state': %i}]}}", name, on);
}

static void test_refused_migration(const void *opaque)
{
    QTestState *qts = start(RAM ",lock=on", "-incoming defer");
    QDict *rsp;

    assert_fails(set_capability(qts, "postcopy-ram", true), "which is locked");
    qtest_quit(qts);

    qts = start(RAM ",lock=on", "");
    assert_fails(set_capability(qts, "background-snapshot", true), "lock=on");
    qtest_quit(qts);

    qts = start(RAM, "");
    rsp = set_capability(qts, "background-snapshot", true);
    g_assert(qdict_haskey(rsp, "return"));
    qobject_unref(rsp);
    assert_object_add(qts, RAM ",id=m,size=1M,lock=on",
                      "'background-snapshot' is set");
    qtest_quit(qts);
}

/* Locked */

static const struct {
    const char *name, *type;
    bool counted;               /* against RLIMIT_MEMLOCK */
} types[] = {
    { "ram", RAM ",lock=on", true },
    { "ram-shared", RAM ",share=on,lock=on", true },
    { "memfd", TYPE_MEMFD ",lock=on", true },
    { "memfd-private", TYPE_MEMFD ",share=off,lock=on", true },
    { "shm", "memory-backend-shm,lock=on", true },
    { "file", "memory-backend-file,mem-path=/dev/shm,lock=on", true },
    { "guest-memfd", TYPE ",lock=on", false },
};

static void test_start(const void *opaque)
{
    int i = GPOINTER_TO_INT(opaque);
    QTestState *qts = start(types[i].type, "");
    const uint64_t locked = types[i].counted ? RAM_SIZE : 0;
    GByteArray *data = write_patterns(qts);
    g_autofree char *text = NULL;

    assert_lock(qts, "ram0", "locked", RAM_SIZE);
    g_assert_cmpuint(vm_lck(qts), ==, locked);
    text = qtest_hmp(qts, "info memdev");
    g_assert_nonnull(strstr(text, "  lock: locked, 67108864 bytes"));
    check_patterns(qts, data);

    g_byte_array_unref(data);

    /* This writes a device tree to RAM. */
    qtest_system_reset(qts);
    assert_lock(qts, "ram0", "locked", RAM_SIZE);
    g_assert_cmpuint(vm_lck(qts), ==, locked);
    data = write_patterns(qts);
    check_patterns(qts, data);
    g_byte_array_unref(data);
    qtest_quit(qts);
}

static void test_migration(const void *opaque)
{
    int i = GPOINTER_TO_INT(opaque);
    g_autofree char *path = g_strdup_printf("%s/migration", tmpdir);
    g_autofree char *uri = g_strdup_printf("file:%s", path);
    QTestState *from = start(types[i].type, ""), *to;
    GByteArray *data = write_patterns(from);

    migrate_to(from, uri);
    wait_status(from, "query-migrate", "completed");
    /* Logging ends when the VM runs on, if it does. */
    assert_lock(from, "ram0", "dirty-log", 0);
    g_assert_cmpuint(vm_lck(from), ==, 0);
    qtest_qmp_assert_success(from, "{'execute': 'cont'}");
    wait_lock(from, "ram0", "locked", RAM_SIZE);
    check_patterns(from, data);
    qtest_quit(from);

    to = start(types[i].type, "-incoming defer");
    assert_lock(to, "ram0", "locked", RAM_SIZE);
    qtest_qmp_assert_success(to, "{'execute': 'migrate-incoming', "
                             "'arguments': {'uri': %s}}", uri);
    wait_status(to, "query-migrate", "completed");
    wait_status(to, "query-status", "running");
    assert_lock(to, "ram0", "locked", RAM_SIZE);
    check_patterns(to, data);
    g_byte_array_unref(data);
    qtest_quit(to);
    unlink(path);
}

static void test_cancelled(const void *opaque)
{
    int i = GPOINTER_TO_INT(opaque), n;
    QTestState *qts = start(types[i].type, "");
    GByteArray *data;

    for (n = 0; n < 3; n++) {
        migrate_endless(qts);
        assert_lock(qts, "ram0", "dirty-log", 0);
        g_assert_cmpuint(vm_lck(qts), ==, 0);
        qtest_system_reset(qts);
        assert_lock(qts, "ram0", "dirty-log", 0);
        data = write_patterns(qts);
        migrate_cancel(qts);
        wait_lock(qts, "ram0", "locked", RAM_SIZE);
        check_patterns(qts, data);
        g_byte_array_unref(data);
    }
    qtest_quit(qts);
}

/* Faults */

#define LAST_PAGE (1 * GiB + RAM_SIZE - 4096)

/* Firmware that adds 1 to the first word of each page of RAM, over and over */
static const uint32_t touch[] = {
    0xd2a80000,         /*       mov x0, #0x40000000 */
    0xd2a88001,         /*       mov x1, #0x44000000 */
    0xaa0003e2,         /* start: mov x2, x0 */
    0xf9400043,         /* loop: ldr x3, [x2] */
    0x91000463,         /*       add x3, x3, #1 */
    0xf9000043,         /*       str x3, [x2] */
    0x91400442,         /*       add x2, x2, #4096 */
    0xeb01005f,         /*       cmp x2, x1 */
    0x54ffff63,         /*       b.lo loop */
    0x17fffff9,         /*       b start */
};

/* As start(), with touch[] for firmware */
static QTestState *start_touch(const char *type, const char *extra)
{
    g_autofree char *path = g_strdup_printf("%s/touch.bin", tmpdir);
    g_autofree char *args = g_strdup_printf("-bios %s %s", path, extra);
    QTestState *qts;

    g_assert_true(g_file_set_contents(path, (const char *)touch, sizeof(touch),
                                      NULL));
    qts = start(type, args);
    unlink(path);
    return qts;
}

static void wait_passes(QTestState *qts, unsigned passes)
{
    uint64_t first = qtest_readq(qts, LAST_PAGE);
    int ms;

    for (ms = 0; ms < WAIT_MS; ms += 10) {
        if (qtest_readq(qts, LAST_PAGE) - first >= passes) {
            return;
        }
        g_usleep(10 * 1000);
    }
    g_error("the guest does not run");
}

/* Faults that KVM has served for the vCPU, of all kinds */
static uint64_t faults(QTestState *qts)
{
    QDict *rsp = qtest_qmp(qts,
        "{'execute': 'query-stats', 'arguments': {'target': 'vcpu', "
        "'providers': [{'provider': 'kvm', "
        "'names': ['stage2_fault_exits']}]}}");
    QList *vcpus = qdict_get_qlist(rsp, "return");
    QDict *vcpu = qobject_to(QDict, qlist_peek(vcpus));
    QDict *stat = qobject_to(QDict, qlist_peek(qdict_get_qlist(vcpu, "stats")));
    uint64_t value = qdict_get_int(stat, "value");

    qobject_unref(rsp);
    return value;
}

/* The guest touches all of its memory: how often does it fault? */
static void test_faults(const void *opaque)
{
    int i = GPOINTER_TO_INT(opaque);
    g_autofree char *unlocked = g_strndup(types[i].type, strlen(types[i].type) -
                                          strlen(",lock=on"));
    const unsigned pages = RAM_SIZE / qemu_real_host_page_size();
    uint64_t before;
    QTestState *qts;

    /* The control; transparent huge pages leave fewer faults. */
    qts = start_touch(unlocked, "");
    wait_passes(qts, 2);
    before = faults(qts);
    g_test_message("%s: %" PRIu64 " faults", unlocked, before);
    g_assert_cmpuint(before, >=, RAM_SIZE / (2 * MiB));
    qtest_quit(qts);

    qts = start_touch(types[i].type, "");
    wait_passes(qts, 2);
    before = faults(qts);
    g_test_message("%s: %" PRIu64 " faults", types[i].type, before);
    g_assert_cmpuint(before, <, 8);     /* of the firmware's page */
    wait_passes(qts, 3);
    g_assert_cmpuint(faults(qts), ==, before);

    /* Logging is by pages. */
    migrate_endless(qts);
    wait_passes(qts, 2);
    g_assert_cmpuint(faults(qts), >=, before + pages);
    migrate_cancel(qts);
    wait_lock(qts, "ram0", "locked", RAM_SIZE);
    before = faults(qts);
    wait_passes(qts, 3);
    /* KVM can count a fault late that began before QEMU locked. */
    g_assert_cmpuint(faults(qts), <=, before + 1);
    before = faults(qts);
    wait_passes(qts, 1);
    g_assert_cmpuint(faults(qts), ==, before);

    qtest_system_reset(qts);
    wait_passes(qts, 3);
    g_assert_cmpuint(faults(qts), <, before + 8);
    qtest_quit(qts);
}

/* Poisoned memory */

/* fw_cfg of "virt": hw/arm/virt.c, docs/specs/fw_cfg.rst */
#define FW_CFG 0x9020000ull
#define FW_CFG_CONTROL (FW_CFG + 8)
#define FW_CFG_DMA (FW_CFG + 16)

static void fw_cfg_read(QTestState *qts, void *data, size_t size)
{
    uint8_t *byte = data;

    while (size--) {
        *byte++ = qtest_readb(qts, FW_CFG);
    }
}

/* What firmware does: writes 8 bytes to the file @name. */
static void fw_cfg_write_file(QTestState *qts, const char *name, uint64_t value)
{
    const uint64_t buffer = ram_start() + 64;   /* not what touch[] counts in */
    FWCfgDmaAccess access = {
        .length = cpu_to_be32(sizeof(value)),
        .address = cpu_to_be64(buffer + sizeof(access)),
    };
    struct fw_cfg_file file = {};
    uint32_t count;

    qtest_writew(qts, FW_CFG_CONTROL, cpu_to_be16(FW_CFG_FILE_DIR));
    fw_cfg_read(qts, &count, sizeof(count));
    for (count = be32_to_cpu(count); count && strcmp(file.name, name);
         count--) {
        fw_cfg_read(qts, &file, sizeof(file));
    }
    g_assert_cmpstr(file.name, ==, name);

    access.control = cpu_to_be32(be16_to_cpu(file.select) << 16 |
                                 FW_CFG_DMA_CTL_SELECT | FW_CFG_DMA_CTL_WRITE);
    qtest_memwrite(qts, buffer, &access, sizeof(access));
    qtest_writeq(qts, buffer + sizeof(access), value);
    qtest_writeq(qts, FW_CFG_DMA, cpu_to_be64(buffer));
    qtest_memread(qts, buffer, &access, sizeof(access));
    g_assert_cmphex(access.control, ==, 0);
}

/* The host's physical address of the guest's @addr */
static uint64_t physical_address(QTestState *qts, uint64_t addr)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/pagemap", qtest_pid(qts));
    g_autofree char *out = qtest_hmp(qts, "gpa2hva 0x%" PRIx64, addr);
    const char *hva = strstr(out, " is 0x");
    const uint64_t page = qemu_real_host_page_size();
    uint64_t entry;
    int fd = open(path, O_RDONLY);

    g_assert_nonnull(hva);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(pread(fd, &entry, sizeof(entry),
                          g_ascii_strtoull(hva + 4, NULL, 16) / page *
                          sizeof(entry)), ==, sizeof(entry));
    close(fd);
    /* Bits 0 to 54 are the page's number: admin-guide/mm/pagemap.rst. */
    return (entry & (BIT_ULL(55) - 1)) * page;
}

/*
 * The hardware loses a page of the guest's.  A reset replaces it, and the new
 * one is locked.
 */
static void test_poisoned(const void *opaque)
{
    static const char offline[] =
        "/sys/devices/system/memory/hard_offline_page";
    int i = GPOINTER_TO_INT(opaque);
    QTestState *qts;
    uint64_t before;
    FILE *file;

    if (access(offline, W_OK)) {
        g_test_skip("the kernel has no CONFIG_MEMORY_FAILURE");
        return;
    }
    qts = start_touch(types[i].type, "-machine ras=on");
    /* QEMU only keeps poisoned pages in mind for firmware with ACPI. */
    fw_cfg_write_file(qts, "etc/acpi_table_hest_addr", ram_start());
    wait_passes(qts, 2);
    qtest_qmp_assert_success(qts, "{'execute': 'stop'}");
    file = fopen(offline, "w");
    g_assert_nonnull(file);
    fprintf(file, "0x%" PRIx64, physical_address(qts, LAST_PAGE));
    /* It may fail: the page is pinned. */
    fclose(file);

    qtest_system_reset(qts);
    assert_lock(qts, "ram0", "locked", RAM_SIZE);
    g_assert_cmpuint(vm_lck(qts), ==, types[i].counted ? RAM_SIZE : 0);
    g_assert_cmpuint(qtest_readq(qts, LAST_PAGE), ==, 0);
    qtest_qmp_assert_success(qts, "{'execute': 'cont'}");
    wait_passes(qts, 2);
    before = faults(qts);
    wait_passes(qts, 2);
    g_assert_cmpuint(faults(qts), ==, before);
    qtest_quit(qts);
}

static void add_dimm(QTestState *qts, const char *id, const char *memdev)
{
    QDict *rsp = qtest_qmp(qts, "{'execute': 'device_add', 'arguments': "
                           "{'driver': 'pc-dimm', 'id': %s, 'memdev': %s}}",
                           id, memdev);

    g_assert(qdict_haskey(rsp, "return"));
    qobject_unref(rsp);
}

/* Memory that is plugged, beside memory that is not locked */
static void test_dimm(const void *opaque)
{
    QTestState *qts = start(RAM, "-m 64M,slots=4,maxmem=2G");
    QDict *info;

    assert_object_add(qts, RAM ",id=m,size=128M,lock=on", NULL);
    assert_object_add(qts, TYPE ",id=g,size=128M,lock=on", NULL);
    assert_lock(qts, "m", "unplugged", 0);
    g_assert_cmpuint(vm_lck(qts), ==, 0);
    add_dimm(qts, "d0", "m");
    assert_lock(qts, "m", "locked", 128 * MiB);
    g_assert_cmpuint(vm_lck(qts), ==, 128 * MiB);
    add_dimm(qts, "d1", "g");
    assert_lock(qts, "g", "locked", 128 * MiB);
    g_assert_cmpuint(vm_lck(qts), ==, 128 * MiB);
    qtest_system_reset(qts);
    assert_lock(qts, "m", "locked", 128 * MiB);
    assert_lock(qts, "g", "locked", 128 * MiB);
    info = query_by_id(qts, "query-memdev", "ram0");
    g_assert_false(qdict_haskey(info, "lock"));
    qobject_unref(info);
    qtest_quit(qts);
}

/* What is read-only for the guest is locked so. */
static void test_read_only(const void *opaque)
{
    g_autofree char *path = g_strdup_printf("/dev/shm/lock-%d", getpid());
    g_autofree char *args = g_strdup_printf(
        "-m 64M,slots=1,maxmem=1G -machine nvdimm=on "
        "-object memory-backend-file,id=n,size=2M,mem-path=%s,share=on,"
        "readonly=on,lock=on -device nvdimm,memdev=n,unarmed=on", path);
    g_autofree char *page = g_malloc0(2 * MiB);
    QTestState *qts;

    g_assert_true(g_file_set_contents(path, page, 2 * MiB, NULL));
    qts = start(RAM, args);
    assert_lock(qts, "n", "locked", 2 * MiB);
    qtest_quit(qts);
    unlink(path);
}

/* KVM fails */

static void assert_event(QTestState *qts, const char *id, uint64_t size)
{
    QDict *event = qtest_qmp_eventwait_ref(qts, "MEMORY_BACKEND_LOCK_FAILED");
    QDict *data = qdict_get_qdict(event, "data");

    g_assert_cmpstr(qdict_get_str(data, "id"), ==, id);
    g_assert_cmpuint(qdict_get_int(data, "size"), ==, size);
    g_assert_cmpint(qdict_get_int(data, "errno"), ==, ENOMEM);
    g_assert_cmpstr(qdict_get_str(data, "error"), ==, strerror(ENOMEM));
    qobject_unref(event);
}

/* The one that starts says what the user can do. */
static void assert_start_fails(const char *option, const char *expected)
{
    const char *argv[] = {
        "timeout", "600", qtest_qemu_binary(NULL), "-accel", "kvm", "-S",
        "-nodefaults", "-display", "none", "-cpu", "host", "-bios", bios,
        "-machine", "virt,gic-version=host,memory-backend=ram0", "-m", "64M",
        "-object", option, NULL,
    };
    g_autofree char *err = NULL;
    int status;

    g_assert_true(g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH,
                               NULL, NULL, NULL, &err, &status, NULL));
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 1 ||
        !strstr(err, expected)) {
        g_error("-object %s: expected '%s', got status %d and: %s", option,
                expected, status, err);
    }
}

static void test_fault_start(const void *opaque)
{
    fault_begin();
    fault_arm("lock", ENOMEM, 0);
    assert_start_fails(RAM ",id=ram0,size=64M,lock=on", "Raise RLIMIT_MEMLOCK");
    fault_arm("lock", EFAULT, 0);
    assert_start_fails(RAM ",id=ram0,size=64M,lock=on",
                       "KVM cannot pin this kind of memory");
    fault_end();
}

/* KVM is interrupted, and asked again. */
static void test_fault_interrupted(const void *opaque)
{
    QTestState *qts;

    fault_begin();
    fault_arm("lock", EINTR, 1);
    qts = start(RAM ",lock=on", "");
    assert_lock(qts, "ram0", "locked", RAM_SIZE);
    fault_end();
    qtest_quit(qts);
}

/* Memory that is locked again, and that is plugged */
static void test_fault_later(const void *opaque)
{
    g_autofree char *text = NULL;
    QTestState *qts;

    fault_begin();
    qts = start(RAM ",lock=on", "-m 64M,slots=4,maxmem=2G");
    fault_end();
    assert_lock(qts, "ram0", "locked", RAM_SIZE);

    fault_arm("lock", ENOMEM, 0);
    migrate_endless(qts);
    migrate_cancel(qts);
    assert_event(qts, "ram0", RAM_SIZE);
    wait_lock(qts, "ram0", "failed", 0);
    text = qtest_hmp(qts, "info memdev");
    g_assert_nonnull(strstr(text, "  lock: failed, 0 bytes: Cannot allocate"));

    assert_object_add(qts, RAM ",id=m,size=128M,lock=on", NULL);
    add_dimm(qts, "d0", "m");
    assert_event(qts, "m", 128 * MiB);
    assert_lock(qts, "m", "failed", 0);

    /* Each was tried once; when its slot changes, it is tried again. */
    fault_disarm();
    qtest_system_reset(qts);
    assert_lock(qts, "ram0", "failed", 0);
    migrate_endless(qts);
    assert_lock(qts, "ram0", "dirty-log", 0);
    migrate_cancel(qts);
    wait_lock(qts, "ram0", "locked", RAM_SIZE);
    wait_lock(qts, "m", "locked", 128 * MiB);
    qtest_quit(qts);
}

/* RLIMIT_MEMLOCK */

static void set_limit(uint64_t bytes)
{
    const struct rlimit limit = { bytes, bytes };

    g_assert_cmpint(prctl(PR_CAPBSET_DROP, CAP_IPC_LOCK), ==, 0);
    g_assert_cmpint(setrlimit(RLIMIT_MEMLOCK, &limit), ==, 0);
}

static void test_limit(const void *opaque)
{
    const uint64_t page = qemu_real_host_page_size();
    g_autofree char *both = g_strdup_printf(
        "QEMU would lock %" PRIu64 " bytes of memory in all, but "
        "RLIMIT_MEMLOCK is %" PRIu64 " bytes", (uint64_t)RAM_SIZE,
        (uint64_t)RAM_SIZE - page);
    g_autofree char *sum = g_strdup_printf(
        "QEMU would lock %" PRIu64 " bytes of memory in all, but "
        "RLIMIT_MEMLOCK is %" PRIu64 " bytes", (uint64_t)RAM_SIZE + page,
        (uint64_t)RAM_SIZE);
    struct rlimit lower = { RAM_SIZE / 2, RAM_SIZE };
    QTestState *qts;

    set_limit(RAM_SIZE - page);
    assert_start_fails(RAM ",id=ram0,size=64M,lock=on", both);
    /* Memory of a guest_memfd does not count. */
    qts = start(TYPE ",lock=on", "");
    assert_lock(qts, "ram0", "locked", RAM_SIZE);
    qtest_quit(qts);

    set_limit(RAM_SIZE);
    qts = start(RAM ",lock=on", "");
    assert_lock(qts, "ram0", "locked", RAM_SIZE);
    g_assert_cmpuint(vm_lck(qts), ==, RAM_SIZE);
    assert_object_add(qts, RAM ",id=m,size=4k,lock=on", sum);
    /* What is to be locked again counts, too. */
    migrate_endless(qts);
    g_assert_cmpuint(vm_lck(qts), ==, 0);
    assert_object_add(qts, RAM ",id=m,size=4k,lock=on", sum);
    g_assert_cmpint(prlimit(qtest_pid(qts), RLIMIT_MEMLOCK, &lower, NULL), ==,
                    0);
    migrate_cancel(qts);
    assert_event(qts, "ram0", RAM_SIZE);
    wait_lock(qts, "ram0", "failed", 0);
    g_assert_cmpuint(vm_lck(qts), ==, 0);
    qtest_quit(qts);
}

void guest_memfd_test_add_lock(void)
{
    int i;

    for (i = 0; i < ARRAY_SIZE(refusals); i++) {
        add_test("lock/refused", refusals[i].name, test_refused, &refusals[i],
                 refusals[i].need);
    }
    add_test("lock/off", NULL, test_off, NULL, 0);
    add_test("lock/refused/beside", NULL, test_refused_beside, NULL, NEED_LOCK);
    add_test("lock/refused/migration", NULL, test_refused_migration, NULL,
             NEED_LOCK | NEED_UFFD);
    for (i = 0; i < ARRAY_SIZE(types); i++) {
        unsigned need = NEED_LOCK | (types[i].counted ? 0 : NEED_GMEM);

        add_test("lock/start", types[i].name, test_start, GINT_TO_POINTER(i),
                 need);
        add_test("lock/migration", types[i].name, test_migration,
                 GINT_TO_POINTER(i), need);
        add_test("lock/cancelled", types[i].name, test_cancelled,
                 GINT_TO_POINTER(i), need);
        add_test("lock/faults", types[i].name, test_faults, GINT_TO_POINTER(i),
                 need);
        /*
         * Not with huge pages: Linux 7.3 cannot split one that is pinned, and
         * hands the poisoned page out again after it has freed the huge one.
         * Nor in a guest_memfd: the kernel tells nobody until the page is used.
         */
        if (g_str_has_prefix(types[i].name, "memfd")) {
            add_test("lock/poisoned", types[i].name, test_poisoned,
                     GINT_TO_POINTER(i), need);
        }
    }
    add_test("lock/dimm", NULL, test_dimm, NULL, NEED_LOCK | NEED_GMEM);
    add_test("lock/read-only", NULL, test_read_only, NULL, NEED_LOCK);
    add_test("lock/fault/start", NULL, test_fault_start, NULL, NEED_LOCK);
    add_test("lock/fault/interrupted", NULL, test_fault_interrupted, NULL,
             NEED_LOCK);
    add_test("lock/fault/later", NULL, test_fault_later, NULL, NEED_LOCK);
    /* A folder of its own: what stands in one runs before its folders. */
    add_test("lock/limit", "exact", test_limit, NULL, NEED_LOCK | NEED_GMEM);
}
