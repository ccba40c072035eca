"""Shared by the tests of this folder: the tree, what is installed from the build, and what is missing."""

import atexit
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SKIPPED = 77


def run(*arguments, ok=True, **options):
    """Runs a program to its end; its output is in the result. Fails if it does, unless ok is False."""
    options.setdefault("text", True)
    done = subprocess.run([str(a) for a in arguments], stdin=subprocess.DEVNULL, capture_output=True, **options)
    if ok and done.returncode != 0:
        raise AssertionError(f"{arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done


def temporary_directory():
    path = pathlib.Path(tempfile.mkdtemp(prefix="gabion_"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def install(prefix="/usr", strip=False):
    """Installs the build below a directory of its own; returns that directory."""
    stage = temporary_directory()
    options = ["--strip"] if strip else []
    run(os.environ["GABION_CMAKE"], "--install", os.environ["GABION_BUILD"], "--prefix", prefix, *options,
        env=dict(os.environ, DESTDIR=str(stage)))
    return stage


def unit_settings(text):
    """The settings of a unit file: name -> list of values, in order."""
    settings = {}
    for line in text.splitlines():
        if "=" in line and not line.startswith("#"):
            name, value = line.split("=", 1)
            settings.setdefault(name, []).append(value)
    return settings


def packages_of(section):
    return run("bash", "-c", f". '{ROOT}/deploy/lib.sh'; packages_of {section}").stdout.split()


def wait_for_text(path, text, process, seconds=60):
    """True as soon as the file has the text; false when the process or the time has ended."""
    deadline = time.monotonic() + seconds
    while text not in path.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            return text in path.read_text()
        time.sleep(0.02)
    return True


def main(commands=()):
    """Runs the tests of the calling module, or skips them all if a command is missing."""
    missing = [command for command in commands if shutil.which(command) is None]
    if missing:
        print("skipped: missing:", ", ".join(missing))
        sys.exit(SKIPPED)
    unittest.main(module="__main__", verbosity=2)
