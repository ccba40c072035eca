"""Many extents and many images, told in bounded memory."""

import concurrent.futures
import os
import sys
import time

import harness
from api_client import Api, forget_peak, peak_memory
from harness import KiB, MiB

MOST_GROWTH = 32 * MiB


class ScaleCase(harness.GabionTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.api = Api(cls.daemon)

    @classmethod
    def tearDownClass(cls):
        cls.api.close()
        super().tearDownClass()

    def bounded(self, what, action):
        """Runs the action twice, the first time to fill what is kept for good; checks what the second one needs."""
        pid = self.daemon.process.pid
        action()
        before, begin = forget_peak(pid), time.monotonic()
        result = action()
        growth = peak_memory(pid) - before
        print(f"{what}: {time.monotonic() - begin:.1f} s, {growth // KiB} KiB more than {before // KiB}", file=sys.stderr)
        self.assertLess(growth, MOST_GROWTH)
        return result


class ExtentsTest(ScaleCase):
    EXTENTS = 1_000_000
    UNIT = 4096
    memory_bytes = EXTENTS // 2 * UNIT

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        with open(os.path.join(cls.daemon.pool, "comb"), "wb") as file:
            for number in range(0, cls.EXTENTS, 2):
                os.pwrite(file.fileno(), b"x", number * cls.UNIT)
            file.truncate(cls.EXTENTS * cls.UNIT)
        cls.api.result(cls.api.call("ImageService/ImportImage", {
            "imageId": "comb", "image": {"raw": {}}, "sourceFile": "comb", "move": True}))

    def is_open(self):
        """The daemon has the image's file open."""
        folder = f"/proc/{self.daemon.process.pid}/fd"
        def target(fd):
            try:
                return os.readlink(os.path.join(folder, fd))
            except FileNotFoundError:
                return ""
        return any(target(fd).endswith("/comb.raw") for fd in os.listdir(folder))

    def test_a_million_extents_are_mapped_in_bounded_memory(self):
        def walk():
            count, at = 0, 0
            for message in self.api.stream("InspectService/Map", {"name": "images/comb"}):
                for extent in message.extents:
                    # Messages continue one another: at their borders an extent may come in two parts.
                    self.assertEqual(extent.offset, at)
                    self.assertEqual(extent.data, at // self.UNIT % 2 == 0)
                    at += extent.length
                count += len(message.extents)
            self.assertEqual(at, self.EXTENTS * self.UNIT)
            return count
        count = self.bounded(f"a map of {self.EXTENTS} extents", walk)
        self.assertGreaterEqual(count, self.EXTENTS)
        harness.wait_until(lambda: not self.is_open(), "the image's file is closed")

    def test_a_reader_that_goes_away_ends_the_map(self):
        pid = self.daemon.process.pid
        before = forget_peak(pid)
        with Api(self.daemon) as api:
            streams = [api.stream("InspectService/Map", {"name": "images/comb"}) for _ in range(4)]
            for stream in streams:
                self.assertGreater(len(next(iter(stream)).extents), 0)
            for stream in streams[:2]:
                stream.cancel()
        # The others went with their channel.
        harness.wait_until(lambda: not self.is_open(), "the image's file is closed")
        growth = peak_memory(pid) - before
        print(f"4 maps that nobody reads on: {growth // KiB} KiB more", file=sys.stderr)
        self.assertLess(growth, MOST_GROWTH)


class ListTest(ScaleCase):
    IMAGES = 5000
    memory_bytes = 256 * MiB

    @classmethod
    def setUpClass(cls):
        super().setUpClass()

        def create(number):
            cls.api.result(cls.api.call("ImageService/CreateImage", {
                "imageId": f"i{number}", "image": {"raw": {}, "virtualSizeBytes": "4096", "labels": {"odd": str(number % 2)}}}))
        with concurrent.futures.ThreadPoolExecutor(16) as executor:
            list(executor.map(create, range(cls.IMAGES)))

    def pages(self, **request):
        names, pages, token = [], 0, ""
        while pages == 0 or token:
            reply = self.api.call("ImageService/ListImages", {"pageSize": 1000, "pageToken": token, **request})
            self.assertLessEqual(len(reply["images"]), 1000)
            self.assertTrue(all(image["state"] == "STATE_ACTIVE" for image in reply["images"]))
            names += [image["name"] for image in reply["images"]]
            pages, token = pages + 1, reply.get("nextPageToken", "")
        return names, pages

    def test_thousands_of_images_page_by_page(self):
        names, pages = self.bounded(f"a list of {self.IMAGES} images", self.pages)
        self.assertEqual(names, sorted(f"images/i{number}" for number in range(self.IMAGES)))
        self.assertEqual(pages, self.IMAGES // 1000)

    def test_a_filter_and_an_order_need_no_more(self):
        names, _ = self.bounded("one half of them, the newest first",
                                lambda: self.pages(filter='labels.odd = "1"', orderBy="create_time desc"))
        self.assertEqual(sorted(names), sorted(f"images/i{number}" for number in range(1, self.IMAGES, 2)))

    def test_a_watch_that_tells_them_all(self):
        def told():
            names = set()
            stream = self.api.stream("WatchService/Watch", {"collections": ["images"], "sendInitial": True})
            for message in stream:
                if message.name:
                    names.add(message.name)
                else:
                    break
            stream.cancel()
            return names
        self.assertEqual(len(self.bounded("a watch of all of them", told)), self.IMAGES)


if __name__ == "__main__":
    harness.main(commands=["protoc"], modules=["grpc", "google.protobuf"])
