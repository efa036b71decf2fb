/*
 * VFIO in machines with private memory
 *
 * VFIO maps what is shared, by pages, as a RamDiscardListener.  Behind a vIOMMU
 * it maps what the guest's IOMMU maps instead, and nothing would unmap memory
 * that becomes private: such devices are refused.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "hw/boards.h"
#include "hw/pci/pci.h"
#include "hw/pci/pci_device.h"
#include "hw/vfio/vfio-device.h"
#include "system/address-spaces.h"
#include "system/guest-memfd.h"
#include "system/system.h"
#include "guest-memfd.h"
#include "vfio-listener.h"

static void viommu_error(Error **errp)
{
    error_setg(errp, "a device behind a vIOMMU cannot be assigned to a machine "
               "with private memory");
    error_append_hint(errp, "Leave the vIOMMU out, or put the device on a bus "
                      "with bypass_iommu=on (of pxb-pcie), or the machine's "
                      "default_bus_bypass_iommu=on.\n");
}

/* A vIOMMU that comes later on the command line than the device */
static void check_viommus(Notifier *n, void *opaque)
{
    VFIODevice *device;

    QLIST_FOREACH(device, &vfio_device_list, global_next) {
        PCIDevice *pci = (PCIDevice *)object_dynamic_cast(OBJECT(device->dev),
                                                          TYPE_PCI_DEVICE);
        Error *err = NULL;

        if (pci &&
            pci_device_iommu_address_space(pci) != &address_space_memory) {
            viommu_error(&err);
            error_reportf_err(err, "vfio %s: ", device->name);
            exit(1);
        }
    }
}

static int check_plug(NotifierWithReturn *n, void *opaque, Error **errp)
{
    MemoryRegion *mr = opaque;
    const uint64_t pages = memory_region_size(mr) / qemu_real_host_page_size();
    VFIODevice *device;
    ERRP_GUARD();

    QLIST_FOREACH(device, &vfio_device_list, global_next) {
        if (device->bcontainer &&
            !vfio_ram_discard_check_mappings(device->bcontainer, pages, errp)) {
            error_prepend(errp, "not all of this memory could be mapped for the "
                          "assigned device %s, which takes a larger "
                          "dma_entry_limit of the kernel module "
                          "vfio_iommu_type1, or iommufd: ", device->name);
            return -ENOSPC;
        }
    }
    return 0;
}

bool vfio_guest_memfd_check_attach(AddressSpace *as, Error **errp)
{
    static NotifierWithReturn plug = { .notify = check_plug };
    static Notifier done = { .notify = check_viommus };

    if (!guest_memfd_required(current_machine)) {
        return true;
    }
    if (as != &address_space_memory) {
        viommu_error(errp);
        return false;
    }
    if (!QLIST_IS_INSERTED(&plug, node)) {
        guest_memfd_add_plug_notifier(&plug);
        qemu_add_machine_init_done_notifier(&done);
    }
    return true;
}
