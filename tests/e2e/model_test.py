"""Random requests over several connections with different block sizes, against an array of bytes."""

import os

import harness
import nbd
from harness import KiB, MiB, extents

STEPS = int(os.environ.get("GABION_STEPS", "3000"))


class Model:
    """What the disk holds; None where a trim left it open."""

    def __init__(self, size):
        self.bytes = bytearray(size)
        self.open = bytearray(size)  # 1: any content is right

    def write(self, offset, data):
        self.bytes[offset:offset + len(data)] = data
        self.open[offset:offset + len(data)] = bytes(len(data))

    def trim(self, offset, length):
        self.open[offset:offset + length] = b"\1" * length

    def learn(self, offset, data):
        """After a read: what was open is from now on what was read."""
        expected = self.bytes[offset:offset + len(data)]
        unknown = self.open[offset:offset + len(data)]
        if 1 in unknown:
            for index, is_open in enumerate(unknown):
                if is_open:
                    expected[index] = data[index]
        if expected != data:
            bad = next(i for i in range(len(data)) if expected[i] != data[i])
            raise AssertionError(f"byte {offset + bad} is {data[bad]}, not {expected[bad]} (read of {len(data)} at {offset})")
        self.write(offset, data)


class ModelTest(harness.GabionTestCase):
    def test_random_requests(self):
        """The connections take turns; what one wrote, all the others see from its reply on."""
        rng = harness.random_source()
        for size, tail in ((3 * MiB + 777, "EXACT"), (2 * MiB + 1000, "PAD_ZERO")):
            with self.subTest(size=size, tail=tail):
                self.play(rng, f"image-{tail.lower().replace('_', '-')}", size, tail)

    def play(self, rng, name, size, tail):
        self.daemon.create_image(name, size)
        handles = []
        for minimum in (1,) if tail == "EXACT" else (512, 4096, 65536):
            export = f"{name}-{minimum}"
            self.daemon.create_export(export, name, harness.tail(minimum, tail))
            for strict in (True, False):
                handles.append((self.connect(self.daemon.uri(export), contexts=["base:allocation"], strict=strict),
                                1 if not strict else minimum))
        model = Model(size)
        for step in range(STEPS):
            handle, unit = rng.choice(handles)
            length = min(rng.choice((1, 1, 2, 3, 8, 100, 300)) * rng.choice((1, unit, 512, 4 * KiB)), 256 * KiB, size)
            length = max(length // unit, 1) * unit
            offset = rng.randrange(max((size - length) // unit, 0) + 1) * unit
            try:
                self.step(rng, model, handle, offset, length)
            except AssertionError as error:
                raise AssertionError(f"step {step} of {name}: {error}") from None
        whole = handles[0][0].pread(size // 65536 * 65536, 0)
        model.learn(0, whole)

    def step(self, rng, model, handle, offset, length):
        flags = rng.choice((0, 0, nbd.CMD_FLAG_FUA))
        action = rng.choice(("write", "write", "write", "read", "read", "read", "zero", "trim", "status", "flush", "cache"))
        inside = max(min(length, len(model.bytes) - offset), 0)
        if inside == 0 and action != "flush":
            return
        if action == "write":
            data = rng.randbytes(inside) if rng.random() < 0.8 else bytes(inside)
            handle.pwrite(data + bytes(length - inside), offset, flags)
            model.write(offset, data)
        elif action == "read":
            data = handle.pread(length, offset)
            model.learn(offset, data[:inside])
            if any(data[inside:]):
                raise AssertionError("the padding is not zero")
        elif action == "zero":
            handle.zero(length, offset, flags | rng.choice((0, nbd.CMD_FLAG_NO_HOLE)))
            model.write(offset, bytes(inside))
        elif action == "trim":
            handle.trim(length, offset, flags)
            model.trim(offset, inside)
        elif action == "status":
            self.check_status(model, handle, offset, length)
        elif action == "flush":
            handle.flush()
        else:
            handle.cache(length, offset)

    @staticmethod
    def check_status(model, handle, offset, length):
        at = offset
        for got, flags in extents(handle, offset, length):
            end = min(at + got, len(model.bytes))
            for index in range(at, end):
                if flags & 2 and model.bytes[index] and not model.open[index]:
                    raise AssertionError(f"byte {index} is called zero in a status of {length} at {offset}")
            at += got


class ParallelTest(harness.GabionTestCase):
    """Many requests in flight at once, on ranges that share granules but no bytes."""

    def test_emulated_writes_to_neighbours_do_not_lose_each_other(self):
        rng = harness.random_source()
        uri = self.daemon.serve("e", MiB, block_sizes={"minimumBytes": 65536})
        handles = [self.connect(uri, strict=False) for _ in range(4)]
        expected = bytearray(MiB)
        for _ in range(40):
            cuts = sorted(rng.sample(range(MiB), 48)) + [MiB]
            waiting, offset = [], 0
            for number, end in enumerate(cuts):
                handle, data = rng.choice(handles), bytes([rng.randrange(1, 256)]) * (end - offset)
                expected[offset:end] = data
                if number % 5 == 4:
                    expected[offset:end] = bytes(end - offset)
                    waiting.append((handle, handle.aio_zero(end - offset, offset)))
                elif data:
                    waiting.append((handle, handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), offset)))
                offset = end
            for handle, cookie in waiting:
                while not handle.aio_command_completed(cookie):
                    handle.poll(-1)
            self.assertTrue(rng.choice(handles).pread(MiB, 0) == expected, "a write has been lost")


if __name__ == "__main__":
    harness.main()
