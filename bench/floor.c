/*
 * floor: a guest's conversions of memory with the system calls that they cannot
 * do without, and nothing else; to compare QEMU with
 *
 *   floor run PAYLOAD MIB CASES   runs the lab's payload, its output on stdout
 *   floor tsc                     the TSC's frequency in Hz
 *   floor memset MIB              nanoseconds to write that much new memory
 *   floor store                   bytes that KVM takes for a run of private
 *                                 pages, with 2^19 of them in 1 TiB
 *
 * What a conversion cannot do without: the guest's exit, KVM's attribute, and
 * the mapping of the memory, which QEMU asks KVM for as well. Where KVM does
 * not convert in place, also the freeing of the half that has lost its meaning.
 */
#include <elf.h>
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/kvm_para.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "hw/xen/start_info.h"

#define START_INFO 0x1000       /* below the payload; then its command line */
#define COMMAND_LINE 0x2000
#define MAX_CPUID 256

/* Linux 7.4: until QEMU's copy of its headers has these */
#ifndef KVM_SET_MEMORY_ATTRIBUTES2
#define KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES 252
struct kvm_memory_attributes2 {
    __u64 offset, size, attributes, flags, error_offset, reserved[11];
};
#define KVM_SET_MEMORY_ATTRIBUTES2 \
    _IOWR(KVMIO, 0xd2, struct kvm_memory_attributes2)
#endif

static int vm, vcpu, shared_fd, private_fd;
static bool in_place;           /* shared_fd is private_fd */
static uint8_t *memory;

static int64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int must(int ret, const char *what)
{
    if (ret < 0) {
        err(1, "%s", what);
    }
    return ret;
}

static int create_guest_memfd(uint64_t size)
{
    struct kvm_create_guest_memfd gmem = { .size = size };

    in_place = ioctl(vm, KVM_CHECK_EXTENSION,
                     KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES) > 0;
    if (in_place) {
        gmem.flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED;
    }
    return must(ioctl(vm, KVM_CREATE_GUEST_MEMFD, &gmem),
                "KVM_CREATE_GUEST_MEMFD");
}

static void create_vm(uint64_t size)
{
    int kvm = must(open("/dev/kvm", O_RDWR), "/dev/kvm");
    struct kvm_enable_cap cap = {
        .cap = KVM_CAP_EXIT_HYPERCALL, .args = { 1 << KVM_HC_MAP_GPA_RANGE },
    };
    struct kvm_userspace_memory_region2 region = {
        .flags = KVM_MEM_GUEST_MEMFD, .memory_size = size,
    };
    struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) +
                                      MAX_CPUID * sizeof(*cpuid->entries));

    vm = must(ioctl(kvm, KVM_CREATE_VM, KVM_X86_SW_PROTECTED_VM),
              "KVM_CREATE_VM");
    must(ioctl(vm, KVM_ENABLE_CAP, &cap), "KVM_CAP_EXIT_HYPERCALL");
    must(ioctl(vm, KVM_CREATE_IRQCHIP), "KVM_CREATE_IRQCHIP");
    private_fd = create_guest_memfd(size);
    if (in_place) {
        shared_fd = private_fd;
    } else {
        shared_fd = must(memfd_create("ram", 0), "memfd_create");
        must(ftruncate(shared_fd, size), "ftruncate");
    }
    memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, shared_fd, 0);
    if (memory == MAP_FAILED) {
        err(1, "mmap");
    }
    region.guest_memfd = private_fd;
    region.userspace_addr = (uintptr_t)memory;
    must(ioctl(vm, KVM_SET_USER_MEMORY_REGION2, &region),
         "KVM_SET_USER_MEMORY_REGION2");
    vcpu = must(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
    cpuid->nent = MAX_CPUID;
    must(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid), "KVM_GET_SUPPORTED_CPUID");
    must(ioctl(vcpu, KVM_SET_CPUID2, cpuid), "KVM_SET_CPUID2");
    free(cpuid);
}

/* As QEMU's -kernel does for a PVH kernel */
static void load(const char *path, const char *cases)
{
    FILE *file = fopen(path, "r");
    Elf64_Ehdr header;
    Elf64_Phdr segment;
    struct hvm_start_info info = {
        .magic = XEN_HVM_START_MAGIC_VALUE, .version = 1,
        .cmdline_paddr = COMMAND_LINE,
    };
    struct kvm_segment flat = {
        .limit = 0xffffffff, .present = 1, .s = 1, .db = 1, .g = 1,
    };
    struct kvm_regs regs = { .rflags = 2, .rbx = START_INFO };
    struct kvm_sregs sregs;

    if (!file || fread(&header, sizeof(header), 1, file) != 1) {
        err(1, "%s", path);
    }
    for (int i = 0; i < header.e_phnum; i++) {
        fseek(file, header.e_phoff + i * sizeof(segment), SEEK_SET);
        if (fread(&segment, sizeof(segment), 1, file) != 1) {
            err(1, "%s", path);
        }
        fseek(file, segment.p_offset, SEEK_SET);
        if (segment.p_type == PT_LOAD &&
            fread(memory + segment.p_paddr, segment.p_filesz, 1, file) != 1) {
            err(1, "%s", path);
        }
    }
    fclose(file);
    memcpy(memory + START_INFO, &info, sizeof(info));
    strcpy((char *)memory + COMMAND_LINE, cases);

    must(ioctl(vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
    flat.type = 0xb;
    flat.selector = 8;
    sregs.cs = flat;
    flat.type = 3;
    flat.selector = 16;
    sregs.ds = sregs.es = sregs.ss = flat;
    sregs.cr0 = 1;
    must(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
    regs.rip = header.e_entry;
    must(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
}

static void set_attributes(uint64_t start, uint64_t size, bool private)
{
    struct kvm_memory_attributes attributes = {
        .address = start, .size = size,
        .attributes = private ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0,
    };
    struct kvm_memory_attributes2 attributes2 = {
        .offset = start, .size = size, .attributes = attributes.attributes,
    };

    if (in_place) {
        must(ioctl(private_fd, KVM_SET_MEMORY_ATTRIBUTES2, &attributes2),
             "KVM_SET_MEMORY_ATTRIBUTES2");
    } else {
        must(ioctl(vm, KVM_SET_MEMORY_ATTRIBUTES, &attributes),
             "KVM_SET_MEMORY_ATTRIBUTES");
    }
}

static void floor_convert(uint64_t start, uint64_t size, bool private)
{
    struct kvm_pre_fault_memory fault = { .gpa = start, .size = size };

    set_attributes(start, size, private);
    if (!in_place) {
        must(fallocate(private ? shared_fd : private_fd,
                       FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start, size),
             "fallocate");
    }
    while (fault.size) {
        if (ioctl(vcpu, KVM_PRE_FAULT_MEMORY, &fault)) {
            break;
        }
    }
}

/* Until the payload writes its status to port 0xf4 */
static int floor_run(void)
{
    int size = must(ioctl(open("/dev/kvm", O_RDWR), KVM_GET_VCPU_MMAP_SIZE),
                    "KVM_GET_VCPU_MMAP_SIZE");
    struct kvm_run *run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED,
                               vcpu, 0);
    uint8_t *data;

    if (run == MAP_FAILED) {
        err(1, "mmap");
    }
    for (;;) {
        must(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
        switch (run->exit_reason) {
        case KVM_EXIT_HYPERCALL:
            floor_convert(run->hypercall.args[0],
                          run->hypercall.args[1] * 4096,
                          run->hypercall.args[2] & KVM_MAP_GPA_RANGE_ENCRYPTED);
            run->hypercall.ret = 0;
            break;
        case KVM_EXIT_IO:
            data = (uint8_t *)run + run->io.data_offset;
            if (run->io.direction == KVM_EXIT_IO_OUT && run->io.port == 0xf4) {
                return *data;
            }
            if (run->io.direction == KVM_EXIT_IO_OUT && run->io.port == 0xe9) {
                putchar(*data);
            }
            break;
        default:
            errx(1, "KVM's exit reason %u", run->exit_reason);
        }
    }
}

static void print_tsc(void)
{
    int64_t begin = now(), ticks = __builtin_ia32_rdtsc();

    usleep(500000);
    ticks = __builtin_ia32_rdtsc() - ticks;
    printf("%.0f\n", ticks * 1e9 / (now() - begin));
}

static void print_memset(uint64_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int64_t begin = now();

    if (p == MAP_FAILED) {
        err(1, "mmap");
    }
    memset(p, 1, size);
    printf("%lld\n", (long long)(now() - begin));
}

/* In KiB, of all that the kernel has in small objects */
static long slab(void)
{
    FILE *file = fopen("/proc/meminfo", "r");
    char line[80];
    long size;

    while (file && fgets(line, sizeof(line), file)) {
        if (sscanf(line, "Slab: %ld", &size) == 1) {
            fclose(file);
            return size;
        }
    }
    errx(1, "/proc/meminfo has no Slab");
}

static void print_store(void)
{
    const uint64_t size = 1ULL << 40, run = 1 << 20;
    int kvm = must(open("/dev/kvm", O_RDWR), "/dev/kvm");
    long before;

    vm = must(ioctl(kvm, KVM_CREATE_VM, KVM_X86_SW_PROTECTED_VM),
              "KVM_CREATE_VM");
    private_fd = create_guest_memfd(size);
    before = slab();
    for (uint64_t at = 0; at < size; at += 2 * run) {
        set_attributes(at, run, true);
    }
    printf("%.1f\n", (slab() - before) * 1024.0 / (size / 2 / run));
}

int main(int argc, char **argv)
{
    if (argc == 5 && !strcmp(argv[1], "run")) {
        create_vm(atoll(argv[3]) << 20);
        load(argv[2], argv[4]);
        return floor_run();
    } else if (argc == 2 && !strcmp(argv[1], "tsc")) {
        print_tsc();
    } else if (argc == 3 && !strcmp(argv[1], "memset")) {
        print_memset(atoll(argv[2]) << 20);
    } else if (argc == 2 && !strcmp(argv[1], "store")) {
        print_store();
    } else {
        errx(1, "usage: floor run PAYLOAD MIB CASES | tsc | memset MIB | "
             "store");
    }
    return 0;
}
