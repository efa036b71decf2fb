#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# SEV-SNP and TDX guests that run: the lab's payload is their firmware
#
# Copyright (c) 2026 The qemu-gmem developers
#
# KVM's side is a model, tests/qtest/guest-memfd-launch.c, and what it launches in
# place runs from there.  The guest asks for conversions at a port, which the model
# turns into what KVM tells QEMU of a GHCB request or of TDX's MapGPA.

import re
import struct

from guest_memfd import GuestMemfdTest, MIB
from guest_memfd_digest import DIGEST, hashes_page, snp_digest
from guest_memfd_launch import OVMF, PayloadTest, START

AREA = 'base=64M,size=64K'


class GuestMemfdLaunchPayload(PayloadTest):

    def rom(self):
        with open(self.guest_file('payload.rom'), 'rb') as file:
            return file.read()

    @staticmethod
    def peek(vm, address):
        return vm.cmd('human-monitor-command', command_line=f'xp /1xg {address:#x}')

    @staticmethod
    def checksum(data):
        """FNV-1a, of 64-bit words"""
        value = 0xcbf29ce484222325
        for word, in struct.iter_unpack('<Q', data):
            value = (value ^ word) * 0x100000001b3 % (1 << 64)
        return value

    def launched(self, kind):
        """The guest finds what was launched, and QEMU cannot look at it."""
        vm, console = self.run_payload(
            kind, f'checksum,base=0xfffe0000,size=128K {self.launched_case(kind)} wait')
        console.expect(f'^checksum {self.checksum(self.rom()):#x}$')
        if kind == 'snp':
            console.expect('^secrets version 3$')
            console.expect('^cpuid [1-9][0-9]* answers, maker 0x[0-9a-f]+')
        else:
            console.expect('^memory 256 MiB$')
        console.expect('^waiting')
        self.assert_launched(*DIGEST[kind](self.rom()))
        for address in 0x100000, 0x11000, 0xfffff000:
            self.assertIn('Cannot access memory', self.peek(vm, address))
        self.press_key(vm)
        console.expect('^done 0 failed')

    def converted(self, kind):
        """A page is shared, and private again: its contents stay, and QEMU sees them
        in between only."""
        vm, console = self.run_payload(
            kind, f'fill,{AREA},seed=3 wait convert,{AREA},private=0 verify,{AREA},seed=3 '
            f'wait convert,{AREA},private=1 verify,{AREA},seed=3 wait')
        seen = []
        for _ in range(3):
            console.expect('^waiting')
            seen.append(self.peek(vm, 64 * MIB))
            self.press_key(vm)
        console.expect('^done 0 failed')
        self.assertIn('Cannot access memory', seen[0])
        self.assertRegex(seen[1], ': 0x[0-9a-f]{16}')
        self.assertIn('Cannot access memory', seen[2])
        self.assertEqual(self.events('refused|lost'), [])

    def storm(self, kind):
        """Four vCPUs convert at once; the answers are those that KVM takes."""
        vm, console = self.run_payload(
            kind, 'in-place private-share,base=64M,size=4M '
            'storm,base=64M,size=4M,hole=3G,holesize=1M,count=2000', '-smp', '4')
        console.expect('^done 0 failed')
        self.assertEqual(self.events('refused|lost'), [])
        self.assertEqual(self.info(vm)['conversion']['failures'], [])

    def requests(self, kind):
        """Bad requests get their answer, and stop nothing."""
        _, console = self.run_payload(kind, 'in-place requests,base=64M,size=4M,hole=3G')
        console.expect('^done 0 failed')
        self.assertEqual(self.events('refused'), [])

    def accepted(self, kind):
        """A guest that uses all of its memory takes the host's memory once."""
        vm, console = self.run_payload(
            kind, 'wait fill,base=2M,size=254M wait verify,base=2M,size=254M')
        console.expect('^waiting')
        before = self.process_status(vm, 'RssAnon')
        self.press_key(vm)
        console.expect('^waiting')
        self.assertGreaterEqual(self.allocated(vm), 254 * MIB)
        self.assertLessEqual(self.allocated(vm), 256 * MIB)
        self.assertLess(self.process_status(vm, 'RssAnon') - before, MIB)
        self.press_key(vm)
        console.expect('^done 0 failed')

    def reset(self, kind):
        """The guest resets itself: that ends QEMU."""
        vm, _ = self.run_payload(kind, 'reset', '-no-shutdown')
        self.assertEqual(vm.event_wait('SHUTDOWN')['data']['reason'], 'guest-reset')
        vm.cmd('quit')
        vm.wait()
        self.assertIn('cpus are not resettable, terminating', vm.get_log())

    def devices(self, kind):
        """A device gets nothing of private memory, and lives on."""
        disk = self.scratch_file('disk')
        with open(disk, 'wb') as file:
            file.truncate(MIB)
        _, console = self.run_payload(
            kind, 'in-place share-code convert,base=80M,size=64K,private=0 '
            'virtio,base=80M,size=64K',
            '-drive', f'if=none,id=disk,format=raw,file={disk}',
            '-device', 'virtio-blk-pci,drive=disk')
        console.expect('^done 0 failed')
        self.assertEqual(self.events('refused|lost'), [])

    def bus(self, kind):
        """What comes, goes and moves on the bus takes no memory out of KVM."""
        vm, console = self.run_payload(
            kind, f'fill,{AREA},seed=3 wait '
            # The BAR of the display is elsewhere, then off and on
            'out,port=0xcf8,value=0x80000810,size=4 out,port=0xcfc,value=0xe0000000,size=4 '
            'out,port=0xcf8,value=0x80000804,size=4 out,port=0xcfc,value=2,size=2 '
            'out,port=0xcfc,value=0,size=2 out,port=0xcfc,value=2,size=2 '
            f'verify,{AREA},seed=3 {self.launched_case(kind)}',
            '-device', 'pcie-root-port,id=port1,addr=2', '-device', 'VGA,addr=1')
        console.expect('^waiting')
        before = self.slots(vm)
        vm.cmd('device_add', driver='virtio-net-pci', id='more', bus='port1')
        vm.cmd('screendump', filename=self.scratch_file('screen.ppm'))
        self.press_key(vm)
        console.expect('^done 0 failed')
        self.assertEqual(self.slots(vm), before)
        self.assertEqual(self.events('refused|lost'), [])
        self.assertTrue(self.events('slot .* gpa=0xe0000000 '))

    def test_snp_hashes(self):
        """The digest has the kernel's, as the tools of AMD's users compute it."""
        files = [self.guest_file(name) for name in ('kernel', 'guest-initramfs.cpio')]
        vm, console = self.run_payload(
            'snp', 'launched,hashes=1', '-kernel', files[0], '-initrd', files[1],
            '-append', 'quiet', prop=',kernel-hashes=on')
        console.expect('^done 0 failed')
        self.assert_launched(*snp_digest(self.rom(), hashes_page(*files, b'quiet')))

    def hosts(self, kind):
        """A guest that runs and converts gets a yes to all."""
        done = self.hosts_script(kind, *self.cases(f'convert,{AREA},private=0 wait'),
                                 firmware=self.guest_file('payload.rom'), TIME='120',
                                 GUEST_MEMFD_LAUNCH_START=START)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(re.sub('[0-9]+', 'N', done.stdout), (
            'ok: a guest runs, in-place\nok: it has made memory shared: N requests\n'
            'ok: QEMU has N MiB of its own beside N MiB of the guest\n'
            'ok: a reset ends it\n'))

    def test_hosts_not_ok(self):
        """What does not convert, or not even start, gets a no."""
        done = self.hosts_script('snp', firmware=OVMF)
        self.assertEqual(done.returncode, 1)
        self.assertIn('not ok: it has made memory shared: 0 requests', done.stdout)
        done = self.hosts_script('snp', firmware=OVMF, LD_PRELOAD='')
        self.assertEqual(done.returncode, 1)
        self.assertIn('not ok: a guest runs', done.stdout)
        self.assertIn('not supported by KVM', done.stdout)


for name in 'snp', 'tdx':
    for case in ('launched', 'accepted', 'converted', 'storm', 'requests', 'reset', 'devices',
                 'bus', 'hosts'):
        GuestMemfdLaunchPayload.add_cases(case, [(f'{case}_{name}', name)])

if __name__ == '__main__':
    GuestMemfdTest.main()
