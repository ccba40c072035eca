"""qcow2 images and chains through the whole service: what block-status says of them, what can be made, and what cannot."""

import json
import os

import harness
import nbd
from harness import extents, run

HOLE_ZERO = 3
MINIMA = (1, 512, 4096, 65536)
DEPTH, DEPTH_MAX = "qemu:allocation-depth", "x-gabion:allocation-depth-max"


def qemu_map(path):
    """What qemu-img says, in Gabion's words: (offset, length, data, depth, host offset), depth 1 for the image."""
    found = []
    for entry in json.loads(run("qemu-img", "map", "--output=json", "-f", "qcow2", path).stdout):
        depth = entry["depth"] + 1 if entry["present"] else 0
        found.append((entry["start"], entry["length"], entry["data"], depth, entry.get("offset")))
    return found


def merged(runs):
    """Neighbours that nothing tells apart as one."""
    result = []
    for start, length, data, depth, host in runs:
        if result:
            last = result[-1]
            goes_on = last[4] is None and host is None or (last[4] is not None and host == last[4] + last[1])
            if last[2:4] == (data, depth) and goes_on:
                result[-1] = (last[0], last[1] + length, data, depth, last[4])
                continue
        result.append((start, length, data, depth, host))
    return result


class Qcow2TestCase(harness.GabionTestCase):
    def bring(self, image_id, path, backing=None):
        """Imports a copy of a qcow2 file."""
        image = {"qcow2": {}}
        if backing:
            image["backingImage"] = f"images/{backing}"
        name = f"source-{image_id}"
        run("cp", "--sparse=always", path, os.path.join(self.daemon.pool, name))
        return self.daemon.result(self.daemon.call("ImageService/ImportImage", {
            "imageId": image_id, "image": image, "sourceFile": name}))

    def map(self, name, **options):
        found = []
        for reply in self.daemon.stream("InspectService/Map", {"name": name, **options}):
            for extent in reply.get("extents", []):
                host = extent.get("hostOffset")
                found.append((int(extent.get("offset", 0)), int(extent["length"]), extent.get("data", False),
                              extent.get("depth", 0), int(host) if host is not None else None))
        return found


class SeedTest(Qcow2TestCase):
    """The report that started it all: 512-byte clusters below 1 MiB clusters."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        base = cls.daemon.file("")
        run("qemu-img", "create", "-f", "qcow2", "-o", "cluster_size=512", "back.qcow2", "100M", cwd=base)
        run("qemu-io", "-f", "qcow2", "-c", "w -P1 0 512", "-c", "w -P1 1k 512", "back.qcow2", cwd=base)
        for name, cluster in (("top", "1M"), ("top512", "512")):
            run("qemu-img", "create", "-f", "qcow2", "-F", "qcow2", "-b", "back.qcow2", "-o", f"cluster_size={cluster}",
                f"{name}.qcow2", cwd=base)
        run("qemu-io", "-f", "qcow2", "-c", "w -P 3 512 512", "top512.qcow2", cwd=base)
        run("dd", "if=/dev/urandom", "of=short.raw", "bs=700", "count=1", cwd=base)
        run("qemu-img", "create", "-f", "qcow2", "-b", "short.raw", "-F", "raw", "over.qcow2", "64K", cwd=base)
        test = cls()
        test.bring("back", cls.daemon.file("back.qcow2"))
        test.bring("top", cls.daemon.file("top.qcow2"), "back")
        test.bring("top512", cls.daemon.file("top512.qcow2"), "back")
        cls.daemon.import_file("short", cls.daemon.file("short.raw"))
        test.bring("over", cls.daemon.file("over.qcow2"), "short")
        for image in ("top", "top512", "over"):
            for minimum in MINIMA:
                cls.daemon.create_export(f"{image}-m{minimum}", image, {"minimumBytes": minimum}, readOnly=True,
                                         exposeAllocationDepth=True)

    def runTest(self):
        """unittest wants one for instances that are made by hand."""

    def whole(self, export, context):
        handle = self.connect(self.daemon.uri(export), contexts=[context])
        found, at = [], 0
        while at < handle.get_size():
            for length, value in extents(handle, at, handle.get_size() - at, context=context):
                if found and found[-1][1] == value:
                    found[-1] = (found[-1][0] + length, value)
                else:
                    found.append((length, value))
                at += length
        self.assertEqual(at, handle.get_size())
        return found

    def test_the_map_is_byte_exact_and_that_of_qemu(self):
        for image in ("top", "top512"):
            with self.subTest(image=image):
                self.assertEqual(merged(self.map(f"images/{image}")),
                                 merged(qemu_map(self.daemon.file(f"{image}.qcow2"))))
        self.assertEqual([e[:4] for e in self.map("images/top")],
                         [(0, 512, True, 2), (512, 512, False, 0), (1024, 512, True, 2),
                          (1536, 104856064, False, 0)])

    def test_status_over_nbd(self):
        fine = [(512, 0), (512, HOLE_ZERO), (512, 0), (104856064, HOLE_ZERO)]
        coarse = [(4096, 0), (104853504, HOLE_ZERO)]
        expected = {
            ("top", "base:allocation"): {1: fine, 512: fine, 4096: coarse},
            ("top", DEPTH): {1: [(512, 2), (512, 0), (512, 2), (104856064, 0)], 4096: [(4096, 2), (104853504, 0)]},
            ("top", DEPTH_MAX): {1: [(512, 2), (512, 0), (512, 2), (104856064, 0)],
                                 4096: [(4096, 3), (104853504, 0)]},
            ("top512", "base:allocation"): {1: [(1536, 0), (104856064, 3)], 4096: coarse},
            ("top512", DEPTH): {1: [(512, 2), (512, 1), (512, 2), (104856064, 0)],
                                4096: [(4096, 1), (104853504, 0)]},
            ("top512", DEPTH_MAX): {1: [(512, 2), (512, 1), (512, 2), (104856064, 0)],
                                    4096: [(4096, 3), (104853504, 0)]},
            ("over", "base:allocation"): {1: [(700, 0), (64836, 3)], 512: [(1024, 0), (64512, 3)],
                                          4096: [(4096, 0), (61440, 3)]},
            ("over", DEPTH): {1: [(65536, 2)], 512: [(65536, 2)], 4096: [(65536, 2)]},
        }
        for (image, context), by_minimum in expected.items():
            for minimum, runs in by_minimum.items():
                with self.subTest(image=image, context=context, minimum=minimum):
                    self.assertEqual(self.whole(f"{image}-m{minimum}", context), runs)

    def test_every_reply_keeps_the_advertised_minimum(self):
        with open(self.daemon.file("top.flat"), "wb"):
            pass
        run("qemu-img", "convert", "-O", "raw", self.daemon.file("top.qcow2"), self.daemon.file("top.flat"))
        content = harness.read_file(self.daemon.file("top.flat"))
        for minimum in MINIMA:
            with self.subTest(minimum=minimum):
                handle = self.connect(self.daemon.uri(f"top-m{minimum}"), contexts=["base:allocation", DEPTH])
                self.assertEqual(handle.get_block_size(nbd.SIZE_MINIMUM), minimum)
                at = 0
                while at < handle.get_size():
                    (length, _), = extents(handle, at, handle.get_size() - at, nbd.CMD_FLAG_REQ_ONE)
                    self.assertEqual(length % minimum, 0)
                    at += length
                chunks = []

                def on_chunk(data, offset, status, _error):
                    chunks.append((offset, len(data), status))
                    return 0
                self.assertEqual(handle.pread_structured(65536, 0, on_chunk), content[:65536])
                self.assertTrue(all(o % minimum == 0 and n % minimum == 0 for o, n, _ in chunks), chunks)
                if minimum <= 512:
                    self.assertEqual(chunks, [(0, 1536, nbd.READ_DATA), (1536, 64000, nbd.READ_HOLE)])

    def test_clients_print_what_the_specification_says(self):
        lines = run("nbdinfo", "--map", self.daemon.uri("top-m4096")).stdout.split("\n")
        self.assertEqual([line.split() for line in lines if line],
                         [["0", "4096", "0", "data"], ["4096", "104853504", "3", "hole,zero"]])


if __name__ == "__main__":
    harness.main(commands=["qemu-img", "qemu-io", "nbdinfo", "cp", "dd"])
