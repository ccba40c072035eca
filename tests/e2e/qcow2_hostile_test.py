"""Files that are wrong on purpose: refused for the right reason, or served as far as they can be; the daemon lives, stays
small, and answers."""

import itertools
import os
import struct

import api_client
import harness
import nbd
import qcow2_tools
from harness import MiB, errno_of, extents, run
from qcow2_mutate import COMPRESSED, COPIED, Qcow2File, make_base

FLIPS = int(os.environ.get("GABION_FLIPS", "40"))  # files with random damage
MEMORY_BYTES = 96 * MiB                            # more than before, at most, whatever the files say
CLUSTER = 1 << 16
FEATURE_NAMES, BITMAPS, DATA_FILE = 0x6803F857, 0x23852875, 0x44415441


class HostileTestCase(qcow2_tools.Qcow2TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.base = {version: harness.read_file(make_base(cls.daemon.file(f"base{version}"), version)) for version in (2, 3)}
        cls.made = 0

    def mutated(self, mutate, version=3):
        """(name for an image, path of the mutated file)."""
        file = Qcow2File(self.base[version])
        mutate(file)
        type(self).made += 1
        return f"i{self.made}", file.save(self.daemon.file("mutated"))

    def state(self, image):
        return self.image(image)["state"]


def fields(**values):
    def mutate(file):
        for name, value in values.items():
            file[name] = value
    return mutate


def extension32(kind, offset, value):
    return lambda file: struct.pack_into(">I", file.bytes, file.extension(kind) + offset, value)


def extension64(kind, offset, value):
    return lambda file: file.set_u64(file.extension(kind) + offset, value)


def snapshot32(offset, value):
    return lambda file: struct.pack_into(">I", file.bytes, file["snapshots_offset"] + offset, value)


# The rows of the table of open-time checks: what is changed, the reason, and the words that name what is wrong.
CORRUPT, UNSUPPORTED = "IMAGE_CORRUPT", "FEATURE_UNSUPPORTED"
REFUSED = {
    "magic": (fields(magic=0x51464900), "FORMAT_MISMATCH", "qcow2"),
    "version 1": (fields(version=1), CORRUPT, "version"),
    "version 4": (fields(version=4), CORRUPT, "version"),
    "cluster_bits 8": (fields(cluster_bits=8), CORRUPT, "cluster_bits"),
    "cluster_bits 22": (fields(cluster_bits=22), CORRUPT, "cluster_bits"),
    "cluster_bits 2^32-1": (fields(cluster_bits=(1 << 32) - 1), CORRUPT, "cluster_bits"),
    "header_length 96": (fields(header_length=96), CORRUPT, "header_length"),
    "header_length of more than a cluster": (fields(header_length=CLUSTER + 8), CORRUPT, "header_length"),
    "header_length 105": (fields(header_length=105), CORRUPT, "header_length"),
    "refcount_order 7": (fields(refcount_order=7), CORRUPT, "refcount_order"),
    "no refcount table": (fields(refcount_clusters=0), CORRUPT, "refcount_table_clusters"),
    "huge refcount table": (fields(refcount_clusters=1 << 20), CORRUPT, "refcount_table_clusters"),
    "refcount table unaligned": (fields(refcount_table=CLUSTER + 512), CORRUPT, "refcount_table_offset"),
    "refcount table at 2^63": (fields(refcount_table=0x7FFFFFFFFFFF0000), CORRUPT, "refcount_table_offset"),
    "l1_size 0": (fields(l1_size=0), CORRUPT, "l1_size"),
    "size 1 GiB, one L1 entry": (fields(size=1 << 30), CORRUPT, "l1_size"),
    "l1_size 2^22+1": (fields(l1_size=(1 << 22) + 1), CORRUPT, "l1_size"),
    "L1 unaligned": (fields(l1_offset=3 * CLUSTER + 512), CORRUPT, "l1_table_offset"),
    "L1 past the end": (fields(l1_offset=1 << 30), CORRUPT, "l1_table_offset"),
    "L1 at 0": (fields(l1_offset=0), CORRUPT, "l1_table_offset"),
    "size 2^63": (fields(size=1 << 63), CORRUPT, "size"),
    "65537 snapshots": (fields(snapshots=65537), CORRUPT, "nb_snapshots"),
    "snapshot table unaligned": (fields(snapshots_offset=8 * CLUSTER + 512), CORRUPT, "snapshots_offset"),
    "unknown incompatible bit": (fields(incompatible=1 << 20), UNSUPPORTED, "20"),
    "data-file bit without a name": (fields(incompatible=4), CORRUPT, "external data file"),
    "compression bit, type 0": (fields(incompatible=8), CORRUPT, "compression_type"),
    "compression type 1 without the bit": (fields(compression=1), CORRUPT, "compression_type"),
    "compression type 9": (fields(incompatible=8, compression=9), UNSUPPORTED, "compression_type"),
    "raw external data without a data file": (fields(autoclear=3), CORRUPT, "raw external data"),
    "AES": (fields(crypt=1), UNSUPPORTED, "AES"),
    "LUKS": (fields(crypt=2), UNSUPPORTED, "LUKS"),
    "crypt 3": (fields(crypt=3), CORRUPT, "crypt_method"),
    "backing name beyond the cluster": (fields(backing_offset=1 << 20, backing_size=5), CORRUPT, "backing_file_offset"),
    "backing name of 1024 bytes": (fields(backing_offset=1000, backing_size=1024), CORRUPT, "backing_file_size"),
    "backing name over the cluster's end": (fields(backing_offset=CLUSTER - 6, backing_size=20), CORRUPT, "backing_file_size"),
    "backing name with a zero byte": (fields(backing_offset=4096, backing_size=20), CORRUPT, "zero byte"),
    "extension of 2^31 bytes": (extension32(FEATURE_NAMES, -4, 0x7FFFFFFF), CORRUPT, "extension"),
    "extension twice": (lambda file: file.add_extension(FEATURE_NAMES, bytes(48)), CORRUPT, "twice"),
    "bitmaps extension of 16 bytes": (extension32(BITMAPS, -4, 16), CORRUPT, "bitmaps"),
    "no bitmaps": (extension32(BITMAPS, 0, 0), CORRUPT, "nb_bitmaps"),
    "65536 bitmaps": (extension32(BITMAPS, 0, 65536), CORRUPT, "nb_bitmaps"),
    "bitmaps' reserved field": (extension32(BITMAPS, 4, 1), CORRUPT, "reserved"),
    "bitmap directory of 2^40 bytes": (extension64(BITMAPS, 8, 1 << 40), CORRUPT, "bitmap_directory_size"),
    "bitmap directory unaligned": (extension64(BITMAPS, 16, 512), CORRUPT, "bitmap_directory_offset"),
    "a file of 100 bytes": (lambda file: file.bytes.__delitem__(slice(100, None)), CORRUPT, "100 bytes"),
    "a file without L1": (lambda file: file.bytes.__delitem__(slice(CLUSTER + 4096, None)), CORRUPT, "l1_table_offset"),
}
# What only writing would make worse.
READ_ONLY = {
    "refcount_order 6": fields(refcount_order=6),
    "refcount table past the end": fields(refcount_table=1 << 30),
    "snapshot table past the end": fields(snapshots_offset=1 << 30),
    "refcount table entry unaligned": lambda file: file.change(file["refcount_table"], lambda entry: entry | 0x200),
    "refcount table entry 0": lambda file: file.set_u64(file["refcount_table"], 0),
    "refcount table entry past the end": lambda file: file.set_u64(file["refcount_table"], 1 << 40),
    "refcount block of zeros": lambda file: file.bytes.__setitem__(
        slice(file.refcount_block(), file.refcount_block() + CLUSTER), bytes(CLUSTER)),
    "snapshot's L1 past the end": lambda file: file.set_u64(file["snapshots_offset"], 1 << 40),
    "snapshot's L1 unaligned": lambda file: file.set_u64(file["snapshots_offset"], 0x200),
    "snapshot's L1 of 32 GiB": snapshot32(8, 0xFFFFFFFF),
    "snapshot's extra data of 4 GiB": snapshot32(36, 0xFFFFFFFF),
    "corrupt bit": fields(incompatible=2),
}


class HeaderTest(HostileTestCase):
    def test_what_makes_no_sense_is_refused(self):
        before = os.listdir(self.daemon.pool)
        for what, (mutate, reason, words) in REFUSED.items():
            with self.subTest(what=what):
                image, path = self.mutated(mutate)
                error = self.refused_import(image, path)
                self.assertEqual(error.reason, reason, error)
                self.assertIn(words, error.message)
                self.assertEqual(error.metadata.get("field"), "source_file", error.metadata)
        self.assertEqual(sorted(os.listdir(self.daemon.pool)), sorted(before))

    def test_what_only_writing_would_make_worse_can_be_read(self):
        for what, mutate in READ_ONLY.items():
            with self.subTest(what=what):
                image, path = self.mutated(mutate)
                ours = self.bring(image, path)
                error = self.daemon.refusal("ExportService/CreateExport", {
                    "exportId": image, "export": {"source": f"images/{image}"}})
                self.assertEqual(error.reason, CORRUPT, error)
                before = harness.read_file(ours)
                self.daemon.create_export(image, image, readOnly=True)
                handle = self.connect(self.daemon.uri(image))
                self.assertEqual(handle.pread(MiB, 0), b"\1" * CLUSTER + bytes(CLUSTER) + b"\3" * CLUSTER + bytes(13 * CLUSTER))
                self.assertTrue(harness.read_file(ours) == before, "the file has changed")

    def test_a_size_of_no_whole_sectors_is_the_size(self):
        image, path = self.mutated(fields(size=1000))
        self.bring(image, path)
        self.assertEqual(self.image(image)["virtualSizeBytes"], "1000")

    def test_a_copied_entry_without_a_place_is_no_cluster(self):
        image, path = self.mutated(lambda file: file.set_u64(file.l2_place(5), COPIED), version=2)
        ours = self.bring(image, path)
        self.daemon.create_export(image, image)
        handle = self.connect(self.daemon.uri(image))
        self.assertEqual(handle.pread(CLUSTER, 5 * CLUSTER), bytes(CLUSTER))
        handle.pwrite(b"x" * 512, 5 * CLUSTER)
        self.assertEqual(handle.pread(1024, 5 * CLUSTER), b"x" * 512 + bytes(512))
        harness.hang_up(handle)
        self.daemon.delete_export(image)
        self.assert_clean(ours)

    def test_the_most_sectors_of_a_compressed_cluster_are_read(self):
        image, path = self.mutated(lambda file: file.change(file.l2_place(2), lambda entry: entry | 0xFF << 54))
        self.bring(image, path)
        self.daemon.create_export(image, image, readOnly=True)
        self.assertEqual(self.connect(self.daemon.uri(image)).pread(CLUSTER, 2 * CLUSTER), b"\3" * CLUSTER)


class BackingNamesTest(HostileTestCase):
    """What a file says of other files is not followed."""

    NAMES = ("/etc/passwd", "../secret", "sub/file", "nbd://localhost:1", "nbd:unix:/tmp/x", "json:{\"driver\":\"nbd\"}",
             "file:base", "https://localhost/x", "fat:rw:.", "./base")

    def test_names_of_backing_files(self):
        self.create("base", MiB)
        for name in self.NAMES:
            for backing in (None, "base"):
                with self.subTest(name=name, backing=backing):
                    path = self.daemon.file("overlay")
                    run("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", name, path, "1M")
                    error = self.refused_import("overlay", path, backing)
                    self.assertEqual((error.code, error.reason), ("FAILED_PRECONDITION", UNSUPPORTED), error)
                    self.assertIn(name.replace('"', '\\"'), error.message)

    def test_a_name_alone_needs_its_image(self):
        path = self.daemon.file("overlay")
        run("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", "some.qcow2", path, "1M")
        error = self.refused_import("overlay", path)
        self.assertEqual((error.reason, error.metadata.get("field")), ("FIELD_REQUIRED", "image.backing_image"))
        self.assertIn("some.qcow2", error.message)

    def test_an_external_data_file(self):
        for name in ("data.raw", "/etc/passwd", "json:{}"):
            with self.subTest(name=name):
                path = self.daemon.file("external")
                run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={self.daemon.file('data.raw')}", path, "1M")
                file = Qcow2File.read(path)
                at = file.extension(DATA_FILE)
                length = struct.unpack_from(">I", file.bytes, at - 4)[0]
                file.bytes[at:at + length] = name.encode().ljust(length, b"x")
                error = self.refused_import("external", file.save(path))
                self.assertEqual(error.reason, UNSUPPORTED)
                self.assertIn(name, error.message)
                self.assertIn("data file", error.message)

    def test_a_chain_that_leads_back_is_no_chain(self):
        path = self.daemon.file("loop")
        run("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", "loop.qcow2", path, "1M")
        error = self.refused_import("loop", path, "loop")
        self.assertIn(error.reason, ("FIELD_INVALID", "RESOURCE_NOT_FOUND"), error)


def l1(change):
    return lambda file: file.change(file.l1_place(), change)


def l2(cluster, change):
    return lambda file: file.change(file.l2_place(cluster), change)


def l2_to(field):
    return lambda file: file.set_u64(file.l2_place(0), COPIED | file[field])


def garbage(file):
    at = file.u64(file.l2_place(2)) & (1 << 54) - 1
    file.bytes[at:at + 512] = b"\xff" * 512


# What is changed, the clusters that cannot be read then, and the one to write to, which shows it.
EVERYTHING = range(16)
TABLES = {
    "L1 entry unaligned": (l1(lambda entry: entry | 0x200), EVERYTHING, 0),
    "L1 entry past the end": (l1(lambda entry: COPIED | 1 << 40), EVERYTHING, 0),
    "L1 reserved bit": (l1(lambda entry: entry | 1 << 57), (), 4),
    "L2 entry unaligned": (l2(0, lambda entry: entry | 0x200), (0,), 0),
    "L2 entry past the end": (l2(0, lambda entry: COPIED | 1 << 40), (0,), 0),
    "L2 reserved bit": (l2(0, lambda entry: entry | 1 << 57), (), 0),
    "L2 to the L1": (l2_to("l1_offset"), (), 0),
    "L2 to the refcount table": (l2_to("refcount_table"), (), 0),
    "L2 to a refcount block": (lambda file: file.set_u64(file.l2_place(0), COPIED | file.refcount_block()), (), 0),
    "L2 to an L2": (lambda file: file.set_u64(file.l2_place(0), COPIED | file.l2_place(0)), (), 0),
    "L2 to the snapshot table": (l2_to("snapshots_offset"), (), 0),
    "compressed past the end": (l2(2, lambda entry: COMPRESSED | 1 << 45), (2,), 2),
    "compressed garbage": (garbage, (2,), 2),
}


class TablesTest(HostileTestCase):
    """Found while the image is served: reads go on, writes end, and the image says so."""

    def serve(self, mutate, version=3):
        image, path = self.mutated(mutate, version)
        self.bring(image, path)
        self.daemon.create_export(image, image)
        return image, self.connect(self.daemon.uri(image), contexts=["base:allocation"])

    def check_reads(self, handle, broken):
        for cluster in range(16):
            got = errno_of(lambda at=cluster * CLUSTER: handle.pread(512, at))
            self.assertEqual(got, "EIO" if cluster in broken else "OK", f"cluster {cluster}")
        self.assertEqual(sum(length for length, _ in extents(handle, 0, MiB)), MiB)

    def check_refused(self, image, handle):
        for action in (lambda: handle.pwrite(b"y" * 512, 9 * CLUSTER), lambda: handle.zero(CLUSTER, 9 * CLUSTER),
                       lambda: handle.trim(CLUSTER, 9 * CLUSTER)):
            self.assertEqual(errno_of(action), "EIO")
        shown = self.image(image)
        self.assertEqual(shown["state"], "STATE_CORRUPT")
        self.assertIn("IMAGE_CORRUPT", [d.get("reason") for d in shown["stateError"]["details"]])

    def play(self, mutate, broken, cluster, act, version=3):
        image, handle = self.serve(mutate, version)
        self.check_reads(handle, broken)
        self.assertEqual(errno_of(lambda: act(handle, cluster * CLUSTER)), "EIO")
        self.check_refused(image, handle)
        self.check_reads(handle, broken)
        error = self.daemon.refusal("InspectService/Write", {"name": f"images/{image}", "data": "YQ=="})
        self.assertEqual(error.reason, CORRUPT)
        harness.hang_up(handle)
        self.daemon.delete_export(image)
        if version == 3:
            info = qcow2_tools.qemu_info(self.file_of(image))
            self.assertTrue(info["format-specific"]["data"]["corrupt"])
            error = self.daemon.refusal("ExportService/CreateExport", {
                "exportId": image, "export": {"source": f"images/{image}"}})
            self.assertEqual(error.reason, CORRUPT)

    def test_a_write_finds_it(self):
        for what, (mutate, broken, cluster) in TABLES.items():
            with self.subTest(what=what):
                self.play(mutate, broken, cluster, lambda handle, at: handle.pwrite(b"x" * 512, at))

    def test_a_zero_finds_it(self):
        for what, (mutate, broken, _) in TABLES.items():
            if what not in ("compressed garbage", "compressed past the end"):  # whole clusters are not read
                with self.subTest(what=what):
                    self.play(mutate, broken, 0, lambda handle, at: handle.zero(CLUSTER, at))

    def test_version_2(self):
        rows = {"zero flag": (l2(0, lambda entry: entry | 1), (0,), 0), **{w: TABLES[w] for w in ("L2 to the L1", "L2 reserved bit")}}
        for what, (mutate, broken, cluster) in rows.items():
            with self.subTest(what=what):
                self.play(mutate, broken, cluster, lambda handle, at: handle.zero(CLUSTER, at), version=2)

    def test_inspection_tells_the_reason(self):
        for what, served in itertools.product(("L1 entry past the end", "L2 entry unaligned"), (False, True)):
            with self.subTest(what=what, served=served):
                image, path = self.mutated(TABLES[what][0])
                self.bring(image, path)
                if served:
                    self.daemon.create_export(image, image, readOnly=True)
                for method in ("InspectService/Read", "InspectService/Verify"):
                    request = {"name": f"images/{image}", "length": "512", **({"pattern": "AA=="} if "Verify" in method else {})}
                    error = self.daemon.refusal(method, request)
                    self.assertEqual((error.code, error.reason), ("DATA_LOSS", CORRUPT), method)
                with self.assertRaises(harness.CallError) as failed:
                    self.map(f"images/{image}")
                self.assertEqual(failed.exception.reason, CORRUPT)


class FlipTest(HostileTestCase):
    """Damage at random places of the metadata."""

    def test_random_damage(self):
        rng = harness.random_source()
        pid = self.daemon.process.pid
        before = api_client.forget_peak(pid)
        for number in range(FLIPS):
            version = rng.choice((2, 3, 3))
            damage = []

            def mutate(file):
                ranges = file.metadata_ranges()
                for _ in range(rng.choice((1, 1, 2, 4))):
                    start, length = rng.choice(ranges)
                    at, bit = start + rng.randrange(length), 1 << rng.randrange(8)
                    file.bytes[at] ^= bit
                    damage.append((at, bit))
            image, path = self.mutated(mutate, version)
            with self.subTest(number=number, version=version, damage=damage):
                self.use(rng, image, path)
                self.assertTrue(self.daemon.alive())
                self.assertLess(api_client.peak_memory(pid), before + MEMORY_BYTES)

    def use(self, rng, image, path):
        try:
            ours = self.bring(image, path)
        except harness.CallError as error:
            self.assertIn(error.reason, ("FORMAT_MISMATCH", CORRUPT, UNSUPPORTED, "FIELD_REQUIRED", "SIZE_OUT_OF_RANGE"), error)
            return
        self.compare_reads(image, ours)
        try:
            self.daemon.create_export(image, image)
        except harness.CallError as error:
            self.assertEqual(error.reason, CORRUPT, error)
            self.daemon.create_export(image, image, readOnly=True)
        self.use_export(rng, image)
        self.daemon.delete_export(image)
        try:
            found = self.check(image, "REPAIR_ALL")
        except harness.CallError as error:
            self.assertIn(error.reason, (CORRUPT, UNSUPPORTED, "POOL_FULL"), error)
            return
        if not (found["corruptions"] or found["leaks"] or found["checkErrors"]):
            self.assertEqual(qcow2_tools.qemu_check(ours), 0, found)

    def compare_reads(self, image, ours):
        """Where both programs can read everything, they read the same."""
        try:
            self.daemon.create_export(image, image, readOnly=True)
            handle = harness.nbd_connect(self.daemon.uri(image))
        except harness.CallError as error:
            self.assertEqual(error.reason, CORRUPT, error)
            return
        size = min(handle.get_size(), 2 * MiB)
        content = None
        if errno_of(lambda: handle.pread(size, 0)) == "OK":
            content = handle.pread(size, 0) if size else b""
        harness.hang_up(handle)
        self.daemon.delete_export(image)
        flat = ours + ".flat"
        done = run("qemu-img", "dd", "-f", "qcow2", "-O", "raw", "bs=64K", "count=32", f"if={ours}", f"of={flat}", ok=False)
        if done.returncode == 0 and content is not None:
            theirs = harness.read_file(flat)[:size]
            self.assert_same(content[:len(theirs)], theirs, "qemu-img dd")
        if os.path.exists(flat):
            os.unlink(flat)

    def use_export(self, rng, image):
        """Whatever it answers, it answers."""
        handle = harness.nbd_connect(self.daemon.uri(image), contexts=["base:allocation"], strict=False)
        size = handle.get_size()
        for _ in range(12 if size else 0):
            at = rng.choice((0, 0, 2 * CLUSTER, rng.randrange(size), max(size - 512, 0)))
            length = min(rng.choice((512, CLUSTER, 3 * CLUSTER)), max(size - at, 1))
            action = rng.choice((
                lambda: handle.pread(length, at), lambda: handle.pwrite(b"z" * length, at), lambda: handle.zero(length, at),
                lambda: handle.zero(length, at, nbd.CMD_FLAG_NO_HOLE), lambda: handle.trim(length, at),
                lambda: extents(handle, at, length), handle.flush))
            self.assertIn(errno_of(action), ("OK", "EIO", "EPERM", "EINVAL", "ENOSPC"))
        harness.hang_up(handle)


if __name__ == "__main__":
    harness.main(commands=["qemu-img", "qemu-io", "cp", "protoc"], modules=("nbd", "grpc", "google.protobuf"))
