#!/usr/bin/python3
"""Runs gabiond (GABION_UNFILTERED) with the system calls that deploy/gabiond.service leaves it: any other kills it, where
the unit would have it fail. So a test that passes has not made one."""

import errno
import os
import pathlib
import subprocess
import sys

import seccomp

UNIT = pathlib.Path(__file__).resolve().parents[2] / "deploy/gabiond.service"


def sets():
    """systemd's sets of system calls: "@name" -> what it holds."""
    text = subprocess.run(["systemd-analyze", "syscall-filter", "--no-pager"], check=True, capture_output=True,
                          text=True).stdout
    found, current = {}, None
    for line in text.splitlines():
        word = line.strip()
        if word.startswith("#"):
            continue
        if line.startswith("@"):
            current = found.setdefault(word, [])
        elif word and current is not None:
            current.append(word)
    return found


def expand(names, known):
    calls = set()
    for name in names:
        calls |= expand(known[name], known) if name.startswith("@") else {name}
    return calls


def allowed():
    """Lines add, lines that begin with ~ take away; @default is always there."""
    known = sets()
    calls = expand(["@default"], known)
    for line in UNIT.read_text().splitlines():
        if not line.startswith("SystemCallFilter="):
            continue
        value = line.split("=", 1)[1]
        if value.startswith("~"):
            calls -= expand(value[1:].split(), known) - expand(["@default"], known)
        else:
            calls |= expand(value.split(), known)
    return calls


def main():
    syscall_filter = seccomp.SyscallFilter(seccomp.KILL_PROCESS)
    calls = allowed()
    if "openat2" not in calls or "mount" in calls:
        sys.exit(f"filtered.py: misread the unit's filter: {sorted(calls)}")
    for call in calls:
        try:
            syscall_filter.add_rule(seccomp.ALLOW, call)
        except RuntimeError:  # of other architectures
            continue
    # As root, which the unit's user is not, SQLite gives its files to the directory's owner; that may fail.
    syscall_filter.add_rule(seccomp.ERRNO(errno.EPERM), "fchown")
    syscall_filter.load()
    program = os.environ["GABION_UNFILTERED"]
    os.execv(program, [program, *sys.argv[1:]])


main()
