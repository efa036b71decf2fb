"""What the benchmark measures, for the program that does it and for the one that
reports it."""

FIELDS = 'round', 'measure', 'case', 'engine', 'value', 'unit'
HIGHER_IS_BETTER = 'conversions/s', 'MiB/s'

# What the guest converts, at 1 GiB. Of a mixed range every other run of run=
# has the wanted state already.
CASES = {
    '4 KiB': 'size=4K,count=200',
    '64 KiB': 'size=64K,count=100',
    '64 KiB mixed': 'size=64K,run=4K,count=40',
    '2 MiB': 'size=2M,count=20',
    '2 MiB mixed': 'size=2M,run=64K,count=20',
}
TOUCH = 'size=2M,count=20,touch=1'
LARGE = {
    '1 GiB': 'size=1G,count=1',
    '1 GiB mixed': 'size=1G,run=64K,count=1',
}
VFIO_CASES = {
    '4 KiB': 'size=4K,count=50',
    '2 MiB': 'size=2M,count=10',
    '2 MiB mixed': 'size=2M,run=64K,count=10',
}
# All vCPUs together, and each request
PARTS = {
    '64 KiB': ('32M', '64K'),
    '2 MiB': ('256M', '2M'),
}
# By size of pages: the backend, and /sys/kernel/mm/transparent_hugepage/shmem_enabled.
# QEMU does not map a memfd where it could have huge pages.
PAGES = {
    '2 MiB': ('guest-memfd', ',huge-pages=on', 'never'),
    '4 KiB': ('guest-memfd', ',huge-pages=off', 'never'),
    'memfd': ('memfd', '', 'never'),
    'memfd THP': ('memfd', '', 'advise'),
}
LISTENERS = 0, 1, 8
VM_SIZES = 4, 64, 512   # GiB; TCG has 40 bits of physical address

# Each measure: what it is called, whose values are compared, and with whose.
MEASURES = {
    'conversion': ('Conversions by the guest', 'ours', ('stock', 'floor')),
    'conversion in place': ('The same in place', 'ours', ('floor',)),
    'instructions': ('Instructions for a conversion', 'ours', ('stock', 'floor')),
    'instructions in place': ('The same in place', 'ours', ('floor',)),
    'parts': ('Several vCPUs convert their parts of memory', 'ours', ('stock',)),
    'parts in place': ('The same in place', 'ours', ()),
    'parts instructions': ('Instructions for such a conversion', 'ours', ('stock',)),
    'parts instructions in place': ('The same in place', 'ours', ()),
    'monitor': ('The longest answer of the monitor meanwhile', 'ours', ('stock',)),
    'monitor in place': ('The same in place', 'ours', ()),
    'conversion+syscall': ('The same with listeners that make a system call each time',
                           'ours', ('stock',)),
    'conversion+VFIO': ('Conversions with an assigned device (VFIO type1)', 'ours', ('stock',)),
    'conversion+VFIO in place': ('The same in place', 'ours', ()),
    'first touch': ('First access to each page after a conversion', 'ours', ('stock', 'floor')),
    'first touch in place': ('The same in place', 'ours', ('floor',)),
    'VM size': ('Conversions of 4 KiB by the guest, over the size of its memory',
                'ours', ('stock',)),
    'calls': ('Calls of one listener for a mixed range of 2 MiB, 16 runs to change',
              'ours', ('stock',)),
    'tracking': ('Tracking alone, without system calls (outside the lab)',
                 'ours', ('stock',)),
    'memory': ('Host memory for guest RAM that was converted back and forth ten times',
               'ours', ('stock',)),
    'memory in place': ('The same in place', 'ours', ()),
    'store in place': ('Memory that the kernel takes to know which pages are private',
                       'kernel', ()),
    'untouched': ('Host memory of a guest that has touched 1 MiB of 256 MiB',
                  'guest_memfd', ('memfd', 'stock memfd')),
    'untouched time': ('Time to save and to restore it',
                       'guest_memfd', ('memfd', 'stock memfd')),
    'pages in place': ('Huge pages: instructions', '2 MiB', ('4 KiB', 'memfd', 'memfd THP')),
    'page faults in place': ('Huge pages: stage-2 faults', '2 MiB',
                             ('4 KiB', 'memfd', 'memfd THP')),
    'page overhead in place': ('Huge pages: host memory for page tables and page cache',
                               '2 MiB', ('4 KiB', 'memfd', 'memfd THP')),
    'page random in place': ('Huge pages: time for a word anywhere in 1 GiB, which says little '
                             'where TCG emulates the TLB', '2 MiB',
                             ('4 KiB', 'memfd', 'memfd THP')),
    'page conversion in place': ('Huge pages: instructions for a conversion of 4 KiB to shared',
                                 '2 MiB', ('4 KiB',)),
    'lock faults': ('Locked memory (arm64): stage-2 faults of a guest that loads a word of each '
                    'page of 256 MiB', 'lock=on', ('lock=off',)),
    'lock instructions': ('Locked memory (arm64): instructions', 'lock=on', ('lock=off',)),
    'boot': ('Boot of Linux to user space', 'guest_memfd', ('memfd',)),
    'prealloc': ('Preallocation of 1 GiB', 'guest_memfd', ('memfd', 'memset')),
}


def with_listeners(count):
    return f'{count} listener' + 's' * (count != 1)
