"""The tour runs, can be run again at once, and leaves what it says."""

import os
import re

import harness
from harness import run

TOUR = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../deploy/tour.sh")


class TourTest(harness.GabionTestCase):
    def tour(self):
        return run(TOUR, os.environ["GABION_CTL"], self.daemon.data).stdout

    def test_the_tour_runs_and_runs_again(self):
        for _ in range(2):
            output = self.tour()
            self.assertIn("SIZE_NOT_MULTIPLE_OF_MINIMUM", output)
        exports = self.daemon.call("ExportService/ListExports", {})["exports"]
        self.assertEqual([e["name"] for e in exports], [f"exports/tour-{n}" for n in ("exact", "pad-4096", "pad-512")])

    def test_the_calls_that_it_prints_delete_what_it_made(self):
        output = self.tour()
        printed = re.findall(r"^\$ (gabionctl .*Delete.*)$", output, flags=re.M)
        self.assertEqual(len(printed), 2)
        for name in ("pad-4096", "pad-512"):
            self.daemon.delete_export("tour-" + name)
        exports = re.findall(r"^\$ (export .*)$", output, flags=re.M)
        self.assertEqual(len(exports), 2)
        for line in printed:
            run("bash", "-c", "\n".join([*exports, line]))
        self.assertEqual(self.daemon.call("ImageService/ListImages", {}).get("images", []), [])


if __name__ == "__main__":
    harness.main(commands=["jq", "nbdinfo", "nbdcopy", "qemu-img", "cmp"])
