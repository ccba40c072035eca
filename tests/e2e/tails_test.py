"""Images whose size is a multiple of nothing: what each tail policy makes of them, and writes into the padding."""

import os

import harness
import nbd
from harness import MiB, CallError, extents, nbd_connect, read_file, run, tail, write_file

HOLE_ZERO = 3


class TailsTest(harness.GabionTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.r1000 = write_file(cls.daemon.file("r1000.raw"), (0, os.urandom(999) + b"\x01"))
        cls.odd = write_file(cls.daemon.file("odd.raw"), (MiB, os.urandom(299) + b"\x01"))
        for name, path in (("r1000", cls.r1000), ("odd", cls.odd)):
            cls.daemon.import_file(name, path)

    def export(self, image, policy):
        """An export of the image; its URI. Deleted after the test."""
        name = f"{image}-export"
        self.export_reply = self.daemon.create_export(name, image, policy)
        self.addCleanup(self.daemon.delete_export, name)
        return self.daemon.uri(name)

    def check(self, image, policy, size, minimum, expected):
        uri = self.export(image, policy)
        effective = self.export_reply["effectiveBlockSizes"]
        self.assertEqual(int(effective["exportSizeBytes"]), size)
        self.assertEqual(effective["minimum"]["bytes"], minimum)
        handle = nbd_connect(uri, contexts=["base:allocation"])
        self.assertEqual(handle.get_size(), size)
        self.assertEqual(handle.get_block_size(nbd.SIZE_MINIMUM), minimum)
        self.assertEqual(extents(handle, 0, size), expected)
        original = read_file(self.r1000 if image == "r1000" else self.odd)
        self.assertEqual(handle.pread(size, 0), original[:size].ljust(size, b"\0"))
        handle.shutdown()
        run("nbdinfo", "--map", uri)
        run("nbdcopy", uri, "null:")
        run("qemu-img", "map", "--output=json", uri)

    def test_1000_bytes_exact(self):
        self.check("r1000", tail(0, "EXACT"), 1000, 1, [(1000, 0)])

    def test_1000_bytes_exact_forces_the_minimum_to_1(self):
        self.check("r1000", tail(512, "EXACT"), 1000, 1, [(1000, 0)])

    def test_1000_bytes_by_default_are_exact(self):
        self.check("r1000", None, 1000, 1, [(1000, 0)])

    def test_1000_bytes_padded_to_512(self):
        self.check("r1000", tail(512, "PAD_ZERO"), 1024, 512, [(1024, 0)])

    def test_1000_bytes_with_a_minimum_are_padded_by_default(self):
        self.check("r1000", {"minimumBytes": 512}, 1024, 512, [(1024, 0)])

    def test_1000_bytes_padded_to_4096(self):
        self.check("r1000", tail(4096, "PAD_ZERO"), 4096, 4096, [(4096, 0)])

    def test_1000_bytes_that_grow_to_512(self):
        self.check("r1000", tail(512, "PAD_GROW"), 1024, 512, [(1024, 0)])

    def test_1000_bytes_truncated_to_512(self):
        self.check("r1000", tail(512, "TRUNCATE"), 512, 512, [(512, 0)])

    def test_1000_bytes_truncated_to_4096_would_leave_nothing(self):
        with self.assertRaises(CallError) as caught:
            self.export("r1000", tail(4096, "TRUNCATE"))
        self.assertEqual(caught.exception.code, "FAILED_PRECONDITION")

    def test_hole_and_300_bytes_exact(self):
        self.check("odd", tail(0, "EXACT"), 1048876, 1, [(MiB, HOLE_ZERO), (300, 0)])

    def test_hole_and_300_bytes_padded_to_512(self):
        self.check("odd", tail(512, "PAD_ZERO"), 1049088, 512, [(MiB, HOLE_ZERO), (512, 0)])

    def test_hole_and_300_bytes_padded_to_4096(self):
        self.check("odd", tail(4096, "PAD_ZERO"), 1052672, 4096, [(MiB, HOLE_ZERO), (4096, 0)])

    def test_hole_and_300_bytes_padded_to_65536(self):
        self.check("odd", tail(65536, "PAD_ZERO"), MiB + 65536, 65536, [(MiB, HOLE_ZERO), (65536, 0)])

    def test_hole_and_300_bytes_truncated_to_4096(self):
        self.check("odd", tail(4096, "TRUNCATE"), MiB, 4096, [(MiB, HOLE_ZERO)])
        warnings = [line for line in self.daemon.log().splitlines() if '"warning"' in line]
        self.assertTrue(any("300" in line for line in warnings), f"the loss of 300 bytes is not said: {warnings}")

    def test_refuse(self):
        for image, size in (("r1000", "1000"), ("odd", "1048876")):
            for minimum in (512, 4096):
                with self.subTest(image=image, minimum=minimum):
                    error = self.daemon.refusal("ExportService/CreateExport", {
                        "exportId": "refused",
                        "export": {"source": f"images/{image}", "blockSizes": tail(minimum, "REFUSE")}})
                    self.assertEqual((error.code, error.reason),
                                     ("FAILED_PRECONDITION", "SIZE_NOT_MULTIPLE_OF_MINIMUM"))
                    self.assertEqual((error.metadata["size"], error.metadata["minimum"]), (size, str(minimum)))
                    missing = self.daemon.refusal("ExportService/GetExport", {"name": "exports/refused"})
                    self.assertEqual((missing.code, missing.reason), ("NOT_FOUND", "RESOURCE_NOT_FOUND"))


class TailWritesTest(harness.GabionTestCase):
    """Writes across the end of a copy of 1000 bytes, padded to 1024."""

    def setUp(self):
        self.content = os.urandom(999) + b"\x01"
        self.path = self.daemon.import_file("copy", write_file(self.daemon.file("copy.raw"), (0, self.content)))

        self.addCleanup(self.daemon.delete_image, "copy")

    def serve(self, mode, minimum=512):
        self.daemon.create_export("copy", "copy", tail(minimum, mode))
        self.addCleanup(self.daemon.delete_export, "copy")
        return self.connect(self.daemon.uri("copy"), strict=False)

    def check_file(self, expected):
        self.assertEqual(read_file(self.path), expected)

    def refused(self, handle, action):
        self.assertEqual(harness.errno_of(action), "ENOSPC")
        self.assertTrue(handle.aio_is_ready())
        handle.flush()
        self.check_file(self.content)
        padding = handle.get_size() - 1000
        self.assertEqual(handle.pread(handle.get_size(), 0), self.content + bytes(padding))

    def test_zeros_into_the_padding_are_accepted_and_dropped(self):
        handle = self.serve("PAD_ZERO")
        handle.pwrite(bytes(24), 1000)
        handle.pwrite(bytes(24), 1000, nbd.CMD_FLAG_FUA)
        handle.zero(24, 1000)
        handle.trim(24, 1000)
        handle.flush()
        self.check_file(self.content)

    def test_other_bytes_into_the_padding_are_refused(self):
        handle = self.serve("PAD_ZERO")
        self.refused(handle, lambda: handle.pwrite(b"x" * 24, 1000))

    def test_a_write_that_ends_in_the_padding_is_refused_as_a_whole(self):
        handle = self.serve("PAD_ZERO")
        self.refused(handle, lambda: handle.pwrite(b"x" * 64, 960))
        self.refused(handle, lambda: handle.pwrite(bytes(63) + b"x", 960))
        self.refused(handle, lambda: handle.pwrite(b"x" * 512, 512))

    def test_an_aligned_rewrite_of_the_last_unit_works(self):
        handle = self.serve("PAD_ZERO")
        new = os.urandom(487) + b"\x01"
        handle.pwrite(new + bytes(24), 512, nbd.CMD_FLAG_FUA)
        self.check_file(self.content[:512] + new)

    def test_an_exact_export_takes_nothing_behind_its_end(self):
        handle = self.serve("EXACT", 0)
        self.refused(handle, lambda: handle.pwrite(bytes(24), 1000))
        self.refused(handle, lambda: handle.pwrite(b"x" * 24, 990))
        self.refused(handle, lambda: handle.zero(24, 990))
        handle.pwrite(b"yz", 998)
        handle.flush()
        self.check_file(self.content[:998] + b"yz")

    def test_a_padding_that_grows_extends_the_file_at_the_first_byte_that_is_not_zero(self):
        handle = self.serve("PAD_GROW")
        handle.zero(24, 1000)
        handle.pwrite(bytes(24), 1000)
        handle.trim(1024, 0)
        handle.flush()
        self.assertEqual(os.stat(self.path).st_size, 1000)
        handle.pwrite(b"x" * 24, 1000, nbd.CMD_FLAG_FUA)
        self.assertEqual(os.stat(self.path).st_size, 1024)
        self.assertEqual(handle.pread(24, 1000), b"x" * 24)

    def test_a_truncated_export_takes_nothing_behind_its_end(self):
        handle = self.serve("TRUNCATE")
        self.assertEqual(handle.get_size(), 512)
        self.assertEqual(harness.errno_of(lambda: handle.pwrite(bytes(512), 512)), "ENOSPC")
        handle.pwrite(b"a" * 512, 0)
        handle.flush()
        self.check_file(b"a" * 512 + self.content[512:])


if __name__ == "__main__":
    harness.main(commands=["nbdinfo", "nbdcopy", "qemu-img"])
