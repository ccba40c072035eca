"""The section [runtime] of deploy/packages.txt is what the built programs link: a package that is missing would show only
where nothing else is installed, and one too many would stay for ever."""

import os
import re
import unittest

import staging

PROGRAMS = [os.environ["GABIOND"], os.environ["GABION_CTL"]]


def needed(program):
    """The libraries that the program itself names, without those that they name."""
    return re.findall(r"\(NEEDED\).*\[(.*)\]", staging.run("readelf", "-d", program).stdout)


def where(program):
    """Library name -> file, as the loader finds them; also those that libraries bring."""
    return dict(re.findall(r"(\S+) => (/\S+)", staging.run("ldd", program).stdout))


def packages_of(paths):
    """The packages that have these files."""
    # They list files under /lib that are the same as those under /usr/lib.
    candidates = {path: {path, os.path.realpath(path), path.removeprefix("/usr"), "/usr" + path} for path in paths}
    found = {}
    for line in staging.run("dpkg", "-S", *sorted(set().union(*candidates.values())), ok=False).stdout.splitlines():
        package, file = line.split(": ", 1)
        found[file] = package.split(":")[0]
    packages = set()
    for path, files in candidates.items():
        if not files & set(found):
            raise AssertionError(f"no package has {path}")
        packages |= {found[file] for file in files & set(found)}
    return packages


class RuntimePackagesTest(unittest.TestCase):
    def test_the_list_is_what_is_linked(self):
        libraries = set()
        for program in PROGRAMS:
            files = where(program)
            libraries |= {files[name] for name in needed(program) if name in files}
        linked = packages_of(libraries)
        self.assertGreater(len(linked), 5)
        self.assertEqual(set(staging.packages_of("runtime")), linked)

    def test_what_libraries_bring_comes_with_them(self):
        depends = {}
        for line in staging.run("dpkg-query", "-W", "-f=${Package}\\t${Depends},${Pre-Depends}\\n").stdout.splitlines():
            package, names = line.split("\t")
            depends[package] = [re.split(r"[ :(]", name.strip())[0] for name in re.split(r"[,|]", names) if name.strip()]
        closure, todo = set(), list(staging.packages_of("runtime"))
        while todo:
            package = todo.pop()
            if package not in closure:
                closure.add(package)
                todo += depends.get(package, [])
        for program in PROGRAMS:
            self.assertLessEqual(packages_of(where(program).values()), closure)


staging.main(["dpkg", "dpkg-query", "ldd", "readelf"])
