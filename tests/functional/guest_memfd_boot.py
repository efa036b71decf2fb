#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Boots machines with memory-backend-guest-memfd, and resets them
#
# Copyright (c) 2026 The qemu-gmem developers

import os
import shutil

from guest_memfd import GuestMemfdTest, IS_LONG, MEMTOTAL, MIB, SLOW

FIRMWARE = '/usr/share/OVMF'
OVMF_STARTED = '\x1b\\[2J'      # it clears the screen
LINUX_STARTED = 'guest: ready'
TSEG = 64 * MIB                 # what OVMF takes for SMM


class GuestMemfdBoot(GuestMemfdTest):

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
            code = os.path.join(FIRMWARE, code)
            if not os.path.exists(code):
                self.skipTest(f'{code} is not there: install ovmf')
            variables = self.scratch_file('vars.fd')
            shutil.copyfile(os.path.join(FIRMWARE, 'OVMF_VARS_4M.fd'),
                            variables)
            args = ['-drive', f'if=pflash,unit=0,format=raw,readonly=on,'
                              f'file={code}',
                    '-drive', f'if=pflash,unit=1,format=raw,file={variables}',
                    '-global', 'driver=cfi.pflash01,property=secure,value='
                               + ('on' if 'secboot' in code else 'off')]
        vm, console = self.start('vm', *args, machine=f'{machine},smm=on',
                                 linux='gmem.mode=wait')
        console.expect(LINUX_STARTED)
        tseg = TSEG if 'secboot' in (code or '') else 0
        self.assertGreater(
            console.number(MEMTOTAL),
            200 * 1024 - tseg // 1024)
        self.assert_bound(vm, hidden=tseg)

        vm.cmd('system_reset')
        console.expect(after_reset)
        if after_reset == LINUX_STARTED:
            self.assertIn('Linux', console.run('uname -a'))
            self.assert_bound(vm)

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

    def test_reboot(self):
        """Linux, several times; nothing is left over from any of them."""
        vm, console = self.start('vm', machine='q35,smm=on', memory=128,
                                 linux='gmem.mode=wait')
        console.expect(LINUX_STARTED)
        slots = self.slots(vm)
        sizes = [self.process_status(vm, 'VmRSS')]
        for _ in range(10 if IS_LONG else 3):
            console.socket.sendall(b'reboot -f\n')
            console.expect(LINUX_STARTED)
            sizes.append(self.process_status(vm, 'VmRSS'))
        self.assert_bound(vm)
        self.assertEqual(self.slots(vm), slots)
        self.assertEqual(len(self.guest_memfds(vm)), 1)
        self.assertLess(sizes[-1] - sizes[0], 128 * MIB, sizes)
        if SLOW == 1:   # a sanitizer keeps what is freed
            self.assertLess(sizes[-1] - sizes[1], 8 * MIB, sizes)
        self.assertLessEqual(self.info(vm)['allocated'], 128 * MIB)


GuestMemfdBoot.add_cases('boot', GuestMemfdBoot.BOOTS)
if IS_LONG:
    GuestMemfdBoot.add_cases('boot', GuestMemfdBoot.BOOTS_LONG)

if __name__ == '__main__':
    GuestMemfdTest.main()
