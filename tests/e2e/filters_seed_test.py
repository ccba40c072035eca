"""The report that started it all, with a filter on top: block status through a filter that demands 4096-byte requests. Beside it
stands what qemu-nbd makes of the same files."""

import os

import harness
import nbd
from harness import extents, run
from qcow2_test import DEPTH, DEPTH_MAX, HOLE_ZERO, Qcow2TestCase, merged, qemu_map

SECTORS = {"entryId": "sectors", "spec": {"fault": {"alignmentBytes": 4096}}}
# Filters that change no data.
CLEAR = [{"entryId": name, "spec": {name.replace("-", "_"): spec}} for name, spec in {
    "throttle": {"totalBytes": {"averagePerSecond": "100000000000"}}, "log": {"failuresOnly": True}, "stats": {}, "retry": {},
    "readahead": {}, "delay": {}, "write-protect": {"ranges": [{"offsetBytes": "0", "lengthBytes": "512"}]},
    "feature-mask": {"hideTrim": True}, "slice": {"range": {}}, "align": {}}.items()]


def whole_map(handle, context):
    """All of the export by single descriptors, each asked from where the last one ended: neighbours that are alike as one."""
    found, at = [], 0
    while at < handle.get_size():
        (length, value), = extents(handle, at, handle.get_size() - at, nbd.CMD_FLAG_REQ_ONE, context)
        if found and found[-1][1] == value:
            found[-1] = (found[-1][0] + length, value)
        else:
            found.append((length, value))
        at += length
    assert at == handle.get_size()
    return found


def chunks_of(handle, length):
    found = []

    def on_chunk(data, offset, status, _error):
        found.append((offset, len(data), status == nbd.READ_DATA))
        return 0
    handle.pread_structured(length, 0, on_chunk)
    return found


class SeedTest(Qcow2TestCase):
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
        test = cls()
        test.bring("back", cls.daemon.file("back.qcow2"))
        for name in ("top", "top512"):
            test.bring(name, cls.daemon.file(f"{name}.qcow2"), "back")

    def runTest(self):
        """unittest wants one for instances that are made by hand."""

    def export(self, name, image, stack, **fields):
        self.daemon.create_export(name, image, readOnly=True, exposeAllocationDepth=True, filterStack=stack, **fields)
        return self.connect(self.daemon.uri(name), contexts=["base:allocation", DEPTH, DEPTH_MAX])

    def test_an_aligning_filter_hides_nothing_and_every_reply_is_aligned(self):
        shown = {"base:allocation": [(4096, 0), (104853504, HOLE_ZERO)], DEPTH: [(4096, 2), (104853504, 0)],
                 DEPTH_MAX: [(4096, 3), (104853504, 0)]}
        handle = self.export("sectors", "top", [SECTORS])
        self.assertEqual(handle.get_block_size(nbd.SIZE_MINIMUM), 4096)
        sizes = self.daemon.call("ExportService/GetExport", {"name": "exports/sectors"})["effectiveBlockSizes"]
        self.assertEqual(sizes["minimum"], {"bytes": 4096, "origin": "ORIGIN_FILTER", "determinedBy": "sectors"})
        for context, runs in shown.items():
            self.assertEqual(whole_map(handle, context), runs, context)
        self.assertEqual(chunks_of(handle, 65536), [(0, 4096, True), (4096, 61440, False)])
        lines = run("nbdinfo", "--map", self.daemon.uri("sectors")).stdout.split("\n")
        self.assertEqual([line.split() for line in lines if line],
                         [["0", "4096", "0", "data"], ["4096", "104853504", "3", "hole,zero"]])

    def test_the_byte_exact_map_is_that_of_qemu_without_the_filter(self):
        for image in ("top", "top512"):
            self.export(f"exact-{image}", image, [SECTORS])
            self.assertEqual(merged(self.map(f"exports/exact-{image}")), merged(qemu_map(self.daemon.file(f"{image}.qcow2"))))

    def test_no_clear_filter_changes_anything_wherever_it_stands(self):
        rng = harness.random_source()
        for image in ("top", "top512"):
            plain = self.export(f"plain-{image}", image, [])
            sectors = self.export(f"sectors-{image}", image, [SECTORS])
            for number in range(6):
                with self.subTest(image=image, number=number):
                    some = rng.sample(CLEAR, rng.randrange(1, len(CLEAR)))
                    twice = [{**entry, "entryId": entry["entryId"] + "-2"} for entry in rng.sample(some, len(some) // 2)]
                    stack = some + twice
                    rng.shuffle(stack)
                    self.compare(plain, f"clear-{image}-{number}", image, stack)
                    stack.insert(0, SECTORS)  # emulation below it does not matter to what it demands
                    self.compare(sectors, f"both-{image}-{number}", image, stack)

    def compare(self, plain, name, image, stack):
        filtered = self.export(name, image, stack)
        self.assertEqual(filtered.get_size(), plain.get_size())
        self.assertEqual(filtered.get_block_size(nbd.SIZE_MINIMUM), plain.get_block_size(nbd.SIZE_MINIMUM), stack)
        for context in ("base:allocation", DEPTH, DEPTH_MAX):
            self.assertEqual(whole_map(filtered, context), whole_map(plain, context), (context, stack))
        self.assertEqual(chunks_of(filtered, 65536), chunks_of(plain, 65536), stack)
        self.assertEqual(self.map(f"exports/{name}"), self.map(f"images/{image}"), stack)

    def test_qemu_sends_smaller_pieces_than_it_advertises_and_counts_its_filter(self):
        socket, pid_file = self.daemon.file("q.sock"), self.daemon.file("q.pid")
        server = harness.start(["qemu-nbd", "-t", "-r", "-A", "-k", socket, "--pid-file", pid_file, "--image-opts",
                                "driver=blkdebug,image.driver=qcow2,image.file.driver=file,"
                                f"image.file.filename={self.daemon.file('top.qcow2')},align=4k"])
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        harness.wait_until(lambda: os.path.exists(pid_file), "qemu-nbd listens", process=server)
        theirs = self.connect(f"nbd+unix:///?socket={socket}", contexts=["base:allocation", DEPTH], strict=False)
        ours = self.export("against-qemu", "top", [SECTORS])
        self.assertEqual(theirs.get_block_size(nbd.SIZE_MINIMUM), ours.get_block_size(nbd.SIZE_MINIMUM))
        if run("qemu-nbd", "--version").stdout.startswith("qemu-nbd 7.2"):
            self.assertIn((0, 512, True), chunks_of(theirs, 65536))
            self.assertIn((512, 3), extents(theirs, 0, 65536, context=DEPTH))
        self.assertTrue(all(offset % 4096 == 0 and length % 4096 == 0 for offset, length, _ in chunks_of(ours, 65536)))
        self.assertTrue(all(length % 4096 == 0 for length, _ in extents(ours, 0, 65536)))
        self.assertEqual({depth for _, depth in whole_map(ours, DEPTH)}, {0, 2})

    def test_why_does_the_map_say_so(self):
        self.export("why", "top", [{"entryId": "part", "spec": {"slice": {"range": {"offsetBytes": "512"}}}}, SECTORS])
        told = self.daemon.call("InspectService/Explain", {"name": "exports/why", "offset": "0", "length": "4096"})["extents"]
        self.assertEqual([(int(e.get("offset", 0)), int(e["length"])) for e in told], [(0, 512), (512, 512), (1024, 3072)])
        hole, data, rest = told
        for extent in told:
            self.assertEqual([(s["what"], s.get("entryId"), s["effect"]) for s in extent["steps"]],
                             [("WHAT_TAIL", None, "EFFECT_NONE"), ("WHAT_FILTER", "part", "EFFECT_SHIFTED"),
                              ("WHAT_ALIGNMENT", None, "EFFECT_NONE"), ("WHAT_FILTER", "sectors", "EFFECT_NONE")])
            self.assertEqual(extent["steps"][3]["kind"], "fault")
            self.assertEqual(extent["advertised"]["rule"], "RULE_DATA_ANYWHERE")
            self.assertEqual(extent["advertised"]["depth"], 2)
            self.assertEqual(extent["layers"][0]["state"], "STATE_PASSES")
        self.assertEqual([layer["state"] for layer in data["layers"]], ["STATE_PASSES", "STATE_DATA"])
        self.assertEqual(data["layers"][1]["image"], "images/back")
        place = int(data["layers"][1]["hostOffset"])
        file = harness.read_file(os.path.join(self.daemon.pool, data["layers"][1]["file"]))
        self.assertEqual(file[place:place + 512], b"\1" * 512)
        self.assertEqual(hole["layers"][-1]["state"], "STATE_NOTHING")
        self.assertEqual(rest["layers"][-1]["state"], "STATE_NOTHING")
        self.assertIn("images/back holds the bytes", data["summary"])
        image = self.daemon.call("InspectService/Explain", {"name": "images/top", "offset": "1024", "length": "512"})["extents"]
        self.assertEqual([layer["state"] for layer in image[0]["layers"]], ["STATE_PASSES", "STATE_DATA"])
        self.assertNotIn("advertised", image[0])


if __name__ == "__main__":
    harness.main(commands=["qemu-img", "qemu-io", "qemu-nbd", "nbdinfo", "cp"])
