/*
 * VFIO in machines with private memory
 *
 * VFIO maps what is shared, by pages, as a RamDiscardListener.  Behind a vIOMMU
 * it maps what the guest's IOMMU maps instead, and nothing would unmap memory
 * that becomes private: such devices are refused.
 *
 * A memory device that VFIO could not map as a whole is not plugged.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/units.h"
#include "hw/boards.h"
#include "hw/pci/pci.h"
#include "hw/pci/pci_device.h"
#include "hw/vfio/vfio-device.h"
#include "system/address-spaces.h"
#include "system/guest-memfd.h"
#include "system/system.h"
#include "guest-memfd.h"
#include "vfio-listener.h"
#include <linux/capability.h>
#include <sys/resource.h>

static void vfio_guest_memfd_viommu_error(Error **errp)
{
    error_setg(errp, "a device behind a vIOMMU cannot be assigned to a machine "
               "with private memory");
    error_append_hint(errp, "Leave the vIOMMU out, or put the device on a bus "
                      "with bypass_iommu=on (of pxb-pcie), or the machine's "
                      "default_bus_bypass_iommu=on.\n");
}

/* A vIOMMU that comes later on the command line than the device */
static void vfio_guest_memfd_check_viommus(Notifier *n, void *opaque)
{
    VFIODevice *device;

    QLIST_FOREACH(device, &vfio_device_list, global_next) {
        PCIDevice *pci = (PCIDevice *)object_dynamic_cast(OBJECT(device->dev),
                                                          TYPE_PCI_DEVICE);
        Error *err = NULL;

        if (pci &&
            pci_device_iommu_address_space(pci) != &address_space_memory) {
            vfio_guest_memfd_viommu_error(&err);
            error_reportf_err(err, "vfio %s: ", device->name);
            exit(1);
        }
    }
}

/* A number in /proc/self/status; 0 if it is not there */
static uint64_t vfio_guest_memfd_process_status(const char *key, int base)
{
    g_autofree char *status = NULL;
    const char *line;

    if (!g_file_get_contents("/proc/self/status", &status, NULL, NULL)) {
        return 0;
    }
    line = strstr(status, key);
    return line ? g_ascii_strtoull(line + strlen(key), NULL, base) : 0;
}

/*
 * May this process lock @size bytes more?  What iommufd locks counts for all
 * processes of the user together, so the kernel may still refuse it later.
 */
static bool vfio_guest_memfd_check_locked(uint64_t size, Error **errp)
{
    uint64_t locked = 0;
    bool type1 = false, iommufd = false;
    VFIODevice *device;
    struct rlimit limit;

    if (getrlimit(RLIMIT_MEMLOCK, &limit) || limit.rlim_cur == RLIM_INFINITY ||
        vfio_guest_memfd_process_status("\nCapEff:", 16) >> CAP_IPC_LOCK & 1) {
        return true;
    }
    QLIST_FOREACH(device, &vfio_device_list, global_next) {
        /* Of the memory that an mdev can access, it locks what it does. */
        type1 |= !device->mdev && !device->iommufd;
        iommufd |= !device->mdev && device->iommufd;
    }
    /* Each has its own count. */
    if (type1) {
        locked = vfio_guest_memfd_process_status("\nVmLck:", 10) * KiB;
    }
    if (iommufd) {
        locked = MAX(locked,
                     vfio_guest_memfd_process_status("\nVmPin:", 10) * KiB);
    }
    if ((type1 || iommufd) && locked + size > limit.rlim_cur) {
        error_setg(errp, "not all of this memory could be mapped for assigned "
                   "devices: %" PRIu64 " bytes are locked for them, %" PRIu64
                   " more are needed, and the process may lock %" PRIu64
                   " (RLIMIT_MEMLOCK)", locked, size, (uint64_t)limit.rlim_cur);
        return false;
    }
    return true;
}

static int vfio_guest_memfd_check_plug(NotifierWithReturn *n, void *opaque,
                                       Error **errp)
{
    MemoryRegion *mr = opaque;
    const uint64_t pages = memory_region_size(mr) / qemu_real_host_page_size();
    VFIODevice *device;
    ERRP_GUARD();

    if (!vfio_guest_memfd_check_locked(memory_region_size(mr), errp)) {
        return -ENOMEM;
    }
    QLIST_FOREACH(device, &vfio_device_list, global_next) {
        if (device->bcontainer &&
            !vfio_ram_discard_check_mappings(device->bcontainer, pages, errp)) {
            error_prepend(errp, "not all of this memory could be mapped for "
                          "the assigned device %s, which takes a larger "
                          "dma_entry_limit of the kernel module "
                          "vfio_iommu_type1, or iommufd: ", device->name);
            return -ENOSPC;
        }
    }
    return 0;
}

bool vfio_guest_memfd_check_attach(AddressSpace *as, Error **errp)
{
    static NotifierWithReturn plug = { .notify = vfio_guest_memfd_check_plug };
    static Notifier done = { .notify = vfio_guest_memfd_check_viommus };

    if (!guest_memfd_machine_has_private(current_machine)) {
        return true;
    }
    if (as != &address_space_memory) {
        vfio_guest_memfd_viommu_error(errp);
        return false;
    }
    if (!QLIST_IS_INSERTED(&plug, node)) {
        guest_memfd_add_plug_notifier(&plug);
        qemu_add_machine_init_done_notifier(&done);
    }
    return true;
}
