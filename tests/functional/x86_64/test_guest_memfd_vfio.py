#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Devices that are assigned to a guest get at its shared memory, and only there
#
# Two "edu" devices, which do DMA by themselves, behind the lab's IOMMU
#
# Copyright (c) 2026 The qemu-gmem developers

import os
import resource
import time

from qemu.machine.machine import VMLaunchFailure
from qemu.qmp import ExecuteError
from guest_memfd import AssignedDevices, GuestMemfdPrivateTest, LONG, MIB

# What the device can do with a page in all its states: shared at first, converted
# to private and back, with RAM mapped anew, converted while the DMA is waiting.
DMA = ('edu,at=33M,via=32M '
       'convert,base=33M,size=8K,private=1 '
       'edu,at=33M,via=32M,refused=1 edu,at=0x2101000,via=32M,refused=1 '
       'edu,at=0x2102000,via=32M '
       'convert,base=33M,size=4K,private=0 '
       'shadow edu,at=33M,via=32M edu,at=0x2101000,via=32M,refused=1 '
       'edu,at=33M,via=32M,during=1,refused=1 '
       'edu,at=33M,via=32M,during=0')


def io_page_faults():
    """How often the IOMMU has found nothing at an address, as the kernel says,
    and when it last did, in microseconds."""
    count = last = 0
    with open('/dev/kmsg', encoding='ascii', errors='replace') as kmsg:
        os.set_blocking(kmsg.fileno(), False)
        while True:
            try:
                line = os.read(kmsg.fileno(), 8192)
            except BlockingIOError:
                return count, last
            if b'IO_PAGE_FAULT' in line:
                count, last = count + 1, int(line.split(b',')[2])


def limited(limit):
    """Starts a program that can lock no more memory than that."""
    return ('prlimit', f'--memlock={limit}',
            'setpriv', '--bounding-set', '-ipc_lock')


class GuestMemfdVfio(AssignedDevices, GuestMemfdPrivateTest):

    def setUp(self):
        super().setUp()
        self.take_edu()

    def watch_faults(self):
        """Until the end of the test there has to be one. The kernel tells of
        ten within 5 s, and of no more."""
        before, last = io_page_faults()
        time.sleep(max(0, last / 1e6 + 5.5 - time.monotonic()))
        self.addCleanup(lambda: self.assertGreater(io_page_faults()[0], before))

    def dma(self, backend, iommufd):
        self.watch_faults()
        vm, console = self.start('vm', *self.device(0, iommufd), backend=backend,
                                 memory=64, payload=DMA)
        console.expect('^done 0 failed')
        self.assert_bound(vm)

    def storm(self, *iommufd):
        """With a listener for each device."""
        devices = [arg for number, kind in enumerate(iommufd)
                   for arg in self.device(number, kind)]
        for node in 'node0', 'node1':
            devices += ['-object', f'memory-backend-guest-memfd,id={node},size=48M',
                        '-numa', f'node,memdev={node}']
        vm, console = self.start(
            'vm', '-smp', '4', *devices, memory=96, backend=None,
            payload='storm,base=34M,size=14M,base2=48M,size2=16M,hole=3G,'
                    f'holesize=1M,shadows=60,count={500 * LONG} '
                    f'convert,base=34M,size=30M,private=0 {DMA} '
                    + DMA.replace('edu,', 'edu,device=1,'))
        console.expect('^done 0 failed')
        self.assert_bound(vm, 'node0', 'node1')

    def failing_map(self, iommufd):
        """A conversion to shared that VFIO cannot map is undone."""
        size = 'base=33M,size=64K'
        self.watch_faults()
        vm = self.machine_vm(
            'vm', *self.device(0, iommufd), memory=64,
            payload=f'convert,{size},private=1 fill,{size},seed=3 wait '
                    f'convert,{size},private=0,expect=12 verify,{size},seed=3 '
                    'edu,at=33M,via=32M,refused=1 '
                    'edu,at=0x2107000,via=32M,refused=1 wait '
                    f'convert,{size},private=0 converted,{size},seed=3 '
                    'edu,at=33M,via=32M')
        vm._wrapper = limited('unlimited')
        vm.launch()
        console = self.console(vm)

        def limit_locked(limit):
            resource.prlimit(vm.get_pid(), resource.RLIMIT_MEMLOCK,
                             (limit, resource.RLIM_INFINITY))

        console.expect('^waiting')
        # Half of the pages can be mapped.
        limit_locked(self.process_status(vm, 'VmPin' if iommufd else 'VmLck')
                     + 32 * 1024)
        self.press_key(vm)
        console.expect('^waiting')
        limit_locked(resource.RLIM_INFINITY)
        self.press_key(vm)
        console.expect('^done 0 failed')
        self.assertEqual([(failure['errno'], failure['count']) for failure in
                          self.info(vm)['conversion']['failures']], [(12, 1)])

    def refused(self, iommufd, limit, memory, message):
        """A device that cannot get at all shared memory does not come to be."""
        vm = self.machine_vm('vm', *self.device(0, iommufd), memory=memory,
                             payload='hello')
        vm._wrapper = limited(limit)
        self.assert_refused(vm, message)

    def viommu(self, viommu, first):
        """A device behind a vIOMMU would keep private memory mapped."""
        args = [['-device', viommu], self.device(0, True)]
        vm = self.machine_vm('vm', *args[not first], *args[first], memory=64,
                             payload='hello')
        self.assert_refused(vm, 'behind a vIOMMU')

    def test_viommu_hotplug(self):
        """The same for a device that comes later; emulated ones work."""
        host = os.path.basename(self.edu[0])
        vm, console = self.start('vm', '-device', 'intel-iommu', '-device',
                                 'edu', '-device', 'pcie-root-port,id=root1',
                                 memory=64, payload='edu,at=33M,via=32M wait')
        console.expect('^ok edu')
        with self.assertRaisesRegex(ExecuteError, 'behind a vIOMMU'):
            vm.cmd('device_add', driver='vfio-pci', host=host, bus='root1')
        self.press_key(vm)
        console.expect('^done 0 failed')

    def plug(self, vm, size):
        vm.cmd('object-add', args_dict={
            'qom-type': 'memory-backend-ram', 'id': 'mem1', 'size': size * MIB})
        vm.cmd('device_add', driver='pc-dimm', id='dimm1', memdev='mem1')

    def plug_refused(self, vm, console, size, why):
        """A DIMM of that size, in MiB; a smaller one is not."""
        console.expect('^waiting')
        with self.assertRaisesRegex(ExecuteError, why):
            self.plug(vm, size)
        self.assertEqual(vm.cmd('query-memory-devices'), [])
        vm.cmd('object-del', id='mem1')
        self.plug(vm, 32)
        self.press_key(vm)
        console.expect('^done 0 failed')

    def test_plug_limit(self):
        """A DIMM for which VFIO has not enough mappings is refused, and nothing
        is changed; a smaller one is not."""
        vm, console = self.start(
            'vm', *self.device(0, False), '-m', '64M,maxmem=2G,slots=4', memory=64,
            payload=f'wait {DMA} edu,at=4G,via=32M')
        self.plug_refused(vm, console, 256, 'dma_entry_limit')

    def plug_locked(self, iommufd):
        """A DIMM whose memory the process must not lock is refused; a smaller
        one is not."""
        vm = self.machine_vm(
            'vm', *self.device(0, iommufd), '-m', '64M,maxmem=2G,slots=4',
            memory=64, payload='wait edu,at=4G,via=32M')
        vm._wrapper = limited(128 * MIB)
        vm.launch()
        self.plug_refused(vm, self.console(vm), 128, 'RLIMIT_MEMLOCK')

    def test_plug_iommufd(self):
        """There is no such limit with iommufd."""
        vm, console = self.start(
            'vm', *self.device(0, True), '-m', '64M,maxmem=2G,slots=4', memory=64,
            payload='wait edu,at=4G,via=32M edu,at=0x10fff0000,via=32M')
        console.expect('^waiting')
        self.plug(vm, 256)
        self.press_key(vm)
        console.expect('^done 0 failed')

    def test_bar_limit(self):
        """Memory that the guest maps itself cannot be refused; what VFIO has no
        mappings for, the device cannot access, but the VM lives."""
        vm, console = self.start(
            'vm', *self.device(0, False), '-object',
            'memory-backend-ram,id=mem1,size=256M,share=on',
            '-device', 'ivshmem-plain,memdev=mem1', memory=64, payload=DMA)
        console.expect('^done 0 failed')
        vm.shutdown()
        self.assertRegex(vm.get_log(), 'dma_entry_limit|DMA mappings')

    def plain(self, iommufd):
        """In a VM without private memory, too."""
        self.machine_args, self.machine_props = (), ''
        vm = self.machine_vm('vm', *self.device(0, iommufd),
                             payload='edu,at=33M,via=32M edu,at=254M,via=32M')
        try:
            vm.launch()
        except VMLaunchFailure:
            if 'which takes Linux 6.18' in vm.get_log():
                del self._vms['vm']
                self.skipTest('this kernel cannot map a guest_memfd')
            raise
        self.console(vm).expect('^done 0 failed')


GuestMemfdVfio.add_cases('dma', (
    ('type1', 'memory-backend-guest-memfd', False),
    ('iommufd', 'memory-backend-guest-memfd', True),
    ('ram', 'memory-backend-ram', False),
))
GuestMemfdVfio.add_cases('storm', (('storm', False, True),))
GuestMemfdVfio.add_cases('failing_map', (('failing_map_type1', False),
                                         ('failing_map_iommufd', True)))
GuestMemfdVfio.add_cases('refused', (
    ('refused_limit', False, 'unlimited', 256, 'dma_entry_limit'),
    ('refused_type1', False, 32 * MIB, 64, 'cannot map its memory for DMA'),
    ('refused_iommufd', True, 32 * MIB, 64, 'cannot map its memory for DMA'),
))
GuestMemfdVfio.add_cases('plug_locked', (('plug_locked_type1', False),
                                         ('plug_locked_iommufd', True)))
GuestMemfdVfio.add_cases('viommu', (
    ('viommu_intel', 'intel-iommu', True),
    ('viommu_intel_last', 'intel-iommu', False),
    ('viommu_amd', 'amd-iommu', True),
    ('viommu_virtio', 'virtio-iommu-pci', True),
    ('viommu_virtio_last', 'virtio-iommu-pci', False),
))
GuestMemfdVfio.add_cases('plain', (('plain_type1', False),
                                   ('plain_iommufd', True)))

if __name__ == '__main__':
    GuestMemfdPrivateTest.main()
