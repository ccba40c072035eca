"""Clones, checks and changes of size on real files, judged by qemu-img."""

import json
import os
import struct

import harness
from harness import run

CLUSTER = 65536
MIB = 1 << 20


def info(path):
    return json.loads(run("qemu-img", "info", "-U", "--output=json", path).stdout)


def leak_a_cluster(path):
    """Gives a cluster behind the end of a qcow2 file a reference that nothing has."""
    with open(path, "r+b") as file:
        header = file.read(104)
        table, = struct.unpack_from(">Q", header, 48)
        file.seek(table)
        block, = struct.unpack(">Q", file.read(8))
        file.seek(0, os.SEEK_END)
        index = (file.tell() + CLUSTER - 1) // CLUSTER
        file.truncate((index + 1) * CLUSTER)
        file.seek(block + 2 * index)
        file.write(struct.pack(">H", 1))


class ChainTest(harness.GabionTestCase):
    def create(self, image_id, **image):
        return self.daemon.result(self.daemon.call("ImageService/CreateImage", {"imageId": image_id, "image": image}))

    def clone(self, image_id, source, **fields):
        return self.daemon.result(self.daemon.call("ImageService/CloneImage", {
            "imageId": image_id, "source": f"images/{source}", **fields}))

    def resize(self, image_id, size, **fields):
        return self.daemon.result(self.daemon.call("ImageService/ResizeImage", {
            "name": f"images/{image_id}", "virtualSizeBytes": str(size), **fields}))

    def check(self, image_id, repair="REPAIR_NONE"):
        return self.daemon.result(self.daemon.call("ImageService/CheckImage", {
            "name": f"images/{image_id}", "repair": repair}))

    def test_a_clone_reads_as_its_source_and_keeps_what_is_written_to_it(self):
        daemon = self.daemon
        handle = self.connect(daemon.serve("base", MIB))
        handle.pwrite(b"base" * 1024, 5000)
        handle.flush()
        harness.hang_up(handle)
        refused = daemon.refusal("ImageService/CloneImage", {"imageId": "top", "source": "images/base"})
        self.assertEqual(refused.reason, "IMAGE_IN_USE")
        daemon.delete_export("base")
        self.assertEqual(self.clone("mid", "base")["virtualSizeBytes"], str(MIB))
        top = self.clone("top", "mid", virtualSizeBytes=str(2 * MIB), qcow2={"clusterSizeBytes": 4096})
        self.assertEqual(top["chainDepth"], 3)
        daemon.create_export("top", "top")
        handle = self.connect(daemon.uri("top"))
        expected = bytearray(2 * MIB)
        expected[5000:9096] = b"base" * 1024
        self.assertEqual(handle.pread(2 * MIB, 0), expected)
        handle.pwrite(b"t" * 700, 6000)
        handle.pwrite(b"end", 2 * MIB - 3)
        expected[6000:6700] = b"t" * 700
        expected[-3:] = b"end"
        self.assertEqual(handle.pread(2 * MIB, 0), expected)
        harness.hang_up(handle)
        for call, request in (("ExportService/CreateExport", {"exportId": "base", "export": {"source": "images/base"}}),
                              ("InspectService/Write", {"name": "images/mid", "data": "eA=="}),
                              ("ImageService/ResizeImage", {"name": "images/mid", "virtualSizeBytes": str(3 * MIB)}),
                              ("ImageService/DeleteImage", {"name": "images/base"})):
            self.assertEqual(daemon.refusal(call, request).reason, "IMAGE_HAS_DEPENDENTS", call)
        daemon.kill()  # without warning
        daemon.start()
        self.assertEqual(daemon.call("ImageService/GetImage", {"name": "images/mid"})["dependents"], ["images/top"])
        self.assertEqual(self.connect(daemon.uri("top")).pread(2 * MIB, 0), expected)
        file = os.path.join(daemon.pool, "top.qcow2")
        self.assertEqual(info(file)["full-backing-filename"], os.path.join(daemon.pool, "mid.qcow2"))
        daemon.stop()
        run("qemu-img", "convert", "-O", "raw", file, daemon.file("top.flat"))
        self.assertEqual(harness.read_file(daemon.file("top.flat")), expected)
        daemon.start()

    def test_a_check_counts_as_qemu_does_and_repairs(self):
        self.create("leaky", qcow2={}, virtualSizeBytes=str(4 * MIB))
        path = os.path.join(self.daemon.pool, "leaky.qcow2")
        clean = self.check("leaky")
        self.assertEqual(int(clean.get("leaks", 0)) + int(clean.get("corruptions", 0)), 0)
        leak_a_cluster(path)
        self.assertEqual(run("qemu-img", "check", path, ok=False).returncode, 3)
        found = self.check("leaky")
        self.assertEqual((found["leaks"], found["findings"][0]["kind"]), ("1", "leak"))
        repaired = self.check("leaky", "REPAIR_LEAKS")
        self.assertEqual((repaired.get("leaks", "0"), repaired["leaksFixed"]), ("0", "1"))
        run("qemu-img", "check", path)
        self.daemon.create_export("leaky", "leaky", readOnly=True)
        refused = self.daemon.refusal("ImageService/CheckImage", {"name": "images/leaky", "repair": "REPAIR_ALL"})
        self.assertEqual(refused.reason, "IMAGE_IN_USE")
        self.check("leaky")

    def test_an_image_becomes_larger_and_smaller(self):
        for image_id, form in (("flat", {"raw": {}}), ("grown", {"qcow2": {}})):
            with self.subTest(image=image_id):
                self.create(image_id, **form, virtualSizeBytes=str(MIB))
                path, = (os.path.join(self.daemon.pool, name) for name in os.listdir(self.daemon.pool)
                         if name.startswith(image_id))
                image_format = path.rsplit(".", 1)[1]
                for size in (3 * MIB, MIB // 2):
                    told = self.resize(image_id, size, allowShrink=True)
                    self.assertEqual(told["virtualSizeBytes"], str(size))
                    size_of_file = json.loads(run("qemu-img", "info", "--output=json", "-f", image_format,
                                                  path).stdout)["virtual-size"]
                    self.assertEqual(size_of_file, size)
                if image_format == "qcow2":
                    run("qemu-img", "check", path)
                refused = self.daemon.refusal("ImageService/ResizeImage", {
                    "name": f"images/{image_id}", "virtualSizeBytes": "512"})
                self.assertEqual(refused.violations(), [("virtual_size_bytes", "SHRINK_NOT_ALLOWED")])

    def test_what_cannot_work_together_names_its_field(self):
        odd = {"extendedL2": True, "clusterSizeBytes": 4096}
        refused = self.daemon.refusal("ImageService/CreateImage", {
            "imageId": "odd", "image": {"qcow2": odd, "virtualSizeBytes": "512"}})
        self.assertEqual(refused.violations(), [("image.qcow2", "FIELD_INVALID")])
        self.create("plain", raw={}, virtualSizeBytes="512")
        refused = self.daemon.refusal("ImageService/CloneImage", {
            "imageId": "odd", "source": "images/plain", "qcow2": odd})
        self.assertEqual(refused.violations(), [("qcow2", "FIELD_INVALID")])
        refused = self.daemon.refusal("ImageService/MeasureImage", {"image": {"qcow2": odd, "virtualSizeBytes": "512"}})
        self.assertEqual(refused.violations(), [("image.qcow2", "FIELD_INVALID")])

    def test_a_measure_is_what_qemu_says(self):
        self.create("full", raw={}, virtualSizeBytes=str(8 * MIB))
        self.daemon.call("InspectService/Write", {"name": "images/full", "pattern": "eA==", "length": str(MIB),
                                                  "offset": str(MIB + 1)})
        told = self.daemon.call("ImageService/MeasureImage", {"image": {"qcow2": {}}, "source": "images/full"})
        said = json.loads(run("qemu-img", "measure", "--output=json", "-O", "qcow2", "-f", "raw",
                              os.path.join(self.daemon.pool, "full.raw")).stdout)
        self.assertEqual((int(told["requiredBytes"]), int(told["fullyAllocatedBytes"])),
                         (said["required"], said["fully-allocated"]))


if __name__ == "__main__":
    harness.main(commands=["qemu-img"])
