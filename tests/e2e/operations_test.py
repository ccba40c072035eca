"""Operations that take a while: seen, paused, slowed down, cancelled, and cut off by kill -9 again and again."""

import os
import time

import harness
from follower import Follower
from harness import GiB, KiB, MiB, run

PIECE = 16 * MiB  # what is done between two looks at what was asked for, at most


def done_bytes(operation):
    return int(operation["metadata"].get("doneBytes", 0))


def data_runs(path):
    """(begin, end) of the runs of data of a file."""
    runs, at = [], 0
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        while at < size:
            try:
                begin = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:  # ENXIO: a hole to the end
                break
            at = os.lseek(file.fileno(), begin, os.SEEK_HOLE)
            runs.append((begin, at))
    return runs


class OperationsCase(harness.GabionTestCase):
    """Each test leaves the pool empty."""

    def setUp(self):
        self.assertTrue(self.daemon.alive())

    def tearDown(self):
        super().tearDown()
        self.assertEqual(os.listdir(self.daemon.pool), [])

    def path(self, name):
        return os.path.join(self.daemon.pool, name)

    def job(self, action, name, **fields):
        return self.daemon.call(f"JobService/{action}", {"name": name, **fields})

    def get(self, name):
        return self.daemon.call("Operations/GetOperation", {"name": name})

    def paused(self, begin, size, made=True):
        """begin(size) and a pause right behind it, as big as it takes for the pause to come before the end. `made`: what
        came before its end has left an image."""
        while True:
            operation = begin(size)
            try:
                paused = self.job("PauseJob", operation["name"])
                if paused["metadata"]["state"] == "STATE_PAUSED":
                    return paused, size
                self.daemon.finish(paused)  # it was about to end
            except harness.CallError as error:
                if error.reason != "OPERATION_DONE":
                    raise
            if size >= 8 * GiB:
                self.skipTest("this file system is faster than anything can be paused; it may share what it copies")
            if made:
                self.daemon.delete_image("big")
            size *= 2

    def begin_full(self, size):
        return self.daemon.call("ImageService/CreateImage", {
            "imageId": "big", "image": {"raw": {}, "virtualSizeBytes": str(size)}, "preallocation": "PREALLOCATION_FULL"})

    def begin_import(self, size):
        """Data of a tenth of the size, between holes, and a tail that is a multiple of nothing."""
        block = os.urandom(4 * MiB)
        with open(self.path("source"), "wb") as file:
            for number, at in enumerate(range(0, size, 10 * MiB)):
                os.pwrite(file.fileno(), bytes([number % 256]) + block[1:], at + 64 * KiB)
            file.truncate(size + 1000)
            os.fsync(file.fileno())
        return self.daemon.call("ImageService/ImportImage", {"imageId": "big", "image": {"raw": {}}, "sourceFile": "source"})

    def check_copy(self, size):
        run("cmp", self.path("source"), self.path("big.raw"))
        self.assertEqual(data_runs(self.path("big.raw")), data_runs(self.path("source")))
        self.assertEqual(os.stat(self.path("big.raw")).st_size, size + 1000)
        os.unlink(self.path("source"))

    def progress(self, name, enough):
        """Waits until the watch stream says that at least `enough` bytes are done."""
        with Follower(self.daemon, collections=["operations"], parent=name, sendInitial=True) as follower:
            return follower.until(lambda m: "operation" in m and (
                done_bytes(m["operation"]) >= enough or m["operation"].get("done")))[-1]["operation"]


class JobsTest(OperationsCase):
    def test_preallocation_is_seen_paused_slowed_down_and_resumed(self):
        operation, size = self.paused(self.begin_full, 256 * MiB)
        name = operation["name"]
        self.assertEqual((operation["metadata"]["state"], operation["metadata"]["kind"], operation["metadata"]["target"]),
                         ("STATE_PAUSED", "KIND_CREATE", "images/big"))
        looks = [done_bytes(operation)]
        while len(looks) < 5 or len(set(looks[-4:])) > 1:  # the piece that was under way may take its time
            looks.append(done_bytes(self.daemon.call("Operations/WaitOperation", {"name": name, "timeout": "0.2s"})))
            self.assertLessEqual(looks[-1] - looks[0], PIECE)
        image = self.daemon.call("ImageService/GetImage", {"name": "images/big"})
        self.assertEqual((image["state"], image["operation"], image["reconciling"]), ("STATE_CREATING", name, True))

        rate = 16 * MiB
        self.job("SetJobRate", name, limitBytesPerSecond=str(rate))
        before = done_bytes(self.job("PauseJob", name))  # said again: what is known now
        with Follower(self.daemon, collections=["operations"], parent=name, sendInitial=True) as follower:
            follower.until(lambda m: m["kind"] == "KIND_INITIAL_DONE")
            begin, seen = time.monotonic(), []
            self.job("ResumeJob", name)
            while len(seen) < 2:
                when, message = follower.timed()
                done = done_bytes(message["operation"])
                if done > before:
                    self.assertLessEqual(done - before, rate * (when - begin) + rate / 2, "faster than it may")
                    seen.append(done)
                    before, begin = done, when - 0.5  # what is told may be that old already
        self.assertGreater(seen[1], seen[0])
        self.assertEqual(self.get(name)["metadata"]["limitBytesPerSecond"], str(rate))

        self.job("SetJobRate", name, limitBytesPerSecond="0")
        operation = self.daemon.finish(self.get(name))
        metadata = operation["metadata"]
        self.assertEqual((metadata["state"], metadata["doneBytes"], metadata["totalBytes"]),
                         ("STATE_DONE", str(size), str(size)))
        self.assertNotIn("limitBytesPerSecond", metadata)
        self.assertLess(metadata["createTime"], metadata["endTime"])
        self.assertEqual(operation["response"]["state"], "STATE_ACTIVE")
        self.assertGreaterEqual(int(operation["response"]["allocatedBytes"]), size)
        run("cmp", "-n", str(size), self.path("big.raw"), "/dev/zero")
        self.daemon.delete_image("big")

    def test_a_cancelled_import_leaves_neither_file_nor_image(self):
        for how in ("paused", "running"):
            with self.subTest(how):
                operation, _ = self.paused(self.begin_import, 640 * MiB)
                if how == "running":
                    self.job("SetJobRate", operation["name"], limitBytesPerSecond=str(4 * MiB))
                    self.job("ResumeJob", operation["name"])
                self.daemon.call("Operations/CancelOperation", {"name": operation["name"]})
                ended = self.daemon.finish(operation)
                error = harness.CallError.of_operation(ended)
                self.assertEqual((error.code, error.reason), ("CANCELLED", "OPERATION_CANCELLED"))
                self.assertEqual(ended["metadata"]["state"], "STATE_DONE")
                self.assertEqual(self.daemon.refusal("ImageService/GetImage", {"name": "images/big"}).code, "NOT_FOUND")
                self.assertEqual(os.listdir(self.daemon.pool), ["source"])
                self.daemon.call("Operations/CancelOperation", {"name": operation["name"]})  # may be said again
                os.unlink(self.path("source"))
        self.daemon.create_image("big", MiB)  # the name is free
        self.daemon.delete_image("big")

    def test_operations_are_found_waited_for_and_forgotten(self):
        operation, _ = self.paused(self.begin_full, 256 * MiB)
        name = operation["name"]
        begin = time.monotonic()
        self.assertNotIn("done", self.daemon.call("Operations/WaitOperation", {"name": name, "timeout": "0s"}))
        self.assertNotIn("done", self.daemon.call("Operations/WaitOperation", {"name": name, "timeout": "0.3s"}))
        self.assertGreaterEqual(time.monotonic() - begin, 0.3)
        error = self.daemon.refusal("Operations/WaitOperation", {"name": name, "timeout": "-1s"})
        self.assertEqual((error.code, error.reason), ("INVALID_ARGUMENT", "FIELD_OUT_OF_RANGE"))
        for method in ("WaitOperation", "GetOperation", "CancelOperation", "DeleteOperation"):
            self.assertEqual(self.daemon.refusal("Operations/" + method, {"name": "operations/nobody"}).reason, "RESOURCE_NOT_FOUND")

        self.daemon.create_image("small", MiB)
        def listed(filter):
            return [o["name"] for o in self.daemon.call("Operations/ListOperations", {"filter": filter}).get("operations", [])]
        self.assertEqual(listed('done = false AND metadata.target = "images/big"'), [name])
        self.assertEqual(listed("metadata.state = STATE_PAUSED"), [name])
        self.assertIn(name, listed("metadata.kind = KIND_CREATE"))
        small, = listed('done = true AND metadata.target = "images/small"')
        self.assertEqual(self.daemon.refusal("Operations/ListOperations", {"filter": "nonsense = 1"}).reason,
                         "FILTER_EXPRESSION_INVALID")

        self.daemon.call("Operations/DeleteOperation", {"name": small})
        self.assertEqual(self.daemon.refusal("Operations/GetOperation", {"name": small}).code, "NOT_FOUND")
        self.assertEqual(listed('metadata.target = "images/small"'), [])
        self.assertEqual(self.daemon.refusal("Operations/DeleteOperation", {"name": name}).reason, "OPERATION_NOT_DONE")
        self.assertEqual(self.daemon.refusal("ImageService/DeleteImage", {"name": "images/big"}).reason, "OPERATION_IN_PROGRESS")
        self.daemon.call("Operations/CancelOperation", {"name": name})
        self.assertIn("error", self.daemon.finish(operation))
        for action in ("PauseJob", "ResumeJob", "SetJobRate"):
            self.assertEqual(self.daemon.refusal("JobService/" + action, {"name": name}).reason, "OPERATION_DONE")
        self.daemon.delete_image("small")


class CutOffTest(OperationsCase):
    """kill -9 in the middle; the next start goes on."""

    def test_an_import_goes_on_to_the_same_bytes(self):
        operation, size = self.paused(self.begin_import, 640 * MiB)
        name = operation["name"]
        self.job("SetJobRate", name, limitBytesPerSecond=str(24 * MiB))
        for stop in (self.daemon.kill, self.daemon.stop):
            stop()
            self.daemon.start()
            operation = self.get(name)
            self.assertEqual(operation["metadata"]["state"], "STATE_PAUSED")
            self.assertEqual(operation["metadata"]["limitBytesPerSecond"], str(24 * MiB))
        self.job("ResumeJob", name)
        at = done_bytes(self.get(name))
        for _ in range(3):
            at = done_bytes(self.progress(name, at + size // 20))
            self.daemon.kill()
            self.daemon.start()
            operation = self.get(name)
            self.assertTrue(operation["metadata"]["resumedAfterRestart"])
            self.assertGreaterEqual(done_bytes(operation), at, "what was told as done is done")
        self.assertNotIn("done", operation, "the kills came too late to matter")
        self.job("SetJobRate", name, limitBytesPerSecond="0")
        self.assertEqual(self.daemon.result(operation)["virtualSizeBytes"], str(size + 1000))
        self.check_copy(size)
        self.daemon.delete_image("big")

    def test_a_preallocation_at_full_speed_goes_on(self):
        for share in (0, 4, 2):
            with self.subTest(share=share):
                size = 256 * MiB
                operation = self.begin_full(size)
                if share and not operation.get("done"):
                    self.progress(operation["name"], size // share)
                self.daemon.kill()
                self.daemon.start()
                self.daemon.result(self.get(operation["name"]))
                self.assertGreaterEqual(os.stat(self.path("big.raw")).st_blocks * 512, size)
                run("cmp", "-n", str(size), self.path("big.raw"), "/dev/zero")
                self.daemon.delete_image("big")

    def test_a_cancelled_one_stays_cancelled(self):
        operation, _ = self.paused(self.begin_full, 256 * MiB)
        self.daemon.call("Operations/CancelOperation", {"name": operation["name"]})
        self.daemon.kill()
        self.daemon.start()
        self.assertEqual(harness.CallError.of_operation(self.daemon.finish(operation)).code, "CANCELLED")
        self.assertEqual(self.daemon.refusal("ImageService/GetImage", {"name": "images/big"}).code, "NOT_FOUND")

    def test_a_big_file_is_removed_in_pieces(self):
        def begin(size):
            self.daemon.result(self.daemon.call("ImageService/CreateImage", {
                "imageId": "big", "image": {"raw": {}, "virtualSizeBytes": str(size)}, "preallocation": "PREALLOCATION_FALLOC"}))
            return self.daemon.call("ImageService/DeleteImage", {"name": "images/big"})
        operation, size = self.paused(begin, 2 * GiB, made=False)
        name = operation["name"]
        self.assertEqual(self.get(name)["metadata"]["kind"], "KIND_DELETE")
        self.assertEqual(self.daemon.call("ImageService/GetImage", {"name": "images/big"})["state"], "STATE_DELETING")
        self.assertEqual(self.daemon.refusal("ImageService/CreateImage", {
            "imageId": "big", "image": {"raw": {}, "virtualSizeBytes": "1"}}).code, "ALREADY_EXISTS")
        self.assertNotIn("big.raw", os.listdir(self.daemon.pool))
        self.daemon.call("Operations/CancelOperation", {"name": name})  # too late: it is only asked for
        left, = (os.stat(self.path(file)).st_blocks * 512 for file in os.listdir(self.daemon.pool))
        self.assertLess(left, size)
        self.assertGreater(left, 0)
        self.daemon.kill()
        self.daemon.start()
        self.assertEqual(self.get(name)["metadata"]["state"], "STATE_PAUSED")
        self.job("ResumeJob", name)
        operation = self.daemon.finish(self.get(name))
        self.assertNotIn("error", operation)
        self.assertTrue(operation["metadata"]["resumedAfterRestart"])
        self.assertEqual(self.daemon.refusal("ImageService/GetImage", {"name": "images/big"}).code, "NOT_FOUND")


if __name__ == "__main__":
    harness.main(commands=["cmp"])
