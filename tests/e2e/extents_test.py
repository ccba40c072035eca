"""Block status and READ chunks as clients get them: aligned to the advertised minimum, truthful, the same by every way."""

import functools
import json
import random

import harness
import nbd
from harness import GiB, KiB, MiB, extents, run, tail, write_file

HOLE_ZERO = 3
MINIMA = (1, 512, 4096, 65536)
LARGEST_EXTENT = 0xFFFF0000


def chunks_of(handle, offset, length, flags=0):
    """(offset, bytes, kind) of each chunk of a structured READ, and the bytes that it returned."""
    chunks = []

    def on_chunk(data, at, status, _error):
        kind = {nbd.READ_DATA: "DATA", nbd.READ_HOLE: "HOLE", nbd.READ_ERROR: "ERROR"}[status]
        chunks.append((at, len(data), kind))
        return 0
    return chunks, bytes(handle.pread_structured(length, offset, on_chunk, flags))


def holey_file(path, rng):
    """A file with data at odd places, and as much hole as the file system makes of the rest."""
    size = 8 * MiB
    pieces = []
    for _ in range(40):
        length = rng.choice((1, 17, 511, 512, 513, 4096, 5000, 70000))
        offset = rng.randrange(size - length)
        pieces.append((offset, rng.randbytes(length)))
    pieces += [(0, b"first"), (2 * MiB, bytes(64 * KiB))]  # allocated, and zero
    return write_file(path, *pieces, size=size)


def for_each_minimum(test):
    """Runs a test of WalkTest once for each minimum, with a connection to the export that has it."""
    @functools.wraps(test)
    def all_of_them(self):
        for minimum in MINIMA:
            with self.subTest(minimum=minimum):
                test(self, minimum, self.connect(self.daemon.uri(f"m{minimum}"), contexts=["base:allocation"]))
    return all_of_them


class WalkTest(harness.GabionTestCase):
    """A sparse image under every minimum, by a client as strict as libnbd is by default."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        path = holey_file(cls.daemon.file("holey.raw"), harness.random_source())
        cls.content = harness.read_file(path)
        cls.daemon.import_file("holey", path)
        for minimum in MINIMA:
            cls.daemon.create_export(f"m{minimum}", "holey", {"minimumBytes": minimum})

    def check_zeros(self, at, length, flags):
        self.assertIn(flags, (0, 2, HOLE_ZERO))  # a hole is always zero
        if flags & 2:
            self.assertEqual(self.content[at:at + length].count(0), length, f"not zero: {length} bytes at {at}")

    @for_each_minimum
    def test_a_walk_by_single_extents_reaches_the_end(self, minimum, handle):
        at, size = 0, handle.get_size()
        while at < size:
            (length, flags), = extents(handle, at, size - at, nbd.CMD_FLAG_REQ_ONE)
            self.assertEqual(length % minimum, 0)
            self.check_zeros(at, length, flags)
            at += length
        self.assertEqual(at, size)

    @for_each_minimum
    def test_one_answer_covers_all_and_neighbours_differ(self, minimum, handle):
        answer = extents(handle, 0, handle.get_size())
        self.assertEqual(sum(length for length, _ in answer), handle.get_size())
        self.assertTrue(all(length % minimum == 0 for length, _ in answer))
        self.assertTrue(all(a[1] != b[1] for a, b in zip(answer, answer[1:])), answer)
        self.assertTrue(any(flags == HOLE_ZERO for _, flags in answer), "no hole was found at all")
        self.assertTrue(any(flags == 0 for _, flags in answer))

    @for_each_minimum
    def test_answers_to_parts_agree_with_the_answer_to_the_whole(self, minimum, handle):
        rng = harness.random_source()
        step = max(minimum, 512)
        flags_at = {}
        at = 0
        for length, flags in extents(handle, 0, handle.get_size()):
            flags_at.update((unit, flags) for unit in range(at, at + length, step))
            at += length
        for _ in range(50):
            offset = rng.randrange(handle.get_size() // step) * step
            length = min(rng.choice((1, 2, 3, 100, 1000)) * step, handle.get_size() - offset)
            at = offset
            for got, flags in extents(handle, offset, length):
                self.assertEqual(flags_at[at], flags, f"at {at}, asked for {length} at {offset}")
                at += got

    @for_each_minimum
    def test_read_chunks_are_aligned_and_hold_the_content(self, minimum, handle):
        for offset in range(0, handle.get_size(), 2 * MiB):
            chunks, data = chunks_of(handle, offset, 2 * MiB)
            self.assertEqual(data, self.content[offset:offset + 2 * MiB])
            for at, length, kind in chunks:
                self.assertEqual((at % minimum, length % minimum), (0, 0), chunks)
                self.assertIn(kind, ("DATA", "HOLE"))
                if kind == "HOLE":
                    self.assertEqual(self.content[at:at + length].count(0), length)
            self.assertEqual(sum(length for _, length, _ in chunks), 2 * MiB)

    @for_each_minimum
    def test_df_reads_chunked_reads_and_plain_reads_are_equal(self, minimum, handle):
        rng = harness.random_source()
        simple = self.connect(self.daemon.uri(f"m{minimum}"), structured=False)
        self.assertFalse(simple.get_structured_replies_negotiated())
        for _ in range(30):
            length = rng.randrange(1, 4) * 65536
            offset = rng.randrange((handle.get_size() - length) // minimum) * minimum
            one, unfragmented = chunks_of(handle, offset, length, nbd.CMD_FLAG_DF)
            self.assertEqual(len(one), 1)
            _, chunked = chunks_of(handle, offset, length)
            expected = self.content[offset:offset + length]
            self.assertEqual(unfragmented, expected)
            self.assertEqual(chunked, expected)
            self.assertEqual(simple.pread(length, offset), expected)

    def test_clients_that_did_not_ask_for_block_sizes_may_ask_for_anything(self):
        rng = random.Random(1)
        for minimum in MINIMA:
            with self.subTest(minimum=minimum):
                handle = self.connect(self.daemon.uri(f"m{minimum}"), contexts=["base:allocation"], strict=False,
                                      block_sizes=False)
                for _ in range(100):
                    offset = rng.randrange(len(self.content) - 1)
                    length = min(rng.randrange(1, 20000), len(self.content) - offset)
                    self.assertEqual(handle.pread(length, offset), self.content[offset:offset + length])
                    answer, at = extents(handle, offset, length), offset
                    for got, flags in answer:
                        if at != offset:
                            self.assertEqual(at % minimum, 0, f"{answer} at {offset}")
                        self.check_zeros(at, min(got, len(self.content) - at), flags)
                        at += got
                    self.assertLess(sum(got for got, _ in answer[:-1]), length)
                    (got, _), = extents(handle, offset, length, nbd.CMD_FLAG_REQ_ONE)
                    self.assertLessEqual(got, length)

    @for_each_minimum
    def test_clients_map_the_same(self, minimum, handle):
        uri = self.daemon.uri(f"m{minimum}")
        mapped = json.loads(run("nbdinfo", "--map", "--json", uri).stdout)
        answer, at = [], 0
        for length, flags in extents(handle, 0, handle.get_size()):
            answer.append((at, length, flags))
            at += length
        self.assertEqual([(e["offset"], e["length"], e["type"]) for e in mapped], answer)
        totals = json.loads(run("nbdinfo", "--map", "--totals", "--json", uri).stdout)
        self.assertEqual({t["type"]: t["size"] for t in totals},
                         {kind: sum(length for _, length, flags in answer if flags == kind)
                          for kind in {flags for _, _, flags in answer}})
        for entry in json.loads(run("qemu-img", "map", "--output=json", uri).stdout):
            if entry["zero"]:
                self.check_zeros(entry["start"], entry["length"], HOLE_ZERO)


class ChunksTest(harness.GabionTestCase):
    """4096 bytes of data, then a hole, then two pieces of data with 4096 zero bytes between them."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.path = write_file(cls.daemon.file("x"), (0, b"a" * 4096), (MiB, b"b" * 4096), (MiB + 8192, b"c" * 4096),
                              size=2 * MiB)
        cls.content = harness.read_file(cls.path)
        cls.daemon.import_file("x", cls.path)

    def export(self, minimum):
        name = f"m{minimum}"
        self.daemon.create_export(name, "x", {"minimumBytes": minimum})
        return self.connect(self.daemon.uri(name), contexts=["base:allocation"])

    def test_chunks_and_extents_of_data_and_hole(self):
        for minimum, first in ((1, 4096), (512, 4096), (4096, 4096), (65536, 65536)):
            with self.subTest(minimum=minimum):
                handle = self.export(minimum)
                expected = [(0, first, "DATA"), (first, 128 * KiB - first, "HOLE")]
                self.assertEqual(chunks_of(handle, 0, 128 * KiB), (expected, self.content[:128 * KiB]))
                whole, data = chunks_of(handle, 0, 128 * KiB, nbd.CMD_FLAG_DF)
                self.assertEqual((whole, data), ([(0, 128 * KiB, "DATA")], self.content[:128 * KiB]))
                self.assertEqual(chunks_of(handle, 64 * KiB, 64 * KiB)[0], [(64 * KiB, 64 * KiB, "HOLE")])
                last = 12288 if minimum < 65536 else 65536
                answer = extents(handle, 0, 2 * MiB)
                if minimum == 65536:
                    self.assertEqual(answer, [(65536, 0), (MiB - 65536, 3), (65536, 0), (MiB - 65536, 3)])
                else:
                    self.assertEqual(answer, [(4096, 0), (MiB - 4096, 3), (4096, 0), (4096, 3), (4096, 0),
                                              (MiB - last, 3)])
                one = extents(handle, 0, 2 * MiB, nbd.CMD_FLAG_REQ_ONE)
                self.assertEqual(one, [(first, 0)])


class FourGigabytesTest(harness.GabionTestCase):
    """Extents and offsets that do not fit into 32 bits."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.hole = cls.daemon.serve("hole", size=6 * GiB, block_sizes={"minimumBytes": 512})

    def test_the_first_descriptor_of_a_huge_request_is_capped_to_an_aligned_length(self):
        handle = self.connect(self.hole, contexts=["base:allocation"])
        answer = extents(handle, 0, 4294966784)
        self.assertLessEqual(answer[0][0], LARGEST_EXTENT)
        self.assertTrue(all(length % 512 == 0 and flags == HOLE_ZERO for length, flags in answer), answer)

    def test_a_map_is_one_line(self):
        lines = run("nbdinfo", "--map", self.hole).stdout.split("\n")
        self.assertEqual([line.split() for line in lines if line], [["0", "6442450944", "3", "hole,zero"]])

    def test_a_request_of_0xffffffff_bytes_is_answered(self):
        handle = self.connect(self.hole, contexts=["base:allocation"], strict=False)
        answer = extents(handle, 0, 0xFFFFFFFF)
        self.assertTrue(all(length % 512 == 0 for length, _ in answer[:-1]), answer)
        self.assertLessEqual(answer[0][0], LARGEST_EXTENT)
        self.assertTrue(handle.aio_is_ready())

    def test_data_above_4_gigabytes(self):
        handle = self.connect(self.hole, contexts=["base:allocation"])
        self.addCleanup(handle.zero, 65536, 5 * GiB)
        handle.pwrite(b"x" * 65536, 5 * GiB)
        self.assertEqual(handle.pread(65536, 5 * GiB), b"x" * 65536)
        self.assertEqual(handle.pread(512, 5 * GiB - 512), bytes(512))
        mapped = json.loads(run("nbdinfo", "--map", "--json", self.hole).stdout)
        self.assertEqual([(e["offset"], e["length"], e["type"]) for e in mapped],
                         [(0, 5 * GiB, 3), (5 * GiB, 65536, 0), (5 * GiB + 65536, GiB - 65536, 3)])

    def test_sizes_around_2_to_the_32_and_the_largest(self):
        for name, size, policy in (("below", (1 << 32) - 1, None), ("at", 1 << 32, None), ("above", (1 << 32) + 1, None),
                                   ("padded", (1 << 32) + 1, tail(65536, "PAD_ZERO")), ("one", 1, None),
                                   ("one-padded", 1, tail(4096, "PAD_ZERO"))):
            with self.subTest(name):
                handle = self.connect(self.daemon.serve(f"size-{name}", size, block_sizes=policy),
                                      contexts=["base:allocation"])
                minimum = (policy or {}).get("minimumBytes", 1)
                advertised = -(-size // minimum) * minimum
                self.assertEqual(handle.get_size(), advertised)
                last = min(advertised, 65536)
                self.assertEqual(handle.pread(last, advertised - last), bytes(last))
                answer = extents(handle, advertised - last, last)
                self.assertEqual((answer[0][0], answer[-1][1] & 2), (last, 2))


class ManyExtentsTest(harness.GabionTestCase):
    """Data and hole alternating in the smallest units that the file system has."""

    UNITS = 200_000
    memory_bytes = 2 * UNITS // 2 * 4096  # the source and the image

    def test_the_number_of_descriptors_is_capped_and_the_walk_goes_on(self):
        path = self.daemon.file("comb.raw")
        with open(path, "wb") as file:
            for unit in range(0, self.UNITS, 2):
                file.seek(unit * 4096)
                file.write(b"x")
            file.truncate(self.UNITS * 4096)
        handle = self.connect(self.daemon.serve("comb", path=path, block_sizes={"minimumBytes": 512}),
                              contexts=["base:allocation"])
        at, seen = 0, 0
        while at < handle.get_size():
            answer = extents(handle, at, handle.get_size() - at)
            self.assertGreater(len(answer), 0)
            self.assertLessEqual(len(answer), 1 << 20)
            at += sum(length for length, _ in answer)
            seen += len(answer)
        self.assertEqual(at, handle.get_size())
        self.assertGreaterEqual(seen, 2)
        comb_is_visible = seen >= self.UNITS
        if not comb_is_visible:
            self.skipTest(f"the file system shows only {seen} of {self.UNITS} pieces")


if __name__ == "__main__":
    harness.main(commands=["nbdinfo", "qemu-img", "cp"])
