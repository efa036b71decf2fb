#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Which memory a software-protected guest can have: what cannot be given back
# while it is private is refused at the start, everything else works
#
# Copyright (c) 2026 The qemu-gmem developers

import os
import re
import subprocess
import tempfile

from qemu.qmp import QMPError

from guest_memfd import GuestMemfdPrivateTest, IS_LONG, MIB

# The payload is in a node of its own; each backend is the next node.
FIRST = 16
NODE = 4
FILLED = NODE * MIB
PATTERN = b'template' * 512

# What becomes of shared memory that the guest makes private
FREED, KEPT = range(2)

SHARE_OFF = "'{}' cannot have private memory: with share=off, the contents of"
READ_ONLY = "'{}' cannot have private memory: with readonly=on, memory that"
NO_HOLES = "'{}' cannot have private memory: .* cannot be freed: Operation not supported"


IN_PLACE = 'cannot be converted in place'


class GuestMemfdPrivateBackends(GuestMemfdPrivateTest):

    # {tmpfs}, {ramfs}, {9p}: directories there; {file}: one with contents on
    # tmpfs; {memfd}: such a file without a name.
    WORK = (
        ('ram,share=off,merge=on,dump=off', FREED),
        ('ram,prealloc=on', FREED),
        ('ram,share=on,reserve=off', FREED),
        ('memfd,share=on,seal=on', FREED),
        ('memfd,prealloc=on', FREED),
        ('memfd,share=off,merge=on', FREED),
        ('shm', FREED),
        ('guest-memfd,prealloc=on', FREED),
        ('file,mem-path={tmpfs},share=off', FREED),
        ('file,mem-path={tmpfs},share=off,prealloc=on', KEPT),
        ('file,mem-path={tmpfs},share=on', FREED),
        ('file,mem-path={tmpfs},share=on,prealloc=on', KEPT),
        ('file,mem-path={file},share=on', FREED),
        ('file,mem-path={file},share=on,offset=16M', FREED),
    )

    REFUSED = (
        ('file,mem-path={file},share=off', SHARE_OFF),
        ('file,mem-path={tmpfs}/new,share=off', SHARE_OFF),
        ('file,mem-path={memfd},share=off', SHARE_OFF),
        ('file,mem-path={file},share=off,readonly=on,rom=off', READ_ONLY),
        ('file,mem-path={ramfs},share=off', NO_HOLES),
        ('file,mem-path={ramfs},share=on', NO_HOLES),
        ('file,mem-path={ramfs},share=on,prealloc=on', NO_HOLES),
        ('file,mem-path={9p},share=off', NO_HOLES),
        ('file,mem-path={9p},share=on', NO_HOLES),
    )

    # In place a page stays where it is, and only a guest_memfd is good for that.
    if GuestMemfdPrivateTest.in_place:
        WORK = tuple((f'{backend},{props}', KEPT) for backend, props in (
            ('ram', 'share=off,merge=on,dump=off'), ('ram', 'prealloc=on'),
            ('ram', 'share=on,reserve=off'), ('memfd', 'share=on,seal=on'),
            ('memfd', 'prealloc=on'), ('guest-memfd', 'prealloc=on')))
        REFUSED = (
            ('shm', "memory-backend-shm 'm' " + IN_PLACE),
            ('memfd,share=off', "memory-backend-memfd 'm' " + IN_PLACE),
            ('memfd,hugetlb=on', "memory-backend-memfd 'm' " + IN_PLACE),
            ('guest-memfd,hugetlb=on', 'no pages of the host.s hugetlb pool'),
            *((f'file,mem-path={where},share={share}', IN_PLACE)
              for where in ('{tmpfs}', '{file}', '{memfd}', '{ramfs}', '{9p}')
              for share in ('on', 'off')),
        )

    def setUp(self):
        super().setUp()
        self.template_file = self.scratch_file('template')
        self.template = os.open(self.template_file, os.O_RDWR | os.O_CREAT)
        self.addCleanup(os.close, self.template)
        self.memfd = os.memfd_create('template')
        self.addCleanup(os.close, self.memfd)
        for fd in self.template, self.memfd:
            for offset in 0, 32 * MIB:
                os.pwrite(fd, PATTERN, offset)
            os.ftruncate(fd, 64 * MIB)

    def place(self, name):
        """The file or directory that a backend's {name} means."""
        if name == 'file':
            return self.template_file
        if name == 'memfd':
            return f'/proc/{os.getpid()}/fd/{self.memfd}'
        if name == '9p':
            # What the lab can write to, outside
            path = os.path.join(os.path.dirname(self.qemu_bin), '../lab-out')
            if not os.path.isdir(path):
                self.skipTest('this is not the lab')
            return path
        path = tempfile.mkdtemp()
        self.addCleanup(os.rmdir, path)
        if name == 'ramfs':
            try:
                subprocess.run(['mount', '-t', 'ramfs', 'none', path],
                               check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError):
                self.skipTest('ramfs cannot be mounted')
            self.addCleanup(subprocess.run, ['umount', path], check=True)
        return path

    def places(self):
        return {name: self.place(name)
                for name in ('file', 'memfd', 'tmpfs', 'ramfs', '9p')}

    def assert_template_unchanged(self):
        for fd in self.template, self.memfd:
            for offset in 0, 32 * MIB:
                self.assertEqual(os.pread(fd, len(PATTERN), offset), PATTERN)

    def assert_nothing_logged(self, vm):
        """What the guest can do again and again must not fill the log."""
        vm.shutdown()
        self.assertNotRegex(vm.get_log(), 'iscard')

    @staticmethod
    def resident(vm, block):
        """Bytes of a RAM block that QEMU has mapped, exactly: VmRSS is not."""
        blocks = vm.cmd('human-monitor-command', command_line='info ramblock')
        _, size, _, start = re.search(
            rf'^ *(?:/\S*/)?{re.escape(block)} .*?(0x\w+) +(0x\w+) +(0x\w+) +'
            r'(0x\w+)', blocks, re.MULTILINE).groups()
        start, size, mapped, total = int(start, 16), int(size, 16), False, 0
        with open(f'/proc/{vm.get_pid()}/smaps', encoding='ascii') as smaps:
            for line in smaps:
                range_ = re.match(r'([0-9a-f]+)-[0-9a-f]+ ', line)
                if range_:
                    mapped = start <= int(range_[1], 16) < start + size
                elif mapped and line.startswith('Rss:'):
                    total += int(line.split()[1]) * 1024
        return total

    def converted(self, vm, console, block, outcome):
        """The VM runs steps() for one backend."""
        def size():
            return (self.info(vm, block)['allocated'] if self.in_place else
                    self.resident(vm, block))

        console.expect('^waiting')
        before = size()
        self.assertGreaterEqual(before, FILLED)
        self.press_key(vm)
        console.expect('^waiting')
        self.assertEqual(before - size(),
                         FILLED if outcome == FREED else 0)
        self.press_key(vm)

    @staticmethod
    def steps(base):
        area = f'base={base}M,size={NODE}M'
        return (f'fill,{area} wait convert,{area},private=1 wait '
                f'convert,{area},private=0 converted,{area} '
                f'private-share,base={base}M,size=64K')

    def work(self, mem_lock):
        places = self.places()
        backends = ['ram', *(backend.format(**places)
                             for backend, _ in self.WORK)]
        args = ['-overcommit', f'mem-lock={mem_lock}']
        for i, backend in enumerate(backends):
            args += ['-object', f'memory-backend-{backend},id=ram{i},'
                                f'size={NODE if i else FIRST}M',
                     '-numa', f'node,memdev=ram{i}']
        vm, console = self.start(
            'vm', *args, backend=None, memory=FIRST + NODE * len(self.WORK),
            payload=' '.join(self.steps(FIRST + i * NODE)
                             for i in range(len(self.WORK))))
        for i, (backend, outcome) in enumerate(self.WORK):
            self.log.info('%s with mem-lock=%s', backend, mem_lock)
            self.converted(vm, console, f'ram{i + 1}', outcome)
        console.expect('^done 0 failed')
        self.assert_nothing_logged(vm)

    # The main memory, without -object: split, and in place
    MAIN = (
        ('main', '', FREED, KEPT),
        ('main_lock', '-overcommit mem-lock=on', FREED, KEPT),
        ('main_shared', '-machine aux-ram-share=on -overcommit mem-lock=on',
         FREED, KEPT),
        ('main_path', '-mem-path {tmpfs} -mem-prealloc', KEPT, IN_PLACE),
        ('main_ramfs', '-mem-path {ramfs}', NO_HOLES, IN_PLACE),
        ('main_file', '-mem-path {file}', SHARE_OFF, IN_PLACE),
    )

    def main_memory(self, args, split, in_place):
        outcome = in_place if self.in_place else split
        vm = self.machine_vm('vm', *args.format(**self.places()).split(),
                             backend=None, memory=32, payload=self.steps(16))
        if outcome in (FREED, KEPT):
            vm.launch()
            console = self.console(vm)
            self.converted(vm, console, 'pc.ram', outcome)
            console.expect('^done 0 failed')
            self.assert_nothing_logged(vm)
        else:
            self.assert_refused(vm, outcome.format('pc.ram'))
            self.assert_template_unchanged()

    def test_refused(self):
        """A backend that is refused leaves nothing behind."""
        vm = self.machine_vm('vm', '-S', '-m', '32M,slots=2,maxmem=1G',
                             backend=None, memory=32, payload='hello')
        vm.launch()
        places = self.places()
        for backend, message in self.REFUSED:
            props = dict(prop.split('=') for prop in
                         f'qom-type=memory-backend-{backend}'
                         .format(**places).split(','))
            self.log.info('%s', props)
            for prop in {'share', 'readonly', 'prealloc', 'hugetlb'} & set(props):
                props[prop] = props[prop] == 'on'
            for _ in range(2):
                with self.assertRaisesRegex(QMPError, message.format('m')):
                    vm.cmd('object-add', id='m', size=16 * MIB, **props)
            self.assert_template_unchanged()
        self.assertEqual(os.listdir(places['tmpfs']), [])
        good = {'qom-type': 'memory-backend-file', 'mem-path': places['file']}
        if self.in_place:
            good = {'qom-type': 'memory-backend-guest-memfd'}
        vm.cmd('object-add', id='m', size=16 * MIB, share=True, **good)
        vm.cmd('device_add', driver='pc-dimm', id='d', memdev='m')
        self.assertEqual(self.info(vm, 'm')['conversion']['private'], 0)

    def test_rom(self):
        """Read-only memory cannot become private, so it need not be freed."""
        vm, console = self.start(
            'vm', '-m', '32M,slots=2,maxmem=1G', '-object',
            'memory-backend-file,id=m,size=16M,readonly=on,mem-path='
            + self.template_file,
            '-device', 'nvdimm,memdev=m,unarmed=on', '-machine', 'nvdimm=on',
            backend=None, memory=32, payload='hello')
        console.expect('^done 0 failed')
        self.assertEqual(self.info(vm, 'm')['mode'], self.mode)

    def test_balloon(self):
        """Locked memory can be given away as well."""
        area = 'base=16M,size=4M'
        vm, console = self.start(
            'vm', '-device', 'virtio-balloon-pci', '-overcommit', 'mem-lock=on',
            backend=None, memory=32,
            payload=f'fill,{area} wait balloon,{area} wait zero,{area}')
        self.converted(vm, console, 'pc.ram', FREED)
        console.expect('^done 0 failed')
        self.assert_nothing_logged(vm)


GuestMemfdPrivateBackends.add_cases('work', [('mem_lock_on', 'on')])
if IS_LONG:
    GuestMemfdPrivateBackends.add_cases('work', (
        ('mem_lock_off', 'off'), ('mem_lock_on_fault', 'on-fault')))
GuestMemfdPrivateBackends.add_cases('main_memory', GuestMemfdPrivateBackends.MAIN)

if __name__ == '__main__':
    GuestMemfdPrivateTest.main()
