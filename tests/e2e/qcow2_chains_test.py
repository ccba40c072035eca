"""Chains of images, at random: what qemu makes Gabion reads and maps as qemu does; what Gabion makes qemu reads."""

import os
import random
import sys
import threading

import harness
import nbd
import qcow2_tools
from harness import KiB, MiB, run
from qcow2_tools import gabion_options, merged, qemu_atoms, qemu_bytes, qemu_check, random_format, random_range, random_size

CHAINS = int(os.environ.get("GABION_CHAINS", "4"))  # that each test plays


class Disk:
    """What a disk holds; None where a trim left it open, until it has been read."""

    def __init__(self, content):
        self.bytes, self.open = bytearray(content), bytearray(len(content))

    def put(self, offset, data, is_open=0):
        self.bytes[offset:offset + len(data)] = data
        self.open[offset:offset + len(data)] = bytes([is_open]) * len(data)

    def learn(self, offset, data):
        """After a read; what was open is from now on as it was read. Returns the first wrong offset, or None."""
        for index in range(offset, offset + len(data)):
            if self.open[index]:
                self.bytes[index], self.open[index] = data[index - offset], 0
        expected = self.bytes[offset:offset + len(data)]
        if expected == data:
            return None
        return offset + next(i for i in range(len(data)) if expected[i] != data[i])


class ChainTestCase(qcow2_tools.Qcow2TestCase):
    def for_rounds(self, play, rounds=CHAINS):
        """Calls play(name, random source) for each round; a failure tells which."""
        rng = harness.random_source()
        for number in range(rounds):
            seed = rng.randrange(1 << 32)
            with self.subTest(round=number):
                play(f"r{number}", random.Random(seed))

    def play_on(self, rng, image, disk, form):
        """Rounds of requests in flight at once, on ranges that share clusters but no bytes."""
        handles = [harness.nbd_connect(self.daemon.uri(image)) for _ in range(3)]
        size = len(disk.bytes)
        for _ in range(rng.randint(1, 6)):
            if rng.random() < 0.3:
                self.play_qemu(rng, image, disk, form)
            waiting, offset = [], 0
            for _ in range(rng.randint(1, 12)):
                at, length = random_range(rng, size, form["bits"], rng.choice((512, 1)))
                if at < offset:
                    at = offset + rng.choice((0, 0, 1, 4 * KiB))
                length = min(length, size - at)
                if length <= 0:
                    break
                waiting.append(self.send(rng, rng.choice(handles), disk, at, length))
                offset = at + length
            for handle, cookie, _buffer in waiting:
                while not handle.aio_command_completed(cookie):
                    handle.poll(-1)
            if rng.random() < 0.5:
                rng.choice(handles).flush()
            bad = disk.learn(0, rng.choice(handles).pread(size, 0))
            self.assertIsNone(bad, f"{image}: byte {bad} is wrong")
        for handle in handles:
            handle.shutdown()

    @staticmethod
    def send(rng, handle, disk, at, length):
        """One request; returns (handle, cookie, buffer to keep)."""
        action, buffer = rng.choice(("write", "write", "write", "zero", "zero", "trim")), None
        flags = rng.choice((0, 0, 0, nbd.CMD_FLAG_FUA))
        if action == "write":
            data = rng.randbytes(length) if rng.random() < 0.8 else bytes(length)
            buffer = nbd.Buffer.from_bytearray(bytearray(data))
            disk.put(at, data)
            return handle, handle.aio_pwrite(buffer, at, flags=flags), buffer
        if action == "zero":
            disk.put(at, bytes(length))
            return handle, handle.aio_zero(length, at, flags=flags | rng.choice((0, nbd.CMD_FLAG_NO_HOLE))), None
        disk.put(at, bytes(length), is_open=1)
        return handle, handle.aio_trim(length, at, flags=flags), None

    def play_qemu(self, rng, image, disk, form):
        """The same by qemu-io, which knows sectors only."""
        commands, size = [], len(disk.bytes) // 512 * 512
        for _ in range(5 if size else 0):
            offset, length = random_range(rng, size, form["bits"])
            kind, value = rng.choice(("w", "z", "zu", "discard")), rng.randrange(256)
            if kind == "w":
                commands.append(f"w -P {value} {offset} {length}")
                disk.put(offset, bytes([value]) * length)
            elif kind == "discard":
                commands.append(f"discard {offset} {length}")
                disk.put(offset, bytes(length), is_open=1)
            else:
                commands.append(f"w -z {'-u ' if kind == 'zu' else ''}{offset} {length}")
                disk.put(offset, bytes(length))
        if commands:
            run("qemu-io", "-f", "raw", "-d", "unmap", *(w for c in commands for w in ("-c", c)), self.daemon.uri(image))


class ChainsOfQemuTest(ChainTestCase):
    """Made by qemu-img and qemu-io, imported from the bottom up."""

    def make_raw(self, rng, path, pattern):
        size = random_size(rng, 12, rng.choice((512, 1)))
        pieces = []
        for _ in range(rng.randint(0, 6)):
            offset, length = random_range(rng, size, 12, rng.choice((512, 1)))
            pieces.append((offset, harness.read_file(pattern)[:length]))
        harness.write_file(path, *pieces, size=size)
        return size

    def make_qcow2(self, rng, path, pattern, below):
        form = random_format(rng)
        size = random_size(rng, form["bits"])
        if below and rng.random() < 0.5:
            size = -(-below[2] // 512) * 512
        backing = ["-b", os.path.basename(below[0]), "-F", below[1]] if below else []
        run("qemu-img", "create", "-q", "-f", "qcow2", "-o", qcow2_tools.qemu_options(form), *backing, path, str(size))
        story = []
        for snapshot in range(rng.choice((1, 1, 1, 2, 3))):
            if snapshot:
                # Not every image can have one: refcounts of one bit count no more than one reference.
                run("qemu-img", "snapshot", "-c", f"s{snapshot}", path, ok=False)
            commands = qcow2_tools.qemu_io_commands(rng, size, form, pattern, rng.randint(0, 10))
            story += ["snapshot", *commands]
            if commands:
                # It refuses to write compressed clusters over others; the rest is done nevertheless.
                run("qemu-io", "-f", "qcow2", "-d", "unmap", *(w for c in commands for w in ("-c", c)), path,
                    ok="w -c" not in " ".join(commands))
        return size, form, story

    def make_chain(self, rng, name, pattern):
        """[(path, kind, size)] from the bottom, and how it was made."""
        chain, story = [], []
        for number in range(rng.randint(1, 6)):
            path = self.daemon.file(f"{name}-{number}")
            if number == 0 and rng.random() < 0.4:
                chain.append((path, "raw", self.make_raw(rng, path, pattern)))
                story.append(chain[-1])
            else:
                size, *how = self.make_qcow2(rng, path, pattern, chain[-1] if chain else None)
                chain.append((path, "qcow2", size))
                story.append((chain[-1], *how))
        return chain, story

    def test_what_qemu_made(self):
        self.for_rounds(self.play)

    def play(self, name, rng):
        pattern = harness.write_file(self.daemon.file("pattern"), (0, rng.randbytes(200) * 40 + rng.randbytes(100 * KiB)))
        chain, story = self.make_chain(rng, name, pattern)
        try:
            image, path = self.check_chain(name, chain)
            if chain[-1][1] == "qcow2" and qemu_check(path) in (0, 3):  # qemu damages some by what it refuses
                self.change(rng, image, path, story[-1][1])
        except (AssertionError, harness.CallError, nbd.Error):
            print(f"{name}:", *story, sep="\n  ", file=sys.stderr)
            raise

    def check_chain(self, name, chain):
        files = []
        for number, (path, kind, _) in enumerate(chain):
            backing = f"{name}-{number - 1}" if number else None
            files.append((self.bring(f"{name}-{number}", path, backing, kind), kind))
        chain = chain[::-1]
        sizes, kinds = [c[2] for c in chain], [c[1] for c in chain]
        image = f"{name}-{len(chain) - 1}"
        self.assertEqual(int(self.image(image)["virtualSizeBytes"]), sizes[0])
        self.daemon.create_export(image, image, {"minimumBytes": 1}, readOnly=True, exposeAllocationDepth=True)
        expected = qemu_bytes(chain[0][0], kinds[0])[:sizes[0]]
        copy = self.daemon.file("copy")
        run("nbdcopy", self.daemon.uri(image), copy)
        self.assert_same(harness.read_file(copy), expected, "nbdcopy and qemu-img convert")
        atoms = qemu_atoms(chain[0][0], sizes, kinds)
        self.assertEqual(self.atoms(f"images/{image}"), atoms)
        self.assertEqual(self.whole(image, qcow2_tools.DEPTH), qcow2_tools.by_value(atoms, lambda a: a[3]))
        self.assertEqual(self.whole(image, "base:allocation"),
                         qcow2_tools.by_value(atoms, lambda a: 0 if a[2] else 2 if a[5] else 3))
        for (ours, kind), (theirs, _, _) in zip(reversed(files), chain):
            if kind == "qcow2" and qemu_check(theirs) == 0:
                self.assertEqual(qemu_check(ours), 0)
        self.assert_same(qemu_bytes(files[-1][0], kinds[0])[:sizes[0]], expected, "qemu-img convert of the pool's files")
        self.assertEqual(qemu_atoms(files[-1][0], sizes, kinds), atoms)
        self.daemon.delete_export(image)
        return image, files[-1][0]

    def change(self, rng, image, path, form):
        """Writes to the topmost image, which others have made; its snapshots stay as they are."""
        before, status = self.snapshots(path), qemu_check(path)
        disk = Disk(qemu_bytes(path))
        self.daemon.create_export(image, image, {"minimumBytes": 1})
        self.play_on(rng, image, disk, form)
        self.daemon.delete_export(image)
        if status == 0:
            self.assert_clean(path)
        self.assert_same(qemu_bytes(path), bytes(disk.bytes), "qemu-img convert after writes")
        self.assertTrue(self.snapshots(path) == before, "a snapshot has changed")

    @staticmethod
    def snapshots(path):
        """The content of each internal snapshot."""
        contents = {}
        for snapshot in qcow2_tools.qemu_info(path).get("snapshots", []):
            run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", "-l", snapshot["name"], path, path + ".flat")
            contents[snapshot["name"]] = harness.read_file(path + ".flat")
            os.unlink(path + ".flat")
        return contents


class ChainsOfGabionTest(ChainTestCase):
    """Made by CreateImage and CloneImage, written by clients, read by qemu."""

    def test_what_gabion_made(self):
        self.for_rounds(self.play_chain)

    def play_chain(self, name, rng):
        disks = []  # (image, Disk, format) from the bottom
        layers = rng.randint(1, 4)
        for number in range(layers):
            # Of others than the last one qemu would see whole sectors only.
            disks.append(self.make_layer(rng, f"{name}-{number}", disks[-1] if disks else None, number == layers - 1))
        for image, disk, form in disks:
            with self.subTest(image=image, form=form):
                self.check_files(image, disk, form)

    def make_layer(self, rng, image, below, is_last):
        if below is None and rng.random() < 0.25:
            return self.make_raw_layer(rng, image)
        form = random_format(rng)
        size = random_size(rng, form["bits"], 1 if is_last and rng.random() < 0.5 else 512)
        if below and rng.random() < 0.5:
            size = len(below[1].bytes)
        content = bytes(size) if below is None else bytes(below[1].bytes[:size]).ljust(size, b"\0")
        if below:
            self.clone(image, below[0], size, gabion_options(form))
        else:
            self.create(image, size, gabion_options(form))
        disk = Disk(content)
        self.daemon.create_export(image, image, {"minimumBytes": 1})
        self.play_on(rng, image, disk, form)
        self.daemon.delete_export(image)
        return image, disk, form

    def make_raw_layer(self, rng, image):
        disk = Disk(bytes(random_size(rng, 12)))
        self.daemon.create_image(image, len(disk.bytes))
        self.daemon.create_export(image, image, {"minimumBytes": 1})
        self.play_on(rng, image, disk, {"bits": 12})
        self.daemon.delete_export(image)
        return image, disk, None

    def check_files(self, image, disk, form):
        if form is None:
            self.assert_same(harness.read_file(self.file_of(image, "raw")), bytes(disk.bytes), "the file")
            return
        path, size = self.file_of(image), len(disk.bytes)
        self.assert_clean(path)
        whole = size // 512 * 512  # qemu sees no more
        expected = bytes(disk.bytes[:whole])
        if not whole:
            return
        self.assert_same(qemu_bytes(path)[:whole], expected, "qemu-img convert")
        self.assert_same(qcow2_tools.qemu_reads(path)[:whole], expected, "qemu-img dd")
        chain = [self.image(name) for name in self.chain_of(image)]
        sizes, kinds = [int(i["virtualSizeBytes"]) for i in chain], ["qcow2" if "qcow2" in i else "raw" for i in chain]
        self.assertEqual(clipped(self.atoms(f"images/{image}"), whole), clipped(qemu_atoms(path, sizes, kinds), whole))

    def chain_of(self, image):
        names = [image]
        while True:
            below = self.image(names[-1]).get("backingImage")
            if not below:
                return names
            names.append(below.removeprefix("images/"))


def clipped(runs, size):
    return merged([(a[0], min(a[1], size - a[0]), *a[2:]) for a in runs if a[0] < size])


class Writer(threading.Thread):
    """Keeps writes, zeroes and trims in flight on blocks of its own, and remembers what is durable.

    Each block carries a number that only grows. A block may show any number that was sent to it at or after the last
    one known to be durable.
    """

    def __init__(self, uri, blocks, block_bytes, rng, start):
        super().__init__()
        self.handle, self.rng, self.blocks, self.block_bytes = harness.nbd_connect(uri), rng, blocks, block_bytes
        self.start_content = start
        self.sent, self.done, self.durable = ({b: 0 for b in blocks} for _ in range(3))
        self.flushes = 0
        self.error = None

    def content(self, block, number):
        """What the block holds after its n-th change, if that was no trim."""
        if number == 0:
            return self.start_content[block * self.block_bytes:(block + 1) * self.block_bytes]
        if number % 6 in (3, 4, 5):
            return bytes(self.block_bytes)
        text = f"{block:08d} {number:08d} ".encode()
        return (text * (self.block_bytes // len(text) + 1))[:self.block_bytes]

    def is_allowed(self, block, got):
        """Whether the block may hold that now: each sector what one of the changes made of it that came last, because one
        that was never answered may have been done in part. A trim may leave what was there."""
        first = self.durable[block]
        if first % 6 == 5:
            first -= 1
        contents = [self.content(block, n) for n in range(first, self.sent[block] + 1)]
        return all(any(got[at:at + 512] == content[at:at + 512] for content in contents)
                   for at in range(0, self.block_bytes, 512))

    def run(self):
        """Until the server is gone."""
        try:
            while True:
                self.round()
        except nbd.Error as error:
            self.error = error

    def round(self):
        waiting = []
        for block in self.rng.sample(self.blocks, 8):
            self.sent[block] += 1
            number, at = self.sent[block], block * self.block_bytes
            flags = nbd.CMD_FLAG_FUA if self.rng.random() < 0.1 else 0
            buffer = nbd.Buffer.from_bytearray(bytearray(self.content(block, number)))
            if number % 6 == 3:
                cookie = self.handle.aio_zero(self.block_bytes, at, flags=flags)
            elif number % 6 == 4:
                cookie = self.handle.aio_zero(self.block_bytes, at, flags=flags | nbd.CMD_FLAG_NO_HOLE)
            elif number % 6 == 5:
                cookie = self.handle.aio_trim(self.block_bytes, at, flags=flags)
            else:
                cookie = self.handle.aio_pwrite(buffer, at, flags=flags)
            waiting.append((cookie, block, flags, buffer))
        for cookie, block, flags, _ in waiting:
            while not self.handle.aio_command_completed(cookie):
                self.handle.poll(-1)
            self.done[block] = self.sent[block]
            if flags:
                self.durable[block] = self.sent[block]
        if self.rng.random() < 0.3:
            covered = dict(self.done)
            self.handle.flush()
            self.durable = covered
            self.flushes += 1

    def check(self, handle):
        """What was durable is there: returns what is wrong."""
        wrong = []
        for block in self.blocks:
            got = handle.pread(self.block_bytes, block * self.block_bytes)
            if not self.is_allowed(block, got):
                wrong.append((block, self.durable[block], self.sent[block], got[:20]))
        return wrong


class KillTest(ChainTestCase):
    """kill -9 of the daemon under load, and what the files are afterwards."""

    needed_bytes = 256 * MiB  # of memory: more happens before the kill than on a disk

    def test_what_was_flushed_is_there_and_the_files_are_sound(self):
        self.for_rounds(self.play)

    def play(self, name, rng):
        shared, self.daemon = self.daemon, harness.Gabiond(folder=harness.memory_folder(self.needed_bytes))
        try:
            self.play_with_own_daemon(name, rng)
        finally:
            self.daemon.close()
            self.daemon = shared

    def play_with_own_daemon(self, name, rng):
        forms = [random_format(rng) for _ in range(2)]
        block_bytes = rng.choice((512, 4 * KiB, 16 * KiB, 64 * KiB))
        blocks = 4 * min(64, 8 * MiB // block_bytes // 4)
        size = blocks * block_bytes
        self.create("base", size, gabion_options(forms[0]))
        self.daemon.create_export("fill", "base")
        base = rng.randbytes(size)
        handle = harness.nbd_connect(self.daemon.uri("fill"))
        for at in range(0, size, MiB):
            handle.pwrite(base[at:at + MiB], at)
        handle.shutdown()
        self.daemon.delete_export("fill")
        self.clone("top", "base", None, gabion_options(forms[1]))
        self.daemon.create_export("e", "top")
        for _ in range(2):
            start = self.read_all(size)
            writers = [Writer(self.daemon.uri("e"), range(blocks // 4 * n, blocks // 4 * (n + 1)), block_bytes,
                              random.Random(rng.random()), start) for n in range(4)]
            for writer in writers:
                writer.start()
            harness.wait_until(lambda: all(w.flushes > 3 or w.error for w in writers), "enough was flushed")
            early = [str(w.error) for w in writers if w.error]
            self.daemon.kill()
            for writer in writers:
                writer.join()
            self.assertEqual(early, [], (name, forms))
            for path in (self.file_of("base"), self.file_of("top")):
                done = run("qemu-img", "check", "-f", "qcow2", path, ok=False)
                errors = [line for line in done.stderr.splitlines() if not line.startswith("Leaked")]
                self.assertIn(done.returncode, (0, 3), (forms, errors[:10]))
            self.daemon.start()
            handle = harness.nbd_connect(self.daemon.uri("e"))
            for writer in writers:
                self.assertEqual(writer.check(handle), [], (name, forms, block_bytes))
            handle.shutdown()
        content = self.read_all(size)
        self.daemon.delete_export("e")
        self.check("top", "REPAIR_LEAKS")
        self.assert_clean(self.file_of("top"))
        self.assert_clean(self.file_of("base"))
        self.assert_same(qemu_bytes(self.file_of("top")), content, "qemu-img convert")
        self.assertEqual(self.daemon.stop(), 0)

    def read_all(self, size):
        handle = harness.nbd_connect(self.daemon.uri("e"))
        content = b"".join(handle.pread(min(MiB, size - at), at) for at in range(0, size, MiB))
        handle.shutdown()
        return content


if __name__ == "__main__":
    harness.main(commands=["qemu-img", "qemu-io", "nbdcopy", "cp", "protoc"], modules=("nbd", "grpc", "google.protobuf"))
