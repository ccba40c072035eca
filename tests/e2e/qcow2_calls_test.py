"""The life of qcow2 images: made, cloned, grown, checked, repaired, measured and deleted; what qemu says of them."""

import json
import os

import harness
from harness import KiB, MiB, errno_of, run
from qcow2_mutate import COPIED, Qcow2File
from qcow2_tools import CallsTestCase, qemu_bytes, qemu_check, qemu_info

CLUSTER = 1 << 16


class CreateTest(CallsTestCase):
    PARAMETERS = [  # what is asked for, and what of it qemu tells
        ({}, {}),
        ({"clusterSizeBytes": 512}, {"cluster-size": 512}),
        ({"clusterSizeBytes": 2 * MiB}, {"cluster-size": 2 * MiB}),
        ({"version": 2}, {"compat": "0.10"}),
        ({"version": 3}, {}),
        ({"extendedL2": True}, {"extended-l2": True}),
        ({"extendedL2": True, "clusterSizeBytes": 16 * KiB}, {"extended-l2": True, "cluster-size": 16 * KiB}),
        ({"lazyRefcounts": True}, {"lazy-refcounts": True}),
        ({"compression": "COMPRESSION_ZSTD"}, {"compression-type": "zstd"}),
        *(({"refcountBits": bits}, {"refcount-bits": bits}) for bits in (1, 2, 4, 8, 16, 32, 64)),
    ]
    DEFAULTS = {"cluster-size": 64 * KiB, "compat": "1.1", "refcount-bits": 16, "lazy-refcounts": False,
                "extended-l2": False, "compression-type": "zlib", "corrupt": False}

    def test_qemu_sees_what_was_asked_for(self):
        for number, (asked, told) in enumerate(self.PARAMETERS):
            for backing in (None, "below"):
                with self.subTest(asked=asked, backing=backing):
                    if backing and not number:
                        self.create("below", 3 * MiB)
                    image = f"p{number}{'b' if backing else ''}"
                    path = self.create(image, None if backing else 5 * MiB, asked, backing)
                    info = qemu_info(path)
                    seen = {**info["format-specific"]["data"], "cluster-size": info["cluster-size"]}
                    expected = {**self.DEFAULTS, **told}
                    if expected["compat"] == "0.10":  # of which qemu tells less
                        expected = {name: expected[name] for name in ("cluster-size", "compat", "refcount-bits", "compression-type")}
                    self.assertEqual({name: seen.get(name) for name in expected}, expected)
                    self.assertEqual(info["virtual-size"], 3 * MiB if backing else 5 * MiB)
                    self.assertEqual((info.get("backing-filename"), info.get("backing-filename-format")),
                                     ("below.qcow2", "qcow2") if backing else (None, None))
                    self.assert_clean(path)
                    shown = self.image(image)
                    for name, value in asked.items():
                        self.assertEqual(shown["qcow2"][name], value)
                    self.assertEqual(shown.get("chainDepth"), 2 if backing else 1)

    def test_parameters_that_cannot_work_together(self):
        for asked in ({"extendedL2": True, "clusterSizeBytes": 8 * KiB}, {"extendedL2": True, "version": 2},
                      {"lazyRefcounts": True, "version": 2}, {"compression": "COMPRESSION_ZSTD", "version": 2},
                      {"refcountBits": 8, "version": 2}):
            with self.subTest(asked=asked):
                self.refused("ImageService/CreateImage", {"imageId": "no", "image": {
                    "qcow2": asked, "virtualSizeBytes": str(MiB)}}, "FIELD_INVALID")
        for asked in ({"clusterSizeBytes": 256}, {"clusterSizeBytes": 4 * MiB}, {"clusterSizeBytes": 1000}, {"version": 4},
                      {"refcountBits": 128}, {"refcountBits": 3}):
            with self.subTest(asked=asked):
                error = self.daemon.refusal("ImageService/CreateImage", {"imageId": "no", "image": {
                    "qcow2": asked, "virtualSizeBytes": str(MiB)}})
                self.assertEqual(error.code, "INVALID_ARGUMENT", error)

    def test_the_size_that_one_level_of_tables_cannot_hold(self):
        error = self.daemon.refusal("ImageService/CreateImage", {"imageId": "no", "image": {
            "qcow2": {"clusterSizeBytes": 512}, "virtualSizeBytes": str(1 << 50)}})
        self.assertIn(error.reason, ("SIZE_OUT_OF_RANGE", "FIELD_INVALID"), error)

    def test_preallocation(self):
        size = 8 * MiB
        for layout in ({}, {"extendedL2": True}, {"clusterSizeBytes": 4 * KiB}):
            for how in ("OFF", "METADATA", "FALLOC", "FULL"):
                with self.subTest(layout=layout, how=how):
                    image = f"pre-{how.lower()}-{len(layout)}-{layout.get('clusterSizeBytes', 0)}"
                    path = self.create(image, size, layout, preallocation=f"PREALLOCATION_{how}")
                    self.assert_clean(path)
                    occupied = os.stat(path).st_blocks * 512
                    if how in ("FALLOC", "FULL"):
                        self.assertGreaterEqual(occupied, size)
                        self.assertEqual(int(self.image(image)["allocatedBytes"]), occupied)
                    else:
                        self.assertLess(occupied, MiB)
                    found = self.check(image)
                    self.assertEqual(found["allocatedClusters"], 0 if how == "OFF" else found["totalClusters"])
                    self.assertEqual(qemu_bytes(path), bytes(size))
                    self.assertEqual(self.read_all_zero(image, size), bytes(size))

    def read_all_zero(self, image, size):
        self.export(image, readOnly=True)
        return self.read(image, size)

    def test_metadata_over_a_backing_image(self):
        self.create("under", MiB)
        self.write("under", (0, b"u" * 4096))
        self.create("over", None, {"extendedL2": True}, "under", preallocation="PREALLOCATION_METADATA")
        self.assert_clean(self.file_of("over"))
        self.assertEqual(qemu_bytes(self.file_of("over"))[:4097], b"u" * 4096 + b"\0")
        self.refused("ImageService/CreateImage", {"imageId": "no", "preallocation": "PREALLOCATION_METADATA", "image": {
            "qcow2": {}, "backingImage": "images/under"}}, "FIELD_INVALID")


class CloneTest(CallsTestCase):
    def test_a_clone_of_a_clone(self):
        self.create("base", MiB)
        self.write("base", (0, b"b" * CLUSTER), (2 * CLUSTER, b"b" * CLUSTER))
        self.clone("mid", "base", 2 * MiB)
        self.write("mid", (CLUSTER, b"m" * 1000), (3 * MiB // 2, b"m" * 1000))
        self.clone("top", "mid", MiB // 2)
        self.write("top", (10, b"t" * 10))
        expected = bytearray(b"b" * CLUSTER + b"m" * 1000 + bytes(CLUSTER - 1000) + b"b" * CLUSTER + bytes(MiB // 2 - 3 * CLUSTER))
        expected[10:20] = b"t" * 10
        self.assertEqual(qemu_bytes(self.file_of("top")), expected)
        shown = self.image("top")
        self.assertEqual((shown["chainDepth"], shown["backingImage"]), (3, "images/mid"))
        self.assertEqual(self.image("base")["dependents"], ["images/mid"])
        for name in ("base", "mid", "top"):
            self.assert_clean(self.file_of(name))
        for name in ("base", "mid"):
            error = self.refused("ImageService/DeleteImage", {"name": f"images/{name}"}, "IMAGE_HAS_DEPENDENTS")
            self.assertEqual(error.code, "FAILED_PRECONDITION")
            self.refused("ExportService/CreateExport", {"exportId": name, "export": {"source": f"images/{name}"}},
                         "IMAGE_HAS_DEPENDENTS")
            self.refused("InspectService/Write", {"name": f"images/{name}", "data": "YQ=="}, "IMAGE_HAS_DEPENDENTS")
            self.refused("ImageService/ResizeImage", {"name": f"images/{name}", "virtualSizeBytes": str(4 * MiB)},
                         "IMAGE_HAS_DEPENDENTS")
        self.export("top")
        self.refused("ImageService/DeleteImage", {"name": "images/top"}, "IMAGE_IN_USE")
        self.daemon.delete_export("top")
        for name in ("top", "mid", "base"):
            self.daemon.delete_image(name)
            self.assertFalse(os.path.exists(self.file_of(name)))

    def test_what_is_being_written_is_not_cloned(self):
        self.create("live", MiB)
        self.export("live")
        self.refused("ImageService/CloneImage", {"imageId": "no", "source": "images/live"}, "IMAGE_IN_USE")
        self.daemon.update_export("live", "readOnly", readOnly=True)
        self.clone("of-live", "live")
        self.refused("ExportService/UpdateExport", {"export": {"name": "exports/live", "readOnly": False},
                                                    "updateMask": "readOnly"}, "IMAGE_HAS_DEPENDENTS")

    def test_of_a_raw_image_of_any_size(self):
        self.daemon.import_file("plain", harness.write_file(self.daemon.file("plain"), (0, b"p" * 1500)))
        path = self.clone("of-plain", "plain")
        self.assertEqual(self.image("of-plain")["virtualSizeBytes"], "1500")
        self.write("of-plain", (100, b"q" * 10))
        self.assertEqual(qemu_info(path)["backing-filename-format"], "raw")
        self.assertEqual(qemu_bytes(path)[:1024], b"p" * 100 + b"q" * 10 + b"p" * 914)
        self.export("of-plain", readOnly=True)
        self.assertEqual(self.read("of-plain", 1500), b"p" * 100 + b"q" * 10 + b"p" * 1390)


class ResizeTest(CallsTestCase):
    def test_up_under_a_connected_client(self):
        for number, layout in enumerate(({}, {"clusterSizeBytes": 512}, {"version": 2}, {"extendedL2": True})):
            with self.subTest(layout=layout):
                image = f"up{number}"
                path = self.create(image, MiB + 512, layout)
                handle = self.connect(self.export(image))
                handle.pwrite(b"x" * 512, MiB)
                self.resize(image, 70 * MiB)
                self.assertEqual(handle.get_size(), MiB + 512)
                self.assertNotEqual(errno_of(lambda: handle.pwrite(b"y" * 512, MiB + 512)), "OK")
                other = self.connect(self.daemon.uri(image))
                self.assertEqual(other.get_size(), 70 * MiB)
                other.pwrite(b"z" * 512, 70 * MiB - 512)
                self.assertEqual(other.pread(1024, MiB), b"x" * 512 + bytes(512))
                handle.pwrite(b"w" * 512, 0)
                harness.hang_up(handle)
                harness.hang_up(other)
                self.daemon.delete_export(image)
                self.assert_clean(path)
                content = qemu_bytes(path)
                self.assertEqual((len(content), content[:512], content[MiB:MiB + 512], content[-512:]),
                                 (70 * MiB, b"w" * 512, b"x" * 512, b"z" * 512))

    def test_up_with_tables_of_many_clusters(self):
        """The new L1 table has more clusters than one refcount block describes."""
        for layout, before, after in (({"clusterSizeBytes": 512, "refcountBits": 64}, 64 * MiB, 192 * MiB),
                                      ({"clusterSizeBytes": 512}, 512 * MiB, 600 * MiB)):
            with self.subTest(layout=layout):
                image = f"many{len(layout)}"
                path = self.create(image, before, layout)
                self.resize(image, after)
                self.assertLess(os.stat(path).st_size, 8 * MiB)
                self.assert_clean(path)

    def test_down_and_up_again_reads_zeros(self):
        """Also where a backing image has bytes behind the old end."""
        self.create("below", MiB)
        self.write("below", (0, b"b" * MiB))
        for number, layout in enumerate(({}, {"version": 2}, {"clusterSizeBytes": 4 * KiB}, {"extendedL2": True})):
            for backing in (None, "below"):
                with self.subTest(layout=layout, backing=backing):
                    image = f"down{number}{'b' if backing else ''}"
                    path = self.create(image, MiB, layout, backing)
                    self.write(image, (300_000, b"x" * 400_000))
                    before = qemu_bytes(path)
                    self.resize(image, 400_384, allowShrink=True)
                    self.assert_clean(path)
                    self.assertEqual(qemu_bytes(path), before[:400_384])
                    self.resize(image, MiB)
                    self.assert_clean(path)
                    self.assert_same(qemu_bytes(path), before[:400_384] + bytes(MiB - 400_384), "grown again")

    def test_down_is_refused(self):
        self.create("small", MiB)
        request = {"name": "images/small", "virtualSizeBytes": str(MiB // 2)}
        self.refused("ImageService/ResizeImage", request, "SHRINK_NOT_ALLOWED")
        self.export("small")
        self.refused("ImageService/ResizeImage", {**request, "allowShrink": True}, "IMAGE_IN_USE")
        self.daemon.delete_export("small")
        path = self.source("snap", "w -P 1 0 64k")
        run("qemu-img", "snapshot", "-c", "s", path)
        self.bring("snapped", path)
        self.refused("ImageService/ResizeImage", {"name": "images/snapped", "virtualSizeBytes": str(MiB // 2),
                                                  "allowShrink": True}, "FIELD_INVALID")
        self.assertEqual(self.image("snapped")["virtualSizeBytes"], str(MiB))


class CheckTest(CallsTestCase):
    COUNTS = {"corruptions": "corruptions", "leaks": "leaks", "check-errors": "checkErrors", "total-clusters": "totalClusters",
              "allocated-clusters": "allocatedClusters", "compressed-clusters": "compressedClusters",
              "fragmented-clusters": "fragmentedClusters", "image-end-offset": "imageEndOffset"}

    def agree(self, image):
        """CheckImage without repair; its counts are those of qemu-img."""
        found = self.check(image)
        theirs = json.loads(run("qemu-img", "check", "--output=json", "-f", "qcow2", self.file_of(image), ok=False).stdout)
        self.assertEqual({name: found[ours] for name, ours in self.COUNTS.items()},
                         {name: theirs.get(name, 0) for name in self.COUNTS})
        return found

    def damaged(self, image, damage):
        path = self.source(image, "w -P 1 0 128k", "w -c -P 2 256k 64k", "w -P 3 512k 64k")
        file = Qcow2File.read(path)
        damage(file)
        return self.bring(image, file.save(path))

    def test_a_sound_image(self):
        self.damaged("sound", lambda file: None)
        found = self.agree("sound")
        self.assertEqual((found["corruptions"], found["leaks"], found.get("findings", [])), (0, 0, []))

    def test_a_long_refcount_table(self):
        """Of more than 64 KiB, and no multiple of that."""
        for number, layout in enumerate(({"clusterSizeBytes": 512}, {"clusterSizeBytes": 512, "refcountBits": 64})):
            with self.subTest(layout=layout):
                self.create(f"long{number}", 1024 * MiB, layout)
                self.assertGreater(Qcow2File.read(self.file_of(f"long{number}"))["refcount_clusters"], 128)
                self.assertEqual(self.agree(f"long{number}")["corruptions"], 0)

    def test_leaks(self):
        def leak(file):
            last = len(file.bytes) // CLUSTER
            file.bytes.extend(bytes((last + 2) * CLUSTER - len(file.bytes)))
            file.set_refcount(last, 1)
            file.set_refcount(last + 1, 3)
        path = self.damaged("leaky", leak)
        before = qemu_bytes(path)
        found = self.agree("leaky")
        self.assertEqual((found["corruptions"], found["leaks"]), (0, 2))
        self.assertEqual({f["kind"] for f in found["findings"]}, {"leak"})
        fixed = self.check("leaky", "REPAIR_LEAKS")
        self.assertEqual((fixed["leaksFixed"], fixed["leaks"], fixed["corruptions"]), (2, 0, 0))
        self.assert_clean(path)
        self.assertEqual(qemu_bytes(path), before)

    def test_refcounts_that_are_too_low(self):
        def lower(file):
            file.set_refcount((file.u64(file.l2_place(0)) & ~COPIED) // CLUSTER, 0)
            file.change(file.l2_place(8), lambda entry: entry & ~COPIED)
        path = self.damaged("low", lower)
        before = qemu_bytes(path)
        found = self.agree("low")
        self.assertGreaterEqual(found["corruptions"], 2)
        kept = self.check("low", "REPAIR_LEAKS")
        self.assertGreaterEqual(kept["corruptions"], 1)
        self.assertNotEqual(qemu_check(path), 0)
        fixed = self.check("low", "REPAIR_ALL")
        self.assertEqual((fixed["corruptions"], fixed["leaks"]), (0, 0))
        self.assertGreater(fixed["corruptionsFixed"], 0)
        self.assert_clean(path)
        self.assertEqual(qemu_bytes(path), before)

    def test_a_corrupt_image_is_served_again_after_its_repair(self):
        path = self.damaged("marked", lambda file: (file.set_refcount(1, 0), file.__setitem__("incompatible", 2)))
        self.assertEqual(self.image("marked")["state"], "STATE_CORRUPT")
        fixed = self.check("marked", "REPAIR_ALL")
        self.assertEqual(fixed["corruptions"], 0)
        self.assertEqual(self.image("marked")["state"], "STATE_ACTIVE")
        self.write("marked", (0, b"w" * 512))
        self.assert_clean(path)

    def test_refusals(self):
        self.daemon.create_image("plain", MiB)
        self.refused("ImageService/CheckImage", {"name": "images/plain"}, "FEATURE_UNSUPPORTED")
        self.create("busy", MiB)
        self.export("busy")
        self.refused("ImageService/CheckImage", {"name": "images/busy"}, "IMAGE_IN_USE")
        self.daemon.update_export("busy", "readOnly", readOnly=True)
        self.assertEqual(self.check("busy")["corruptions"], 0)
        self.refused("ImageService/CheckImage", {"name": "images/busy", "repair": "REPAIR_ALL"}, "IMAGE_IN_USE")


class MeasureTest(CallsTestCase):
    OPTIONS = [({}, ""), ({"clusterSizeBytes": 512}, "cluster_size=512"), ({"clusterSizeBytes": 2 * MiB}, "cluster_size=2M"),
               ({"extendedL2": True}, "extended_l2=on"), ({"refcountBits": 1}, "refcount_bits=1"),
               ({"refcountBits": 64, "clusterSizeBytes": 4096}, "refcount_bits=64,cluster_size=4096"), ({"version": 2}, "compat=0.10")]

    def compare(self, request, *arguments):
        ours = self.daemon.call("ImageService/MeasureImage", request)
        theirs = json.loads(run("qemu-img", "measure", "--output=json", "-O", "qcow2", *arguments).stdout)
        self.assertEqual((int(ours["requiredBytes"]), int(ours["fullyAllocatedBytes"])),
                         (theirs["required"], theirs["fully-allocated"]))

    def test_of_a_new_image(self):
        for layout, options in self.OPTIONS:
            for size in (MiB, 100 * MiB, 100 * MiB + 512, 1 << 36):
                with self.subTest(layout=layout, size=size):
                    more = ["-o", options] if options else []
                    self.compare({"image": {"qcow2": layout, "virtualSizeBytes": str(size)}}, *more, "--size", str(size))

    def test_of_what_an_image_holds(self):
        path = self.source("held", "w -P 1 128k 128k", "w -z 512k 64k", "w -P 2 3M 1M", "w -c -P 3 5M 64k", size="8M")
        self.bring("held", path)
        self.clone("on-held", "held")
        self.write("on-held", (7 * MiB, b"x" * 2 * CLUSTER))
        for layout, options in self.OPTIONS:
            for image in ("held", "on-held"):
                with self.subTest(layout=layout, image=image):
                    more = ["-o", options] if options else []
                    self.compare({"image": {"qcow2": layout}, "source": f"images/{image}"}, *more, "-f", "qcow2", self.file_of(image))


if __name__ == "__main__":
    harness.main(commands=["qemu-img", "qemu-io", "cp", "protoc"], modules=("nbd", "grpc", "google.protobuf"))
