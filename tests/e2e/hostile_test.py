"""Bytes that no client sends: valid conversations with bytes changed, cut out, doubled or put in, and noise. The daemon
answers or hangs up; it goes on serving others, and leaks nothing."""

import os
import socket
import struct

import harness
import nbd_wire as wire
from harness import KiB, MiB

CONVERSATIONS = 400


def options():
    """A negotiation as a careful client makes it, up to GO."""
    name = struct.pack(">I", 1) + b"e"
    pieces = [struct.pack(">I", wire.FIXED_NEWSTYLE | wire.NO_ZEROES)]
    for option, payload in ((wire.OPT_LIST, b""), (wire.OPT_STRUCTURED_REPLY, b""),
                            (wire.OPT_LIST_META_CONTEXT, wire.meta_query("e")),
                            (wire.OPT_SET_META_CONTEXT, wire.meta_query("e", "base:allocation")),
                            (wire.OPT_INFO, name + struct.pack(">HHH", 2, wire.INFO_BLOCK_SIZE, wire.INFO_NAME)),
                            (wire.OPT_GO, name + struct.pack(">HH", 1, wire.INFO_BLOCK_SIZE))):
        pieces.append(struct.pack(">QII", wire.IHAVEOPT, option, len(payload)) + payload)
    return pieces


def requests(rng):
    """Some requests of every kind."""
    pieces = []
    for cookie in range(rng.randrange(1, 30)):
        command, length = rng.randrange(9), rng.choice((0, 1, 512, 4096, 65536))
        flags = rng.choice((0, 0, 1, 1 << rng.randrange(16)))
        offset = rng.choice((0, 512, MiB - 512, MiB, rng.randrange(MiB), (1 << 63) - 512))
        payload = rng.randbytes(length) if command == wire.CMD_WRITE else b""
        pieces.append(struct.pack(">IHHQQI", wire.REQUEST, flags, command, cookie, offset, length) + payload)
    return pieces


def spoil(rng, pieces):
    """The bytes of the pieces, with one to four things wrong with them."""
    data = bytearray(b"".join(pieces))
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(data))
        action = rng.randrange(6)
        if action == 0:
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif action == 1:
            del data[at:at + rng.choice((1, 4, 28))]
        elif action == 2:
            data[at:at] = rng.randbytes(rng.choice((1, 4, 28, 1000)))
        elif action == 3:
            end = at + rng.randrange(1, 64)
            data[at:at] = data[at:end]
        elif action == 4:
            data[at:at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4), b"\x02\0\0\0"))[:len(data) - at]
        else:
            del data[at + 1:]
        if not data:
            data = bytearray(b"\0")
    return bytes(data)


class HostileTest(harness.GabionTestCase):
    flags = ("--handshake-timeout=2",)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.rng = harness.random_source()
        cls.uri = cls.daemon.serve("e", MiB)
        cls.watched = cls.daemon.serve("watched", MiB)

    def throw(self, data):
        """Sends the bytes in pieces and reads what comes, until the server hangs up or falls silent; then leaves."""
        with wire.Client(self.daemon.nbd_socket, timeout_s=0.02) as client:
            try:
                while data:
                    cut = self.rng.choice((1, 7, 28, 4096, len(data)))
                    client.send(data[:cut])
                    data = data[cut:]
                client.socket.shutdown(socket.SHUT_WR)
                while client.socket.recv(64 * KiB):
                    pass
            except OSError:
                pass

    def check_serves(self):
        self.assertTrue(self.daemon.alive(), "gabiond has ended")
        handle = harness.nbd_connect(self.watched)
        self.assertEqual(handle.pread(MiB, 0), bytes(MiB))
        handle.shutdown()

    def resident_kib(self):
        with open(f"/proc/{self.daemon.process.pid}/status", encoding="ascii") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

    def check_all(self, make):
        for number in range(CONVERSATIONS):
            self.throw(make())
            if number % 50 == 0:
                self.check_serves()
        self.check_serves()

    def test_spoiled_negotiations(self):
        self.check_all(lambda: spoil(self.rng, options()))

    def test_spoiled_requests(self):
        good = b"".join(options())
        self.check_all(lambda: good + spoil(self.rng, requests(self.rng)))

    def test_valid_conversations_that_end_at_any_byte(self):
        def cut():
            whole = b"".join(options() + requests(self.rng))
            return whole[:self.rng.randrange(len(whole))]
        self.check_all(cut)

    def test_noise(self):
        self.check_all(lambda: self.rng.randbytes(self.rng.choice((1, 16, 100, 5000))))

    def test_nothing_is_left_behind(self):
        """What hostile clients opened is closed again, and their memory is free."""
        for _ in range(CONVERSATIONS):
            self.throw(spoil(self.rng, options() + requests(self.rng)))
        files = f"/proc/{self.daemon.process.pid}/fd"
        harness.wait_until(lambda: not self.daemon.connections("e"), "nobody is connected")
        idle = len(os.listdir(files))
        before = self.resident_kib()
        for _ in range(CONVERSATIONS):
            self.throw(spoil(self.rng, options() + requests(self.rng)))
        harness.wait_until(lambda: not self.daemon.connections("e") and len(os.listdir(files)) <= idle,
                           f"at most {idle} files are open")
        self.assertLess(self.resident_kib(), before + 64 * 1024)


if __name__ == "__main__":
    harness.main()
