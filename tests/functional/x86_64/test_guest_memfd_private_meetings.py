#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Where private memory meets what QEMU does with a guest's memory: a test for each
# cell of the table guest_memfd_meetings.toml
#
# Copyright (c) 2026 The qemu-gmem developers
#
# The columns are states of private memory.  Each cell says what happens then (and
# "manual" what stands for a row in the table of docs/system/guest-memfd.rst):
#
#   works                       the operation, and all the guest's conversions
#   works, guest ERRNO          memory does not become private meanwhile
#   refused: TEXT               the operation, with such an error
#   refused: TEXT, then works   until the guest has given up what is private
#   works or refused: TEXT      as the guest converts at that moment, or not
#   see MODULE.CLASS.METHOD: ANSWER     another test has it
#   untested: WHY
#
# "in-place" stands for all columns where memory is converted in place.
#
# After it QEMU runs, the guest finds its memory as it must be, QEMU takes the
# same number of pages to be private, and they can be converted.  The first three
# columns, rows with "long", and the columns in it run with QEMU_TEST_GMEM_LONG
# alone: "last" begins as "some" does, and "last" and "first" convert meanwhile, as
# "storm" does.  "--counts" counts the cells.

import errno
import os
import re
import shutil
import sys
import tempfile
import tomllib

from guest_memfd import GuestMemfdPrivateTest, IS_LONG, VhostUserPeer
from guest_memfd_operations import (
    OPERATIONS, Guest, Refused, extent, MEMORY, PRIVATE, SHARED, TOGGLED)

HERE = os.path.dirname(os.path.abspath(__file__))
COLUMNS = 'nothing', 'some', 'storm', 'last', 'first'
LONG_COLUMNS = COLUMNS[:3]
CELL = re.compile(r'(?:see (?P<test>\S+): )?'
                  r'(?:untested: (?P<why>.+)|'
                  r'(?P<works>works)?(?:, guest (?P<errno>E\w+))?'
                  r'(?: or )?(?:refused: (?P<text>.+?)(?P<then>, then works)?)?)')
TRIES = 30              # until a moment comes in which nothing is private
SIZE = PRIVATE[1]
POOL = '/proc/sys/vm/nr_hugepages'


def read_table():
    for place in HERE, os.path.dirname(HERE):
        path = os.path.join(place, 'guest_memfd_meetings.toml')
        if os.path.exists(path):
            with open(path, 'rb') as file:
                return tomllib.load(file)
    raise FileNotFoundError('guest_memfd_meetings.toml')


def read_cell(row, column):
    """What the table says, as a match; a row may say it of all columns at once, of
    memory that is converted in place as well."""
    text = TABLE[row].get(column, TABLE[row].get('all'))
    if GuestMemfdPrivateTest.in_place:
        text = TABLE[row].get('in-place', text)
    cell = CELL.fullmatch(text or '')
    if not cell or text == '':
        raise ValueError(f'{row}, {column}: {text}')
    return cell


def test_exists(name):
    """Is there a test of that name?  Generated ones are known by their case."""
    module, method = name.split('.')[0], name.split('.')[-1]
    path = os.path.join(HERE, f'test_guest_memfd_{module}.py')
    with open(path, encoding='utf-8') as file:
        text = file.read()
    case = method.removeprefix('test_')
    return f'def {method}(' in text or re.search(rf"""['"]{case}['"]""", text)


TABLE = read_table()


class GuestMemfdPrivateMeetings(GuestMemfdPrivateTest):

    # Those that the table has, to be set or not.
    CAPABILITIES = sorted({name for row in TABLE.values()
                           if row.get('operation') != 'refusal'
                           for name in row.get('capabilities', [])})

    # The guest of the test before, which goes on when it is fit for it
    kept = kept_kind = folder = pool = None
    number = 0
    column = None

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = tempfile.mkdtemp(prefix='meetings-')

    @classmethod
    def tearDownClass(cls):
        vm, cls.kept = cls.kept and cls.kept.vm, None
        if vm:
            vm.shutdown()
        shutil.rmtree(cls.folder)
        if cls.pool is not None:
            with open(POOL, 'w', encoding='ascii') as file:
                file.write(cls.pool)
        super().tearDownClass()
        if vm and vm.exitcode():
            raise RuntimeError(f'QEMU ended with status {vm.exitcode()}: '
                               f'{vm.get_log()}')

    def test_manual(self):
        """It has a line about each row, under the row's name or "manual"."""
        path = os.path.join(HERE, '../../../docs/system/guest-memfd.rst')
        with open(path, encoding='utf-8') as file:
            table = re.search(r'With private memory$(.*?)^\S', file.read(),
                              re.DOTALL | re.MULTILINE)[1]
        self.assertEqual([], [name for name, row in TABLE.items()
                              if row.get('manual', name) not in table])

    def test_others(self):
        """The tests that are named elsewhere are there."""
        self.assertEqual([], [cell['test'] for _, _, cell in cells()
                              if cell['test'] and not test_exists(cell['test'])])

    # Guests, which may outlive their test

    def new_guest(self, row, *args):
        """A VM as the row says, with files that do not go with the test."""
        cls = type(self)
        cls.number += 1
        name = f'guest{cls.number}'
        gdb = os.path.join(self.folder, f'{name}.gdb')
        peer = None
        disk = os.path.join(self.folder, 'disk.qcow2')
        if row.get('disk'):
            if not os.path.exists(disk):
                os.spawnl(os.P_WAIT, os.getenv('QEMU_TEST_GMEM_IMG'), 'qemu-img',
                          'create', '-q', '-f', 'qcow2', disk, '1M')
            args += ('-drive', f'if=none,id=disk0,node-name=disk,format=qcow2,file={disk}')
        if row.get('devices'):
            path = os.path.join(self.folder, f'{name}.vhost')
            peer = VhostUserPeer(path)
            args += (*self.devices(name), '-chardev', f'socket,id=fs,path={path}')
        workdir, self.workdir = self.workdir, self.folder
        try:
            vm = self.machine_vm(
                name, '-smp', '3', '-m', f'{MEMORY}M,slots=4,maxmem=8G',
                '-object', 'iothread,id=io', '-device', 'virtio-balloon-pci,iothread=io,'
                'free-page-reporting=on,free-page-hint=on',
                '-chardev', f'socket,id=gdb,path={gdb},server=on,wait=off',
                '-gdb', 'chardev:gdb', *row.get('machine', ()), *args, memory=MEMORY,
                payload='serve', accel=row.get('accel', 'kvm'), backend=row.get(
                    'backend', 'memory-backend-guest-memfd').format(**self.places()))
            vm.set_console()
            vm.launch()
        finally:
            self.workdir = workdir
        guest = Guest(self, vm)
        guest.gdb = gdb
        guest.peer = peer
        return guest

    DEVICES = (
        '-device', 'vhost-user-fs-pci,chardev=fs,tag=fs,iommu_platform=off',
        '-device', 'edu',
        '-object', 'memory-backend-memfd,id=pmem,size=2M',
        '-device', 'virtio-pmem-pci,id=pmem0,memdev=pmem',
        '-machine', 'nvdimm=on', '-object', 'memory-backend-memfd,id=nv,size=128M',
        '-device', 'nvdimm,id=nvdimm0,memdev=nv',
        '-object', 'memory-backend-memfd,id=shmem,size=1M',
        '-device', 'ivshmem-plain,id=shmem,memdev=shmem',
        '-object', 'memory-backend-memfd,id=pmr,size=1M',
        '-blockdev', 'null-co,node-name=null,read-zeroes=on',
        '-device', 'nvme,serial=1,drive=null,pmrdev=pmr')

    def devices(self, name):
        """All that have to do with memory, and two disks; the second can be held."""
        args = list(self.DEVICES)
        for i in range(2):
            path = os.path.join(self.folder, f'{name}.disk{i}')
            with open(path, 'wb') as file:
                file.truncate(64 * 1024)
            args += ('-blockdev', f'file,node-name=file{i},filename={path}',
                     '-object', f'iothread,id=io{i}')
        args += ('-blockdev', 'blkdebug,node-name=debug1,image=file1',
                 '-blockdev', 'raw,node-name=disk1,file=debug1')
        for i, node in enumerate(('file0', 'disk1')):
            args += ('-device', f'virtio-blk-pci,id=disk{i},drive={node},iothread=io{i}')
        return args

    def places(self):
        """What a backend's {name} means."""
        file = os.path.join(self.folder, 'memory')
        return {'folder': self.folder, 'file': file}

    def set_pool(self, pages):
        """Huge pages, for which 144 MiB are set aside, whatever ran before."""
        for file in 'drop_caches', 'compact_memory':
            with open(f'/proc/sys/vm/{file}', 'w', encoding='ascii') as knob:
                knob.write('1')
        with open(POOL, 'r+', encoding='ascii') as file:
            type(self).pool = file.read() if self.pool is None else self.pool
            file.write(str(pages))
        with open(POOL, encoding='ascii') as file:
            if int(file.read()) < int(pages):
                self.skipTest('the host cannot set huge pages aside')

    def drop(self, guest):
        vm = guest.vm
        if self.kept is guest:
            type(self).kept = None
        self._vms = {name: other for name, other in self._vms.items()
                     if other is not vm}
        vm.kill()

    def take_guest(self, row):
        """The one of the test before, if it is of that kind; all shared."""
        cls = type(self)
        kind = [row.get(key) for key in ('machine', 'accel', 'backend', 'disk',
                                         'devices')]
        if self.kept and kind != self.kept_kind:
            guest = self.kept
            cls.kept = None
            guest.vm.shutdown()
            self.assertFalse(guest.vm.exitcode(), guest.vm.get_log())
        cls.kept_kind = kind
        if self.kept:
            guest = self.kept
            self._vms['kept'] = guest.vm
            guest.join(self)
        else:
            if row.get('huge'):
                self.set_pool(72)
            guest = self.new_guest(row)
            guest.console.expect('^serving')
        cls.kept = None
        return guest

    def keep(self, guest):
        self._vms = {name: vm for name, vm in self._vms.items()
                     if vm is not guest.vm}
        guest.leave()
        type(self).kept = guest

    # What is to be found

    def private_size(self, guest):
        return sum(info['conversion']['private']
                   for info in guest.vm.cmd('query-guest-memfd'))

    def check_guest(self, guest, private, contents):
        """It runs, its memory is right, and it can convert memory."""
        self.assertEqual(guest.status(), 'running')
        self.assertEqual(self.private_size(guest), SIZE if private else 0)
        for where, seed in contents:
            guest.run(f'verify,{extent(where)},seed={seed}')
        guest.run(f'convert,{extent(PRIVATE)},private=0')
        self.assertEqual(self.private_size(guest), 0)
        guest.run(f'fill,{extent(PRIVATE)},seed=6 convert,{extent(PRIVATE)},private=1 '
                  f'converted,{extent(PRIVATE)},seed=6 '
                  f'fill,{extent(PRIVATE)},seed=7 verify,{extent(PRIVATE)},seed=7')
        self.assertEqual(self.private_size(guest), SIZE)
        guest.run(f'convert,{extent(PRIVATE)},private=0 '
                  f'converted,{extent(PRIVATE)},seed=7')
        self.assertEqual(self.private_size(guest), 0)

    def load(self, guest, action):
        """What was saved replaces what the guest has written since."""
        guest.run(f'fill,{extent(SHARED)},seed=9')
        action()

    def start_operation(self, operation, cell):
        """Whether it has begun, after the cell's answer."""
        tries = TRIES if cell['works'] and cell['text'] else 1
        for _ in range(tries):
            try:
                operation.start()
                self.assertTrue(cell['works'], 'it works')
                return True
            except Refused as e:
                if not cell['text']:
                    self.fail(f'it is refused: {e}')
                self.assertRegex(str(e), cell['text'])
        return False

    def meeting(self, name, column):
        row = TABLE[name]
        cell = read_cell(name, column)
        if not os.path.exists(row.get('kernel', '/')):
            self.skipTest(f'this kernel has no {row["kernel"]}')
        self.column = column
        guest = self.take_guest(row)
        guest.run(f'fill,{extent(SHARED)},seed=1 fill,{extent(PRIVATE)},seed=1')
        operation = OPERATIONS[row['operation']](self, guest, row)
        operation.prepare()
        private, contents = False, {SHARED: 1, PRIVATE: 1}
        if column in ('some', 'last'):
            guest.run(f'convert,{extent(PRIVATE)},private=1 '
                      f'fill,{extent(PRIVATE)},seed=2')
            private, contents[PRIVATE] = True, 2
        if column == 'storm':
            guest.run(f'toggle,{extent(TOGGLED)}')

        while True:
            began = self.start_operation(operation, cell)
            guest = operation.guest
            if not (began or cell['then']) or column not in ('last', 'first'):
                break
            # The guest gives up its last private page, or gets the first one.
            error = cell['errno'] and getattr(errno, cell['errno'])
            guest.run(f'convert,{extent(PRIVATE)},private={int(column == "first")},'
                      f'expect={error or 0}')
            if not error:
                guest.run(f'converted,{extent(PRIVATE)},seed={contents[PRIVATE]} '
                          f'fill,{extent(PRIVATE)},seed=4')
                private, contents[PRIVATE] = column == 'first', 4
            self.assertEqual(self.private_size(guest), SIZE if private else 0)
            if cell['then']:
                operation.start()
                guest = operation.guest
                began = True
            if not getattr(operation, 'too_late', bool)():
                break
            self.assertTrue(operation.again(), 'it never lasts long enough')
            operation.finish()
            private, contents[PRIVATE] = column == 'last', 4
            guest.run(f'convert,{extent(PRIVATE)},private={int(private)} '
                      f'fill,{extent(PRIVATE)},seed=4')
        if began and operation.held and operation.guest_runs:
            # A migration has sent that already.
            guest.run(f'fill,{extent(SHARED)},seed=3')
            contents[SHARED] = 3
        guest = operation.finish()

        if began and operation.restores:
            private, contents = False, {SHARED: 1, PRIVATE: 1}
        elif began and operation.resets:
            private, contents = False, {}
        elif column == 'storm':
            guest.run('calm')
        self.check_guest(guest, private, contents.items())
        if not operation.spent:
            self.keep(guest)


def cells():
    """Each of the table: row, column, and what it says."""
    for name in TABLE:
        for column in COLUMNS:
            yield name, column, read_cell(name, column)


def takes_long(row, column):
    long = TABLE[row].get('long', False)
    return column in LONG_COLUMNS or (long if isinstance(long, bool) else column in long)


GuestMemfdPrivateMeetings.add_cases('meeting', [
    (f'meeting_{number:02}_{name}_{column}'.replace('-', '_'), name, column)
    for number, name in enumerate(TABLE) for column in COLUMNS
    for cell in [read_cell(name, column)]
    if not cell['test'] and not cell['why'] and (IS_LONG or not takes_long(name, column))])


def print_counts():
    tested = [cell for _, _, cell in cells() if not cell['why']]
    other = [cell['test'] for cell in tested if cell['test']]
    untested = [f'{name}, {column}: {cell["why"]}'
                for name, column, cell in cells() if cell['why']]
    long = sum(takes_long(name, column) and not cell['why'] and not cell['test']
               for name, column, cell in cells())
    print(f'{len(TABLE)} rows, {len(TABLE) * len(COLUMNS)} cells: '
          f'{len(tested)} tested ({len(other)} of them by other tests, '
          f'{long} in check-long alone), {len(untested)} untested:')
    print(*(f'  {line}' for line in untested), sep='\n')


if __name__ == '__main__':
    if '--counts' in sys.argv:
        print_counts()
    else:
        GuestMemfdPrivateTest.main()
