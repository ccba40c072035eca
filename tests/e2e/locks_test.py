"""Image files are locked as QEMU locks them: whoever respects its locks cannot write what Gabion writes, nor Gabion
what they hold."""

import os

import harness
from harness import MiB, run, write_file


class LocksTest(harness.GabionTestCase):
    def setUp(self):
        name = self.id().rsplit(".", 1)[1].replace("_", "-")[:40].strip("-")
        self.name = name
        self.path = self.daemon.import_file(name, write_file(self.daemon.file("source"), (0, b"x" * 4096), size=MiB))

    def export(self, **fields):
        return self.daemon.create_export(self.name, self.name, **fields)

    def qemu_io(self, *commands, read_only=False):
        arguments = [word for command in commands for word in ("-c", command)]
        done = run("qemu-io", *(["-r"] if read_only else []), "-f", "raw", *arguments, self.path, ok=False)
        return done.returncode, done.stdout + done.stderr

    def held_by_qemu(self, *flags):
        """qemu-nbd that holds the image's file until the test ends."""
        socket = self.daemon.file(f"{self.name[-20:]}.sock")
        pid_file = self.daemon.file(f"{self.name[-20:]}.pid")
        server = harness.start(["qemu-nbd", "-t", "-f", "raw", "-k", socket, "--pid-file", pid_file, *flags, self.path])
        self.addCleanup(self.end, server)
        harness.wait_until(lambda: os.path.exists(pid_file), "qemu-nbd serves", process=server)
        return server

    @staticmethod
    def end(server):
        server.kill()
        server.wait()

    def refusal(self, **fields):
        return self.daemon.refusal("ExportService/CreateExport", {
            "exportId": self.name, "export": {"source": f"images/{self.name}", **fields}})

    def test_qemu_refuses_to_write_what_gabion_serves_writable(self):
        self.export()
        status, output = self.qemu_io("w -P 1 0 512")
        self.assertNotEqual(status, 0)
        self.assertIn("lock", output)
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(512), b"x" * 512)

    def test_qemu_looks_at_it_when_told_to_share(self):
        self.export()
        run("qemu-img", "info", "-U", "-f", "raw", self.path)

    def test_qemu_reads_what_gabion_serves_read_only(self):
        self.export(readOnly=True)
        status, output = self.qemu_io("r -P 120 0 512", read_only=True)
        self.assertEqual(status, 0, output)
        self.assertNotEqual(self.qemu_io("w -P 1 0 512")[0], 0)

    def test_the_lock_is_gone_with_the_export(self):
        self.export()
        self.daemon.delete_export(self.name)
        status, output = self.qemu_io("w -P 1 0 512")
        self.assertEqual(status, 0, output)

    def test_gabion_refuses_what_qemu_writes(self):
        server = self.held_by_qemu()
        error = self.refusal()
        self.assertEqual((error.code, error.reason), ("FAILED_PRECONDITION", "IMAGE_LOCKED"))
        self.assertIn("perm-byte", error.metadata)
        missing = self.daemon.refusal("ExportService/GetExport", {"name": f"exports/{self.name}"})
        self.assertEqual(missing.code, "NOT_FOUND")
        self.assertEqual(self.refusal(readOnly=True).reason, "IMAGE_LOCKED")
        self.end(server)
        self.export()

    def test_gabion_reads_what_qemu_reads(self):
        self.held_by_qemu("-r")
        self.export(readOnly=True)
        self.assertEqual(self.connect(self.daemon.uri(self.name)).pread(512, 0), b"x" * 512)

    def test_inspection_locks_as_well(self):
        self.held_by_qemu()
        error = self.daemon.refusal("InspectService/Write", {"name": f"images/{self.name}", "offset": "0", "data": "YQ=="})
        self.assertEqual(error.reason, "IMAGE_LOCKED")

    def test_an_export_whose_image_is_held_at_start_says_so(self):
        with harness.Gabiond() as daemon:
            self.path = daemon.import_file("held", write_file(daemon.file("x"), (0, b"x"), size=MiB))
            daemon.create_export("held", "held")
            daemon.kill()
            self.held_by_qemu()
            daemon.start()
            export = daemon.call("ExportService/GetExport", {"name": "exports/held"})
            self.assertEqual(export["state"], "STATE_FAILED")
            self.assertTrue(export["stateError"]["message"])


if __name__ == "__main__":
    harness.main(commands=["qemu-io", "qemu-img", "qemu-nbd"])
