#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Boots machines with memory-backend-guest-memfd, and resets them
#
# Copyright (c) 2026 The qemu-gmem developers

import guest_memfd_boot as boot
from guest_memfd import GuestMemfdTest, IS_LONG


class GuestMemfdBoot(boot.BootTest):

    def test_linux(self):
        """Without firmware"""
        self.boot_and_reset()

    def boot_edk2(self):
        """It boots Linux, which takes minutes in the lab, and begins again."""
        self.boot_and_reset(*self.edk2(), after_reset=boot.FIRMWARE_STARTED)

    def test_reset(self):
        """By the guest itself; memory keeps its contents."""
        vm, console = self.start('vm', payload='reset,count=3 fill,base=32M,size=1M,seed=5 '
                                               'verify,base=32M,size=1M,seed=5')
        for number in range(4):
            console.expect(f'^boot {number}$')
        console.expect('^done 0 failed')
        self.assert_bound(vm)


if IS_LONG:
    GuestMemfdBoot.add_cases('boot_edk2', [('edk2',)])

if __name__ == '__main__':
    GuestMemfdTest.main()
