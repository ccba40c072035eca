"""Clients that read slowly, stop in the middle, or leave while the server works for them."""

import os
import random
import struct
import threading
import time

import harness
import nbd
import nbd_wire as wire
from harness import KiB, MiB, write_file

SIZE = 32 * MiB


class FlowTest(harness.GabionTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.content = random.Random(5).randbytes(SIZE)
        cls.uri = cls.daemon.serve("e", path=write_file(cls.daemon.file("source"), (0, cls.content)))

    def opened(self, **options):
        client = wire.Client(self.daemon.nbd_socket, **options)
        self.addCleanup(client.socket.close)
        client.greet()
        self.assertEqual(client.go("e")[-1][0], wire.REP_ACK)
        return client

    def check_serves_others(self):
        handle = self.connect(self.uri)
        self.assertEqual(handle.pread(MiB, MiB), self.content[MiB:2 * MiB])
        harness.hang_up(handle)

    def open_files(self):
        return len(os.listdir(f"/proc/{self.daemon.process.pid}/fd"))

    def test_a_slow_reader_gets_everything_and_blocks_nobody(self):
        client = self.opened(receive_buffer=4096)
        offsets = {cookie: cookie * MiB for cookie in range(16)}
        for cookie, offset in offsets.items():
            client.send_request(wire.CMD_READ, cookie, offset, MiB)
        got = {}
        for count in range(16):
            self.check_serves_others()
            cookie, error, data = client.simple_reply(dict.fromkeys(offsets, MiB))
            self.assertEqual(error, 0)
            got[cookie] = data
        for cookie, offset in offsets.items():
            self.assertTrue(got[cookie] == self.content[offset:offset + MiB], f"request {cookie}")

    def test_one_who_sends_requests_and_reads_nothing_is_not_read_any_further(self):
        client = self.opened(receive_buffer=4096)
        client.socket.settimeout(2)
        request = struct.pack(">IHHQQI", wire.REQUEST, 0, wire.CMD_READ, 1, 0, 4 * KiB)
        sent = 0
        try:
            while sent < 256 * MiB:
                client.send(request * 1000)
                sent += len(request) * 1000
        except TimeoutError:
            pass
        self.assertLess(sent, 256 * MiB, "the server takes requests without end")
        self.check_serves_others()
        with open(f"/proc/{self.daemon.process.pid}/status", encoding="ascii") as status:
            resident_kib = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
        self.assertLess(resident_kib, MiB)  # that is 1 GiB

    def test_half_a_request_and_gone(self):
        whole = struct.pack(">IHHQQI", wire.REQUEST, 0, wire.CMD_WRITE, 1, 0, 64 * KiB) + b"x" * 64 * KiB
        for count in (1, 4, 27, 28, 29, 4096, len(whole) - 1):
            with self.subTest(bytes=count):
                client = self.opened()
                client.send(whole[:count])
                client.socket.close()
        self.check_serves_others()
        handle = self.connect(self.uri)
        self.assertEqual(handle.pread(64 * KiB, 0), self.content[:64 * KiB], "a write that never arrived was carried out")

    def test_gone_with_requests_in_flight(self):
        for _ in range(20):
            client = self.opened()
            for cookie in range(64):
                client.send_request(wire.CMD_READ, cookie, cookie * 4096, 256 * KiB)
            client.socket.close()
        self.check_serves_others()

    def test_disc_finishes_what_is_in_flight(self):
        client = self.opened()
        for cookie in range(32):
            client.send_request(wire.CMD_WRITE, cookie, SIZE - MiB + cookie * 4096, 4096, payload=bytes([cookie]) * 4096)
        client.send_request(wire.CMD_DISC, 99)
        replies = []
        try:
            while True:
                replies.append(client.simple_reply({}))
        except wire.Closed:
            pass
        self.assertEqual(sorted(replies), [(cookie, 0, b"") for cookie in range(32)])
        handle = self.connect(self.uri)
        expected = b"".join(bytes([cookie]) * 4096 for cookie in range(32))
        self.addCleanup(self.write_back, SIZE - MiB, len(expected))
        self.assertEqual(handle.pread(len(expected), SIZE - MiB), expected)

    def write_back(self, offset, length):
        handle = harness.nbd_connect(self.uri)
        handle.pwrite(self.content[offset:offset + length], offset)
        handle.shutdown()

    def test_a_wrong_request_magic_closes(self):
        client = self.opened()
        client.send(struct.pack(">IHHQQI", 0x12345678, 0, wire.CMD_READ, 1, 0, 512))
        self.assertTrue(client.is_closed())
        self.check_serves_others()

    def test_a_write_of_nearly_4_gib_is_not_waited_for(self):
        client = self.opened()
        client.send_request(wire.CMD_WRITE, 1, 0, 0xFFFFFFFF)
        with self.assertRaises(wire.Closed):
            while True:
                client.simple_reply({})
        self.check_serves_others()

    def test_an_unknown_command_gets_einval(self):
        client = self.opened()
        client.send_request(200, 1, 0, 512)
        self.assertEqual(client.simple_reply({}), (1, 22, b""))
        client.send_request(wire.CMD_READ, 2, 0, 512)
        self.assertEqual(client.simple_reply({2: 512}), (2, 0, self.content[:512]))

    def test_nothing_is_left_behind_by_those_who_are_gone(self):
        harness.wait_until(lambda: not self.daemon.connections("e"), "the connections of other tests are gone")
        before = self.open_files()
        for index in range(50):
            client = wire.Client(self.daemon.nbd_socket)
            if index % 2:
                client.greet()
                client.go("e")
                client.send_request(wire.CMD_READ, 1, 0, MiB)
            client.socket.close()
        harness.wait_until(lambda: not self.daemon.connections("e") and self.open_files() <= before,
                           f"at most {before} files are open")

    def test_64_clients_at_once(self):
        failures = []

        def reads(seed):
            try:
                rng, handle = random.Random(seed), harness.nbd_connect(self.uri)
                for _ in range(50):
                    length = rng.randrange(1, 64 * KiB)
                    offset = rng.randrange(SIZE - MiB - length)
                    if handle.pread(length, offset) != self.content[offset:offset + length]:
                        failures.append((seed, offset, length))
                handle.shutdown()
            except nbd.Error as error:
                failures.append((seed, str(error)))
        threads = [threading.Thread(target=reads, args=(seed,)) for seed in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])

    def test_the_daemon_ends_although_a_client_stays_and_reads_nothing(self):
        with harness.Gabiond() as daemon:
            uri = daemon.serve("e", SIZE)
            idle = self.connect(uri)
            slow = wire.Client(daemon.nbd_socket, receive_buffer=4096)
            self.addCleanup(slow.socket.close)
            slow.greet()
            slow.go("e")
            for cookie in range(8):
                slow.send_request(wire.CMD_READ, cookie, 0, MiB)
            idle.pread(512, 0)
            begin = time.monotonic()
            self.assertEqual(daemon.stop(), 0)
            self.assertLess(time.monotonic() - begin, 60)


if __name__ == "__main__":
    harness.main()
