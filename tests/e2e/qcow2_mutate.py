"""Takes qcow2 files apart, and makes hostile ones: fields of the header and entries of tables by name."""

import struct

import harness
from harness import run

KiB64 = 1 << 16
COPIED, COMPRESSED = 1 << 63, 1 << 62
OFFSET_MASK = (1 << 56) - 512

# name: (offset, bytes) in the header
FIELDS = {"magic": (0, 4), "version": (4, 4), "backing_offset": (8, 8), "backing_size": (16, 4), "cluster_bits": (20, 4),
          "size": (24, 8), "crypt": (32, 4), "l1_size": (36, 4), "l1_offset": (40, 8), "refcount_table": (48, 8),
          "refcount_clusters": (56, 4), "snapshots": (60, 4), "snapshots_offset": (64, 8), "incompatible": (72, 8),
          "compatible": (80, 8), "autoclear": (88, 8), "refcount_order": (96, 4), "header_length": (100, 4),
          "compression": (104, 1)}
EXTENSION_NAMES = {0xE2792ACA: "backing format", 0x6803F857: "feature names", 0x23852875: "bitmaps", 0x44415441: "data file"}


class Qcow2File:
    """The bytes of a file, with 64 KiB clusters unless it says otherwise."""

    def __init__(self, content):
        self.bytes = bytearray(content)

    @classmethod
    def read(cls, path):
        return cls(harness.read_file(path))

    def save(self, path):
        return harness.write_file(path, (0, self.bytes))

    def __getitem__(self, name):
        offset, length = FIELDS[name]
        return int.from_bytes(self.bytes[offset:offset + length], "big")

    def __setitem__(self, name, value):
        offset, length = FIELDS[name]
        self.bytes[offset:offset + length] = value.to_bytes(length, "big")

    def u64(self, offset):
        return struct.unpack_from(">Q", self.bytes, offset)[0]

    def set_u64(self, offset, value):
        if offset + 8 > len(self.bytes):
            self.bytes.extend(bytes(offset + 8 - len(self.bytes)))
        struct.pack_into(">Q", self.bytes, offset, value)

    @property
    def cluster_size(self):
        return 1 << self["cluster_bits"]

    def l1_place(self, index=0):
        return self["l1_offset"] + 8 * index

    def l2_place(self, cluster):
        """Of a guest cluster's entry; of an image without extended L2."""
        per_table = self.cluster_size // 8
        return (self.u64(self.l1_place(cluster // per_table)) & OFFSET_MASK) + 8 * (cluster % per_table)

    def refcount_block(self):
        return self.u64(self["refcount_table"])

    def set_refcount(self, cluster, count):
        """Of 16 bits."""
        struct.pack_into(">H", self.bytes, self.refcount_block() + 2 * cluster, count)

    def change(self, place, change):
        self.set_u64(place, change(self.u64(place)))

    def extension(self, kind):
        """Offset of the extension's first byte behind its type and length."""
        at = self["header_length"] if self["version"] == 3 else 72
        while True:
            found, length = struct.unpack_from(">II", self.bytes, at)
            if found == kind:
                return at + 8
            if found == 0:
                raise AssertionError(f"no extension {EXTENSION_NAMES.get(kind, kind)}")
            at += 8 + (length + 7) // 8 * 8

    def add_extension(self, kind, data):
        """Behind the header, before the others."""
        at = self["header_length"] if self["version"] == 3 else 72
        new = struct.pack(">II", kind, len(data)) + data.ljust((len(data) + 7) // 8 * 8, b"\0")
        self.bytes[at:self.cluster_size] = (new + self.bytes[at:])[:self.cluster_size - at]

    def metadata_ranges(self):
        """(offset, length) of what a flipped bit may do most with."""
        cluster = self.cluster_size
        tables = [(self.u64(self.l1_place(n)) & OFFSET_MASK, 256) for n in range(self["l1_size"])]
        ranges = [(0, self["header_length"] + 64), (self["l1_offset"], 8 * self["l1_size"]), *tables,
                  (self["refcount_table"], 16), (self.refcount_block(), 64)]
        if self["snapshots"]:
            ranges.append((self["snapshots_offset"], 64))
        return [r for r in ranges if r[0] + r[1] <= len(self.bytes) and r[0] % cluster == 0]


def make_base(path, version=3):
    """The image of the mutations: a disk of 1 MiB with data at 0, a compressed cluster at 128 KiB, a snapshot; version 3
    also has a bitmap."""
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"compat={'1.1' if version == 3 else '0.10'}", path, "1M")
    run("qemu-io", "-f", "qcow2", "-c", "w -P1 0 64k", "-c", "w -c -P3 128k 64k", path)
    run("qemu-img", "snapshot", "-c", "s1", path)
    if version == 3:
        run("qemu-img", "bitmap", "--add", "-f", "qcow2", path, "b0")
    run("qemu-io", "-f", "qcow2", "-c", "w -P1 0 64k", path)
    return path
