"""deploy/Dockerfile as text: its stages, its packages, its user, and what it tells the programs."""

import json
import os
import re
import unittest

import staging

TEXT = (staging.ROOT / "deploy/Dockerfile").read_text()


def instructions():
    """[(name, arguments)], comments left out and continued lines joined."""
    lines = "\n".join(line for line in TEXT.splitlines() if not line.startswith("#"))
    return [tuple(line.split(None, 1)) for line in lines.replace("\\\n", " ").splitlines() if line.strip()]


def stages():
    """Stage -> (what it begins with, its instructions); "" is what comes before the first."""
    found = {"": ("", [])}
    name = ""
    for instruction, arguments in instructions():
        if instruction == "FROM":
            base, name = re.fullmatch(r"(\S+) AS (\S+)", arguments).groups()
            found[name] = (base, [])
        else:
            found[name][1].append((instruction, arguments))
    return found


def of(stage, instruction):
    return [arguments for name, arguments in stages()[stage][1] if name == instruction]


class DockerfileTest(unittest.TestCase):
    def test_the_stages(self):
        self.assertEqual([(name, base) for name, (base, _) in stages().items()],
                         [("", ""), ("build", "${BASE}"), ("runtime", "${BASE}")])
        self.assertEqual(of("", "ARG"), ["BASE=debian:bookworm-slim"])

    def test_packages_come_from_the_one_list(self):
        for stage, section in (("build", "build"), ("runtime", "runtime")):
            commands = " ".join(of(stage, "RUN"))
            self.assertEqual(re.findall(r"install_packages ([a-z ]+)'", commands), [section])
            self.assertNotRegex(commands, r"apt-get|apt |dpkg|curl|wget")
            self.assertTrue(staging.packages_of(section))

    def test_nothing_of_the_build_but_what_is_installed_reaches_the_image(self):
        copies = of("runtime", "COPY")
        self.assertEqual(copies, ["deploy/lib.sh deploy/packages.txt /tmp/gabion/deploy/", "--from=build /out/usr /usr"])
        self.assertIn("rm -rf /tmp/gabion", " ".join(of("runtime", "RUN")))

    def test_the_user_is_a_number_and_not_root(self):
        user, = of("runtime", "USER")
        self.assertRegex(user, r"^[1-9]\d{3,}:[1-9]\d{3,}$")
        self.assertIn(f"--uid {user.split(':')[0]} ", " ".join(of("runtime", "RUN")))
        # After everything that needs root.
        order = [name for name, _ in stages()["runtime"][1]]
        self.assertGreater(order.index("USER"), max(i for i, name in enumerate(order) if name in ("RUN", "COPY")))

    def test_what_it_tells_the_programs_they_understand(self):
        known = staging.run(os.environ["GABIOND"], "--help").stdout + staging.run(os.environ["GABION_CTL"], "--help").stdout
        environment, = of("runtime", "ENV")
        for variable in re.findall(r"(\w+)=", environment):
            self.assertRegex(known, rf"\b{variable}\b")
        port, = of("runtime", "EXPOSE")
        self.assertRegex(known, rf"port {port}\b")
        health = json.loads(of("runtime", "HEALTHCHECK")[0].split("CMD ")[1])
        self.assertEqual(health[0], "gabionctl")
        # Nobody listens there: the command is understood, and says so.
        done = staging.run(os.environ["GABION_CTL"], "--server=unix:/nonexistent", *health[1:], ok=False)
        self.assertIn("UNAVAILABLE", done.stderr)

    def test_the_context_has_what_is_compiled(self):
        let_in = {line[1:] for line in (staging.ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        cmake = (staging.ROOT / "CMakeLists.txt").read_text()
        needed = set(re.findall(r"add_subdirectory\((\w+)\)", cmake)) - {"tests"}
        self.assertEqual(let_in, needed | {"CMakeLists.txt", "CMakePresets.json", "LICENSE"})
        for name in let_in:
            self.assertTrue((staging.ROOT / name).exists(), name)


staging.main()
