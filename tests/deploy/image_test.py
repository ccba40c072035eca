"""Builds deploy/Dockerfile with buildah and runs what comes out as a pod would: as its user, on a root that is read-only.

The programs are those of the build tree, in the place of the stage `build`, so nothing is compiled. GABION_IMAGE_FULL=1 has
that stage install what compiling needs and compile them, with the cache of ccache if there is one; without, that takes many
minutes. The base image is made from Debian's packages by tests/run.sh, and no registry is asked.
"""

import json
import os
import shutil
import sys
import tempfile
import unittest

import staging

BASE_TAR = staging.ROOT / "build/tools/bookworm-slim.tar"
FULL = os.environ.get("GABION_IMAGE_FULL") == "1"
BASE, PROGRAMS, IMAGE = "localhost/debian:bookworm-slim", "localhost/gabion-programs:test", "localhost/gabion:test"
# argv: root, where data and sockets are, then the command. The root is seen read-only, with the two volumes in it.
AS_A_POD = """
set -e
root=$1 place=$2; shift 2
mount --bind "$root" "$root"
mount --bind "$place/data" "$root/var/lib/gabion"
mount --bind "$place/run" "$root/run/gabion"
mount -t proc proc "$root/proc"
mount -o remount,ro,bind "$root"
exec chroot "$root" setpriv --reuid="${GABION_USER%:*}" --regid="${GABION_USER#*:}" --clear-groups --no-new-privs \\
  --bounding-set=-all --inh-caps=-all -- "$@"
"""


class Builder:
    """buildah with a store of its own."""

    def __init__(self):
        self.store = tempfile.mkdtemp(prefix="image_", dir=os.environ["GABION_BUILD"])
        self.flags = []
        for driver in ("overlay", "vfs"):  # where overlay cannot be had, copies will do
            self.flags = ["--root", self.store + "/store", "--runroot", self.store + "/run", "--storage-driver", driver]
            done = staging.run("buildah", *self.flags, "from", "--name", "probe", "scratch", ok=False)
            if done.returncode == 0 and staging.run("buildah", *self.flags, "mount", "probe", ok=False).returncode == 0:
                return
            shutil.rmtree(self.store + "/store", ignore_errors=True)
        raise AssertionError("buildah works with no storage driver:\n" + done.stderr)

    def __call__(self, *arguments):
        return staging.run("buildah", *self.flags, *arguments).stdout.strip()

    def import_files(self, source, target, name):
        container = self("from", "scratch")
        self("add", "--quiet", container, source, target)
        self("commit", "--quiet", "--rm", container, name)

    def close(self):
        self("umount", "--all")
        self("rm", "--all")
        shutil.rmtree(self.store, ignore_errors=True)


class ImageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.buildah = Builder()
        cls.addClassCleanup(cls.buildah.close)
        cls.buildah.import_files(BASE_TAR, "/", BASE)
        arguments = ["--build-arg", "BASE=" + BASE]
        dockerfile = staging.ROOT / "deploy/Dockerfile"
        if not FULL:
            stage = staging.install(strip=True)
            cls.buildah.import_files(stage, "/out", PROGRAMS)
            text = dockerfile.read_text()
            assert text.count("COPY --from=build ") == 1, text
            dockerfile = staging.temporary_directory() / "Dockerfile"
            dockerfile.write_text(text.replace("COPY --from=build ", f"COPY --from={PROGRAMS} "))
        elif shutil.which("ccache"):
            cache = staging.run("ccache", "--get-config", "cache_dir").stdout.strip()
            arguments += ["--volume", cache + ":/ccache", "--build-arg", "CCACHE_DIR=/ccache"]
        cls.buildah("build", "--pull-never", "--isolation", "chroot", "--network", "host", "--format", "docker",
                    *arguments, "--tag", IMAGE, "--file", dockerfile, staging.ROOT)
        cls.config = json.loads(cls.buildah("inspect", "--type", "image", IMAGE))["Docker"]["config"]
        cls.environment = dict(item.split("=", 1) for item in cls.config["Env"])
        cls.root = cls.buildah("mount", cls.buildah("from", "--pull-never", IMAGE))

    def at(self, path):
        return os.stat(self.root + path)

    def test_what_the_image_says_of_itself(self):
        self.assertEqual(self.config["User"], "10001:10001")
        self.assertEqual(self.config["Entrypoint"], ["/usr/bin/gabiond"])
        self.assertEqual(list(self.config["ExposedPorts"]), ["10809/tcp"])
        self.assertEqual(sorted(self.config["Volumes"]), ["/run/gabion", "/var/lib/gabion"])
        self.assertIn("gabionctl", self.config["Healthcheck"]["Test"])

    def test_the_directories_are_the_users(self):
        for path in ("/var/lib/gabion", "/run/gabion"):
            found = self.at(path)
            self.assertEqual([found.st_uid, found.st_gid, oct(found.st_mode & 0o777)], [10001, 10001, "0o700"])

    def test_nothing_of_the_build_is_in_it(self):
        for path in ("/src", "/out", "/tmp/gabion", "/usr/bin/g++", "/usr/bin/cmake", "/usr/include/grpcpp"):
            self.assertFalse(os.path.exists(self.root + path), path)
        self.assertTrue(os.path.exists(self.root + "/usr/share/gabion/proto/gabion/v1/export.proto"))

    def test_the_user_can_write_none_of_the_programs(self):
        for name in ("gabiond", "gabionctl"):
            found = self.at("/usr/bin/" + name)
            self.assertEqual([found.st_uid, oct(found.st_mode & 0o7777)], [0, "0o755"])

    def command(self, place, *arguments):
        return ["unshare", "--mount", "bash", "-c", AS_A_POD, "bash", self.root, str(place), *arguments]

    def test_it_serves_as_its_user_on_a_read_only_root(self):
        place = staging.temporary_directory()
        place.chmod(0o755)
        for name in ("data", "run"):
            (place / name).mkdir()
            os.chown(place / name, 10001, 10001)
        environment = dict(self.environment, GABION_USER=self.config["User"])
        with open(place / "log", "w") as log:
            daemon = staging.subprocess.Popen(self.command(place, *self.config["Entrypoint"]), stderr=log,
                                              env=environment)
        try:
            self.assertTrue(staging.wait_for_text(place / "log", '"listening"', daemon), (place / "log").read_text())
            health = self.config["Healthcheck"]["Test"]
            self.assertEqual(health[0], "CMD")
            self.assertEqual(self.inside(place, environment, *health[1:]), "SERVING\n")
            self.inside(place, environment, "gabionctl", "call", "ImageService/CreateImage",
                        '{"imageId": "a", "image": {"raw": {}, "virtualSizeBytes": "1048576"}}')
            self.assertEqual(os.stat(place / "data/images/a.raw").st_uid, 10001)
            for path in ("/usr/walrus", "/tmp/walrus"):
                with self.assertRaisesRegex(AssertionError, "Read-only file system"):
                    self.inside(place, environment, "touch", path)
            self.assertIn("CapBnd:\t0000000000000000", self.inside(place, environment, "cat", "/proc/self/status"))
        finally:
            daemon.terminate()
            self.assertEqual(daemon.wait(), 0, (place / "log").read_text())

    def inside(self, place, environment, *command):
        return staging.run(*self.command(place, *command), env=environment).stdout


if os.geteuid() != 0 or not BASE_TAR.exists():
    print(f"skipped: needs root and {BASE_TAR}, which tests/run.sh makes with mmdebstrap")
    sys.exit(staging.SKIPPED)
staging.main(["buildah", "unshare", "chroot"])
