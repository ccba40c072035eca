"""What the tests of qcow2 images share: random chains made by qemu's programs, what qemu says of files, and Gabion's
answers in the same words."""

import json
import os

import api_client
import harness
from harness import KiB, MiB, extents, run

DEPTH = "qemu:allocation-depth"


class Qcow2TestCase(harness.GabionTestCase):
    """Its calls go over one channel, which is faster than gabionctl."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.api = api_client.Api(cls.daemon)
        cls.daemon.call = cls.api.call

    @classmethod
    def tearDownClass(cls):
        del cls.daemon.call
        cls.api.close()
        super().tearDownClass()

    def bring(self, image_id, path, backing=None, kind="qcow2", move=False):
        """Imports a copy of a file as an image; returns the path of the image's file."""
        image = {kind: {}}
        if backing:
            image["backingImage"] = f"images/{backing}"
        name = f"source-{image_id}"
        run("cp", path, os.path.join(self.daemon.pool, name))
        try:
            self.daemon.result(self.daemon.call("ImageService/ImportImage", {
                "imageId": image_id, "image": image, "sourceFile": name, "move": move}))
        finally:
            if os.path.exists(os.path.join(self.daemon.pool, name)):
                os.unlink(os.path.join(self.daemon.pool, name))
        return self.file_of(image_id, kind)

    def refused_import(self, image_id, path, backing=None, **fields):
        """The CallError of an import that must fail."""
        try:
            self.bring(image_id, path, backing, **fields)
        except harness.CallError as error:
            return error
        raise AssertionError(f"{path} should have been refused")

    def file_of(self, image_id, kind="qcow2"):
        return os.path.join(self.daemon.pool, f"{image_id}.{kind}")

    def create(self, image_id, size=None, qcow2=None, backing=None, **fields):
        image = {"qcow2": qcow2 or {}}
        if size is not None:
            image["virtualSizeBytes"] = str(size)
        if backing:
            image["backingImage"] = f"images/{backing}"
        self.daemon.result(self.daemon.call("ImageService/CreateImage", {"imageId": image_id, "image": image, **fields}))
        return self.file_of(image_id)

    def clone(self, image_id, source, size=None, qcow2=None):
        request = {"imageId": image_id, "source": f"images/{source}"}
        if size is not None:
            request["virtualSizeBytes"] = str(size)
        if qcow2:
            request["qcow2"] = qcow2
        self.daemon.result(self.daemon.call("ImageService/CloneImage", request))
        return self.file_of(image_id)

    def image(self, image_id):
        return self.daemon.call("ImageService/GetImage", {"name": f"images/{image_id}"})

    def check(self, image_id, repair="REPAIR_NONE"):
        """CheckImage's answer, its counts as numbers."""
        answer = self.daemon.result(self.daemon.call("ImageService/CheckImage", {
            "name": f"images/{image_id}", "repair": repair}))
        counts = ("corruptions", "leaks", "checkErrors", "corruptionsFixed", "leaksFixed", "imageEndOffset",
                  "totalClusters", "allocatedClusters", "fragmentedClusters", "compressedClusters")
        return {**answer, **{name: int(answer.get(name, 0)) for name in counts}}

    def map(self, name, **options):
        """Gabion's byte-exact extents as JSON, their numbers as numbers."""
        found = []
        for reply in self.daemon.stream("InspectService/Map", {"name": name, **options}):
            for extent in reply.get("extents", []):
                host = extent.get("hostOffset")
                found.append({**extent, "offset": int(extent.get("offset", 0)), "length": int(extent["length"]),
                              "hostOffset": None if host is None else int(host)})
        return found

    def atoms(self, name):
        """(offset, length, data, depth, host offset of data, allocated) of each run, neighbours merged."""
        runs = []
        for e in self.map(name):
            data = e.get("data", False)
            if data == e.get("zero", False):
                raise AssertionError(f"both or neither of data and zero: {e}")
            runs.append((e["offset"], e["length"], data, e.get("depth", 0), e["hostOffset"] if data else None,
                         e.get("allocated", False)))
        return merged(runs)

    def whole(self, export, context):
        """The descriptors of the whole export, neighbours of one value merged: (length, value)."""
        handle = self.connect(self.daemon.uri(export), contexts=[context])
        found, at = [], 0
        while at < handle.get_size():
            for length, value in extents(handle, at, min(handle.get_size() - at, 1 << 30), context=context):
                if found and found[-1][1] == value:
                    found[-1] = (found[-1][0] + length, value)
                else:
                    found.append((length, value))
                at += length
        self.assertEqual(at, handle.get_size())
        harness.hang_up(handle)
        return found

    def assert_clean(self, path):
        """qemu-img check: neither errors nor leaks."""
        done = run("qemu-img", "check", "-f", "qcow2", path, ok=False)
        self.assertEqual(done.returncode, 0, f"qemu-img check {path}\n{done.stdout}{done.stderr}")

    def assert_same(self, got, expected, what):
        """Of long bytes: says where they differ."""
        self.assertEqual(len(got), len(expected), what)
        if got == expected:
            return
        bad = next(i for i in range(len(got)) if got[i] != expected[i])
        wrong = sum(a != b for a, b in zip(got, expected))
        self.fail(f"{what}: byte {bad} is {got[bad]}, not {expected[bad]}; {wrong} bytes differ")


class CallsTestCase(Qcow2TestCase):
    """Calls and files in short forms. An export has the name of its image."""

    def export(self, image, **fields):
        self.daemon.create_export(image, image, **fields)
        return self.daemon.uri(image)

    def write(self, image, *pieces):
        """Writes (offset, bytes) by an export that is gone afterwards."""
        handle = harness.nbd_connect(self.export(image))
        for offset, data in pieces:
            handle.pwrite(data, offset)
        handle.shutdown()
        self.daemon.delete_export(image)

    def read(self, name, length, offset=0):
        handle = harness.nbd_connect(self.daemon.uri(name))
        try:
            return handle.pread(length, offset)
        finally:
            handle.shutdown()

    def refused(self, method, request, reason, field=None):
        """The error of a call, or of the operation that it begins."""
        with self.assertRaises(harness.CallError) as failed:
            self.daemon.result(self.daemon.call(method, request))
        error = failed.exception
        self.assertEqual(error.reason, reason, error)
        if field is not None:
            self.assertIn(field, [name for name, _ in error.violations()])
        return error

    def resize(self, image, size, **fields):
        return self.daemon.result(self.daemon.call("ImageService/ResizeImage", {
            "name": f"images/{image}", "virtualSizeBytes": str(size), **fields}))

    def source(self, name, *commands, size="1M", options="", backing=None):
        """A file that qemu has made, beside the pool."""
        path = self.daemon.file(name)
        more = (["-o", options] if options else []) + (["-F", "qcow2", "-u", "-b", backing] if backing else [])
        run("qemu-img", "create", "-q", "-f", "qcow2", *more, path, size)
        if commands:
            run("qemu-io", "-f", "qcow2", *(w for c in commands for w in ("-c", c)), path)
        return path


def merged(runs):
    """(offset, length, data, depth, host, allocated): neighbours that nothing tells apart as one."""
    result = []
    for start, length, data, depth, host, allocated in runs:
        if result:
            last = result[-1]
            goes_on = host == (None if last[4] is None else last[4] + last[1])
            if (last[2], last[3], last[5]) == (data, depth, allocated) and goes_on:
                result[-1] = (last[0], last[1] + length, *last[2:])
                continue
        result.append((start, length, data, depth, host, allocated))
    return result


def by_value(runs, value):
    """[(length, value of a run)], neighbours of one value merged."""
    found = []
    for one in runs:
        if found and found[-1][1] == value(one):
            found[-1] = (found[-1][0] + one[1], found[-1][1])
        else:
            found.append((one[1], value(one)))
    return found


def qemu_check(path):
    """Its exit status: 0 is clean, 2 corrupt, 3 has leaks."""
    return run("qemu-img", "check", "-f", "qcow2", path, ok=False).returncode


def qemu_info(path):
    return json.loads(run("qemu-img", "info", "-U", "--output=json", "-f", "qcow2", path).stdout)


def qemu_bytes(path, kind="qcow2"):
    """What qemu reads, skipping what it believes to be zero."""
    flat = path + ".flat"
    run("qemu-img", "convert", "-f", kind, "-O", "raw", path, flat)
    content = harness.read_file(flat)
    os.unlink(flat)
    return content


def qemu_reads(path, kind="qcow2"):
    """What qemu reads when it reads all of it."""
    flat = path + ".flat"
    run("qemu-img", "dd", "-f", kind, "-O", "raw", "bs=1M", f"if={path}", f"of={flat}")
    content = harness.read_file(flat)
    os.unlink(flat)
    return content


def qemu_atoms(path, sizes, kinds):
    """The map of a chain by qemu in Gabion's words. `sizes` and `kinds` of its images from the top.

    qemu says neither that a backing image is too short (S-5 of the specification: there its end supplies the zeroes)
    nor that a hole of a raw file takes no space.
    """
    runs = []
    for entry in json.loads(run("qemu-img", "map", "--output=json", "-f", kinds[0], path).stdout):
        start, end = entry["start"], min(entry["start"] + entry["length"], sizes[0])
        if start >= end:
            continue
        if not entry["present"]:
            runs += absent(start, end, sizes)
            continue
        depth, data, host = entry["depth"] + 1, entry["data"], entry.get("offset")
        allocated = data or (host is not None and kinds[entry["depth"]] == "qcow2")
        cut = min(max(sizes[entry["depth"]], start), end)  # a raw file's size, not rounded up to sectors
        if cut > start:
            runs.append((start, cut - start, data, depth, host if data else None, allocated))
        if end > cut:
            runs.append((cut, end - cut, False, depth, None, False))
    return merged(runs)


def absent(start, end, sizes):
    """What no image of a chain has: 0, or where a backing image ends, the image that is too short."""
    runs, cuts = [], sorted({start, end, *(s for s in sizes[1:] if start < s < end)})
    for a, b in zip(cuts, cuts[1:]):
        short = next((n for n in range(1, len(sizes)) if sizes[n] <= a), None)
        runs.append((a, b - a, False, 0 if short is None else short + 1, None, False))
    return runs


# ---- random parameters and requests


def random_format(rng):
    """cluster bits, version, extended L2, refcount bits, compression: what fits together."""
    bits = rng.choice((9, 10, 12, 14, 16, 16, 17, 19, 21))
    version = rng.choice((2, 3, 3, 3))
    extended = version == 3 and bits >= 14 and rng.random() < 0.5
    return {"bits": bits, "version": version, "extended": extended,
            "refcounts": rng.choice((1, 2, 4, 8, 16, 32, 64)) if version == 3 else 16,
            "zstd": version == 3 and rng.random() < 0.5}


def qemu_options(form):
    options = [f"cluster_size={1 << form['bits']}", f"compat={'1.1' if form['version'] == 3 else '0.10'}",
               f"refcount_bits={form['refcounts']}"]
    if form["extended"]:
        options.append("extended_l2=on")
    if form["zstd"]:
        options.append("compression_type=zstd")
    return ",".join(options)


def gabion_options(form):
    return {"clusterSizeBytes": 1 << form["bits"], "version": form["version"], "extendedL2": form["extended"],
            "refcountBits": form["refcounts"], "compression": "COMPRESSION_ZSTD" if form["zstd"] else "COMPRESSION_ZLIB"}


def random_size(rng, bits, unit=512):
    """Up to some dozens of clusters, a few MiB at most."""
    most = min((1 << bits) * 100, 6 * MiB)
    return rng.randint(1, max(most // unit, 1)) * unit


def random_range(rng, size, bits, unit=512):
    """Around clusters or parts of them; not empty, within the size."""
    cluster = 1 << bits
    step = rng.choice((unit, cluster, max(cluster // 32, unit), 4 * KiB))
    offset = min(rng.randrange(size) // step * step, (size - 1) // unit * unit)
    length = step * rng.choice((1, 1, 2, 3, 5)) + rng.choice((0, 0, unit))
    return offset, max(min(length, size - offset, MiB), 1)


def qemu_io_commands(rng, size, form, pattern, count):
    """Random requests for qemu-io on one image."""
    commands, cluster = [], 1 << form["bits"]
    for _ in range(count):
        offset, length = random_range(rng, size, form["bits"])
        kind = rng.choice(("w", "w", "w", "s", "z", "zu", "d", "c", "c"))
        if kind == "w":
            commands.append(f"w -P {rng.choice((0, 1, 7, 255))} {offset} {length}")
        elif kind == "s":
            commands.append(f"w -s {pattern} {offset} {length}")
        elif kind in ("z", "zu"):
            commands.append(f"w -z {'-u ' if kind == 'zu' else ''}{offset} {length}")
        elif kind == "d":
            commands.append(f"discard {offset} {length}")
        else:
            offset = offset // cluster * cluster
            length = min(cluster, size - offset)
            commands.append(f"w -c {rng.choice((f'-s {pattern}', '-P 9'))} {offset} {length}")
    return commands
