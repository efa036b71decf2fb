#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Requests that convert much memory: they fail as a whole, and hold up nobody
#
# Copyright (c) 2026 The qemu-gmem developers


from guest_memfd import GuestMemfdPrivateTest, MIB

EIO = 5
PART = 16 * MIB         # see guest-memfd-convert.c
SIZE = 6 * PART
AREA = f'base=64M,size={SIZE}'
HOUR = 3600             # a request sleeps so long between two parts


class GuestMemfdPrivateLong(GuestMemfdPrivateTest):

    # The step that fails, and whether pages are private before
    FAILURES = (
        ('attribute_to_private', 'attribute', 0, 5),
        ('attribute_to_shared', 'attribute', 1, 5),
        *(() if GuestMemfdPrivateTest.in_place else (
            ('drop_to_shared', 'drop', 1, 1),
            ('drop_to_private', 'hole', 0, 1),
        )),
    )

    def failing(self, step, private, nth):
        """Not a byte is lost, wherever the request fails."""
        vm, console = self.start_faulty(
            'vm', payload=f'convert,{AREA},private={private} fill,{AREA},seed=3 wait '
            f'convert,{AREA},private={1 - private},expect={EIO} '
            f'verify,{AREA},seed=3 wait '
            f'convert,{AREA},private={1 - private} converted,{AREA},seed=3')
        console.expect('^waiting')
        counters = self.info(vm)['conversion']
        self.arm(step, EIO, nth)
        self.press_key(vm)
        console.expect('^waiting')
        conversion = self.info(vm)['conversion']
        self.assertEqual(conversion['private'], private * SIZE)
        self.assertEqual([(failure['errno'], failure['count'])
                          for failure in conversion['failures']], [(EIO, 1)])
        for counter in 'to-private', 'to-shared':
            self.assertEqual(conversion[counter], counters[counter])
        self.disarm()
        self.press_key(vm)
        console.expect('^done 0 failed')
        self.assertEqual(self.private(vm), (1 - private) * SIZE)
        # One request, however many parts it has had
        self.assertEqual(self.info(vm)['conversion'][
            'to-shared' if private else 'to-private'], 1)

    def in_the_middle(self, private, *then, **kwargs):
        """A VM whose guest converts the area, and waits after the first part
        until QEMU wants something of its vCPU."""
        vm, console = self.start_faulty(
            'vm', payload=f'convert,{AREA},private={private} fill,{AREA},seed=3 wait '
            f'convert,{AREA},private={1 - private}' +
            ''.join(then or [f' converted,{AREA},seed=3']), **kwargs)
        console.expect('^waiting')
        self.arm('give-way', HOUR)
        self.press_key(vm)
        self.wait_for_part(vm, private * SIZE)
        self.assertEqual(self.private(vm), SIZE - PART if private else PART)
        return vm, console

    def shared_but_not_ended(self, then='', **kwargs):
        """A VM that stands still when its guest's request has shared all, or in
        place all but its last two parts. The guest expects that it fails, which makes all
        private again."""
        vm, console = self.in_the_middle(1, f',expect={EIO} verify,{AREA},seed=3 ',
                                         then, **kwargs)
        vm.cmd('stop')
        while (left := self.private(vm)) > (2 * PART if self.in_place else 0):
            vm.cmd('cont')
            self.wait_for_part(vm, left)
            vm.cmd('stop')
        self.disarm()
        return vm, console

    def arm_last_step(self):
        """To fail: in place, the next part; else the end, when its contents go."""
        if self.in_place:
            self.arm('attribute', EIO, 1)
        else:
            self.arm('drop', EIO)

    def wait_for_part(self, vm, before):
        """The request has changed a part and sleeps. Only then does a kick of the
        vCPU end the sleep."""
        self.wait_for('the next part', lambda: self.private(vm) != before and
                      self.sleeps(vm))

    def test_give_way(self):
        """A request of one part gives way at its end: the next one may follow
        at once."""
        vm, console = self.start_faulty(
            'vm', payload=f'wait convert,base=64M,size={PART},private=1')
        console.expect('^waiting')
        self.arm('give-way', HOUR)
        self.press_key(vm)
        self.wait_for('QEMU gives way', lambda: self.sleeps(vm))
        self.assertEqual(self.private(vm), PART)
        self.disarm()
        vm.cmd('stop')
        vm.cmd('cont')
        console.expect('^done 0 failed')

    STOPS = (('stop_to_private', 0), ('stop_to_shared', 1))

    def stopped(self, private):
        """'stop' does not wait for the end; the guest sees nothing of it."""
        vm, console = self.in_the_middle(private)
        for _ in range(2):
            vm.cmd('stop')
            left = self.private(vm)
            self.assertTrue(0 < left < SIZE, left)
            vm.cmd('cont')
            self.wait_for_part(vm, left)
        self.disarm()
        vm.cmd('stop')
        vm.cmd('cont')
        console.expect('^done 0 failed')
        self.assertEqual(self.private(vm), (1 - private) * SIZE)

    def test_reset(self):
        """What is interrupted is forgotten."""
        vm, console = self.in_the_middle(0)
        vm.cmd('stop')
        vm.cmd('system_reset')
        self.wait_for('the reset', lambda: self.private(vm) == 0)
        self.disarm()
        vm.cmd('cont')
        console.expect('^waiting')
        self.press_key(vm)
        console.expect('^done 0 failed')
        self.assertEqual(self.private(vm), SIZE)

    def test_savevm(self):
        """There is no snapshot of half of it."""
        vm, console = self.in_the_middle(1)
        vm.cmd('stop')
        answer = vm.cmd('human-monitor-command', command_line='savevm one')
        self.assertIn('are private and cannot be read', answer)
        self.disarm()
        vm.cmd('cont')
        console.expect('^done 0 failed')

    def test_undo_and_migration(self):
        """What an undo makes private again does not migrate."""
        vm, console = self.shared_but_not_ended()
        refused = f'{SIZE} bytes of the guest.s memory are private'
        answer = vm.cmd('human-monitor-command', command_line='savevm one')
        self.assertRegex(answer, refused)
        with self.assertRaisesRegex(Exception, refused):
            vm.cmd('migrate', uri='exec:cat >/dev/null')
        self.arm_last_step()
        vm.cmd('cont')
        console.expect('^done 0 failed')
        self.assertEqual(self.private(vm), SIZE)

    def test_undo_and_log(self):
        """What an undo makes private again has to be bound, not logged."""
        vm, console = self.shared_but_not_ended(
            f'wait convert,{AREA},private=0', accel='kvm,dirty-ring-size=4096')
        vm.cmd('set-vcpu-dirty-limit', args_dict={'dirty-rate': 1000})
        self.arm_last_step()
        vm.cmd('cont')
        console.expect('^waiting')
        self.assertEqual(self.private(vm), SIZE)
        self.disarm()
        self.press_key(vm)
        console.expect('^done 0 failed')
        self.wait_for('the log', lambda: self.slots(vm)[-1]['binding'] == 'dirty-log')

    def test_quit(self):
        vm, _ = self.in_the_middle(0)
        vm.cmd('quit')
        vm.wait()
        self.assertEqual(vm.exitcode(), 0)

    def test_others(self):
        """Long requests of many vCPUs, over each other's."""
        vm, console = self.start('vm', '-smp', '4', memory=384, payload='fuzz,'
                                 'base=64M,size=256M,hole=3G,count=100')
        self.wait_for('requests', lambda: self.info(vm)['conversion']['to-private'])
        for _ in range(10):
            vm.cmd('stop')
            vm.cmd('cont')
        console.expect('^done 0 failed')


GuestMemfdPrivateLong.add_cases('failing', GuestMemfdPrivateLong.FAILURES)
GuestMemfdPrivateLong.add_cases('stopped', GuestMemfdPrivateLong.STOPS)

if __name__ == '__main__':
    GuestMemfdPrivateTest.main()
