"""Clients that know nothing of Gabion, each doing what it is for."""

import json
import os
import socket

import harness
from harness import MiB, read_file, run, tail, write_file

SIZE = 24 * MiB


class ClientsTest(harness.GabionTestCase):
    def setUp(self):
        rng = harness.random_source()
        self.source = write_file(self.daemon.file("source"), (0, rng.randbytes(MiB)), (5 * MiB + 4096, b"odd" * 1000),
                                 (SIZE - 70000, rng.randbytes(70000)), size=SIZE)
        self.content = read_file(self.source)
        self.target = self.daemon.file("target")

    def serve(self, name, *, filled=True, size=SIZE, **policy):
        """An export that is deleted after the test, and its URI."""
        uri = self.daemon.serve(name, size, path=self.source if filled else None, block_sizes=policy or None)
        self.addCleanup(self.daemon.delete_image, name)
        self.addCleanup(self.daemon.delete_export, name)
        return uri

    def check_target(self):
        self.assertTrue(read_file(self.target) == self.content, "the copy differs from the source")

    def test_nbdcopy_out_by_one_and_by_several_connections(self):
        uri = self.serve("out")
        for arguments in ((), ("--connections=1", "--synchronous"), ("--connections=4", "--requests=64"),
                          ("--no-extents",), ("--request-size=33554432",)):
            with self.subTest(arguments):
                run("nbdcopy", *arguments, uri, self.target)
                self.check_target()

    def test_nbdcopy_in(self):
        for name, arguments in (("in-many", ("--connections=4", "--flush")), ("in-one", ("--synchronous",)),
                                ("in-allocated", ("--allocated",))):
            with self.subTest(name):
                uri = self.serve(name, filled=False)
                run("nbdcopy", *arguments, self.source, uri)
                run("nbdcopy", uri, self.target)
                self.check_target()

    def test_nbdcopy_from_export_to_export_of_other_block_sizes(self):
        source = self.serve("from", minimumBytes=65536)
        target = self.serve("to", filled=False, minimumBytes=4096)
        run("nbdcopy", source, target)
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", self.source, target)

    def test_copies_keep_holes(self):
        run("nbdcopy", self.serve("sparse"), self.target)
        self.assertLess(os.stat(self.target).st_blocks * 512, SIZE // 2)

    def test_qemu_img(self):
        for minimum in (1, 512, 4096, 65536):
            with self.subTest(minimum=minimum):
                uri = self.serve(f"qemu-{minimum}", minimumBytes=minimum)
                info = json.loads(run("qemu-img", "info", "--output=json", uri).stdout)
                self.assertEqual(info["virtual-size"], SIZE)
                run("qemu-img", "compare", "-f", "raw", "-F", "raw", self.source, uri)
                run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri, self.target)
                run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", self.source, self.target)
                mapped = json.loads(run("qemu-img", "map", "--output=json", uri).stdout)
                self.assertEqual(sum(e["length"] for e in mapped), SIZE)
                for entry in mapped:
                    part = self.content[entry["start"]:entry["start"] + entry["length"]]
                    self.assertTrue(not entry["zero"] or part.count(0) == len(part), entry)
                self.assertTrue(any(e["zero"] for e in mapped))
                run("qemu-img", "bench", "-c", "500", "-d", "16", "-s", "4096", "-f", "raw", uri)

    def test_qemu_img_convert_in(self):
        uri = self.serve("convert-in", filled=False, minimumBytes=4096)
        run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", self.source, uri)
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", self.source, uri)
        run("qemu-img", "bench", "-w", "--flush-interval=10", "-c", "200", "-d", "8", "-s", "4096", "-f", "raw", uri)

    def test_qemu_io(self):
        for minimum in (1, 4096):
            with self.subTest(minimum=minimum):
                uri = self.serve(f"io-{minimum}", filled=False, minimumBytes=minimum)
                commands = ["w -P 17 0 64k", "w -P 18 -f 1000 1000", "aio_write -P 19 2M 1M", "aio_flush", "r -P 17 0 512",
                            "r -P 18 1000 1000", "r -P 17 2000 512", "r -P 19 2M 1M", "w -z 2M 64k", "r -P 0 2M 64k",
                            "w -z -u 2112k 64k", "r -P 0 2112k 64k", "r -P 19 2176k 64k", "discard 3M 1M",
                            "flush", "writev -P 20 4M 64k 64k", "readv -P 20 4M 64k 64k", f"r {SIZE - 512} 512"]
                arguments = [word for command in commands for word in ("-c", command)]
                done = run("qemu-io", "-f", "raw", *arguments, uri)
                self.assertNotRegex(done.stdout + done.stderr, "(?i)fail|error")
                # qemu-io ends with status 0 also after a pattern that differs; this shows that it is noticed above
                wrong = run("qemu-io", "-f", "raw", "-c", "r -P 1 0 512", uri, ok=False)
                self.assertRegex(wrong.stdout + wrong.stderr, "Pattern verification failed")

    def test_qemu_nbd_lists(self):
        self.serve("listed", minimumBytes=512)
        done = run("qemu-nbd", "--list", "-k", self.daemon.nbd_socket)
        self.assertIn("'listed'", done.stdout)
        self.assertRegex(done.stdout, r"min block: 512")
        self.assertIn("base:allocation", done.stdout)

    def test_nbdkit_in_between(self):
        uri = self.serve("between", minimumBytes=4096)
        proxy_socket = self.daemon.file("proxy.sock")
        proxy = harness.start(["nbdkit", "-f", "-U", proxy_socket, "--filter=checkwrite", "nbd", f"uri={uri}"])
        try:
            harness.wait_until(lambda: _accepts(proxy_socket), "nbdkit serves", process=proxy)
            through = f"nbd+unix:///?socket={proxy_socket}"
            run("nbdcopy", through, self.target)
            self.check_target()
            info = json.loads(run("nbdinfo", "--json", through).stdout)["exports"][0]
            self.assertEqual((info["export-size"], info["block_size_minimum"]), (SIZE, 4096))
            self.assertEqual(run("nbdinfo", "--map", "--totals", through).stdout,
                             run("nbdinfo", "--map", "--totals", uri).stdout)
            run("nbdcopy", self.source, through)  # checkwrite: every write must find what is there already
        finally:
            proxy.terminate()
            proxy.wait()

    def fio(self, uri, *arguments):
        run("fio", "--name=job", "--ioengine=nbd", f"--uri={uri}", "--output-format=json", *arguments, cwd=self.daemon.base)

    def test_fio_verifies_what_it_wrote(self):
        for name, policy, sizes in (("fio", {}, "512-64k"), ("fio-4096", {"minimumBytes": 4096}, "4k-256k")):
            with self.subTest(name):
                uri = self.serve(name, filled=False, size=64 * MiB, **policy)
                self.fio(uri, "--rw=randrw", f"--bsrange={sizes}", "--iodepth=16", "--size=64M", "--verify=crc32c",
                         "--verify_fatal=1", "--do_verify=1", "--io_size=48M", "--randseed=7")

    def test_fio_by_several_connections_and_trims(self):
        uri = self.serve("fio-many", filled=False, size=64 * MiB)
        self.fio(uri, "--rw=randwrite", "--bs=4k", "--iodepth=32", "--size=16M", "--numjobs=4", "--offset_increment=16M",
                 "--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--fsync=64")
        self.fio(uri, "--rw=randtrim", "--bs=4k", "--iodepth=8", "--size=64M", "--io_size=8M")

    def test_images_of_odd_sizes_are_copied_to_the_byte(self):
        for size in (1, 511, 1000300, 65537):
            with self.subTest(size=size):
                content = os.urandom(size - 1) + b"\x01"
                name = f"odd-{size}"
                self.daemon.serve(name, path=write_file(self.daemon.file(name), (0, content)), block_sizes=tail(0, "EXACT"))
                run("nbdcopy", self.daemon.uri(name), self.target)
                self.assertEqual(read_file(self.target), content)
                run("qemu-img", "convert", "-f", "raw", "-O", "raw", self.daemon.uri(name), self.target)
                self.assertEqual(read_file(self.target), content.ljust(-(-size // 512) * 512, b"\0"))


def _accepts(path):
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
            return True
        except OSError:
            return False


if __name__ == "__main__":
    harness.main(commands=["nbdinfo", "nbdcopy", "qemu-img", "qemu-io", "qemu-nbd", "nbdkit", "fio"])
