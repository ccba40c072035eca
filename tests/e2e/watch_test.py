"""Watch streams as gabionctl shows them."""

import os
import time

import harness
from api_client import Api
from follower import Follower, deleted, put
from harness import MiB


def is_done(message):
    return message["kind"] == "KIND_INITIAL_DONE"


class WatchTest(harness.GabionTestCase):
    def follow(self, **request):
        follower = Follower(self.daemon, **request)
        self.addCleanup(follower.__exit__)
        return follower

    def following(self, **request):
        """A stream that has told all that is there."""
        follower = self.follow(sendInitial=True, **request)
        return follower, follower.until(is_done)[:-1]

    def test_it_begins_with_what_is_there(self):
        self.daemon.serve("a", MiB)
        handle = self.connect(self.daemon.uri("a"))
        connection = self.daemon.connections("a")[0]["name"]
        self.follow(sendInitial=True).until_each(put(connection))  # it comes into the log a little later
        follower, initial = self.following()
        seen = {message["name"]: message for message in initial}
        self.assertEqual(len(seen), len(initial), "each is told once")
        self.assertLessEqual({"pools/default", "images/a", "exports/a", connection}, set(seen))
        self.assertEqual({message["kind"] for message in initial}, {"KIND_PUT"})
        self.assertFalse([m for m in initial if "revision" in m], "a stream cannot go on in the middle of these")
        self.assertEqual(seen["images/a"]["image"], self.daemon.call("ImageService/GetImage", {"name": "images/a"}))
        self.assertEqual(seen["exports/a"]["export"], self.daemon.call("ExportService/GetExport", {"name": "exports/a"}))
        self.assertEqual(seen["exports/a"]["export"]["connectionCount"], 1)
        self.assertEqual(len([name for name in seen if name.startswith("operations/")]),
                         len(self.daemon.call("Operations/ListOperations", {"pageSize": 1000})["operations"]))
        self.assertGreater(follower.revision, 0)
        harness.hang_up(handle)

    def test_what_becomes_of_an_images_file_is_told(self):
        self.daemon.serve("seen", MiB)
        path = os.path.join(self.daemon.pool, "seen.raw")
        follower, _ = self.following(collections=["images"])
        os.rename(path, path + ".away")
        missing = follower.until(put("images/seen", state="STATE_UNAVAILABLE"))[-1]["image"]
        self.assertEqual(missing["stateError"]["details"][0]["reason"], "IMAGE_FILE_MISSING")
        ready = {c["type"]: c for c in missing["conditions"]}["Ready"]
        self.assertEqual((ready.get("satisfied", False), ready["reason"]), (False, "IMAGE_FILE_MISSING"))
        harness.write_file(path, size=MiB)  # says of no image to be its own
        replaced = follower.until(put("images/seen", state="STATE_UNAVAILABLE"))[-1]["image"]
        self.assertEqual(replaced["stateError"]["details"][0]["reason"], "IMAGE_REPLACED")
        os.replace(path + ".away", path)
        follower.until(put("images/seen", state="STATE_ACTIVE"))

    def test_what_others_change_is_told(self):
        follower, _ = self.following()
        image = self.daemon.create_image("told", MiB)
        follower.until(put("images/told", state="STATE_ACTIVE", uid=image["uid"]))
        self.daemon.call("ImageService/UpdateImage", {"image": {"name": "images/told", "labels": {"a": "b"}}})
        follower.until(put("images/told", labels={"a": "b"}, generation="2"))
        self.daemon.create_export("told", "told")
        follower.until(put("exports/told", state="STATE_ACTIVE"))
        self.daemon.update_export("told", "readOnly", readOnly=True)
        follower.until(put("exports/told", readOnly=True))
        self.daemon.delete_export("told")
        follower.until(deleted("exports/told"))
        operation = self.daemon.call("ImageService/DeleteImage", {"name": "images/told"})
        messages = follower.until_each(deleted("images/told"), put(operation["name"], done=True))
        revisions = [int(m["revision"]) for m in messages]
        self.assertEqual(revisions, sorted(revisions))

    def test_clients_come_and_go(self):
        self.daemon.serve("busy", MiB)
        follower, _ = self.following(parent="exports/busy")
        handles = [self.connect(self.daemon.uri("busy")) for _ in range(2)]
        names = [c["name"] for c in self.daemon.connections("busy")]
        follower.until_each(put("exports/busy", connectionCount=2), *map(put, names))
        harness.hang_up(handles[0])
        seen = follower.until_each(put("exports/busy", connectionCount=1), lambda m: m["kind"] == "KIND_DELETED")
        gone, = {m["name"] for m in seen if m["kind"] == "KIND_DELETED"}
        left, = {c["name"] for c in self.daemon.connections("busy")}
        self.assertEqual({gone, left}, set(names))
        harness.hang_up(handles[1])
        seen = follower.until_each(deleted(left), lambda m: "export" in m and "connectionCount" not in m["export"])
        self.assertEqual({m["name"] for m in seen}, {left, "exports/busy"})

    def test_only_what_was_asked_for(self):
        self.daemon.create_image("in", MiB)
        self.daemon.create_image("in-not", MiB)
        images, initial = self.following(collections=["images"], parent="images/in")
        self.assertEqual([m["name"] for m in initial], ["images/in"])
        self.daemon.create_export("in", "in-not")
        self.daemon.call("ImageService/UpdateImage", {"image": {"name": "images/in-not", "labels": {"x": "y"}}})
        self.daemon.call("ImageService/UpdateImage", {"image": {"name": "images/in", "labels": {"x": "y"}}})
        self.assertEqual(images.next()["image"]["labels"], {"x": "y"})
        for request in ({"collections": ["nonsense"]}, {"sendInitial": True, "afterRevision": "1"}):
            error = self.daemon.refusal("WatchService/Watch", request)
            self.assertEqual((error.code, error.reason), ("INVALID_ARGUMENT", "FIELD_INVALID"))
        error = self.daemon.refusal("WatchService/Watch", {"afterRevision": str(1 << 40)})
        self.assertEqual((error.code, error.reason), ("OUT_OF_RANGE", "REVISION_COMPACTED"))
        self.assertIn("oldest-revision", error.metadata)

    def test_bookmarks(self):
        follower = self.follow(collections=["images"], bookmarkInterval="1s")
        first, second = follower.timed(), follower.timed()
        self.assertEqual([m["kind"] for _, m in (first, second)], ["KIND_BOOKMARK"] * 2)
        self.assertGreater(second[0] - first[0], 0.5)
        self.daemon.serve("bookmark", MiB)  # the export is none of the stream's business
        follower.until(put("images/bookmark", state="STATE_ACTIVE"))
        reached = int(self.daemon.call("ExportService/ListExports", {})["revision"])
        follower.until(lambda m: m["kind"] == "KIND_BOOKMARK" and int(m["revision"]) >= reached)
        again = self.follow(afterRevision=str(follower.revision))
        self.daemon.create_image("after-bookmark", MiB)
        self.assertEqual({m["name"] for m in again.until(put("images/after-bookmark", state="STATE_ACTIVE"))
                          if not m["name"].startswith("operations/")}, {"images/after-bookmark"})

    def test_a_list_and_a_watch_from_it_have_no_gap(self):
        listed = self.daemon.call("ImageService/ListImages", {"pageSize": 1})
        names = [f"gap-{number}" for number in range(10)]
        for name in names:
            self.daemon.create_image(name, 512)
        follower = self.follow(collections=["images"], afterRevision=listed["revision"])
        seen = follower.until(put("images/" + names[-1], state="STATE_ACTIVE"))
        self.assertEqual([m["name"] for m in seen if m["image"]["state"] == "STATE_ACTIVE" and "gap-" in m["name"]],
                         ["images/" + name for name in names])


class RestartTest(harness.GabionTestCase):
    def test_a_stream_goes_on_after_kill_without_a_gap(self):
        with harness.Gabiond() as daemon:
            daemon.serve("e", MiB)
            handle = harness.nbd_connect(daemon.uri("e"))
            connection = daemon.connections("e")[0]["name"]
            with Follower(daemon, sendInitial=True) as follower:
                follower.until_each(is_done, put(connection))
                daemon.create_image("seen", MiB)
                follower.until(put("images/seen", state="STATE_ACTIVE"))
                revision = follower.revision
                daemon.create_image("missed", MiB)
                daemon.call("ImageService/UpdateImage", {"image": {"name": "images/seen", "labels": {"x": "y"}}})
                daemon.kill()
                _, error = follower.end()
                self.assertEqual(error.code, "UNAVAILABLE")
            harness.hang_up(handle)
            daemon.start()
            with Follower(daemon, afterRevision=str(revision)) as follower:
                daemon.create_image("later", MiB)
                messages = follower.until(put("images/later", state="STATE_ACTIVE"))
                for wanted, what in ((put("images/missed", state="STATE_ACTIVE"), "what was made before the kill"),
                                     (put("images/seen", labels={"x": "y"}), "what was changed before the kill"),
                                     (deleted(connection), "the connection that the kill ended")):
                    self.assertTrue(any(wanted(m) for m in messages), what)
                self.assertTrue(all(int(m["revision"]) > revision for m in messages))

    def test_streams_end_with_the_daemon_and_do_not_keep_it(self):
        with harness.Gabiond() as daemon, Api(daemon) as idle:
            idle.call("ServerService/GetServerInfo", {})  # a channel that stays, and does nothing
            followers = [Follower(daemon, sendInitial=True) for _ in range(3)]
            try:
                for follower in followers:
                    follower.until(is_done)
                begin = time.monotonic()
                self.assertEqual(daemon.stop(), 0)
                took = time.monotonic() - begin
                self.assertLess(took, 4, "it waited for its clients")
                for follower in followers:
                    _, error = follower.end()
                    self.assertEqual((error.code, error.reason), ("UNAVAILABLE", "DRAINING"))
            finally:
                for follower in followers:
                    follower.__exit__()


if __name__ == "__main__":
    harness.main(commands=["protoc"], modules=["nbd", "grpc", "google.protobuf"])
