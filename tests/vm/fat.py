"""A FAT16 file system in an image, without a partition table: made, and read again.

Names are 8.3 and in capitals; directories are given as parts of a path. Long names and dates
are left out. ("Microsoft Extensible Firmware Initiative FAT32 File System Specification" 1.03.)
"""

import struct

SECTOR = 512
CLUSTER = 4 * SECTOR
CLUSTERS = 16384  # more than 4084: FAT16
RESERVED, FATS, ROOT_ENTRIES = 1, 2, 512
FAT_SECTORS = -(-(CLUSTERS + 2) * 2 // SECTOR)
ROOT_AT = (RESERVED + FATS * FAT_SECTORS) * SECTOR
DATA_AT = ROOT_AT + ROOT_ENTRIES * 32
SIZE = DATA_AT + CLUSTERS * CLUSTER
END, DIRECTORY, FILE = 0xFFFF, 0x10, 0x20


def _boot_sector():
    sector = b"\xeb\x3c\x90BULKHEAD" + struct.pack(
        "<HBHBHHBHHHII", SECTOR, CLUSTER // SECTOR, RESERVED, FATS, ROOT_ENTRIES, 0, 0xF8, FAT_SECTORS,
        63, 255, 0, SIZE // SECTOR)
    sector += struct.pack("<BBBI11s8s", 0x80, 0, 0x29, 0x20261122, b"BULKHEAD   ", b"FAT16   ")
    return sector.ljust(SECTOR - 2, b"\0") + b"\x55\xaa"


def _short(name):
    stem, _, extension = name.partition(".")
    return stem.encode().ljust(8) + extension.encode().ljust(3)


class _Writer:
    def __init__(self):
        self.table = [0xFFF8, END]
        self.clusters = []

    def chain(self, data):
        """Stores data in clusters of its own; returns the first, 0 for none."""
        pieces = [data[at:at + CLUSTER].ljust(CLUSTER, b"\0") for at in range(0, len(data), CLUSTER)]
        first = len(self.table) if pieces else 0
        for piece in pieces:
            self.clusters.append(piece)
            self.table.append(len(self.table) + 1)
        if pieces:
            self.table[-1] = END
        return first

    def entry(self, name, kind, first, size):
        return struct.pack("<11sB14xHI", name, kind, first, size)

    def tree(self, tree):
        """The entries of a directory: {name: bytes or another such}."""
        entries = b""
        for name, content in tree.items():
            if isinstance(content, dict):
                inner = self.tree(content)
                # Its own number is known only now, its parent's never: nobody here asks for "..".
                dots = self.entry(b".".ljust(11), DIRECTORY, len(self.table), 0)
                dots += self.entry(b"..".ljust(11), DIRECTORY, 0, 0)
                entries += self.entry(_short(name), DIRECTORY, self.chain(dots + inner), 0)
            else:
                entries += self.entry(_short(name), FILE, self.chain(content), len(content))
        return entries


def make(tree):
    """The whole image, all of it there; make({"EFI": {"BOOT": {"BOOTX64.EFI": program}}})."""
    writer = _Writer()
    root = writer.tree(tree).ljust(ROOT_ENTRIES * 32, b"\0")
    table = struct.pack(f"<{len(writer.table)}H", *writer.table).ljust(FAT_SECTORS * SECTOR, b"\0")
    return (_boot_sector() + table * FATS + root + b"".join(writer.clusters)).ljust(SIZE, b"\0")


def read(image, name):
    """A file of the root directory, or None."""
    table = struct.unpack_from(f"<{CLUSTERS + 2}H", image, RESERVED * SECTOR)
    for at in range(ROOT_AT, DATA_AT, 32):
        found, kind, cluster, size = struct.unpack_from("<11sB14xHI", image, at)
        if found == _short(name) and kind & FILE:
            data = b""
            while len(data) < size and 2 <= cluster < len(table):
                data += image[DATA_AT + (cluster - 2) * CLUSTER:][:CLUSTER]
                cluster = table[cluster]
            return data[:size]
    return None
