"""Encrypted images: what qemu and cryptsetup have made is shown, and what is written through Gabion is what they read."""

import os

import harness
import nbd
from harness import MiB, read_file, run

PASSPHRASE = b"correct horse battery staple"


class LuksTest(harness.GabionTestCase):
    @classmethod
    def setUpClass(cls):
        cls.secrets = harness.tempfile.mkdtemp(prefix="gabion-secrets-")
        cls.flags = ("--secrets-directory", cls.secrets)
        harness.write_file(os.path.join(cls.secrets, "right"), (0, PASSPHRASE))
        harness.write_file(os.path.join(cls.secrets, "wrong"), (0, b"guess"))
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        harness.shutil.rmtree(cls.secrets)

    def serve(self, name, path, **luks):
        file = self.daemon.import_file(name, path)
        self.daemon.create_export(name, name, filterStack=[{"entryId": "key", "spec": {"luks": {"keyFile": "right", **luks}}}])
        return file, self.connect(self.daemon.uri(name), contexts=["base:allocation"], strict=False)

    def qemu_io(self, path, command):
        key = os.path.join(self.secrets, "right")
        return run("qemu-io", "--object", f"secret,id=k,file={key}", "--image-opts",
                   f"driver=luks,key-secret=k,file.driver=file,file.filename={path}", "-c", command).stdout

    def make_by_qemu(self, name):
        path = self.daemon.file(name)
        key = os.path.join(self.secrets, "right")

        def made():
            done = run("qemu-img", "create", "-f", "luks", "--object", f"secret,id=k,file={key}",
                       "-o", "key-secret=k,iter-time=200", path, "16M", ok=False)
            if done.returncode != 0 and "Unable to get accurate CPU usage" not in done.stderr:
                raise AssertionError(done.stderr)
            return done.returncode == 0
        harness.wait_until(made, "qemu-img makes an image")
        return path

    def test_what_qemu_made(self):
        path = self.make_by_qemu("q1")
        self.qemu_io(path, "write -P 0x5a 1M 1M")
        file, handle = self.serve("q1", path)
        self.assertEqual(handle.get_size(), 16 * MiB)
        self.assertEqual(handle.pread(MiB, MiB), b"\x5a" * MiB)
        handle.pwrite(b"\xa5" * 3000, 2 * MiB + 333)
        handle.flush()
        self.daemon.update_export("q1", "enabled", enabled=False)
        harness.hang_up(handle)
        self.daemon.delete_export("q1")
        self.assertNotIn("Pattern verification failed", self.qemu_io(file, f"read -P 0xa5 {2 * MiB + 333} 3000"))
        self.assertNotIn(b"\xa5" * 64, read_file(file))

    def test_what_cryptsetup_made(self):
        key = os.path.join(self.secrets, "right")
        plain = os.urandom(4 * MiB)
        for sector in (512, 4096):
            with self.subTest(sector=sector):
                path = harness.write_file(self.daemon.file(f"c{sector}"), (0, plain), size=36 * MiB)
                run("cryptsetup", "reencrypt", "--encrypt", "--batch-mode", "--type", "luks2", "--key-file", key, "--pbkdf", "pbkdf2",
                    "--pbkdf-force-iterations", "1000", "--reduce-device-size", "32M", "--disable-locks", "--sector-size",
                    str(sector), path)
                _, handle = self.serve(f"c{sector}", path)
                self.assertEqual(handle.get_block_size(nbd.SIZE_MINIMUM), sector)
                self.assertEqual(handle.pread(4 * MiB, 0), plain)
                handle.pwrite(b"n" * 5000, 700)
                self.assertEqual(handle.pread(8192, 0), plain[:700] + b"n" * 5000 + plain[5700:8192])

    def test_the_first_version_by_cryptsetup(self):
        path = harness.write_file(self.daemon.file("one"), size=8 * MiB)
        key = os.path.join(self.secrets, "right")
        run("cryptsetup", "luksFormat", "--batch-mode", "--type", "luks1", "--key-file", key, "--pbkdf-force-iterations", "1000",
            "--disable-locks", path)
        self.qemu_io(path, "write -P 0x33 64k 64k")
        _, handle = self.serve("one", path)
        self.assertEqual(handle.pread(65536, 65536), b"\x33" * 65536)

    def test_keys_that_do_not_fit(self):
        image = "plain"
        self.daemon.serve(image, MiB)
        self.daemon.import_file("q2", self.make_by_qemu("q2"))
        for source, key, field in (("q2", "wrong", "key_file"), ("q2", "missing", "key_file"), (image, "right", None),
                                   ("q2", "../right", "key_file")):
            with self.subTest(source=source, key=key):
                error = self.daemon.refusal("ExportService/CreateExport", {"exportId": "x", "export": {
                    "source": f"images/{source}", "filterStack": [{"spec": {"luks": {"keyFile": key}}}]}})
                self.assertEqual(error.reason, "FILTER_PARAMETERS_INVALID", error)
                place = "export.filter_stack[0].spec.luks" + (f".{field}" if field else "")
                self.assertEqual([violation[0] for violation in error.violations()], [place])
                self.assertNotIn(PASSPHRASE.decode(), str(error))
        self.assertNotIn(PASSPHRASE.decode(), self.daemon.log())

    def test_holes_are_not_zeroes_once_they_are_decrypted(self):
        _, handle = self.serve("q3", self.make_by_qemu("q3"))
        self.assertEqual(harness.extents(handle, 0, 16 * MiB), [(16 * MiB, 0)])
        handle.zero(MiB, 4 * MiB)
        self.assertEqual(handle.pread(MiB, 4 * MiB), bytes(MiB))


if __name__ == "__main__":
    harness.main(commands=["qemu-img", "qemu-io", "cryptsetup"])
