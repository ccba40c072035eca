"""deploy/gabiond.service: systemd understands every line, finds little exposed, and the settings are gabiond's."""

import os
import signal
import unittest

import staging

STAGE = staging.install()
UNIT = (STAGE / "usr/lib/systemd/system/gabiond.service").read_text()
MAX_EXPOSURE = 15  # tenths of systemd-analyze's scale from 0 to 10, where 10 is a service without any measure


def written(text):
    """A file with the unit `text`, which runs the program that is staged."""
    path = staging.temporary_directory() / "gabiond.service"
    path.write_text(text.replace("ExecStart=/usr", f"ExecStart={STAGE}/usr"))
    return path


def complaints(text):
    # It says what it does not understand, and succeeds all the same.
    done = staging.run("systemd-analyze", "verify", "--man=no", written(text), ok=False)
    return done.stdout + done.stderr + (f"status {done.returncode}" if done.returncode else "")


def is_tight(text):
    return staging.run("systemd-analyze", "security", "--offline=true", f"--threshold={MAX_EXPOSURE}", "--no-pager",
                       written(text), ok=False).returncode == 0


class UnitTest(unittest.TestCase):
    def test_systemd_understands_it(self):
        self.assertEqual(complaints(UNIT), "")

    def test_what_systemd_would_not_understand_is_noticed(self):
        for line in ("Walrus=yes", "ProtectSystem=walrus", "SystemCallFilter=@walrus", "ExecStartPre=/no/such/program"):
            self.assertNotEqual(complaints(UNIT.replace("[Service]\n", f"[Service]\n{line}\n")), "", line)

    def test_little_is_exposed(self):
        self.assertTrue(is_tight(UNIT))

    def test_one_measure_less_may_be_too_much(self):
        for measure in ("CapabilityBoundingSet=\n", "SystemCallFilter=@system-service\n"):
            self.assertIn(measure, UNIT)
            self.assertFalse(is_tight(UNIT.replace(measure, "")), measure)

    def test_the_environment_is_of_gabionds_settings(self):
        known = staging.run(os.environ["GABIOND"], "--help").stdout
        variables = [value.split("=")[0] for value in staging.unit_settings(UNIT)["Environment"]]
        self.assertIn("GABION_DATA_DIR", variables)
        for variable in variables:
            self.assertIn(variable, known)

    def test_what_is_written_is_in_directories_that_the_unit_makes(self):
        settings = staging.unit_settings(UNIT)
        made = ["/var/lib/" + settings["StateDirectory"][0], "/run/" + settings["RuntimeDirectory"][0]]
        for value in settings["Environment"]:
            self.assertTrue(any(value.split("=")[1].startswith(directory) for directory in made), value)

    def test_the_watchdog_leaves_time_for_a_start_and_an_end(self):
        settings = staging.unit_settings(UNIT)
        self.assertEqual(settings["Type"], ["notify"])
        for name in ("TimeoutStartSec", "TimeoutStopSec"):
            self.assertGreater(int(settings[name][0]), int(settings["WatchdogSec"][0]))

    def test_the_end_to_end_tests_run_under_its_filter(self):
        """tests/deploy/filtered.py, which has the other end-to-end tests start gabiond, ends what makes another call."""
        def end_of(*command):
            program, *arguments = command
            return staging.run(staging.ROOT / "tests/deploy/filtered.py", *arguments, ok=False,
                               env=dict(os.environ, GABION_UNFILTERED=program)).returncode
        self.assertEqual(end_of("/usr/bin/stat", STAGE), 0)
        self.assertEqual(end_of("/usr/bin/chown", "0", STAGE), -signal.SIGSYS)  # of @privileged, which is taken out


staging.main(["systemd-analyze"])
