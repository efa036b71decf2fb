#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Migrates guests from and to memory-backend-guest-memfd
#
# Copyright (c) 2026 The qemu-gmem developers

import hashlib
import os

from guest_memfd import GuestMemfdTest, MIB

GMEM = 'memory-backend-guest-memfd'
MEMFD = 'memory-backend-memfd'
MEMORY = 128
PAGE = 4096
DIRTY = {'payload': 'dirty,base=32M,size=8M'}
# KVM writes kvmclock's wall clock anew in the destination.
LINUX = {'linux': 'gmem.mode=stress gmem.size=16', 'cpu': 'host,kvmclock=off'}


class GuestMemfdMigration(GuestMemfdTest):

    # Name, machine, guest, backend of the source, of the destination, way.
    MIGRATIONS = (
        ('live', 'q35', DIRTY, GMEM, GMEM, 'unix'),
        ('live_pc', 'pc', DIRTY, GMEM, GMEM, 'unix'),
        ('live_linux', 'q35', LINUX, GMEM, GMEM, 'unix'),
        ('live_file', 'q35', DIRTY, GMEM, GMEM, 'file'),
        ('stop_and_copy', 'q35', DIRTY, GMEM, GMEM, 'stopped'),
        ('from_memfd', 'q35', DIRTY, MEMFD, GMEM, 'unix'),
        ('to_memfd', 'q35', DIRTY, GMEM, MEMFD, 'unix'),
    )

    def checksums(self, vm):
        """One for each page of the guest's RAM, but those of the VGA window."""
        sums = {}
        dump = self.scratch_file('memory')
        for start, end in (0, 0xa0000), (0xc0000, MEMORY * MIB):
            vm.cmd('pmemsave', val=start, size=end - start, filename=dump)
            with open(dump, 'rb') as memory:
                for page in range(start, end, PAGE):
                    sums[page] = hashlib.blake2b(memory.read(PAGE)).digest()
            os.unlink(dump)
        return sums

    def assert_same_memory(self, a, b):
        differ = [f'{page:x}' for page, checksum in self.checksums(a).items()
                  if checksum != b[page]]
        self.assertEqual(differ, [], f'{len(differ)} pages differ')

    def progress(self, console, rounds=3):
        """The guest gets on, and has found its memory as it was left."""
        console.skip()
        first = int(console.expect(r'^(?:pass|guest: round) (\d+)\r?$')[1])
        for number in range(first + 1, first + rounds):
            console.expect(fr'^(?:pass|guest: round) {number}\r?$')
        return first

    def start_source(self, machine, guest, backend):
        vm, console = self.start('source', machine=machine, backend=backend,
                                 memory=MEMORY, **guest)
        self.progress(console)
        return vm, console

    def destination(self, name, uri, machine, guest, backend):
        """Paused when all has arrived."""
        vm = self.machine_vm(name, '-S', '-incoming', uri, machine=machine,
                             backend=backend, memory=MEMORY, **guest)
        vm.launch()
        return vm

    def passes(self, vm, count):
        """Has memory been sent as often as that?"""
        status = vm.cmd('query-migrate')
        self.assertIn(status['status'], ('setup', 'active'),
                      f'too early for {count} passes: {status}')
        return status.get('ram', {}).get('dirty-sync-count', 0) > count

    def finish(self, vm):
        def finished():
            status = vm.cmd('query-migrate')
            self.assertNotIn(status.get('status'), ('failed', 'cancelled'),
                             status)
            return status.get('status') == 'completed'

        self.wait_for(f'{vm} has migrated', finished)

    def go(self, source, uri, backend, console):
        """Starts a migration that will not end by itself: the guest makes
        more dirty than this, at any time."""
        source.cmd('migrate-set-parameters', args_dict={
            'max-bandwidth': 3 * MIB, 'downtime-limit': 1})
        source.cmd('migrate', uri=uri)
        self.wait_for('a second pass', lambda: self.passes(source, 1))
        if backend == GMEM:
            self.assert_bindings(source, 'dirty-log')
        self.progress(console, 1)

    @staticmethod
    def let_finish(source):
        source.cmd('migrate-set-parameters',
                   args_dict={'max-bandwidth': 0, 'downtime-limit': 60000})

    def migrate(self, machine, guest, from_backend, to_backend, way):
        source, console = self.start_source(machine, guest, from_backend)
        if way == 'unix':
            uri = f'unix:{self.socket_dir().name}/migration'
            target = self.destination('target', uri, machine, guest, to_backend)
        else:
            uri = 'file:' + self.scratch_file('migration')
        if way == 'stopped':
            source.cmd('stop')
            source.cmd('migrate', uri=uri)
        else:
            self.go(source, uri, from_backend, console)
            self.let_finish(source)
        self.finish(source)
        self.assertEqual(source.cmd('query-status')['status'], 'postmigrate')
        if way != 'unix':
            target = self.destination('target', uri, machine, guest, to_backend)
        self.finish(target)

        self.assertEqual(target.cmd('query-status')['status'], 'paused')
        self.assert_same_memory(target, self.checksums(source))

        target.cmd('cont')
        self.progress(self.console(target))
        if to_backend == GMEM:
            self.assert_bound(target)

    def test_cancel(self):
        """The guest goes on and the slots are bound; then another one works."""
        source, console = self.start_source('q35', DIRTY, GMEM)
        uri = f'unix:{self.socket_dir().name}/migration'
        target = self.destination('cancelled', uri, 'q35', DIRTY, GMEM)
        self.go(source, uri, GMEM, console)
        source.cmd('migrate_cancel')
        self.wait_for('cancelled', lambda: source.cmd('query-migrate')['status']
                      == 'cancelled')
        self.wait_for('slots are bound again', lambda: {
            slot['binding'] for slot in self.slots(source)
            if slot['address'] >= MIB} == {'bound'}, 10)
        self.assertEqual(source.cmd('query-status')['status'], 'running')
        self.progress(console, 5)
        target.kill()
        del self._vms['cancelled']

        uri = f'unix:{self.socket_dir().name}/again'
        target = self.destination('target', uri, 'q35', DIRTY, GMEM)
        self.go(source, uri, GMEM, console)
        self.let_finish(source)
        self.finish(source)
        self.finish(target)
        self.assert_same_memory(target, self.checksums(source))
        target.cmd('cont')
        self.progress(self.console(target))

    def test_snapshot(self):
        """savevm and loadvm, in the same QEMU."""
        disk = self.scratch_file('disk.qcow2')
        vm = self.machine_vm(
            'source', '-drive', f'if=none,id=disk,format=qcow2,file={disk}',
            '-device', 'virtio-blk-pci,drive=disk', memory=MEMORY, **DIRTY)
        os.spawnl(os.P_WAIT, os.getenv('QEMU_TEST_GMEM_IMG'), 'qemu-img',
                  'create', '-q', '-f', 'qcow2', disk, '1M')
        vm.launch()
        console = self.console(vm)
        self.progress(console)
        vm.cmd('stop')
        saved = self.checksums(vm)
        allocated = self.info(vm)['allocated']
        for command in 'savevm', 'loadvm':
            self.assertEqual('', vm.cmd('human-monitor-command',
                                        command_line=f'{command} one'))
            self.assertLess(self.info(vm)['allocated'], 1.05 * allocated)
            self.assert_same_memory(vm, saved)
            vm.cmd('cont')
            self.progress(console, 5)
            self.assert_bound(vm)
            vm.cmd('stop')
            self.assertNotEqual(self.checksums(vm), saved)


GuestMemfdMigration.add_cases('migrate', GuestMemfdMigration.MIGRATIONS)

if __name__ == '__main__':
    GuestMemfdTest.main()
