"""Filters that change no data change nothing that anybody learns about it: maps, explanations, checks, copies and jobs are the
same with any number of them, in any order, as without."""

import hashlib
import json
import os

import harness
import qcow2_chains_test
from harness import KiB, MiB, run
from qcow2_tools import by_value, qemu_bytes

CHAINS = int(os.environ.get("GABION_CHAINS", "2"))  # that each test plays

# Of every kind that forwards, and of those that do not, bypassed.
FORWARDING = (
    {"spec": {"log": {"failuresOnly": True}}}, {"spec": {"stats": {}}}, {"spec": {"throttle": {}}}, {"spec": {"delay": {}}},
    {"spec": {"featureMask": {}}}, {"spec": {"featureMask": {"hideMultiConn": True, "hideCache": True}}},
    {"spec": {"slice": {"range": {}}}}, {"spec": {"align": {}}}, {"spec": {"retry": {}}}, {"spec": {"readahead": {}}},
    {"spec": {"readOnly": {}}, "bypassed": True}, {"spec": {"featureMask": {"hideHoles": True}}, "bypassed": True},
    {"spec": {"slice": {"range": {"offsetBytes": "512"}}}, "bypassed": True}, {"spec": {"resize": {"sizeBytes": "512"}}, "bypassed": True},
    {"spec": {"fault": {"alignmentBytes": 65536, "rules": [{"error": "ERROR_EIO"}]}}, "bypassed": True})
CHANGING = ({"spec": {"featureMask": {"hideHoles": True}}},)


def stack_of(entries):
    return [{"entryId": f"f{number}", **entry} for number, entry in enumerate(entries)]


def digest(content):
    return len(content), hashlib.sha256(content).hexdigest()


def qemu_map(*arguments):
    return json.loads(run("qemu-img", "map", "--output=json", *arguments).stdout)


def qemu_layers(path):
    """Which image of a chain has what. Of zeroes in clusters that are in use qemu knows what the file system tells of the file."""
    return [{name: extent[name] for name in ("length", "depth", "present")} for extent in qemu_map("-f", "qcow2", path)]


# Where in its file something is, which depends on when clusters that are given up are used again, and what follows from that.
PLACES = {"hostOffset", "imageEndOffset", "fragmentedClusters", "allocatedBytes", "reason", "offset", "start", "length"}


def placeless(fact):
    """The fact without PLACES, and of extents those that are alike then as one."""
    if isinstance(fact, dict):
        return {name: placeless(part) for name, part in fact.items() if name not in PLACES}
    if not isinstance(fact, list):
        return fact
    if all(isinstance(part, dict) and "length" in part for part in fact):
        return by_value([(None, int(part["length"]), placeless(part)) for part in fact], lambda run_: run_[2])
    return [placeless(part) for part in fact]


class TransparencyTest(qcow2_chains_test.ChainTestCase):
    make_raw = qcow2_chains_test.ChainsOfQemuTest.make_raw
    make_qcow2 = qcow2_chains_test.ChainsOfQemuTest.make_qcow2
    make_chain = qcow2_chains_test.ChainsOfQemuTest.make_chain

    def stacks(self, rng):
        """By their names, [0] of each is the top."""
        twice = [*FORWARDING, *FORWARDING]
        shuffled = rng.sample(twice, len(twice))
        return {"none": [], "once": stack_of(FORWARDING), "twice": stack_of(twice), "shuffled": stack_of(shuffled)}

    def bring_chain(self, name, rng):
        """A random chain; returns its images from the bottom, and how it was made."""
        pattern = harness.write_file(self.daemon.file("pattern"), (0, rng.randbytes(200) * 40 + rng.randbytes(100 * KiB)))
        chain, story = self.make_chain(rng, name, pattern)
        images = [f"{name}-{number}" for number in range(len(chain))]
        for number, (path, kind, _) in enumerate(chain):
            self.bring(images[number], path, images[number - 1] if number else None, kind)
        return images, story

    def answer(self, method, request):
        """What a call or its operation answers, or with which error it ends."""
        try:
            reply = self.daemon.call(method, request)
            return self.daemon.result(reply) if "done" in reply or "metadata" in reply else reply
        except harness.CallError as error:
            return error.code, error.reason, error.metadata

    # ---- what can be learnt

    def facts(self, export, images):
        """All that can be learnt of an export's data, and what jobs make of its images meanwhile."""
        return {**self.facts_of_export(export), **self.facts_of_jobs(images)}

    def facts_of_export(self, export):
        name, uri = f"exports/{export}", self.daemon.uri(export)
        flat, packed = self.daemon.file("flat"), self.daemon.file("packed")
        run("nbdcopy", "--sparse=0", uri, flat)  # holes are where the server says so
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=512", uri, packed)
        facts = {
            "maps": [self.map(name, **options) for options in (
                {}, {"granularityBytes": 4 * KiB}, {"granularityBytes": 64 * KiB}, {"asAdvertised": True})],
            "explanations": self.explain(name),
            "nbdinfo": [run("nbdinfo", option, uri).stdout for option in ("--size", "--map", "--map=qemu:allocation-depth")],
            "qemu-img map": qemu_map("-f", "raw", uri),
            "content of copies": [digest(harness.read_file(flat)), digest(qemu_bytes(packed))],
            "allocation of copies": [qemu_map("-f", "raw", flat), qemu_map("-f", "qcow2", packed)]}
        os.unlink(flat)
        return facts

    def explain(self, name):
        """Of each extent what clients are told, the layers, and what filters do, if they do anything."""
        found, at = [], 0
        while not found or at < size:
            reply = self.daemon.call("InspectService/Explain", {"name": name, "offset": str(at), "maxResults": 1000})
            size = int(reply["virtualSizeBytes"])
            for extent in reply["extents"]:
                self.assertEqual(int(extent.get("offset", 0)), at)
                effects = {step["effect"] for step in extent.get("steps", []) if step["what"] == "WHAT_FILTER"}
                found.append({"start": at, "length": int(extent["length"]), "told": extent.get("advertised"),
                              "layers": extent.get("layers"), "effects": effects - {"EFFECT_NONE", "EFFECT_BYPASSED"}})
                at += int(extent["length"])
        return found

    def facts_of_jobs(self, images):
        top = f"images/{images[-1]}"
        facts = {
            "checks": [self.answer("ImageService/CheckImage", {"name": f"images/{image}"}) for image in images],
            "measures": [self.answer("ImageService/MeasureImage", {"source": top, "image": image})
                         for image in ({"qcow2": {}}, {"raw": {}})],
            "map of the image": self.map(top), "explanation of the image": self.explain(top)}
        path = self.clone("copied", images[-1])
        clone = self.image("copied")
        facts["clone"] = [digest(harness.read_file(path)), digest(qemu_bytes(path)), qemu_layers(path),
                          self.map("images/copied"), self.answer("ImageService/CheckImage", {"name": "images/copied"}),
                          {field: clone[field] for field in ("virtualSizeBytes", "allocatedBytes", "chainDepth") if field in clone}]
        self.daemon.delete_image("copied")
        return facts

    def assert_same_facts(self, facts, expected, what):
        for name in expected:
            self.assertEqual(facts[name], expected[name], f"{name} {what}")

    # ---- reading

    def test_of_images_that_are_read(self):
        self.for_rounds(self.play, CHAINS)

    def play(self, name, rng):
        images, story = self.bring_chain(name, rng)
        alone = self.facts_of_jobs(images)
        minimum = rng.choice((1, 512, 4 * KiB))
        stacks, expected = self.stacks(rng), None
        for kind, stack in stacks.items():
            export = f"{name}-{kind}"
            self.daemon.create_export(export, images[-1], {"minimumBytes": minimum}, readOnly=True, exposeAllocationDepth=True,
                                      filterStack=stack)
            facts = self.facts(export, images)
            expected = expected or facts
            self.assertFalse(any(extent["effects"] for extent in facts["explanations"]))
            self.assert_same_facts(facts, expected, f"with filters {kind}: {stack}\n{story}")
            self.assert_same_facts(facts, alone, f"with filters {kind}, and without an export: {stack}\n{story}")
        for kind in stacks:
            self.daemon.delete_export(f"{name}-{kind}")

    def test_what_changes_something_is_seen(self):
        """So that the comparison is known to see what there is to see."""
        path = self.daemon.file("holes")
        run("qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
        run("qemu-io", "-f", "qcow2", "-c", "w -P 7 64k 64k", path)
        self.bring("holes", path)
        for name, entries in (("plain", ()), ("changed", CHANGING)):
            self.daemon.create_export(f"holes-{name}", "holes", readOnly=True, exposeAllocationDepth=True, filterStack=stack_of(entries))
        plain, changed = (self.facts(f"holes-{name}", ["holes"]) for name in ("plain", "changed"))
        self.assertEqual({name for name in plain if plain[name] != changed[name]},
                         {"maps", "explanations", "nbdinfo", "qemu-img map", "allocation of copies"})

    # ---- writing

    def test_of_images_that_are_written(self):
        self.for_rounds(self.play_writes, CHAINS)

    def play_writes(self, name, rng):
        images, story = self.bring_chain(f"{name}-w", rng)
        size = int(self.image(images[-1])["virtualSizeBytes"])
        form = qcow2_chains_test.random_format(rng)
        requests = [self.random_request(rng, size, form["bits"]) for _ in range(30)]
        expected = None
        for kind, stack in self.stacks(rng).items():
            facts = self.write_and_look(images[-1], size, form, stack, requests)
            expected = expected or facts
            self.assert_same_facts(facts, expected, f"after writes with filters {kind}: {stack}\n{form} {requests}\n{story}")

    @staticmethod
    def random_request(rng, size, bits):
        offset, length = qcow2_chains_test.random_range(rng, size, bits, rng.choice((512, 1)))
        return rng.choice(("pwrite", "pwrite", "zero", "zero", "trim", "flush")), offset, length, rng.randbytes(1)

    def write_and_look(self, source, size, form, stack, requests):
        """What is in a clone when it has been written to by one client and grown meanwhile, as clients, jobs and qemu see it."""
        path = self.clone("written", source, size, qcow2_chains_test.gabion_options(form))
        self.daemon.create_export("written", "written", {"minimumBytes": 1}, exposeAllocationDepth=True, filterStack=stack)
        handle = harness.nbd_connect(self.daemon.uri("written"))
        for kind, offset, length, value in requests:
            if kind == "pwrite":
                handle.pwrite(value * length, offset)
            elif kind == "flush":
                handle.flush()
            else:
                getattr(handle, kind)(length, offset)
        self.daemon.result(self.daemon.call("ImageService/ResizeImage", {
            "name": "images/written", "virtualSizeBytes": str(size + MiB)}))
        harness.hang_up(handle)
        handle = harness.nbd_connect(self.daemon.uri("written"))
        handle.pwrite(b"end", handle.get_size() - 3)
        harness.hang_up(handle)
        seen = self.facts_of_export("written")
        self.daemon.delete_export("written")
        jobs = self.facts_of_jobs(["written"])
        qemu = {"layers of the file": qemu_layers(path), "content of the file": digest(qemu_bytes(path))}
        self.daemon.delete_image("written")
        return {name: placeless(fact) for name, fact in {**seen, **jobs, **qemu}.items()}


if __name__ == "__main__":
    harness.main(commands=["qemu-img", "qemu-io", "nbdcopy", "nbdinfo", "cp"])
