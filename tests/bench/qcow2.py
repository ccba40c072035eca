"""Measures qcow2 images: Gabion, qemu-storage-daemon and qemu-nbd on copies of the same files, by the same client (fio's
nbd engine, nbdinfo), over a Unix socket, one server at a time, rounds alternating. Started by qcow2.sh."""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import bench
from bench import KiB, MiB, output_of

GiB = 1 << 30
# name -> (files, fio's rw, block size in bytes, queue depth)
IO = {
    "overlay-randread-4k-qd32": ("overlay", "randread", 4 * KiB, 32),
    "fresh-randwrite-4k-qd32": ("fresh", "randwrite", 4 * KiB, 32),
    "overlay-randwrite-4k-qd32": ("overlay", "randwrite", 4 * KiB, 32),
    "fresh-write-256k-qd8": ("fresh", "write", 256 * KiB, 8),
}
MAPS = ("map-262144-extents", "map-1TiB-1000000-extents", "map-chain-of-32")
EXTENTS, MANY_EXTENTS, CHAIN = 262144, 1000000, 32


def create(folder, name, size, *options, backing=None):
    below = ["-b", backing, "-F", "qcow2"] if backing else []
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *below, *options, name, str(size)], check=True, cwd=folder)


def write(folder, name, commands):
    """Runs qemu-io commands; without syncs in between."""
    done = subprocess.run(["qemu-io", "-f", "qcow2", "-t", "unsafe", name], input="\n".join(commands) + "\nq\n", cwd=folder,
                          text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done.returncode != 0:
        sys.exit(f"qemu-io {name}: {done.stderr}")


class Files:
    """The images that are measured: made once, by qemu-img and qemu-io."""

    def __init__(self, folder, size, wanted):
        self.folder, self.size = folder, size
        os.makedirs(folder)
        if any(name in IO and IO[name][0] == "overlay" for name in wanted):
            create(folder, "base.qcow2", size)
            write(folder, "base.qcow2", [f"write -P {1 + i % 250} {i * 64}M 64M" for i in range(size // (64 * MiB))])
        # Preallocated, and every so often a cluster that the tables call zero: extents of two kinds by turns.
        if MAPS[0] in wanted:
            create(folder, "extents.qcow2", EXTENTS * 64 * KiB, "-o", "preallocation=metadata")
            write(folder, "extents.qcow2", [f"write -z {i * 128}k 64k" for i in range(EXTENTS // 2)])
        if MAPS[1] in wanted:
            create(folder, "terabyte.qcow2", 1 << 40, "-o", "preallocation=metadata")
            write(folder, "terabyte.qcow2", [f"write -z {i * 2048}k 64k" for i in range(MANY_EXTENTS // 2)])
        if MAPS[2] in wanted:
            create(folder, "chain-0.qcow2", GiB)
            for i in range(CHAIN):
                if i > 0:
                    create(folder, f"chain-{i}.qcow2", GiB, backing=f"chain-{i - 1}.qcow2")
                write(folder, f"chain-{i}.qcow2", [f"write -z {(k * CHAIN + i) * 64}k 64k" for k in range(64)])

    def chain(self, kind):
        """The files of an image, the bottom first; what is written to is made anew."""
        if kind == "chain":
            return [f"chain-{i}.qcow2" for i in range(CHAIN)]
        if kind in ("extents", "terabyte"):
            return [f"{kind}.qcow2"]
        top = os.path.join(self.folder, "top.qcow2")
        if os.path.exists(top):
            os.unlink(top)
        if kind == "fresh":
            create(self.folder, "top.qcow2", self.size)
            return ["top.qcow2"]
        create(self.folder, "top.qcow2", self.size, backing="base.qcow2")
        return ["base.qcow2", "top.qcow2"]


class QemuNbd(bench.QemuNbd):
    def serve(self, files, chain):
        self.path = os.path.join(files.folder, chain[-1])
        self.start()

    def command(self):
        return ["qemu-nbd", "-t", "-e", "16", "--aio=io_uring", "--cache=writeback", "-f", "qcow2", "-k", self.socket,
                self.path]

    def version(self):
        return super().version() + ", aio=io_uring, cache=writeback"


class QemuStorageDaemon(bench.QemuStorageDaemon):
    def serve(self, files, chain):
        self.path = os.path.join(files.folder, chain[-1])
        self.start()

    def command(self):
        return ["qemu-storage-daemon",
                "--blockdev", f"driver=file,node-name=f,filename={self.path},aio=io_uring",
                "--blockdev", "driver=qcow2,node-name=q,file=f",
                "--nbd-server", f"addr.type=unix,addr.path={self.socket}",
                "--export", "type=nbd,id=e,node-name=q,name=,writable=on"]


class Gabion(bench.Gabion):
    """Takes copies that share their blocks with the files, or are copied before the clock starts."""

    def serve(self, files, chain):
        shutil.rmtree(self.data, ignore_errors=True)
        with open(os.path.join(self.work, "gabion.log"), "ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        bench.wait_for(lambda: os.path.exists(f"{self.data}/gabiond.sock"), self.name, self.process)
        pool = os.path.join(self.data, "images")
        for number, name in enumerate(chain):
            image = {"qcow2": {}}
            if number > 0:
                image["backingImage"] = f"images/i{number - 1}"
            # A link: the import copies it, so that all servers begin with the same bytes.
            os.link(os.path.join(files.folder, name), os.path.join(pool, "import"))
            operation = self.call("ImageService/ImportImage",
                                  {"imageId": f"i{number}", "image": image, "sourceFile": "import"})
            while not operation.get("done"):
                operation = self.call("Operations/WaitOperation", {"name": operation["name"], "timeout": "10s"})
            if "error" in operation:
                sys.exit(f"{name}: {operation['error']}")
            os.unlink(os.path.join(pool, "import"))
        self.path = os.path.join(pool, f"i{len(chain) - 1}.qcow2")
        self.call("ExportService/CreateExport",
                  {"exportId": "bench", "export": {"source": f"images/i{len(chain) - 1}"}})
        self.info = self.call("ServerService/GetServerInfo", {})

    def version(self):
        if self.info is None:
            return "gabiond, not measured"
        return super().version()


SERVERS = {server.name: server for server in (Gabion, QemuStorageDaemon, QemuNbd)}


def warm(folder):
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), "rb", buffering=0) as file:
            os.fsync(file.fileno())
            end, at = os.fstat(file.fileno()).st_size, 0
            while at < end:  # its data; holes need no warming
                try:
                    at = file.seek(at, os.SEEK_DATA)
                except OSError:
                    break
                hole = file.seek(at, os.SEEK_HOLE)
                file.seek(at)
                while at < hole:
                    at += len(file.read(min(MiB, hole - at)))


def measure_io(server, files, name, options):
    kind, rw, block, depth = IO[name]
    chain = files.chain(kind)
    server.serve(files, chain)
    try:
        warm(os.path.dirname(server.path))
        cpu = server.cpu_seconds()
        done = subprocess.run(
            ["fio", "--name=bench", "--ioengine=nbd", f"--uri={server.uri}", f"--rw={rw}", f"--bs={block}",
             f"--iodepth={depth}", f"--size={options.size}", "--norandommap", "--randrepeat=0", "--time_based",
             f"--runtime={options.seconds}", "--output-format=json"], capture_output=True, text=True, cwd=server.work)
        cpu = server.cpu_seconds() - cpu
    finally:
        server.stop()
    if done.returncode != 0:
        sys.exit(f"fio with {server.name}, {name}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
    report = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]["read" if "read" in rw else "write"]
    return {"per_second": report["iops"], "cpu_seconds": cpu / report["total_ios"] * 1e6}


def measure_map(server, files, name, _options):
    """Maps a second; the first one, which reads the tables, counts."""
    chain = files.chain({MAPS[0]: "extents", MAPS[1]: "terabyte", MAPS[2]: "chain"}[name])
    server.serve(files, chain)
    try:
        warm(os.path.dirname(server.path))
        cpu = server.cpu_seconds()
        with open(os.path.join(server.work, "map"), "w+", encoding="ascii") as lines:  # a pipe's reader would be measured, too
            began = time.monotonic()
            subprocess.run(["nbdinfo", "--map", server.uri], check=True, stdout=lines)
            took = time.monotonic() - began
            lines.seek(0)
            return {"per_second": 1 / took, "cpu_seconds": server.cpu_seconds() - cpu, "lines": sum(1 for _ in lines)}
    finally:
        server.stop()


def parse():
    names = list(IO) + list(MAPS)
    parser = argparse.ArgumentParser(prog="tests/bench/qcow2.sh", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of all servers (default 3; medians are printed)")
    parser.add_argument("--seconds", type=int, default=5, help="length of each measurement (default 5)")
    parser.add_argument("--size", type=bench.bytes_of, default=1 << 30, help="of the disks (default 1G), in steps of 64M")
    parser.add_argument("--only", default="", metavar="NAME,...",
                        help=f"only these servers ({', '.join(SERVERS)}) or workloads ({', '.join(names)})")
    parser.add_argument("--json", metavar="FILE", help="write all samples and ratios there, too")
    parser.add_argument("--build", default="build/release", help="where gabiond is built (default build/release)")
    options = parser.parse_args()
    only = [name for name in options.only.split(",") if name]
    unknown = [name for name in only if name not in SERVERS and name not in names]
    if unknown:
        parser.error(f"--only: there is no server or workload {', '.join(unknown)}")
    options.servers = [name for name in SERVERS if name in only] or list(SERVERS)
    options.workloads = [name for name in names if name in only] or names
    return options


def print_report(samples):
    ratios = {}
    print(f"\n{'workload':26} {'server':20} {'per second':>11} {'spread':>7} {'CPU s':>8} {'Gabion/it':>10}")
    for workload, by_server in samples.items():
        medians = {name: statistics.median(s["per_second"] for s in measured) for name, measured in by_server.items()}
        for name, measured in by_server.items():
            speeds = [s["per_second"] for s in measured]
            cpu = statistics.median(s["cpu_seconds"] for s in measured)
            ratio = medians["gabion"] / medians[name] if "gabion" in medians and name != "gabion" else None
            if ratio:
                ratios.setdefault(workload, {})[name] = ratio
            print(f"{workload:26} {name:20} {medians[name]:11.2f} {(max(speeds) - min(speeds)) / medians[name]:7.0%} "
                  f"{cpu:8.2f} {format(ratio, '10.2f') if ratio else '':>10}")
    return ratios


def main():
    options = parse()
    for tool in ["fio", "nbdinfo", "qemu-img", "qemu-io"] + [name for name in options.servers if name != "gabion"]:
        if not shutil.which(tool):
            sys.exit(f"{tool} is missing; --only leaves servers out")
    work = tempfile.mkdtemp(prefix="gabion-bench-", dir=os.environ.get("TMPDIR", "/tmp"))
    servers = {}
    try:
        print("Making the images ...", flush=True)
        files = Files(os.path.join(work, "files"), options.size, options.workloads)
        binaries = {"gabiond": f"{options.build}/bin/gabiond", "gabionctl": f"{options.build}/bin/gabionctl", "flags": []}
        servers = {name: SERVERS[name](work, None, binaries) for name in options.servers}
        samples = {workload: {name: [] for name in servers} for workload in options.workloads}
        for number in range(options.rounds):
            for workload in options.workloads:
                names = list(servers)
                turn = number % len(names)
                for name in names[turn:] + names[:turn]:  # another one begins in each round
                    measure = measure_io if workload in IO else measure_map
                    samples[workload][name].append(measure(servers[name], files, workload, options))
            print(f"round {number + 1} of {options.rounds}", flush=True)
        ratios = print_report(samples)
        method = (f"{options.rounds} round(s), {options.seconds} s each for requests, disks of {options.size // MiB} MiB; one "
                  "server at a time over a Unix socket; fio's nbd engine or nbdinfo on the same machine, one connection; files "
                  "in the page cache; what is written to is made anew for each measurement; per second: requests, or whole "
                  "maps by nbdinfo --map of an image that was just opened; CPU: the server's user and system seconds, for a "
                  "million requests or for one map; medians; spread is (largest - smallest)/median")
        host = {"kernel": platform.release(), "cpus": os.cpu_count(), "fio": output_of("fio", "--version").strip(),
                "file_system": output_of("stat", "-f", "-c", "%T", work).strip()}
        versions = {name: server.version() for name, server in servers.items()}
        print(f"\nHow: {method}.\nHost: {host}\nVersions: {versions}")
        if options.json:
            with open(options.json, "w", encoding="utf-8") as file:
                json.dump({"method": method, "host": host, "versions": versions, "ratios": ratios, "samples": samples}, file,
                          indent=1)
    finally:
        for server in servers.values():
            server.stop()
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
