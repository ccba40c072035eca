"""Changes by the control plane while clients work: they get no error and lose nothing."""

import random
import threading

import harness
import nbd
from harness import KiB, MiB, run, tail

BLOCK = 4 * KiB
IN_FLIGHT = 16


class Worker(threading.Thread):
    """Writes blocks with several requests in flight, reads each back, and remembers what is in them; until told to stop."""

    def __init__(self, uri, first, count, rng):
        super().__init__()
        self.handle, self.rng = harness.nbd_connect(uri), rng
        self.blocks = range(first, first + count)
        self.content = {}
        # Used again and again: libnbd 1.14 never frees a buffer that a request has had.
        self.written = [bytearray(BLOCK) for _ in range(IN_FLIGHT)]
        self.sources = [nbd.Buffer.from_buffer(data) for data in self.written]
        self.targets = [nbd.Buffer(BLOCK) for _ in range(IN_FLIGHT)]
        self.rounds = 0
        self.stopping = threading.Event()
        self.failure = None

    def run(self):
        try:
            while not self.stopping.is_set():
                self.round()
        except (nbd.Error, AssertionError) as error:
            self.failure = error

    def round(self):
        chosen = self.rng.sample(self.blocks, IN_FLIGHT)
        data = {block: self.rng.randbytes(BLOCK) for block in chosen}
        for target, block in zip(self.written, chosen):
            target[:] = data[block]
        self.complete([self.handle.aio_pwrite(buffer, b * BLOCK) for buffer, b in zip(self.sources, chosen)])
        self.content.update(data)
        self.complete([self.handle.aio_pread(buffer, b * BLOCK) for buffer, b in zip(self.targets, chosen)])
        for buffer, block in zip(self.targets, chosen):
            if bytes(buffer.to_bytearray()) != data[block]:
                raise AssertionError(f"block {block} differs right after it was written")
        self.rounds += 1

    def complete(self, cookies):
        for cookie in cookies:
            while not self.handle.aio_command_completed(cookie):
                self.handle.poll(-1)

    def wait_for_rounds(self, count):
        target = self.rounds + count
        harness.wait_until(lambda: self.rounds >= target or self.failure, f"{count} more rounds")

    def finish(self):
        self.stopping.set()
        self.join()


class LiveTest(harness.GabionTestCase):
    def setUp(self):
        self.rng = harness.random_source()
        self.name = self.id().rsplit(".", 1)[1].replace("_", "-")[5:45].strip("-")
        self.uri = self.daemon.serve(self.name, 16 * MiB)
        self.workers = [Worker(self.uri, part * 1024, 1024, random.Random(self.rng.random())) for part in range(3)]
        for worker in self.workers:
            self.addCleanup(worker.finish)
            worker.start()

    def each_change(self, *changes):
        for change in changes:
            change()
            for worker in self.workers:
                worker.wait_for_rounds(2)

    def check(self):
        for worker in self.workers:
            worker.finish()
            self.assertIsNone(worker.failure)
        handle = self.connect(self.uri, strict=False)
        for worker in self.workers:
            for block, data in worker.content.items():
                self.assertEqual(handle.pread(BLOCK, block * BLOCK), data, f"block {block}")

    def test_updates_of_the_export(self):
        def update(mask, **fields):
            return lambda: self.daemon.update_export(self.name, mask, **fields)
        self.each_change(
            update("description,labels", description="new", labels={"a": "b"}),
            update("blockSizes", blockSizes={"minimumBytes": 65536, "unalignedRequests": "UNALIGNED_REQUESTS_REJECT"}),
            update("blockSizes", blockSizes=tail(4096, "PAD_ZERO")),
            update("enabled", enabled=False), update("enabled", enabled=True),
            update("access", access={"maxConnections": 100}))
        self.check()

    def test_growth_of_the_image(self):
        def grow(size):
            return lambda: self.daemon.call("ImageService/UpdateImage", {
                "image": {"name": f"images/{self.name}", "virtualSizeBytes": str(size)}, "updateMask": "virtualSizeBytes"})
        self.each_change(grow(17 * MiB), grow(17 * MiB + 333), grow(64 * MiB))
        self.check()
        self.assertEqual(self.connect(self.uri).get_size(), 64 * MiB)

    def test_other_exports_of_the_image_come_and_go(self):
        other = self.name[:30] + "-other"

        def come():
            self.daemon.create_export(other, self.name, {"minimumBytes": 4096}, readOnly=True)
            run("nbdcopy", self.daemon.uri(other), "null:")
        self.each_change(*[come, lambda: self.daemon.delete_export(other)] * 3)
        self.check()

    def test_inspection(self):
        name = {"name": f"images/{self.name}"}
        self.each_change(
            lambda: self.daemon.stream("InspectService/Map", name),
            lambda: self.daemon.stream("InspectService/Map", {"name": f"exports/{self.name}", "asAdvertised": True}),
            lambda: self.daemon.call("InspectService/Read", {**name, "offset": "0", "length": str(MiB)}),
            lambda: self.daemon.call("InspectService/Write", {**name, "offset": str(15 * MiB), "length": str(MiB),
                                                              "pattern": "YWJj"}))
        self.check()

    def test_closing_one_connection_answers_what_is_in_flight_and_spares_the_others(self):
        victim, spared = self.workers[0], self.workers[1:]
        for worker in self.workers:
            worker.wait_for_rounds(2)
        oldest = self.daemon.connections(self.name)[0]["name"]  # workers connect in their order
        self.daemon.call("ExportService/CloseConnection", {"name": oldest})
        victim.join()
        self.assertIsInstance(victim.failure, nbd.Error)
        for worker in spared:
            worker.wait_for_rounds(5)
        self.workers = spared
        self.check()

    def test_clients_walk_the_status_meanwhile(self):
        handle = self.connect(self.uri, contexts=["base:allocation"])
        for _ in range(20):
            at = 0
            while at < 16 * MiB:
                answer = harness.extents(handle, at, 16 * MiB - at)
                self.assertGreater(len(answer), 0)
                at += sum(length for length, _ in answer)
        # What was written before is never called zero.
        for worker in self.workers:
            for block in list(worker.content)[:200]:
                (_, flags), = harness.extents(handle, block * BLOCK, BLOCK, nbd.CMD_FLAG_REQ_ONE)
                self.assertEqual(flags, 0, f"block {block}")
        self.check()


if __name__ == "__main__":
    harness.main(commands=["nbdcopy"])
