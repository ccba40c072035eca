"""cmake --install puts each file where it belongs, with the mode that it needs, and nothing else."""

import re
import stat
import unittest

import staging

STAGE = staging.install()


def files_below(directory):
    return {str(path.relative_to(directory)): path for path in directory.rglob("*") if not path.is_dir()}


class InstallTest(unittest.TestCase):
    def test_each_file_is_there_and_no_other(self):
        protos = {"usr/share/gabion/proto/" + str(path.relative_to(staging.ROOT / "proto"))
                  for path in (staging.ROOT / "proto").rglob("*.proto")}
        self.assertGreater(len(protos), 5)
        self.assertEqual(set(files_below(STAGE)), protos | {
            "usr/bin/gabiond", "usr/bin/gabionctl", "usr/lib/systemd/system/gabiond.service",
            "usr/lib/sysusers.d/gabiond.conf", "usr/share/doc/gabion/copyright"})

    def test_modes(self):
        for name, path in files_below(STAGE).items():
            mode = stat.S_IMODE(path.lstat().st_mode)
            self.assertTrue(path.is_file() and not path.is_symlink(), name)
            self.assertEqual(oct(mode), oct(0o755 if name.startswith("usr/bin/") else 0o644), name)

    def test_the_programs_run(self):
        for name in ("gabiond", "gabionctl"):
            self.assertRegex(staging.run(STAGE / "usr/bin" / name, "--version").stdout, rf"^{name} \d+\.\d+")

    def test_the_unit_names_the_program_that_is_installed_with_it(self):
        for prefix in ("/usr", "/opt/gabion"):
            stage = staging.install(prefix)
            unit = (stage / prefix[1:] / "lib/systemd/system/gabiond.service").read_text()
            program, = staging.unit_settings(unit)["ExecStart"]
            self.assertEqual(program, f"{prefix}/bin/gabiond")
            self.assertTrue((stage / program[1:]).is_file())

    def test_the_unit_runs_as_the_user_that_is_installed_with_it(self):
        unit = staging.unit_settings((STAGE / "usr/lib/systemd/system/gabiond.service").read_text())
        (STAGE / "etc").mkdir()
        self.addCleanup(staging.shutil.rmtree, STAGE / "etc")
        staging.run("systemd-sysusers", f"--root={STAGE}", "gabiond.conf")
        users = (STAGE / "etc/passwd").read_text()
        user, = unit["User"]
        group, = unit["Group"]
        self.assertRegex(users, rf"(?m)^{re.escape(user)}:[^:]*:\d+:\d+:[^:]*:/var/lib/gabion:/usr/sbin/nologin$")
        self.assertRegex((STAGE / "etc/group").read_text(), rf"(?m)^{re.escape(group)}:")

    def test_the_protos_need_nothing_else(self):
        root = STAGE / "usr/share/gabion/proto"
        staging.run("protoc", "-I", root, "--descriptor_set_out=/dev/null",
                    *sorted((root / "gabion/v1").glob("*.proto")))


staging.main(["protoc", "systemd-sysusers"])
