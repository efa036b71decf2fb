/*
 * Test of memory-backend-guest-memfd with the host's own KVM
 *
 * The guest's firmware is one HLT after the other: nothing but the test changes
 * the memory map.  What the host lacks is found by asking KVM, and the tests
 * that need it are skipped.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/units.h"
#include "qobject/qbool.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "qobject/qlist.h"
#include "qobject/qnum.h"
#include "qobject/qstring.h"
#include "libqtest.h"

#define TYPE "memory-backend-guest-memfd"
#define RAM_SIZE (64 * MiB)
/* As much as can be below 1 MiB: else RAM shows up there. */
#define BIOS_SIZE (128 * KiB)
#define WAIT_MS 600000  /* for what hangs, not for what is slow */

enum {
    NEED_KVM = 1 << 0,
    NEED_GMEM = 1 << 1,
    NEED_NO_GMEM = 1 << 2,
    NEED_SMM = 1 << 3,
    NEED_UFFD = 1 << 4,
    NEED_NODES = 1 << 5,
    NEED_CACHESTAT = 1 << 6,
    NEED_PROTECTED = 1 << 7,
};

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
};

static unsigned has;
static char *tmpdir;
static char *bios;

typedef struct Machine {
    const char *name;
    const char *type;
    bool smm;
    const char *args;
} Machine;

static const Machine pc = { "pc", "pc", false, "" };
static const Machine q35 = { "q35", "q35", false, "" };
static const Machine pc_smm = { "pc-smm", "pc", true, "" };
static const Machine q35_smm = { "q35-smm", "q35", true, "" };
static const Machine q35_vga = { "q35-smm-vga", "q35", true, "-device VGA" };

static const Machine *const machines[] = {
    &pc, &q35, &pc_smm, &q35_smm, &q35_vga,
};

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
        if (ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_VM_TYPES) &
            1 << KVM_X86_SW_PROTECTED_VM) {
            has |= NEED_PROTECTED;
        }
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
}

/* The policy of a guest_memfd is heeded since Linux 6.19. */
static bool kernel_heeds_policy(void)
{
    struct utsname name;
    int major = 0, minor = 0;

    g_assert_cmpint(uname(&name), ==, 0);
    g_assert_cmpint(sscanf(name.release, "%d.%d", &major, &minor), ==, 2);
    return major > 6 || (major == 6 && minor >= 19);
}

/* Virtual machines */

static char *machine_args(const Machine *m)
{
    return g_strdup_printf("-accel kvm -nodefaults -bios %s -machine %s,smm=%s"
                           " %s", bios, m->type, m->smm ? "on" : "off",
                           m->args);
}

/* @m with its memory in ram0 and the arguments @extra */
static QTestState *start(const Machine *m, const char *extra)
{
    g_autofree char *args = machine_args(m);

    return qtest_initf("%s -machine memory-backend=ram0 -m 64M "
                       "-object " TYPE ",id=ram0,size=64M %s", args, extra);
}

static void assert_fails(QDict *rsp, const char *expected)
{
    const char *desc;

    g_assert(qdict_haskey(rsp, "error"));
    desc = qdict_get_str(qdict_get_qdict(rsp, "error"), "desc");
    if (!strstr(desc, expected)) {
        g_error("expected an error with '%s', got: %s", expected, desc);
    }
    qobject_unref(rsp);
}

/* @props is JSON, with neither type nor ID */
static QDict *object_add(QTestState *qts, const char *id, const char *props)
{
    QDict *args = qobject_to(QDict, qobject_from_json(props, &error_abort));

    qdict_put_str(args, "qom-type", TYPE);
    qdict_put_str(args, "id", id);
    return qtest_qmp(qts, "{'execute': 'object-add', 'arguments': %p}", args);
}

static void object_add_ok(QTestState *qts, const char *id, const char *props)
{
    QDict *rsp = object_add(qts, id, props);

    if (!qdict_haskey(rsp, "return")) {
        g_error("%s: %s", props,
                qdict_get_str(qdict_get_qdict(rsp, "error"), "desc"));
    }
    qobject_unref(rsp);
}

static QDict *object_del(QTestState *qts, const char *id)
{
    return qtest_qmp(qts, "{'execute': 'object-del', 'arguments': "
                     "{'id': %s}}", id);
}

static void object_del_ok(QTestState *qts, const char *id)
{
    QDict *rsp = object_del(qts, id);

    g_assert(qdict_haskey(rsp, "return"));
    qobject_unref(rsp);
}

/* The element of a query's answer that has this ID; NULL if there is none */
static QDict *query_by_id(QTestState *qts, const char *query, const char *id)
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

static int count_fds(QTestState *qts)
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

/* RCU frees RAM blocks, and closes their files, a moment later. */
static void assert_fds(QTestState *qts, int expected)
{
    int ms;

    for (ms = 0; ms < WAIT_MS && count_fds(qts) != expected; ms += 10) {
        g_usleep(10 * 1000);
    }
    g_assert_cmpint(count_fds(qts), ==, expected);
}

/* Memory slots */

typedef struct Slot {
    uint64_t as, address, size, offset;
    char binding[16];
} Slot;

static GArray *query_slots(QTestState *qts, const char *id)
{
    QDict *info = query_by_id(qts, "query-guest-memfd", id);
    GArray *slots = g_array_new(false, true, sizeof(Slot));
    QListEntry *e;

    g_assert_nonnull(info);
    QLIST_FOREACH_ENTRY(qdict_get_qlist(info, "slots"), e) {
        QDict *s = qobject_to(QDict, qlist_entry_obj(e));
        Slot slot = {
            .as = qdict_get_int(s, "address-space"),
            .address = qdict_get_int(s, "address"),
            .size = qdict_get_int(s, "size"),
            .offset = qdict_get_int(s, "offset"),
        };

        pstrcpy(slot.binding, sizeof(slot.binding),
                qdict_get_str(s, "binding"));
        g_assert_cmpuint(slot.size, >, 0);
        g_assert_cmpuint(slot.offset + slot.size, <=,
                         qdict_get_int(info, "size"));
        g_array_append_val(slots, slot);
    }
    qobject_unref(info);
    return slots;
}

static bool slot_is(const Slot *slot, const char *binding)
{
    return !strcmp(slot->binding, binding);
}

/*
 * What is to be so at any time: in address space 0, of the slots that KVM can
 * bind, the largest are bound, then the lowest, and no part of the file twice.
 * In other address spaces none is.  KVM refuses nothing, but for @refused.
 */
static void check_slots(const GArray *slots, bool refused)
{
    int i, j;

    for (i = 0; i < slots->len; i++) {
        const Slot *a = &g_array_index(slots, Slot, i);
        bool beaten = false;

        g_assert(refused || !slot_is(a, "refused"));
        if (a->as != 0) {
            g_assert_false(slot_is(a, "bound"));
            continue;
        }
        for (j = 0; j < slots->len; j++) {
            const Slot *b = &g_array_index(slots, Slot, j);

            if (i == j || !slot_is(b, "bound") ||
                a->offset >= b->offset + b->size ||
                b->offset >= a->offset + a->size) {
                continue;
            }
            g_assert_false(slot_is(a, "bound"));
            beaten |= b->size > a->size ||
                      (b->size == a->size && b->address < a->address);
        }
        if (slot_is(a, "alias")) {
            g_assert_true(beaten);
        }
    }
}

static GArray *get_slots(QTestState *qts, const char *id)
{
    GArray *slots = query_slots(qts, id);

    check_slots(slots, false);
    return slots;
}

static gint compare_lines(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char **)a, *(const char **)b);
}

/* The slots of @id as text, to compare and to print */
static char *slots_text(QTestState *qts, const char *id)
{
    g_autoptr(GArray) slots = get_slots(qts, id);
    g_autoptr(GPtrArray) lines = g_ptr_array_new_with_free_func(g_free);
    int i;

    for (i = 0; i < slots->len; i++) {
        const Slot *s = &g_array_index(slots, Slot, i);

        g_ptr_array_add(lines, g_strdup_printf(
            "%" PRIu64 ":%010" PRIx64 "+%" PRIx64 "@%" PRIx64 "=%s",
            s->as, s->address, s->size, s->offset, s->binding));
    }
    g_ptr_array_sort(lines, compare_lines);
    g_ptr_array_add(lines, NULL);
    return g_strjoinv("\n", (char **)lines->pdata);
}

/* How @id is registered at a guest address; NULL if it is not. */
static const char *binding_at(QTestState *qts, const char *id, uint64_t as,
                              uint64_t address)
{
    g_autoptr(GArray) slots = get_slots(qts, id);
    int i;

    for (i = 0; i < slots->len; i++) {
        const Slot *s = &g_array_index(slots, Slot, i);

        if (s->as == as && address >= s->address &&
            address - s->address < s->size) {
            return g_intern_string(s->binding);
        }
    }
    return NULL;
}

/* Are all of an address space's slots like this, and is there one? */
static bool all_slots_are(const GArray *slots, uint64_t as, const char *binding)
{
    bool any = false;
    int i;

    for (i = 0; i < slots->len; i++) {
        const Slot *s = &g_array_index(slots, Slot, i);

        if (s->as != as) {
            continue;
        }
        if (!slot_is(s, binding)) {
            return false;
        }
        any = true;
    }
    return any;
}

static void assert_all_slots(QTestState *qts, const char *id, uint64_t as,
                             const char *binding)
{
    g_autoptr(GArray) slots = get_slots(qts, id);

    if (!all_slots_are(slots, as, binding)) {
        g_autofree char *text = slots_text(qts, id);

        g_error("not all slots of address space %" PRIu64 " are '%s':\n%s", as,
                binding, text);
    }
}

/* The object */

static void test_object(const void *opaque)
{
    QTestState *qts = start(&pc, "");
    QDict *info;
    int fds = count_fds(qts);

    object_add_ok(qts, "m", "{'size': 2097152}");
    g_assert_cmpint(count_fds(qts), ==, fds + 1);

    info = query_by_id(qts, "query-memdev", "m");
    g_assert_nonnull(info);
    g_assert_cmpint(qdict_get_int(info, "size"), ==, 2 * MiB);
    g_assert_true(qdict_get_bool(info, "share"));
    g_assert_false(qdict_get_bool(info, "merge"));
    g_assert_false(qdict_get_bool(info, "prealloc"));
    qobject_unref(info);

    info = query_by_id(qts, "query-guest-memfd", "m");
    g_assert_nonnull(info);
    g_assert_cmpint(qdict_get_int(info, "size"), ==, 2 * MiB);
    g_assert_true(qlist_empty(qdict_get_qlist(info, "slots")));
    qobject_unref(info);

    object_del_ok(qts, "m");
    g_assert_null(query_by_id(qts, "query-memdev", "m"));
    g_assert_null(query_by_id(qts, "query-guest-memfd", "m"));
    assert_fds(qts, fds);

    /* The one of the command line is the machine's. */
    assert_all_slots(qts, "ram0", 0, "bound");
    assert_fails(object_del(qts, "ram0"), "is in use");
    assert_all_slots(qts, "ram0", 0, "bound");
    qtest_quit(qts);
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

static void assert_allocated(QTestState *qts, const char *id, int64_t expected)
{
    int64_t allocated = query_allocated(qts, id);

    if (allocated < 0) {
        g_test_message("the kernel has no cachestat(): allocation of %s "
                       "not checked", id);
    } else {
        g_assert_cmpint(allocated, ==, expected);
    }
}

static void test_properties(const void *opaque)
{
    static const struct {
        const char *props, *name;
        bool value;
        int64_t allocated;
    } cases[] = {
        { "'share': true", "share", true },
        { "'merge': false", "merge", false },
        { "'dump': false", "dump", false },
        { "'dump': true", "dump", true },
        { "'reserve': false", "reserve", false },
        { "'reserve': true", "reserve", true },
        { "'prealloc': false", "prealloc", false },
        { "'prealloc': true", "prealloc", true, 2 * MiB },
        { "'prealloc': true, 'prealloc-threads': 4", "prealloc", true,
          2 * MiB },
    };
    QTestState *qts = start(&q35, "");
    int i;

    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *props = g_strdup_printf("{'size': 2097152, %s}",
                                                 cases[i].props);
        QDict *info;

        g_test_message("%s", props);
        object_add_ok(qts, "m", props);
        info = query_by_id(qts, "query-memdev", "m");
        g_assert_cmpint(qdict_get_bool(info, cases[i].name), ==,
                        cases[i].value);
        qobject_unref(info);
        assert_allocated(qts, "m", cases[i].allocated);
        object_del_ok(qts, "m");
    }

    object_add_ok(qts, "m", "{'size': 2097152}");
    assert_allocated(qts, "m", 0);
    qtest_qom_set_bool(qts, "/objects/m", "prealloc", true);
    assert_allocated(qts, "m", 2 * MiB);
    object_del_ok(qts, "m");
    qtest_quit(qts);
}

/* Pages of guest_memfd mappings on a host node, as the kernel counts them */
static uint64_t pages_on_node(QTestState *qts, int node)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/numa_maps",
                                            qtest_pid(qts));
    g_autofree char *key = g_strdup_printf(" N%d=", node);
    g_autofree char *maps = NULL;
    g_auto(GStrv) lines = NULL;
    uint64_t pages = 0;
    int i;

    g_assert_true(g_file_get_contents(path, &maps, NULL, NULL));
    lines = g_strsplit(maps, "\n", 0);
    for (i = 0; lines[i]; i++) {
        const char *n = strstr(lines[i], key);

        if (n && strstr(lines[i], "[kvm-gmem]")) {
            pages += g_ascii_strtoull(n + strlen(key), NULL, 10);
        }
    }
    return pages;
}

static void test_policy(const void *opaque)
{
    static const char props[] =
        "{'size': 2097152, 'policy': 'bind', 'host-nodes': [%d], "
        "'prealloc': true}";
    QTestState *qts = start(&pc, "");
    int last = opaque ? 1 : 0, node;

    for (node = 0; node <= last; node++) {
        g_autofree char *with_node = g_strdup_printf(props, node);
        QDict *info;
        QList *nodes;

        if (!kernel_heeds_policy()) {
            assert_fails(object_add(qts, "m", with_node), "Linux 6.19");
            continue;
        }
        object_add_ok(qts, "m", with_node);
        info = query_by_id(qts, "query-memdev", "m");
        g_assert_cmpstr(qdict_get_str(info, "policy"), ==, "bind");
        nodes = qdict_get_qlist(info, "host-nodes");
        g_assert_cmpint(qlist_size(nodes), ==, 1);
        g_assert_cmpint(qnum_get_int(qobject_to(QNum, qlist_peek(nodes))), ==,
                        node);
        qobject_unref(info);
        g_assert_cmpint(pages_on_node(qts, node), ==, 2 * MiB / 4096);
        g_assert_cmpint(pages_on_node(qts, !node), ==, 0);
        object_del_ok(qts, "m");
    }
    qtest_quit(qts);
}

static void test_numa(const void *opaque)
{
    const Machine *m = opaque;
    g_autofree char *args = machine_args(m);
    QTestState *qts;

    qts = qtest_initf("%s -m 64M -smp 2 "
                      "-object " TYPE ",id=n0,size=24M "
                      "-object " TYPE ",id=n1,size=40M "
                      "-numa node,memdev=n0,cpus=0 "
                      "-numa node,memdev=n1,cpus=1", args);
    assert_all_slots(qts, "n0", 0, "bound");
    assert_all_slots(qts, "n1", 0, "bound");
    g_assert_cmpstr(binding_at(qts, "n0", 0, 24 * MiB - 1), ==, "bound");
    g_assert_null(binding_at(qts, "n0", 0, 24 * MiB));
    g_assert_cmpstr(binding_at(qts, "n1", 0, 24 * MiB), ==, "bound");
    assert_fails(object_del(qts, "n1"), "is in use");
    qtest_writeq(qts, 24 * MiB - 4, 0x1122334455667788);
    g_assert_cmphex(qtest_readq(qts, 24 * MiB - 4), ==, 0x1122334455667788);
    qtest_quit(qts);
}

/* Refusals */

typedef struct Refusal {
    const char *name;
    const char *props;          /* JSON */
    const char *expected;
} Refusal;

static const Refusal refusals[] = {
    { "share", "{'size': 1048576, 'share': false}", "always shared with KVM" },
    { "merge", "{'size': 1048576, 'merge': true}", "cannot merge" },
    { "no-size", "{}", "'size'" },
    { "size-0", "{'size': 0}", "size" },
    { "unaligned", "{'size': 1048577}", "multiple of 4096" },
    { "too-much", "{'size': 1125899906842624, 'prealloc': true}",
      "but the host has" },
    { "nodes", "{'size': 1048576, 'host-nodes': [0]}", "host-nodes" },
    { "policy", "{'size': 1048576, 'policy': 'bind'}", "host-nodes" },
};

/* JSON to what a user types: "a=1,b=on" */
static char *props_to_option(const char *json)
{
    QDict *props = qobject_to(QDict, qobject_from_json(json, &error_abort));
    GString *s = g_string_new(TYPE ",id=m");
    const QDictEntry *e;

    for (e = qdict_first(props); e; e = qdict_next(props, e)) {
        const QObject *value = qdict_entry_value(e);
        QBool *b = qobject_to(QBool, value);
        QNum *n = qobject_to(QNum, value);
        QList *l = qobject_to(QList, value);

        n = l ? qobject_to(QNum, qlist_peek(l)) : n;
        g_string_append_printf(s, ",%s=", qdict_entry_key(e));
        if (b) {
            g_string_append(s, qbool_get_bool(b) ? "on" : "off");
        } else if (n) {
            g_string_append_printf(s, "%" PRId64, qnum_get_int(n));
        } else {
            g_string_append(s, qstring_get_str(qobject_to(QString, value)));
        }
    }
    qobject_unref(props);
    return g_string_free(s, false);
}

/* QEMU started with @option has to say @expected and to exit with status 1. */
static void assert_exits(const char *accel, const char *option,
                         const char *expected)
{
    /* Should it start after all, it is ended. */
    const char *argv[] = {
        "timeout", "600", qtest_qemu_binary(NULL), "-accel", accel, "-S",
        "-nodefaults", "-display", "none", "-machine", "pc", "-m", "16M",
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

static void test_refused(const void *opaque)
{
    const Refusal *r = opaque;
    g_autofree char *option = props_to_option(r->props);
    QTestState *qts;
    int i, fds;

    assert_exits("kvm", option, r->expected);

    qts = start(&pc, "");
    fds = count_fds(qts);
    for (i = 0; i < 100; i++) {
        assert_fails(object_add(qts, "m", r->props), r->expected);
    }
    assert_fds(qts, fds);
    object_add_ok(qts, "m", "{'size': 1048576}");
    object_del_ok(qts, "m");
    assert_fds(qts, fds);
    qtest_quit(qts);
}

static void test_refused_later(const void *opaque)
{
    QTestState *qts = start(&pc, "");

    assert_fails(qtest_qmp(qts, "{'execute': 'qom-set', 'arguments': "
                           "{'path': '/objects/ram0', 'property': 'merge', "
                           "'value': true}}"), "cannot merge");
    g_assert_false(qtest_qom_get_bool(qts, "/objects/ram0", "merge"));

    object_add_ok(qts, "m", "{'size': 17592186044416}");
    assert_fails(qtest_qmp(qts, "{'execute': 'qom-set', 'arguments': "
                           "{'path': '/objects/m', 'property': 'prealloc', "
                           "'value': true}}"), "but the host has");
    g_assert_false(qtest_qom_get_bool(qts, "/objects/m", "prealloc"));
    assert_allocated(qts, "m", 0);
    object_del_ok(qts, "m");
    qtest_quit(qts);
}

static void test_refused_tcg(const void *opaque)
{
    assert_exits("tcg", TYPE ",id=m,size=1M", "-accel kvm");
}

static void test_refused_old_kernel(const void *opaque)
{
    g_autofree char *args = machine_args(&pc);
    QTestState *qts;
    int i, fds;

    assert_exits("kvm", TYPE ",id=m,size=1M", "Linux 6.18");

    qts = qtest_initf("%s -m 16M", args);
    fds = count_fds(qts);
    for (i = 0; i < 100; i++) {
        assert_fails(object_add(qts, "m", "{'size': 1048576}"), "Linux 6.18");
    }
    assert_fds(qts, fds);
    /* What the message says to use instead */
    qtest_qmp_assert_success(qts, "{'execute': 'object-add', 'arguments': "
                             "{'qom-type': 'memory-backend-memfd', "
                             "'id': 'm', 'size': 1048576}}");
    qtest_quit(qts);
}

/* Slots */

static void config_write(QTestState *qts, uint8_t reg, uint8_t value)
{
    qtest_outl(qts, 0xcf8, 0x80000000 | (reg & ~3));
    qtest_outb(qts, 0xcfc + (reg & 3), value);
}

static int pam_base(const Machine *m)
{
    return g_str_equal(m->type, "pc") ? 0x59 : 0x90;
}

static void test_slots(const void *opaque)
{
    const Machine *m = opaque;
    QTestState *qts = start(m, "");
    g_autofree char *text = slots_text(qts, "ram0");

    assert_all_slots(qts, "ram0", 0, "bound");
    g_assert_cmpstr(binding_at(qts, "ram0", 0, 0), ==, "bound");
    g_assert_cmpstr(binding_at(qts, "ram0", 0, RAM_SIZE - 1), ==, "bound");
    g_assert_null(binding_at(qts, "ram0", 0, RAM_SIZE));
    if (m->smm) {
        assert_all_slots(qts, "ram0", 1, "alias");
    } else {
        g_assert_null(binding_at(qts, "ram0", 1, 0));
    }
    qtest_quit(qts);
}

static void test_reset(const void *opaque)
{
    QTestState *qts = start(opaque, "");
    g_autofree char *before = slots_text(qts, "ram0");
    int i;

    for (i = 0; i < 10; i++) {
        g_autofree char *after = NULL;

        qtest_system_reset(qts);
        after = slots_text(qts, "ram0");
        g_assert_cmpstr(after, ==, before);
    }
    qtest_quit(qts);
}

/*
 * QEMU gives KVM no read-only slot for a write-protected alias of RAM (0x11),
 * only for ROM: the shadow stays bound.
 */
static void test_pam(const void *opaque)
{
    static const struct {
        uint8_t value;
        const char *binding;
    } steps[] = {
        { 0x33, "bound" },
        { 0x11, "bound" },
        { 0x33, "bound" },
        { 0x00, NULL },
        { 0x11, "bound" },
        { 0x22, "bound" },
        { 0x11, "bound" },
        { 0x00, NULL },
    };
    const Machine *m = opaque;
    QTestState *qts = start(m, "");
    g_autofree char *before = slots_text(qts, "ram0");
    g_autofree char *after = NULL;
    int i;

    for (i = 0; i < ARRAY_SIZE(steps); i++) {
        /* PAM5: 16 KiB each from 0xe0000 and 0xe4000 */
        config_write(qts, pam_base(m) + 5, steps[i].value);
        g_assert_cmpstr(binding_at(qts, "ram0", 0, 0xe0000), ==,
                        steps[i].binding);
        g_assert_cmpstr(binding_at(qts, "ram0", 0, 0xe7fff), ==,
                        steps[i].binding);
        g_assert_cmpstr(binding_at(qts, "ram0", 0, 0xe8000), ==, NULL);
        g_assert_cmpstr(binding_at(qts, "ram0", 0, 0), ==, "bound");
        g_assert_cmpstr(binding_at(qts, "ram0", 0, 1 * MiB), ==, "bound");
    }
    after = slots_text(qts, "ram0");
    g_assert_cmpstr(after, ==, before);
    qtest_quit(qts);
}

#define SMRAM 0x9d
#define SMRAM_D_OPEN 0x40
#define SMRAM_G_SMRAME 0x08
#define ESMRAMC 0x9e
#define ESMRAMC_H_SMRAME 0x80
#define ESMRAMC_T_EN 0x01
#define HIGH_SMRAM 0xfeda0000

static void test_smram(const void *opaque)
{
    const Machine *m = opaque;
    bool vga = m == &q35_vga;
    QTestState *qts = start(m, "");
    g_autofree char *before = slots_text(qts, "ram0");
    g_autofree char *after = NULL;

    /* The VGA window covers 0xa0000: there is no RAM below the alias. */
    if (vga) {
        config_write(qts, 0x04, 0x00);
    }
    g_assert_null(binding_at(qts, "ram0", 0, HIGH_SMRAM));

    config_write(qts, ESMRAMC, ESMRAMC_H_SMRAME);
    config_write(qts, SMRAM, SMRAM_D_OPEN);
    g_assert_cmpstr(binding_at(qts, "ram0", 0, HIGH_SMRAM), ==,
                    vga ? "bound" : "alias");
    g_assert_cmpstr(binding_at(qts, "ram0", 0, 0), ==, "bound");
    g_assert_cmpstr(binding_at(qts, "ram0", 0, 0xa0000), ==,
                    vga ? NULL : "bound");

    /* Open at the low address, it is main memory again that gets bound. */
    config_write(qts, ESMRAMC, 0);
    g_assert_null(binding_at(qts, "ram0", 0, HIGH_SMRAM));
    g_assert_cmpstr(binding_at(qts, "ram0", 0, 0xa0000), ==, "bound");

    config_write(qts, ESMRAMC, ESMRAMC_H_SMRAME);
    config_write(qts, SMRAM, SMRAM_D_OPEN | SMRAM_G_SMRAME);
    g_assert_cmpstr(binding_at(qts, "ram0", 0, 0), ==, "bound");
    g_assert_cmpstr(binding_at(qts, "ram0", 1, HIGH_SMRAM), ==, "alias");

    qtest_system_reset(qts);
    after = slots_text(qts, "ram0");
    g_assert_cmpstr(after, ==, before);
    qtest_quit(qts);
}

/* glib prints the seed, and takes it by --seed. */
static void test_storm(const void *opaque)
{
    const Machine *m = opaque;
    QTestState *qts = start(m, "");
    g_autofree char *before = slots_text(qts, "ram0");
    g_autofree char *after = NULL;
    bool smram = m->smm && g_str_equal(m->type, "q35");
    int i;

    for (i = 0; i < 200; i++) {
        int what = g_test_rand_int_range(0, smram ? 9 : 7);
        int reg = what < 7 ? pam_base(m) + what : what == 7 ? SMRAM : ESMRAMC;
        /* But for SMRAM's lock, which only reset opens. */
        int value = g_test_rand_int_range(0, 256) & ~(what == 7 ? 0x10 : 0);

        config_write(qts, reg, value);
        g_array_unref(get_slots(qts, "ram0"));
        if (g_test_rand_int_range(0, 50) == 0) {
            qtest_system_reset(qts);
        }
    }
    /* QEMU's reset leaves the PAM registers to the firmware. */
    for (i = 0; i < 7; i++) {
        config_write(qts, pam_base(m) + i, 0);
    }
    qtest_system_reset(qts);
    after = slots_text(qts, "ram0");
    g_assert_cmpstr(after, ==, before);
    qtest_quit(qts);
}

/* Migration and dirty logging */

static char *query_status(QTestState *qts, const char *query)
{
    QDict *rsp = qtest_qmp_assert_success_ref(qts, "{'execute': %s}", query);
    char *status = g_strdup(qdict_get_try_str(rsp, "status"));

    qobject_unref(rsp);
    return status;
}

static void wait_status(QTestState *qts, const char *query,
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

/* Dirty logging ends a while after what it was for. */
static void wait_all_slots(QTestState *qts, const char *id, uint64_t as,
                           const char *binding, bool refused)
{
    int ms;

    for (ms = 0; ms < WAIT_MS; ms += 10) {
        g_autoptr(GArray) slots = query_slots(qts, id);

        check_slots(slots, refused);
        if (all_slots_are(slots, as, binding)) {
            return;
        }
        g_usleep(10 * 1000);
    }
    g_error("slots of address space %" PRIu64 " not '%s' after %d s", as,
            binding, WAIT_MS / 1000);
}

static void migrate(QTestState *qts, const char *uri)
{
    qtest_qmp_assert_success(qts, "{'execute': 'migrate', 'arguments': "
                             "{'uri': %s}}", uri);
}

/* A migration that goes on until it is cancelled */
/* The end of a migration's socket that nobody reads. */
static int unread = -1;

/* More than the socket takes: goes on until migrate_cancel(). */
static void migrate_endless(QTestState *qts)
{
    int fds[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
    unread = fds[0];
    qtest_qmp_fds_assert_success(qts, &fds[1], 1, "{'execute': 'getfd', "
                                 "'arguments': {'fdname': 'unread'}}");
    close(fds[1]);
    /* Pages that are not zero */
    qtest_memset(qts, 1 * MiB, 0x5a, 4 * MiB);
    migrate(qts, "fd:unread");
    wait_status(qts, "query-migrate", "active");
}

static void migrate_cancel(QTestState *qts)
{
    qtest_qmp_assert_success(qts, "{'execute': 'migrate_cancel'}");
    wait_status(qts, "query-migrate", "cancelled");
    close(unread);
}

static void test_dirty_log(const void *opaque)
{
    const Machine *m = opaque;
    QTestState *qts = start(m, "");
    g_autofree char *before = slots_text(qts, "ram0");
    int i;

    for (i = 0; i < 3; i++) {
        g_autofree char *after = NULL;

        migrate_endless(qts);
        assert_all_slots(qts, "ram0", 0, "dirty-log");
        if (m->smm) {
            assert_all_slots(qts, "ram0", 1, "dirty-log");
        }
        /* The map changes meanwhile. */
        config_write(qts, pam_base(m) + 5, 0x33);
        g_assert_cmpstr(binding_at(qts, "ram0", 0, 0xe0000), ==, "dirty-log");
        config_write(qts, pam_base(m) + 5, 0x11);
        g_assert_cmpstr(binding_at(qts, "ram0", 0, 0xe0000), ==, "dirty-log");
        config_write(qts, pam_base(m) + 5, 0);

        migrate_cancel(qts);
        wait_all_slots(qts, "ram0", 0, "bound", false);
        after = slots_text(qts, "ram0");
        g_assert_cmpstr(after, ==, before);
    }
    qtest_quit(qts);
}

static void test_dirty_rate(const void *opaque)
{
    QTestState *qts = start(opaque, "");

    qtest_qmp_assert_success(qts, "{'execute': 'calc-dirty-rate', "
                             "'arguments': {'calc-time': 1, "
                             "'mode': 'dirty-bitmap'}}");
    wait_status(qts, "query-dirty-rate", "measured");
    wait_all_slots(qts, "ram0", 0, "bound", false);

    /* Long enough to be seen while it lasts */
    qtest_qmp_assert_success(qts, "{'execute': 'calc-dirty-rate', "
                             "'arguments': {'calc-time': 60, "
                             "'mode': 'dirty-bitmap'}}");
    wait_all_slots(qts, "ram0", 0, "dirty-log", false);
    qtest_quit(qts);
}

static const struct {
    uint64_t address;
    size_t size;
} patterns[] = {
    { 0, 4096 },
    { 0x9fffc, 8 },
    { 1 * MiB, 64 * KiB },
    { 33 * MiB + 4093, 8 },
    { RAM_SIZE - 4096, 4096 },
};

static GByteArray *write_patterns(QTestState *qts)
{
    GByteArray *all = g_byte_array_new();
    int i, j;

    for (i = 0; i < ARRAY_SIZE(patterns); i++) {
        size_t at = all->len;

        for (j = 0; j < patterns[i].size; j++) {
            uint8_t byte = g_test_rand_int();

            g_byte_array_append(all, &byte, 1);
        }
        qtest_memwrite(qts, patterns[i].address, all->data + at,
                       patterns[i].size);
    }
    return all;
}

static void check_patterns(QTestState *qts, const GByteArray *all)
{
    size_t at = 0;
    int i;

    for (i = 0; i < ARRAY_SIZE(patterns); i++) {
        g_autofree uint8_t *data = g_malloc(patterns[i].size);

        qtest_memread(qts, patterns[i].address, data, patterns[i].size);
        g_assert_cmpmem(data, patterns[i].size, all->data + at,
                        patterns[i].size);
        at += patterns[i].size;
    }
}

typedef struct Migration {
    const char *name;
    const Machine *machine;
    const char *transport;
    const char *from, *to;      /* types of memory backend */
} Migration;

static const Migration migrations[] = {
    { "unix", &q35, "unix", TYPE, TYPE },
    { "unix-smm", &q35_smm, "unix", TYPE, TYPE },
    { "file", &pc, "file", TYPE, TYPE },
    { "to-memfd", &pc, "unix", TYPE, "memory-backend-memfd" },
    { "from-memfd", &pc, "unix", "memory-backend-memfd", TYPE },
};

static void test_migration(const void *opaque)
{
    const Migration *mig = opaque;
    g_autofree char *args = machine_args(mig->machine);
    g_autofree char *uri = g_strdup_printf("%s:%s/migration", mig->transport,
                                           tmpdir);
    g_autofree char *path = g_strdup_printf("%s/migration", tmpdir);
    static const char start_fmt[] =
        "%s -machine memory-backend=ram0 -m 64M -object %s,id=ram0,size=64M %s";
    g_autofree char *from_args = g_strdup_printf(start_fmt, args, mig->from,
                                                 "");
    g_autofree char *to_args = g_strdup_printf(start_fmt, args, mig->to,
                                               "-incoming defer");
    QTestState *from = qtest_init(from_args);
    QTestState *to = NULL;
    GByteArray *data = write_patterns(from);
    bool file = g_str_equal(mig->transport, "file");

    if (!file) {
        to = qtest_init(to_args);
        qtest_qmp_assert_success(to, "{'execute': 'migrate-incoming', "
                                 "'arguments': {'uri': %s}}", uri);
    }
    qtest_qmp_assert_success(from, "{'execute': 'migrate-set-parameters', "
                             "'arguments': {'max-bandwidth': 0}}");
    migrate(from, uri);
    wait_status(from, "query-migrate", "completed");
    if (file) {
        to = qtest_init(to_args);
        qtest_qmp_assert_success(to, "{'execute': 'migrate-incoming', "
                                 "'arguments': {'uri': %s}}", uri);
    }
    wait_status(to, "query-migrate", "completed");
    wait_status(to, "query-status", "running");

    check_patterns(to, data);
    if (g_str_equal(mig->to, TYPE)) {
        wait_all_slots(to, "ram0", 0, "bound", false);
    }

    /* The source is still there, and can go on. */
    check_patterns(from, data);
    if (g_str_equal(mig->from, TYPE)) {
        assert_all_slots(from, "ram0", 0, "dirty-log");
        qtest_qmp_assert_success(from, "{'execute': 'cont'}");
        wait_all_slots(from, "ram0", 0, "bound", false);
        check_patterns(from, data);
    }
    unlink(path);
    g_byte_array_unref(data);
    qtest_quit(from);
    qtest_quit(to);
}

static QDict *set_capability(QTestState *qts, const char *name)
{
    return qtest_qmp(qts, "{'execute': 'migrate-set-capabilities', "
                     "'arguments': {'capabilities': [{'capability': %s, "
                     "'state': true}]}}", name);
}

/* Memory that the guest has not touched */

#define MEMFD "memory-backend-memfd"

/* Bytes of host memory that ram0 has */
static uint64_t ram_allocated(QTestState *qts)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fd", qtest_pid(qts));
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    QDict *info = query_by_id(qts, "query-guest-memfd", "ram0");
    uint64_t size = info ? qdict_get_int(info, "allocated") : 0;
    const char *name;

    qobject_unref(info);
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *link = g_strdup_printf("%s/%s", path, name);
        g_autofree char *to = g_file_read_link(link, NULL);
        struct stat st;

        if (to && g_str_has_prefix(to, "/memfd:memory-backend-") &&
            !stat(link, &st)) {
            size += st.st_blocks * 512;
        }
    }
    g_assert_cmpuint(size, >, 0);
    return size;
}

static void assert_untouched(QTestState *qts, uint64_t before)
{
    g_assert_cmpuint(ram_allocated(qts) * 100, <=, before * 105);
}

typedef struct Untouched {
    const char *name;
    const char *backend;
    const char *capabilities[3];        /* of the migration */
    const char *detection;              /* of zero pages */
    bool protected;                     /* shared memory is a memfd */
} Untouched;

static const Untouched untouched_dumps[] = {
    { "guest-memfd", TYPE },
    { "memfd", MEMFD },
    { "protected", TYPE, .protected = true },
};

static const Untouched untouched_migrations[] = {
    { "guest-memfd/precopy", TYPE },
    { "guest-memfd/multifd", TYPE, { "multifd" } },
    { "guest-memfd/multifd-legacy", TYPE, { "multifd" }, "legacy" },
    { "guest-memfd/mapped-ram", TYPE, { "mapped-ram" } },
    { "protected/precopy", TYPE, .protected = true },
    { "memfd/precopy", MEMFD },
    { "memfd/multifd", MEMFD, { "multifd" } },
};

static QTestState *start_untouched(const Untouched *u, const char *extra)
{
    /* memfd takes any accelerator. */
    return qtest_initf("-accel kvm -accel tcg -nodefaults -bios %s "
                       "-machine pc,memory-backend=ram0%s -m 64M "
                       "-object %s,id=ram0,size=64M %s", bios, u->protected ?
                       ",confidential-guest-support=cgs0 "
                       "-object sw-protected-guest,id=cgs0" : "", u->backend,
                       extra);
}

static unsigned need_of_untouched(const Untouched *u)
{
    return NEED_CACHESTAT | (u->protected ? NEED_PROTECTED :
                             g_str_equal(u->backend, TYPE) ? NEED_GMEM : 0);
}

/* Where pairs of pages are, with holes around them; the patterns besides */
#define SPARSE_FIRST (4 * MiB)
#define SPARSE_END (28 * MiB)
#define SPARSE_STEP (252 * KiB)

static GByteArray *write_sparsely(QTestState *qts)
{
    uint64_t at;

    for (at = SPARSE_FIRST; at < SPARSE_END; at += SPARSE_STEP) {
        qtest_memset(qts, at, 0x5a, 2 * 4096);
    }
    return write_patterns(qts);
}

static void check_sparsely(QTestState *qts, const GByteArray *data)
{
    uint8_t memory[4 * 4096];
    uint64_t at;
    int i;

    for (at = SPARSE_FIRST; at < SPARSE_END; at += SPARSE_STEP) {
        qtest_bufread(qts, at - 4096, memory, sizeof(memory));
        for (i = 0; i < sizeof(memory); i++) {
            g_assert_cmphex(memory[i], ==,
                            i >= 4096 && i < 3 * 4096 ? 0x5a : 0);
        }
    }
    check_patterns(qts, data);
}

static void set_capabilities(QTestState *qts, const Untouched *u)
{
    int i;

    for (i = 0; u->capabilities[i]; i++) {
        qtest_qmp_assert_success(qts, "{'execute': 'migrate-set-capabilities', "
                                 "'arguments': {'capabilities': ["
                                 "{'capability': %s, 'state': true}]}}",
                                 u->capabilities[i]);
    }
}

static void test_untouched_migration(const void *opaque)
{
    const Untouched *u = opaque;
    bool file = !g_strcmp0(u->capabilities[0], "mapped-ram");
    g_autofree char *path = g_strdup_printf("%s/migration", tmpdir);
    g_autofree char *uri = g_strdup_printf("%s:%s", file ? "file" : "unix",
                                           path);
    QTestState *from = start_untouched(u, ""), *to;
    GByteArray *data = write_sparsely(from);
    uint64_t before = ram_allocated(from);

    set_capabilities(from, u);
    qtest_qmp_assert_success(from, "{'execute': 'migrate-set-parameters', "
                             "'arguments': {'max-bandwidth': 0, "
                             "'zero-page-detection': %s}}",
                             u->detection ?: "multifd");
    if (file) {
        migrate(from, uri);
        wait_status(from, "query-migrate", "completed");
    }
    to = start_untouched(u, "-incoming defer");
    set_capabilities(to, u);
    qtest_qmp_assert_success(to, "{'execute': 'migrate-incoming', "
                             "'arguments': {'uri': %s}}", uri);
    if (!file) {
        migrate(from, uri);
        wait_status(from, "query-migrate", "completed");
    }
    wait_status(to, "query-migrate", "completed");
    wait_status(to, "query-status", "running");

    assert_untouched(from, before);
    assert_untouched(to, before);
    check_sparsely(to, data);
    /* That has read holes: they are gone. */
    g_assert_cmpuint(ram_allocated(to) * 100, >, before * 105);

    unlink(path);
    g_byte_array_unref(data);
    qtest_quit(from);
    qtest_quit(to);
}

static void test_untouched_dump(const void *opaque)
{
    static const char *const formats[] = { "elf", "kdump-zlib" };
    const Untouched *u = opaque;
    QTestState *qts = start_untouched(u, "");
    GByteArray *data = write_sparsely(qts);
    uint64_t before = ram_allocated(qts);
    g_autofree char *path = g_strdup_printf("%s/dump", tmpdir);
    g_autofree char *protocol = g_strdup_printf("file:%s", path);
    g_autofree char *memory = NULL;
    gsize len;
    int i;

    for (i = 0; i < ARRAY_SIZE(formats); i++) {
        qtest_qmp_assert_success(qts, "{'execute': 'dump-guest-memory', "
                                 "'arguments': {'paging': false, "
                                 "'protocol': %s, 'format': %s}}",
                                 protocol, formats[i]);
        assert_untouched(qts, before);
    }
    qtest_qmp_assert_success(qts, "{'execute': 'pmemsave', 'arguments': "
                             "{'val': %d, 'size': %d, 'filename': %s}}",
                             (int)MiB + 1, (int)(RAM_SIZE - MiB - 1), path);
    assert_untouched(qts, before);
    g_assert(g_file_get_contents(path, &memory, &len, NULL));
    g_assert_cmpuint(len, ==, RAM_SIZE - MiB - 1);
    for (i = 0; i < 2 * 4096; i++) {
        g_assert_cmphex(memory[SPARSE_FIRST - 4096 - (MiB + 1) + i], ==,
                        i < 4096 ? 0 : 0x5a);
    }
    check_sparsely(qts, data);
    unlink(path);
    g_byte_array_unref(data);
    qtest_quit(qts);
}

static void test_postcopy(const void *opaque)
{
    QTestState *from = start(&pc, ""), *to = start(&pc, "-incoming defer");
    g_autofree char *path = g_strdup_printf("%s/migration", tmpdir);
    g_autofree char *uri = g_strdup_printf("unix:%s", path);
    GByteArray *data = write_patterns(from);
    QDict *rsp;

    assert_fails(set_capability(to, "postcopy-ram"),
                 "userfaultfd has no support for guest_memfd");

    /* The source cannot know: the other side might have other memory. */
    rsp = set_capability(from, "postcopy-ram");
    g_assert(qdict_haskey(rsp, "return"));
    qobject_unref(rsp);
    qtest_qmp_assert_success(to, "{'execute': 'migrate-incoming', "
                             "'arguments': {'uri': %s, "
                             "'exit-on-error': false}}", uri);
    migrate(from, uri);
    wait_status(to, "query-migrate", "failed");
    wait_status(from, "query-migrate", "failed");
    wait_status(from, "query-status", "running");
    wait_all_slots(from, "ram0", 0, "bound", false);
    check_patterns(from, data);
    g_byte_array_unref(data);
    qtest_quit(from);
    qtest_quit(to);
    unlink(path);
}

static void test_cpr(const void *opaque)
{
    QTestState *qts = start(&pc, "-machine aux-ram-share=on");
    static const char expected[] = "is a guest_memfd";

    qtest_qmp_assert_success(qts, "{'execute': 'migrate-set-parameters', "
                             "'arguments': {'mode': 'cpr-transfer'}}");
    assert_fails(qtest_qmp(qts,
        "{'execute': 'migrate', 'arguments': {'channels': ["
        "{'channel-type': 'main', 'addr': {'transport': 'socket', "
        "'type': 'unix', 'path': '/nonexistent/main'}}, "
        "{'channel-type': 'cpr', 'addr': {'transport': 'socket', "
        "'type': 'unix', 'path': '/nonexistent/cpr'}}]}}"), expected);

    qtest_qmp_assert_success(qts, "{'execute': 'migrate-set-parameters', "
                             "'arguments': {'mode': 'cpr-exec', "
                             "'cpr-exec-command': ['/bin/false']}}");
    assert_fails(qtest_qmp(qts, "{'execute': 'migrate', 'arguments': "
                           "{'uri': 'file:/dev/null'}}"), expected);

    /* Normal migration works on.  QEMU does not free the command at exit. */
    qtest_qmp_assert_success(qts, "{'execute': 'migrate-set-parameters', "
                             "'arguments': {'mode': 'normal', "
                             "'cpr-exec-command': []}}");
    migrate(qts, "exec:cat >/dev/null");
    wait_status(qts, "query-migrate", "completed");
    qtest_quit(qts);
}

/* Memory that no other process can have would be lost in an exec, unnoticed. */
static void test_cpr_unshared(const void *opaque)
{
    g_autofree char *args = machine_args(opaque);
    QTestState *qts = qtest_initf("%s -m 64M", args);

    qtest_qmp_assert_success(qts, "{'execute': 'migrate-set-parameters', "
                             "'arguments': {'mode': 'cpr-exec', "
                             "'cpr-exec-command': ['/bin/false']}}");
    assert_fails(qtest_qmp(qts, "{'execute': 'migrate', 'arguments': "
                           "{'uri': 'file:/dev/null'}}"),
                 "is not compatible with CPR");
    qtest_qmp_assert_success(qts, "{'execute': 'migrate-set-parameters', "
                             "'arguments': {'cpr-exec-command': []}}");
    qtest_quit(qts);
}

static void test_background_snapshot(const void *opaque)
{
    QTestState *qts = start(&pc, "");

    assert_fails(set_capability(qts, "background-snapshot"),
                 "Background-snapshot is not compatible");
    qtest_quit(qts);
}

/* Hot-plug */

static QDict *add_dimm(QTestState *qts, const char *id, const char *memdev,
                       uint64_t address)
{
    return qtest_qmp(qts, "{'execute': 'device_add', 'arguments': "
                     "{'driver': 'pc-dimm', 'id': %s, 'memdev': %s, "
                     "'addr': %" PRIu64 "}}", id, memdev, address);
}

static void test_dimm(const void *opaque)
{
    QTestState *qts = start(opaque, "-m 64M,slots=4,maxmem=2G");
    const uint64_t base = 4 * GiB;
    g_autofree char *before = slots_text(qts, "ram0");
    g_autofree char *after = NULL;
    g_autoptr(GArray) slots = NULL;
    QDict *rsp;
    Slot *slot;

    object_add_ok(qts, "m", "{'size': 134217728}");
    assert_fails(add_dimm(qts, "d0", "m", 1 * TiB),
                 "usable range");
    assert_fails(add_dimm(qts, "d0", "m", base + 100), "align");
    slots = get_slots(qts, "m");
    g_assert_cmpint(slots->len, ==, 0);
    object_del_ok(qts, "m");

    object_add_ok(qts, "m", "{'size': 134217728}");
    rsp = add_dimm(qts, "d0", "m", base + 128 * MiB);
    g_assert(qdict_haskey(rsp, "return"));
    qobject_unref(rsp);
    assert_all_slots(qts, "m", 0, "bound");
    g_array_unref(slots);
    slots = get_slots(qts, "m");
    slot = &g_array_index(slots, Slot, 0);
    g_assert_cmphex(slot->address, ==, base + 128 * MiB);
    g_assert_cmphex(slot->size, ==, 128 * MiB);
    g_assert_cmphex(slot->offset, ==, 0);

    qtest_writeq(qts, slot->address + 0x12340, 0x1122334455667788);
    g_assert_cmphex(qtest_readq(qts, slot->address + 0x12340), ==,
                    0x1122334455667788);
    assert_fails(object_del(qts, "m"), "is in use");
    assert_fails(add_dimm(qts, "d1", "m", base), "busy");

    qtest_system_reset(qts);
    assert_all_slots(qts, "m", 0, "bound");
    after = slots_text(qts, "ram0");
    g_assert_cmpstr(after, ==, before);
    qtest_quit(qts);
}

static void test_virtio_mem(const void *opaque)
{
    bool dynamic = opaque != NULL;
    g_autofree char *extra = g_strdup_printf(
        "-m 64M,maxmem=2G -object " TYPE ",id=m,size=256M "
        "-device virtio-mem-pci,memdev=m,requested-size=128M,id=v%s",
        dynamic ? ",dynamic-memslots=on" : "");
    QTestState *qts = start(&pc, extra);

    if (dynamic) {
        /* Nothing is plugged without a driver in the guest. */
        g_autoptr(GArray) slots = get_slots(qts, "m");

        g_assert_cmpint(slots->len, ==, 0);
    } else {
        assert_all_slots(qts, "m", 0, "bound");
    }
    assert_allocated(qts, "m", 0);
    assert_fails(object_del(qts, "m"), "is in use");
    qtest_system_reset(qts);
    qtest_quit(qts);
}

/* Faults */

static char *fault_file;

static void fault_arm(const char *op, int error, int nth)
{
    g_autofree char *text = g_strdup_printf("%s %d %d", op, error, nth);

    g_assert_true(g_file_set_contents(fault_file, text, -1, NULL));
}

static void fault_disarm(void)
{
    unlink(fault_file);
}

/* From here to fault_end(), QEMU is started with the library. */
static void fault_begin(void)
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

static void fault_end(void)
{
    g_unsetenv("LD_PRELOAD");
    g_unsetenv("GUEST_MEMFD_FAULT");
    fault_disarm();
}

/*
 * A query that does not look at each page of 512 GiB: mincore() does, and here
 * fails.  The map shows that nothing is allocated.
 */
static void test_info_large(const void *opaque)
{
    g_autofree char *text = NULL, *empty = g_strnfill(64, '.');
    QTestState *qts;
    uint64_t line;
    char *map;

    fault_begin();
    qts = start(&pc, "");
    fault_end();
    qtest_memset(qts, 2 * MiB, 0x5a, 64 * KiB);
    object_add_ok(qts, "m", "{'size': 549755813888}");
    fault_arm("mincore", ENOMEM, 0);
    text = qtest_hmp(qts, "info guest-memfd");
    fault_disarm();

    g_assert_nonnull(strstr(text, "ram0: shared, 64 MiB"));
    /* 64 KiB a character */
    map = strstr(text, "  000000000000 ");
    g_assert_nonnull(map);
    g_assert_true(g_str_has_prefix(map + 15 + 31, ".s."));
    map = strstr(text, "m: shared, 512 GiB, guest_memfd has 0 B, 0 of 0 ");
    g_assert_nonnull(map);
    g_assert_nonnull(strstr(map, "map, 512 MiB a character"));
    for (line = 0; line < 512 * GiB; line += 32 * GiB) {
        g_autofree char *row = g_strdup_printf("  %012" PRIx64 " %s", line,
                                               empty);

        g_assert_nonnull(strstr(map, row));
    }
    qtest_quit(qts);
}

/* A backend is made and deleted while another monitor asks for it. */
static void test_query_deleted(const void *opaque)
{
    g_autofree char *path = g_strdup_printf("%s/qmp", tmpdir);
    g_autofree char *args = g_strdup_printf("-qmp unix:%s,server=on,wait=off",
                                            path);
    QTestState *qts = start(&pc, args);
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int qmp = socket(AF_UNIX, SOCK_STREAM, 0);
    int i, fds;

    pstrcpy(address.sun_path, sizeof(address.sun_path), path);
    g_assert_cmpint(connect(qmp, (struct sockaddr *)&address,
                            sizeof(address)), ==, 0);
    qobject_unref(qmp_fd_receive(qmp));
    qobject_unref(qmp_fd(qmp, "{'execute': 'qmp_capabilities'}"));
    fds = count_fds(qts);
    for (i = 0; i < 20; i++) {
        QDict *rsp;

        qmp_fd_send(qmp, "{'execute': 'query-guest-memfd'}");
        object_add_ok(qts, "m", "{'size': 16777216, 'prealloc': true}");
        rsp = qmp_fd_receive(qmp);
        g_assert(qdict_haskey(rsp, "return"));
        qobject_unref(rsp);
        qmp_fd_send(qmp, "{'execute': 'query-guest-memfd'}");
        object_del_ok(qts, "m");
        rsp = qmp_fd_receive(qmp);
        g_assert(qdict_haskey(rsp, "return"));
        qobject_unref(rsp);
    }
    assert_fds(qts, fds);
    close(qmp);
    unlink(path);
    qtest_quit(qts);
}

static void test_fault_create(const void *opaque)
{
    const char *op = opaque;
    QTestState *qts;
    int i, fds;

    fault_begin();
    fault_arm(op, ENOMEM, 0);
    assert_exits("kvm", TYPE ",id=m,size=1M", "1048576 bytes");
    fault_disarm();

    qts = start(&pc, "");
    fault_end();
    fds = count_fds(qts);
    fault_arm(op, ENOMEM, 0);
    for (i = 0; i < 100; i++) {
        assert_fails(object_add(qts, "m", "{'size': 1048576}"),
                     "1048576 bytes");
    }
    assert_fds(qts, fds);
    fault_disarm();
    object_add_ok(qts, "m", "{'size': 1048576}");
    object_del_ok(qts, "m");
    assert_fds(qts, fds);
    qtest_quit(qts);
}

static void test_fault_bind_first(const void *opaque)
{
    const Machine *m = opaque;
    GByteArray *data;
    QTestState *qts;

    fault_begin();
    fault_arm("bind", ENOMEM, 0);
    qts = start(m, "");
    wait_all_slots(qts, "ram0", 0, "refused", true);
    data = write_patterns(qts);

    /* KVM would now do it, but is not asked over and over. */
    fault_disarm();
    config_write(qts, pam_base(m) + 6, 0x33);
    config_write(qts, pam_base(m) + 6, 0);
    wait_all_slots(qts, "ram0", 0, "refused", true);

    /* It is when dirty logging ends. */
    migrate_endless(qts);
    migrate_cancel(qts);
    wait_all_slots(qts, "ram0", 0, "bound", false);
    g_byte_array_unref(data);
    fault_end();
    qtest_quit(qts);
}

static void test_fault_bind_again(const void *opaque)
{
    GByteArray *data;
    QTestState *qts;

    fault_begin();
    qts = start(opaque, "");
    fault_end();
    assert_all_slots(qts, "ram0", 0, "bound");

    migrate_endless(qts);
    data = write_patterns(qts);
    fault_arm("bind", EINTR, 0);
    migrate_cancel(qts);
    wait_all_slots(qts, "ram0", 0, "refused", true);
    check_patterns(qts, data);

    /* A VM like this can still be migrated, and is bound in the end. */
    migrate_endless(qts);
    assert_all_slots(qts, "ram0", 0, "dirty-log");
    fault_disarm();
    migrate_cancel(qts);
    wait_all_slots(qts, "ram0", 0, "bound", false);
    g_byte_array_unref(data);
    qtest_quit(qts);
}

/* Only one slot is refused; the others are bound. */
static void test_fault_bind_nth(const void *opaque)
{
    QTestState *qts;
    int i, nth;

    for (nth = 1; nth <= 2; nth++) {
        g_autoptr(GArray) slots = NULL;
        int refused = 0, bound = 0;

        fault_begin();
        qts = start(opaque, "");
        fault_end();
        migrate_endless(qts);
        fault_arm("bind", ENOSPC, nth);
        migrate_cancel(qts);
        do {
            g_usleep(10 * 1000);
            g_clear_pointer(&slots, g_array_unref);
            slots = query_slots(qts, "ram0");
            check_slots(slots, true);
        } while (slot_is(&g_array_index(slots, Slot, 0), "dirty-log"));
        for (i = 0; i < slots->len; i++) {
            refused += slot_is(&g_array_index(slots, Slot, i), "refused");
            bound += slot_is(&g_array_index(slots, Slot, i), "bound");
        }
        g_assert_cmpint(refused, ==, 1);
        g_assert_cmpint(bound, ==, slots->len - 1);
        g_assert_cmpint(bound, >=, 1);
        fault_disarm();
        qtest_quit(qts);
    }
}

static void lose_slots(QTestState *qts)
{
    fault_arm("slot", ENOMEM, 0);
    qtest_qmp_assert_success(qts, "{'execute': 'calc-dirty-rate', "
                             "'arguments': {'calc-time': 1, "
                             "'mode': 'dirty-bitmap'}}");
    wait_all_slots(qts, "ram0", 0, "lost", false);
    wait_status(qts, "query-status", "internal-error");
    wait_status(qts, "query-dirty-rate", "measured");
}

/* KVM takes none of the slots back: the VM stops, and reset mends it. */
static void test_fault_slot(const void *opaque)
{
    const Machine *m = opaque;
    QTestState *qts;
    QDict *rsp;

    fault_begin();
    qts = start(m, "");
    fault_end();
    qtest_qmp_assert_success(qts, "{'execute': 'cont'}");

    lose_slots(qts);
    rsp = qtest_qmp(qts, "{'execute': 'cont'}");
    assert_fails(rsp, "Resetting the Virtual Machine is required");
    qtest_system_reset_nowait(qts);
    qtest_qmp_eventwait(qts, "RESET");
    wait_all_slots(qts, "ram0", 0, "lost", true);
    wait_status(qts, "query-status", "internal-error");

    /* What stops the dirty log waits until the VM runs. */
    fault_disarm();
    qtest_system_reset(qts);
    wait_all_slots(qts, "ram0", 0, "dirty-log", false);
    wait_status(qts, "query-status", "prelaunch");
    qtest_qmp_assert_success(qts, "{'execute': 'cont'}");
    wait_status(qts, "query-status", "running");
    wait_all_slots(qts, "ram0", 0, "bound", false);

    /* A lost slot goes as any other one, when the memory map changes. */
    lose_slots(qts);
    fault_disarm();
    config_write(qts, pam_base(m) + 6, 0x33);
    qtest_system_reset(qts);
    qtest_qmp_assert_success(qts, "{'execute': 'cont'}");
    wait_status(qts, "query-status", "running");
    wait_all_slots(qts, "ram0", 0, "bound", false);
    qtest_quit(qts);
}

/* A migration of a VM that has lost its slots, and one that begins then */
static void test_fault_slot_migration(const void *opaque)
{
    QTestState *qts;

    fault_begin();
    qts = start(opaque, "");
    fault_end();
    qtest_qmp_assert_success(qts, "{'execute': 'cont'}");
    migrate_endless(qts);
    fault_arm("slot", ENOMEM, 0);
    migrate_cancel(qts);
    wait_all_slots(qts, "ram0", 0, "lost", false);
    wait_status(qts, "query-status", "internal-error");
    migrate_endless(qts);
    wait_all_slots(qts, "ram0", 0, "lost", true);
    fault_disarm();
    qtest_system_reset(qts);
    wait_all_slots(qts, "ram0", 0, "dirty-log", true);
    migrate_cancel(qts);
    qtest_qmp_assert_success(qts, "{'execute': 'cont'}");
    wait_all_slots(qts, "ram0", 0, "bound", false);
    qtest_quit(qts);
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

static void add_test(const char *path, const char *variant,
                     void (*run)(const void *opaque), const void *opaque,
                     unsigned need)
{
    g_autofree char *full = g_strdup_printf("/guest-memfd/%s%s%s", path,
                                            variant ? "/" : "", variant ?: "");
    Test *test = g_new(Test, 1);

    *test = (Test) { run, opaque, need };
    qtest_add_data_func_full(full, test, run_test, g_free);
}

/* A test of the machine @m */
static void add_machine_test(const char *path, void (*run)(const void *opaque),
                             const Machine *m)
{
    add_test(path, m->name, run, m, NEED_GMEM | (m->smm ? NEED_SMM : 0));
}

int main(int argc, char **argv)
{
    g_autofree char *hlt = g_malloc(BIOS_SIZE);
    int i, ret;

    g_test_init(&argc, &argv, NULL);
    probe();
    tmpdir = g_dir_make_tmp("guest-memfd-XXXXXX", NULL);
    g_assert_nonnull(tmpdir);
    bios = g_build_filename(tmpdir, "hlt.bin", NULL);
    fault_file = g_build_filename(tmpdir, "fault", NULL);
    memset(hlt, 0xf4, BIOS_SIZE);
    g_assert_true(g_file_set_contents(bios, hlt, BIOS_SIZE, NULL));

    add_test("object", NULL, test_object, NULL, NEED_GMEM);
    add_test("properties", NULL, test_properties, NULL, NEED_GMEM);
    add_test("policy", "one-node", test_policy, NULL, NEED_GMEM);
    add_test("policy", "two-nodes", test_policy, "", NEED_GMEM | NEED_NODES);
    add_machine_test("numa", test_numa, &pc);
    add_machine_test("numa", test_numa, &q35_smm);

    for (i = 0; i < ARRAY_SIZE(refusals); i++) {
        add_test("refused", refusals[i].name, test_refused, &refusals[i],
                 NEED_GMEM);
    }
    add_test("refused/later", NULL, test_refused_later, NULL, NEED_GMEM);
    add_test("refused/tcg", NULL, test_refused_tcg, NULL, NEED_KVM);
    add_test("refused/old-kernel", NULL, test_refused_old_kernel, NULL,
             NEED_NO_GMEM);

    for (i = 0; i < ARRAY_SIZE(machines); i++) {
        add_machine_test("slots", test_slots, machines[i]);
        add_machine_test("reset", test_reset, machines[i]);
        add_machine_test("pam", test_pam, machines[i]);
        add_machine_test("storm", test_storm, machines[i]);
        add_machine_test("dirty-log", test_dirty_log, machines[i]);
    }
    add_machine_test("smram", test_smram, &q35_smm);
    add_machine_test("smram", test_smram, &q35_vga);

    add_machine_test("dirty-rate", test_dirty_rate, &pc);
    for (i = 0; i < ARRAY_SIZE(migrations); i++) {
        add_test("migration", migrations[i].name, test_migration,
                 &migrations[i],
                 NEED_GMEM | (migrations[i].machine->smm ? NEED_SMM : 0));
    }
    add_test("migration/postcopy", NULL, test_postcopy, NULL,
             NEED_GMEM | NEED_UFFD);
    add_test("migration/cpr", NULL, test_cpr, NULL, NEED_GMEM);
    add_test("migration/cpr-unshared", NULL, test_cpr_unshared, &pc, NEED_KVM);
    add_test("migration/background-snapshot", NULL, test_background_snapshot,
             NULL, NEED_GMEM | NEED_UFFD);

    for (i = 0; i < ARRAY_SIZE(untouched_migrations); i++) {
        const Untouched *u = &untouched_migrations[i];

        add_test("untouched/migration", u->name, test_untouched_migration, u,
                 need_of_untouched(u));
    }
    for (i = 0; i < ARRAY_SIZE(untouched_dumps); i++) {
        const Untouched *u = &untouched_dumps[i];

        add_test("untouched/dump", u->name, test_untouched_dump, u,
                 need_of_untouched(u));
    }

    add_machine_test("dimm", test_dimm, &pc);
    add_machine_test("dimm", test_dimm, &q35_smm);
    add_test("virtio-mem", "static", test_virtio_mem, NULL, NEED_GMEM);
    add_test("virtio-mem", "dynamic", test_virtio_mem, "", NEED_GMEM);

    add_test("query", "large", test_info_large, NULL, NEED_GMEM);
    add_test("query", "deleted", test_query_deleted, NULL, NEED_GMEM);

    add_test("fault", "create", test_fault_create, "create", NEED_GMEM);
    add_test("fault", "mmap", test_fault_create, "mmap", NEED_GMEM);
    add_machine_test("fault/bind-first", test_fault_bind_first, &pc);
    add_machine_test("fault/bind-first", test_fault_bind_first, &q35_smm);
    add_machine_test("fault/bind-again", test_fault_bind_again, &pc);
    add_machine_test("fault/bind-again", test_fault_bind_again, &q35_smm);
    add_machine_test("fault/bind-nth", test_fault_bind_nth, &pc);
    add_machine_test("fault/slot", test_fault_slot, &pc);
    add_machine_test("fault/slot", test_fault_slot, &q35_smm);
    add_machine_test("fault/slot-migration", test_fault_slot_migration, &q35);

    ret = g_test_run();

    fault_disarm();
    unlink(bios);
    rmdir(tmpdir);
    return ret;
}
