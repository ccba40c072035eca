"""Measures the control plane of one daemon: started by control.sh, see there."""

import argparse
import json
import os
import platform
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time


class Daemon:
    """gabiond over a data directory that outlives it."""

    def __init__(self, build, work):
        self.build, self.data = build, os.path.join(work, "data")
        self.socket = os.path.join(self.data, "gabiond.sock")
        self.target = "unix:" + self.socket
        self.log = os.path.join(work, "gabiond.log")
        self.process = None

    def start(self):
        """Seconds until it says that it listens, which it does when every export is served or has failed."""
        begin = time.monotonic()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [os.path.join(self.build, "bin/gabiond"), "--data-dir", self.data, "--log-level", "warning"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        pidfd = os.pidfd_open(self.process.pid)
        try:
            while self.ctl("ServerService/GetServerInfo", {}, check=False) is None:
                if self.process.poll() is not None:
                    sys.exit(f"gabiond ended with status {self.process.returncode}; see {self.log}")
                select.select([pidfd], [], [], 0.01)
        finally:
            os.close(pidfd)
        return time.monotonic() - begin

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()

    def ctl(self, method, request, check=True):
        done = subprocess.run([os.path.join(self.build, "bin/gabionctl"), "--server", self.target, "call", method,
                               json.dumps(request)], capture_output=True, text=True)
        if done.returncode != 0:
            if check:
                sys.exit(f"{method}: {done.stderr}")
            return None
        return json.loads(done.stdout)

    def load(self, *arguments):
        done = subprocess.run([os.path.join(self.build, "bin/control_load"), self.target, *map(str, arguments)],
                              stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            sys.exit(f"control_load {' '.join(map(str, arguments))}: status {done.returncode}")
        return json.loads(done.stdout)

    def resident_kib(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            return int(re.search(r"VmRSS:\s+(\d+) kB", status.read()).group(1))

    def all_exports(self):
        exports, token = [], ""
        while True:
            page = self.ctl("ExportService/ListExports", {"pageSize": 1000, "pageToken": token})
            exports += page.get("exports", [])
            token = page.get("nextPageToken", "")
            if not token:
                return exports


def show(name, result):
    print(f"{name:34}" + "  ".join(f"{key} {value:,}" for key, value in result.items()), flush=True)


def measure_calls(daemon, seconds):
    daemon.ctl("ImageService/CreateImage", {"imageId": "load", "image": {"raw": {}, "virtualSizeBytes": "1048576"}})
    for clients in (1, 8, 32):
        show(f"create+get+delete, {clients} client(s)", daemon.load("exports", "images/load", clients, seconds))


def measure_restart(daemon, count):
    before = daemon.resident_kib()
    show(f"create {count} images", daemon.load("create-images", "r", count, 8))
    with_images = daemon.resident_kib()
    show(f"create {count} exports of them", daemon.load("create-exports", "r", count, 8))
    with_exports = daemon.resident_kib()
    show("memory", {"KiB per image": round((with_images - before) / count, 1),
                    "KiB per idle export": round((with_exports - with_images) / count, 1)})
    for way in ("killed", "stopped"):
        if way == "killed":
            daemon.kill()
        else:
            daemon.stop()
        seconds = daemon.start()
        states = {}
        for export in daemon.all_exports():
            states[export["state"]] = states.get(export["state"], 0) + 1
        show(f"restart after it was {way}", {"seconds": round(seconds, 3), **states})


def measure_lists(daemon, count):
    show(f"create {count} images", daemon.load("create-images", "m", count, 32))
    for page_size in (50, 1000):
        show(f"list by pages of {page_size}", daemon.load("list-images", page_size))


def main():
    parser = argparse.ArgumentParser(prog="tests/bench/control.sh", description=__doc__)
    parser.add_argument("--build", default="build/release", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=int, default=5, help="for each number of clients (default: 5)")
    parser.add_argument("--exports", type=int, default=1000, help="for restart and memory (default: 1000)")
    parser.add_argument("--images", type=int, default=100_000, help="for the list (default: 100000)")
    parser.add_argument("--only", choices=("calls", "restart", "lists"), help="one of the measurements")
    parser.add_argument("--work", help="a directory on the file system to measure on (default: /var/tmp)")
    options = parser.parse_args()

    work = tempfile.mkdtemp(prefix="gabion-control-", dir=options.work or "/var/tmp")
    daemon = Daemon(options.build, work)
    print(f"{platform.platform()}, {os.cpu_count()} CPUs; durable commits on {work}; one client process on the same CPUs")
    print("units: a create+get+delete is three calls; times in microseconds of a whole unit, as the client sees it")
    try:
        daemon.start()
        print("gabiond", daemon.ctl("ServerService/GetServerInfo", {})["version"])
        if options.only in (None, "calls"):
            measure_calls(daemon, options.seconds)
        if options.only in (None, "restart"):
            measure_restart(daemon, options.exports)
        if options.only in (None, "lists"):
            measure_lists(daemon, options.images)
    finally:
        daemon.stop()
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
