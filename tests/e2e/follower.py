"""Follows a Watch stream with gabionctl, while the test goes on."""

import json
import os
import queue
import subprocess
import threading
import time

import harness


class Follower:
    """A stream that runs. Use it as a context manager: it is ended at the end."""

    def __init__(self, daemon, timeout_s=harness.TIME_LIMIT_S, **request):
        self.timeout_s = timeout_s
        self.process = harness.start([os.environ["GABION_CTL"], "--server", "unix:" + daemon.socket, "call",
                                      "WatchService/Watch", json.dumps(request)],
                                     stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.messages = queue.Queue()  # None: the stream has ended
        self.reader = threading.Thread(target=self._read)
        self.reader.start()
        self.revision = 0  # of the last message that was taken, if it has one

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.terminate()
        self.reader.join()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()

    def _read(self):
        for line in self.process.stdout:
            self.messages.put((time.monotonic(), json.loads(line)))
        self.messages.put(None)

    def timed(self):
        """(when it came, message), or None if the stream has ended."""
        try:
            got = self.messages.get(timeout=self.timeout_s)
        except queue.Empty:
            raise AssertionError(f"nothing came for {self.timeout_s} s") from None
        if got is not None:
            self.revision = int(got[1].get("revision", 0)) or self.revision
        return got

    def next(self):
        """The next message; fails if the stream has ended."""
        got = self.timed()
        if got is None:
            raise AssertionError(f"the stream has ended: {self.process.stderr.read()}")
        return got[1]

    def until(self, wanted):
        """Messages up to the first for which wanted(message) is true, which is the last one."""
        seen = [self.next()]
        while not wanted(seen[-1]):
            seen.append(self.next())
        return seen

    def until_each(self, *wanted):
        """Messages up to the one with which each of the conditions has been true of some message."""
        seen = []
        while wanted:
            seen.append(self.next())
            wanted = [condition for condition in wanted if not condition(seen[-1])]
        return seen

    def end(self):
        """The messages that are left, and the CallError with which the stream ended; None if it ended well."""
        rest = []
        while (got := self.timed()) is not None:
            rest.append(got[1])
        status = self.process.wait(harness.TIME_LIMIT_S)
        if status == 0:
            return rest, None
        error = harness.parse_error(subprocess.CompletedProcess((), status, "", self.process.stderr.read()))
        return rest, harness.CallError("WatchService/Watch", error)


def put(name, **fields):
    """A condition: KIND_PUT of that resource with these fields."""
    def wanted(message):
        resource = next((message[kind] for kind in ("image", "export", "connection", "operation", "pool") if kind in message), {})
        return (message["kind"], message.get("name")) == ("KIND_PUT", name) and all(
            resource.get(field) == value for field, value in fields.items())
    return wanted


def deleted(name):
    """A condition: KIND_DELETED of that resource."""
    return lambda message: (message["kind"], message.get("name")) == ("KIND_DELETED", name)
