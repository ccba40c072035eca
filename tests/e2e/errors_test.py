"""What NBD clients are told about requests that cannot be served, on a writable and on a read-only export. After every
one of them the connection goes on."""

import random

import harness
import nbd
from harness import MiB, errno_of

SIZE = 64 * MiB


def quiet(*_arguments):
    return 0


def zeroes(size):
    return bytes(size)


# label -> (action of a handle, expected when writable, expected when read-only)
CASES = {
    "write in range": (lambda h: h.pwrite(zeroes(512), 0), "OK", "EPERM"),
    "read over end": (lambda h: h.pread(1024, SIZE - 512), "EINVAL", "EINVAL"),
    "read beyond end": (lambda h: h.pread(512, SIZE + 4096), "EINVAL", "EINVAL"),
    "read at 2^63-512": (lambda h: h.pread(512, (1 << 63) - 512), "EINVAL", "EINVAL"),
    "read at 2^64-512": (lambda h: h.pread(512, (1 << 64) - 512), "EINVAL", "EINVAL"),
    "write over end": (lambda h: h.pwrite(zeroes(1024), SIZE - 512), "ENOSPC", "EPERM"),
    "write at 2^64-512": (lambda h: h.pwrite(zeroes(1024), (1 << 64) - 512), "ENOSPC", "EPERM"),
    "zero over end": (lambda h: h.zero(1024, SIZE - 512), "ENOSPC", "EPERM"),
    "zero at 2^64-512": (lambda h: h.zero(1024, (1 << 64) - 512), "ENOSPC", "EPERM"),
    "trim over end": (lambda h: h.trim(1024, SIZE - 512), "EINVAL", "EPERM"),
    "cache over end": (lambda h: h.cache(1024, SIZE - 512), "EINVAL", "EINVAL"),
    "status over end": (lambda h: h.block_status(1024, SIZE - 512, quiet), "EINVAL", "EINVAL"),
    "status 0xffffffff": (lambda h: h.block_status(0xFFFFFFFF, 0, quiet), "EINVAL", "EINVAL"),
    "read length 0": (lambda h: h.pread(0, 0), "OK", "OK"),
    "write length 0": (lambda h: h.pwrite(b"", 0), "OK", "EPERM"),
    "zero length 0": (lambda h: h.zero(0, 0), "OK", "EPERM"),
    "trim length 0": (lambda h: h.trim(0, 0), "OK", "EPERM"),
    "status length 0": (lambda h: h.block_status(0, 0, quiet), "EINVAL", "EINVAL"),
    "read 33 MiB + 512": (lambda h: h.pread(33 * MiB + 512, 0), "OK", "OK"),
    "write 33 MiB": (lambda h: h.pwrite(zeroes(33 * MiB), 0), "EINVAL", ("EPERM", "EINVAL")),
    "write 32 MiB": (lambda h: h.pwrite(zeroes(32 * MiB), 0), "OK", "EPERM"),
    "read with NO_HOLE": (lambda h: h.pread(512, 0, nbd.CMD_FLAG_NO_HOLE), "EINVAL", "EINVAL"),
    "read with unknown flags": (lambda h: h.pread(512, 0, 0x8000), "EINVAL", "EINVAL"),
    "write with DF": (lambda h: h.pwrite(zeroes(512), 0, nbd.CMD_FLAG_DF), "EINVAL", ("EPERM", "EINVAL")),
    "trim with NO_HOLE": (lambda h: h.trim(512, 0, nbd.CMD_FLAG_NO_HOLE), "EINVAL", ("EPERM", "EINVAL")),
    "flush with FUA": (lambda h: h.flush(nbd.CMD_FLAG_FUA), "OK", "OK"),
    "read with FUA": (lambda h: h.pread(512, 0, nbd.CMD_FLAG_FUA), "OK", "OK"),
    "cache with unknown flags": (lambda h: h.cache(512, 0, 0x8000), "EINVAL", "EINVAL"),
    "cache": (lambda h: h.cache(512, 0), "OK", "OK"),
    # Writable exports advertise FAST_ZERO: it works, or it says that it would not be fast.
    "zero with FAST_ZERO": (lambda h: h.zero(4096, 0, nbd.CMD_FLAG_FAST_ZERO), ("OK", "ENOTSUP"), ("EPERM", "EINVAL")),
    "zero with FUA and NO_HOLE": (lambda h: h.zero(4096, 0, nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_NO_HOLE), "OK", "EPERM"),
}


class ErrorsTest(harness.GabionTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.daemon.create_image("image", SIZE)
        for name, read_only in (("writable", False), ("read-only", True)):
            cls.daemon.create_export(name, "image", readOnly=read_only)

    def check(self, export, column, **options):
        for label, (action, *expected) in CASES.items():
            with self.subTest(label):
                handle = self.connect(self.daemon.uri(export), contexts=["base:allocation"], strict=False, **options)
                wanted = expected[column]
                got = errno_of(lambda: action(handle))
                self.assertIn(got, wanted if isinstance(wanted, tuple) else (wanted,))
                self.assertTrue(handle.aio_is_ready(), "the connection is gone")
                self.assertEqual(handle.pread(512, 0), bytes(512))
                harness.hang_up(handle)

    def test_writable(self):
        self.check("writable", 0)

    def test_read_only(self):
        self.check("read-only", 1)

    def test_a_client_that_did_not_ask_for_block_sizes_is_told_the_same(self):
        self.check("writable", 0, block_sizes=False)

    def test_simple_replies(self):
        """Without structured replies a READ longer than the largest payload cannot be split."""
        for label, (action, writable, _) in CASES.items():
            if label.startswith("status"):
                continue
            with self.subTest(label):
                handle = self.connect(self.daemon.uri("writable"), strict=False, structured=False)
                wanted = {"read 33 MiB + 512": "EINVAL"}.get(label, writable)
                self.assertIn(errno_of(lambda: action(handle)), wanted if isinstance(wanted, tuple) else (wanted,))
                self.assertEqual(handle.pread(512, 0), bytes(512))
                harness.hang_up(handle)

    def test_no_contexts_no_status(self):
        handle = self.connect(self.daemon.uri("writable"), strict=False)
        self.assertEqual(errno_of(lambda: handle.block_status(512, 0, quiet)), "EINVAL")
        self.assertEqual(handle.pread(512, 0), bytes(512))

    def test_errors_of_requests_in_flight_reach_the_right_request(self):
        handle = self.connect(self.daemon.uri("writable"), strict=False)
        cookies = []
        for index in range(64):
            bad = index % 3 == 0
            cookies.append((bad, handle.aio_pread(nbd.Buffer(4096), SIZE if bad else index * 4096)))
        for bad, cookie in cookies:
            def done():
                while not handle.aio_command_completed(cookie):
                    handle.poll(-1)
            self.assertEqual(errno_of(done), "EINVAL" if bad else "OK")

    def test_a_connection_counts_what_it_was_refused(self):
        handle = self.connect(self.daemon.uri("writable"), strict=False)
        for _ in range(3):
            errno_of(lambda: handle.pread(512, SIZE))
        counts = [int(c.get("rejectedRequests", 0)) for c in self.daemon.connections("writable")]
        self.assertIn(3, counts)


class MaximumPayloadTest(harness.GabionTestCase):
    """An export that advertises a largest payload of 1 MiB."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.uri = cls.daemon.serve("e", 8 * MiB, block_sizes={"maximumPayloadBytes": MiB})
        handle = harness.nbd_connect(cls.uri)
        cls.content = random.Random(3).randbytes(8 * MiB)
        for offset in range(0, 8 * MiB, MiB):
            handle.pwrite(cls.content[offset:offset + MiB], offset)
        handle.shutdown()

    def test_a_longer_structured_read_comes_in_chunks_that_keep_it(self):
        handle = self.connect(self.uri, strict=False)
        chunks = []
        data = handle.pread_structured(5 * MiB + 512, 512, lambda part, at, status, _error: chunks.append(len(part)) or 0)
        self.assertEqual(bytes(data), self.content[512:512 + 5 * MiB + 512])
        self.assertLessEqual(max(chunks), MiB)

    def test_a_longer_simple_read_is_refused(self):
        handle = self.connect(self.uri, strict=False, structured=False)
        self.assertEqual(errno_of(lambda: handle.pread(5 * MiB, 0)), "EINVAL")
        self.assertEqual(handle.pread(MiB, MiB), self.content[MiB:2 * MiB])

    def test_a_longer_unfragmented_read_is_refused(self):
        handle = self.connect(self.uri, strict=False)
        got = errno_of(lambda: handle.pread_structured(5 * MiB, 0, quiet, nbd.CMD_FLAG_DF))
        self.assertIn(got, ("EOVERFLOW", "EINVAL"))
        self.assertEqual(handle.pread(MiB, MiB), self.content[MiB:2 * MiB])

    def test_requests_without_payload_may_be_longer(self):
        handle = self.connect(self.uri, contexts=["base:allocation"], strict=False)
        handle.cache(8 * MiB, 0)
        self.assertEqual(sum(length for length, _ in harness.extents(handle, 0, 8 * MiB)), 8 * MiB)

    def test_a_write_that_is_longer_leaves_the_connection_alive(self):
        handle = self.connect(self.uri, strict=False)
        got = errno_of(lambda: handle.pwrite(self.content[:5 * MiB], 0))
        self.assertIn(got, ("OK", "EINVAL"))  # up to 32 MiB a server may be generous; the bytes are the same either way
        self.assertEqual(handle.pread(5 * MiB, 0), self.content[:5 * MiB])


class AlignmentTest(harness.GabionTestCase):
    """Requests that are no multiple of the minimum, by what the policy makes of them."""

    def serve(self, name, **policy):
        return self.daemon.serve(name, MiB, block_sizes={"minimumBytes": 4096, **policy})

    def test_emulated_by_default(self):
        handle = self.connect(self.serve("emulate"), strict=False)
        handle.pwrite(b"a" * 100, 4000)
        handle.zero(10, 4050)
        self.assertEqual(handle.pread(200, 3950), bytes(50) + b"a" * 50 + bytes(10) + b"a" * 40 + bytes(50))
        connection, = self.daemon.connections("emulate")
        self.assertEqual(int(connection["unalignedRequests"]), 3)

    def test_rejected_with_einval(self):
        uri = self.serve("reject", unalignedRequests="UNALIGNED_REQUESTS_REJECT")
        handle = self.connect(uri, contexts=["base:allocation"], strict=False)
        for action in (lambda: handle.pread(100, 0), lambda: handle.pread(4096, 100), lambda: handle.zero(100, 0),
                       lambda: handle.pwrite(b"a" * 100, 4096), lambda: handle.trim(4096, 1),
                       lambda: handle.block_status(100, 0, quiet), lambda: handle.cache(1, 0)):
            self.assertEqual(errno_of(action), "EINVAL")
        self.assertEqual(handle.pread(MiB, 0), bytes(MiB))
        silent = self.connect(uri, strict=False, block_sizes=False)
        silent.pwrite(b"a" * 512, 512)  # a client that did not ask is served in units of 512
        self.assertEqual(silent.pread(1024, 0), bytes(512) + b"a" * 512)

    def test_disconnected_when_the_budget_is_spent(self):
        uri = self.serve("budget", unalignedRequests="UNALIGNED_REQUESTS_DISCONNECT", violationBudget=2)
        handle = self.connect(uri, strict=False)
        for _ in range(2):
            self.assertEqual(errno_of(lambda: handle.pread(100, 0)), "EINVAL")
            self.assertEqual(handle.pread(4096, 0), bytes(4096))
        with self.assertRaises(nbd.Error):
            handle.pread(100, 0)
            handle.pread(4096, 0)

    def test_silent_clients_can_be_held_to_the_rules(self):
        uri = self.serve("enforce", unalignedRequests="UNALIGNED_REQUESTS_REJECT", silentClients="SILENT_CLIENTS_ENFORCE")
        handle = self.connect(uri, strict=False, block_sizes=False)
        self.assertEqual(errno_of(lambda: handle.pread(512, 0)), "EINVAL")
        self.assertEqual(handle.pread(4096, 0), bytes(4096))

    def test_silent_clients_can_be_refused(self):
        uri = self.serve("refuse", silentClients="SILENT_CLIENTS_REFUSE")
        with self.assertRaises(nbd.Error):
            harness.nbd_connect(uri, block_sizes=False)
        self.assertEqual(self.connect(uri).pread(4096, 0), bytes(4096))


if __name__ == "__main__":
    harness.main()
