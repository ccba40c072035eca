"""Starts the built gabiond with a data directory of its own, calls it, and runs clients against it.

A test file is a unittest module whose last line is `harness.main(...)`. A class that derives from GabionTestCase has
one daemon for all its tests; a test that needs one to itself makes a Gabiond. Paths of the programs come from the
environment: GABIOND and GABION_CTL, which CMake sets. GABION_FLAGS are passed to every daemon before its own flags.
"""

import atexit
import ctypes
import faulthandler
import importlib.util
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.parse

SKIPPED = 77
# A client or a call that takes this long hangs: far more than any takes, also under sanitizers on a busy machine.
TIME_LIMIT_S = 120
KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30
# google.rpc.Code
CODES = ("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
         "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
         "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED")

_logs = []  # (title, text) of each daemon, shown if a test fails


class CallError(Exception):
    """An RPC that ended with an error: its code, and what google.rpc.ErrorInfo says."""

    def __init__(self, method, error):
        self.code = error["code"]
        self.message = error.get("message", "")
        self.details = error.get("details", [])
        info = self.detail("ErrorInfo") or {}
        self.reason = info.get("reason", "")
        self.domain = info.get("domain", "")
        self.metadata = info.get("metadata", {})
        super().__init__(f"{method}: {self.code} {self.reason} {self.metadata}: {self.message}")

    @classmethod
    def of_operation(cls, operation):
        """The error with which an operation ended."""
        error = operation["error"]
        return cls(operation["name"], {**error, "code": CODES[error["code"]]})

    def detail(self, kind):
        """The detail google.rpc.KIND, or None."""
        for detail in self.details:
            if detail["@type"].endswith("/google.rpc." + kind):
                return detail
        return None

    def violations(self):
        """(field, reason) of each violated field."""
        violations = (self.detail("BadRequest") or {}).get("fieldViolations", [])
        return [(v.get("field", ""), v.get("reason", "")) for v in violations]


def _die_with_parent():
    """In a child, before exec: SIGKILL it when the test's process is gone, however that ended."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def start(arguments, **kwargs):
    """A process that ends with this one."""
    return subprocess.Popen([str(a) for a in arguments], preexec_fn=_die_with_parent, **kwargs)


def run(*arguments, ok=True, input=None, cwd=None, env=None):
    """Runs a client and returns it when it has ended; with ok, fails unless it ended with status 0."""
    process = start(arguments, stdin=subprocess.PIPE if input is not None else subprocess.DEVNULL,
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd,
                    env={**os.environ, **(env or {})})
    try:
        out, err = process.communicate(input, timeout=TIME_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"{arguments} did not end within {TIME_LIMIT_S} s\n{out}\n{err}") from None
    if ok and process.returncode != 0:
        raise AssertionError(f"{arguments} ended with status {process.returncode}\n{out}\n{err}")
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def wait_until(condition, what, seconds=TIME_LIMIT_S, process=None):
    """Asks again until it is true. Fails when the time is up, or when `process` ends before."""
    deadline = time.monotonic() + seconds
    pidfd = os.pidfd_open(process.pid) if process else None
    try:
        pause = 0.001
        while True:
            result = condition()
            if result:
                return result
            if process and process.poll() is not None:
                raise AssertionError(f"process ended with status {process.returncode} while waiting until {what}")
            if time.monotonic() > deadline:
                raise AssertionError(f"after {seconds} s still not: {what}")
            select.select([pidfd] if process else [], [], [], pause)
            pause = min(pause * 2, 0.05)
    finally:
        if pidfd is not None:
            os.close(pidfd)


class Gabiond:
    """A running daemon. Use it as a context manager, or call close()."""

    def __init__(self, *flags, folder="/tmp"):
        self.base = tempfile.mkdtemp(prefix="gabion-", dir=folder)  # short: a Unix socket's path has 107 bytes at most
        self.data = os.path.join(self.base, "d")
        self.socket = os.path.join(self.data, "gabiond.sock")
        self.nbd_socket = os.path.join(self.data, "nbd.sock")
        self.pool = os.path.join(self.data, "images")
        self.log_path = os.path.join(self.base, "log")
        self.flags = (*os.environ.get("GABION_FLAGS", "").split(), *flags)
        self.process = None
        atexit.register(self.close)
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def file(self, name):
        """Path for a file of the test, outside of the data directory."""
        return os.path.join(self.base, name)

    # ---- life cycle

    def start(self, *more_flags):
        with open(self.log_path, "ab") as log:
            self.process = start([os.environ["GABIOND"], "--data-dir", self.data, *self.flags, *more_flags],
                                 stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(self._answers, "gabiond answers", process=self.process)

    def _answers(self):
        if not os.path.exists(self.socket):
            return False
        try:
            self.call("ServerService/GetServerInfo", {})
            return True
        except CallError as error:
            if error.code != "UNAVAILABLE":
                raise
            return False

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """kill -9"""
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self):
        """SIGTERM, as a service manager does; returns the exit status."""
        self.process.terminate()
        try:
            status = self.process.wait(TIME_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"gabiond did not end within {TIME_LIMIT_S} s of SIGTERM") from None
        finally:
            self.process = None
        return status

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def close(self):
        atexit.unregister(self.close)
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        if os.path.isdir(self.base):
            _logs.append((self.data, self.log()))
            shutil.rmtree(self.base)

    # ---- control plane

    def call_raw(self, method, request):
        """Runs gabionctl; `request` may be text that is no JSON."""
        text = request if isinstance(request, str) else json.dumps(request)
        return run(os.environ["GABION_CTL"], "--server", "unix:" + self.socket, "call", method, text, ok=False)

    def call(self, method, request):
        """The reply of a unary method as JSON; CallError if it failed."""
        return self.stream(method, request)[-1]

    def stream(self, method, request):
        """All replies of a method; CallError if it failed."""
        done = self.call_raw(method, request)
        if done.returncode == 0:
            return parse_documents(done.stdout)
        raise CallError(method, parse_error(done))

    def refusal(self, method, request):
        """The CallError of a call that must fail."""
        try:
            reply = self.call(method, request)
        except CallError as error:
            return error
        raise AssertionError(f"{method} {request} should have been refused; it answered {reply}")

    # ---- operations

    def finish(self, operation, seconds=TIME_LIMIT_S):
        """The operation once it is done; waits for that."""
        deadline = time.monotonic() + seconds
        while not operation.get("done"):
            if time.monotonic() > deadline:
                raise AssertionError(f"after {seconds} s still not done: {operation}")
            operation = self.call("Operations/WaitOperation", {"name": operation["name"], "timeout": "10s"})
        return operation

    def result(self, operation):
        """What the operation responds with once it is done; CallError if it failed."""
        operation = self.finish(operation)
        if "error" in operation:
            raise CallError.of_operation(operation)
        return operation["response"]

    # ---- resources

    def create_image(self, image_id, size):
        return self.result(self.call("ImageService/CreateImage", {
            "imageId": image_id, "image": {"raw": {}, "virtualSizeBytes": str(size)}}))

    def import_file(self, image_id, path, move=True):
        """Makes an image of a file: puts it into the pool first. Returns the path of the image's file."""
        name = f"import-{image_id}"
        run("cp", "--sparse=always", path, os.path.join(self.pool, name))
        before = set(os.listdir(self.pool))
        self.result(self.call("ImageService/ImportImage",
                              {"imageId": image_id, "image": {"raw": {}}, "sourceFile": name, "move": move}))
        new, = set(os.listdir(self.pool)) - before
        return os.path.join(self.pool, new)

    def create_export(self, export_id, image_id, block_sizes=None, **fields):
        export = {"source": f"images/{image_id}", **fields}
        if block_sizes:
            export["blockSizes"] = block_sizes
        return self.call("ExportService/CreateExport", {"exportId": export_id, "export": export})

    def update_export(self, export_id, mask, **fields):
        return self.call("ExportService/UpdateExport",
                         {"export": {"name": f"exports/{export_id}", **fields}, "updateMask": mask})

    def delete_export(self, export_id):
        """Deletes it as soon as its clients, which have hung up, are gone on the server's side, too."""
        wait_until(lambda: not self.connections(export_id), f"nobody is connected to {export_id}")
        self.result(self.call("ExportService/DeleteExport", {"name": f"exports/{export_id}"}))

    def delete_image(self, image_id):
        self.result(self.call("ImageService/DeleteImage", {"name": f"images/{image_id}"}))

    def connections(self, export_id):
        reply = self.call("ExportService/ListConnections", {"parent": f"exports/{export_id}"})
        return reply.get("connections", [])

    def serve(self, name, size=None, path=None, block_sizes=None, **fields):
        """An image and an export of the same name; returns the export's URI. Of `size` bytes, or from a file."""
        if path is not None:
            self.import_file(name, path)
        else:
            self.create_image(name, size)
        self.create_export(name, name, block_sizes, **fields)
        return self.uri(name)

    def uri(self, nbd_name):
        return f"nbd+unix:///{urllib.parse.quote(nbd_name, safe='')}?socket={self.nbd_socket}"


def parse_documents(text):
    """The JSON documents of a text, one after the other."""
    decoder, documents, at = json.JSONDecoder(), [], 0
    text = text.strip()
    while at < len(text):
        document, at = decoder.raw_decode(text, at)
        documents.append(document)
        while at < len(text) and text[at].isspace():
            at += 1
    return documents


def parse_error(done):
    """The error that gabionctl printed."""
    at = done.stderr.find("{")
    if at < 0:
        raise AssertionError(f"gabionctl printed no error:\n{done.stdout}\n{done.stderr}")
    return json.JSONDecoder().raw_decode(done.stderr, at)[0]


def tail(minimum, mode):
    """A BlockSizePolicy with a minimum (0: derived) and a tail mode."""
    policy = {"tail": "TAIL_" + mode}
    if minimum:
        policy["minimumBytes"] = minimum
    return policy


def nbd_connect(uri, contexts=(), strict=True, structured=True, block_sizes=True):
    """A connection of libnbd. strict=False also sends what a careful client would not."""
    import nbd
    handle = nbd.NBD()
    for context in contexts:
        handle.add_meta_context(context)
    if not strict:
        handle.set_strict_mode(0)
    handle.set_request_structured_replies(structured)
    handle.set_request_block_size(block_sizes)
    handle.connect_uri(uri)
    return handle


def extents(handle, offset, length, flags=0, context="base:allocation"):
    """The descriptors of one BLOCK_STATUS, as (length, flags)."""
    got = []

    def on_extents(name, _offset, flat, _error):
        if name == context:
            got.extend(zip(flat[0::2], flat[1::2]))
        return 0
    handle.block_status(length, offset, on_extents, flags)
    return got


def errno_of(action):
    """The errno's name with which an NBD command failed; "OK" if it did not."""
    import nbd
    try:
        action()
        return "OK"
    except nbd.Error as error:
        return error.errno or error.string


def memory_folder(needed_bytes):
    """A folder whose files live in memory, for what disks are slow at (removing a million extents); else /tmp."""
    memory = "/dev/shm"
    if not os.access(memory, os.W_OK):
        return "/tmp"
    with open("/proc/meminfo", encoding="ascii") as info:
        free = next(int(line.split()[1]) * KiB for line in info if line.startswith("MemAvailable:"))
    space = os.statvfs(memory)
    return memory if min(free, space.f_bavail * space.f_frsize) >= 2 * needed_bytes else "/tmp"


class GabionTestCase(unittest.TestCase):
    """One daemon for the tests of a class, which end with the daemon alive and ended by SIGTERM with status 0."""

    flags = ()
    memory_bytes = 0  # not 0: files live in memory, if there is room for so much

    @classmethod
    def setUpClass(cls):
        cls.daemon = Gabiond(*cls.flags, folder=memory_folder(cls.memory_bytes) if cls.memory_bytes else "/tmp")

    @classmethod
    def tearDownClass(cls):
        try:
            status = cls.daemon.stop() if cls.daemon.alive() else "ended before"
            if status != 0:
                raise AssertionError(f"gabiond's exit status: {status}")
        finally:
            cls.daemon.close()

    def tearDown(self):
        self.assertTrue(self.daemon.alive(), "gabiond has ended")

    def connect(self, uri, **options):
        """nbd_connect, shut down after the test."""
        handle = nbd_connect(uri, **options)
        self.addCleanup(hang_up, handle)
        return handle


def hang_up(handle):
    """Ends a connection of libnbd in whatever state it is."""
    import nbd
    try:
        handle.shutdown()
    except nbd.Error:
        pass


def random_source():
    """A random.Random and its seed: GABION_SEED, or a new one; printed, so that a failure can be replayed."""
    seed = int(os.environ.get("GABION_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"GABION_SEED={seed}", file=sys.stderr)
    return random.Random(seed)


def write_file(path, *pieces, size=None):
    """A sparse file of (offset, bytes) pieces."""
    with open(path, "wb") as file:
        for offset, data in pieces:
            file.seek(offset)
            file.write(data)
        if size is not None:
            file.truncate(size)
    return path


def read_file(path):
    with open(path, "rb") as file:
        return file.read()


def _skip_without(commands, modules):
    for command in commands:
        if not shutil.which(command):
            print(f"skipped: the command {command} is missing")
            sys.exit(SKIPPED)
    for module in modules:
        if importlib.util.find_spec(module) is None:
            print(f"skipped: the Python module {module} of {sys.executable} is missing")
            sys.exit(SKIPPED)


def main(commands=(), modules=("nbd",), limit_s=600):
    """Runs the tests of the calling file. Skips all of them where a command or a Python module is missing."""
    _skip_without(commands, modules)
    for variable in ("GABIOND", "GABION_CTL"):
        if not os.access(os.environ.get(variable, ""), os.X_OK):
            sys.exit(f"{variable} must name a program; CMake sets it, so run the test with ctest")
    os.environ["PATH"] += ":/usr/sbin"
    faulthandler.dump_traceback_later(limit_s, exit=True)  # a call into a C library that hangs
    result = unittest.main(verbosity=2, exit=False).result
    if not result.wasSuccessful():
        for title, text in _logs:
            print(f"---- the last lines of the log of {title}", *text.splitlines()[-40:], sep="\n", file=sys.stderr)
    sys.exit(not result.wasSuccessful())
