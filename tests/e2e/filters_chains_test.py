"""Random chains of images under random stacks of random filters, against a model that knows which filter changes what: the bytes,
the byte-exact map, and what block status makes of it in units of whatever minimum block size comes out."""

import sys

import harness
import nbd
import qcow2_chains_test
from harness import extents, run
from qcow2_tools import merged, qemu_bytes

DEPTH, DEPTH_MAX = "qemu:allocation-depth", "x-gabion:allocation-depth-max"
GiB = 1 << 30


class Model:
    """What a disk shows: its bytes, its runs (offset, length, data, depth, host offset, allocated), and the alignment that
    clients are told."""

    def __init__(self, content, runs, layers):
        self.content, self.runs, self.layers, self.granule = content, runs, layers, 1

    @property
    def size(self):
        return len(self.content)

    def cut(self, begin, end):
        runs = []
        for offset, length, data, depth, host, allocated in self.runs:
            first, last = max(offset, begin), min(offset + length, end)
            if first < last:
                runs.append((first - begin, last - first, data, depth, None if host is None else host + first - offset, allocated))
        self.runs, self.content = runs, self.content[begin:end]

    def add(self, length):
        if length > 0:
            self.runs = merged([*self.runs, (self.size, length, False, 0, None, False)])
            self.content += bytes(length)

    def resize(self, size):
        self.cut(0, size)
        self.add(size - self.size)

    def status(self, context):
        """The descriptors of the whole disk, units of the granule merged by the rules of each context."""
        granule, found = self.granule, []
        counted = {"base:allocation": lambda r: 0 if r[2] else 2 if r[5] else 3,
                   DEPTH: lambda r: r[3] or self.layers + 1, DEPTH_MAX: lambda r: r[3] or self.layers + 1}[context]
        cuts, values = {}, []
        for run_ in self.runs:
            offset, end = run_[0], run_[0] + run_[1]
            first, last = offset // granule, -(-end // granule)
            values.append((first, last, counted(run_)))
        for first, last, value in values:
            # Only the units at the ends are shared with others.
            for unit in {first, last - 1}:
                cuts.setdefault(unit, []).append(value)
        edges = sorted(cuts)
        pieces = [(unit, unit + 1, cuts[unit]) for unit in edges]
        pieces += [(first + 1, last - 1, [value]) for first, last, value in values if last - first > 2]
        for begin, end, parts in sorted(pieces):
            if context == "base:allocation":
                value = min(parts) if 0 in parts else 2 if 2 in parts else 3
            elif context == DEPTH:
                value = min(parts) if min(parts) <= self.layers else 0
            else:
                value = max(parts) if min(parts) <= self.layers else 0
            length = (end - begin) * granule
            if found and found[-1][1] == value:
                found[-1] = (found[-1][0] + length, value)
            else:
                found.append((length, value))
        return found


class FilteredChainsTest(qcow2_chains_test.ChainTestCase):
    make_raw = qcow2_chains_test.ChainsOfQemuTest.make_raw
    make_qcow2 = qcow2_chains_test.ChainsOfQemuTest.make_qcow2
    make_chain = qcow2_chains_test.ChainsOfQemuTest.make_chain

    def test_random_stacks_on_random_chains(self):
        self.for_rounds(self.play)

    def play(self, name, rng):
        pattern = harness.write_file(self.daemon.file("pattern"), (0, rng.randbytes(200) * 40 + rng.randbytes(100 << 10)))
        chain, story = self.make_chain(rng, name, pattern)
        for number, (path, kind, _) in enumerate(chain):
            self.bring(f"{name}-{number}", path, f"{name}-{number - 1}" if number else None, kind)
        image = f"{name}-{len(chain) - 1}"
        content = qemu_bytes(chain[-1][0], chain[-1][1])[:chain[-1][2]]
        for number in range(5):
            model = Model(content, self.atoms(f"images/{image}"), len(chain))
            stack = self.random_stack(rng, model)
            try:
                self.check(rng, f"{name}-{number}-e", image, stack, model)
            except (AssertionError, harness.CallError, nbd.Error):
                print(f"{name}:", *story, "stack, from the top:", *stack, sep="\n  ", file=sys.stderr)
                raise

    def random_stack(self, rng, model):
        stack = []
        for number in range(rng.randrange(7)):
            entry = {"entryId": f"f{number}", "spec": {}, "bypassed": rng.random() < 0.15}
            shown = model if not entry["bypassed"] else Model(model.content, model.runs, model.layers)
            entry["spec"] = self.random_filter(rng, shown)
            stack.insert(0, entry)
        return stack

    @staticmethod
    def random_filter(rng, model):
        kind = rng.choice(("slice", "resize", "fault", "fault", "align", "hide", "clear", "clear", "clear"))
        if kind == "slice" and model.size > 1:
            begin = rng.choice((0, rng.randrange(model.size), min(model.size - 1, rng.randrange(1, 9) * 512)))
            end = rng.choice((model.size, rng.randint(begin + 1, model.size)))
            model.cut(begin, end)
            return {"slice": {"range": {"offsetBytes": str(begin), "lengthBytes": str(end - begin)}}}
        if kind == "resize":
            if rng.random() < 0.5:
                unit = 1 << rng.randrange(17)
                model.resize(-(-model.size // unit) * unit)
                return {"resize": {"roundUpBytes": unit}}
            size = rng.randint(max(1, model.size // 2), model.size * 2)
            model.resize(size)
            return {"resize": {"sizeBytes": str(size)}}
        if kind == "fault":
            unit = 1 << rng.randrange(17)
            model.granule = max(model.granule, unit)
            return {"fault": {"alignmentBytes": unit}}
        if kind == "align":
            model.granule = 1
            return {"align": {"alignmentBytes": 1 << rng.randrange(17)}}
        if kind == "hide":
            model.runs = [(0, model.size, True, 1, None, True)]
            return {"featureMask": {"hideHoles": True}}
        return rng.choice(({"stats": {}}, {"log": {"failuresOnly": True}}, {"retry": {}}, {"readahead": {}},
                           {"featureMask": {"hideTrim": True}}, {"delay": {}}, {"writeProtect": {"ranges": [{}]}},
                           {"throttle": {"totalOps": {"averagePerSecond": "1000000000"}}}))

    def check(self, rng, export, image, stack, model):
        minima = [minimum for minimum in (512, 4096, 65536) if minimum >= model.granule]
        policy = {"minimumBytes": rng.choice(minima)} if rng.random() < 0.5 else {}
        created = self.daemon.create_export(export, image, policy, readOnly=True, exposeAllocationDepth=True, filterStack=stack)
        if policy:
            model.granule = policy["minimumBytes"]
        self.assertEqual(created["effectiveBlockSizes"]["minimum"]["bytes"], model.granule)
        padding = -model.size % model.granule
        size = model.size + padding
        self.assertEqual(int(created["effectiveBlockSizes"]["exportSizeBytes"]), size)
        handle = self.connect(self.daemon.uri(export), contexts=["base:allocation", DEPTH, DEPTH_MAX])
        self.assertEqual(handle.get_size(), size)
        copy = self.daemon.file("copy")
        run("nbdcopy", self.daemon.uri(export), copy)
        self.assert_same(harness.read_file(copy), model.content + bytes(padding), "what is read")
        for context in ("base:allocation", DEPTH, DEPTH_MAX):
            found, at = [], 0
            while at < size:
                for length, value in extents(handle, at, min(size - at, GiB), context=context):
                    self.assertEqual(length % model.granule, 0, "P1")
                    at += length
                    if found and found[-1][1] == value:
                        found[-1] = (found[-1][0] + length, value)
                    else:
                        found.append((length, value))
            self.assertEqual(found, model.status(context), context)
        chunks = []

        def on_chunk(data, offset, status, _error):
            chunks.append((offset, len(data)))
            return 0
        length = min(size, 1 << 20)
        self.assertEqual(bytes(handle.pread_structured(length, 0, on_chunk)), (model.content + bytes(padding))[:length])
        self.assertTrue(all(o % model.granule == 0 and n % model.granule == 0 for o, n in chunks), chunks)
        model.add(padding)
        self.assertEqual(self.atoms(f"exports/{export}"), merged(model.runs), "the byte-exact map")
        harness.hang_up(handle)
        self.daemon.delete_export(export)


if __name__ == "__main__":
    harness.main(commands=["qemu-img", "qemu-io", "nbdcopy", "cp"])
