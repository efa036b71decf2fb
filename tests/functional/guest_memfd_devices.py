# SPDX-License-Identifier: GPL-2.0-or-later
#
# Hotplug, NUMA nodes, balloon and vhost-user with memory-backend-guest-memfd, on each
# architecture
#
# Copyright (c) 2026 The qemu-gmem developers

import hashlib
import os

from guest_memfd import GuestMemfdTest, MEMTOTAL, MIB, VhostUserPeer


class DevicesTest(GuestMemfdTest):

    def start_linux(self, *args, name='vm', **kwargs):
        vm, console = self.start(name, *args, linux='gmem.mode=wait', **kwargs)
        console.expect('^guest: ready')
        return vm, console

    @staticmethod
    def fill(console, megabytes):
        """Has the guest use memory, and check what it wrote."""
        console.run('mount -o remount,size=1G /tmp; seq 170000 | head -c 1048576 > /tmp/part; '
                    'for i in 1 2 3 4; do cat /tmp/part; done > /tmp/piece')
        console.run(f'for i in $(seq {megabytes // 4}); do cat /tmp/piece; done > /tmp/fill')
        part = ''.join(f'{number}\n' for number in range(1, 170001)).encode()[:MIB]
        digest = hashlib.md5(part * megabytes).hexdigest()
        console.run(f'[ "$(md5sum < /tmp/fill)" = "{digest}  -" ]')

    @staticmethod
    def host_free():
        with open('/proc/meminfo', encoding='ascii') as meminfo:
            for line in meminfo:
                if line.startswith('MemFree:'):
                    return int(line.split()[1]) * 1024
        raise KeyError('MemFree')

    def hotplug(self, machine, memory=128, args=()):
        """A DIMM is plugged, used, unplugged, and its memory given back."""
        vm, console = self.start_linux('-m', f'{memory}M,slots=2,maxmem=1G', *args,
                                       machine=machine, memory=memory)
        before = console.number(MEMTOTAL)
        for _ in range(2):
            vm.cmd('object-add', args_dict={
                'qom-type': 'memory-backend-guest-memfd', 'id': 'mem1',
                'size': 128 * MIB})
            vm.cmd('device_add', driver='pc-dimm', id='dimm1', memdev='mem1')
            self.wait_for('the guest has the memory', lambda:
                          console.number(MEMTOTAL) - before > 120 * 1024)
            self.assert_bound(vm, 'ram0', 'mem1')
            self.assertEqual(len(self.guest_memfds(vm)), 2)

            self.fill(console, 96)      # goes to the DIMM first
            used = self.info(vm, 'mem1')['allocated']
            self.assertGreater(used, 32 * MIB)
            console.run('rm /tmp/fill')

            vm.cmd('device_del', id='dimm1')
            vm.event_wait('DEVICE_DELETED', match={'data': {'device': 'dimm1'}})
            self.assertEqual(self.info(vm, 'mem1')['slots'], [])
            free = self.host_free()
            vm.cmd('object-del', id='mem1')
            self.wait_for('the host has the memory back', lambda:
                          self.host_free() - free > used / 2)
            # RCU closes it a moment later.
            self.wait_for('QEMU has closed the file', lambda:
                          len(self.guest_memfds(vm)) == 1)
            self.assertAlmostEqual(console.number(MEMTOTAL), before, delta=4096)
        self.assert_bound(vm)

    def test_numa_nodes(self):
        """A backend for each of two nodes, and the guest has both."""
        vm, console = self.start_linux(
            '-object', 'memory-backend-guest-memfd,id=node0,size=64M',
            '-object', 'memory-backend-guest-memfd,id=node1,size=96M',
            '-numa', 'node,memdev=node0', '-numa', 'node,memdev=node1',
            backend=None, memory=160)
        self.assert_bound(vm, 'node0', 'node1')
        self.assertEqual(
            console.run('cd /sys/devices/system/node; echo node?'),
            'node0 node1')
        sizes = [console.number("awk '/MemTotal/ { print $4 }' "
                                f'/sys/devices/system/node/node{node}/meminfo')
                 for node in range(2)]
        self.assertLessEqual(sizes[0], 64 * 1024)
        self.assertLessEqual(sizes[1], 96 * 1024)
        self.assertGreater(sizes[1], 64 * 1024)
        self.fill(console, 88)          # more than either has free
        for node, size in ('node0', 64), ('node1', 96):
            self.assertGreater(self.info(vm, node)['allocated'], 16 * MIB)
            self.assertLessEqual(self.info(vm, node)['allocated'], size * MIB)

    def test_balloon(self):
        """What the guest gives to the balloon, the host gets."""
        vm, console = self.start_linux('-device', 'virtio-balloon-pci', memory=192)
        self.fill(console, 104)
        console.run('rm /tmp/fill')
        full = self.info(vm)['allocated']
        self.assertGreater(full, 104 * MIB)

        for size in 96 * MIB, 192 * MIB:
            vm.cmd('balloon', value=size)
            self.wait_for(f'the balloon leaves {size} bytes', lambda size=size:
                          vm.cmd('query-balloon')['actual'] == size)
            self.assert_bound(vm)
            if size == 96 * MIB:
                self.assertLessEqual(self.info(vm)['allocated'], 100 * MIB)
        self.fill(console, 104)
        self.assertGreater(self.info(vm)['allocated'], 104 * MIB)

    def test_virtio_mem(self):
        """Plugs and unplugs parts of a backend."""
        vm, console = self.start_linux(
            '-m', '128M,maxmem=1G',
            '-object', 'memory-backend-guest-memfd,id=mem1,size=128M',
            '-device', 'virtio-mem-pci,id=vmem,memdev=mem1,requested-size=0',
            memory=128)
        before = console.number(MEMTOTAL)
        for size in 64 * MIB, 128 * MIB, 0, 128 * MIB, 0:
            vm.cmd('qom-set', path='vmem', property='requested-size', value=size)
            self.wait_for(f'virtio-mem has {size}', lambda size=size: vm.cmd(
                'qom-get', path='vmem', property='size') == size)
            self.wait_for('the guest has it', lambda size=size: abs(
                console.number(MEMTOTAL) - before - size // 1024) < 16 * 1024)
            if size == 128 * MIB:
                self.assert_bound(vm, 'ram0', 'mem1')
                self.fill(console, 96)
                self.assertGreater(self.info(vm, 'mem1')['allocated'], 32 * MIB)
                console.run('rm /tmp/fill')
        self.assertEqual(self.info(vm, 'mem1')['allocated'], 0)

    def random_disk(self, used, size):
        """A disk that begins with random data; its file, and these"""
        disk = self.scratch_file('disk.raw')
        data = os.urandom(used)
        with open(disk, 'wb') as file:
            file.write(data)
            file.truncate(size)
        return disk, data

    def test_vhost_user_blk(self):
        """Another process reads and writes the guest's memory, by the fd."""
        mib = 4
        disk, data = self.random_disk(mib * MIB, 4 * mib * MIB)
        _, path = self.storage_daemon(disk)
        vm, console = self.start_linux(
            '-chardev', f'socket,id=vhost,path={path}',
            '-device', 'vhost-user-blk-pci,chardev=vhost')
        self.assert_bound(vm)
        got = console.run(f'dd if=/dev/vda bs=1M count={mib} | md5sum')
        self.assertIn(hashlib.md5(data).hexdigest(), got)

        console.run('yes "from the guest" | head -c 4194304 > /tmp/data')
        console.run(f'dd if=/tmp/data of=/dev/vda bs=1M seek={mib} && sync')
        with open(disk, 'rb') as file:
            self.assertEqual(file.read(mib * MIB), data)
            line = b'from the guest\n'
            self.assertTrue(file.read(mib * MIB) ==
                            (line * (mib * MIB // len(line) + 1))[:mib * MIB],
                            'what the guest wrote is not in the file')
            self.assertEqual(file.read().strip(b'\0'), b'')
        self.assert_bound(vm)

    def aio(self, kind):
        """The host's kernel reads and writes the guest's memory."""
        mib = 4
        disk, data = self.random_disk(mib * MIB, 2 * mib * MIB)
        vm, console = self.start_linux(
            '-blockdev', f'driver=file,node-name=disk,filename={disk},'
                         f'aio={kind},cache.direct=on',
            '-device', 'virtio-blk-pci,drive=disk')
        console.run(f'dd if=/dev/vda of=/tmp/data bs=1M count={mib}')
        got = console.run('md5sum < /tmp/data')
        self.assertIn(hashlib.md5(data).hexdigest(), got)
        console.run(f'dd if=/tmp/data of=/dev/vda bs=1M seek={mib} && sync')
        with open(disk, 'rb') as file:
            self.assertTrue(file.read() == data * 2)
        self.assert_bound(vm)

    def vhost_user_refuses(self, protocol):
        """A daemon that ends when it gets a guest_memfd: QEMU says why."""
        path = os.path.join(self.socket_dir().name, 'vhost')
        peer = VhostUserPeer(path, VhostUserPeer.SET_MEM_TABLE, protocol)
        self.addCleanup(peer.close)
        vm, console = self.start(
            'vm', '-chardev', f'socket,id=fs,path={path}',
            '-device', 'vhost-user-fs-pci,id=fs0,chardev=fs,tag=fs', payload='ring,type=26,base=32M hello')
        console.expect('^done 0 failed')
        self.assertIn(peer.SET_MEM_TABLE, peer.requests)
        self.assertEqual(vm.cmd('query-status')['status'], 'running')
        vm.shutdown()
        self.assertRegex(vm.get_log(), "vhost-user device .*fs0.* cannot use "
                         "guest_memfd, which 'ram0' is made of: use memory-backend-memfd")


DevicesTest.add_cases('aio', (
    ('aio_native', 'native'), ('aio_io_uring', 'io_uring')))
DevicesTest.add_cases('vhost_user_refuses', (
    ('vhost_user_refuses', VhostUserPeer.REPLY_ACK),
    ('vhost_user_refuses_silently', 0)))
