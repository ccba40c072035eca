"""The rules of the house. Each takes a Tree and yields Findings; rules_test.py shows that each of them can fail."""

import ast
import os
import re
import subprocess
from typing import NamedTuple

import cpp
import house

CPP = (".cc", ".h")
COUNTED = CPP + (".py", ".sh", ".proto", ".cmake", ".js", ".ts")


class Finding(NamedTuple):
    path: str
    line: int
    rule: str      # the name that an exception uses
    message: str

    def __str__(self):
        return f"{self.path}:{self.line}: [{self.rule}] {self.message}"


class Tree:
    """The files of the project: path from the root -> text."""

    def __init__(self, files):
        self.files = files

    def ending(self, *suffixes):
        return ((path, text) for path, text in sorted(self.files.items()) if path.endswith(suffixes))


def _paths(root):
    git = ["git", "-c", "safe.directory=*", "-C", root]
    try:
        top = subprocess.run(git + ["rev-parse", "--show-toplevel"], capture_output=True, text=True, check=True)
        if os.path.realpath(top.stdout.strip()) == os.path.realpath(root):
            listed = subprocess.run(git + ["ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                                    capture_output=True, text=True, check=True)
            return [path for path in set(listed.stdout.split("\0")) if os.path.isfile(os.path.join(root, path))]
    except (OSError, subprocess.CalledProcessError):
        pass
    paths = []  # not a checkout: everything but what a build or a run leaves behind
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if f not in (".git", "build", "gabion-data", "__pycache__", "node_modules")]
        paths += [os.path.relpath(os.path.join(folder, name), root) for name in names]
    return paths


def read_tree(root):
    files = {}
    for path in _paths(root):
        with open(os.path.join(root, path), "rb") as file:
            data = file.read()
        if b"\0" not in data:
            files[path] = data.decode("utf-8", errors="replace")
    return Tree(files)


def _matches(path, patterns):
    return any(path.startswith(p) if p.endswith("/") else re.fullmatch(p, path) for p in patterns)


def _home(path, table):
    """The most specific folder of `table` that holds `path`, or None."""
    folder = os.path.dirname(path)
    while folder and folder not in table:
        folder = os.path.dirname(folder)
    return folder or None


def top_level(tree):
    for entry in sorted({path.split("/", 1)[0] for path in tree.files}):
        if not entry.startswith(".") and entry not in house.TOP_LEVEL:
            yield Finding(entry, 1, "top-level", "not an entry of the layout")


def file_lines(tree):
    for path, text in tree.files.items():
        lines = text.count("\n") + (not text.endswith("\n") and text != "")
        if (path.endswith(COUNTED) or path.endswith("CMakeLists.txt")) and lines > house.MAX_FILE_LINES:
            yield Finding(path, lines, "file-lines", f"{lines} lines; at most {house.MAX_FILE_LINES}")


def columns(tree):
    for path, text in tree.ending(*CPP):
        for number, line in enumerate(text.split("\n"), 1):
            if len(line) > house.MAX_COLUMNS:
                yield Finding(path, number, "columns", f"{len(line)} columns; at most {house.MAX_COLUMNS}")


def _cpp_functions(text):
    code = cpp.without_directives(cpp.strip(text))
    for scope in cpp.scopes(code):
        if scope.kind == "function":
            yield scope.header.split("(")[0].split()[-1:], cpp.line_of(code, scope.start), cpp.line_of(code, scope.end)


def _python_functions(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield [node.name], node.lineno, node.end_lineno


def function_lines(tree):
    for path, text in tree.ending(".py", *CPP):
        for name, first, last in (_python_functions if path.endswith(".py") else _cpp_functions)(text):
            if last - first + 1 > house.MAX_FUNCTION_LINES:
                yield Finding(path, first, "function-lines", f"{' '.join(name)} has {last - first + 1} lines; "
                              f"at most {house.MAX_FUNCTION_LINES}")


def pragma_once(tree):
    for path, text in tree.ending(".h"):
        code = cpp.strip(text).strip()
        if not code.startswith("#pragma once"):
            yield Finding(path, 1, "pragma-once", "a header's first line of code is #pragma once")


def forbidden_in_engine(tree):
    for path, text in tree.ending(*CPP):
        if path.startswith("engine/"):
            code = cpp.strip(text)
            for name, pattern in house.FORBIDDEN_IN_ENGINE.items():
                for match in re.finditer(pattern, code):
                    yield Finding(path, cpp.line_of(code, match.start()), name, f"{match.group()} in engine/")


def _may_include(path, included):
    home = _home(path, house.MAY_INCLUDE)
    if home == "engine" and os.path.dirname(path) != "engine":
        return False  # a folder without a row
    if os.path.dirname(path) in house.NO_NEIGHBOURS and os.path.dirname(included) == os.path.dirname(path):
        return (included == house.NO_NEIGHBOURS[os.path.dirname(path)]
                or os.path.splitext(included)[0] == os.path.splitext(path)[0])
    return included.startswith(home + "/") and home == _home(included, house.MAY_INCLUDE) or _matches(
        included, house.MAY_INCLUDE[home])


def dependencies(tree):
    for path, text in tree.ending(*CPP):
        for line, included in cpp.includes(text):
            if included.split("/")[0] in ("engine", "service", "tests"):
                if _home(path, house.MAY_INCLUDE) and not _may_include(path, included):
                    yield Finding(path, line, "dependencies", f"{os.path.dirname(path)} must not know {included}")
                if included not in tree.files:
                    yield Finding(path, line, "dependencies", f"{included} is no file of the tree")
            allowed = house.OUTSIDE.get(included.split("/")[0])
            if allowed is not None and not _matches(path, allowed):
                yield Finding(path, line, "dependencies", f"{included} belongs in {' or '.join(allowed)}")
            if re.fullmatch(house.OS_HEADERS, included) and not _matches(path, house.OS_HEADERS_IN):
                yield Finding(path, line, "dependencies", f"<{included}>: files and sockets are not this folder's")


def _libraries(tree):
    """name -> (path of the CMakeLists.txt, line, DEPS) of each gabion_library."""
    found = {}
    for path, text in tree.ending("CMakeLists.txt"):
        text = re.sub(r"#[^\n]*", lambda m: " " * len(m.group()), text)
        for match in re.finditer(r"\bgabion_library\s*\(\s*(\w+)([^)]*)\)", text):
            words = match.group(2).split()
            deps = words[words.index("DEPS") + 1:] if "DEPS" in words else []
            found[match.group(1)] = (path, cpp.line_of(text, match.start()), deps)
    return found


def _may_link(home, folder):
    """Whether a library of `home` may link one that is declared in `folder`."""
    if home == "service" or _home(folder + "/x", house.MAY_INCLUDE) == home:
        return True
    return any(p == "engine/" or os.path.dirname(p) == folder for p in house.MAY_INCLUDE[home])


def link_lines(tree):
    libraries = _libraries(tree)
    for name, (path, line, deps) in libraries.items():
        home = _home(path, house.MAY_INCLUDE)
        for dep in deps if home else []:
            if home.startswith("engine") and re.fullmatch(house.NOT_LINKED_BY_ENGINE, dep, re.I):
                yield Finding(path, line, "dependencies", f"{name} must not link {dep}")
            folder = os.path.dirname(libraries[dep][0]) if dep in libraries else None
            if folder and not _may_link(home, folder):
                yield Finding(path, line, "dependencies", f"{name} ({home}) must not link {dep} ({folder})")


def _unrolled(cmake):
    """The text of a CMake file with the bodies of its foreach(VARIABLE ITEM...) written out for each item."""
    def unroll(match):
        items = match.group(2).split()
        return "\n".join(match.group(3).replace("${%s}" % match.group(1), item) for item in items)
    return re.sub(r"\bforeach\s*\(\s*(\w+)([^)]*)\)(.*?)\bendforeach\s*\(", unroll, cmake, flags=re.S)


def sources_are_built(tree):
    for path, _ in tree.ending(".cc", "_test.py"):
        folder = os.path.dirname(path)
        while folder and folder + "/CMakeLists.txt" not in tree.files:
            folder = os.path.dirname(folder)
        cmake = _unrolled(tree.files.get(os.path.join(folder, "CMakeLists.txt"), ""))
        stem = os.path.splitext(os.path.relpath(path, folder or "."))[0]
        if not re.search(r"(?<!\w)(?<!\w/)" + re.escape(stem) + r"(?![\w/])", cmake):
            yield Finding(path, 1, "not-built", f"{folder or '.'}/CMakeLists.txt does not name it")


def class_comments(tree):
    for path, text in tree.ending(".h"):
        if not path.startswith(("engine/", "service/")):
            continue
        lines = text.split("\n")
        code = cpp.without_directives(cpp.strip(text))
        for scope in cpp.scopes(code):
            inner = any(s.kind == "class" or re.search(r"\bnamespace\s+(\w+::)*internal\b", s.header)
                        for s in scope.outer)
            head = re.sub(r"^template\s*<.*?>\s*(?=class\b|struct\b)", "", scope.header, flags=re.S)
            specializes = re.match(r"template\s*<\s*>", scope.header)
            if scope.kind != "class" or inner or specializes or not re.match(r"class\b", head):
                continue
            first = cpp.line_of(code, scope.start)
            if first < 2 or not lines[first - 2].lstrip().startswith("//"):
                name = re.sub(r"\s+", " ", head)
                yield Finding(path, first, "class-comment", f"'{name}' has no comment in front: what it is, who owns "
                              "it, which thread may call it")


def words(tree):
    for path, text in tree.files.items():
        if path == "LICENSE":
            continue
        for pattern in house.FORBIDDEN_WORDS:
            for match in re.finditer(pattern, text):
                yield Finding(path, cpp.line_of(text, match.start()), "words", f"'{match.group()}'")


RULES = [top_level, file_lines, columns, function_lines, pragma_once, forbidden_in_engine, dependencies, link_lines,
         sources_are_built, class_comments, words]


def check(tree, exceptions):
    """Findings of all rules that no exception covers, and exceptions that cover nothing."""
    used, findings = set(), []
    for rule in RULES:
        for finding in rule(tree):
            key = (finding.path, finding.rule)
            if key in exceptions:
                used.add(key)
            else:
                findings.append(finding)
    for key in sorted(exceptions.keys() - used):
        findings.append(Finding(key[0], 1, "exceptions", f"the exception from '{key[1]}' is not needed any more"))
    for key in sorted(k for k, reason in exceptions.items() if len(reason.split()) < 3):
        findings.append(Finding(key[0], 1, "exceptions", f"the exception from '{key[1]}' needs a reason"))
    return findings
