"""Clients that take all they can get, of connections, memory and open files. Others go on being
served, the control plane goes on answering, and what was taken comes back."""

import os
import resource
import socket
import struct

import harness
import nbd_wire as wire
from harness import KiB, MiB

SOFT_LIMIT = 1024  # of open files, as service managers and shells commonly set it
STALLED = 40


class ExhaustionTest(harness.GabionTestCase):
    flags = ("--handshake-timeout=3",)

    @classmethod
    def setUpClass(cls):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT_LIMIT, hard))
        super().setUpClass()
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        cls.uri = cls.daemon.serve("e", 64 * MiB)
        cls.watched = cls.daemon.serve("watched", MiB)

    def open_files(self):
        return len(os.listdir(f"/proc/{self.daemon.process.pid}/fd"))

    def client(self, **options):
        client = wire.Client(self.daemon.nbd_socket, **options)
        self.addCleanup(client.socket.close)
        return client

    def check_all_is_given_back(self, idle):
        harness.wait_until(lambda: not self.daemon.connections("e") and self.open_files() <= idle,
                           f"at most {idle} files are open")
        self.assertEqual(len(self.connect(self.watched).pread(MiB, 0)), MiB)

    def test_unfinished_handshakes_leave_files_for_the_control_plane(self):
        idle = self.open_files()
        clients = [socket.socket(socket.AF_UNIX) for _ in range(1100)]
        for client in clients:
            self.addCleanup(client.close)
            client.connect(self.daemon.nbd_socket)
        # Unfinished handshakes have a bound of their own, of 128; whoever comes while they last is hung up on.
        greeted = sum(1 for client in clients if client.recv(18))
        self.assertGreaterEqual(greeted, 128)
        self.assertLess(greeted, 512)
        self.daemon.create_image("meanwhile", MiB)
        for client in clients:
            client.close()
        self.check_all_is_given_back(idle)
        self.daemon.delete_image("meanwhile")

    def test_ten_thousand_connections_that_are_dropped_leave_nothing(self):
        idle = self.open_files()
        hello = struct.pack(">I", wire.FIXED_NEWSTYLE | wire.NO_ZEROES)
        choose = struct.pack(">QII", wire.IHAVEOPT, wire.OPT_EXPORT_NAME, 1) + b"e"
        reads = struct.pack(">IHHQQI", wire.REQUEST, 0, wire.CMD_READ, 1, 0, 64 * KiB) * 8
        for number in range(10000):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(self.daemon.nbd_socket)
                try:
                    client.sendall((b"", hello, hello + choose, hello + choose + reads)[number % 4])
                except (BrokenPipeError, ConnectionResetError):
                    pass  # more than are allowed at a time
        self.check_all_is_given_back(idle)

    def check_small_requests_are_served(self):
        client = self.client(timeout_s=20)
        client.greet()
        client.go("watched")
        client.send_request(wire.CMD_READ, 7, 0, 256 * KiB)
        self.assertEqual(client.simple_reply({7: 256 * KiB}), (7, 0, bytes(256 * KiB)))

    def test_payloads_that_never_come_do_not_stop_others(self):
        clients = []
        for _ in range(STALLED):
            clients.append(self.client())
            clients[-1].greet()
            clients[-1].go("e")
            clients[-1].send_request(wire.CMD_WRITE, 1, 0, 32 * MiB)
        self.check_small_requests_are_served()
        for client in clients:
            client.socket.close()

    def test_replies_that_are_never_taken_do_not_stop_others(self):
        clients = []
        for _ in range(STALLED):
            clients.append(self.client(receive_buffer=4096))
            clients[-1].greet()
            clients[-1].go("e")
            for cookie in range(2):
                clients[-1].send_request(wire.CMD_READ, cookie, 0, 32 * MiB)
        self.check_small_requests_are_served()
        for client in clients:
            client.socket.close()

    def test_a_limit_of_files_that_connections_would_exhaust_is_refused_at_the_start(self):
        done = harness.run("prlimit", "--nofile=1024:1024", os.environ["GABIOND"],
                           "--data-dir", self.daemon.file("other"), ok=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("max-connections 1024 needs 2304 open files", done.stdout + done.stderr)


if __name__ == "__main__":
    harness.main(commands=("prlimit",))
