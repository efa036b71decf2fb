/*
 * A model of SEV-SNP's and TDX's launch, to be preloaded into QEMU
 *
 * Where the processor has SEV-SNP or TDX, KVM takes commands that make the
 * first memory of a guest, and measure it.  This module takes them instead, on
 * top of a software-protected VM, whose slots, guest_memfds and attributes are
 * real.  It refuses what KVM refuses: each rule names the function of Linux 7.3
 * that has it.  Contents of launched memory are measured as the firmware
 * measures them, so the digest is the one that such a guest would have.
 *
 * Where KVM converts memory in place, QEMU has written the contents to the
 * pages themselves; the module takes them from there.
 *
 * It is a model: nothing is encrypted, and no firmware can run, because that
 * relies on what only such a guest has.  KVM_RUN waits for a kick.  If
 * GUEST_MEMFD_LAUNCH_START says where, all vCPUs start there instead, as those
 * do whose registers are launched as well.  Pages that are not launched in
 * place do not get their contents, so this makes sense in place only.
 *
 * A guest that runs reads a port to ask for a conversion, with a hypercall's
 * arguments in its registers.  QEMU sees the exit that KVM makes of a request
 * by GHCB or by TDX's MapGPA.
 *
 *   GUEST_MEMFD_LAUNCH      "snp" or "tdx"
 *   GUEST_MEMFD_LAUNCH_LOG  a file that gets a line for each event; one that
 *                           begins with "refused" names a rule that was broken
 *   GUEST_MEMFD_LAUNCH_START
 *                           "RIP,CR3": where vCPUs start, in 64 bits, each
 *                           with its number in RDI
 *   GUEST_MEMFD_LAUNCH_DO   "FAULT [NTH]": something happens once, when a
 *                           command of that kind comes for the NTH time:
 *     init, start, update, finish, vcpu, cpuid
 *                           the command fails
 *     cpuid-mismatch        the firmware corrects the page with CPUID's answers
 *     partial               an update is done for the first page only
 *     eagain                an update of TDX is done for the first page only,
 *                           and is to be repeated
 *     busy                  TDX cannot finish
 *     no-private            always: KVM has no private memory
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/bitops.h"
#include <dlfcn.h>
#include <linux/kvm_para.h>
#include <linux/psp-sev.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include "accel/kvm/kvm-gmem-uapi.h"

#define PAGE                4096
/* All guest memory below 128 GiB */
#define MAX_PAGES           (UINT64_C(1) << 25)
/* Of a slot's number: see struct kvm_userspace_memory_region2 */
#define SLOT_MASK           0xffff
#define SHA384_SIZE         48

/* Of SEV-SNP's firmware ABI: of the guest's policy, what must be set */
#define SNP_POLICY_RESERVED (UINT64_C(1) << 17)
#define SNP_POLICY_BITS     ((UINT64_C(1) << 26) - 1)
/* GHCB_VERSION_MAX of KVM */
#define GHCB_VERSION_MAX    2
/* Of TDX: what a guest can have; QEMU has no more. */
#define TDX_ATTRIBUTES      (BIT_ULL(0) | BIT_ULL(28) | BIT_ULL(30) | \
                             BIT_ULL(63))
#define TDX_XFAM            UINT64_C(0x602e7)
/* A guest with four levels of page tables has shared memory above. */
#define TDX_SHARED_BIT      (UINT64_C(1) << 47)
/* KVM_MAX_CPUID_ENTRIES of KVM */
#define MAX_CPUID_ENTRIES   256
/* More than QEMU asks for at first, so that it asks twice */
#define TDX_CPUID_CONFIGS   8
/* Of the page with SEV-SNP's secrets, which the firmware writes */
#define SNP_SECRETS_VERSION 3
/* A read of it asks for a conversion: RBX, RCX and RSI are the hypercall's. */
#define DOORBELL            0x5e0

enum {
    PAGE_PRIVATE = 1,
    PAGE_LAUNCHED = 2,
};

typedef struct VCpu {
    struct kvm_run *run;
    unsigned long id;
    bool initialized;       /* TDX's KVM_TDX_INIT_VCPU */
    bool started;
    uint64_t answer;        /* at the doorbell: where the guest's is, in @run */
} VCpu;

static bool is_tdx;
static int log_fd = -1;
static char fault_name[32];
static int fault_nth = 1;
static bool no_private;

/* The VM is of neither kind: plain SEV's, if it takes SEV's commands */
static bool is_plain_sev;
static bool initialized, started, finished;
static uint8_t pages[MAX_PAGES];
static struct kvm_userspace_memory_region2 slots[1024];
/*
 * By file descriptor: of a guest_memfd that has its pages' attributes, as QEMU
 * can map it, which of them are private
 */
static uint8_t *files[1024];
/* By file descriptor */
static VCpu vcpus[1024];
static bool has_vcpus;
static uint8_t snp_digest[SHA384_SIZE];
static GChecksum *tdx_digest;
/* What TDX was told to show, for KVM_TDX_GET_CPUID */
static struct kvm_cpuid_entry2 tdx_cpuid[MAX_CPUID_ENTRIES];
static unsigned tdx_cpuid_nent;
static uint64_t nr_launched, nr_lost;
static uint64_t start_rip, start_cr3;   /* 0: vCPUs do not run */

static void G_GNUC_PRINTF(1, 2) tell(const char *fmt, ...)
{
    g_autofree char *line = NULL, *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    line = g_strconcat(text, "\n", NULL);
    /* In one piece, as other threads write as well */
    if (write(log_fd, line, strlen(line)) < 0) {
        abort();
    }
}

static int G_GNUC_PRINTF(2, 3) refuse(int error, const char *fmt, ...)
{
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    tell("refused errno=%d: %s", error, text);
    return -error;
}

/* Does this fault happen now? */
static bool fault(const char *name)
{
    if (strcmp(fault_name, name) || !fault_nth || --fault_nth) {
        return false;
    }
    tell("fault %s", name);
    return true;
}

/* The real call: a result that is not negative, or a negative errno */
static int call(int fd, unsigned long request, void *arg)
{
    static int (*next)(int fd, unsigned long request, ...);
    int ret;

    if (!next) {
        next = dlsym(RTLD_NEXT, "ioctl");
    }
    ret = next(fd, request, arg);
    return ret < 0 ? -errno : ret;
}

static void __attribute__((constructor)) set_up(void)
{
    const char *kind = getenv("GUEST_MEMFD_LAUNCH");
    const char *path = getenv("GUEST_MEMFD_LAUNCH_LOG");
    const char *start = getenv("GUEST_MEMFD_LAUNCH_START");
    const char *what = getenv("GUEST_MEMFD_LAUNCH_DO");

    if (!kind || (strcmp(kind, "snp") && strcmp(kind, "tdx")) || !path) {
        fprintf(stderr, "guest-memfd-launch: GUEST_MEMFD_LAUNCH must be snp or "
                "tdx, and GUEST_MEMFD_LAUNCH_LOG a file\n");
        abort();
    }
    is_tdx = kind[0] == 't';
    if (what && sscanf(what, "%31s %d", fault_name, &fault_nth) < 1) {
        abort();
    }
    if (start && sscanf(start, "%" SCNi64 ",%" SCNi64, &start_rip,
                        &start_cr3) < 2) {
        abort();
    }
    no_private = !strcmp(fault_name, "no-private");
    log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0) {
        abort();
    }
    tdx_digest = g_checksum_new(G_CHECKSUM_SHA384);
    tell("model of %s", kind);
}

/* Memory */

static const struct kvm_userspace_memory_region2 *slot_of(uint64_t gpa)
{
    int i;

    for (i = 0; i < ARRAY_SIZE(slots); i++) {
        if (gpa >= slots[i].guest_phys_addr &&
            gpa - slots[i].guest_phys_addr < slots[i].memory_size) {
            return &slots[i];
        }
    }
    return NULL;
}

/* The file of a slot that is bound, if it has attributes; or NULL */
static const uint8_t *file_of(const struct kvm_userspace_memory_region2 *slot)
{
    return slot && slot->flags & KVM_MEM_GUEST_MEMFD &&
           slot->guest_memfd < ARRAY_SIZE(files) ? files[slot->guest_memfd]
                                                 : NULL;
}

static uint64_t offset_of(const struct kvm_userspace_memory_region2 *slot,
                          uint64_t gpa)
{
    return slot->guest_memfd_offset + gpa - slot->guest_phys_addr;
}

static bool is_private(uint64_t gpa)
{
    const struct kvm_userspace_memory_region2 *slot = slot_of(gpa);
    const uint8_t *file = file_of(slot);

    return file ? file[offset_of(slot, gpa) / PAGE]
                : pages[gpa / PAGE] & PAGE_PRIVATE;
}

static void forget(uint64_t gpa, uint64_t size, const char *why)
{
    uint64_t page, lost = 0;

    for (page = gpa / PAGE; page < (gpa + size) / PAGE; page++) {
        lost += !!(pages[page] & PAGE_LAUNCHED);
        pages[page] &= ~PAGE_LAUNCHED;
    }
    nr_lost += lost;
    if (lost) {
        tell("lost gpa=0x%" PRIx64 " pages=%" PRIu64 " %s", gpa, lost, why);
    }
}

/*
 * TDX's module keeps no contents of pages that a slot does not have any more:
 * tdx_sept_remove_private_spte().
 */
static void take_out(const struct kvm_userspace_memory_region2 *slot)
{
    uint64_t gpa = slot->guest_phys_addr, end = gpa + slot->memory_size;
    uint64_t lost = 0;

    forget(gpa, slot->memory_size, "slot deleted");
    if (!finished || !(slot->flags & KVM_MEM_GUEST_MEMFD)) {
        return;
    }
    for (; gpa < end; gpa += PAGE) {
        if (is_private(gpa)) {
            syscall(SYS_fallocate, slot->guest_memfd,
                    FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                    offset_of(slot, gpa), PAGE);
            lost++;
        }
    }
    if (lost) {
        refuse(0, "slot at 0x%llx deleted: a guest loses %" PRIu64 " pages",
               slot->guest_phys_addr, lost);
    }
}

static int set_region(int vm, struct kvm_userspace_memory_region2 *region)
{
    struct kvm_userspace_memory_region2 *slot;
    uint32_t id = region->slot & SLOT_MASK;
    int ret;

    if (region->slot != id || id >= ARRAY_SIZE(slots) ||
        (region->memory_size &&
         region->guest_phys_addr / PAGE + region->memory_size / PAGE >
         MAX_PAGES)) {
        /* SMM's address space, say, which these guests do not have */
        return refuse(EINVAL, "slot 0x%x is beyond the model", region->slot);
    }
    if (is_tdx && region->flags & KVM_MEM_READONLY) {
        /* check_memory_region_flags(), kvm_arch_has_readonly_mem() */
        return refuse(EINVAL, "slot %u is read-only", id);
    }
    ret = call(vm, KVM_SET_USER_MEMORY_REGION2, region);
    if (ret) {
        return ret;
    }
    slot = &slots[id];
    if (is_tdx && slot->memory_size && !region->memory_size) {
        take_out(slot);
    }
    *slot = *region;
    tell("slot %u gpa=0x%llx size=0x%llx flags=%u", id, region->guest_phys_addr,
         region->memory_size, region->flags);
    return 0;
}

static int set_attributes(int vm, struct kvm_memory_attributes *attributes)
{
    uint64_t page = attributes->address / PAGE;
    uint64_t end = page + attributes->size / PAGE;
    bool private = attributes->attributes & KVM_MEMORY_ATTRIBUTE_PRIVATE;
    int ret = call(vm, KVM_SET_MEMORY_ATTRIBUTES, attributes);

    if (ret) {
        return ret;
    }
    tell("attributes gpa=0x%llx size=0x%llx %s", attributes->address,
         attributes->size, private ? "private" : "shared");
    if (!private) {
        forget(attributes->address, attributes->size, "made shared");
    }
    for (; page < MIN(end, MAX_PAGES); page++) {
        pages[page] = (pages[page] & ~PAGE_PRIVATE) |
                      (private ? PAGE_PRIVATE : 0);
    }
    return 0;
}

static void forget_in_file(int fd, uint64_t offset, uint64_t size,
                           const char *why)
{
    int i;

    for (i = 0; i < ARRAY_SIZE(slots); i++) {
        const struct kvm_userspace_memory_region2 *slot = &slots[i];
        uint64_t start = MAX(offset, slot->guest_memfd_offset);
        uint64_t end = MIN(offset + size,
                           slot->guest_memfd_offset + slot->memory_size);

        if (slot->memory_size && slot->flags & KVM_MEM_GUEST_MEMFD &&
            slot->guest_memfd == fd && start < end) {
            forget(slot->guest_phys_addr + start - slot->guest_memfd_offset,
                   end - start, why);
        }
    }
}

static int set_file_attributes(int fd, struct kvm_memory_attributes2 *args)
{
    bool private = args->attributes & KVM_MEMORY_ATTRIBUTE_PRIVATE;
    int ret = call(fd, KVM_SET_MEMORY_ATTRIBUTES2, args);

    if (ret) {
        return ret;
    }
    tell("attributes file=%d offset=0x%llx size=0x%llx %s", fd, args->offset,
         args->size, private ? "private" : "shared");
    if (!private) {
        forget_in_file(fd, args->offset, args->size, "made shared");
    }
    memset(files[fd] + args->offset / PAGE, private, args->size / PAGE);
    return 0;
}

static int create_file(int vm, struct kvm_create_guest_memfd *args)
{
    int fd;

    if (args->flags & GUEST_MEMFD_FLAG_HUGE_2M) {
        return refuse(EINVAL, "a file with huge pages");
    }
    fd = call(vm, KVM_CREATE_GUEST_MEMFD, args);
    if (fd < 0) {
        return fd;
    }
    if (fd >= ARRAY_SIZE(files)) {
        abort();
    }
    g_clear_pointer(&files[fd], g_free);
    if (args->flags & GUEST_MEMFD_FLAG_MMAP) {
        files[fd] = g_malloc(args->size / PAGE);
        memset(files[fd], !(args->flags & GUEST_MEMFD_FLAG_INIT_SHARED),
               args->size / PAGE);
    }
    tell("file %d size=0x%llx flags=0x%llx", fd, args->size, args->flags);
    return fd;
}

/*
 * Lets the model at pages that are launched in place, as the firmware is: they
 * are shared meanwhile.
 */
static void open_pages(const struct kvm_userspace_memory_region2 *slot,
                       uint64_t gpa, uint64_t size, bool open)
{
    struct kvm_memory_attributes2 args = {
        .offset = offset_of(slot, gpa),
        .size = size,
        .attributes = open ? 0 : KVM_MEMORY_ATTRIBUTE_PRIVATE,
    };

    int ret;

    do {
        ret = call(slot->guest_memfd, KVM_SET_MEMORY_ATTRIBUTES2, &args);
        if (ret && ret != -EAGAIN) {
            abort();
        }
    } while (ret);
}

static uint8_t *host_of(const struct kvm_userspace_memory_region2 *slot,
                        uint64_t gpa)
{
    return (uint8_t *)(uintptr_t)(slot->userspace_addr + gpa -
                                  slot->guest_phys_addr);
}

/*
 * Is the source of an update as it must be?  In place KVM takes any; but QEMU
 * cannot read there, as the pages are private.
 */
static bool check_source(const struct kvm_userspace_memory_region2 *slot,
                         uint64_t source)
{
    return file_of(slot) ? !source : source && source % PAGE == 0;
}

/* 0, or why a page cannot be launched: as kvm_gmem_populate() */
static int check_page(uint64_t gpa, const char *command)
{
    const struct kvm_userspace_memory_region2 *slot = slot_of(gpa);

    if (!slot || !(slot->flags & KVM_MEM_GUEST_MEMFD)) {
        return refuse(EINVAL, "%s of 0x%" PRIx64 ", which is in no slot with a "
                      "guest_memfd", command, gpa);
    }
    if (!is_private(gpa)) {
        return refuse(EINVAL, "%s of 0x%" PRIx64 ", which is shared", command,
                      gpa);
    }
    if (pages[gpa / PAGE] & PAGE_LAUNCHED) {
        return refuse(EIO, "%s of 0x%" PRIx64 " again", command, gpa);
    }
    return 0;
}

static void check_launched(void)
{
    if (nr_lost) {
        refuse(0, "finish without %" PRIu64 " of the launched pages", nr_lost);
    }
}

static char *hex(const uint8_t *digest)
{
    GString *text = g_string_new(NULL);
    int i;

    for (i = 0; i < SHA384_SIZE; i++) {
        g_string_append_printf(text, "%02x", digest[i]);
    }
    return g_string_free(text, FALSE);
}

/* SEV-SNP */

static void sha384(const void *data, size_t size, uint8_t *digest)
{
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA384);
    gsize len = SHA384_SIZE;

    g_checksum_update(sum, data, size);
    g_checksum_get_digest(sum, digest, &len);
}

/* PAGE_INFO of SEV-SNP's firmware ABI; zero but for what is set here */
static void snp_measure(uint64_t gpa, int type, const void *contents)
{
    struct {
        uint8_t digest[SHA384_SIZE];
        uint8_t contents[SHA384_SIZE];
        uint16_t length;
        uint8_t page_type;
        uint8_t zero[5];
        uint64_t gpa;
    } info = { .length = sizeof(info), .page_type = type, .gpa = gpa };

    QEMU_BUILD_BUG_ON(sizeof(info) != 0x70);
    memcpy(info.digest, snp_digest, SHA384_SIZE);
    if (type == KVM_SEV_SNP_PAGE_TYPE_NORMAL) {
        sha384(contents, PAGE, info.contents);
    }
    sha384(&info, sizeof(info), snp_digest);
}

/* __sev_guest_init() */
static int snp_init(const struct kvm_sev_init *init)
{
    if (has_vcpus || initialized || init->flags || init->vmsa_features ||
        init->ghcb_version > GHCB_VERSION_MAX || init->ghcb_version == 1) {
        return refuse(EINVAL, "init");
    }
    initialized = true;
    tell("init");
    return 0;
}

/* snp_launch_start() */
static int snp_start(const struct kvm_sev_snp_launch_start *start)
{
    if (!initialized) {
        return refuse(ENOTTY, "start before init");
    }
    if (started || start->flags || start->policy & ~SNP_POLICY_BITS ||
        !(start->policy & SNP_POLICY_RESERVED)) {
        return refuse(EINVAL, "start");
    }
    started = true;
    tell("start policy=0x%llx gosvw=%02x", start->policy, start->gosvw[0]);
    return 0;
}

/* snp_launch_update(), sev_gmem_post_populate() */
static int snp_update(struct kvm_sev_snp_launch_update *update,
                      struct kvm_sev_cmd *cmd)
{
    const struct kvm_userspace_memory_region2 *slot;
    uint64_t gpa = update->gfn_start * PAGE, len = update->len, done;
    bool has_source = update->type != KVM_SEV_SNP_PAGE_TYPE_ZERO;
    uint8_t *source = (uint8_t *)(uintptr_t)update->uaddr;
    bool in_place;

    if (!started) {
        return refuse(EINVAL, "update before start");
    }
    if (!len || len % PAGE || update->flags ||
        (update->type != KVM_SEV_SNP_PAGE_TYPE_NORMAL &&
         update->type != KVM_SEV_SNP_PAGE_TYPE_ZERO &&
         update->type != KVM_SEV_SNP_PAGE_TYPE_UNMEASURED &&
         update->type != KVM_SEV_SNP_PAGE_TYPE_SECRETS &&
         update->type != KVM_SEV_SNP_PAGE_TYPE_CPUID)) {
        return refuse(EINVAL, "update with len=0x%" PRIx64 " flags=%u type=%u",
                      len, update->flags, update->type);
    }
    slot = slot_of(gpa);
    if (!slot || !(slot->flags & KVM_MEM_GUEST_MEMFD)) {
        return refuse(EINVAL, "update of 0x%" PRIx64 ", which is in no slot "
                      "with a guest_memfd", gpa);
    }
    in_place = file_of(slot);
    if (has_source && !check_source(slot, update->uaddr)) {
        return refuse(EINVAL, "update from 0x%llx", update->uaddr);
    }
    if (finished) {
        /* The firmware says that. */
        return refuse(EIO, "update after finish");
    }
    len = MIN(len, slot->guest_phys_addr + slot->memory_size - gpa);
    if (fault("partial")) {
        len = PAGE;
    }
    for (done = 0; done < len; done += PAGE) {
        uint8_t *page = in_place ? host_of(slot, gpa + done) : source + done;
        bool mismatch;

        if (check_page(gpa + done, "update")) {
            break;
        }
        if (in_place) {
            open_pages(slot, gpa + done, PAGE, true);
        }
        mismatch = update->type == KVM_SEV_SNP_PAGE_TYPE_CPUID &&
                   fault("cpuid-mismatch");
        if (mismatch) {
            /* The EAX of the first answer, as the firmware wants it */
            page[32] ^= 1;
            cmd->error = SEV_RET_INVALID_PARAM;
        } else {
            snp_measure(gpa + done, update->type, page);
            if (in_place && update->type == KVM_SEV_SNP_PAGE_TYPE_SECRETS) {
                memset(page, 0, PAGE);
                *(uint32_t *)page = SNP_SECRETS_VERSION;
            }
        }
        if (in_place) {
            open_pages(slot, gpa + done, PAGE, false);
        }
        if (mismatch) {
            break;
        }
        pages[(gpa + done) / PAGE] |= PAGE_LAUNCHED;
        nr_launched++;
    }
    if (!done) {
        return -EIO;
    }
    tell("update gpa=0x%" PRIx64 " pages=%" PRIu64 " type=%u%s", gpa,
         done / PAGE, update->type, in_place ? " in-place" : "");
    update->gfn_start += done / PAGE;
    update->len -= done;
    if (has_source && source) {
        update->uaddr += done;
    }
    return 0;
}

/* snp_launch_finish() */
static int snp_finish(const struct kvm_sev_snp_launch_finish *finish)
{
    g_autofree char *digest = hex(snp_digest);

    if (!initialized) {
        return refuse(ENOTTY, "finish before init");
    }
    if (!started || finish->flags) {
        return refuse(EINVAL, "finish");
    }
    if (finished) {
        /* The firmware says that. */
        return refuse(EIO, "finish again");
    }
    check_launched();
    finished = true;
    /* The firmware adds a page for each vCPU's registers, which KVM makes. */
    tell("finish pages=%" PRIu64 " digest=%s id-block=%u author-key=%u "
         "vcek-disabled=%u host-data=%02x", nr_launched, digest,
         finish->id_block_en, finish->auth_key_en, finish->vcek_disabled,
         finish->host_data[0]);
    return 0;
}

/* sev_mem_enc_ioctl() */
static int snp_command(struct kvm_sev_cmd *cmd)
{
    void *data;

    if (!cmd) {
        /* QEMU asks whether there is SEV. */
        return 0;
    }
    data = (void *)(uintptr_t)cmd->data;
    if (cmd->id == KVM_SEV_INIT2) {
        return fault("init") ? -EIO : snp_init(data);
    }
    if (is_plain_sev && (cmd->id == KVM_SEV_INIT ||
                         cmd->id == KVM_SEV_LAUNCH_START)) {
        /* sev_guest_init(), sev_launch_start(): the model has no more of it. */
        tell("plain SEV: command %u", cmd->id);
        return 0;
    }
    switch (cmd->id) {
    case KVM_SEV_SNP_LAUNCH_START:
        return fault("start") ? -EIO : snp_start(data);
    case KVM_SEV_SNP_LAUNCH_UPDATE:
        return fault("update") ? -EIO : snp_update(data, cmd);
    case KVM_SEV_SNP_LAUNCH_FINISH:
        return fault("finish") ? -EIO : snp_finish(data);
    default:
        return refuse(initialized ? EPERM : EINVAL, "command %u", cmd->id);
    }
}

/* Gives the device's user a text, or says how much room it takes. */
static bool sev_give(uint64_t address, uint32_t *size, const char *text)
{
    bool fits = address && *size >= strlen(text);

    if (fits) {
        memcpy((void *)(uintptr_t)address, text, strlen(text));
    }
    *size = strlen(text);
    return fits;
}

/* sev_ioctl_do_pdh_export() */
static bool sev_export_pdh(struct sev_user_data_pdh_cert_export *export)
{
    uint32_t pdh_size = export->pdh_cert_len;
    uint32_t chain_size = export->cert_chain_len;
    bool fits = sev_give(export->pdh_cert_address, &pdh_size, "the key");

    fits &= sev_give(export->cert_chain_address, &chain_size,
                     "its certificates");
    export->pdh_cert_len = pdh_size;
    export->cert_chain_len = chain_size;
    return fits;
}

/* sev_ioctl_do_get_id2() */
static bool sev_get_id(struct sev_user_data_get_id2 *id)
{
    uint32_t size = id->length;
    bool fits = sev_give(id->address, &size, "the processor");

    id->length = size;
    return fits;
}

/* What the device /dev/sev answers; it can be any file. */
static int sev_device(struct sev_issue_cmd *cmd)
{
    void *data = (void *)(uintptr_t)cmd->data;
    bool fits;

    switch (cmd->cmd) {
    case SEV_PLATFORM_STATUS:
        *(struct sev_user_data_status *)data = (struct sev_user_data_status) {
            .api_major = 1, .api_minor = 55, .build = 1,
        };
        return 0;
    case SEV_PDH_CERT_EXPORT:
        fits = sev_export_pdh(data);
        break;
    case SEV_GET_ID2:
        fits = sev_get_id(data);
        break;
    default:
        return refuse(EINVAL, "command %u of the device", cmd->cmd);
    }
    cmd->error = fits ? SEV_RET_SUCCESS : SEV_RET_INVALID_LEN;
    return fits ? 0 : -EIO;
}

/* TDX */

static void tdx_measure(const char *what, uint64_t gpa)
{
    uint8_t buffer[128] = {};

    memcpy(buffer, what, strlen(what));
    memcpy(buffer + 16, &gpa, sizeof(gpa));
    g_checksum_update(tdx_digest, buffer, sizeof(buffer));
}

static void tdx_measure_page(uint64_t gpa, bool contents, const uint8_t *page)
{
    int i;

    tdx_measure("MEM.PAGE.ADD", gpa);
    for (i = 0; contents && i < PAGE; i += 256) {
        tdx_measure("MR.EXTEND", gpa + i);
        g_checksum_update(tdx_digest, page + i, 256);
    }
}

/* tdx_get_capabilities() */
static int tdx_capabilities(struct kvm_tdx_capabilities *caps)
{
    /* All bits of these can be configured. */
    static const struct kvm_cpuid_entry2 configs[TDX_CPUID_CONFIGS] = {
        { .function = 0x1 },
        { .function = 0x7, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX },
        { .function = 0x7, .index = 1,
          .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX },
        { .function = 0xd, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX },
        { .function = 0xd, .index = 1,
          .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX },
        { .function = 0x80000001 },
        { .function = 0x80000007 },
        { .function = 0x80000008 },
    };
    int i;

    if (caps->cpuid.nent < TDX_CPUID_CONFIGS) {
        return -E2BIG;
    }
    caps->supported_attrs = TDX_ATTRIBUTES;
    caps->supported_xfam = TDX_XFAM;
    caps->cpuid.nent = TDX_CPUID_CONFIGS;
    for (i = 0; i < TDX_CPUID_CONFIGS; i++) {
        caps->cpuid.entries[i] = configs[i];
        caps->cpuid.entries[i].eax = caps->cpuid.entries[i].ebx = -1;
        caps->cpuid.entries[i].ecx = caps->cpuid.entries[i].edx = -1;
    }
    return 0;
}

/* tdx_td_init(), setup_tdparams() */
static int tdx_init_vm(const struct kvm_tdx_init_vm *init)
{
    uint64_t reserved = init->cpuid.padding;
    int i;

    if (initialized) {
        return refuse(EINVAL, "init again");
    }
    if (init->cpuid.nent > MAX_CPUID_ENTRIES) {
        return refuse(E2BIG, "init with %u answers", init->cpuid.nent);
    }
    for (i = 0; i < ARRAY_SIZE(init->reserved); i++) {
        reserved |= init->reserved[i];
    }
    if (reserved) {
        return refuse(EINVAL, "init with reserved fields");
    }
    if (has_vcpus) {
        return refuse(EBUSY, "init after a vCPU was made");
    }
    if (init->attributes & ~TDX_ATTRIBUTES || init->xfam & ~TDX_XFAM) {
        return refuse(EINVAL, "init with attributes=0x%llx xfam=0x%llx",
                      init->attributes, init->xfam);
    }
    tdx_cpuid_nent = init->cpuid.nent;
    memcpy(tdx_cpuid, init->cpuid.entries,
           tdx_cpuid_nent * sizeof(tdx_cpuid[0]));
    initialized = true;
    tell("init attributes=0x%llx config=0x%llx owner=0x%llx "
         "owner-config=0x%llx", init->attributes, init->mrconfigid[0],
         init->mrowner[0], init->mrownerconfig[0]);
    return 0;
}

/* tdx_td_finalize() */
static int tdx_finalize(void)
{
    g_autoptr(GChecksum) sum = g_checksum_copy(tdx_digest);

    if (!initialized || finished) {
        return refuse(EINVAL, "finish");
    }
    if (fault("busy")) {
        return -EBUSY;
    }
    check_launched();
    finished = true;
    tell("finish pages=%" PRIu64 " digest=%s", nr_launched,
         g_checksum_get_string(sum));
    return 0;
}

/* tdx_vcpu_init() */
static int tdx_init_vcpu(VCpu *vcpu, const struct kvm_tdx_cmd *cmd)
{
    if (cmd->flags || vcpu->initialized) {
        return refuse(EINVAL, "a vCPU's init");
    }
    vcpu->initialized = true;
    tell("vcpu hob=0x%llx", cmd->data);
    return 0;
}

/* tdx_vcpu_init_mem_region(), tdx_gmem_post_populate() */
static int tdx_update(const VCpu *vcpu, struct kvm_tdx_cmd *cmd)
{
    struct kvm_tdx_init_mem_region *region = (void *)(uintptr_t)cmd->data;
    uint64_t gpa = region->gpa, size = region->nr_pages * PAGE, done = 0;
    const struct kvm_userspace_memory_region2 *slot = slot_of(gpa);
    const uint8_t *source = (void *)(uintptr_t)region->source_addr;
    bool measure = cmd->flags & KVM_TDX_MEASURE_MEMORY_REGION;
    bool in_place = file_of(slot);
    int ret = 0;

    if (!vcpu->initialized) {
        return refuse(EINVAL, "update before the vCPU's init");
    }
    if (cmd->flags & ~KVM_TDX_MEASURE_MEMORY_REGION) {
        return refuse(EINVAL, "update with flags=0x%x", cmd->flags);
    }
    if (!check_source(slot, region->source_addr) || gpa % PAGE || !size ||
        gpa + size <= gpa || gpa + size > TDX_SHARED_BIT) {
        return refuse(EINVAL, "update of 0x%" PRIx64 ", 0x%" PRIx64 " bytes, "
                      "from %p", gpa, size, source);
    }
    while (!ret && done < size) {
        ret = check_page(gpa + done, "update");
        if (!ret) {
            if (in_place) {
                open_pages(slot, gpa + done, PAGE, true);
            }
            tdx_measure_page(gpa + done, measure,
                             in_place ? host_of(slot, gpa + done)
                                      : source + done);
            if (in_place) {
                open_pages(slot, gpa + done, PAGE, false);
            }
            pages[(gpa + done) / PAGE] |= PAGE_LAUNCHED;
            nr_launched++;
            done += PAGE;
            ret = done < size && fault("eagain") ? -EAGAIN : 0;
        }
    }
    tell("update gpa=0x%" PRIx64 " pages=%" PRIu64 " measured=%u%s", gpa,
         done / PAGE, measure, in_place ? " in-place" : "");
    /* Whether or not KVM has a source: QEMU must not rely on it. */
    region->source_addr += done;
    region->gpa += done;
    region->nr_pages -= done / PAGE;
    return ret;
}

/* tdx_vcpu_get_cpuid() */
static int tdx_get_cpuid(struct kvm_cpuid2 *cpuid)
{
    bool fits = cpuid->nent >= tdx_cpuid_nent;

    cpuid->nent = tdx_cpuid_nent;
    if (!fits) {
        return -E2BIG;
    }
    memcpy(cpuid->entries, tdx_cpuid, tdx_cpuid_nent * sizeof(tdx_cpuid[0]));
    return 0;
}

/* tdx_vm_ioctl() */
static int tdx_vm_command(struct kvm_tdx_cmd *cmd)
{
    void *data;

    if (!cmd) {
        /* QEMU asks whether there is SEV. */
        return -EFAULT;
    }
    data = (void *)(uintptr_t)cmd->data;
    if (cmd->hw_error || (cmd->flags && cmd->id != KVM_TDX_INIT_MEM_REGION)) {
        return refuse(EINVAL, "command %u with flags", cmd->id);
    }
    switch (cmd->id) {
    case KVM_TDX_CAPABILITIES:
        return tdx_capabilities(data);
    case KVM_TDX_INIT_VM:
        return fault("init") ? -EIO : tdx_init_vm(data);
    case KVM_TDX_FINALIZE_VM:
        return fault("finish") ? -EIO : tdx_finalize();
    default:
        return refuse(EINVAL, "command %u of the VM", cmd->id);
    }
}

/* tdx_vcpu_ioctl(), tdx_vcpu_unlocked_ioctl() */
static int tdx_vcpu_command(VCpu *vcpu, struct kvm_tdx_cmd *cmd)
{
    if (!initialized || finished) {
        return refuse(EINVAL, "command %u of a vCPU, not between init and "
                      "finish", cmd->id);
    }
    switch (cmd->id) {
    case KVM_TDX_INIT_VCPU:
        return fault("vcpu") ? -EIO : tdx_init_vcpu(vcpu, cmd);
    case KVM_TDX_INIT_MEM_REGION:
        return fault("update") ? -EIO : tdx_update(vcpu, cmd);
    case KVM_TDX_GET_CPUID:
        return fault("cpuid") ? -EIO :
               tdx_get_cpuid((void *)(uintptr_t)cmd->data);
    default:
        return refuse(EINVAL, "command %u of a vCPU", cmd->id);
    }
}

/* vCPUs */

static VCpu *vcpu_of(int fd)
{
    return fd >= 0 && fd < ARRAY_SIZE(vcpus) && vcpus[fd].run ?
           &vcpus[fd] : NULL;
}

static int create_vcpu(int vm, unsigned long id)
{
    int fd;

    if (!initialized) {
        /* tdx_vcpu_create(), sev_vcpu_create() */
        return refuse(EIO, "a vCPU before the VM's init");
    }
    fd = call(vm, KVM_CREATE_VCPU, (void *)id);
    if (fd < 0) {
        return fd;
    }
    if (fd >= ARRAY_SIZE(vcpus)) {
        abort();
    }
    has_vcpus = true;
    vcpus[fd] = (VCpu) { .id = id };
    /* The second page has the data of ports: KVM_PIO_PAGE_OFFSET. */
    vcpus[fd].run = (void *)syscall(SYS_mmap, NULL, 2 * PAGE,
                                    PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (vcpus[fd].run == MAP_FAILED) {
        abort();
    }
    return fd;
}

/* QEMU's signal sets immediate_exit. */
static int wait_for_kick(const VCpu *vcpu)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    while (!qatomic_read(&vcpu->run->immediate_exit)) {
        ppoll(NULL, 0, NULL, &before);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -EINTR;
}

/* As a launched save area, or TDX's module, does it */
static void start_vcpu(int fd, VCpu *vcpu)
{
    struct kvm_regs regs = {
        .rip = start_rip, .rflags = 2, .rdi = vcpu->id,
    };
    struct kvm_mp_state state = { KVM_MP_STATE_RUNNABLE };
    struct kvm_segment data = {
        .limit = -1, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1,
        .g = 1,
    };
    struct kvm_sregs sregs;

    if (call(fd, KVM_GET_SREGS, &sregs)) {
        abort();
    }
    sregs.ds = sregs.es = sregs.ss = sregs.fs = sregs.gs = sregs.cs = data;
    sregs.cs.selector = 8;
    sregs.cs.type = 11;
    sregs.cs.db = 0;
    sregs.cs.l = 1;
    sregs.cr0 = 0x80000011;     /* paging, extension type, protection */
    sregs.cr3 = start_cr3;
    sregs.cr4 = 0x20;           /* PAE */
    sregs.efer = 0x500;         /* long mode, active */
    if (call(fd, KVM_SET_SREGS, &sregs) || call(fd, KVM_SET_REGS, &regs) ||
        call(fd, KVM_SET_MP_STATE, &state)) {
        abort();
    }
    vcpu->started = true;
}

/* The guest's read of the doorbell becomes its hypercall's exit. */
static void ask(int fd, VCpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    struct kvm_regs regs;

    if (call(fd, KVM_GET_REGS, &regs)) {
        abort();
    }
    vcpu->answer = run->io.data_offset;
    run->exit_reason = KVM_EXIT_HYPERCALL;
    memset(&run->hypercall, 0, sizeof(run->hypercall));
    run->hypercall.nr = KVM_HC_MAP_GPA_RANGE;
    run->hypercall.args[0] = regs.rbx;
    run->hypercall.args[1] = regs.rcx;
    run->hypercall.args[2] = regs.rsi;
    run->hypercall.flags = KVM_EXIT_HYPERCALL_LONG_MODE;
}

/* QEMU's answer becomes what the guest reads, if KVM takes it. */
static int hand_over(VCpu *vcpu)
{
    uint64_t ret = vcpu->run->hypercall.ret;

    if (ret && ret != EINVAL && ret != EAGAIN) {
        /* kvm_is_valid_map_gpa_range_ret() */
        return refuse(EINVAL, "the answer %" PRId64 " to a conversion", ret);
    }
    *(int32_t *)((char *)vcpu->run + vcpu->answer) = -ret;
    vcpu->answer = 0;
    return 0;
}

static int run(int fd, VCpu *vcpu)
{
    int ret;

    if (!finished) {
        /* pre_sev_run(), tdx_vcpu_pre_run() */
        return refuse(EINVAL, "a vCPU runs before the launch has finished");
    }
    if (!start_rip) {
        return wait_for_kick(vcpu);
    }
    if (!vcpu->started) {
        start_vcpu(fd, vcpu);
    }
    if (vcpu->answer) {
        ret = hand_over(vcpu);
        if (ret) {
            return ret;
        }
    }
    ret = call(fd, KVM_RUN, NULL);
    if (!ret && vcpu->run->exit_reason == KVM_EXIT_IO &&
        vcpu->run->io.port == DOORBELL &&
        vcpu->run->io.direction == KVM_EXIT_IO_IN) {
        ask(fd, vcpu);
    }
    return ret;
}

/* Has the guest alone this state, once it is launched? */
static bool is_protected(unsigned long request)
{
    switch (request) {
    case KVM_GET_REGS:
    case KVM_SET_REGS:
    case KVM_GET_SREGS:
    case KVM_SET_SREGS:
    case KVM_GET_SREGS2:
    case KVM_SET_SREGS2:
    case KVM_GET_DEBUGREGS:
    case KVM_SET_DEBUGREGS:
    case KVM_GET_XCRS:
    case KVM_SET_XCRS:
    case KVM_SET_GUEST_DEBUG:
        return true;
    default:
        return false;
    }
}

/* What QEMU calls */

static int answer(int fd, unsigned long request, void *arg)
{
    VCpu *vcpu = vcpu_of(fd);
    unsigned long number = (uintptr_t)arg;
    unsigned type = is_tdx ? KVM_X86_TDX_VM : KVM_X86_SNP_VM;
    int ret;

    switch (request) {
    case KVM_CHECK_EXTENSION:
        if (is_tdx && number == KVM_CAP_READONLY_MEM) {
            return 0;
        }
        if ((number == KVM_CAP_MEMORY_ATTRIBUTES ||
             number == KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES) && no_private) {
            return 0;
        }
        if (number == KVM_CAP_VM_TYPES) {
            ret = call(fd, request, arg);
            return ret < 0 ? ret : ret | BIT(type);
        }
        if (number == KVM_CAP_GUEST_MEMFD_FLAGS) {
            ret = call(fd, request, arg);
            return ret < 0 ? ret : ret & ~GUEST_MEMFD_FLAG_HUGE_2M;
        }
        break;
    case KVM_CREATE_VM:
        is_plain_sev = number == KVM_X86_DEFAULT_VM;
        if (number == type) {
            arg = (void *)KVM_X86_SW_PROTECTED_VM;
        }
        break;
    case KVM_GET_DEVICE_ATTR:
        if (!is_tdx && ((struct kvm_device_attr *)arg)->group ==
                       KVM_X86_GRP_SEV) {
            /* KVM_X86_SEV_VMSA_FEATURES: none that QEMU can choose */
            *(uint64_t *)(uintptr_t)((struct kvm_device_attr *)arg)->addr = 0;
            return 0;
        }
        break;
    case SEV_ISSUE_CMD:
        return is_tdx ? -ENOTTY : sev_device(arg);
    case KVM_MEMORY_ENCRYPT_OP:
        if (!is_tdx) {
            return vcpu ? -ENOTTY : snp_command(arg);
        }
        return vcpu ? tdx_vcpu_command(vcpu, arg) : tdx_vm_command(arg);
    case KVM_SET_USER_MEMORY_REGION2:
        return set_region(fd, arg);
    case KVM_CREATE_GUEST_MEMFD:
        return create_file(fd, arg);
    case KVM_SET_MEMORY_ATTRIBUTES2:
        return set_file_attributes(fd, arg);
    case KVM_SET_MEMORY_ATTRIBUTES:
        return set_attributes(fd, arg);
    case KVM_CREATE_VCPU:
        return create_vcpu(fd, number);
    case KVM_RUN:
        return run(fd, vcpu);
    default:
        if (vcpu && is_protected(request) && (is_tdx || finished)) {
            /* kvm_arch_vcpu_ioctl_get_regs() and its kin */
            return refuse(EINVAL, "ioctl 0x%lx of a protected vCPU", request);
        }
    }
    return call(fd, request, arg);
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    void *arg;
    int ret;

    va_start(ap, request);
    arg = va_arg(ap, void *);
    va_end(ap);

    ret = answer(fd, request, arg);
    if (ret < 0) {
        errno = -ret;
        return -1;
    }
    return ret;
}

/* What fallocate() is, with 64 bit file offsets. */
int fallocate64(int fd, int mode, off64_t offset, off64_t len)
{
    if (mode & FALLOC_FL_PUNCH_HOLE) {
        forget_in_file(fd, offset, len, "punched");
    }
    return syscall(SYS_fallocate, fd, mode, offset, len);
}
