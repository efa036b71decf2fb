#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# libvirt with guest_memfd, for real: what a user does with virsh
#
# Copyright (c) 2026 The qemu-gmem developers

import os
import re
import subprocess
import unittest

from libvirt_host import Failed, Guest, Host, LAB, MIB, QEMU, wait_for

PROTECTED = "<launchSecurity type='sw-protected'/>"
# 6.12 cannot map a guest_memfd.
PLAIN = os.getenv('LAB_KERNEL') != '6.12'
PRIVATE = 'convert,base=24M,size=256K,private=1'
SHARED = 'convert,base=24M,size=256K,private=0'
FILL = 'fill,base=16M,size=1M'
VERIFY = 'verify,base=16M,size=1M'
REFUSED = "cannot migrate domain: 262144 bytes of the guest's memory are private"
ONE_NODE = "<numa><cell id='0' cpus='0' memory='256' unit='MiB'/></numa>"
DIMM = """
    <memory model='dimm'>
      <target><size unit='MiB'>128</size><node>0</node></target>
    </memory>"""


class LibvirtTest(unittest.TestCase):
    hosts = 'a'
    started = {}        # for all classes: a daemon takes long to ask QEMU what it can do

    @classmethod
    def setUpClass(cls):
        for name in cls.hosts:
            if name not in cls.started:
                cls.started[name] = Host(name)
                unittest.addModuleCleanup(cls.started[name].end)
        cls.host = cls.started['a']

    def guest(self, name, **kwargs):
        guest = Guest(self.host, name, **kwargs).define()
        self.addCleanup(guest.forget)
        return guest

    def payload(self, name, **kwargs):
        guest = self.guest(name, **kwargs).start()
        guest.expect('^serving$')
        return guest

    def path(self, name):
        return os.path.join(self.host.folder, name)

    def refused(self, text, guest, *command):
        with self.assertRaisesRegex(Failed, re.escape(text)):
            guest.virsh(*command)


@unittest.skipUnless(PLAIN, 'this kernel cannot map a guest_memfd')
class LibvirtPlain(LibvirtTest):
    """Guests without private memory"""

    def test_life(self):
        """From define to undefine"""
        guest = self.payload('life', devices="<memballoon model='virtio'/>")
        self.assertEqual(guest.bindings(), {'pc.ram': {'bound', 'alias'}})
        self.assertIn("<access mode='shared'/>", guest.virsh('dumpxml'))
        self.assertIn('running', guest.virsh('dominfo'))
        self.assertIn('rss', guest.virsh('dommemstat'))
        guest.virsh('setmem', '32M')
        guest.run(FILL)
        guest.virsh('suspend')
        guest.virsh('resume')
        guest.run(VERIFY)
        guest.virsh('reset')
        guest.expect('^serving$')
        guest.virsh('destroy')
        guest.virsh('undefine')
        with self.assertRaises(Failed):
            guest.virsh('dominfo')

    def test_reboot(self):
        guest = self.guest('reboot', linux='gmem.mode=reboot', memory=256).start()
        guest.expect('guest: boot')
        guest.expect('guest: boot')

    def save(self, image_format):
        guest = self.payload('save')
        guest.run(FILL)
        guest.virsh('save', self.path('saved'), '--image-format', image_format)
        self.assertIn('shut off (saved)', guest.state())
        self.host.virsh('restore', self.path('saved'))
        guest.run(VERIFY)
        os.unlink(self.path('saved'))

    def test_save_raw(self):
        self.save('raw')

    def test_save_sparse(self):
        self.save('sparse')

    def test_managed_save(self):
        guest = self.payload('managed')
        guest.run(FILL)
        guest.virsh('managedsave')
        guest.start()
        guest.run(VERIFY)

    def test_restore_elsewhere(self):
        """A saved guest keeps its memory source, as the manual says."""
        guest = self.payload('elsewhere')
        guest.virsh('save', self.path('saved'))
        xml = self.host.virsh('save-image-dumpxml', self.path('saved'))
        with open(self.path('other.xml'), 'w', encoding='utf-8') as file:
            file.write(xml.replace("type='guest-memfd'", "type='memfd'"))
        with self.assertRaisesRegex(Failed, "Target memoryBacking source 'memfd' doesn't match"):
            self.host.virsh('restore', self.path('saved'), '--xml', self.path('other.xml'))
        self.host.virsh('restore', self.path('saved'))
        guest.run('hello')
        os.unlink(self.path('saved'))

    def test_dump(self):
        guest = self.payload('dump')
        guest.virsh('dump', self.path('core'), '--memory-only')
        self.assertGreater(os.path.getsize(self.path('core')), 64 * MIB)
        os.unlink(self.path('core'))
        guest.run('hello')

    def test_dimm(self):
        guest = self.guest('dimm', linux='gmem.mode=wait', memory=256, numa=ONE_NODE,
                           more="<maxMemory slots='2' unit='GiB'>1</maxMemory>").start()
        guest.expect('guest: ready')
        with open(self.path('dimm.xml'), 'w', encoding='utf-8') as file:
            file.write(DIMM)
        guest.virsh('attach-device', self.path('dimm.xml'), '--live')
        bindings = guest.bindings()
        self.assertEqual({'ram-node0', 'memdimm0'}, {*bindings})
        self.assertIn('bound', bindings['memdimm0'])
        guest.run('[ $(awk "/^MemTotal/ { print \\$2 }" /proc/meminfo) -gt 300000 ]')
        guest.virsh('detach-device', self.path('dimm.xml'), '--live')
        wait_for('the DIMM is gone', lambda: 'memdimm0' not in guest.bindings())
        guest.run('[ $(awk "/^MemTotal/ { print \\$2 }" /proc/meminfo) -lt 300000 ]')

    def test_numa(self):
        cells = "".join(f"<cell id='{i}' cpus='{i}' memory='32' unit='MiB'/>" for i in (0, 1))
        guest = self.payload('numa', numa=f'<numa>{cells}</numa>', vcpus=2)
        bindings = guest.bindings()
        self.assertEqual({'ram-node0', 'ram-node1'}, {*bindings})
        for node in bindings.values():
            self.assertLessEqual(node, {'bound', 'alias'})

    def test_virtiofs(self):
        program = os.path.join(LAB, 'virtiofsd/c/virtiofsd')
        if not os.path.exists(program):
            self.skipTest(f'{program} is not there; "lab/build virtiofsd" makes it')
        folder = self.path('shared')
        os.mkdir(folder)
        with open(os.path.join(folder, 'host'), 'w', encoding='ascii') as file:
            file.write('from the host')
        guest = self.guest('virtiofs', linux='gmem.mode=wait', memory=256, devices=f"""
            <filesystem type='mount' accessmode='passthrough'>
              <driver type='virtiofs'/>
              <binary path='{program}'><sandbox mode='chroot'/></binary>
              <source dir='{folder}'/><target dir='fs'/>
            </filesystem>""").start()
        guest.expect('guest: ready')
        guest.run('mkdir /tmp/fs && mount -t virtiofs fs /tmp/fs')
        guest.run('grep "from the host" /tmp/fs/host && echo from the guest > /tmp/fs/guest')
        guest.run('sync')
        with open(os.path.join(folder, 'guest'), encoding='ascii') as file:
            self.assertEqual(file.read(), 'from the guest\n')

    def test_vhost_user_disk(self):
        disk, port = self.path('disk'), self.path('vhost')
        with open(disk, 'wb') as file:
            file.write(b'from the host'.ljust(MIB, b'\0'))
        daemon = subprocess.Popen([
            os.path.join(os.path.dirname(QEMU), 'qemu-storage-daemon'),
            '--blockdev', f'file,node-name=file,filename={disk}',
            '--export', 'type=vhost-user-blk,id=export,node-name=file,writable=on,'
                        f'addr.type=unix,addr.path={port}'])
        self.addCleanup(daemon.wait)
        self.addCleanup(daemon.kill)
        wait_for('the daemon', lambda: os.path.exists(port))
        guest = self.guest('vhost', linux='gmem.mode=wait', memory=256, devices=f"""
            <disk type='vhostuser' device='disk'>
              <driver name='qemu' type='raw'/>
              <source type='unix' path='{port}'/><target dev='vda' bus='virtio'/>
            </disk>""").start()
        guest.expect('guest: ready')
        guest.run('[ "$(head -c 13 /dev/vda)" = "from the host" ]')
        guest.run('echo from the guest | dd of=/dev/vda bs=512 seek=8 conv=fsync,sync')
        with open(disk, 'rb') as file:
            self.assertIn(b'from the guest', file.read())

    def test_daemon_restarted(self):
        guest = self.payload('restarted')
        self.host.restart()
        self.assertIn('running', guest.state())
        guest.run('hello')
        self.assertEqual(guest.bindings(), {'pc.ram': {'bound', 'alias'}})


class LibvirtProtected(LibvirtTest):
    """Guests whose memory can be private"""

    def test_capabilities(self):
        caps = self.host.virsh('domcapabilities', '--virttype', 'kvm', '--emulatorbin', QEMU)
        self.assertEqual('<value>guest-memfd</value>' in caps, PLAIN)
        self.assertIn('<value>sw-protected</value>', caps)
        caps = self.host.virsh('domcapabilities', '--virttype', 'qemu', '--emulatorbin', QEMU)
        self.assertNotIn('<value>guest-memfd</value>', caps)
        self.assertNotIn('<value>sw-protected</value>', caps)

    def each_api(self, guest):
        """Each API's answer while memory is private"""
        guest.run(PRIVATE)
        for command in (('save', self.path('saved')), ('managedsave',),
                        ('dump', self.path('saved')),
                        ('snapshot-create-as', '--memspec', self.path('saved'))):
            self.refused(REFUSED, guest, *command)
            self.assertIn('running', guest.state())
        guest.virsh('dump', self.path('core'), '--memory-only')
        os.unlink(self.path('core'))
        guest.run(SHARED)
        guest.virsh('save', self.path('saved'))
        self.host.virsh('restore', self.path('saved'))
        guest.run(PRIVATE)
        guest.virsh('reset')
        guest.expect('^serving$')
        os.unlink(self.path('saved'))

    def test_each_api(self):
        self.each_api(self.payload('protected', sec=PROTECTED, backing=''))

    def test_each_api_guest_memfd(self):
        self.each_api(self.payload('protected', sec=PROTECTED))


@unittest.skipUnless(PLAIN, 'this kernel cannot map a guest_memfd')
class LibvirtMigration(LibvirtTest):
    hosts = 'ab'

    def migrate(self, guest, *args):
        return guest.host.popen('migrate', guest.name, self.started['b'].uri, '--live',
                                '--migrateuri', 'tcp:127.0.0.1',
                                '--listen-address', '127.0.0.1', *args)

    def live(self, *args):
        guest = self.payload('live')
        guest.run(FILL)
        process = self.migrate(guest, *args)
        error = process.communicate()[1]
        self.assertEqual(process.returncode, 0, error)
        self.assertIn('shut off (migrated)', guest.state())
        guest.virsh('undefine')
        guest.host = self.started['b']
        guest.port = None
        guest.run(VERIFY)
        self.assertEqual(guest.bindings(), {'pc.ram': {'bound', 'alias'}})

    def test_live(self):
        self.live()

    def test_parallel(self):
        self.live('--parallel', '--parallel-connections', '2')

    def test_cancelled(self):
        guest = self.payload('cancelled')
        guest.run('fill,base=16M,size=40M')
        process = self.migrate(guest, '--bandwidth', '1')
        wait_for('the migration', lambda: 'Outgoing migration' in guest.virsh('domjobinfo'))
        guest.virsh('domjobabort')
        error = process.communicate()[1]
        self.assertIn('canceled', error)
        self.assertIn('running', guest.state())
        guest.run('verify,base=16M,size=40M')
        self.assertEqual('', self.started['b'].virsh('list', '--all', '--name'))

    def test_private(self):
        guest = self.payload('private', sec=PROTECTED)
        guest.run(PRIVATE)
        error = self.migrate(guest).communicate()[1]
        self.assertIn(REFUSED, error)
        guest.run(SHARED)
        process = self.migrate(guest)
        self.assertEqual('', process.communicate()[1])
        guest.virsh('undefine')
        guest.host = self.started['b']
        guest.port = None
        guest.run(PRIVATE)


if __name__ == '__main__':
    unittest.main()
