"""Every reason of an error as `buf curl` prints it, with its details decoded by what reflection tells: compared with
goldens/errors.txt, in which what differs from run to run is masked. GABION_UPDATE_GOLDENS=1 writes that file anew; look
at what changed before you commit it. GABION_ERROR_STAGE names the program that plays the scenes."""

import base64
import difflib
import json
import os
import re
import subprocess
import unittest

import harness
from harness import run, start

GOLDENS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "goldens/errors.txt")
REFLECTION = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
MASKS = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"), "UID"),
    (re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+Z"), "TIME"),
    (re.compile(r'"\\"[0-9a-f]{8,}\\""'), '"ETAG"'),
    (re.compile(r'"(oldest-revision|revision)": "?\d+"?'), r'"\1": "REVISION"'),
    (re.compile(r"(revision|after revision) \d+"), r"\1 REVISION"),
)


def masked(text):
    for pattern, mask in MASKS:
        text = pattern.sub(mask, text)
    return text


class Decoder:
    """Learns messages from the server's reflection, asked by `buf curl`, when they are needed."""

    def __init__(self, curl):
        from google.protobuf import descriptor_pool
        self.curl = curl
        self.pool = descriptor_pool.DescriptorPool()
        self.known = set()

    def _learn(self, question):
        from google.protobuf import descriptor_pb2
        answer, = harness.parse_documents(self.curl(REFLECTION, json.dumps(question)).stdout)
        files = {}
        for data in answer["fileDescriptorResponse"]["fileDescriptorProto"]:
            file = descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(data))
            files[file.name] = file

        def add(name):
            if name in self.known:
                return
            if name not in files:
                return self._learn({"fileByFilename": name})
            for dependency in files[name].dependency:
                add(dependency)
            self.pool.Add(files[name])
            self.known.add(name)
        for name in files:
            add(name)

    def decode(self, kind, data):
        from google.protobuf import json_format, message_factory
        try:
            message = self.pool.FindMessageTypeByName(kind)
        except KeyError:
            self._learn({"fileContainingSymbol": kind})
            message = self.pool.FindMessageTypeByName(kind)
        parsed = message_factory.MessageFactory(self.pool).GetPrototype(message).FromString(data)
        return {"type": kind, **json_format.MessageToDict(parsed, descriptor_pool=self.pool)}


class ErrorGoldensTest(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.stage = start([os.environ["GABION_ERROR_STAGE"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(self.stage.wait)
        self.addCleanup(self.stage.stdout.close)
        self.addCleanup(self.stage.stdin.close)
        self.socket = self.stage.stdout.readline().strip()
        self.decoder = Decoder(self.curl)

    def curl(self, method, data):
        return run("buf", "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--unix-socket", self.socket,
                   "--data", data, "http://localhost/" + method, ok=False)

    def error_of(self, done):
        """The error that buf prints, or that is in the operation that it prints; details are decoded."""
        if done.returncode == 0:
            operation = harness.parse_documents(done.stdout)[-1]
            return operation["error"]
        self.assertIn("{", done.stderr, done.stdout)
        error = json.loads(done.stderr[done.stderr.index("{"):])
        error["details"] = [self.decoder.decode(detail["type"], base64.b64decode(
            detail["value"] + "=" * (-len(detail["value"]) % 4))) for detail in error.get("details", [])]
        return error

    def play(self):
        """The golden of each scene by its reason, in the order of the scenes."""
        texts = {}
        for line in self.stage.stdout:
            reason, method, request = line.rstrip("\n").split("\t")
            error = self.error_of(self.curl(method, request))
            told = [detail.get("reason") for detail in error["details"]]
            self.assertIn(reason, told, f"{method} {request}: {error}")
            self.assertNotIn(reason, texts)
            texts[reason] = f"# {reason}: {method}\n{masked(json.dumps(error, indent=2, sort_keys=True))}\n"
            self.stage.stdin.write("called\n")
            self.stage.stdin.flush()
        return texts

    def test_every_reason_as_buf_curl_prints_it(self):
        texts = self.play()
        self.assertEqual(self.stage.wait(harness.TIME_LIMIT_S), 0)
        self.assertGreater(len(texts), 50)
        got = "\n".join(texts.values())
        if os.environ.get("GABION_UPDATE_GOLDENS"):
            os.makedirs(os.path.dirname(GOLDENS), exist_ok=True)
            with open(GOLDENS, "w", encoding="utf-8") as file:
                file.write(got)
        with open(GOLDENS, encoding="utf-8") as file:
            wanted = file.read()
        if got != wanted:
            self.fail("\n".join(difflib.unified_diff(wanted.split("\n"), got.split("\n"), "goldens/errors.txt", "now",
                                                     lineterm="")))


if __name__ == "__main__":
    harness.main(commands=["buf"], modules=["google.protobuf"])
