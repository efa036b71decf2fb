#!/usr/bin/env python3
#
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Each machine type and each way of starting: it works, or is refused by name
#
# Copyright (c) 2026 The qemu-gmem developers

import json
import os
import re
import subprocess

from guest_memfd import GuestMemfdPrivateTest, HANG

GMEM = 'memory-backend-guest-memfd'
# An argument that stands for the guest's object, and the machine that has it
CGS = ('-object', 'sw-protected-guest,id=c')
MACHINE = 'q35,confidential-guest-support=c'
RAM0 = ('-m', '64M', '-object', f'{GMEM},id=ram0,size=64M')
NUMA = ('-m', '64M', '-object', f'{GMEM},id=n0,size=32M', '-object',
        'memory-backend-memfd,id=n1,size=32M', '-numa', 'node,memdev=n0',
        '-numa', 'node,memdev=n1')


IN_PLACE = GuestMemfdPrivateTest.in_place


def command(name, **arguments):
    return {'execute': name, 'arguments': arguments}


class GuestMemfdPrivateStart(GuestMemfdPrivateTest):

    def qemu(self, *args, commands=()):
        """Starts QEMU, has it execute the commands, and quits.  Returns its
        status, what it wrote to stderr, and the answers."""
        commands = [{'execute': 'qmp_capabilities'}, *commands,
                    {'execute': 'quit'}]
        done = subprocess.run(
            [self.qemu_bin, '-nodefaults', '-no-user-config', '-display', 'none',
             '-S', '-qmp', 'stdio', *args],
            input='\n'.join(map(json.dumps, commands)), capture_output=True,
            text=True, timeout=HANG, check=False)
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        return done.returncode, done.stderr, [
            answer for answer in answers
            if 'return' in answer or 'error' in answer][1:]

    def check(self, args, refused=None, commands=()):
        """QEMU starts, or says why not.  The commands are pairs: what is
        executed, and with what error it fails, or None."""
        status, log, answers = self.qemu(
            *args, commands=[todo for todo, _ in commands])
        what = f'{" ".join(args)}: status {status}, {log} {answers}'
        if refused:
            self.assertEqual(status, 1, what)
            self.assertRegex(log, refused, what)
            return
        self.assertEqual(status, 0, what)
        for answer, (todo, error) in zip(answers, commands):
            if error:
                self.assertRegex(answer.get('error', {}).get('desc', ''), error,
                                 f'{todo} in {what}')
            else:
                self.assertIn('return', answer, f'{todo} in {what}')

    def machines(self):
        _, _, answers = self.qemu('-machine', 'none', '-accel', 'qtest',
                                  commands=[{'execute': 'query-machines'}])
        machines = answers[0]['return']
        names = [machine['name'] for machine in machines]
        newest = [machine['name'] for machine in machines if 'alias' in machine
                  or not re.search(r'-\d', machine['name'])]
        self.assertIn('q35', [machine.get('alias') for machine in machines])
        self.assertGreaterEqual(set(newest), {'none', 'microvm'})
        self.assertGreater(len(names), len(newest))
        return names, newest

    def maps_guest_memfd(self):
        """Linux 6.12 cannot."""
        return self.qemu('-accel', 'kvm', '-machine', 'none', *RAM0)[0] == 0

    def test_machines(self):
        """Private memory in all of them, or the newest if the kernel is old;
        and a guest_memfd that is mapped."""
        names, newest = self.machines()
        maps = self.maps_guest_memfd()
        for name in names if maps else newest:
            self.check(('-accel', 'kvm', *CGS, '-machine',
                        f'{name},confidential-guest-support=c'),
                       f"'-machine {name}' does not work with sw-protected"
                       if name == 'none' else None)
        for name in newest:
            self.check(('-accel', 'kvm', '-machine',
                        f'{name},memory-backend=ram0', *RAM0),
                       None if maps else 'Use memory-backend-memfd here')

    # Name, arguments, and with what message QEMU ends, if it does
    STARTS = (
        ('tcg', ('-accel', 'tcg', *CGS, '-machine', MACHINE),
         'sw-protected-guest: KVM required'),
        ('tcg_none', ('-accel', 'tcg', *CGS, '-machine',
                      'none,confidential-guest-support=c'),
         'does not support confidential guest sw-protected-guest'),
        ('qtest', ('-accel', 'qtest', *CGS, '-machine', MACHINE),
         'sw-protected-guest: KVM required'),
        ('two_accels', ('-accel', 'kvm', '-accel', 'tcg', *CGS, '-machine',
                        MACHINE)),
        ('object_last', ('-accel', 'kvm', '-machine', MACHINE, *CGS)),
        ('memory_encryption', ('-accel', 'kvm', *CGS, '-machine',
                               'q35,memory-encryption=c')),
        ('no_such_object', ('-accel', 'kvm', '-machine', MACHINE), "'c'"),
        ('wrong_object', ('-accel', 'kvm', '-machine', MACHINE, '-object',
                          'iothread,id=c'), 'Invalid parameter'),
        ('not_used', ('-accel', 'kvm', *CGS, '-machine', 'q35')),
        ('smm', ('-accel', 'kvm', *CGS, '-machine', MACHINE + ',smm=on'),
         'smm=on'),
        # Plain VMs are refused for it as well, by KVMs without such an APIC.
        ('irqchip_off', ('-accel', 'kvm,kernel-irqchip=off', *CGS, '-machine',
                         MACHINE), 'userspace APIC'),
        ('irqchip_split', ('-accel', 'kvm,kernel-irqchip=split', *CGS,
                           '-machine', MACHINE)),
        ('dirty_ring', ('-accel', 'kvm,dirty-ring-size=4096', *CGS, '-machine',
                        MACHINE)),
        ('backend', ('-accel', 'kvm', *CGS, '-machine',
                     MACHINE + ',memory-backend=ram0', *RAM0)),
        ('numa', ('-accel', 'kvm', *CGS, '-machine', MACHINE, *NUMA)),
        ('incoming', ('-accel', 'kvm', *CGS, '-machine', MACHINE, '-incoming',
                      'defer')),
        ('loadvm', ('-accel', 'kvm', *CGS, '-machine', MACHINE, '-loadvm',
                    'one'), 'no block device'),
        ('no_kvm_leaf', ('-accel', 'kvm', '-cpu', 'host,kvm=off', *CGS,
                         '-machine', MACHINE)),
        ('in_place_on', ('-accel', 'kvm', '-object',
                         'sw-protected-guest,id=c,convert-in-place=on',
                         '-machine', MACHINE),
         None if IN_PLACE else "'convert-in-place' is on, but this host's KVM cannot"),
        ('in_place_off', ('-accel', 'kvm', '-object',
                          '{"qom-type": "sw-protected-guest", "id": "c", '
                          '"convert-in-place": false}', '-machine', MACHINE),
         "'convert-in-place' is off, but this host's KVM only" if IN_PLACE else None),
        ('in_place_other', ('-accel', 'kvm', '-object', 's390-pv-guest,id=c,'
                            'convert-in-place=on', '-machine', MACHINE),
         'Parameter|convert-in-place|s390'),
        # As AMD's testers write it, with another guest than theirs
        ('amd', ('-accel', 'kvm', '-object',
                 'sw-protected-guest,id=c,convert-in-place=true', '-machine',
                 MACHINE + ',memory-backend=ram0', '-m', '60G', '-object',
                 f'{GMEM},id=ram0,size=60G,share=on,host-nodes=0,policy=interleave'),
         None if IN_PLACE else "'convert-in-place' is on|no effect on private memory"),
        ('backend_tcg', ('-accel', 'tcg', '-machine',
                             'q35,memory-backend=ram0', *RAM0),
         'needs KVM'),
    )

    def starts(self, args, refused=None):
        self.check(args, refused)

    def test_daemon(self):
        """In the background, where the file descriptors go with the fork."""
        pid = self.scratch_file('pid')
        done = subprocess.run(
            [self.qemu_bin, '-nodefaults', '-no-user-config', '-display', 'none',
             '-accel', 'kvm', *CGS, '-machine', MACHINE, '-m', '64M',
             '-daemonize', '-pidfile', pid],
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=HANG, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(pid, encoding='ascii') as file:
            os.kill(int(file.read()), 15)
        self.wait_for('its end', lambda: not os.path.exists(pid))

    CGS2 = command('object-add', **{'qom-type': 'sw-protected-guest',
                                    'id': 'c2'})
    SET = {name: command('qom-set', path='/machine',
                         property='confidential-guest-support', value=name)
           for name in ('c2', '')}
    ONLY = 'only be set on the command line'
    RAM1 = command('object-add', **{'qom-type': 'memory-backend-ram',
                                    'id': 'ram1', 'size': 2 << 20})
    EXIT = command('x-exit-preconfig'), None

    # Name, arguments, and pairs of command and error
    RUNNING = (
        ('protected', ('-accel', 'kvm', *CGS, '-machine', MACHINE), (
            (command('object-del', id='c'), 'in use'),
            (CGS2, None),
            (SET['c2'], ONLY),
            (SET[''], ONLY),
            (command('qom-set', path='/machine', property='memory-encryption',
                     value='c2'), ONLY),
            (command('object-del', id='c2'), None),
            (RAM1, None),
            (command('object-del', id='ram1'), None),
            (command('object-del', id='c'), 'in use'),
            (command('query-guest-memfd'), None),
            (command('qom-set', path='/objects/c', property='convert-in-place',
                     value=True), 'cannot change any more'),
        )),
        ('plain', ('-accel', 'kvm', '-machine', 'q35'), (
            (CGS2, None),
            (SET['c2'], ONLY),
            (RAM1, None),
            (command('object-del', id='ram1'), None),
            (command('object-del', id='c2'), None),
        )),
        ('none', ('-accel', 'kvm', '-machine', 'none'), (
            (CGS2, None),
            (SET['c2'], ONLY),
            (RAM1, None),
        )),
        ('preconfig', ('-accel', 'kvm', *CGS, '-machine', MACHINE,
                       '-preconfig'), (
            (CGS2, None),
            (SET['c2'], ONLY),
            (command('object-del', id='c'), 'in use'),
            EXIT,
            (command('object-del', id='c'), 'in use'),
        )),
        ('preconfig_smm', ('-accel', 'kvm', *CGS, '-machine', MACHINE,
                           '-preconfig'), (
            (command('qom-set', path='/machine', property='smm', value='on'),
             ONLY),
            EXIT,
        )),
        ('devices', ('-accel', 'kvm', *CGS, '-machine',
                     'pc,confidential-guest-support=c,nvdimm=on', '-m',
                     '64M,slots=4,maxmem=1G'), (
            (command('object-add', **{'qom-type': 'memory-backend-ram',
                                      'id': 'ram1', 'size': 128 << 20}), None),
            (command('device_add', driver='pc-dimm', memdev='ram1'), None),
            (command('device_add', driver='pc-dimm', memdev='ram1'), 'busy'),
            (command('object-del', id='ram1'), 'in use'),
            (command('object-add', **{'qom-type': GMEM, 'id': 'ram2',
                                      'size': 128 << 20}), None),
            (command('device_add', driver='nvdimm', memdev='ram2'), None),
            (command('object-add', **{'qom-type': 'memory-backend-memfd',
                                      'id': 'ram3', 'size': 2 << 20}), None),
            (command('device_add', driver='ivshmem-plain', memdev='ram3'), None),
            (command('object-add', **{'qom-type': 'memory-backend-ram',
                                      'id': 'ram4', 'size': 128 << 20}), None),
            (command('device_add', driver='virtio-mem-pci', memdev='ram4'),
             'virtio-mem cannot manage'),
            (command('device_add', driver='virtio-pmem-pci', memdev='ram4'),
             None),
            (command('query-guest-memfd'), None),
        )),
    )

    def running(self, args, commands):
        self.check(args, None, commands)


GuestMemfdPrivateStart.add_cases('starts', GuestMemfdPrivateStart.STARTS)
GuestMemfdPrivateStart.add_cases('running', GuestMemfdPrivateStart.RUNNING)

if __name__ == '__main__':
    GuestMemfdPrivateTest.main()
