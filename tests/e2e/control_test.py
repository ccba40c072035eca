"""The control plane as its callers see it: resources, lists, changes that reach clients or do not, inspection."""

import base64
import os

import harness
import nbd
from harness import MiB, errno_of, run, tail, write_file

UUID4 = r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"


class ResourcesTest(harness.GabionTestCase):
    def test_the_server_says_what_it_is(self):
        info = self.daemon.call("ServerService/GetServerInfo", {})
        self.assertRegex(info["version"], r"^\d+\.\d+\.\d+$")
        self.assertIn(info["ioDriver"], ("io_uring", "threads"))
        self.assertGreaterEqual(info["shardCount"], 1)
        self.assertEqual(info["nbdAddresses"], ["unix:" + self.daemon.nbd_socket])
        self.assertEqual(info["grpcAddresses"], ["unix:" + self.daemon.socket])
        self.assertEqual(info["limits"]["handshakeTimeout"], "10s")
        for name in ("maxConnections", "maxConnectionsPerExport", "maxInflightRequestsPerConnection",
                     "maxInflightBytesPerConnection", "maxInflightBytes", "maxInspectBytes"):
            self.assertGreater(int(info["limits"][name]), 0)

    def test_the_default_pool(self):
        pool = self.daemon.call("PoolService/GetPool", {"name": "pools/default"})
        self.assertEqual((pool["name"], pool["state"]), ("pools/default", "STATE_ACTIVE"))
        self.assertGreater(int(pool["sizeBytes"]), int(pool["freeBytes"]))
        self.assertEqual([p["name"] for p in self.daemon.call("PoolService/ListPools", {})["pools"]], ["pools/default"])

    def test_an_image_from_creation_to_deletion(self):
        image = self.daemon.create_image("life", 1000300)
        self.assertEqual((image["name"], image["pool"], image["virtualSizeBytes"], image["state"], image["generation"]),
                         ("images/life", "pools/default", "1000300", "STATE_ACTIVE", "1"))
        self.assertRegex(image["uid"], UUID4)
        changed = self.daemon.call("ImageService/UpdateImage", {
            "image": {"name": "images/life", "labels": {"owner": "me", "a.b/c-d_e": "ünï"}, "virtualSizeBytes": "2000000"}})
        self.assertEqual((changed["virtualSizeBytes"], changed["labels"], changed["generation"]),
                         ("2000000", {"owner": "me", "a.b/c-d_e": "ünï"}, "2"))
        self.assertEqual(self.daemon.call("ImageService/GetImage", {"name": "images/life"})["labels"]["owner"], "me")
        self.daemon.delete_image("life")
        self.assertEqual(self.daemon.refusal("ImageService/GetImage", {"name": "images/life"}).code, "NOT_FOUND")
        again = self.daemon.create_image("life", 1)
        self.assertNotEqual(again["uid"], image["uid"])
        self.daemon.delete_image("life")

    def test_growing_reaches_new_connections(self):
        uri = self.daemon.serve("grows", MiB)
        old = self.connect(uri)
        self.daemon.call("ImageService/UpdateImage", {
            "image": {"name": "images/grows", "virtualSizeBytes": str(2 * MiB)}, "updateMask": "virtualSizeBytes"})
        self.assertEqual(errno_of(lambda: old.pread(512, 0)), "OK")
        new = self.connect(uri)
        self.assertEqual((old.get_size(), new.get_size()), (MiB, 2 * MiB))
        new.pwrite(b"x" * 512, 2 * MiB - 512)
        self.assertEqual(new.pread(512, 2 * MiB - 512), b"x" * 512)

    def test_deletion_is_refused_while_in_use(self):
        uri = self.daemon.serve("used", MiB)
        error = self.daemon.refusal("ImageService/DeleteImage", {"name": "images/used"})
        self.assertEqual((error.code, error.reason, error.metadata["exports"]),
                         ("FAILED_PRECONDITION", "IMAGE_IN_USE", "exports/used"))
        handle = self.connect(uri)
        error = self.daemon.refusal("ExportService/DeleteExport", {"name": "exports/used"})
        self.assertEqual((error.code, error.reason, error.metadata["export"]),
                         ("FAILED_PRECONDITION", "EXPORT_HAS_CONNECTIONS", "exports/used"))
        self.assertEqual(handle.pread(512, 0), bytes(512))
        harness.hang_up(handle)
        self.daemon.delete_export("used")
        self.daemon.delete_image("used")
        self.assertNotIn("used", " ".join(os.listdir(self.daemon.pool)))

    def test_uris_lead_to_the_export(self):
        self.daemon.create_image("uris", MiB)
        export = self.daemon.create_export("uris", "uris", nbdName="a b/c?d&e=f#g%h+ü")
        uri, = export["uris"]
        self.assertEqual(self.connect(uri).get_size(), MiB)
        run("qemu-img", "info", uri)

    def test_tcp(self):
        with harness.Gabiond("--nbd-listen=127.0.0.1:0", "--grpc-listen=127.0.0.1:0") as daemon:
            daemon.create_image("i", MiB)
            tcp = daemon.create_export("tcp", "i", access={"transport": "TRANSPORT_PLAINTEXT_TCP"})
            unix = daemon.create_export("unix", "i")
            self.assertEqual(sorted(uri.split(":")[0] for uri in tcp["uris"]), ["nbd", "nbd+unix"])
            self.assertEqual([uri.split(":")[0] for uri in unix["uris"]], ["nbd+unix"])
            for uri in tcp["uris"]:
                self.assertEqual(self.connect(uri).pread(512, 0), bytes(512))
            address = next(uri for uri in tcp["uris"] if uri.startswith("nbd:"))
            with self.assertRaises(nbd.Error):
                harness.nbd_connect(address.replace("/tcp", "/unix"))
            listed = run("nbdinfo", "--list", "--json", address).stdout
            self.assertNotIn('"unix"', listed)
            info = daemon.call("ServerService/GetServerInfo", {})
            grpc, = (a for a in info["grpcAddresses"] if not a.startswith("unix:"))
            run(os.environ["GABION_CTL"], "--server", grpc, "call", "ServerService/GetServerInfo", "{}")


class ListsTest(harness.GabionTestCase):
    COUNT = 7

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for number in range(cls.COUNT):
            cls.daemon.create_image(f"i{number}", 512)
            cls.daemon.create_export(f"e{number}", f"i{number}")

    def pages(self, method, key, size):
        token, seen = "", []
        while True:
            reply = self.daemon.call(method, {"pageSize": size, "pageToken": token})
            self.assertLessEqual(len(reply[key]), size)
            seen += [resource["name"] for resource in reply[key]]
            token = reply.get("nextPageToken", "")
            if not token:
                return seen

    def test_pages_repeat_and_lose_nothing(self):
        for size in (1, 3, 7, 1000):
            with self.subTest(size=size):
                self.assertEqual(self.pages("ImageService/ListImages", "images", size),
                                 [f"images/i{n}" for n in range(self.COUNT)])
                self.assertEqual(self.pages("ExportService/ListExports", "exports", size),
                                 [f"exports/e{n}" for n in range(self.COUNT)])

    def test_what_is_deleted_or_created_between_pages_disturbs_nobody_else(self):
        first = self.daemon.call("ImageService/ListImages", {"pageSize": 3})
        self.daemon.delete_export("e2")
        self.daemon.delete_image("i2")
        self.daemon.create_image("a-new-one", 512)
        rest = self.daemon.call("ImageService/ListImages", {"pageSize": 100, "pageToken": first["nextPageToken"]})
        self.assertEqual([i["name"] for i in rest["images"]], [f"images/i{n}" for n in range(3, self.COUNT)])
        self.daemon.delete_image("a-new-one")
        self.daemon.create_image("i2", 512)
        self.daemon.create_export("e2", "i2")

    def test_bad_pages(self):
        token = self.daemon.call("ImageService/ListImages", {"pageSize": 3})["nextPageToken"]
        for request, reason in (({"pageSize": -1}, "PAGE_SIZE_NEGATIVE"), ({"pageToken": "forged"}, "PAGE_TOKEN_INVALID"),
                                ({"pageToken": token[:-1]}, "PAGE_TOKEN_INVALID")):
            with self.subTest(request):
                error = self.daemon.refusal("ImageService/ListImages", request)
                self.assertEqual((error.code, error.reason), ("INVALID_ARGUMENT", reason))
        error = self.daemon.refusal("ExportService/ListExports", {"pageToken": token})
        self.assertEqual(error.reason, "PAGE_TOKEN_INVALID")

    def test_connections_page_too(self):
        handles = [self.connect(self.daemon.uri("e0")) for _ in range(5)]
        token, names = "", []
        while True:
            reply = self.daemon.call("ExportService/ListConnections",
                                     {"parent": "exports/e0", "pageSize": 2, "pageToken": token})
            names += [c["name"] for c in reply["connections"]]
            token = reply.get("nextPageToken")
            if not token:
                break
        self.assertEqual(len(set(names)), len(handles))
        self.assertEqual(names, sorted(names, key=lambda name: int(name.rsplit("/", 1)[1])))


class LiveChangesTest(harness.GabionTestCase):
    def serve(self, name, **fields):
        return self.daemon.serve(name, MiB, **fields)

    def test_block_sizes_reach_new_connections_and_old_ones_keep_theirs(self):
        uri = self.serve("sizes")
        old = self.connect(uri, strict=False)
        changed = self.daemon.update_export("sizes", "blockSizes", blockSizes={"minimumBytes": 4096})
        self.assertEqual((changed["effectiveBlockSizes"]["minimum"]["bytes"], changed["generation"]), (4096, "2"))
        new = self.connect(uri)
        self.assertEqual(new.get_block_size(nbd.SIZE_MINIMUM), 4096)
        old.pwrite(b"abc", 1001)
        self.assertEqual(old.pread(5, 1000), b"\0abc\0")
        self.assertEqual(new.pread(4096, 0)[1000:1005], b"\0abc\0")
        told = [(c["negotiatedMinimumBytes"], c["specGeneration"]) for c in self.daemon.connections("sizes")]
        self.assertEqual(told, [(1, "1"), (4096, "2")])

    def test_read_only_is_live(self):
        uri = self.serve("freeze")
        handle = self.connect(uri, strict=False)
        handle.pwrite(b"a" * 512, 0)
        self.daemon.update_export("freeze", "readOnly", readOnly=True)
        self.assertEqual(errno_of(lambda: handle.pwrite(b"b" * 512, 0)), "EPERM")
        self.assertEqual(errno_of(lambda: handle.zero(512, 0)), "EPERM")
        self.assertEqual(handle.pread(512, 0), b"a" * 512)
        handle.flush()
        new = self.connect(uri)
        self.assertTrue(new.is_read_only())
        self.daemon.update_export("freeze", "readOnly", readOnly=False)
        self.assertEqual(errno_of(lambda: handle.pwrite(b"b" * 512, 0)), "EPERM")  # its own word stays
        third = self.connect(uri)
        self.assertFalse(third.is_read_only())
        third.pwrite(b"c" * 512, 0)

    def test_disabling_hides_and_those_connected_go_on(self):
        uri = self.serve("hides")
        handle = self.connect(uri)
        self.assertEqual(self.daemon.update_export("hides", "enabled", enabled=False)["state"], "STATE_HIDDEN")
        self.assertEqual(handle.pread(512, 0), bytes(512))
        with self.assertRaises(nbd.Error):
            harness.nbd_connect(uri)
        self.daemon.update_export("hides", "enabled", enabled=True)
        self.assertEqual(self.connect(uri).pread(512, 0), bytes(512))

    def test_closing_a_connection(self):
        uri = self.serve("closes")
        first, second = self.connect(uri), self.connect(uri)
        victim, other = self.daemon.connections("closes")
        self.assertRegex(victim["name"], r"^exports/closes/connections/\d+$")
        self.assertEqual(self.daemon.call("ExportService/GetConnection", {"name": victim["name"]})["name"], victim["name"])
        self.daemon.call("ExportService/CloseConnection", {"name": victim["name"]})
        self.assertNotEqual(errno_of(lambda: first.pread(512, 0)), "OK")
        self.assertEqual(second.pread(512, 0), bytes(512))
        harness.wait_until(lambda: [c["name"] for c in self.daemon.connections("closes")] == [other["name"]], "it is gone")
        error = self.daemon.refusal("ExportService/CloseConnection", {"name": victim["name"]})
        self.assertEqual((error.code, error.reason), ("NOT_FOUND", "RESOURCE_NOT_FOUND"))

    def test_a_connection_tells_what_it_negotiated(self):
        uri = self.serve("tells", block_sizes={"minimumBytes": 512})
        self.connect(uri)
        self.connect(uri, structured=False, block_sizes=False)
        careful, careless = self.daemon.connections("tells")
        self.assertEqual((careful["requestedBlockSizes"], careful["structuredReplies"]), (True, True))
        self.assertRegex(careful["peerAddress"], r"^unix\b")
        self.assertFalse(careless.get("requestedBlockSizes", False) or careless.get("structuredReplies", False))
        self.assertEqual(careful["negotiatedMaximumPayloadBytes"], 32 * MiB)
        export = self.daemon.call("ExportService/GetExport", {"name": "exports/tells"})
        self.assertEqual(export["connectionCount"], 2)

    def test_who_determined_the_block_sizes(self):
        self.daemon.create_image("origin", 1000300)
        plain = self.daemon.create_export("origin-plain", "origin")["effectiveBlockSizes"]
        self.assertEqual((plain["minimum"]["bytes"], plain["preferred"]["bytes"], plain["maximumPayload"]["bytes"]),
                         (1, 4096, 32 * MiB))
        asked = self.daemon.create_export("origin-asked", "origin", tail(4096, "PAD_ZERO"))["effectiveBlockSizes"]
        self.assertEqual((asked["minimum"]["origin"], asked["minimum"]["determinedBy"], asked["exportSizeBytes"]),
                         ("ORIGIN_POLICY", "exports/origin-asked", "1003520"))

    def test_the_alignment_of_an_image_is_the_minimum_of_its_exports_unless_a_policy_asks_for_more(self):
        self.daemon.call("ImageService/CreateImage", {"imageId": "aligned", "image": {
            "raw": {"requestAlignmentBytes": 4096}, "virtualSizeBytes": str(MiB)}})
        sizes = self.daemon.create_export("aligned", "aligned")["effectiveBlockSizes"]
        self.assertEqual((sizes["minimum"]["bytes"], sizes["minimum"]["origin"]), (4096, "ORIGIN_STORAGE"))
        handle = self.connect(self.daemon.uri("aligned"), strict=False)
        handle.pwrite(b"abc", 1001)
        self.assertEqual(handle.pread(5, 1000), b"\0abc\0")


class ImportTest(harness.GabionTestCase):
    def put(self, name, content=b"content", size=None):
        path = os.path.join(self.daemon.pool, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return write_file(path, (0, content), size=size)

    def import_request(self, image_id, source, **fields):
        return {"imageId": image_id, "image": {"raw": {}, **fields.pop("image", {})}, "sourceFile": source, **fields}

    def imported(self, request):
        return self.daemon.result(self.daemon.call("ImageService/ImportImage", request))

    def test_copy_leaves_the_source_and_keeps_holes(self):
        source = self.put("sub/copied.raw", size=64 * MiB)
        image = self.imported(self.import_request("copied", "sub/copied.raw"))
        self.assertEqual(image["virtualSizeBytes"], str(64 * MiB))
        self.assertLess(int(image["allocatedBytes"]), MiB)
        self.daemon.create_export("copied", "copied")
        handle = self.connect(self.daemon.uri("copied"))
        self.assertEqual(handle.pread(8, 0), b"content\0")
        handle.pwrite(b"changed", 0)
        handle.flush()
        self.assertEqual(harness.read_file(source)[:7], b"content")

    def inodes(self):
        return [os.stat(os.path.join(self.daemon.pool, name)).st_ino for name in os.listdir(self.daemon.pool)]

    def test_move_takes_the_file_itself(self):
        source = self.put("source.img", size=MiB)
        inode = os.stat(source).st_ino
        self.imported(self.import_request("moved", "source.img", move=True))
        self.assertFalse(os.path.exists(source))
        self.assertIn(inode, self.inodes())

    def test_a_file_that_has_the_name_of_the_images_own_already_can_be_moved_too(self):
        inode = os.stat(self.put("same.raw", size=MiB)).st_ino
        self.imported(self.import_request("same", "same.raw", move=True))
        self.assertIn(inode, self.inodes())
        error = self.daemon.refusal("ImageService/ImportImage", self.import_request("other", "same.raw", move=True))
        self.assertEqual((error.code, error.reason), ("FAILED_PRECONDITION", "IMAGE_IN_USE"))
        self.daemon.create_export("same", "same")
        self.assertEqual(self.connect(self.daemon.uri("same")).pread(7, 0), b"content")

    def test_nothing_leads_out_of_the_pool(self):
        outside = write_file(self.daemon.file("outside.raw"), (0, b"secret"))
        links = {"link": outside, "relative-link": "../../outside.raw", "dir-link": self.daemon.base}
        for name, target in links.items():
            os.symlink(target, os.path.join(self.daemon.pool, name))
            self.addCleanup(os.unlink, os.path.join(self.daemon.pool, name))
        for source in ("../../outside.raw", "a/../../../outside.raw", outside, "/etc/passwd", "link", "relative-link",
                       "dir-link/outside.raw", "./../../outside.raw"):
            for move in (False, True):
                with self.subTest(source=source, move=move):
                    error = self.daemon.refusal("ImageService/ImportImage", self.import_request("out", source, move=move))
                    self.assertEqual((error.code, error.reason), ("PERMISSION_DENIED", "PATH_OUTSIDE_POOL"))
                    self.assertNotIn(self.daemon.base, error.message)
        self.assertEqual(harness.read_file(outside), b"secret")
        self.assertEqual(self.daemon.refusal("ImageService/GetImage", {"name": "images/out"}).code, "NOT_FOUND")

    def test_what_is_no_file_or_not_there(self):
        os.makedirs(os.path.join(self.daemon.pool, "folder"), exist_ok=True)
        os.mkfifo(os.path.join(self.daemon.pool, "fifo"))
        write_file(os.path.join(self.daemon.pool, "empty"))
        for source, codes in (("missing.raw", ("NOT_FOUND",)), ("", ("INVALID_ARGUMENT",)), ("a\0b", ("INVALID_ARGUMENT",)),
                              ("x" * 5000, ("INVALID_ARGUMENT",)), ("folder", ("INVALID_ARGUMENT", "FAILED_PRECONDITION")),
                              ("fifo", ("INVALID_ARGUMENT", "FAILED_PRECONDITION")),
                              ("empty", ("OUT_OF_RANGE",))):
            with self.subTest(source=source[:20]):
                error = self.daemon.refusal("ImageService/ImportImage", self.import_request("none", source))
                self.assertIn(error.code, codes)
                self.assertTrue(error.reason)
                self.assertEqual(error.metadata["field"], "source_file")
                self.assertNotIn("images/", error.message, "the image is not what is wrong")

    def test_a_size_that_is_not_the_files(self):
        self.put("sized.raw", size=1000)
        error = self.daemon.refusal("ImageService/ImportImage",
                                    self.import_request("sized", "sized.raw", image={"virtualSizeBytes": "1001"}))
        self.assertEqual((error.code, error.reason), ("INVALID_ARGUMENT", "SIZE_MISMATCH"))
        self.imported(self.import_request("sized", "sized.raw", image={"virtualSizeBytes": "1000"}, move=True))

    def test_a_header_of_another_format_is_only_bytes(self):
        path = os.path.join(self.daemon.pool, "q.qcow2")
        run("qemu-img", "create", "-q", "-f", "qcow2", path, "1G")
        size = os.stat(path).st_size
        image = self.imported(self.import_request("q", "q.qcow2"))
        self.assertEqual(image["virtualSizeBytes"], str(size))


class InspectTest(harness.GabionTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        path = write_file(cls.daemon.file("x"), (8192, b"x" * 4096), (MiB, b"y" * 300))
        cls.daemon.import_file("i", path)
        cls.daemon.create_export("padded", "i", tail(65536, "PAD_ZERO"))
        cls.daemon.create_export("read-only", "i", readOnly=True)

    def map(self, **request):
        extents = [e for reply in self.daemon.stream("InspectService/Map", request) for e in reply.get("extents", [])]
        at = int(extents[0].get("offset", 0))
        for extent in extents:
            self.assertEqual(int(extent.get("offset", 0)), at)
            at += int(extent["length"])
        return [(int(e.get("offset", 0)), int(e["length"]), "data" if e.get("data") else "zero") for e in extents]

    def test_maps(self):
        exact = [(0, 8192, "zero"), (8192, 4096, "data"), (12288, MiB - 12288, "zero"), (MiB, 300, "data")]
        self.assertEqual(self.map(name="images/i"), exact)
        self.assertEqual(self.map(name="images/i", startingOffset="10000", length="5000"),
                         [(10000, 2288, "data"), (12288, 2712, "zero")])
        self.assertEqual(self.map(name="exports/padded", asAdvertised=True),
                         [(0, 65536, "data"), (65536, MiB - 65536, "zero"), (MiB, 65536, "data")])
        self.assertEqual(self.map(name="images/i", granularityBytes=65536)[:2],
                         [(0, 65536, "data"), (65536, MiB - 65536, "zero")])
        self.assertEqual(self.map(name="images/i", maxResults=2), exact[:2])

    def test_the_advertised_map_is_what_clients_get(self):
        handle = self.connect(self.daemon.uri("padded"), contexts=["base:allocation"])
        at, answer = 0, []
        for length, flags in harness.extents(handle, 0, handle.get_size()):
            answer.append((at, length, "zero" if flags & 2 else "data"))
            at += length
        self.assertEqual(self.map(name="exports/padded", asAdvertised=True), answer)

    def test_read_write_verify(self):
        def pattern(data):
            return base64.b64encode(data).decode()
        self.daemon.create_image("scratch", 10000)
        self.daemon.call("InspectService/Write", {"name": "images/scratch", "offset": "100", "length": "1000",
                                                  "pattern": pattern(b"abc")})
        self.daemon.call("InspectService/Write", {"name": "images/scratch", "offset": "9990", "data": pattern(b"0123456789")})
        read = base64.b64decode(self.daemon.call("InspectService/Read",
                                                 {"name": "images/scratch", "offset": "99", "length": "1002"})["data"])
        self.assertEqual(read, b"\0" + (b"abc" * 334)[:1000] + b"\0")
        verdict = self.daemon.call("InspectService/Verify", {"name": "images/scratch", "offset": "100", "length": "1000",
                                                             "pattern": pattern(b"abc")})
        self.assertTrue(verdict["matches"])
        verdict = self.daemon.call("InspectService/Verify", {"name": "images/scratch", "offset": "9990",
                                                             "data": pattern(b"012345678x")})
        self.assertEqual((verdict.get("matches", False), verdict["firstMismatchOffset"], verdict["expectedByte"],
                          verdict["actualByte"]), (False, "9999", ord("x"), ord("9")))

    def test_writes_and_clients_see_each_other(self):
        self.daemon.create_image("both", MiB)
        self.daemon.create_export("both", "both")
        handle = self.connect(self.daemon.uri("both"))
        for name in ("images/both", "exports/both"):
            self.daemon.call("InspectService/Write", {"name": name, "offset": "512", "data": "YWJj"})
            self.assertEqual(handle.pread(3, 512), b"abc")
            handle.pwrite(b"xyz", 512)
            self.assertEqual(self.daemon.call("InspectService/Read", {"name": name, "offset": "512", "length": "3"})["data"],
                             base64.b64encode(b"xyz").decode())

    def test_refusals(self):
        for method, request, code, reason in (
                ("Read", {"name": "images/i", "offset": str(MiB), "length": "301"}, "OUT_OF_RANGE", "OFFSET_BEYOND_END"),
                ("Read", {"name": "images/i", "offset": str((1 << 64) - 1), "length": "2"}, "OUT_OF_RANGE", "OFFSET_BEYOND_END"),
                ("Read", {"name": "images/i", "length": str(MiB + 1)}, "INVALID_ARGUMENT", "FIELD_OUT_OF_RANGE"),
                ("Read", {"name": "images/i"}, "INVALID_ARGUMENT", "FIELD_REQUIRED"),
                ("Read", {"name": "images/nobody", "length": "1"}, "NOT_FOUND", "RESOURCE_NOT_FOUND"),
                ("Read", {"name": "pools/default", "length": "1"}, "INVALID_ARGUMENT", "NAME_INVALID"),
                ("Write", {"name": "images/i", "data": ""}, "INVALID_ARGUMENT", None),
                ("Write", {"name": "exports/read-only", "data": "YQ=="}, "FAILED_PRECONDITION", "EXPORT_READ_ONLY"),
                ("Map", {"name": "images/i", "startingOffset": "2000000"}, "OUT_OF_RANGE", "OFFSET_BEYOND_END"),
                ("Map", {"name": "images/i", "granularityBytes": 3}, "INVALID_ARGUMENT", "FIELD_NOT_POWER_OF_TWO"),
                ("Map", {"name": "images/i", "asAdvertised": True}, "INVALID_ARGUMENT", None)):
            with self.subTest(method=method, request=request):
                error = self.daemon.refusal("InspectService/" + method, request)
                self.assertEqual(error.code, code)
                if reason:
                    self.assertEqual(error.reason, reason)


if __name__ == "__main__":
    harness.main(commands=["nbdinfo", "qemu-img"])
