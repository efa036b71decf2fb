#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Boots machines with memory-backend-guest-memfd, and resets them
#
# Copyright (c) 2026 The qemu-gmem developers

import os

from qemu.qmp.legacy import QEMUMonitorProtocol

import guest_memfd_boot as boot
from guest_memfd import GuestMemfdTest, IS_LONG, MIB

FIRMWARE = '/usr/share/OVMF'
OVMF_STARTED, LINUX_STARTED = boot.FIRMWARE_STARTED, boot.LINUX_STARTED
TSEG = 64 * MIB                 # what OVMF takes for SMM


class GuestMemfdBoot(boot.BootTest):

    machine_to_reboot = 'q35,smm=on'

    # Name, machine, OVMF's code (None: SeaBIOS), and what a reset leads to:
    # the boot with OVMF takes a minute in the lab, so one is taken to its end.
    BOOTS = (
        ('pc_seabios', 'pc', None, LINUX_STARTED),
        ('q35_seabios', 'q35', None, LINUX_STARTED),
        ('q35_ovmf_smm', 'q35', 'OVMF_CODE_4M.secboot.fd', OVMF_STARTED),
    )
    BOOTS_LONG = (
        ('q35_ovmf', 'q35', 'OVMF_CODE_4M.fd', OVMF_STARTED),
        ('pc_ovmf', 'pc', 'OVMF_CODE_4M.fd', OVMF_STARTED),
    )

    def boot(self, machine, code, after_reset):
        args = []
        if code:
            if not os.path.exists(os.path.join(FIRMWARE, code)):
                self.skipTest(f'{code} is not there: install ovmf')
            args = [*self.firmware(FIRMWARE, code, 'OVMF_VARS_4M.fd'),
                    '-global', 'driver=cfi.pflash01,property=secure,value='
                               + ('on' if 'secboot' in code else 'off')]
        self.boot_and_reset(*args, machine=f'{machine},smm=on', after_reset=after_reset,
                            hidden=TSEG if 'secboot' in (code or '') else 0)

    def test_suspend(self):
        """Memory keeps its contents."""
        vm, console = self.start(
            'vm', payload='fill,base=32M,size=1M,seed=5 suspend '
                          'verify,base=32M,size=1M,seed=5')
        console.expect('^suspended')
        vm.event_wait('SUSPEND')
        vm.cmd('system_wakeup')
        console.expect('^done 0 failed')
        self.assert_bound(vm)

    def test_negotiation(self):
        """QMP's client connects while events come, some of them before the greeting."""
        firmware = self.scratch_file('firmware')
        # The guest does nothing but reset: mov $0xfe,%al; out %al,$0x64; hlt.
        with open(firmware, 'wb') as file:
            file.write(bytes.fromhex('b0fee664f4').ljust(16).rjust(64 * 1024, b'\0'))
        path = os.path.join(self.socket_dir().name, 'qmp')
        vm = self.machine_vm('vm', '-bios', firmware, '-qmp', f'unix:{path},server=on,wait=off',
                             memory=32)
        vm.launch()
        for _ in range(60):
            vm.event_wait('RESET')
            with QEMUMonitorProtocol(path) as qmp:
                qmp.connect()
                self.assertTrue(qmp.cmd('query-status')['running'])


GuestMemfdBoot.add_cases('boot', GuestMemfdBoot.BOOTS)
if IS_LONG:
    GuestMemfdBoot.add_cases('boot', GuestMemfdBoot.BOOTS_LONG)

if __name__ == '__main__':
    GuestMemfdTest.main()
