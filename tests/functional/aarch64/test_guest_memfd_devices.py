#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Hotplug, NUMA nodes, balloon and vhost-user with memory-backend-guest-memfd
#
# Copyright (c) 2026 The qemu-gmem developers

import guest_memfd_devices as devices
from guest_memfd import GuestMemfdTest, IS_LONG


class GuestMemfdDevices(devices.DevicesTest):

    def hotplug_edk2(self):
        """Linux takes DIMMs by ACPI, which EDK2 tells it of: that takes minutes."""
        self.hotplug(None, 256, self.edk2())


if IS_LONG:
    GuestMemfdDevices.add_cases('hotplug_edk2', [('hotplug',)])

if __name__ == '__main__':
    GuestMemfdTest.main()
