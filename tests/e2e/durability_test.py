"""What survives kill -9: every resource that the control plane acknowledged, and every byte that a client has flushed."""

import os
import random
import threading

import harness
import nbd
from harness import KiB, MiB, errno_of

BLOCK = 4 * KiB


class MultiConnTest(harness.GabionTestCase):
    def test_a_flush_covers_the_writes_of_other_connections(self):
        with harness.Gabiond() as daemon:
            uri = daemon.serve("e", 16 * MiB)
            writer, flusher = harness.nbd_connect(uri), harness.nbd_connect(uri)
            self.assertTrue(writer.can_multi_conn())
            data = os.urandom(MiB)
            writer.pwrite(data, MiB)
            self.assertEqual(flusher.pread(MiB, MiB), data)
            flusher.flush()
            daemon.kill()
            daemon.start()
            self.assertEqual(self.connect(uri).pread(MiB, MiB), data)

    def test_two_exports_of_one_image_show_the_same_bytes(self):
        self.daemon.create_image("shared", MiB)
        self.daemon.create_export("first", "shared")
        self.daemon.create_export("second", "shared", {"minimumBytes": 4096}, readOnly=True)
        first, second = (self.connect(self.daemon.uri(name)) for name in ("first", "second"))
        first.pwrite(b"a" * 512, 512)
        self.assertEqual(second.pread(4096, 0), bytes(512) + b"a" * 512 + bytes(3072))
        self.assertTrue(second.is_read_only())


class RestartTest(harness.GabionTestCase):
    def setUp(self):
        self.own = harness.Gabiond()
        self.addCleanup(self.own.close)

    def snapshot(self):
        """All that the control plane tells about its resources, but for what is measured."""
        images = self.own.call("ImageService/ListImages", {}).get("images", [])
        exports = self.own.call("ExportService/ListExports", {}).get("exports", [])
        for resource in images + exports:
            resource.pop("allocatedBytes", None)
            resource.pop("connectionCount", None)
            for condition in resource["conditions"]:
                condition.pop("lastTransitionTime")  # they begin anew with the daemon
        return images, exports

    def populate(self):
        for number in range(3):
            self.own.create_image(f"image-{number}", MiB + number)
        self.own.call("ImageService/UpdateImage", {
            "image": {"name": "images/image-1", "labels": {"owner": "me"}}, "updateMask": "labels"})
        self.own.create_export("plain", "image-0")
        self.own.create_export("other", "image-1", harness.tail(4096, "PAD_ZERO"), readOnly=True, nbdName="wire name",
                               description="text", labels={"a": "b"})
        self.own.create_export("hidden", "image-2", enabled=False)
        self.own.create_export("gone", "image-2")
        self.own.delete_export("gone")

    def check_restart(self, end):
        self.populate()
        handle = harness.nbd_connect(self.own.uri("plain"))
        data = os.urandom(512)
        handle.pwrite(data, 512, nbd.CMD_FLAG_FUA)
        before = self.snapshot()
        end()
        self.own.start()
        self.assertEqual(self.snapshot(), before)
        self.assertEqual(self.connect(self.own.uri("plain")).pread(512, 512), data)
        other = self.connect(self.own.uri("wire name"))
        self.assertEqual((other.get_size(), other.is_read_only(), other.get_block_size(nbd.SIZE_MINIMUM)),
                         (MiB + 4096, True, 4096))
        with self.assertRaises(nbd.Error):
            harness.nbd_connect(self.own.uri("hidden"))

    def test_everything_is_there_after_kill(self):
        self.check_restart(self.own.kill)

    def test_everything_is_there_after_sigterm(self):
        self.check_restart(lambda: self.assertEqual(self.own.stop(), 0))

    def test_what_was_acknowledged_right_before_the_kill_is_there(self):
        for number in range(5):
            self.own.create_image(f"late-{number}", MiB)
            self.own.create_export(f"late-{number}", f"late-{number}")
            self.own.kill()
            self.own.start()
            self.assertEqual(self.connect(self.own.uri(f"late-{number}")).get_size(), MiB)

    def test_kill_during_creation_leaves_nothing_half_made(self):
        """Whatever the moment of the kill: an image is there and works, or its name is free."""
        for attempt in range(5):
            names = [f"i{attempt}-{number}" for number in range(20)]
            done = []

            def create():
                for name in names:
                    try:
                        self.own.create_image(name, MiB)
                    except (harness.CallError, AssertionError):
                        return
                    done.append(name)
            thread = threading.Thread(target=create)
            thread.start()
            harness.wait_until(lambda: len(done) > attempt, "some images are made")
            self.own.kill()
            thread.join()
            self.own.start()
            present = {i["name"]: i for i in self.own.call("ImageService/ListImages", {"pageSize": 1000})["images"]}
            for name in done:
                self.assertEqual(present["images/" + name]["state"], "STATE_ACTIVE")
            for name in names:
                if "images/" + name in present:
                    self.assertEqual(present["images/" + name]["state"], "STATE_ACTIVE")
                    self.own.delete_image(name)
                else:
                    self.own.create_image(name, MiB)
                    self.own.delete_image(name)
            self.assertEqual(os.listdir(self.own.pool), [])

    def test_an_image_whose_file_is_gone_says_so_and_the_others_serve(self):
        path = self.own.import_file("lost", harness.write_file(self.own.file("x"), (0, b"x"), size=MiB))
        self.own.create_export("lost", "lost")
        self.own.serve("kept", MiB)
        self.own.kill()
        os.unlink(path)
        self.own.start()
        self.assertEqual(self.connect(self.own.uri("kept")).get_size(), MiB)
        image = self.own.call("ImageService/GetImage", {"name": "images/lost"})
        self.assertEqual(image["state"], "STATE_UNAVAILABLE")
        self.assertTrue(image["stateError"]["message"])
        export = self.own.call("ExportService/GetExport", {"name": "exports/lost"})
        self.assertEqual(export["state"], "STATE_FAILED")
        with self.assertRaises(nbd.Error):
            harness.nbd_connect(self.own.uri("lost"))
        self.own.delete_export("lost")
        self.own.delete_image("lost")

    def test_a_second_daemon_on_the_same_directory_refuses_to_start(self):
        self.own.serve("e", MiB)
        done = harness.run(os.environ["GABIOND"], "--data-dir", self.own.data, ok=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(self.own.data, done.stdout + done.stderr)
        self.assertEqual(self.connect(self.own.uri("e")).get_size(), MiB)
        self.own.call("ServerService/GetServerInfo", {})


class Writer:
    """Keeps writes in flight on one connection and remembers which of them are durable.

    Each block carries a number that only grows. A block may show any number that was sent to it at or after the last
    one known to be durable.
    """

    def __init__(self, uri, first_block, blocks, rng):
        self.handle, self.rng = harness.nbd_connect(uri), rng
        self.blocks = range(first_block, first_block + blocks)
        self.sent = dict.fromkeys(self.blocks, 0)      # last number sent
        self.durable = dict.fromkeys(self.blocks, 0)   # last number that is safe
        self.acknowledged = dict.fromkeys(self.blocks, 0)
        self.flushes = self.fuas = 0

    def run(self):
        """Until the server is gone."""
        try:
            while True:
                self.round()
        except nbd.Error:
            pass

    def round(self):
        waiting = []
        for block in self.rng.sample(self.blocks, 16):
            self.sent[block] += 1
            fua = self.rng.random() < 0.2
            data = bytearray(content(block, self.sent[block]))
            cookie = self.handle.aio_pwrite(nbd.Buffer.from_bytearray(data), block * BLOCK,
                                            flags=nbd.CMD_FLAG_FUA if fua else 0)
            waiting.append((cookie, block, fua))
        for cookie, block, fua in waiting:
            while not self.handle.aio_command_completed(cookie):
                self.handle.poll(-1)
            self.acknowledged[block] = self.sent[block]
            if fua:
                self.durable[block] = self.sent[block]
                self.fuas += 1
        if self.rng.random() < 0.3:
            covered = dict(self.acknowledged)
            self.handle.flush()
            self.durable = covered
            self.flushes += 1


def content(block, number):
    return f"{block:08d} {number:08d} ".encode() * (BLOCK // 18) + bytes(BLOCK % 18)


class KillUnderLoadTest(harness.GabionTestCase):
    def test_what_was_flushed_is_there(self):
        """A process that is killed loses nothing that it handed to the system; this shows that nothing is acknowledged
        before that, whatever the daemon keeps in memory, and that no write is torn or lands elsewhere."""
        rng = harness.random_source()
        with harness.Gabiond() as daemon:
            uri = daemon.serve("e", 64 * MiB, block_sizes={"minimumBytes": 4096})
            for _ in range(3):
                writers = [Writer(uri, part * 1024, 1024, random.Random(rng.random())) for part in range(4)]
                threads = [threading.Thread(target=writer.run) for writer in writers]
                handle = harness.nbd_connect(uri)
                start = {w: {b: handle.pread(BLOCK, b * BLOCK) for b in w.blocks} for w in writers}
                handle.shutdown()
                for thread in threads:
                    thread.start()
                harness.wait_until(lambda: all(w.flushes > 5 and w.fuas > 20 for w in writers), "enough was flushed")
                daemon.kill()
                for thread in threads:
                    thread.join()
                daemon.start()
                self.check(self.connect(uri), writers, start)

    def check(self, handle, writers, start):
        for writer in writers:
            for block in writer.blocks:
                got = handle.pread(BLOCK, block * BLOCK)
                allowed = [content(block, n) for n in range(max(writer.durable[block], 1), writer.sent[block] + 1)]
                if writer.durable[block] == 0:
                    allowed.append(start[writer][block])
                self.assertIn(got, allowed, f"block {block}: sent {writer.sent[block]}, durable {writer.durable[block]}")

    def test_the_clients_of_a_killed_daemon_notice(self):
        with harness.Gabiond() as daemon:
            handle = harness.nbd_connect(daemon.serve("e", MiB))
            daemon.kill()
            self.assertNotEqual(errno_of(lambda: handle.pread(512, 0)), "OK")


if __name__ == "__main__":
    harness.main()
