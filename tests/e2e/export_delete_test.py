"""Exports and images that are deleted while somebody uses them."""

import os
import time

import harness
import nbd
from follower import Follower, deleted, put
from harness import MiB, errno_of


class DeletionCase(harness.GabionTestCase):
    def begin(self, export_id, mode, **fields):
        return self.daemon.call("ExportService/DeleteExport", {"name": f"exports/{export_id}", "mode": "MODE_" + mode, **fields})

    def export(self, export_id):
        return self.daemon.call("ExportService/GetExport", {"name": f"exports/{export_id}"})

    def image(self, image_id):
        return self.daemon.call("ImageService/GetImage", {"name": f"images/{image_id}"})

    def names(self, **request):
        return [i["name"] for i in self.daemon.call("ImageService/ListImages", request).get("images", [])]

    def check_gone(self, export_id):
        self.assertEqual(self.daemon.refusal("ExportService/GetExport", {"name": f"exports/{export_id}"}).reason,
                         "RESOURCE_NOT_FOUND")
        with self.assertRaises(nbd.Error):
            harness.nbd_connect(self.daemon.uri(export_id))

    def check_takes_nobody(self, export_id):
        with self.assertRaises(nbd.Error):
            harness.nbd_connect(self.daemon.uri(export_id))


class ExportTest(DeletionCase):
    def test_safe_is_refused_while_there_is_a_client(self):
        handle = self.connect(self.daemon.serve("safe", MiB))
        error = self.daemon.refusal("ExportService/DeleteExport", {"name": "exports/safe", "mode": "MODE_SAFE"})
        self.assertEqual((error.code, error.reason), ("FAILED_PRECONDITION", "EXPORT_HAS_CONNECTIONS"))
        self.assertEqual(handle.pread(512, 0), bytes(512))
        self.assertEqual(self.export("safe")["state"], "STATE_ACTIVE")
        harness.hang_up(handle)
        self.daemon.delete_export("safe")
        self.check_gone("safe")

    def test_hide_ends_when_the_last_client_leaves(self):
        uri = self.daemon.serve("hide", MiB)
        first, second = self.connect(uri), self.connect(uri)
        operation = self.begin("hide", "HIDE")
        self.assertNotIn("done", operation)
        self.assertEqual((operation["metadata"]["kind"], operation["metadata"]["target"]), ("KIND_DRAIN", "exports/hide"))
        export = self.export("hide")
        self.assertEqual((export["state"], export["operation"], export["connectionCount"], export["reconciling"]),
                         ("STATE_DRAINING", operation["name"], 2, True))
        self.check_takes_nobody("hide")
        first.pwrite(b"x" * 512, 0, nbd.CMD_FLAG_FUA)
        harness.hang_up(first)
        harness.wait_until(lambda: self.export("hide")["connectionCount"] == 1, "one is left")
        self.assertEqual(second.pread(512, 0), b"x" * 512)
        error = self.daemon.refusal("ExportService/DeleteExport", {"name": "exports/hide", "mode": "MODE_SAFE"})
        self.assertEqual((error.code, error.reason, error.metadata["operation"]),
                         ("ABORTED", "OPERATION_IN_PROGRESS", operation["name"]))
        self.assertEqual(self.begin("hide", "HIDE")["name"], operation["name"], "it is what is being done")
        for mode in ("SAFE", "HIDE", "HARD"):
            error = self.daemon.refusal("ExportService/DeleteExport",
                                        {"name": "exports/hide", "mode": "MODE_" + mode, "drainTimeout": "1s"})
            self.assertEqual((error.code, error.reason, error.metadata["field"]),
                             ("INVALID_ARGUMENT", "FIELD_INVALID", "drain_timeout"))
        error = self.daemon.refusal("ExportService/UpdateExport", {"export": {"name": "exports/hide", "readOnly": True}})
        self.assertEqual(error.reason, "OPERATION_IN_PROGRESS")
        for action in ("PauseJob", "SetJobRate"):
            error = self.daemon.refusal("JobService/" + action, {"name": operation["name"]})
            self.assertEqual((error.code, error.reason), ("UNIMPLEMENTED", "FEATURE_NOT_BUILT"))
        with Follower(self.daemon, collections=["exports"], parent="exports/hide", sendInitial=True) as follower:
            follower.until(lambda m: m["kind"] == "KIND_INITIAL_DONE")
            harness.hang_up(second)
            follower.until(deleted("exports/hide"))
        self.assertNotIn("error", self.daemon.finish(operation))
        self.check_gone("hide")
        self.daemon.delete_image("hide")

    def test_soft_joins_a_deletion_that_only_hides(self):
        handle = self.connect(self.daemon.serve("tighter", MiB), strict=False)
        operation = self.begin("tighter", "HIDE")
        self.assertEqual(handle.pread(512, 0), bytes(512))
        self.assertEqual(self.begin("tighter", "SOFT", drainTimeout="0s")["name"], operation["name"])
        self.assertNotIn("error", self.daemon.finish(operation))
        with self.assertRaises(nbd.Error):
            handle.pread(512, 0)
        self.check_gone("tighter")

    def test_soft_lets_clients_go_on_for_a_while_and_then_tells_them(self):
        handle = self.connect(self.daemon.serve("soft", MiB), strict=False)
        begin = time.monotonic()
        operation = self.begin("soft", "SOFT", drainTimeout="1s")
        self.assertEqual(handle.pread(512, 0), bytes(512))
        self.check_takes_nobody("soft")
        answers = []
        while handle.aio_is_ready():  # one request after the other, until the server has closed
            answers.append(errno_of(lambda: handle.pread(512, 0)))
        told = time.monotonic() - begin
        self.assertGreaterEqual(told, 1)
        self.assertEqual(answers[0], "OK")
        self.assertIn("ESHUTDOWN", answers)
        self.assertNotIn("OK", answers[answers.index("ESHUTDOWN"):])
        self.assertNotIn("error", self.daemon.finish(operation))
        self.check_gone("soft")

    def test_soft_does_not_wait_once_nobody_is_there(self):
        handle = self.connect(self.daemon.serve("early", MiB))
        operation = self.begin("early", "SOFT", drainTimeout="3600s")
        harness.hang_up(handle)
        self.daemon.finish(operation)
        self.check_gone("early")

    def test_hard_cuts_off(self):
        uri = self.daemon.serve("hard", MiB)
        handles = [self.connect(uri) for _ in range(3)]
        self.daemon.finish(self.begin("hard", "HARD"))
        for handle in handles:
            self.assertNotEqual(errno_of(lambda: handle.pread(512, 0)), "OK")
        self.check_gone("hard")
        self.daemon.delete_image("hard")

    def test_hard_joins_a_hide_that_is_under_way(self):
        handle = self.connect(self.daemon.serve("join", MiB))
        operation = self.begin("join", "HIDE")
        joined = self.begin("join", "HARD")
        self.assertEqual(joined["name"], operation["name"])
        self.assertNotIn("error", self.daemon.finish(operation))
        self.assertNotEqual(errno_of(lambda: handle.pread(512, 0)), "OK")
        self.check_gone("join")

    def test_a_cancelled_deletion_brings_the_export_back(self):
        uri = self.daemon.serve("back", MiB)
        handle = self.connect(uri)
        for mode in ("HIDE", "SOFT"):
            with self.subTest(mode):
                operation = self.begin("back", mode)
                self.check_takes_nobody("back")
                self.daemon.call("Operations/CancelOperation", {"name": operation["name"]})
                error = harness.CallError.of_operation(self.daemon.finish(operation))
                self.assertEqual((error.code, error.reason), ("CANCELLED", "OPERATION_CANCELLED"))
                export = self.export("back")
                self.assertEqual(export["state"], "STATE_ACTIVE")
                self.assertNotIn("operation", export)
                self.assertEqual(handle.pread(512, 0), bytes(512))
                other = self.connect(uri)
                self.assertEqual(other.pread(512, 0), bytes(512))
                harness.hang_up(other)
        self.assertEqual(self.daemon.update_export("back", "readOnly", readOnly=True)["generation"], "2")

    def test_a_deletion_goes_on_after_a_restart(self):
        with harness.Gabiond() as daemon:
            handle = harness.nbd_connect(daemon.serve("e", MiB))
            operation = daemon.call("ExportService/DeleteExport", {"name": "exports/e", "mode": "MODE_HIDE"})
            daemon.kill()
            harness.hang_up(handle)
            daemon.start()
            self.assertNotIn("error", daemon.finish(daemon.call("Operations/GetOperation", {"name": operation["name"]})))
            self.assertEqual(daemon.refusal("ExportService/GetExport", {"name": "exports/e"}).code, "NOT_FOUND")
            daemon.delete_image("e")


class TombstoneTest(DeletionCase):
    def bury(self, image_id, **fields):
        return self.daemon.result(self.daemon.call("ImageService/DeleteImage", {
            "name": f"images/{image_id}", "mode": "MODE_TOMBSTONE", **fields}))

    def undelete(self, image_id):
        return self.daemon.result(self.daemon.call("ImageService/UndeleteImage", {"name": f"images/{image_id}"}))

    def files(self, image_id):
        """Files of the image, and those that belong to no image that there is."""
        return [f for f in os.listdir(self.daemon.pool) if f == image_id + ".raw" or f.startswith(".")]

    def test_a_tombstone_serves_until_its_export_goes(self):
        uri = self.daemon.serve("tomb", MiB)
        handle = self.connect(uri)
        handle.pwrite(b"here lies", 0)
        handle.flush()
        self.bury("tomb")
        self.assertNotIn("images/tomb", self.names())
        self.assertIn("images/tomb", self.names(showDeleted=True))
        image = self.image("tomb")
        self.assertEqual(image["state"], "STATE_ACTIVE")
        self.assertIn("deleteTime", image)
        conditions = {c["type"]: (c.get("satisfied", False), c["lastTransitionTime"]) for c in image["conditions"]}
        self.assertEqual(conditions, {"Deleted": (True, image["deleteTime"]), "Ready": (False, image["deleteTime"])})
        self.assertEqual(handle.pread(9, 0), b"here lies")
        other = self.connect(uri)
        self.assertEqual(other.pread(9, 0), b"here lies")
        error = self.daemon.refusal("ExportService/CreateExport", {"exportId": "second", "export": {"source": "images/tomb"}})
        self.assertEqual((error.code, error.reason), ("FAILED_PRECONDITION", "IMAGE_DELETED"))
        self.assertEqual(error.metadata["purge-time"], image["purgeTime"])
        error = self.daemon.refusal("ImageService/CreateImage",
                                    {"imageId": "tomb", "image": {"raw": {}, "virtualSizeBytes": "1"}})
        self.assertEqual(error.code, "ALREADY_EXISTS", "its name stays taken")
        for stop in (self.daemon.kill, self.daemon.stop):
            stop()
            self.daemon.start()
            again = self.connect(uri)
            self.assertEqual(again.pread(9, 0), b"here lies")
            self.assertNotIn("images/tomb", self.names())
        with Follower(self.daemon, collections=["images"], parent="images/tomb", sendInitial=True) as follower:
            follower.until(lambda m: m["kind"] == "KIND_INITIAL_DONE")
            self.daemon.finish(self.begin("tomb", "HARD"))
            follower.until(deleted("images/tomb"))
        self.assertEqual(self.names(showDeleted=True, filter='name = "images/tomb"'), [])
        self.assertEqual(self.files("tomb"), [])
        self.daemon.create_image("tomb", MiB)  # the name is free again
        self.daemon.delete_image("tomb")

    def test_retention_and_return(self):
        self.daemon.serve("kept", MiB)
        uid = self.image("kept")["uid"]
        self.bury("kept", retention="86400s")
        self.daemon.delete_export("kept")
        image = self.image("kept")
        self.assertLess(image["deleteTime"], image["purgeTime"])
        self.daemon.kill()
        self.daemon.start()
        self.assertEqual(self.files("kept"), ["kept.raw"])
        self.assertEqual(self.undelete("kept")["uid"], uid)
        image = self.image("kept")
        self.assertNotIn("deleteTime", image)
        self.assertNotIn("purgeTime", image)
        self.assertIn("images/kept", self.names())
        error = self.daemon.refusal("ImageService/UndeleteImage", {"name": "images/kept"})
        self.assertEqual((error.code, error.reason), ("FAILED_PRECONDITION", "IMAGE_NOT_DELETED"))
        self.daemon.create_export("kept", "kept")
        self.assertEqual(self.connect(self.daemon.uri("kept")).get_size(), MiB)

    def test_what_retention_is_over_is_purged(self):
        for retention in ("0s", "1s", "0.5s"):
            with self.subTest(retention=retention):
                self.daemon.create_image("brief", MiB)
                with Follower(self.daemon, collections=["images"], parent="images/brief", sendInitial=True) as follower:
                    follower.until(lambda m: m["kind"] == "KIND_INITIAL_DONE")
                    begin = time.monotonic()
                    self.bury("brief", retention=retention)
                    follower.until(deleted("images/brief"))
                self.assertGreaterEqual(time.monotonic() - begin, float(retention[:-1]))
                self.assertEqual(self.files("brief"), [])

    def test_retention_that_ends_while_the_daemon_does_not_run(self):
        with harness.Gabiond() as daemon:
            daemon.create_image("away", MiB)
            daemon.call("ImageService/DeleteImage", {"name": "images/away", "mode": "MODE_TOMBSTONE", "retention": "1s"})
            daemon.kill()
            daemon.start()
            with Follower(daemon, collections=["images"], sendInitial=True) as follower:
                messages = follower.until(lambda m: m["kind"] == "KIND_INITIAL_DONE")
                if any(put("images/away")(m) for m in messages):
                    follower.until(deleted("images/away"))
            self.assertEqual(os.listdir(daemon.pool), [])

    def test_a_start_keeps_the_tombstones_of_exports_that_it_has_not_brought_back_yet(self):
        with harness.Gabiond() as daemon:
            names = [f"t{number}" for number in range(20)]
            for name in names:
                daemon.serve(name, MiB)
                daemon.call("ImageService/DeleteImage", {"name": f"images/{name}", "mode": "MODE_TOMBSTONE"})
            for _ in range(3):
                daemon.kill()
                daemon.start()
                self.assertEqual(len(daemon.call("ImageService/ListImages", {"showDeleted": True})["images"]), len(names))
                for name in names:
                    handle = harness.nbd_connect(daemon.uri(name))
                    self.assertEqual(handle.pread(512, 0), bytes(512))
                    harness.hang_up(handle)

    def test_a_purge_of_a_tombstone_does_not_wait(self):
        self.daemon.create_image("now", MiB)
        self.bury("now", retention="86400s")
        self.daemon.delete_image("now")
        self.assertEqual(self.files("now"), [])
        self.assertEqual(self.daemon.refusal("ImageService/UndeleteImage", {"name": "images/now"}).code, "NOT_FOUND")


if __name__ == "__main__":
    harness.main()
