"""What helm renders, against the schemas and the types of Kubernetes' own objects: no field has a wrong type, is missing, or
is one that its object does not have. (A cluster may refuse more: what it says is not known here.)"""

import atexit
import pathlib
import shutil
import sys
import tempfile
import unittest

import staging

CHART = staging.ROOT / "helm/gabion"
MODULES = staging.ROOT / "build/tools/manifests"


def complaints(text):
    """What the validator says of the manifests, and if it says nothing, the compiler; empty if neither does."""
    place = pathlib.Path(tempfile.mkdtemp(prefix="check_", dir=MODULES))  # below MODULES, where modules are found
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    (place / "rendered.yaml").write_text(text)
    done = staging.run("node", pathlib.Path(__file__).with_name("manifests.mjs"), MODULES, place / "rendered.yaml",
                       place / "typed.ts", ok=False)
    if done.returncode != 0:
        return done.stdout + done.stderr
    return staging.run("node", MODULES / "node_modules/typescript/bin/tsc", "--noEmit", "--strict", "--skipLibCheck",
                       "--moduleResolution", "node", place / "typed.ts", ok=False).stdout


def render(values):
    return staging.run("helm", "template", "gabion", CHART, "--values", CHART / "ci" / values).stdout


class ManifestsTest(unittest.TestCase):
    def test_each_set_of_values_renders_to_objects_that_kubernetes_knows(self):
        everything = [render(path.name) for path in sorted((CHART / "ci").glob("*.yaml"))]
        self.assertEqual(complaints("\n---\n".join(everything)), "")

    def test_what_is_wrong_is_found(self):
        good = render("plain.yaml")
        for name, (what, instead, said) in {
                "wrong type": ("replicas: 1", "replicas: one", "replicas"),
                "missing field": ("- name: gabiond", "- stdin: false", "name"),
                "unknown field": ("replicas: 1", "replicaz: 1", "replicaz"),
                "unknown field further down": ("readOnlyRootFilesystem: true", "readonlyRootFilesystem: true",
                                               "readonlyRootFilesystem"),
                "unknown kind": ("kind: StatefulSet", "kind: StatefulSets", "StatefulSets")}.items():
            with self.subTest(name):
                self.assertIn(what, good)
                self.assertIn(said, complaints(good.replace(what, instead)))


if not (MODULES / "node_modules/kubernetes-models").is_dir():
    print(f"skipped: {MODULES} has no kubernetes-models, which tests/run.sh installs where npm is")
    sys.exit(staging.SKIPPED)
staging.main(["helm", "node"])
