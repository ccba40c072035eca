"""Measures NBD servers against each other: the same file, the same client (fio's nbd engine), a Unix socket, one server
at a time, rounds alternating. Started by run.sh; see there for the options."""

import argparse
import json
import os
import platform
import re
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

TICKS = os.sysconf("SC_CLK_TCK")
KiB, MiB = 1 << 10, 1 << 20
# name -> (fio's rw, block size in bytes, queue depth)
WORKLOADS = {
    "randread-4k-qd1": ("randread", 4 * KiB, 1),
    "randread-4k-qd32": ("randread", 4 * KiB, 32),
    "randwrite-4k-qd1": ("randwrite", 4 * KiB, 1),
    "randwrite-4k-qd32": ("randwrite", 4 * KiB, 32),
    "read-256k-qd8": ("read", 256 * KiB, 8),
    "write-256k-qd8": ("write", 256 * KiB, 8),
}


def output_of(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def wait_for(condition, what, process):
    """Asks again until it is true; ends with an error if the process ends before, or after a minute."""
    deadline = time.monotonic() + 60
    pidfd = os.pidfd_open(process.pid)
    try:
        while not condition():
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{what}: {process.args} did not come up (status {process.returncode})")
            select.select([pidfd], [], [], 0.01)
    finally:
        os.close(pidfd)


class Server:
    """A server that is started for one turn, and ended after it."""

    def __init__(self, work, path, binaries):
        self.work, self.path, self.binaries = work, path, binaries
        self.socket = os.path.join(work, "s.sock")
        self.uri = f"nbd+unix:///?socket={self.socket}"
        self.process = None

    def start(self):
        with open(os.path.join(self.work, self.name + ".log"), "ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for(lambda: os.path.exists(self.socket), self.name, self.process)
        wait_for(lambda: subprocess.run(["nbdinfo", "--size", self.uri], capture_output=True).returncode == 0,
                 self.name, self.process)

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None
        if os.path.exists(self.socket):
            os.unlink(self.socket)

    def cpu_seconds(self):
        """User and system time of the process, of all its threads, also of those that have ended."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


class QemuNbd(Server):
    name = "qemu-nbd"

    def command(self):
        return ["qemu-nbd", "-t", "-e", "16", "-f", "raw", "-k", self.socket, self.path]

    def version(self):
        return output_of("qemu-nbd", "--version").splitlines()[0]


class QemuStorageDaemon(Server):
    name = "qemu-storage-daemon"

    def command(self):
        return ["qemu-storage-daemon",
                "--blockdev", f"driver=file,node-name=f,filename={self.path},aio=io_uring",
                "--blockdev", "driver=raw,node-name=r,file=f",
                "--nbd-server", f"addr.type=unix,addr.path={self.socket}",
                "--export", "type=nbd,id=e,node-name=r,name=,writable=on"]

    def version(self):
        return output_of("qemu-storage-daemon", "--version").splitlines()[0] + ", aio=io_uring"


class Nbdkit(Server):
    name = "nbdkit"

    def command(self):
        return ["nbdkit", "-f", "-U", self.socket, "file", self.path]

    def version(self):
        return output_of("nbdkit", "--version").strip() + ", file plugin, 16 threads"


class Gabion(Server):
    """Its file lies in the pool of a data directory, where the others read and write it, too."""
    name = "gabion"

    def __init__(self, work, path, binaries):
        super().__init__(work, path, binaries)
        self.data = os.path.join(work, "d")
        self.socket = os.path.join(self.data, "nbd.sock")
        self.uri = f"nbd+unix:///bench?socket={self.socket}"
        self.info = None

    def command(self):
        return [self.binaries["gabiond"], "--data-dir", self.data, "--log-level", "warning", *self.binaries["flags"]]

    def call(self, method, request):
        return json.loads(output_of(self.binaries["gabionctl"], "--server", f"unix:{self.data}/gabiond.sock", "call",
                                    method, json.dumps(request)))

    def prepare(self):
        """Takes the file into the pool, for good; returns where it is then."""
        with open(os.path.join(self.work, "gabion.log"), "ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for(lambda: os.path.exists(f"{self.data}/gabiond.sock"), self.name, self.process)
        pool = os.path.join(self.data, "images")
        os.rename(self.path, os.path.join(pool, "import"))
        self.call("ImageService/ImportImage",
                  {"imageId": "bench", "image": {"raw": {}}, "sourceFile": "import", "move": True})
        self.call("ExportService/CreateExport", {"exportId": "bench", "export": {"source": "images/bench"}})
        self.info = self.call("ServerService/GetServerInfo", {})
        self.stop()
        name, = os.listdir(pool)
        return os.path.join(pool, name)

    def version(self):
        return f"gabiond {self.info['version']}, {self.info['ioDriver']}, {self.info['shardCount']} shard(s)"


SERVERS = {server.name: server for server in (Gabion, QemuNbd, QemuStorageDaemon, Nbdkit)}


def make_clean_and_warm(path):
    """All of the file in the page cache, none of it to be written back."""
    with open(path, "r+b", buffering=0) as file:
        os.fsync(file.fileno())
        buffer = bytearray(MiB)
        while file.readinto(buffer):
            pass


def measure(server, workload, options):
    """One run of fio: (requests a second, bytes a second, the server's CPU seconds per million requests)."""
    rw, block, depth = WORKLOADS[workload]
    make_clean_and_warm(server.path)
    cpu = server.cpu_seconds()
    done = subprocess.run(
        ["fio", "--name=bench", "--ioengine=nbd", f"--uri={server.uri}", f"--rw={rw}", f"--bs={block}",
         f"--iodepth={depth}", f"--size={options.size}", "--norandommap", "--randrepeat=0", "--time_based",
         f"--runtime={options.seconds}", "--output-format=json"],
        capture_output=True, text=True, cwd=server.work)
    cpu = server.cpu_seconds() - cpu
    if done.returncode != 0:
        sys.exit(f"fio with {server.name}, {workload}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
    report = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]["read" if "read" in rw else "write"]
    return {"iops": report["iops"], "bytes_per_second": report["bw_bytes"],
            "p99_us": report["clat_ns"]["percentile"]["99.000000"] / 1000,
            "cpu_seconds_per_million": cpu / report["total_ios"] * 1e6}


def bytes_of(text):
    match = re.fullmatch(r"(\d+)([KMG]?)", text)
    if not match or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 512M or 1G")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]]


def parse():
    parser = argparse.ArgumentParser(prog="tests/bench/run.sh", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of all servers (default 5; medians are printed)")
    parser.add_argument("--seconds", type=int, default=5, help="length of each measurement (default 5)")
    parser.add_argument("--size", type=bytes_of, default=1 << 30, help="of the file (default 1G); must fit the page cache")
    parser.add_argument("--only", default="", metavar="NAME,...",
                        help=f"only these servers ({', '.join(SERVERS)}) or workloads ({', '.join(WORKLOADS)})")
    parser.add_argument("--json", metavar="FILE", help="write all samples, medians and ratios there, too")
    parser.add_argument("--build", default="build/release", help="where gabiond is built (default build/release)")
    parser.add_argument("--gabiond-flag", action="append", default=[], metavar="FLAG", help="pass on to gabiond")
    options = parser.parse_args()
    only = [name for name in options.only.split(",") if name]
    unknown = [name for name in only if name not in SERVERS and name not in WORKLOADS]
    if unknown:
        parser.error(f"--only: there is no server or workload {', '.join(unknown)}")
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds must be at least 1")
    options.servers = [name for name in SERVERS if name in only] or list(SERVERS)
    options.workloads = [name for name in WORKLOADS if name in only] or list(WORKLOADS)
    return options


def make_file(path, size):
    """Random bytes: nothing is a hole, nothing is zero."""
    print(f"Writing a file of {size // MiB} MiB ...", flush=True)
    with open(path, "wb") as file:
        left = size
        while left > 0:
            piece = os.urandom(min(left, MiB))
            file.write(piece)
            left -= len(piece)


def run_rounds(servers, options):
    """samples[workload][server]: a list with one measurement for each round."""
    samples = {workload: {name: [] for name in servers} for workload in options.workloads}
    for number in range(options.rounds):
        names = list(servers)
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:  # another one begins in each round
            server = servers[name]
            server.start()
            try:
                for workload in options.workloads:
                    samples[workload][name].append(measure(server, workload, options))
            finally:
                server.stop()
            print(f"round {number + 1} of {options.rounds}: {name}", flush=True)
    return samples


def medians_of(samples):
    return {workload: {name: {key: statistics.median(s[key] for s in measured) for key in measured[0]}
                       for name, measured in by_server.items()} for workload, by_server in samples.items()}


def ratios_of(medians):
    """ratios[workload][peer]: Gabion's median over the peer's; above 1 is faster, and for CPU below 1 is cheaper."""
    result = {}
    for workload, by_server in medians.items():
        if "gabion" in by_server:
            ours = by_server["gabion"]
            result[workload] = {
                name: {"speed": ours["iops"] / theirs["iops"],
                       "cpu": ours["cpu_seconds_per_million"] / max(theirs["cpu_seconds_per_million"], 1e-9)}
                for name, theirs in by_server.items() if name != "gabion"}
    return result


def print_report(samples, medians, ratios):
    print(f"\n{'workload':18} {'server':20} {'requests/s':>11} {'MB/s':>7} {'p99 us':>8} {'spread':>7} "
          f"{'CPU s/million':>14} {'Gabion/it':>10}")
    for workload, by_server in medians.items():
        for name, median in by_server.items():
            iops = [s["iops"] for s in samples[workload][name]]
            ratio = ratios.get(workload, {}).get(name)
            print(f"{workload:18} {name:20} {median['iops']:11.0f} {median['bytes_per_second'] / 1e6:7.0f} "
                  f"{median['p99_us']:8.0f} {(max(iops) - min(iops)) / median['iops']:7.0%} "
                  f"{median['cpu_seconds_per_million']:14.2f} {format(ratio['speed'], '10.2f') if ratio else '':>10}")


def main():
    options = parse()
    for tool in ["fio", "nbdinfo"] + [name for name in options.servers if name != "gabion"]:
        if not shutil.which(tool):
            sys.exit(f"{tool} is missing; --only leaves servers out")
    work = tempfile.mkdtemp(prefix="gabion-bench-", dir=os.environ.get("TMPDIR", "/tmp"))
    servers = {}
    try:
        path = os.path.join(work, "file")
        make_file(path, options.size)
        binaries = {"gabiond": f"{options.build}/bin/gabiond", "gabionctl": f"{options.build}/bin/gabionctl",
                    "flags": options.gabiond_flag}
        for name in options.servers:
            servers[name] = SERVERS[name](work, path, binaries)
            if name == "gabion":
                path = servers[name].prepare()
                servers[name].path = path
        versions = {name: server.version() for name, server in servers.items()}
        host = {"kernel": platform.release(), "cpus": os.cpu_count(), "fio": output_of("fio", "--version").strip(),
                "file_system": output_of("stat", "-f", "-c", "%T", work).strip()}
        method = (f"{options.rounds} round(s), {options.seconds} s each, {options.size // MiB} MiB file; one server at a "
                  "time over a Unix socket; fio's nbd engine on the same machine, one connection; before each measurement "
                  "the file was synced and read into the page cache; the servers took turns in who begins a round; "
                  "medians; CPU is the server's user and system time, all threads, from /proc; spread is (largest - "
                  "smallest)/median")
        samples = run_rounds(servers, options)
        medians = medians_of(samples)
        ratios = ratios_of(medians)
        print_report(samples, medians, ratios)
        print(f"\nHow: {method}.\nHost: {host}\nVersions: {versions}")
        if options.json:
            with open(options.json, "w", encoding="utf-8") as file:
                json.dump({"method": method, "host": host, "versions": versions, "medians": medians, "ratios": ratios,
                           "samples": samples}, file, indent=1)
    finally:
        for server in servers.values():
            server.stop()
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
