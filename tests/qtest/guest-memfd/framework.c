/*
 * What the tests of memory-backend-guest-memfd share
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include "qapi/error.h"
#include "qobject/qjson.h"
#include "qobject/qlist.h"
#include "guest-memfd/framework.h"
#include "accel/kvm/kvm-lock-uapi.h"

static const struct {
    unsigned need;
    const char *missing;
} needs[] = {
    { NEED_KVM, "/dev/kvm cannot be opened" },
    { NEED_GMEM, "KVM has no guest_memfd that can be mapped" },
    { NEED_NO_GMEM, "KVM has a guest_memfd that can be mapped" },
    { NEED_SMM, "KVM has no System Management Mode" },
    { NEED_UFFD, "the kernel has no userfaultfd" },
    { NEED_NODES, "the host has no NUMA node 1" },
    { NEED_CACHESTAT, "the kernel has no cachestat()" },
    { NEED_PROTECTED, "KVM has no software-protected VMs" },
    { NEED_TCG, "this QEMU has no TCG" },
    { NEED_LOCK, "KVM cannot lock guest memory" },
    { NEED_NO_LOCK, "KVM can lock guest memory" },
};

static unsigned has;
static char *fault_file;
char *tmpdir;
char *bios;

const Machine machine_pc = { "pc", "pc", false, "" };
const Machine machine_q35 = { "q35", "q35", false, "" };
const Machine machine_pc_smm = { "pc-smm", "pc", true, "" };
const Machine machine_q35_smm = { "q35-smm", "q35", true, "" };
const Machine machine_q35_vga = { "q35-smm-vga", "q35", true, "-device VGA" };

/* arm64's, which stands for machine_pc there */
static const Machine machine_virt = {
    "virt", "virt", false, "-machine gic-version=host -cpu host",
};

const Machine *const machines[MACHINES] = {
    &machine_pc, &machine_q35, &machine_pc_smm, &machine_q35_smm,
    &machine_q35_vga,
};

bool is_pc(void)
{
    return g_str_equal(qtest_get_arch(), "x86_64");
}

uint64_t ram_start(void)
{
    return is_pc() ? 0 : 1 * GiB;
}

static const Machine *machine_here(const Machine *m)
{
    return is_pc() ? m : &machine_virt;
}

static void probe(void)
{
    const uint64_t flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED;
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int vm = kvm >= 0 ? ioctl(kvm, KVM_CREATE_VM, 0) : -1;
    int fd = syscall(SYS_userfaultfd, O_CLOEXEC);

    has = vm >= 0 ? NEED_KVM : 0;
    if (vm >= 0) {
        int ret = ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_GUEST_MEMFD_FLAGS);

        has |= ret > 0 && (ret & flags) == flags ? NEED_GMEM : NEED_NO_GMEM;
        if (ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_X86_SMM) > 0) {
            has |= NEED_SMM;
        }
#ifdef KVM_X86_SW_PROTECTED_VM
        if (ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_VM_TYPES) &
            1 << KVM_X86_SW_PROTECTED_VM) {
            has |= NEED_PROTECTED;
        }
#endif
        has |= ioctl(vm, KVM_CHECK_EXTENSION,
                     KVM_CAP_ARM_LOCK_USER_MEMORY_REGION) > 0 ? NEED_LOCK
                                                              : NEED_NO_LOCK;
        close(vm);
    }
    if (kvm >= 0) {
        close(kvm);
    }
    if (fd >= 0) {
        has |= NEED_UFFD;
        close(fd);
    }
    /* ENOSYS, or what it says of a file that is none */
    if (syscall(451, -1, NULL, NULL, 0) < 0 && errno != ENOSYS) {
        has |= NEED_CACHESTAT;
    }
    if (g_file_test("/sys/devices/system/node/node1", G_FILE_TEST_EXISTS)) {
        has |= NEED_NODES;
    }
    if (qtest_has_accel("tcg")) {
        has |= NEED_TCG;
    }
}

void test_begin(void)
{
    static const uint32_t wfi[] = { 0xd503207f, 0x17ffffff };   /* and b .-4 */
    g_autofree char *hlt = g_malloc(BIOS_SIZE);
    int i;

    probe();
    tmpdir = g_dir_make_tmp("guest-memfd-XXXXXX", NULL);
    g_assert_nonnull(tmpdir);
    bios = g_build_filename(tmpdir, "hlt.bin", NULL);
    fault_file = g_build_filename(tmpdir, "fault", NULL);
    memset(hlt, 0xf4, BIOS_SIZE);
    for (i = 0; !is_pc() && i < BIOS_SIZE; i += sizeof(wfi)) {
        memcpy(hlt + i, wfi, sizeof(wfi));
    }
    g_assert_true(g_file_set_contents(bios, hlt, BIOS_SIZE, NULL));
}

void test_end(void)
{
    fault_disarm();
    unlink(bios);
    rmdir(tmpdir);
}

typedef struct Test {
    void (*run)(const void *opaque);
    const void *opaque;
    unsigned need;
} Test;

static void run_test(const void *opaque)
{
    const Test *test = opaque;
    int i;

    for (i = 0; i < ARRAY_SIZE(needs); i++) {
        if (test->need & ~has & needs[i].need) {
            g_test_skip(needs[i].missing);
            return;
        }
    }
    test->run(test->opaque);
}

void add_test(const char *path, const char *variant,
              void (*run)(const void *opaque), const void *opaque,
              unsigned need)
{
    g_autofree char *full = g_strdup_printf("/guest-memfd/%s%s%s", path,
                                            variant ? "/" : "", variant ?: "");
    Test *test = g_new(Test, 1);

    *test = (Test) { run, opaque, need };
    qtest_add_data_func_full(full, test, run_test, g_free);
}

void add_machine_test(const char *path, void (*run)(const void *opaque),
                      const Machine *m)
{
    if (is_pc() || m == &machine_pc) {
        m = machine_here(m);
        add_test(path, m->name, run, m, NEED_GMEM | (m->smm ? NEED_SMM : 0));
    }
}

/* Virtual machines */

char *machine_args(const Machine *m)
{
    m = machine_here(m);
    return g_strdup_printf("-accel kvm -nodefaults -bios %s -machine %s%s %s",
                           bios, m->type, !is_pc() ? "" :
                           m->smm ? ",smm=on" : ",smm=off", m->args);
}

QTestState *start_machine(const Machine *m, const char *extra)
{
    g_autofree char *args = machine_args(m);

    return qtest_initf("%s -machine memory-backend=ram0 -m 64M "
                       "-object " TYPE ",id=ram0,size=64M %s", args, extra);
}

void assert_exits(const char *accel, const char *option,
                  const char *expected)
{
    assert_machine_exits(machine_here(&machine_pc)->type, accel, option,
                         expected);
}

void assert_machine_exits(const char *machine, const char *accel,
                          const char *option, const char *expected)
{
    /* Should it start after all, it is ended. */
    const char *argv[] = {
        "timeout", "600", qtest_qemu_binary(NULL), "-accel", accel, "-S",
        "-nodefaults", "-display", "none", "-machine", machine, "-m", "16M",
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

void config_write(QTestState *qts, uint8_t reg, uint8_t value)
{
    if (!is_pc()) {
        return;
    }
    qtest_outl(qts, 0xcf8, 0x80000000 | (reg & ~3));
    qtest_outb(qts, 0xcfc + (reg & 3), value);
}

int pam_base(const Machine *m)
{
    return g_str_equal(m->type, "pc") ? 0x59 : 0x90;
}

/* QMP */

void assert_fails(QDict *rsp, const char *expected)
{
    const char *desc;

    g_assert(qdict_haskey(rsp, "error"));
    desc = qdict_get_str(qdict_get_qdict(rsp, "error"), "desc");
    if (!strstr(desc, expected)) {
        g_error("expected an error with '%s', got: %s", expected, desc);
    }
    qobject_unref(rsp);
}

static char *query_status(QTestState *qts, const char *query)
{
    QDict *rsp = qtest_qmp_assert_success_ref(qts, "{'execute': %s}", query);
    char *status = g_strdup(qdict_get_try_str(rsp, "status"));

    qobject_unref(rsp);
    return status;
}

void wait_status(QTestState *qts, const char *query,
                 const char *expected)
{
    int ms;

    for (ms = 0; ms < WAIT_MS; ms += 10) {
        g_autofree char *status = query_status(qts, query);

        if (!g_strcmp0(status, expected)) {
            return;
        }
        if (!g_strcmp0(status, "failed")) {
            g_error("%s: failed instead of %s", query, expected);
        }
        g_usleep(10 * 1000);
    }
    g_error("%s: not %s after %d s", query, expected, WAIT_MS / 1000);
}

QDict *object_add(QTestState *qts, const char *id, const char *props)
{
    QDict *args = qobject_to(QDict, qobject_from_json(props, &error_abort));

    qdict_put_str(args, "qom-type", TYPE);
    qdict_put_str(args, "id", id);
    return qtest_qmp(qts, "{'execute': 'object-add', 'arguments': %p}", args);
}

void object_add_ok(QTestState *qts, const char *id, const char *props)
{
    QDict *rsp = object_add(qts, id, props);

    if (!qdict_haskey(rsp, "return")) {
        g_error("%s: %s", props,
                qdict_get_str(qdict_get_qdict(rsp, "error"), "desc"));
    }
    qobject_unref(rsp);
}

QDict *object_del(QTestState *qts, const char *id)
{
    return qtest_qmp(qts, "{'execute': 'object-del', 'arguments': "
                     "{'id': %s}}", id);
}

void object_del_ok(QTestState *qts, const char *id)
{
    QDict *rsp = object_del(qts, id);

    g_assert(qdict_haskey(rsp, "return"));
    qobject_unref(rsp);
}

QDict *query_by_id(QTestState *qts, const char *query, const char *id)
{
    QDict *rsp = qtest_qmp(qts, "{'execute': %s}", query);
    QDict *found = NULL;
    QListEntry *e;

    g_assert(qdict_haskey(rsp, "return"));
    QLIST_FOREACH_ENTRY(qdict_get_qlist(rsp, "return"), e) {
        QDict *info = qobject_to(QDict, qlist_entry_obj(e));

        if (!strcmp(qdict_get_str(info, "id"), id)) {
            g_assert_null(found);
            found = qobject_ref(info);
        }
    }
    qobject_unref(rsp);
    return found;
}

static int64_t query_allocated(QTestState *qts, const char *id)
{
    QDict *info = query_by_id(qts, "query-guest-memfd", id);
    int64_t allocated;

    g_assert_nonnull(info);
    allocated = qdict_get_try_int(info, "allocated", -1);
    qobject_unref(info);
    return allocated;
}

void assert_allocated(QTestState *qts, const char *id, int64_t expected)
{
    int64_t allocated = query_allocated(qts, id);

    if (allocated < 0) {
        g_test_message("the kernel has no cachestat(): allocation of %s "
                       "not checked", id);
    } else {
        g_assert_cmpint(allocated, ==, expected);
    }
}

int count_fds(QTestState *qts)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fd", qtest_pid(qts));
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    int n = 0;

    g_assert_nonnull(dir);
    while (g_dir_read_name(dir)) {
        n++;
    }
    return n;
}

void assert_fds(QTestState *qts, int expected)
{
    int ms;

    for (ms = 0; ms < WAIT_MS && count_fds(qts) != expected; ms += 10) {
        g_usleep(10 * 1000);
    }
    g_assert_cmpint(count_fds(qts), ==, expected);
}

/* Faults */

void fault_arm(const char *op, int error, int nth)
{
    g_autofree char *text = g_strdup_printf("%s %d %d", op, error, nth);

    g_assert_true(g_file_set_contents(fault_file, text, -1, NULL));
}

void fault_disarm(void)
{
    unlink(fault_file);
}

void fault_begin(void)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *dir = g_path_get_dirname(self);
    g_autofree char *lib = g_build_filename(dir, "guest-memfd-fault.so", NULL);

    if (!g_file_test(lib, G_FILE_TEST_EXISTS)) {
        g_error("%s is not there: build it", lib);
    }
    fault_disarm();
    g_setenv("GUEST_MEMFD_FAULT", fault_file, true);
    g_setenv("LD_PRELOAD", lib, true);
}

void fault_end(void)
{
    g_unsetenv("LD_PRELOAD");
    g_unsetenv("GUEST_MEMFD_FAULT");
    fault_disarm();
}
