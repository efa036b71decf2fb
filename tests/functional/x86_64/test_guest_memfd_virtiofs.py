#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# A guest whose files are served by virtiofsd, which maps its guest_memfd
#
# Copyright (c) 2026 The qemu-gmem developers

import hashlib
import os

from guest_memfd import GuestMemfdTest, MIB, PAGE


class GuestMemfdVirtiofs(GuestMemfdTest):

    def virtiofsd(self, which, *args):
        """One that serves a folder with a file; returns its socket and the folder."""
        program = os.path.join(os.getenv('QEMU_TEST_GMEM_VIRTIOFSD', '/nowhere'),
                               which, 'virtiofsd')
        if not os.path.exists(program):
            self.skipTest(f'{program} is not there; "lab/build virtiofsd" makes it')
        folder = self.scratch_file('shared')
        os.mkdir(folder)
        _, path = self.daemon(program, '--socket-path={}',
                              *(arg.replace('FOLDER', folder) for arg in args))
        return path, folder

    def start_linux(self, which, args):
        path, folder = self.virtiofsd(which, *args)
        data = os.urandom(4 * MIB)
        with open(os.path.join(folder, 'there'), 'wb') as file:
            file.write(data)
        vm, console = self.start(
            'vm', '-chardev', f'socket,id=fs,path={path}',
            '-device', 'vhost-user-fs-pci,id=fs0,chardev=fs,tag=fs',
            linux='gmem.mode=wait')
        console.expect('^guest: ready')
        return vm, console, folder, data

    @staticmethod
    def has_size():
        """Does the kernel tell the size of a guest_memfd to those who seek its end?"""
        return os.getenv('LAB_KERNEL') == '7.3-in-place'

    def serve(self, which, *args):
        vm, console, folder, data = self.start_linux(which, args)
        console.run('mkdir /tmp/fs && mount -t virtiofs fs /tmp/fs')
        self.assertIn(hashlib.md5(data).hexdigest(),
                      console.run('cat /tmp/fs/there | md5sum'))
        console.run(f'yes guest | head -c {3 * MIB + PAGE} > /tmp/fs/written && sync')
        with open(os.path.join(folder, 'written'), 'rb') as file:
            self.assertEqual(file.read(), (b'guest\n' * MIB)[:3 * MIB + PAGE])
        self.assert_bound(vm)

    def test_c(self):
        self.serve('c', '-o', 'source=FOLDER', '-o', 'sandbox=chroot', '-o', 'cache=none')

    def test_rust(self):
        """It asks for the size of the file."""
        args = '--shared-dir=FOLDER', '--sandbox=none', '--seccomp=none', '--cache=never'
        if self.has_size():
            self.serve('rust', *args)
            return
        vm, _, _, _ = self.start_linux('rust', args)
        self.assertEqual(vm.cmd('query-status')['status'], 'running')
        vm.shutdown()
        self.assertRegex(vm.get_log(), "vhost-user device .*fs0.* cannot use "
                         "guest_memfd, which 'ram0' is made of: use memory-backend-memfd")


if __name__ == '__main__':
    GuestMemfdTest.main()
