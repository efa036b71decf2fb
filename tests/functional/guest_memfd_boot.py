# SPDX-License-Identifier: GPL-2.0-or-later
#
# Boots machines with memory-backend-guest-memfd, and resets them, on each architecture
#
# Copyright (c) 2026 The qemu-gmem developers

from guest_memfd import GuestMemfdTest, IS_LONG, MEMTOTAL, MIB, SLOW

FIRMWARE_STARTED = '\x1b\\[2J'   # EDK2's clears the screen
LINUX_STARTED = 'guest: ready'


class BootTest(GuestMemfdTest):

    machine_to_reboot = None    # the architecture's

    def boot_and_reset(self, *args, machine=None, after_reset=LINUX_STARTED, hidden=0):
        """Linux boots; then a reset, after which this is on the console. The firmware
        hides so much memory."""
        vm, console = self.start('vm', *args, machine=machine, linux='gmem.mode=wait')
        console.expect(LINUX_STARTED)
        self.assertGreater(console.number(MEMTOTAL), 200 * 1024 - hidden // 1024)
        self.assert_bound(vm, hidden=hidden)

        vm.cmd('system_reset')
        console.expect(after_reset)
        if after_reset == LINUX_STARTED:
            self.assertIn('Linux', console.run('uname -a'))
            self.assert_bound(vm)

    def test_reboot(self):
        """Linux, several times; nothing is left over from any of them."""
        vm, console = self.start('vm', machine=self.machine_to_reboot, memory=128,
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
