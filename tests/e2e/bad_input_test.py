"""Bad input to the control plane: each is refused with its reason and the field at fault, nothing is half made, and the
daemon lives."""

import os

import harness
from harness import MiB, run, tail

RAW = {"raw": {}, "virtualSizeBytes": "1000300"}
DOMAIN = "gabion"


def image(image_id="new", **fields):
    return {"imageId": image_id, "image": {**RAW, **fields}}


def export(export_id="new", **fields):
    return {"exportId": export_id, "export": {"source": "images/there", **fields}}


def sizes(**policy):
    return export(blockSizes=policy)


# (method, request, code, reason, field at fault)
CASES = [
    ("ImageService/CreateImage", image(""), "INVALID_ARGUMENT", "FIELD_REQUIRED", "image_id"),
    *(("ImageService/CreateImage", image(bad), "INVALID_ARGUMENT", "NAME_INVALID", "image_id")
      for bad in ("Upper", "1digit", "-x", "x-", "a" * 64, "a/b", "a b", "..", "ü")),
    ("ImageService/CreateImage", {"imageId": "new"}, "INVALID_ARGUMENT", "FIELD_REQUIRED", "image"),
    ("ImageService/CreateImage", {"imageId": "new", "image": {"raw": {}}}, "INVALID_ARGUMENT", "FIELD_REQUIRED",
     "image.virtual_size_bytes"),
    ("ImageService/CreateImage", {"imageId": "new", "image": {"virtualSizeBytes": "1"}}, "INVALID_ARGUMENT",
     "FIELD_REQUIRED", "image.format"),
    ("ImageService/CreateImage", image(virtualSizeBytes=str((1 << 63) - 1)), "OUT_OF_RANGE", "SIZE_OUT_OF_RANGE",
     "image.virtual_size_bytes"),
    ("ImageService/CreateImage", image(pool="pools/nobody"), "NOT_FOUND", "RESOURCE_NOT_FOUND", "image.pool"),
    ("ImageService/CreateImage", image(pool="/tmp"), "INVALID_ARGUMENT", "NAME_INVALID", "image.pool"),
    ("ImageService/CreateImage", image("there"), "ALREADY_EXISTS", "RESOURCE_EXISTS", None),
    ("ImageService/CreateImage", image("there", virtualSizeBytes="5"), "ALREADY_EXISTS", "RESOURCE_EXISTS_DIFFERENT", None),
    ("ImageService/CreateImage", image(raw={"requestAlignmentBytes": 3}), "INVALID_ARGUMENT", "BLOCK_SIZE_NOT_POWER_OF_TWO",
     "image.raw.request_alignment_bytes"),
    ("ImageService/CreateImage", image(labels={"Bad Key": "x"}), "INVALID_ARGUMENT", None, None),
    ("ImageService/CreateImage", image(labels={"k": "x" * 300}), "INVALID_ARGUMENT", "FIELD_TOO_LONG", None),
    ("ImageService/CreateImage", image(labels={f"k{n}": "" for n in range(65)}), "INVALID_ARGUMENT", "FIELD_TOO_LONG", None),
    ("ImageService/GetImage", {}, "INVALID_ARGUMENT", "FIELD_REQUIRED", "name"),
    ("ImageService/GetImage", {"name": "images/nobody"}, "NOT_FOUND", "RESOURCE_NOT_FOUND", None),
    ("ImageService/GetImage", {"name": "exports/there"}, "INVALID_ARGUMENT", "NAME_INVALID", "name"),
    ("ImageService/GetImage", {"name": "images/../images/there"}, "INVALID_ARGUMENT", "NAME_INVALID", "name"),
    ("ImageService/GetImage", {"name": "/etc/passwd"}, "INVALID_ARGUMENT", "NAME_INVALID", "name"),
    ("ImageService/UpdateImage", {"image": {"name": "images/there", "virtualSizeBytes": "5"}}, "INVALID_ARGUMENT",
     "SHRINK_NOT_ALLOWED", "image.virtual_size_bytes"),
    ("ImageService/UpdateImage", {"image": {"name": "images/there", "pool": "pools/other"}, "updateMask": "pool"},
     "INVALID_ARGUMENT", "FIELD_IMMUTABLE", "image.pool"),
    ("ImageService/UpdateImage", {"image": {"name": "images/there"}, "updateMask": "noSuchField"}, "INVALID_ARGUMENT",
     "FIELD_MASK_INVALID", "update_mask"),
    ("ImageService/UpdateImage", {"image": {"name": "images/nobody"}, "updateMask": "labels"}, "NOT_FOUND",
     "RESOURCE_NOT_FOUND", None),
    ("ImageService/DeleteImage", {"name": "images/nobody"}, "NOT_FOUND", "RESOURCE_NOT_FOUND", None),
    ("ImageService/DeleteImage", {"name": "images/there"}, "FAILED_PRECONDITION", "IMAGE_IN_USE", None),
    ("ImageService/ListImages", {"pageSize": -1}, "INVALID_ARGUMENT", "PAGE_SIZE_NEGATIVE", "page_size"),
    ("PoolService/GetPool", {"name": "pools/nobody"}, "NOT_FOUND", "RESOURCE_NOT_FOUND", None),
    ("ExportService/CreateExport", export("Bad"), "INVALID_ARGUMENT", "NAME_INVALID", "export_id"),
    ("ExportService/CreateExport", {"exportId": "new", "export": {}}, "INVALID_ARGUMENT", "FIELD_REQUIRED", "export.source"),
    ("ExportService/CreateExport", export(source="images/nobody"), "NOT_FOUND", "RESOURCE_NOT_FOUND", "export.source"),
    ("ExportService/CreateExport", export(source="../x"), "INVALID_ARGUMENT", "NAME_INVALID", "export.source"),
    ("ExportService/CreateExport", export("there"), "ALREADY_EXISTS", "RESOURCE_EXISTS", None),
    ("ExportService/CreateExport", export("there", readOnly=True), "ALREADY_EXISTS", "RESOURCE_EXISTS_DIFFERENT", None),
    ("ExportService/CreateExport", export(nbdName="there"), "ALREADY_EXISTS", "RESOURCE_EXISTS", "export.nbd_name"),
    ("ExportService/CreateExport", export(nbdName="x" * 4097), "INVALID_ARGUMENT", "FIELD_TOO_LONG", "export.nbd_name"),
    ("ExportService/CreateExport", export(nbdName="a\nb"), "INVALID_ARGUMENT", "FIELD_INVALID", "export.nbd_name"),
    ("ExportService/CreateExport", export(description="\0"), "INVALID_ARGUMENT", "FIELD_INVALID", "export.description"),
    ("ExportService/CreateExport", export(access={"transport": "TRANSPORT_TLS_REQUIRED"}), "UNIMPLEMENTED",
     "FEATURE_NOT_BUILT", "export.access.transport"),
    ("ExportService/CreateExport", sizes(minimumBytes=3), "INVALID_ARGUMENT", "BLOCK_SIZE_NOT_POWER_OF_TWO",
     "export.block_sizes.minimum_bytes"),
    ("ExportService/CreateExport", sizes(minimumBytes=131072), "INVALID_ARGUMENT", "BLOCK_SIZE_OUT_OF_RANGE",
     "export.block_sizes.minimum_bytes"),
    ("ExportService/CreateExport", sizes(preferredBytes=256), "INVALID_ARGUMENT", "BLOCK_SIZE_OUT_OF_RANGE",
     "export.block_sizes.preferred_bytes"),
    ("ExportService/CreateExport", sizes(preferredBytes=5000), "INVALID_ARGUMENT", "BLOCK_SIZE_NOT_POWER_OF_TWO",
     "export.block_sizes.preferred_bytes"),
    ("ExportService/CreateExport", sizes(minimumBytes=65536, preferredBytes=4096), "INVALID_ARGUMENT", "BLOCK_SIZE_ORDER",
     "export.block_sizes.preferred_bytes"),
    ("ExportService/CreateExport", sizes(maximumPayloadBytes=MiB - 1), "INVALID_ARGUMENT", "BLOCK_SIZE_OUT_OF_RANGE",
     "export.block_sizes.maximum_payload_bytes"),
    ("ExportService/CreateExport", sizes(minimumBytes=4096, maximumPayloadBytes=2 * MiB + 512), "INVALID_ARGUMENT",
     "BLOCK_SIZE_ORDER", "export.block_sizes.maximum_payload_bytes"),
    ("ExportService/CreateExport", sizes(preferredBytes=4 * MiB, maximumPayloadBytes=2 * MiB), "INVALID_ARGUMENT",
     "BLOCK_SIZE_ORDER", "export.block_sizes.maximum_payload_bytes"),
    ("ExportService/CreateExport", export(blockSizes=tail(4096, "REFUSE")), "FAILED_PRECONDITION",
     "SIZE_NOT_MULTIPLE_OF_MINIMUM", "export.block_sizes.tail"),
    ("ExportService/GetExport", {"name": "exports/nobody"}, "NOT_FOUND", "RESOURCE_NOT_FOUND", None),
    ("ExportService/UpdateExport", {"export": {"name": "exports/there", "source": "images/x"}, "updateMask": "source"},
     "INVALID_ARGUMENT", "FIELD_IMMUTABLE", "export.source"),
    ("ExportService/UpdateExport", {"export": {"name": "exports/there", "nbdName": "x"}}, "INVALID_ARGUMENT",
     "FIELD_IMMUTABLE", "export.nbd_name"),
    ("ExportService/UpdateExport", {"export": {"name": "exports/there", "blockSizes": {"minimumBytes": 7}}},
     "INVALID_ARGUMENT", "BLOCK_SIZE_NOT_POWER_OF_TWO", "export.block_sizes.minimum_bytes"),
    ("ExportService/UpdateExport", {"export": {"name": "exports/there"}, "updateMask": "blockSizes.minimum"},
     "INVALID_ARGUMENT", "FIELD_MASK_INVALID", "update_mask"),
    ("ExportService/UpdateExport", {"export": {"name": "exports/there", "blockSizes": tail(4096, "REFUSE")}},
     "FAILED_PRECONDITION", "SIZE_NOT_MULTIPLE_OF_MINIMUM", "export.block_sizes.tail"),
    ("ExportService/DeleteExport", {"name": "exports/nobody"}, "NOT_FOUND", "RESOURCE_NOT_FOUND", None),
    ("ExportService/ListConnections", {"parent": "exports/nobody"}, "NOT_FOUND", "RESOURCE_NOT_FOUND", None),
    ("ExportService/GetConnection", {"name": "exports/there/connections/99999"}, "NOT_FOUND", "RESOURCE_NOT_FOUND", None),
    ("ExportService/CloseConnection", {"name": "exports/there/connections/x"}, "NOT_FOUND", "RESOURCE_NOT_FOUND", None),
    ("ExportService/CloseConnection", {"name": "exports/there"}, "INVALID_ARGUMENT", "NAME_INVALID", "name"),
]

# Which detail a code comes with, besides ErrorInfo.
COMPANION = {"INVALID_ARGUMENT": "BadRequest", "NOT_FOUND": "ResourceInfo", "ALREADY_EXISTS": "ResourceInfo",
             "FAILED_PRECONDITION": "PreconditionFailure"}


class BadInputTest(harness.GabionTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.daemon.create_image("there", 1000300)
        cls.daemon.create_export("there", "there")

    def test_each_reason_with_its_details(self):
        before = self.state()
        for method, request, code, reason, field in CASES:
            with self.subTest(f"{method} {str(request)[:150]}"):
                error = self.daemon.refusal(method, request)
                self.assertEqual((error.code, reason and error.reason), (code, reason), str(error))
                self.assertRegex(error.reason, "^[A-Z][A-Z0-9_]+[A-Z0-9]$")
                self.assertEqual(error.domain, DOMAIN)
                self.assertTrue(error.message)
                if code in COMPANION:
                    self.assertIsNotNone(error.detail(COMPANION[code]), error.details)
                if field:
                    told = [f for f, _ in error.violations()] + [error.metadata.get("field", "")]
                    self.assertIn(field, told, error.details)
        self.assertEqual(self.state(), before)

    def state(self):
        return (self.daemon.call("ImageService/ListImages", {})["images"],
                self.daemon.call("ExportService/ListExports", {})["exports"], sorted(os.listdir(self.daemon.pool)))

    def test_metadata_says_what_is_allowed(self):
        error = self.daemon.refusal("ExportService/CreateExport", sizes(minimumBytes=3))
        self.assertEqual((error.metadata["field"], error.metadata["value"]), ("export.block_sizes.minimum_bytes", "3"))
        self.assertTrue(error.metadata["allowed"])

    def test_all_violations_are_told_at_once(self):
        error = self.daemon.refusal("ExportService/CreateExport", {"exportId": "Bad Name", "export": {
            "blockSizes": {"minimumBytes": 3, "preferredBytes": 5}}})
        fields = {field for field, _ in error.violations()}
        self.assertLessEqual({"export_id", "export.source", "export.block_sizes.minimum_bytes",
                              "export.block_sizes.preferred_bytes"}, fields)

    def test_below_what_the_storage_can_do(self):
        self.daemon.call("ImageService/CreateImage", {"imageId": "coarse", "image": {
            "raw": {"requestAlignmentBytes": 4096}, "virtualSizeBytes": str(MiB)}})
        self.addCleanup(self.daemon.delete_image, "coarse")
        error = self.daemon.refusal("ExportService/CreateExport", {"exportId": "fine", "export": {
            "source": "images/coarse",
            "blockSizes": {"minimumBytes": 512, "unalignedRequests": "UNALIGNED_REQUESTS_REJECT"}}})
        self.assertEqual((error.code, error.reason), ("INVALID_ARGUMENT", "BLOCK_SIZE_BELOW_STORAGE"))
        self.assertEqual((error.metadata["minimum"], error.metadata["determined_by"]), ("512", "images/coarse"))
        self.assertIn("4096", error.message)

    def test_an_image_in_the_way_of_a_full_pool(self):
        """A sparse file as large as the file system allows may be made; a larger one is refused with a reason."""
        error = None
        try:
            self.daemon.create_image("huge", (1 << 63) - 65536)
            self.daemon.delete_image("huge")
        except harness.CallError as caught:
            error = caught
        if error:
            self.assertEqual((error.code, error.reason, error.metadata["field"]),
                             ("OUT_OF_RANGE", "SIZE_OUT_OF_RANGE", "image.virtual_size_bytes"))
        request = {"imageId": "huge", "image": {"raw": {}, "virtualSizeBytes": str((1 << 63) - 65536)}, "validateOnly": True}
        if error:
            self.assertEqual(self.daemon.refusal("ImageService/CreateImage", request).reason, "SIZE_OUT_OF_RANGE")
        else:
            self.daemon.call("ImageService/CreateImage", request)
        self.assertFalse([f for f in os.listdir(self.daemon.pool) if "huge" in f])

    def test_gabionctl_says_what_is_wrong_with_its_arguments(self):
        for method, text in (("ImageService/GetImage", "{"), ("ImageService/GetImage", '{"nam": "x"}'),
                             ("ImageService/NoSuchMethod", "{}"), ("NoService/GetImage", "{}"),
                             ("ImageService/CreateImage", '{"imageId": 5}')):
            with self.subTest(method=method, text=text):
                done = self.daemon.call_raw(method, text)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn("gabionctl", done.stderr)


class ConfigurationTest(harness.unittest.TestCase):
    """gabiond refuses to start with what it does not understand, and says everything that is wrong at once."""

    def gabiond(self, *arguments):
        return run(os.environ["GABIOND"], *arguments, ok=False)

    def test_every_problem_is_reported_at_once(self):
        done = self.gabiond("--shards=many", "--log-level=loud", "--no-such-setting=1", "--handshake-timeout=0",
                            "--grpc-listen=0.0.0.0:1")
        self.assertNotEqual(done.returncode, 0)
        for word in ("data-dir", "shards", "log-level", "no-such-setting", "handshake-timeout", "grpc-listen"):
            self.assertIn(word, done.stderr)

    def test_help_names_every_setting(self):
        done = self.gabiond("--help")
        self.assertEqual(done.returncode, 0)
        for word in ("--data-dir", "--nbd-listen", "--max-connections", "--handshake-timeout", "--direct-io"):
            self.assertIn(word, done.stdout)

    def test_a_data_directory_whose_socket_has_no_room(self):
        done = self.gabiond("--data-dir", "/tmp/" + "x" * 120)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("107", done.stderr)
        self.assertFalse(os.path.exists("/tmp/" + "x" * 120 + "/gabiond.sock"))

    def test_a_data_directory_that_cannot_be_made(self):
        done = self.gabiond("--data-dir", "/proc/none/here")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("/proc/none", done.stderr)


if __name__ == "__main__":
    harness.main()
