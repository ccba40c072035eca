"""callers_test.py grpcurl|buf: the calls that the tour prints for grpcurl, made by that program, which learns the
messages by reflection."""

import base64
import os
import re
import shlex
import sys

import harness
from harness import run

TOUR = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../deploy/tour.sh")


def buf_command(words):
    """The same call for `buf curl`."""
    *flags, socket, method = words
    assert flags[:2] == ["grpcurl", "-plaintext"] and flags[-1] == "-unix", words
    data = flags[flags.index("-d") + 1] if "-d" in flags else "{}"
    return ["buf", "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--unix-socket", socket, "--data", data,
            "http://localhost/" + method]


def decoded_details(text):
    """What is readable in the details of an error that buf prints, which leaves them packed."""
    values = re.findall(r'"value": "([A-Za-z0-9+/]+)"', text)
    return " ".join(base64.b64decode(value + "=" * (-len(value) % 4)).decode(errors="replace") for value in values)


class CallersTest(harness.GabionTestCase):
    tool = "grpcurl"

    def test_the_calls_of_the_tour(self):
        output = run(TOUR, os.environ["GABION_CTL"], self.daemon.data).stdout
        calls = [shlex.split(line) for line in re.findall(r"^# (grpcurl .*)$", output, flags=re.M)]
        self.assertGreater(len(calls), 8)
        for name in ("exact", "pad-4096", "pad-512"):
            self.daemon.delete_export("tour-" + name)
        self.daemon.delete_image("tour")
        for words in calls:
            command = buf_command(words) if self.tool == "buf" else words
            with self.subTest(" ".join(command[-3:])):
                done = run(*command, ok=False)
                said = done.stdout + done.stderr + decoded_details(done.stdout + done.stderr)
                expected = self.refusal_of(words)
                if expected:
                    self.assertNotEqual(done.returncode, 0)
                    self.assertIn(expected, said)
                else:
                    self.assertEqual(done.returncode, 0, said)
                    self.assertTrue(harness.parse_documents(done.stdout))

    @staticmethod
    def refusal_of(words):
        """The reason with which a call of the tour is refused; two exports are left when the image is to be deleted."""
        method, text = words[-1], " ".join(words)
        if "tour-refuse" in text:
            return "SIZE_NOT_MULTIPLE_OF_MINIMUM" if method.endswith("CreateExport") else "RESOURCE_NOT_FOUND"
        return "IMAGE_IN_USE" if method.endswith("DeleteImage") else None


if __name__ == "__main__":
    CallersTest.tool = sys.argv.pop(1)
    harness.main(commands=[CallersTest.tool, "jq", "nbdinfo", "nbdcopy", "qemu-img", "cmp"])
