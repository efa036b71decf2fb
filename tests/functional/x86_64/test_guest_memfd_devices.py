#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Hotplug, NUMA nodes, balloon and vhost-user with memory-backend-guest-memfd
#
# Copyright (c) 2026 The qemu-gmem developers

import os

import guest_memfd_devices as devices
from guest_memfd import GuestMemfdTest, IS_LONG


class GuestMemfdDevices(devices.DevicesTest):

    def test_pmem_flush(self):
        """There is nothing to write back, which is no error."""
        vm, console = self.start(
            'vm', '-m', '256M,maxmem=1G,slots=2',
            '-object', 'memory-backend-guest-memfd,id=mem1,size=16M',
            '-device', 'virtio-pmem-pci,memdev=mem1', payload='flush flush')
        console.expect('^done 0 failed')
        self.assert_bound(vm, 'mem1')

    def test_msync(self):
        """The same for msync(), for an NVMe drive's memory region when the guest
        reads PMRSTS."""
        vm, console = self.start(
            'vm', '-object', 'memory-backend-guest-memfd,id=mem1,size=16M',
            '-blockdev', 'null-co,node-name=disk,read-zeroes=on',
            '-device', 'nvme,serial=1,drive=disk,pmrdev=mem1',
            payload='bar,id=0x101b36,at=0xe08')
        console.expect('^done 0 failed')
        vm.shutdown()
        self.assertNotIn('failed to sync', vm.get_log())

    def test_hint_ignored(self):
        """Free page hints for memory that a migration passes over."""
        path = os.path.join(self.socket_dir().name, 'ram')
        vm, console = self.start(
            'vm', '-m', '256M,slots=1,maxmem=1G',
            '-object', 'memory-backend-ram,id=mem1,size=128M',
            '-device', 'pc-dimm,memdev=mem1', '-object', 'iothread,id=io',
            '-device', 'virtio-balloon-pci,free-page-hint=on,iothread=io',
            backend=f'memory-backend-file,share=on,mem-path={path}',
            payload='fill,base=4G,size=48M hint,base=64M,size=8M')
        vm.cmd('migrate-set-capabilities', capabilities=[
            {'capability': 'x-ignore-shared', 'state': True}])
        # Ten pages of the DIMM in a second: longer than anything here takes.
        vm.cmd('migrate-set-parameters', **{'max-bandwidth': 4096})
        console.expect('^hint: ready')
        vm.cmd('migrate', uri='exec:cat > /dev/null')
        console.expect('^done 0 failed')
        self.assertEqual(vm.cmd('query-migrate')['status'], 'active')
        self.cancel_migration(vm)


GuestMemfdDevices.add_cases('hotplug', [('hotplug_q35', 'q35')])
if IS_LONG:
    GuestMemfdDevices.add_cases('hotplug', [('hotplug_pc', 'pc')])

if __name__ == '__main__':
    GuestMemfdTest.main()
