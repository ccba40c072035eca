"""Files that others have made, as images: moved or copied, with snapshots, bitmaps, or what a killed writer has left; and the
locks by which Gabion and qemu keep out of each other's way."""

import os

import harness
from harness import KiB, MiB, read_file, run
from qcow2_mutate import Qcow2File, make_base
from qcow2_tools import CallsTestCase, qemu_bytes, qemu_check, qemu_info

CLUSTER = 1 << 16


class ImportTest(CallsTestCase):
    def test_by_move_keeps_the_file_and_its_name_of_the_backing_file(self):
        self.bring("below", self.source("below", "w -P 1 0 64k"))
        other = self.source("wrong", backing="elsewhere.qcow2")
        error = self.refused_import("wrong", other, "below", move=True)
        self.assertEqual(error.reason, "FIELD_INVALID", error)
        self.assertIn("elsewhere.qcow2", error.message)
        path = self.source("right", backing="below.qcow2")
        before = read_file(path)
        ours = self.bring("right", path, "below", move=True)
        self.assertEqual(read_file(ours), before)
        self.assertEqual(qemu_bytes(ours), b"\1" * CLUSTER + bytes(MiB - CLUSTER))
        copied = self.bring("copied", other, "below")
        self.assertEqual(qemu_info(copied)["backing-filename"], "below.qcow2")
        self.assertEqual(qemu_bytes(copied), b"\1" * CLUSTER + bytes(MiB - CLUSTER))
        self.assertEqual(qemu_info(other)["backing-filename"], "elsewhere.qcow2")

    def test_a_snapshot_table_that_cannot_be_read_is_left_alone(self):
        self.bring("beneath", self.source("beneath", "w -P 1 0 64k"))
        path = self.source("damaged", backing="elsewhere.qcow2")
        table = (2).to_bytes(4, "big") + (1 << 40).to_bytes(8, "big")  # far behind the end of the file
        with open(path, "r+b") as file:
            file.seek(60)
            file.write(table)
        copied = self.bring("damaged-copy", path, "beneath")
        header = read_file(copied)[:4096]
        self.assertIn(b"beneath.qcow2", header)
        self.assertEqual(header[60:72], table)

    def test_layouts_and_names_that_do_not_fit(self):
        path = self.source("alone")
        run("cp", path, os.path.join(self.daemon.pool, "alone-source"))
        for image, reason in (({"qcow2": {"clusterSizeBytes": 65536}}, "FIELD_INVALID"),
                              ({"qcow2": {}, "virtualSizeBytes": "4096"}, "SIZE_MISMATCH"),
                              ({"qcow2": {}, "backingImage": "images/nobody"}, "RESOURCE_NOT_FOUND")):
            with self.subTest(image=image):
                with self.assertRaises(harness.CallError) as failed:
                    self.daemon.result(self.daemon.call("ImageService/ImportImage", {
                        "imageId": "alone", "image": image, "sourceFile": "alone-source"}))
                self.assertEqual(failed.exception.reason, reason)

    def test_internal_snapshots_stay_as_they_are(self):
        for number, options in enumerate(("", "compat=0.10", "extended_l2=on", "cluster_size=512", "refcount_bits=2")):
            with self.subTest(options=options):
                path = self.source(f"snap{number}", "w -P 1 0 256k", "w -c -P 2 512k 64k", "w -P 3 700k 10k", options=options)
                run("qemu-img", "snapshot", "-c", "first", path)
                run("qemu-io", "-f", "qcow2", "-c", "w -P 4 64k 64k", path)
                run("qemu-img", "snapshot", "-c", "second", path)
                shots = {name: self.snapshot(path, name) for name in ("first", "second")}
                image = f"snap{number}"
                ours = self.bring(image, path)
                expected = bytearray(qemu_bytes(path))
                handle = harness.nbd_connect(self.export(image))
                for offset, length in ((1000, 100_000), (512 * KiB, 512), (710 * KiB, 512), (900 * KiB, 4096)):
                    handle.pwrite(b"n" * length, offset)
                    expected[offset:offset + length] = b"n" * length
                handle.zero(CLUSTER, 3 * CLUSTER)
                expected[3 * CLUSTER:4 * CLUSTER] = bytes(CLUSTER)
                handle.flush()
                self.assert_same(handle.pread(MiB, 0), bytes(expected), "over NBD")
                handle.shutdown()
                self.daemon.delete_export(image)
                self.assert_clean(ours)
                self.assertEqual({name: self.snapshot(ours, name) for name in shots}, shots)
                run("qemu-img", "snapshot", "-d", "first", ours)
                self.assert_clean(ours)
                self.assert_same(qemu_bytes(ours), bytes(expected), "the disk")

    def snapshot(self, path, name):
        flat = self.daemon.file("flat")
        run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", "-l", name, path, flat)
        return read_file(flat)

    def test_bitmaps_are_not_vouched_for_once_it_is_written(self):
        file = Qcow2File.read(make_base(self.daemon.file("bitmaps")))
        file["autoclear"] |= 1 << 20
        ours = self.bring("bitmaps", file.save(self.daemon.file("bitmaps")))
        self.export("bitmaps", readOnly=True)
        self.assertEqual(Qcow2File.read(ours)["autoclear"], 1 | 1 << 20)
        self.daemon.delete_export("bitmaps")
        handle = harness.nbd_connect(self.export("bitmaps"))
        handle.pwrite(b"x" * 512, 0)
        self.assertEqual(Qcow2File.read(ours)["autoclear"], 0)
        handle.shutdown()
        self.daemon.delete_export("bitmaps")
        self.assertIn(qemu_check(ours), (0, 3))  # what the bitmaps had belongs to nobody
        self.check("bitmaps", "REPAIR_LEAKS")
        self.assertEqual(qemu_bytes(ours)[:513], b"x" * 512 + b"\1")


class QemuTest(CallsTestCase):
    """What qemu holds, and what it has left behind."""

    def held_by_qemu(self, path, *flags, kind="qcow2"):
        socket, pid_file = self.daemon.file("qemu.sock"), self.daemon.file("qemu.pid")
        for name in (socket, pid_file):
            if os.path.exists(name):
                os.unlink(name)
        server = harness.start(["qemu-nbd", "-t", "-f", kind, "-k", socket, "--pid-file", pid_file, *flags, path])
        self.addCleanup(self.end, server)
        harness.wait_until(lambda: os.path.exists(pid_file), "qemu-nbd serves", process=server)
        return server, f"nbd+unix:///?socket={socket}"

    @staticmethod
    def end(server):
        server.kill()
        server.wait()

    def test_a_killed_writer_with_lazy_refcounts(self):
        path = self.source("dirty", options="lazy_refcounts=on", size="8M")
        server, uri = self.held_by_qemu(path, "--cache=writeback")
        handle = harness.nbd_connect(uri)
        for at in range(0, 4 * MiB, MiB):
            handle.pwrite(b"d" * 100_000, at)
        handle.flush()
        self.end(server)
        self.assertTrue(Qcow2File.read(path)["incompatible"] & 1, "qemu-nbd has left the image clean")
        ours = self.bring("dirty", path)
        before = read_file(ours)
        self.export("dirty", readOnly=True)
        self.assertEqual(self.read("dirty", 100_001, MiB), b"d" * 100_000 + b"\0")
        self.daemon.delete_export("dirty")
        self.assertTrue(read_file(ours) == before, "reading has changed the file")
        self.write("dirty", (5 * MiB, b"e" * 512))
        self.assertEqual(Qcow2File.read(ours)["incompatible"] & 1, 0)
        self.assert_clean(ours)
        content = qemu_bytes(ours)
        for at in range(0, 4 * MiB, MiB):
            self.assertEqual(content[at:at + 100_001], b"d" * 100_000 + b"\0")
        self.assertEqual(content[5 * MiB:5 * MiB + 512], b"e" * 512)

    def test_locks(self):
        self.create("base", MiB)
        self.clone("top", "base")
        self.export("top")
        for name in ("base", "top"):
            done = run("qemu-io", "-f", "qcow2", "-c", "w -P 1 0 512", self.file_of(name), ok=False)
            self.assertNotEqual(done.returncode, 0, name)
            self.assertIn("lock", done.stdout + done.stderr)
        self.daemon.delete_export("top")
        self.export("top", readOnly=True)
        self.assertEqual(len(qemu_bytes(self.file_of("top"))), MiB)
        self.daemon.delete_export("top")
        for held in ("top", "base"):
            with self.subTest(held=held):
                server, _ = self.held_by_qemu(self.file_of(held))
                self.refused("ExportService/CreateExport", {"exportId": "top", "export": {"source": "images/top"}}, "IMAGE_LOCKED")
                if held == "top":
                    for method, request in (("CheckImage", {"repair": "REPAIR_LEAKS"}), ("CheckImage", {}),
                                            ("ResizeImage", {"virtualSizeBytes": str(2 * MiB)})):
                        self.refused(f"ImageService/{method}", {"name": "images/top", **request}, "IMAGE_LOCKED")
                self.end(server)
        self.export("top")


if __name__ == "__main__":
    harness.main(commands=["qemu-img", "qemu-io", "qemu-nbd", "cp", "protoc"], modules=("nbd", "grpc", "google.protobuf"))
