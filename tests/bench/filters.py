"""What filters cost: one gabiond, one image, exports that differ in their filter stacks only, measured in turns. Build
gabiond before (run.sh does)."""

import argparse
import json
import os
import shutil
import statistics
import tempfile

import bench

# Ten that only forward: none looks at a byte.
FORWARDING = (
    [{"entryId": f"log-{i}", "spec": {"log": {}}, "bypassed": True} for i in range(2)]
    + [{"entryId": f"bypassed-{i}", "spec": {"stats": {}}, "bypassed": True} for i in range(2)]
    + [{"entryId": f"slice-{i}", "spec": {"slice": {"range": {}}}} for i in range(3)]
    + [{"entryId": f"mask-{i}", "spec": {"featureMask": {}}} for i in range(3)])
STACKS = {
    "none": [],
    "ten-forwarding": FORWARDING,
    "ten-slices": [{"entryId": f"slice-{i}", "spec": {"slice": {"range": {}}}} for i in range(10)],
    "stats": [{"entryId": "stats", "spec": {"stats": {}}}],
    "throttle": [{"entryId": "throttle", "spec": {"throttle": {"totalBytes": {"averagePerSecond": "1000000000000"}}}}],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="rounds of all stacks (default 7; medians are printed)")
    parser.add_argument("--seconds", type=int, default=3, help="length of each measurement (default 3)")
    parser.add_argument("--size", type=bench.bytes_of, default=256 << 20, help="of the file (default 256M)")
    parser.add_argument("--workload", choices=bench.WORKLOADS, default="randread-4k-qd32")
    parser.add_argument("--only", default="", metavar="NAME,...", help=f"only these stacks ({', '.join(STACKS)})")
    parser.add_argument("--build", default="build/release")
    options = parser.parse_args()
    names = [name for name in STACKS if not options.only or name in options.only.split(",") or name == "none"]
    work = tempfile.mkdtemp(prefix="gabion-bench-", dir=os.environ.get("TMPDIR", "/tmp"))
    server = None
    try:
        path = os.path.join(work, "file")
        bench.make_file(path, options.size)
        server = bench.Gabion(work, path, {"gabiond": f"{options.build}/bin/gabiond",
                                           "gabionctl": f"{options.build}/bin/gabionctl", "flags": []})
        server.path = server.prepare()
        server.start()
        for name in names:
            server.call("ExportService/CreateExport",
                        {"exportId": name, "export": {"source": "images/bench", "filterStack": STACKS[name]}})
        samples = {name: [] for name in names}
        for number in range(options.rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                server.uri = f"nbd+unix:///{name}?socket={server.socket}"
                samples[name].append(bench.measure(server, options.workload, options))
            print(f"round {number + 1} of {options.rounds}", flush=True)
        plain = statistics.median(s["iops"] for s in samples["none"])
        plain_cpu = statistics.median(s["cpu_seconds_per_million"] for s in samples["none"])
        print(f"\n{'stack':16} {'requests/s':>11} {'spread':>7} {'CPU s/million':>14} {'speed/none':>11} {'CPU/none':>9}")
        for name, measured in samples.items():
            iops = [s["iops"] for s in measured]
            cpu = statistics.median(s["cpu_seconds_per_million"] for s in measured)
            # Paired: each round against the plain export of the same round.
            ratio = statistics.median(s["iops"] / p["iops"] for s, p in zip(measured, samples["none"]))
            print(f"{name:16} {statistics.median(iops):11.0f} {(max(iops) - min(iops)) / plain:7.0%} {cpu:14.2f} {ratio:11.3f} "
                  f"{cpu / plain_cpu:9.3f}")
        print(f"\nHow: {options.workload}, {options.rounds} rounds of {options.seconds} s, {options.size >> 20} MiB in the page cache, "
              "one gabiond, fio's nbd engine over a Unix socket, medians; speed/none is the median of the ratios within each "
              f"round. {server.version()}; {bench.output_of('fio', '--version').strip()}; {os.cpu_count()} CPUs; "
              f"{json.dumps(bench.platform.release())}")
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
