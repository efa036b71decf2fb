#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Conversions whose steps fail in the kernel: all is as before, the guest is told
#
# Copyright (c) 2026 The qemu-gmem developers


from guest_memfd import GuestMemfdPrivateTest, split_only

AREA = 'base=80M,size=64K'
EIO = 5
ENOMEM = 12


class GuestMemfdPrivateFault(GuestMemfdPrivateTest):

    FAILURES = (
        # The step that fails, and whether pages are private before
        ('attribute_to_private', 'attribute', 0),
        ('attribute_to_shared', 'attribute', 1),
        *(() if GuestMemfdPrivateTest.in_place else (
            ('drop_to_shared', 'drop', 1),
            ('drop_to_private', 'hole', 0),
        )),
    )

    def failing(self, step, private):
        vm, console = self.start_faulty(
            'vm', payload=f'convert,{AREA},private={private} fill,{AREA},seed=3 wait '
            f'convert,{AREA},private={1 - private},expect={EIO} '
            f'verify,{AREA},seed=3 wait '
            f'convert,{AREA},private={1 - private} converted,{AREA},seed=3')
        console.expect('^waiting')
        self.arm(step, EIO)
        self.press_key(vm)
        console.expect('^waiting')
        conversion = self.info(vm)['conversion']
        self.assertEqual(conversion['private'], private * 64 * 1024)
        self.assertEqual([(failure['errno'], failure['count'])
                          for failure in conversion['failures']], [(EIO, 1)])
        self.disarm()
        self.press_key(vm)
        console.expect('^done 0 failed')
        self.assertEqual(self.info(vm)['conversion']['private'],
                         (1 - private) * 64 * 1024)
        vm.shutdown()
        # The guest could fill the log.
        self.assertNotRegex(vm.get_log(), 'iscard|allocate')

    def test_lost_slots(self):
        """KVM does not take memory back that has been logged.  The request that
        needs it fails, the VM stops, and a reset mends it."""
        vm, console = self.start_faulty(
            'vm', accel='kvm,dirty-ring-size=4096',
            payload=f'wait convert,{AREA},private=1 zero,{AREA}')
        console.expect('^waiting')
        vm.cmd('set-vcpu-dirty-limit', **{'dirty-rate': 1000})
        self.wait_for('memory is logged', lambda:
                      self.slots(vm)[0]['binding'] == 'dirty-log')
        self.arm('slot', ENOMEM)
        self.press_key(vm)
        self.expect_lost_slots(vm, 0)
        console.expect('^waiting')
        self.press_key(vm)
        console.expect('^done 0 failed')
        self.assertEqual(self.info(vm)['conversion']['private'], 64 * 1024)

    def expect_lost_slots(self, vm, private):
        """The VM stops; disarm() and a reset mend it."""
        vm.event_wait('STOP')
        self.assertEqual(vm.cmd('query-status')['status'], 'internal-error')
        self.assertIn('lost', [slot['binding'] for slot in self.slots(vm)])
        self.assertEqual(self.info(vm)['conversion']['private'], private)
        reply = vm.qmp('cont')
        self.assertIn('Resetting', reply['error']['desc'])

        self.disarm()
        vm.cmd('system_reset')
        self.wait_for('reset', lambda: vm.cmd('query-status')['status']
                      == 'prelaunch')
        self.assertNotIn('lost', [slot['binding'] for slot in self.slots(vm)])
        vm.cmd('cont')

    @split_only
    def test_slots_without_attributes(self):
        """KVM takes memory back, but not that two parts of it are private: no
        vCPU may find those shared."""
        other = 'base=90M,size=64K'
        vm, console = self.start_faulty(
            'vm', payload=f'convert,{AREA},private=1 convert,{other},private=1 '
            'wait shadow wait')
        console.expect('^waiting')
        # Both are cleared with the old slot and set with the new one.
        self.arm('attribute', ENOMEM, 4)
        self.press_key(vm)
        self.expect_lost_slots(vm, 2 * 64 * 1024)
        console.expect('^waiting')
        self.press_key(vm)
        console.expect('^waiting')
        self.press_key(vm)
        console.expect('^done 0 failed')
        self.assertEqual(self.info(vm)['conversion']['private'], 2 * 64 * 1024)

    def test_no_slots(self):
        """At the start, QEMU ends."""
        vm = self.machine_vm('vm', payload='hello')
        self.inject_faults(vm)
        self.arm('slot', ENOMEM)
        self.assert_refused(vm, "KVM does not take the guest's memory at")

    def test_unknown_fault(self):
        """KVM says something about a memory fault that QEMU does not know."""
        vm, console = self.start_faulty('vm', payload='wait')
        console.expect('^waiting')
        self.arm('exit', 0x10)
        vm.event_wait('STOP')
        self.assertEqual(vm.cmd('query-status')['status'], 'internal-error')
        self.disarm()
        vm.shutdown()
        self.assertIn('a memory fault at 0x0 with flags 0x10', vm.get_log())

    # A page where no memory is, as if a DIMM had just been unplugged, and that
    # the vCPU has found to be private before
    STALE = 0x8, 0xc0000000

    def test_stale_fault(self):
        """The access is repeated, and the guest goes on."""
        vm, console = self.start_faulty('vm', '-trace', 'kvm_memory_fault',
                                        payload='wait')
        console.expect('^waiting')
        self.arm('exit', self.STALE[0], 1, self.STALE[1])
        self.press_key(vm)
        console.expect('^done 0 failed')
        self.disarm()
        self.assertEqual(vm.cmd('query-status')['status'], 'running')
        vm.shutdown()
        self.assertEqual(vm.get_log().count('kvm_memory_fault'), 1,
                         vm.get_log())

    def test_endless_fault(self):
        """The same fault, again and again: the VM stops."""
        vm, console = self.start_faulty('vm', payload='wait')
        console.expect('^waiting')
        self.arm('exit', self.STALE[0], 0, self.STALE[1])
        vm.event_wait('STOP')
        self.assertEqual(vm.cmd('query-status')['status'], 'internal-error')
        self.disarm()
        vm.shutdown()
        self.assertIn('access 0xc0000000 as private memory, however often',
                      vm.get_log())


GuestMemfdPrivateFault.add_cases('failing', GuestMemfdPrivateFault.FAILURES)

if __name__ == '__main__':
    GuestMemfdPrivateTest.main()
