"""Filters through the whole service: named and inline ones, under connected clients and load."""

import json
import os
import random
import re
import shutil
import threading
import time
import unittest

import harness
import nbd
from harness import KiB, MiB, errno_of, run

SWAPS = int(os.environ.get("GABION_SWAPS", "30"))


def inline(entry_id, **spec):
    return {"entryId": entry_id, "spec": spec}


class FiltersTest(harness.GabionTestCase):
    def attach(self, export, entry, **fields):
        return self.daemon.call("ExportService/AttachFilter", {"name": f"exports/{export}", "entry": entry, **fields})

    def detach(self, export, entry_id, **fields):
        return self.daemon.call("ExportService/DetachFilter", {"name": f"exports/{export}", "entryId": entry_id, **fields})

    def counters(self, export, entry_id):
        reply = self.daemon.call("InspectService/GetFilterStatistics", {"name": f"exports/{export}"})
        entry, = (e for e in reply["entries"] if e["entryId"] == entry_id)
        return {c["metric"]: int(c.get("value", 0)) for c in entry.get("counters", [])}

    def stack(self, export):
        return [e["entryId"] for e in self.daemon.call("ExportService/GetExport", {"name": f"exports/{export}"}).get("filterStack", [])]

    def test_attach_and_detach_under_a_connected_client(self):
        handle = self.connect(self.daemon.serve("attach", 16 * MiB))
        handle.pwrite(b"a" * 4096, 0)
        self.attach("attach", inline("count", stats={}))
        self.attach("attach", inline("errors", fault={"rules": [
            {"operations": ["FILTER_OPERATION_WRITE"], "offsetBytes": "8192", "lengthBytes": "4096", "error": "ERROR_ENOSPC"}]}),
            afterEntryId="count")
        self.assertEqual(self.stack("attach"), ["count", "errors"])
        self.assertEqual(handle.pread(4096, 0), b"a" * 4096)
        self.assertEqual(errno_of(lambda: handle.pwrite(b"b" * 512, 8192)), "ENOSPC")
        handle.pwrite(b"b" * 512, 4096)
        counted = self.counters("attach", "count")
        self.assertEqual((counted["read_requests"], counted["write_requests"], counted["write_failures"]), (1, 2, 1))
        self.assertEqual(self.counters("attach", "errors")["rule_0_hits"], 1)
        self.detach("attach", "errors")
        handle.pwrite(b"b" * 512, 8192)
        self.assertEqual(self.counters("attach", "count")["write_requests"], 3, "it goes on counting")
        for entry, what in ((inline("part", slice={"range": {"offsetBytes": "4096"}}), "another size"),
                            (inline("ro", readOnly={}), "another writability"),
                            (inline("sectors", fault={"alignmentBytes": 4096}), "a larger minimum block size")):
            error = self.daemon.refusal("ExportService/AttachFilter", {"name": "exports/attach", "entry": entry})
            self.assertEqual(error.reason, "STACK_INCOMPATIBLE_WITH_CONNECTIONS", error)
            self.assertIn(what, error.message)
        self.assertEqual(self.stack("attach"), ["count"])

    def test_a_named_filter_changes_for_all_its_exports_and_survives_a_restart(self):
        self.daemon.call("FilterService/CreateFilter", {"filterId": "gold", "filter": {"spec": {"writeProtect": {
            "ranges": [{"offsetBytes": "0", "lengthBytes": "4096"}]}}}})
        exports = ("named-a", "named-b")
        for name in exports:
            self.daemon.serve(name, MiB, filterStack=[{"filter": "filters/gold"}])
        shown = self.daemon.call("FilterService/GetFilter", {"name": "filters/gold"})
        self.assertEqual(shown["exports"], [f"exports/{name}" for name in exports])
        error = self.daemon.refusal("FilterService/DeleteFilter", {"name": "filters/gold"})
        self.assertEqual(error.reason, "FILTER_IN_USE", error)
        handles = [self.connect(self.daemon.uri(name)) for name in exports]
        for handle in handles:
            self.assertEqual(errno_of(lambda: handle.pwrite(b"x" * 512, 0)), "EPERM")
            handle.pwrite(b"x" * 512, 4096)
        self.daemon.call("FilterService/UpdateFilter", {"filter": {"name": "filters/gold", "spec": {"writeProtect": {
            "ranges": [{"offsetBytes": "4096", "lengthBytes": "4096"}]}}}})
        for handle in handles:
            handle.pwrite(b"x" * 512, 0)
            self.assertEqual(errno_of(lambda: handle.pwrite(b"x" * 512, 4096)), "EPERM")
            harness.hang_up(handle)
        self.daemon.kill()
        self.daemon.start()
        handle = self.connect(self.daemon.uri("named-b"))
        self.assertEqual(errno_of(lambda: handle.pwrite(b"x" * 512, 4096)), "EPERM")
        for name in exports:
            self.detach(name, "gold")
        handle.pwrite(b"x" * 512, 4096)
        self.daemon.call("FilterService/DeleteFilter", {"name": "filters/gold"})

    def world(self, export):
        """What is told of an export and of filters, what is in the pool, and which files the daemon has open."""
        asked = [self.daemon.call(method, request) for method, request in (
            ("ExportService/ListExports", {}), ("FilterService/ListFilters", {}), ("ImageService/ListImages", {}),
            ("InspectService/GetFilterStatistics", {"name": f"exports/{export}"}))]
        for reply in asked:
            reply.pop("revision", None)  # moves when it is written down that a client has come
        folder = f"/proc/{self.daemon.process.pid}/fd"
        return asked, sorted(os.listdir(self.daemon.pool)), sorted(
            link for link in (os.readlink(os.path.join(folder, fd)) for fd in os.listdir(folder)) if link.startswith(self.daemon.pool))

    def attempt(self, method, request, dry):
        """What a call answers, or its error, but for etags and times."""
        try:
            reply = self.daemon.call(method, {**request, "validateOnly": dry})
        except harness.CallError as error:
            return error.code, error.reason, error.message, error.metadata, error.violations()
        for field in ("etag", "updateTime"):
            del reply[field]
        reply["conditions"] = [{k: v for k, v in c.items() if k != "lastTransitionTime"} for c in reply["conditions"]]
        return reply

    def try_and_do(self, method, request, reason=None):
        """A dry run, which changes nothing, and then the call, whose answer it has."""
        before = self.world("trial")
        tried = self.attempt(method, request, True)
        self.assertEqual(self.world("trial"), before, request)
        done = self.attempt(method, request, False)
        self.assertEqual(tried, done, request)
        if reason is None:
            self.assertIsInstance(done, dict, request)
        else:
            self.assertEqual(done[1], reason, request)

    def test_dry_runs_answer_as_the_calls_and_leave_nothing(self):
        self.daemon.create_image("other", MiB)
        self.daemon.call("FilterService/CreateFilter", {"filterId": "shared", "filter": {"spec": {"throttle": {}}}})
        handle = self.connect(self.daemon.serve("trial", 4 * MiB, filterStack=[inline("first", stats={})]))
        handle.pwrite(b"t" * 4096, 0)
        for spec in ({"stats": {}}, {"align": {"alignmentBytes": 65536}}, {"cache": {}}, {"slice": {"range": {}}},
                     {"resize": {"roundUpBytes": 512}}, {"featureMask": {"hideTrim": True}}, {"fault": {"rules": [{"maxHits": 1}]}}):
            self.try_and_do("ExportService/AttachFilter", {"name": "exports/trial", "entry": {"entryId": "new", "spec": spec}})
            self.try_and_do("ExportService/DetachFilter", {"name": "exports/trial", "entryId": "new"})
            self.assertEqual(handle.pread(4096, 0), b"t" * 4096)
        for spec, reason in (({"slice": {"range": {"offsetBytes": "512"}}}, "STACK_INCOMPATIBLE_WITH_CONNECTIONS"),
                             ({"readOnly": {}}, "STACK_INCOMPATIBLE_WITH_CONNECTIONS"),
                             ({"cow": {}}, "STACK_INCOMPATIBLE_WITH_CONNECTIONS"),
                             ({"fault": {"alignmentBytes": 4096}}, "STACK_INCOMPATIBLE_WITH_CONNECTIONS"),
                             ({"slice": {"range": {"offsetBytes": str(5 * MiB)}}}, "FILTER_PARAMETERS_INVALID"),
                             ({"slice": {"partition": 1}}, "FILTER_PARAMETERS_INVALID"),
                             ({"verify": {"referenceImage": "images/other"}}, "STACK_INCOMPATIBLE_WITH_CONNECTIONS"),
                             ({"verify": {"referenceImage": "images/none"}}, "RESOURCE_NOT_FOUND")):
            self.try_and_do("ExportService/AttachFilter", {"name": "exports/trial", "entry": {"spec": spec}}, reason)
        self.try_and_do("ExportService/AttachFilter", {"name": "exports/trial", "entry": {"filter": "filters/shared"}, "index": 1})
        self.try_and_do("ExportService/UpdateExport", {"updateMask": "filterStack", "export": {
            "name": "exports/trial", "filterStack": [inline("first", stats={}), {"filter": "filters/shared", "bypassed": True}]}})
        self.assertEqual(handle.pread(4096, 0), b"t" * 4096)

    def test_changes_are_kept_apart_from_an_image_that_others_stand_on(self):
        path = self.daemon.file("golden.qcow2")
        run("qemu-img", "create", "-q", "-f", "qcow2", path, "4M")
        run("qemu-io", "-f", "qcow2", "-c", "w -P 7 0 4M", path)
        run("cp", path, os.path.join(self.daemon.pool, "golden-source"))
        self.daemon.result(self.daemon.call("ImageService/ImportImage", {
            "imageId": "golden", "image": {"qcow2": {}}, "sourceFile": "golden-source"}))
        self.daemon.result(self.daemon.call("ImageService/CloneImage", {"imageId": "child", "source": "images/golden"}))
        refused = self.daemon.refusal("ExportService/CreateExport", {"exportId": "golden", "export": {"source": "images/golden"}})
        self.assertEqual(refused.reason, "IMAGE_HAS_DEPENDENTS", refused)
        self.daemon.create_export("golden", "golden", filterStack=[inline("apart", cow={})])
        handle = self.connect(self.daemon.uri("golden"))
        handle.pwrite(b"x" * 5000, 10000)
        self.attach("golden", inline("count", stats={}))
        self.assertEqual(handle.pread(8192, 8192), b"\7" * 1808 + b"x" * 5000 + b"\7" * 1384)
        error = self.daemon.refusal("ExportService/DetachFilter", {"name": "exports/golden", "entryId": "apart"})
        self.assertIn(error.reason, ("STACK_INCOMPATIBLE_WITH_CONNECTIONS", "IMAGE_HAS_DEPENDENTS"), error)
        harness.hang_up(handle)
        self.daemon.create_export("child", "child", readOnly=True)
        self.assertEqual(self.connect(self.daemon.uri("child")).pread(MiB, 0), b"\7" * MiB)

    def test_reads_bring_a_clone_what_it_stands_on(self):
        path = self.daemon.file("below.qcow2")
        run("qemu-img", "create", "-q", "-f", "qcow2", path, "4M")
        run("qemu-io", "-f", "qcow2", "-c", "w -P 9 1M 1M", path)
        run("cp", path, os.path.join(self.daemon.pool, "below-source"))
        self.daemon.result(self.daemon.call("ImageService/ImportImage", {
            "imageId": "below", "image": {"qcow2": {}}, "sourceFile": "below-source"}))
        self.daemon.result(self.daemon.call("ImageService/CloneImage", {"imageId": "filled", "source": "images/below"}))
        self.daemon.create_export("filled", "filled", filterStack=[inline("fill", copyOnRead={})])
        handle = self.connect(self.daemon.uri("filled"))
        self.assertEqual(handle.pread(4 * MiB, 0), bytes(MiB) + b"\x09" * MiB + bytes(2 * MiB))
        extents = self.daemon.call("InspectService/Map", {"name": "exports/filled"})["extents"]
        self.assertEqual([(int(e.get("offset", 0)), e.get("data", False), e.get("depth", 0)) for e in extents],
                         [(0, False, 0), (MiB, True, 1), (2 * MiB, False, 0)])
        self.assertGreaterEqual(self.counters("filled", "fill")["bytes_filled"], MiB)

    def test_a_cache_loses_nothing_that_was_flushed_and_a_difference_is_found(self):
        self.daemon.serve("cached", 16 * MiB, filterStack=[inline("cache", cache={"mode": "MODE_WRITEBACK"})])
        handle = self.connect(self.daemon.uri("cached"))
        handle.pwrite(b"f" * 8192, 0)
        handle.flush()
        self.daemon.kill()
        self.daemon.start()
        handle = self.connect(self.daemon.uri("cached"))
        self.assertEqual(handle.pread(8192, 0), b"f" * 8192)
        handle.pwrite(b"u" * 8192, 8192)
        self.detach("cached", "cache")
        self.assertEqual(handle.pread(16384, 0), b"f" * 8192 + b"u" * 8192)
        harness.hang_up(handle)
        self.daemon.serve("mirror", 16 * MiB)
        other = self.connect(self.daemon.uri("mirror"))
        other.pwrite(b"f" * 8192 + b"u" * 8191 + b"!", 0)
        harness.hang_up(other)
        self.daemon.delete_export("mirror")
        self.daemon.create_export("compared", "cached", readOnly=True,
                                  filterStack=[inline("same", verify={"referenceImage": "images/mirror"})])
        handle = self.connect(self.daemon.uri("compared"))
        self.assertEqual(handle.pread(8192, 0), b"f" * 8192)
        self.assertEqual(errno_of(lambda: handle.pread(8192, 8192)), "EIO")
        self.assertEqual(self.counters("compared", "same")["mismatches"], 1)

    def create_qcow2(self, image_id, size, **fields):
        return self.daemon.result(self.daemon.call("ImageService/CreateImage", {
            "imageId": image_id, "image": {"qcow2": {}, "virtualSizeBytes": str(size), **fields}}))

    def test_changes_that_an_image_keeps_survive_a_crash(self):
        self.daemon.serve("base", 4 * MiB)
        handle = self.connect(self.daemon.uri("base"))
        handle.pwrite(b"\5" * (4 * MiB), 0)
        harness.hang_up(handle)
        self.daemon.delete_export("base")
        self.create_qcow2("changes", 4 * MiB)
        self.daemon.create_export("apart", "base", filterStack=[inline("cow", cow={"image": {"image": "images/changes"}})])
        handle = self.connect(self.daemon.uri("apart"))
        handle.pwrite(b"x" * 5000, 100000)
        handle.zero(MiB, 2 * MiB)
        handle.flush()
        handle.pwrite(b"lost or not", 0)
        self.daemon.kill()
        self.daemon.start()
        handle = self.connect(self.daemon.uri("apart"))
        expected = bytearray(b"\5" * (4 * MiB))
        expected[100000:105000] = b"x" * 5000
        expected[2 * MiB:3 * MiB] = bytes(MiB)
        self.assertEqual(handle.pread(4 * MiB - 512, 512), bytes(expected[512:]))
        extents = self.daemon.call("InspectService/Map", {"name": "exports/apart"})["extents"]
        zeroes = [(int(e["offset"]), int(e["length"])) for e in extents if not e.get("data")]
        self.assertEqual((zeroes, {e["depth"] for e in extents}), ([(2 * MiB, MiB)], {1}))
        told, = self.daemon.call("InspectService/Explain", {"name": "exports/apart", "offset": "100000", "length": "1"})["extents"]
        self.assertEqual((told["steps"][0]["effect"], told["layers"][0]["image"]), ("EFFECT_KEPT", "images/changes"))
        # The image is in use, and shows it; the export's own image is not written to.
        shown = self.daemon.call("ImageService/GetImage", {"name": "images/changes"})
        self.assertEqual(shown["dependents"], ["exports/apart"])
        self.assertEqual(self.daemon.refusal("ImageService/DeleteImage", {"name": "images/changes"}).reason, "IMAGE_IN_USE")
        refused = self.daemon.refusal("ImageService/CloneImage", {"imageId": "clone", "source": "images/changes"})
        self.assertEqual(refused.reason, "IMAGE_IN_USE", refused)
        self.daemon.result(self.daemon.call("ImageService/CloneImage", {"imageId": "clone", "source": "images/base"}))
        harness.hang_up(handle)
        self.daemon.delete_export("apart")
        run("qemu-img", "check", os.path.join(self.daemon.pool, "changes.qcow2"))
        # With images that stand on it, it keeps nothing any more.
        self.daemon.result(self.daemon.call("ImageService/CloneImage", {"imageId": "frozen", "source": "images/changes"}))
        refused = self.daemon.refusal("ExportService/CreateExport", {"exportId": "apart", "export": {
            "source": "images/base", "filterStack": [inline("cow", cow={"image": {"image": "images/changes"}})]}})
        self.assertEqual(refused.reason, "IMAGE_HAS_DEPENDENTS", refused)
        self.daemon.create_export("apart", "base", readOnly=True,
                                  filterStack=[inline("cow", cow={"image": {"image": "images/changes"}})])
        self.assertEqual(self.connect(self.daemon.uri("apart")).pread(MiB, 2 * MiB), bytes(MiB))

    def test_what_is_kept_beside_a_snapshot_hides_nothing(self):
        """Clusters that a snapshot has, too, are copied when they change; that makes no changes of the rest."""
        self.daemon.create_image("plain", MiB)
        self.daemon.create_export("plain", "plain")
        handle = self.connect(self.daemon.uri("plain"))
        handle.pwrite(b"\5" * MiB, 0)
        harness.hang_up(handle)
        self.daemon.delete_export("plain")
        path = os.path.join(self.daemon.pool, "snapped-source")
        run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "extended_l2=on", path, "1M")
        run("qemu-io", "-f", "qcow2", "-c", "w -P 6 0 2k", path)
        run("qemu-img", "snapshot", "-c", "one", path)
        self.daemon.result(self.daemon.call("ImageService/ImportImage", {
            "imageId": "snapped", "image": {"qcow2": {}}, "sourceFile": "snapped-source", "move": True}))
        self.daemon.create_export("snapped", "plain", filterStack=[inline("cow", cow={"image": {"image": "images/snapped"}})])
        handle = self.connect(self.daemon.uri("snapped"))
        handle.pwrite(b"x" * 2048, 8192)
        handle.zero(2048, 16384, nbd.CMD_FLAG_NO_HOLE)
        expected = b"\6" * 2048 + b"\5" * 6144 + b"x" * 2048 + b"\5" * 6144 + bytes(2048) + b"\5" * 6144
        self.assertEqual(handle.pread(len(expected), 0), expected)
        handle.flush()
        for end in (self.daemon.kill, self.daemon.stop):
            end()
            self.daemon.start()
            handle = self.connect(self.daemon.uri("snapped"))
            self.assertEqual(handle.pread(len(expected), 0), expected)
        # What comes from there is in no image of the export's chain.
        extent = self.daemon.call("InspectService/Map", {"name": "exports/snapped"})["extents"][0]
        self.assertEqual((extent["length"], extent.get("image"), extent.get("hostOffset")), ("2048", None, None))

    def test_images_that_filters_write_to_are_those_that_nothing_stands_on(self):
        for name in ("written", "twin", "another"):
            self.daemon.create_image(name, MiB)
        self.daemon.call("FilterService/CreateFilter", {"filterId": "same", "filter": {
            "spec": {"verify": {"referenceImage": "images/twin"}}}})
        self.daemon.create_export("written", "written", filterStack=[{"filter": "filters/same"}])
        clone = {"imageId": "twin-clone", "source": "images/twin"}
        self.assertEqual(self.daemon.refusal("ImageService/CloneImage", clone).reason, "IMAGE_IN_USE")
        self.assertEqual(self.daemon.refusal("ImageService/DeleteImage", {"name": "images/twin"}).reason, "IMAGE_IN_USE")
        self.assertEqual(self.daemon.call("ImageService/GetImage", {"name": "images/twin"})["dependents"], ["exports/written"])
        # Then it is another image, for all who have the filter.
        self.daemon.call("FilterService/UpdateFilter", {"filter": {
            "name": "filters/same", "spec": {"verify": {"referenceImage": "images/another"}}}})
        self.assertNotIn("dependents", self.daemon.call("ImageService/GetImage", {"name": "images/twin"}))
        self.daemon.result(self.daemon.call("ImageService/CloneImage", clone))
        back = {"filter": {"name": "filters/same", "spec": {"verify": {"referenceImage": "images/twin"}}}}
        refused = self.daemon.refusal("FilterService/UpdateFilter", back)
        self.assertEqual(refused.reason, "IMAGE_HAS_DEPENDENTS", refused)
        self.daemon.update_export("written", "readOnly", readOnly=True)
        self.daemon.call("FilterService/UpdateFilter", back)
        self.daemon.kill()
        self.daemon.start()
        refused = self.daemon.refusal("ExportService/UpdateExport", {
            "export": {"name": "exports/written", "readOnly": False}, "updateMask": "readOnly"})
        self.assertEqual(refused.reason, "IMAGE_HAS_DEPENDENTS", refused)
        self.assertEqual(self.daemon.refusal("ImageService/DeleteImage", {"name": "images/twin"}).reason, "IMAGE_IN_USE")

    def test_what_reads_fill_in_counts_as_written(self):
        self.daemon.create_image("fill-base", MiB)
        self.create_qcow2("fill-kept", MiB)
        self.daemon.result(self.daemon.call("ImageService/CloneImage", {"imageId": "fill-top", "source": "images/fill-base"}))
        stack = [inline("fill", copyOnRead={}), inline("cow", cow={"image": {"image": "images/fill-kept"}})]
        self.daemon.create_export("filling", "fill-top", readOnly=True, filterStack=stack)
        clone = {"imageId": "fill-clone", "source": "images/fill-kept"}
        refused = self.daemon.refusal("ImageService/CloneImage", clone)
        self.assertEqual((refused.reason, refused.metadata["exports"]), ("IMAGE_IN_USE", "exports/filling"))
        self.daemon.delete_export("filling")
        self.daemon.result(self.daemon.call("ImageService/CloneImage", clone))
        refused = self.daemon.refusal("ExportService/CreateExport", {"exportId": "filling", "export": {
            "source": "images/fill-top", "readOnly": True, "filterStack": stack}})
        self.assertEqual(refused.reason, "IMAGE_HAS_DEPENDENTS", refused)
        # Bypassed, its image may have what stands on it, and is kept.
        for entry in stack:
            entry["bypassed"] = True
        self.daemon.create_export("filling", "fill-top", readOnly=True, filterStack=stack)
        self.daemon.result(self.daemon.call("ImageService/DeleteImage", {"name": "images/fill-clone"}))
        self.assertEqual(self.daemon.refusal("ImageService/DeleteImage", {"name": "images/fill-kept"}).reason, "IMAGE_IN_USE")

    @unittest.skipUnless(shutil.which("veritysetup"), "veritysetup is missing (cryptsetup-bin)")
    def test_a_disk_is_verified_by_the_hash_tree_that_veritysetup_made(self):
        data, hashes = self.daemon.file("verity.data"), self.daemon.file("verity.hashes")
        content = harness.random_source().randbytes(4 * MiB)
        harness.write_file(data, (0, content), size=4 * MiB)
        made = run("veritysetup", "format", data, hashes).stdout
        root = re.search(r"Root hash:\s+([0-9a-f]+)", made).group(1)
        damaged = 1234567
        self.daemon.import_file("verity-good", data)
        wrong = bytes([content[damaged] ^ 1])
        harness.write_file(data, (0, content[:damaged] + wrong + content[damaged + 1:]), size=4 * MiB)
        self.daemon.import_file("verity-bad", data)
        self.daemon.import_file("verity-hashes", hashes)

        def spec(**fields):
            return {"hashTree": {"image": "images/verity-hashes", "rootDigest": root, **fields}}

        stack = [inline("count", stats={}), inline("tree", verify=spec(sizeBytes=str(4 * MiB)))]
        self.daemon.create_export("verity-good", "verity-good", filterStack=stack)
        handle = self.connect(self.daemon.uri("verity-good"))
        self.assertTrue(handle.is_read_only())
        self.assertEqual(b"".join(handle.pread(MiB, at) for at in range(0, 4 * MiB, MiB)), content)
        self.assertEqual(handle.pread(5000, 4095), content[4095:9095])
        self.assertEqual(self.counters("verity-good", "tree")["mismatches"], 0)
        harness.hang_up(handle)
        self.daemon.delete_export("verity-good")
        self.daemon.create_export("verity-bad", "verity-bad", filterStack=stack)
        handle = self.connect(self.daemon.uri("verity-bad"))
        block = damaged // 4096 * 4096
        self.assertEqual(handle.pread(block, 0), content[:block])
        self.assertEqual(errno_of(lambda: handle.pread(1, block)), "EIO")
        self.assertEqual(handle.pread(4 * MiB - block - 4096, block + 4096), content[block + 4096:])
        self.daemon.call("ExportService/UpdateExport", {"export": {"name": "exports/verity-bad", "filterStack": [
            stack[0], inline("tree", verify={**spec(sizeBytes=str(4 * MiB)), "onMismatch": "ON_MISMATCH_REPORT"})]},
            "updateMask": "filterStack"})
        self.assertEqual(handle.pread(1, damaged), wrong)
        harness.hang_up(handle)
        self.daemon.delete_export("verity-bad")
        for fields, field in ((spec(sizeBytes="4096"), "hash_tree.size_bytes"),
                              (spec(image="images/verity-bad"), "hash_tree.image"),
                              (spec(rootDigest=root * 2), "hash_tree")):
            error = self.daemon.refusal("ExportService/CreateExport", {"exportId": "verity", "export": {
                "source": "images/verity-good", "filterStack": [inline("tree", verify=fields)]}})
            self.assertEqual(error.reason, "FILTER_PARAMETERS_INVALID", error)
            self.assertEqual([v[0] for v in error.violations()], [f"export.filter_stack[0].spec.verify.{field}"])
        self.daemon.create_export("verity", "verity-good",
                                  filterStack=[inline("tree", verify=spec(rootDigest="0" * 64))])
        handle = self.connect(self.daemon.uri("verity"))
        self.assertEqual(errno_of(lambda: handle.pread(1, 0)), "EIO")

    def test_partitions_are_shown_by_their_number(self):
        path = self.daemon.file("disk.raw")
        first, second = b"1" * MiB, b"2" * (2 * MiB)
        table = bytearray(512)
        for number, (start, count) in enumerate(((2048, 2048), (4096, 4096))):
            table[446 + 16 * number:462 + 16 * number] = (
                b"\0\0\0\0\x83\0\0\0" + start.to_bytes(4, "little") + count.to_bytes(4, "little"))
        table[510:] = b"\x55\xaa"
        harness.write_file(path, (0, bytes(table)), (MiB, first), (2 * MiB, second), size=5 * MiB)
        self.daemon.serve("disk", path=path)
        for number, content in ((1, first), (2, second)):
            self.daemon.create_export(f"part-{number}", "disk", filterStack=[inline("p", slice={"partition": number})])
            handle = self.connect(self.daemon.uri(f"part-{number}"))
            self.assertEqual(handle.get_size(), len(content))
            self.assertEqual(handle.pread(MiB, 0), content[:MiB])
        error = self.daemon.refusal("ExportService/CreateExport", {"exportId": "part-3", "export": {
            "source": "images/disk", "filterStack": [inline("p", slice={"partition": 3})]}})
        self.assertEqual(error.reason, "FILTER_PARAMETERS_INVALID", error)
        self.assertEqual([v[0] for v in error.violations()], ["export.filter_stack[0].spec.slice.partition"])

    def test_swaps_of_random_stacks_under_load(self):
        rng = harness.random_source()
        uri = self.daemon.serve("swaps", 64 * MiB)
        kinds = {"stats": {}, "log": {"failuresOnly": True}, "retry": {}, "readahead": {}, "align": {"alignmentBytes": 4096},
                 "featureMask": {"hideTrim": True}, "slice": {"range": {}}, "delay": {"read": "0.0002s"},
                 "throttle": {"totalBytes": {"averagePerSecond": "100000000000"}}}
        # A worker of our own beside it knows every byte.
        from live_test import Worker
        other = self.daemon.serve("swaps-2", 16 * MiB)
        worker = Worker(other, 0, 2048, random.Random(rng.random()))
        worker.start()
        self.addCleanup(worker.finish)
        swaps, longest = 0, 0.0

        def swap():
            nonlocal swaps, longest
            export = ("swaps", "swaps-2")[swaps % 2]
            chosen = rng.sample(sorted(kinds), rng.randrange(6))
            entries = [{**inline(f"e{i}", **{kind: kinds[kind]}), "bypassed": rng.random() < 0.2} for i, kind in enumerate(chosen)]
            began = time.monotonic()
            self.daemon.update_export(export, "filterStack", filterStack=entries)
            longest = max(longest, time.monotonic() - began)
            swaps += 1
        worst, requests = {"read": 0, "write": 0}, 0
        while swaps < SWAPS:  # under one fio after the other
            fio = self.fio_for(uri, seconds=5)
            while fio.poll() is None:
                swap()
            output, _ = fio.communicate()
            self.assertEqual(fio.returncode, 0, output)
            job = json.loads(output[output.index("{"):])["jobs"][0]
            self.assertEqual(job["error"], 0)
            for direction in worst:
                worst[direction] = max(worst[direction], job[direction]["clat_ns"]["percentile"]["99.000000"] / 1e6)
                requests += job[direction]["total_ios"]
        worker.finish()
        self.assertIsNone(worker.failure)
        print(f"{swaps} swaps under {requests} requests: p99 of the worst 5 s in ms: {worst}; longest call {longest * 1e3:.0f} ms")
        self.assertLess(max(worst.values()), 100)

    def fio_for(self, uri, seconds):
        return harness.start(["fio", "--name=job", "--ioengine=nbd", f"--uri={uri}", "--output-format=json", "--rw=randrw",
                              "--bs=4k", "--iodepth=32", "--size=64M", "--verify=crc32c", "--verify_fatal=1",
                              "--verify_backlog=256", "--time_based", f"--runtime={seconds}"],
                             cwd=self.daemon.base, stdout=harness.subprocess.PIPE, stderr=harness.subprocess.STDOUT, text=True)

    def test_a_throttle_keeps_its_rate_and_is_fair(self):
        self.daemon.call("FilterService/CreateFilter", {"filterId": "rate", "filter": {"spec": {"throttle": {
            "readBytes": {"averagePerSecond": str(40 * MiB)}}}}})
        uris = [self.daemon.serve(f"rate-{i}", 64 * MiB, filterStack=[{"filter": "filters/rate"}]) for i in range(2)]
        seconds = int(os.environ.get("GABION_THROTTLE_SECONDS", "4"))
        done = [0, 0]

        def read(number, size, depth):
            handle = harness.nbd_connect(uris[number])
            buffers = [nbd.Buffer(size) for _ in range(depth)]
            cookies = [handle.aio_pread(buffer, 0) for buffer in buffers]
            while time.monotonic() < end:
                for i, cookie in enumerate(cookies):
                    if handle.aio_command_completed(cookie):
                        if time.monotonic() >= begin:
                            done[number] += size
                        cookies[i] = handle.aio_pread(buffers[i], 0)
                handle.poll(100)
            harness.hang_up(handle)
        # What a pause had saved is used up before it counts.
        begin = time.monotonic() + 1
        end = begin + seconds
        threads = [threading.Thread(target=read, args=args) for args in ((0, 64 * KiB, 16), (1, 16 * KiB, 4))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rate = sum(done) / seconds / MiB
        print(f"40 MiB/s asked for, {rate:.2f} MiB/s in {seconds} s; shares {done[0] / MiB:.1f} and {done[1] / MiB:.1f} MiB")
        self.assertLess(abs(rate - 40) / 40, 0.05)
        self.assertLess(abs(done[0] - done[1]) / sum(done), 0.1)


if __name__ == "__main__":
    harness.main(commands=["fio", "qemu-img", "qemu-io", "cp"])
