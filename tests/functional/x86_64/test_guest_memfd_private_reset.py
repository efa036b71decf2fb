#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Private memory over each kind of reset: what keeps it, and what ends it
#
# Copyright (c) 2026 The qemu-gmem developers

import os
import subprocess

from guest_memfd import GuestMemfdPrivateTest, MIB

EIO = 5
AREA = 'base=32M,size=64K'
KVM_SET_USER_MEMORY_REGION2 = 0x40a0ae49
DIMM = 4 << 30      # where the first one is
DIMM_AREA = 'base=4G,size=2M'
DIMM_REST = 'base=0x100001000,size=2044K'   # without the page that a device writes to


class GuestMemfdPrivateReset(GuestMemfdPrivateTest):

    def suspend(self, machine):
        """What is private stays so, with its contents."""
        vm, console = self.start(
            'vm', machine=machine,
            payload=f'convert,{AREA},private=1 fill,{AREA},seed=5 '
                    'fill,base=40M,size=64K,seed=6 suspend wait '
                    f'verify,{AREA},seed=5 verify,base=40M,size=64K,seed=6 '
                    f'convert,{AREA},private=0 converted,{AREA},seed=5')
        console.expect('^suspended')
        vm.event_wait('SUSPEND')
        self.assertEqual(self.private(vm), 64 * 1024)
        vm.cmd('system_wakeup')
        vm.event_wait('WAKEUP')
        console.expect('^waiting')
        self.assertEqual(self.private(vm), 64 * 1024)
        self.assertEqual(self.info(vm)['conversion']['to-shared'], 0)
        self.press_key(vm)
        console.expect('^done 0 failed')
        self.assertEqual(self.private(vm), 0)

    def test_suspend_reset(self):
        """A reset of a suspended VM is a reset."""
        vm, console = self.start(
            'vm', payload=f'wait convert,{AREA},private=1 suspend')
        console.expect('^waiting')
        self.press_key(vm)
        console.expect('^suspended')
        vm.event_wait('SUSPEND')
        vm.cmd('system_reset')
        vm.event_wait('RESET')
        self.assertEqual(self.private(vm), 0)

    def test_loadvm(self):
        """A snapshot is loaded into shared memory."""
        disk = self.scratch_file('disk')
        subprocess.run([os.environ['QEMU_TEST_GMEM_IMG'], 'create', '-q',
                        '-f', 'qcow2', disk, '64M'], check=True)
        vm, console = self.start_faulty(
            'vm', '-drive', f'if=none,id=disk,file={disk}',
            payload=f'fill,{AREA},seed=5 wait verify,{AREA},seed=5 '
                    f'convert,{AREA},private=1 fill,{AREA},seed=6')

        def monitor(command):
            return vm.cmd('human-monitor-command', command_line=command)

        console.expect('^waiting')
        self.assertEqual(monitor('savevm one'), '')
        for failure in False, True:
            self.press_key(vm)
            console.expect('^done 0 failed')
            self.assertEqual(self.private(vm), 64 * 1024)
            if failure:
                self.arm('attribute', EIO)
                self.assertIn('could not be reset', monitor('loadvm one'))
                with self.assertRaisesRegex(Exception, 'Resetting'):
                    vm.cmd('cont')
                self.disarm()
            self.assertEqual(monitor('loadvm one'), '')
            self.assertEqual(self.private(vm), 0)
            if failure:
                vm.cmd('cont')
        self.press_key(vm)
        console.expect('^done 0 failed')

    def reset_fails(self, running):
        """The VM stays stopped until a reset has succeeded."""
        vm, console = self.start_faulty(
            'vm',
            '-object', 'memory-backend-ram,id=node0,size=128M',
            '-object', 'memory-backend-ram,id=node1,size=128M',
            '-numa', 'node,memdev=node0', '-numa', 'node,memdev=node1',
            payload=f'convert,{AREA},private=1 '
                    'convert,base=160M,size=64K,private=1', backend=None)
        console.expect('^done 0 failed')
        nodes = 'node0', 'node1'
        self.assertEqual([self.private(vm, node) for node in nodes],
                         [64 * 1024] * 2)
        if not running:
            vm.cmd('stop')
        self.arm('attribute', EIO, 1)       # for one of the two
        vm.cmd('system_reset')
        vm.event_wait('RESET')
        self.wait_for('an internal error', lambda: vm.cmd('query-status')
                      ['status'] == 'internal-error')
        self.assertEqual(sorted(self.private(vm, node) for node in nodes),
                         [0, 64 * 1024])
        with self.assertRaisesRegex(Exception, 'Resetting'):
            vm.cmd('cont')
        self.assertEqual(vm.cmd('query-status')['status'], 'internal-error')
        self.disarm()
        vm.cmd('system_reset')
        self.wait_for('a reset', lambda: vm.cmd('query-status')['status']
                      == 'prelaunch')
        self.assertEqual([self.private(vm, node) for node in nodes], [0, 0])
        vm.cmd('cont')
        console.expect('^done 0 failed')
        vm.shutdown()
        self.assertEqual(vm.get_log().count('could not be reset'), 1,
                         vm.get_log())

    def test_dimm(self):
        """A DIMM that is plugged again is as new."""
        vm, console = self.start(
            'vm', '-m', 'slots=2,maxmem=8G', '-trace', 'kvm_gmem_set_attribute',
            '-trace', 'kvm_set_user_memory', '-trace', 'kvm_vm_ioctl',
            payload=f'wait convert,{DIMM_AREA},private=1 '
                    f'fill,{DIMM_AREA},seed=3 wait zero,{DIMM_AREA} dma,at=4G '
                    f'convert,{DIMM_AREA},private=1 '
                    f'zero,{DIMM_REST if self.in_place else DIMM_AREA}')
        console.expect('^waiting')
        vm.cmd('object-add', args_dict={'qom-type': 'memory-backend-ram',
                                        'id': 'mem1', 'size': 128 * MIB})
        for private in 2 * MIB, 0:
            vm.cmd('device_add', driver='pc-dimm', id='dimm1', memdev='mem1')
            self.assertEqual(self.private(vm, 'mem1'), 0)
            self.press_key(vm)
            if not private:
                break
            console.expect('^waiting')
            self.assertEqual(self.private(vm, 'mem1'), private)
            vm.cmd('device_del', id='dimm1')
            # In the guest's place: eject the first one (acpi_mem_hotplug)
            for port in 'o /l 0xa00 0', 'o /b 0xa14 8':
                vm.cmd('human-monitor-command', command_line=port)
            vm.event_wait('DEVICE_DELETED')
            self.assertEqual(self.private(vm, 'mem1'), 0)
            self.assertEqual(self.info(vm, 'mem1')['allocated'], 0)
            # It does not keep the VM from being migrated either.
            vm.cmd('migrate', uri='file:' + self.scratch_file('migration'))
            vm.cmd('migrate_cancel')
            self.wait_for('the end of the migration', lambda:
                          vm.cmd('query-migrate')['status'] in
                          ('cancelled', 'completed'))
            vm.cmd('cont')
        console.expect('^done 0 failed')
        if self.in_place:
            return
        vm.shutdown()
        # Deleting the slot comes last: before that, its pages are made shared,
        # so that no vCPU finds a private page where there is no slot any more.
        lines = [line for line in vm.get_log().splitlines()
                 if 'kvm_vm_ioctl' in line or 'kvm_gmem_set_attribute' in line
                 or f'gpa={DIMM:#x} size=0x0 ' in line]
        deleted = [i for i, line in enumerate(lines)
                   if 'kvm_set_user_memory' in line][0]
        self.assertIn(f'type {KVM_SET_USER_MEMORY_REGION2:#x}',
                      lines[deleted - 1], lines)
        self.assertRegex(lines[deleted - 2],
                         f'kvm_gmem_set_attribute start {DIMM:#x} .*private 0')


GuestMemfdPrivateReset.add_cases('suspend', (('suspend_q35', 'q35'),
                                             ('suspend_pc', 'pc')))
GuestMemfdPrivateReset.add_cases('reset_fails', (('reset_fails', True),
                                                 ('reset_fails_paused', False)))

if __name__ == '__main__':
    GuestMemfdPrivateTest.main()
