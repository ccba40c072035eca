"""Checks the whole tree against the rules of the house: tidy_test.py [ROOT]."""

import os
import sys

import house
import rules


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    tree = rules.read_tree(root)
    if "CMakeLists.txt" not in tree.files:
        sys.exit(f"{root} is not the root of the source tree")
    findings = rules.check(tree, house.EXCEPTIONS)
    for finding in sorted(findings):
        print(finding)
    print(f"{len(tree.files)} files, {len(rules.RULES)} rules, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
