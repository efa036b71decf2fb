# SPDX-License-Identifier: GPL-2.0-or-later
#
# What QEMU can be asked to do with a guest's memory, for the tests of
# test_guest_memfd_private_meetings.py
#
# Copyright (c) 2026 The qemu-gmem developers
#
# An operation begins with start(), which raises Refused if QEMU refuses it, and
# ends with finish(), which returns the guest to go on with.  Between the two it
# is held, if it can be: by a peer that does not read on, by a bandwidth that is
# next to nothing, or as it waits for a command.  So nothing depends on how fast
# the guest, QEMU or the test is.

import os
import re
import socket

from qemu.qmp import ExecuteError
from guest_memfd import HANG, MIB

# The guest's memory.  A migration sends it by address, so what is below the
# ballast has been sent when a part of the ballast has.
SHARED = (16 * MIB, 1 * MIB)
PRIVATE = (24 * MIB, 256 * 1024)
RINGS = (26 * MIB, 64 * 1024)
TOGGLED = (28 * MIB, 32 * 1024)
BALLAST = (32 * MIB, 8 * MIB)
MEMORY = 64

HELD_AT = 4 * MIB       # bytes that a migration has sent when it is held
RATE = 400 * 1024       # bytes in a second: until a migration to a file is on its way
HOLD_RATE = 4096        # then: a page each 100 ms, so the rest takes minutes


def extent(where):
    return f'base={where[0]},size={where[1]}'


class Refused(Exception):
    """QEMU says no, and why."""


class Guest:
    """A VM that runs the cases it is given."""

    def __init__(self, test, vm):
        self.vm = vm
        self.path = test.payload_output[vm]
        self.console = test.console(vm)

    def join(self, test):
        """In another test than the one that has started it."""
        self.console.test = test
        self.console.file = open(self.path, 'rb')   # pylint: disable=consider-using-with
        self.console.file.seek(self.read)
        test.addCleanup(self.console.file.close)

    def leave(self):
        self.read = self.console.file.tell()

    def send(self, words):
        self.vm.console_socket.sendall(words.encode() + b'\n')

    def served(self):
        self.console.expect('^served$')

    def run(self, words):
        self.send(words)
        self.served()

    def cmd(self, command, **args):
        try:
            return self.vm.cmd(command, args_dict={
                key.replace('_', '-'): value for key, value in args.items()})
        except ExecuteError as e:
            raise Refused(str(e)) from None

    def hmp(self, line):
        return self.vm.cmd('human-monitor-command', command_line=line).strip()

    def status(self):
        return self.vm.cmd('query-status')['status']


def query(test, guest):
    """All that can be asked for."""
    guest.cmd('query-guest-memfd')
    test.assertIn(test.mode, guest.hmp('info guest-memfd'))
    guest.cmd('query-stats', target='vm')
    guest.hmp('info mtree -f')
    guest.hmp('info ramblock')
    guest.hmp('info sev')


def start_server(test, *args, **kwargs):
    vm = test.machine_vm('server', *args, payload='serve', **kwargs)
    vm.set_console()
    vm.launch()
    guest = Guest(test, vm)
    guest.console.expect('^serving')
    return guest


class Operation:
    held = False
    guest_runs = True   # while it is held
    # Afterwards
    resets = False      # all memory is shared, and the guest has begun anew
    restores = False    # the memory is as it was when the guest was prepared
    spent = False       # nothing more can be done with the guest

    def __init__(self, test, guest, row):
        self.test = test
        self.guest = guest
        self.row = row

    def prepare(self):
        """Before anything is private."""

    def start(self):
        raise NotImplementedError

    def finish(self):
        return self.guest

    def private_size(self):
        return self.test.private_size(self.guest)


class Migrate(Operation):
    """Over a socket or, with "file", to a file and from there."""
    held = True

    def __init__(self, *args):
        super().__init__(*args)
        self.target = self.relay = None
        self.capabilities = self.row.get('capabilities', [])
        self.parameters = self.row.get('parameters', {})
        self.file = self.row.get('file', False)
        self.path = self.test.scratch_file('migration')
        self.begun = False

    def set_up(self, guest, limits):
        guest.cmd('migrate-set-capabilities', capabilities=[
            {'capability': name, 'state': name in self.capabilities}
            for name in self.test.CAPABILITIES])
        guest.cmd('migrate-set-parameters', **{
            'mode': 'normal', 'max-bandwidth': 0, **self.parameters, **limits})

    def incoming(self, uri):
        self.target = self.test.new_guest(self.row, '-incoming', 'defer')
        self.set_up(self.target, {})
        self.target.cmd('migrate-incoming', uri=uri)

    def prepare(self):
        limits = {}
        if self.file:
            self.uri = 'file:' + self.path
            limits = {'max-bandwidth': RATE}
        else:
            self.relay, self.uri, target = self.test.relay('first', HELD_AT)
            self.incoming(target)
        self.guest.run(f'dirty,{extent(BALLAST)},passes=0')
        self.set_up(self.guest, limits)

    def start(self):
        self.guest.cmd('migrate', uri=self.uri)
        self.begun = True
        self.test.wait_for('the migration is on its way', self.on_its_way)
        if self.file:
            self.guest.cmd('migrate-set-parameters', **{'max-bandwidth': HOLD_RATE})

    def on_its_way(self):
        info = self.guest.cmd('query-migrate')
        self.test.assertIn(info['status'], ('setup', 'active'), info)
        if self.relay:
            return self.relay.passed >= HELD_AT
        return (info.get('ram', {}).get('normal-bytes', 0) >
                2 * SHARED[1] + MIB // 2)

    def release(self):
        if self.relay:
            self.relay.go_on.set()
        self.guest.cmd('migrate-set-parameters', **{'max-bandwidth': 0})

    def finish(self):
        if not self.begun:
            return self.give_up()
        self.release()
        self.test.wait_for_migration(self.guest.vm, 'completed')
        if self.file:
            self.incoming('file:' + self.path)
        self.test.wait_for_migration(self.target.vm, 'completed')
        self.test.wait_for('the destination runs', lambda:
                           self.target.status() == 'running')
        return self.take_over()

    def take_over(self):
        """The destination is the guest to go on with."""
        self.test.drop(self.guest)
        self.guest = self.target
        return self.guest

    def give_up(self):
        """The guest stays where it is."""
        if self.target:
            self.test.drop(self.target)
            self.target = None
        return self.guest


class Incoming(Migrate):
    """What can be asked of the destination meanwhile."""

    def start(self):
        super().start()
        query(self.test, self.target)
        self.test.assertEqual(self.target.status(), 'inmigrate')
        self.test.assertEqual(self.test.private_size(self.target), 0)


class Cancel(Migrate):
    def finish(self):
        if self.begun:
            self.guest.cmd('migrate_cancel')
            # It is over when its threads are: what they wait for comes, or fails.
            self.relay.close()
            self.test.wait_for_migration(self.guest.vm, 'cancelled')
        return self.give_up()


class Pause(Migrate):
    """Held before the switch-over; the guest is stopped."""
    guest_runs = False

    def start(self):
        self.relay.most = 1 << 60
        self.guest.cmd('migrate', uri=self.uri)
        self.begun = True
        self.test.wait_for_migration(self.guest.vm, 'pre-switchover')

    def release(self):
        self.guest.cmd('migrate-continue', state='pre-switchover')


class Snapshot(Migrate):
    """In the background: it has the memory as it was at first.  A guest waits in
    its first write to a page until that is saved, so it stands while this is held."""
    guest_runs = False

    def finish(self):
        if not self.begun:
            return self.give_up()
        self.release()
        self.test.wait_for_migration(self.guest.vm, 'completed')
        self.test.wait_for_migration(self.target.vm, 'completed')
        self.test.wait_for('the snapshot runs', lambda:
                           self.target.status() == 'running')
        if self.test.column == 'storm':
            self.target.run('calm')
        self.target.run(f'verify,{extent(SHARED)},seed=1')
        return self.give_up()


class CprReboot(Migrate):
    """Saves to a file, of a VM that is stopped at once."""
    guest_runs = False

    def start(self):
        self.guest.cmd('migrate', uri=self.uri)
        self.begun = True


class Refusal(Operation):
    """A migration that is set up like that, and does not begin."""

    def start(self):
        sockets = self.test.socket_dir().name
        self.guest.cmd('migrate-set-parameters', **self.row.get('parameters', {}))
        self.set_capabilities(True)
        try:
            # cpr-transfer takes the second one, the others the first alone.
            self.guest.cmd('migrate', channels=[
                {'channel-type': kind, 'addr': {
                    'transport': 'socket', 'type': 'unix',
                    'path': os.path.join(sockets, kind)}}
                for kind in self.row.get('channels', ['main'])])
        finally:
            self.guest.cmd('migrate-set-parameters', mode='normal')
            self.set_capabilities(False)
            # It has not even begun.
            self.test.assertNotEqual(self.guest.cmd('query-migrate').get('status'),
                                     'failed')

    def set_capabilities(self, state):
        self.guest.cmd('migrate-set-capabilities', capabilities=[
            {'capability': name, 'state': state}
            for name in self.row.get('capabilities', [])])


class Postcopy(Migrate):
    """Held when the destination runs, and has not got the ballast yet."""

    def prepare(self):
        super().prepare()
        self.guest.cmd('migrate-set-parameters', **{'max-postcopy-bandwidth': HOLD_RATE})

    def start(self):
        super().start()
        self.guest.cmd('migrate-start-postcopy')
        self.relay.go_on.set()
        self.test.wait_for_migration(self.target.vm, 'postcopy-active')
        self.test.wait_for('the destination runs', lambda:
                           self.target.status() == 'running')
        self.source, self.guest = self.guest, self.target

    def release(self):
        self.source.cmd('migrate-set-parameters', **{'max-postcopy-bandwidth': 0})

    def finish(self):
        if not self.begun:
            return self.give_up()
        self.release()
        self.test.wait_for_migration(self.source.vm, 'completed')
        self.test.wait_for_migration(self.target.vm, 'completed')
        self.test.drop(self.source)
        return self.target


class Recover(Postcopy):
    """The same, after the connection has broken, and was made anew."""

    def start(self):
        super().start()
        self.relay.close()
        for guest in self.source, self.target:
            self.test.wait_for_migration(guest.vm, 'postcopy-paused')
        query(self.test, self.target)
        self.relay, source, target = self.test.relay('again', HELD_AT)
        self.relay.go_on.set()
        self.target.cmd('migrate-recover', uri=target)
        self.source.cmd('migrate', uri=source, resume=True)
        for guest in self.source, self.target:
            self.test.wait_for_migration(guest.vm, 'postcopy-active')


class Hmp(Operation):
    """A command of the monitor that says nothing when it has worked."""

    def start(self):
        said = self.guest.hmp(self.row['command'])
        if said:
            raise Refused(said)


class SaveVM(Hmp):
    """What was saved is all there."""

    def start(self):
        super().start()
        self.saved = True

    def finish(self):
        if getattr(self, 'saved', False):
            self.test.load(self.guest, lambda: self.test.assertEqual(
                '', self.guest.hmp('loadvm one')))
        return self.guest


class LoadVM(Hmp):
    restores = True

    def prepare(self):
        self.test.assertEqual('', self.guest.hmp('savevm one'))


class DelVM(Hmp):
    def prepare(self):
        self.test.assertEqual('', self.guest.hmp('savevm one'))


class Job(Operation):
    """A job of QMP."""

    def run(self, command, **args):
        self.guest.cmd(command, **{'job-id': 'job', **args})

        def concluded():
            job, = self.guest.cmd('query-jobs')
            return job if job['status'] == 'concluded' else None

        job = self.test.wait_for('the job has ended', concluded)
        self.guest.cmd('job-dismiss', id='job')
        if 'error' in job:
            raise Refused(job['error'])

    NODES = {'tag': 'one', 'devices': ['disk']}
    VMSTATE = {'vmstate': 'disk', **NODES}


class SnapshotSave(Job):
    def prepare(self):
        self.guest.hmp('delvm one')

    def start(self):
        self.run('snapshot-save', **self.VMSTATE)
        self.saved = True

    def finish(self):
        if getattr(self, 'saved', False):
            self.test.load(self.guest, lambda: self.run(
                'snapshot-load', **self.VMSTATE))
        return self.guest


class SnapshotLoad(Job):
    restores = True

    def prepare(self):
        self.guest.hmp('delvm one')
        self.run('snapshot-save', **self.VMSTATE)

    def start(self):
        self.run('snapshot-load', **self.VMSTATE)
        self.guest.cmd('cont')


class SnapshotDelete(Job):
    def prepare(self):
        self.guest.hmp('delvm one')
        self.run('snapshot-save', **self.VMSTATE)

    def start(self):
        self.run('snapshot-delete', **self.NODES)


class DirtyRate(Operation):
    """A measurement, which takes as long as the guest needs meanwhile."""
    held = True
    MOST = 64000

    def __init__(self, *args):
        super().__init__(*args)
        self.time = 100

    def start(self):
        self.guest.cmd('calc-dirty-rate', mode=self.row['mode'],
                       **{'calc-time': self.time, 'calc-time-unit': 'millisecond'})
        self.test.wait_for('it measures', lambda: self.guest.cmd('query-dirty-rate')
                           ['status'] != 'unstarted')

    def too_late(self):
        """It has ended before the guest could do what it should do meanwhile."""
        return self.guest.cmd('query-dirty-rate')['status'] != 'measuring'

    def again(self):
        self.time *= 4
        return self.time <= self.MOST

    def finish(self):
        self.test.wait_for('it has measured', lambda: self.guest.cmd(
            'query-dirty-rate')['status'] == 'measured')
        return self.guest


class DirtyLimit(Operation):
    held = True

    def start(self):
        self.guest.cmd('set-vcpu-dirty-limit', **{'dirty-rate': 10000})

    def finish(self):
        self.guest.cmd('cancel-vcpu-dirty-limit')
        return self.guest


class Dump(Operation):
    """It is told how much was private, and has zeros for it."""

    def start(self):
        path = self.test.scratch_file('dump')
        parameters = self.row.get('parameters', {})
        self.guest.cmd('dump-guest-memory', protocol='file:' + path,
                       **{'paging': False, **parameters})
        done = self.test.wait_for('the dump has ended', self.ended)
        self.test.assertEqual(done['status'], 'completed')
        # By virtual address, some memory may be there more than once.
        if self.test.column in ('nothing', 'some') and not parameters.get('paging'):
            self.test.assertEqual(done.get('private', 0), min(
                self.private_size(), parameters.get('length', 1 << 60)), done)
        os.unlink(path)

    def ended(self):
        done = self.guest.cmd('query-dump')
        return done if done['status'] != 'active' else None


class Pmemsave(Operation):
    def start(self):
        path = self.test.scratch_file('memory')
        self.guest.cmd('pmemsave', val=PRIVATE[0], size=PRIVATE[1], filename=path)
        with open(path, 'rb') as file:
            zero = not file.read().strip(b'\0')
        self.test.assertEqual(zero, self.test.column == 'some')
        self.guest.cmd('pmemsave', val=TOGGLED[0], size=2 * TOGGLED[1], filename=path)


class Examine(Operation):
    """A word, by the human monitor."""

    def start(self):
        said = self.guest.hmp(f'xp /1xg {PRIVATE[0]}')
        if not re.search(': 0x[0-9a-f]{16}', said):
            raise Refused(said)
        self.guest.hmp(f'xp /1xg {TOGGLED[0]}')


class Gdb(Operation):
    """Reads a word, and writes it back."""
    held = True
    guest_runs = False

    def packet(self, text):
        self.sock.sendall(f'${text}#{sum(text.encode()) % 256:02x}'.encode())
        data = b''
        while not re.search(b'#..', data):
            data += self.sock.recv(4096)
        self.sock.sendall(b'+')
        return re.search(rb'\$(.*)#..', data)[1].decode()

    def start(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(HANG)
        self.sock.connect(self.guest.gdb)
        self.packet(f'm{TOGGLED[0]:x},8')
        word = self.packet(f'm{PRIVATE[0]:x},8')
        if word.startswith('E'):
            self.test.assertRegex(self.packet(f'M{PRIVATE[0]:x},8:{"00" * 8}'), '^E')
            self.finish()
            raise Refused(word)
        self.test.assertEqual(self.packet(f'M{PRIVATE[0]:x},8:{word}'), 'OK')

    def finish(self):
        self.sock.close()
        self.test.wait_for('the guest can go on', self.go_on)
        return self.guest

    def go_on(self):
        self.guest.cmd('cont')
        return self.guest.status() == 'running'


class Plug(Operation):
    """A DIMM, shared at first, that the guest has converted and gives away."""
    at = (4 << 30, 128 * MIB)

    def plug(self):
        self.guest.cmd('object-add', **{
            'qom-type': 'memory-backend-guest-memfd', 'id': 'mem1', 'size': self.at[1]})
        self.guest.cmd('device_add', driver='pc-dimm', id='dimm1', memdev='mem1',
                       addr=self.at[0])

    def eject(self):
        # The slot, as the firmware's tables would have it; then the ejection.
        self.guest.run('out,port=0xa00,size=4,value=0 out,port=0xa14,value=8')
        self.test.wait_for('the DIMM has gone', lambda: not self.guest.cmd(
            'query-memory-devices'))
        self.guest.cmd('object-del', id='mem1')

    def start(self):
        some = f'base={self.at[0]},size=64K'
        for _ in range(2):
            self.plug()
            self.guest.run(f'zero,{some} fill,{some},seed=5 convert,{some},private=1 '
                           f'converted,{some},seed=5 fill,{some},seed=6')
            self.guest.cmd('device_del', id='dimm1')
            self.eject()


class Unplug(Plug):
    """It is asked for, and the guest takes its time."""
    held = True

    def prepare(self):
        self.plug()
        self.guest.run(f'convert,base={self.at[0]},size=64K,private=1 '
                       f'convert,base={self.at[0]},size=64K,private=0')

    def start(self):
        self.guest.cmd('device_del', id='dimm1')

    def finish(self):
        self.eject()
        return self.guest


class Balloon(Operation):
    """The guest gives it memory, and gets it back as zeros."""
    at = (PRIVATE[0] + PRIVATE[1] // 2, PRIVATE[1] // 2)

    def start(self):
        seed = 2 if self.test.column == 'some' else 1
        self.guest.run(f'balloon,{extent(self.at)} zero,{extent(self.at)} '
                       f'fill,{extent(self.at)},seed={seed}')


class Report(Balloon):
    """Free page reporting: the same without asking for it back."""

    def start(self):
        seed = 2 if self.test.column == 'some' else 1
        # The device has the queue for hints before the one for reports.
        self.guest.run(f'report,{extent(self.at)},queue=4 zero,{extent(self.at)} '
                       f'fill,{extent(self.at)},seed={seed}')


class Hint(Operation):
    """Free page hints that nobody has asked for: a migration does not begin."""

    def start(self):
        self.guest.run(f'hint,{extent(BALLAST)},unasked=1')


class Stop(Operation):
    held = True
    guest_runs = False

    def start(self):
        self.guest.cmd('stop')

    def finish(self):
        self.guest.cmd('cont')
        return self.guest


class Reset(Operation):
    resets = True

    def start(self):
        self.guest.cmd('system_reset')
        self.begun()

    def begun(self):
        self.guest.console.expect('^serving')


class Reboot(Reset):
    def start(self):
        self.guest.send('out,port=0xcf9,value=2 out,port=0xcf9,value=6')
        self.begun()


class ResetStopped(Stop, Reset):
    """With the guest stopped: it stays so."""

    def finish(self):
        self.guest.cmd('system_reset')
        self.test.assertEqual(self.private_size(), 0)
        self.guest.cmd('cont')
        self.begun()
        return self.guest


class Shadow(Operation):
    """The guest turns its shadow RAM over: all slots of low memory change."""

    def start(self):
        self.guest.run('shadow ' * 10)


class Suspend(Operation):
    """To RAM.  The payload begins anew when it wakes up, its memory does not.  It
    does not restore what the PCI devices have lost."""
    spent = True

    def start(self):
        self.guest.send('suspend serve')
        self.guest.console.expect('^suspended')
        self.test.wait_for('it is suspended', lambda:
                           self.guest.status() == 'suspended')
        query(self.test, self.guest)
        self.guest.cmd('system_wakeup')
        self.guest.console.expect('^serving')

    def finish(self):
        if self.test.column == 'storm':
            # Who has toggled it does not run any more.
            self.guest.run(f'convert,base={TOGGLED[0]},size={2 * TOGGLED[1]},private=0')
        return self.guest


def config(slot, offset, size, value):
    """The payload writes to a device's configuration space."""
    return (f'out,port=0xcf8,size=4,value={1 << 31 | slot << 11 | offset & ~3:#x} '
            f'out,port={0xcfc + offset % 4:#x},size={size},value={value:#x}')


class Smram(Operation):
    """The guest opens, closes and moves what System Management Mode would have."""

    def start(self):
        for smram, esmramc in ((0x4a, 0x80), (0x4a, 0x81), (0x0a, 0x87), (0x02, 0)):
            self.guest.run(f'{config(0, 0x9e, 1, esmramc)} {config(0, 0x9d, 1, smram)}')
        query(self.test, self.guest)


class Bar(Operation):
    """A device's memory moves to another address, and takes its state with it."""
    BAR, WINDOW = 0x18, 0xd0000000

    def device(self):
        """Slot, and the address of its memory."""
        for bus in self.guest.cmd('query-pci'):
            for device in bus['devices']:
                if device['qdev_id'] == 'shmem':
                    memory, = (region for region in device['regions']
                               if region['bar'] == 2)
                    return device['slot'], memory['address']
        return self.test.fail('it is not there')

    def start(self):
        slot, old = self.device()
        new = self.WINDOW if old != self.WINDOW else self.WINDOW + 64 * MIB
        old, new = ((at, 64 * 1024) for at in (old, new))
        enable, private = config(slot, 4, 2, 6), self.test.column != 'nothing'
        move = ' '.join([config(slot, 4, 2, 0), config(slot, self.BAR, 4, new[0]),
                         config(slot, self.BAR + 4, 4, 0), enable])
        self.guest.run(f'{enable} convert,{extent(old)},private={int(private)} '
                       f'fill,{extent(old)},seed=5')
        before = self.checksum(old)
        self.guest.run(move)
        self.test.assertEqual(self.device()[1], new[0])
        self.guest.run(f'convert,{extent(old)},private=1,expect=22')
        self.test.assertEqual(self.checksum(new), before)
        if private:
            self.guest.run(f'convert,{extent(new)},private=0')
            if self.test.in_place:      # a pattern would be another one there
                self.test.assertEqual(self.checksum(new), before)
            else:
                self.guest.run(f'zero,{extent(new)}')

    def checksum(self, where):
        self.guest.send(f'checksum,{extent(where)}')
        checksum = self.guest.console.expect(r'^checksum (\w+)$')[1]
        self.guest.console.expect('^served$')
        return checksum


class Edu(Operation):
    """A device that does DMA by itself."""
    AT, VIA = 'base=33M,size=4K', 'at=33M,via=32M'

    def start(self):
        private = f'convert,{self.AT},private=1'
        shared = f'convert,{self.AT},private=0'
        self.guest.run({
            'nothing': f'edu,{self.VIA}',
            'first': f'edu,{self.VIA},during=1,refused=1',
            'last': f'{private} edu,{self.VIA},during=0',
        }.get(self.test.column, f'{private} edu,{self.VIA},refused=1 {shared} '
                                f'edu,{self.VIA}') + f' {shared}')


class Virtio(Operation):
    """Each part of a request in private memory, or while a disk is at it."""

    def start(self):
        disk = ',disk=1,flight=1' if self.test.column in ('last', 'first') else ''
        self.guest.send(f'virtio,{extent(RINGS)}{disk}')
        while (word := self.guest.console.expect('^(hold|release|served)$')[1]) != b'served':
            self.test.hold_disk(self.guest.vm, word == b'hold')


class Vhost(Operation):
    """A ring is started and stays so; the guest changes its memory map then."""
    held = True

    def start(self):
        self.guest.run(f'ring,type={self.row["type"]},base={RINGS[0]}')
        if self.guest.peer:
            self.test.wait_for('the daemon has the memory', lambda:
                               self.guest.peer.SET_MEM_TABLE in self.guest.peer.requests)

    def finish(self):
        self.guest.run('shadow')
        if self.guest.peer:
            self.test.assertTrue(self.guest.peer.is_alive())
        return self.guest


class OwnMemory(Operation):
    """A device that is memory, and may be told to write it back."""

    def start(self):
        device, = (device['data'] for device in self.guest.cmd('query-memory-devices')
                   if device['data'].get('id') == self.row['device'])
        where = extent((device.get('addr') or device.get('memaddr'), 64 * 1024))
        flush = self.row.get('flush', '')
        self.guest.run(f'fill,{where},seed=5 {flush} verify,{where},seed=5')
        if self.test.column != 'nothing':
            self.guest.run(f'convert,{where},private=1 converted,{where},seed=5 '
                           f'fill,{where},seed=6 {flush} verify,{where},seed=6 '
                           f'convert,{where},private=0 converted,{where},seed=6')


class Cases(Operation):
    """What the guest does by itself."""

    def start(self):
        self.guest.run(self.row['cases'])


class Query(Operation):
    """All that can be asked for."""
    held = True

    def start(self):
        query(self.test, self.guest)
        if self.test.column in ('nothing', 'some'):
            # libvirt asks before it pauses the guest to save or migrate it.
            reasons = self.guest.cmd('query-migrate').get('blocked-reasons', [])
            self.test.assertEqual(
                [f"{size} bytes of the guest's memory are private and cannot be read to be "
                 'migrated' for size in [self.private_size()] if size], reasons)

    def finish(self):
        query(self.test, self.guest)
        return self.guest


OPERATIONS = {
    'migrate': Migrate, 'incoming': Incoming, 'cancel': Cancel, 'pause': Pause,
    'snapshot': Snapshot, 'refusal': Refusal, 'cpr-reboot': CprReboot,
    'postcopy': Postcopy, 'recover': Recover, 'hint': Hint,
    'hmp': Hmp, 'savevm': SaveVM, 'loadvm': LoadVM, 'delvm': DelVM,
    'snapshot-save': SnapshotSave, 'snapshot-load': SnapshotLoad,
    'snapshot-delete': SnapshotDelete,
    'dirty-rate': DirtyRate, 'dirty-limit': DirtyLimit,
    'dump': Dump, 'pmemsave': Pmemsave, 'xp': Examine, 'gdb': Gdb,
    'plug': Plug, 'unplug': Unplug, 'balloon': Balloon,
    'stop': Stop, 'reset': Reset, 'reboot': Reboot, 'reset-stopped': ResetStopped,
    'suspend': Suspend, 'shadow': Shadow, 'smram': Smram, 'query': Query,
    'report': Report, 'bar': Bar, 'edu': Edu, 'virtio': Virtio, 'vhost': Vhost,
    'own-memory': OwnMemory, 'cases': Cases,
}
