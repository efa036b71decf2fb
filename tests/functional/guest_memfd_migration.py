# SPDX-License-Identifier: GPL-2.0-or-later
#
# Migrates guests from and to memory-backend-guest-memfd, on each architecture
#
# Copyright (c) 2026 The qemu-gmem developers

import hashlib
import os

from guest_memfd import GuestMemfdTest, IS_LONG, MIB

GMEM = 'memory-backend-guest-memfd'
MEMFD = 'memory-backend-memfd'
MEMORY = 128
PAGE = 4096
# What it makes dirty is sent before what it has filled.
DIRTY = {'payload': 'fill,base=64M,size=16M dirty,base=32M,size=8M'}
HELD_AT = 12 * MIB
LINUX = {'linux': 'gmem.mode=stress gmem.size=2'}


class MigrationTest(GuestMemfdTest):

    # Name, machine, guest, backend of the source, of the destination, way.
    MIGRATIONS = (
        ('live', None, DIRTY, GMEM, GMEM, 'unix'),
        ('live_file', None, DIRTY, GMEM, GMEM, 'file'),
        ('stop_and_copy', None, DIRTY, GMEM, GMEM, 'stopped'),
        ('from_memfd', None, DIRTY, MEMFD, GMEM, 'unix'),
        ('to_memfd', None, DIRTY, GMEM, MEMFD, 'unix'),
        *((('live_linux', None, LINUX, GMEM, GMEM, 'unix'),) if IS_LONG else ()),
    )

    def checksums(self, vm):
        """One for each page of the guest's RAM."""
        sums = {}
        dump = self.scratch_file('memory')
        for start, end in self.platform.ram(MEMORY * MIB):
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
                                 memory=MEMORY, cpu=self.platform.cpu_to_migrate, **guest)
        self.progress(console)
        return vm, console

    def destination(self, name, uri, machine, guest, backend):
        """Paused when all has arrived."""
        vm = self.machine_vm(name, '-S', '-incoming', uri, machine=machine,
                             backend=backend, memory=MEMORY,
                             cpu=self.platform.cpu_to_migrate, **guest)
        vm.launch()
        return vm

    def finish(self, vm):
        self.wait_for_migration(vm, 'completed')

    def go(self, source, relay, uri, backend, console):
        """Starts a migration that is held when it has sent a part of what the
        guest makes dirty; that is dirty again afterwards."""
        source.cmd('migrate', uri=uri)
        self.wait_for('a part is sent', lambda: relay.passed >= HELD_AT)
        self.assertEqual(source.cmd('query-migrate')['status'], 'active')
        if backend == GMEM:
            self.assert_bindings(source, 'dirty-log')
        self.progress(console, 1)

    @staticmethod
    def let_finish(source):
        """At the next pass, however fast it is sent."""
        source.cmd('migrate-set-parameters',
                   args_dict={'max-bandwidth': 0, 'downtime-limit': 2000000})

    def to_file(self, source, uri, backend, console):
        """A file cannot hold a migration: it waits at its end, and until then
        there is time for the guest to write."""
        source.cmd('migrate-set-capabilities', capabilities=[
            {'capability': 'pause-before-switchover', 'state': True}])
        source.cmd('migrate-set-parameters', args_dict={
            'max-bandwidth': 16 * MIB, 'downtime-limit': 1})
        source.cmd('migrate', uri=uri)
        self.wait_for_migration(source, 'active', 'pre-switchover')
        if backend == GMEM:
            self.assert_bindings(source, 'dirty-log')
        self.wait_for('a second pass', lambda: source.cmd('query-migrate')[
            'ram']['dirty-sync-count'] > 1)
        self.let_finish(source)
        self.wait_for_migration(source, 'pre-switchover')
        source.cmd('migrate-continue', state='pre-switchover')

    def migrate(self, machine, guest, from_backend, to_backend, way):
        source, console = self.start_source(machine, guest, from_backend)
        uri = 'file:' + self.scratch_file('migration')
        if way == 'unix':
            relay, uri, target_uri = self.relay('migration', HELD_AT)
            target = self.destination('target', target_uri, machine, guest,
                                      to_backend)
            self.go(source, relay, uri, from_backend, console)
            self.let_finish(source)
            relay.go_on.set()
        elif way == 'file':
            self.to_file(source, uri, from_backend, console)
        else:
            source.cmd('stop')
            source.cmd('migrate', uri=uri)
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
        source, console = self.start_source(None, DIRTY, GMEM)
        relay, uri, target_uri = self.relay('cancelled', HELD_AT)
        target = self.destination('cancelled', target_uri, None, DIRTY, GMEM)
        self.go(source, relay, uri, GMEM, console)
        source.cmd('migrate_cancel')
        relay.close()
        self.wait_for('cancelled', lambda: source.cmd('query-migrate')['status']
                      == 'cancelled')
        self.wait_for('slots are bound again', lambda: {
            slot['binding'] for slot in self.slots(source)
            if slot['address'] >= MIB} == {'bound'})
        self.assertEqual(source.cmd('query-status')['status'], 'running')
        self.progress(console, 5)
        target.kill()
        del self._vms['cancelled']

        relay, uri, target_uri = self.relay('again', HELD_AT)
        target = self.destination('target', target_uri, None, DIRTY, GMEM)
        self.go(source, relay, uri, GMEM, console)
        self.let_finish(source)
        relay.go_on.set()
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
