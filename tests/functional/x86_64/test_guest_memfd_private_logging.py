#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Private memory, dirty logging and migration: nothing that is written gets lost
#
# Copyright (c) 2026 The qemu-gmem developers

import os

from guest_memfd import GuestMemfdPrivateTest, MIB
from guest_memfd_operations import start_server

BLOCK = 'base=80M,size=64K'
BLOCK_AT = 80 * MIB, 64 * 1024
DIRTY = 'dirty,base=32M,size=8M'
RING = 'kvm,dirty-ring-size=4096'
REFUSED = 'are private and cannot be read to be migrated'


class GuestMemfdPrivateLogging(GuestMemfdPrivateTest):

    def measure(self, vm, mode):
        """The guest's dirty rate, in MiB/s"""
        vm.cmd('calc-dirty-rate', args_dict={
            'calc-time': 200, 'calc-time-unit': 'millisecond', 'mode': mode})
        result = self.wait_for('the dirty rate', lambda: (
            lambda rate: rate['status'] == 'measured' and rate)(
                vm.cmd('query-dirty-rate')))
        return result['dirty-rate']

    def high(self, vm):
        """How the slot above 1 MiB is registered"""
        binding, = {slot['binding'] for slot in self.slots(vm)
                    if slot['address'] >= MIB}
        return binding

    def assert_no_writes_lost(self, source, console, payload, accel):
        """Migrates while the guest writes, to the end, and looks there."""
        uri = f'unix:{self.socket_dir().name}/migration'
        target = self.machine_vm('target', '-incoming', uri, accel=accel,
                                 payload=payload)
        target.launch()
        source.cmd('migrate-set-capabilities', capabilities=[
            {'capability': 'pause-before-switchover', 'state': True}])
        # Never done by itself: the guest makes more dirty at any time.
        source.cmd('migrate-set-parameters', args_dict={
            'max-bandwidth': 3 * MIB, 'downtime-limit': 1})
        source.cmd('migrate', uri=uri)
        self.wait_for('a second pass', lambda: source.cmd('query-migrate').get(
            'ram', {}).get('dirty-sync-count', 0) > 1)
        self.assertEqual(self.high(source), 'dirty-log')
        source.cmd('migrate-set-parameters',
                   args_dict={'max-bandwidth': 0, 'downtime-limit': 60000})
        self.wait_for('the switchover', lambda: source.cmd('query-migrate')[
            'status'] == 'pre-switchover')
        source.cmd('migrate-continue', state='pre-switchover')
        self.wait_for('the end', lambda: source.cmd('query-migrate')[
            'status'] == 'completed')
        console = self.console(target)
        for _ in range(3):
            console.expect('^pass')

    # Name, how the dirty log is on before the migration, accelerator
    MIGRATIONS = (
        ('migrate_after_rate', 'rate', 'kvm'),
        ('migrate_with_limit', 'limit', RING),
        ('migrate_after_ring_rate', 'ring', RING),
    )

    def migrate(self, way, accel):
        """Dirty tracking is on while memory is private, and then stays on, or
        ends, before all is shared again and the guest migrates."""
        payload = (f'convert,{BLOCK},private=1 wait '
                   f'convert,{BLOCK},private=0 {DIRTY}')
        vm, console = self.start('source', accel=accel, payload=payload)
        console.expect('^waiting')
        if way == 'limit':
            vm.cmd('set-vcpu-dirty-limit', args_dict={'dirty-rate': 1000})
        else:
            self.measure(vm, {'rate': 'dirty-bitmap',
                              'ring': 'dirty-ring'}[way])
        self.assertEqual(self.high(vm), 'bound')
        with self.assertRaisesRegex(Exception, REFUSED):
            vm.cmd('migrate', uri='exec:cat >/dev/null')
        self.press_key(vm)
        console.expect('^pass 1')
        self.assert_no_writes_lost(vm, console, payload, accel)

    MODES = (('rate_sampling', 'page-sampling', 'kvm'),
             ('rate_bitmap', 'dirty-bitmap', 'kvm'),
             ('rate_ring', 'dirty-ring', RING))

    def rate(self, mode, accel):
        """A measurement with private memory works, and the guest may convert
        meanwhile. What it makes private in one go takes no memory yet."""
        vm, console = self.start(
            'vm', accel=accel, payload=f'convert,{BLOCK},private=1 wait '
            'convert,base=96M,size=64M,private=1 wait '
            'churn,base=80M,size=64K,step=64K,count=2000 ' + DIRTY)
        console.expect('^waiting')
        self.measure(vm, mode)
        self.press_key(vm)
        console.expect('^waiting')
        self.measure(vm, mode)
        self.assertEqual(self.allocated(vm, *BLOCK_AT), 64 * 1024)
        self.press_key(vm)
        for _ in range(5):
            self.measure(vm, mode)
        console.expect('^pass 2')
        self.assertEqual(vm.cmd('query-status')['status'], 'running')

    def test_limit(self):
        """A dirty limit stays: memory can be private all the same, and is logged
        again when it is shared again."""
        vm, console = self.start(
            'vm', accel=RING, payload='wait '
            f'convert,{BLOCK},private=1 fill,{BLOCK},seed=3 wait '
            f'verify,{BLOCK},seed=3 convert,{BLOCK},private=0 {DIRTY}')
        console.expect('^waiting')
        vm.cmd('set-vcpu-dirty-limit', args_dict={'dirty-rate': 1000})
        self.assertEqual(self.high(vm), 'dirty-log')
        self.press_key(vm)
        console.expect('^waiting')
        self.assertEqual(self.high(vm), 'bound')
        self.press_key(vm)
        console.expect('^pass 2')
        self.wait_for('the log', lambda: self.high(vm) == 'dirty-log')
        vm.cmd('cancel-vcpu-dirty-limit')
        self.assertEqual(self.high(vm), 'bound')
        console.expect('^pass 3')

    def test_postcopy(self):
        """Memory stays shared until all of it has arrived."""
        payload = (f'fill,base=80M,size=64M,seed=3 wait '
                   f'convert,{BLOCK},private=1,expect=16 '
                   f'convert,{BLOCK},private=0 verify,base=80M,size=1M,seed=3 '
                   f'wait convert,{BLOCK},private=1 converted,{BLOCK},seed=3')
        uri = f'unix:{self.socket_dir().name}/migration'
        source, console = self.start('source', payload=payload)
        target = self.machine_vm('target', '-incoming', 'defer', payload=payload)
        target.launch()
        postcopy = [{'capability': 'postcopy-ram', 'state': True}]
        if self.in_place:
            with self.assertRaisesRegex(Exception, 'userfaultfd has no support'):
                target.cmd('migrate-set-capabilities', capabilities=postcopy)
            return
        for vm in source, target:
            vm.cmd('migrate-set-capabilities', capabilities=postcopy)
        target.cmd('migrate-incoming', uri=uri)
        console.expect('^waiting')
        # Only what the guest asks for arrives: at this rate, all takes 16 min.
        source.cmd('migrate-set-parameters', args_dict={
            'max-bandwidth': 64 * 1024, 'max-postcopy-bandwidth': 64 * 1024})
        source.cmd('migrate', uri=uri)
        self.wait_for('the migration', lambda: source.cmd('query-migrate')[
            'status'] == 'active')
        source.cmd('migrate-start-postcopy')
        self.wait_for('postcopy', lambda: target.cmd('query-migrate')[
            'status'] == 'postcopy-active')
        self.press_key(target)
        console = self.console(target)
        console.expect('^waiting')
        self.assertEqual(source.cmd('query-migrate')['status'], 'postcopy-active')
        source.cmd('migrate-set-parameters',
                   args_dict={'max-postcopy-bandwidth': 0})
        self.wait_for('the end', lambda: target.cmd('query-migrate')['status']
                      == 'completed')
        self.press_key(target)
        console.expect('^done 0 failed')

    def test_savevm(self):
        """While the guest converts all the time: a snapshot has all memory, or
        there is none."""
        disk = self.scratch_file('disk.qcow2')
        os.spawnl(os.P_WAIT, os.getenv('QEMU_TEST_GMEM_IMG'), 'qemu-img',
                  'create', '-q', '-f', 'qcow2', disk, '1M')
        guest = start_server(
            self, '-smp', '2', '-drive',
            f'if=none,id=disk,format=qcow2,file={disk}',
            '-device', 'virtio-blk-pci,drive=disk', memory=96)
        vm = guest.vm
        guest.run('toggle,base=64M,size=256K')
        saved = []
        for name in 'abcdefghijkl':
            answer = vm.cmd('human-monitor-command', command_line='savevm ' + name)
            if answer:
                self.assertIn(REFUSED, answer)
            else:
                saved.append(name)
            self.assertEqual(vm.cmd('query-status')['status'], 'running')
        # The guest has found all of its memory, or says "not ok".
        for name in saved:
            self.assertEqual('', vm.cmd('human-monitor-command',
                                        command_line='loadvm ' + name))
            guest.run('calm')
        self.log.info('%d of 12 savevm were refused', 12 - len(saved))


GuestMemfdPrivateLogging.add_cases('migrate', GuestMemfdPrivateLogging.MIGRATIONS)
GuestMemfdPrivateLogging.add_cases('rate', GuestMemfdPrivateLogging.MODES)

if __name__ == '__main__':
    GuestMemfdPrivateTest.main()
