"""helm/gabion: what helm renders from each set of values in ci/ is consistent in itself and with gabiond and its image, and
the schema refuses what would not work."""

import json
import os
import re
import unittest

import staging
import yaml

CHART = staging.ROOT / "helm/gabion"
SETS = sorted((CHART / "ci").glob("*.yaml"))
HOME = staging.temporary_directory()
ENVIRONMENT = dict(os.environ, **{f"HELM_{kind}_HOME": str(HOME / kind) for kind in ("CACHE", "CONFIG", "DATA")})
API = {"StatefulSet": "apps/v1", "Service": "v1", "ServiceAccount": "v1", "NetworkPolicy": "networking.k8s.io/v1"}
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")


def helm(*arguments, ok=True):
    return staging.run("helm", *arguments, ok=ok, env=ENVIRONMENT)


def template(*arguments, release="gabion", ok=True):
    return helm("template", release, CHART, "--namespace", "storage", *arguments, ok=ok)


def render(*arguments, **options):
    text = template(*arguments, **options).stdout
    return [document for document in yaml.load_all(text, Loader=UniqueKeys) if document is not None]


class UniqueKeys(yaml.SafeLoader):
    """YAML in which a key that comes twice is an error, as it is for Kubernetes' strict decoding."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if len(keys) != len(set(keys)):
            raise AssertionError(f"a key comes twice, {node.start_mark}: {keys}")
        return super().construct_mapping(node, deep)


def of_kind(documents, kind):
    return [document for document in documents if document["kind"] == kind]


def pod_of(documents):
    stateful_set, = of_kind(documents, "StatefulSet")
    return stateful_set["spec"]["template"]


def container_of(documents):
    container, = pod_of(documents)["spec"]["containers"]
    return container


def flags_of(container):
    """Flag -> value, "" for a switch."""
    return {flag.removeprefix("--"): value for flag, _, value in (a.partition("=") for a in container["args"])}


class ChartTest(unittest.TestCase):
    @staticmethod
    def each():
        for path in SETS:
            yield render("--values", path)

    def test_helm_lint_finds_nothing(self):
        for path in SETS:
            done = helm("lint", "--strict", "--quiet", CHART, "--values", path)
            self.assertNotRegex(done.stdout, "WARNING|ERROR")

    def test_the_versions_are_the_projects(self):
        chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
        version = re.search(r"project\(gabion VERSION (\S+)", (staging.ROOT / "CMakeLists.txt").read_text()).group(1)
        self.assertEqual([chart["version"], chart["appVersion"]], [version, version])

    def test_every_object_is_named_labelled_and_of_a_kind_that_is_known(self):
        for documents in self.each():
            self.assertGreater(len(documents), 2)
            self.assertEqual(len({(d["kind"], d["metadata"]["name"]) for d in documents}), len(documents))
            for document in documents:
                self.assertEqual(document["apiVersion"], API[document["kind"]])
                self.assertRegex(document["metadata"]["name"], rf"^{NAME.pattern}$")
                self.assertLessEqual(len(document["metadata"]["name"]), 63)
                for value in document["metadata"]["labels"].values():
                    self.assertIsInstance(value, str)
                    self.assertRegex(value, rf"^{LABEL.pattern}$")
                self.assertEqual(document["metadata"]["labels"]["app.kubernetes.io/managed-by"], "Helm")

    def test_long_names_are_cut_to_what_kubernetes_takes(self):
        for document in render(release="r" * 53):
            self.assertLessEqual(len(document["metadata"]["name"]), 63)

    def test_selectors_find_the_pod(self):
        for documents in self.each():
            stateful_set, = of_kind(documents, "StatefulSet")
            labels = pod_of(documents)["metadata"]["labels"].items()
            selectors = [s["spec"]["selector"] for s in of_kind(documents, "Service")]
            selectors.append(stateful_set["spec"]["selector"]["matchLabels"])
            selectors += [p["spec"]["podSelector"]["matchLabels"] for p in of_kind(documents, "NetworkPolicy")]
            for selector in selectors:
                self.assertTrue(selector)
                self.assertLessEqual(selector.items(), labels)
            headless, = [s for s in of_kind(documents, "Service") if s["spec"].get("clusterIP") == "None"]
            self.assertEqual(stateful_set["spec"]["serviceName"], headless["metadata"]["name"])
            self.assertEqual(stateful_set["spec"]["replicas"], 1)

    def test_ports_are_where_the_daemon_listens(self):
        for documents in self.each():
            container = container_of(documents)
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            flags = flags_of(container)
            listens = {"nbd": flags["nbd-listen"]}
            if "grpc-listen" in flags:
                listens["grpc"] = flags["grpc-listen"]
            self.assertEqual(ports, {name: int(value.rsplit(":", 1)[1]) for name, value in listens.items()})
            served = set()
            for service in of_kind(documents, "Service"):
                for port in service["spec"]["ports"]:
                    self.assertEqual(ports[port["targetPort"]], port["port"])
                    served.add(port["name"])
            self.assertEqual(served, set(ports))
            for policy in of_kind(documents, "NetworkPolicy"):
                for rule in policy["spec"]["ingress"]:
                    self.assertTrue(rule["from"])  # left out, it would be everybody
                    self.assertLessEqual({port["port"] for port in rule["ports"]}, set(ports))

    def test_the_control_plane_is_on_tcp_only_where_that_is_asked_for(self):
        for path in SETS:
            with self.subTest(values=path.name):
                documents = render("--values", path)
                values = yaml.safe_load(path.read_text()) or {}
                asked = values.get("grpc", {}).get("insecureTcp", False)
                flags = flags_of(container_of(documents))
                self.assertEqual("grpc-listen" in flags, asked)
                self.assertEqual("insecure-grpc" in flags, asked)
                self.assertEqual(any(s["metadata"]["name"].endswith("-grpc") for s in of_kind(documents, "Service")),
                                 asked)

    def test_volumes_and_mounts_match_and_the_daemon_writes_nowhere_else(self):
        for documents in self.each():
            stateful_set, = of_kind(documents, "StatefulSet")
            claims = [c["metadata"]["name"] for c in stateful_set["spec"].get("volumeClaimTemplates", [])]
            volumes = [v["name"] for v in pod_of(documents)["spec"]["volumes"]] + claims
            mounts = {m["name"]: m["mountPath"] for m in container_of(documents)["volumeMounts"]}
            self.assertEqual(sorted(volumes), sorted(mounts))
            flags = flags_of(container_of(documents))
            self.assertEqual(flags["data-dir"], mounts["data"])
            for socket in ("grpc-socket", "nbd-socket"):
                self.assertEqual(os.path.dirname(flags[socket]), mounts["run"])

    def test_the_pod_has_no_privilege(self):
        for documents in self.each():
            pod, container = pod_of(documents)["spec"], container_of(documents)
            self.assertIs(pod["automountServiceAccountToken"], False)
            self.assertIs(pod["enableServiceLinks"], False)
            self.assertIs(pod["securityContext"]["runAsNonRoot"], True)
            self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
            self.assertEqual(container["securityContext"], {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}})
            for name in ("hostNetwork", "hostPID", "hostIPC"):
                self.assertNotIn(name, pod)

    def test_the_user_is_the_images(self):
        dockerfile = (staging.ROOT / "deploy/Dockerfile").read_text()
        user, group = re.search(r"(?m)^USER (\d+):(\d+)$", dockerfile).groups()
        context = pod_of(render())["spec"]["securityContext"]
        self.assertEqual([context["runAsUser"], context["runAsGroup"], context["fsGroup"]],
                         [int(user), int(group), int(group)])

    def test_the_claim_is_asked_for_as_the_values_say(self):
        stateful_set, = of_kind(render("--set", "persistence.storageClass=fast,persistence.size=5Gi"), "StatefulSet")
        claim, = stateful_set["spec"]["volumeClaimTemplates"]
        self.assertEqual(claim["spec"], {"accessModes": ["ReadWriteOnce"], "storageClassName": "fast",
                                         "resources": {"requests": {"storage": "5Gi"}}})

    def test_values_arrive(self):
        documents = render("--values", CHART / "ci/full.yaml")
        container, pod = container_of(documents), pod_of(documents)
        self.assertEqual(container["image"], "images.example.org/gabion@sha256:" + "0123456789abcdef" * 4)
        self.assertEqual({e["name"]: e["value"] for e in container["env"]}, {
            "GABION_MAX_CONNECTIONS": "512", "GABION_IO_DRIVER": "threads", "GABION_DIRECT_IO": "true",
            "GABION_MAX_INFLIGHT_BYTES": "2GiB"})
        self.assertEqual(flags_of(container)["nbd-listen"], "[::]:10809")
        self.assertEqual(pod["spec"]["serviceAccountName"], "disks")
        self.assertEqual(pod["metadata"]["labels"]["tier"], "storage")
        self.assertEqual(pod["spec"]["topologySpreadConstraints"][0]["topologyKey"], "zone")
        self.assertEqual(of_kind(documents, "ServiceAccount") + of_kind(documents, "NetworkPolicy"), [])


class DaemonTest(unittest.TestCase):
    """What the chart says to gabiond and gabionctl, said to the built ones."""

    def test_the_daemon_takes_the_arguments_and_the_probes_succeed(self):
        for path in SETS:
            with self.subTest(values=path.name):
                self.probe(container_of(render("--values", path)))

    def probe(self, container):
        place = staging.temporary_directory()
        (place / "run").mkdir()

        # As root in a network of its own, which nobody reaches; otherwise on any free port of the loopback.
        alone = ["unshare", "--net"] if os.geteuid() == 0 else []

        def here(text):
            """With paths in a directory of the test's own."""
            text = text.replace("/var/lib/gabion", str(place / "data")).replace("/run/gabion", str(place / "run"))
            return text if alone else re.sub(r"-listen=.*", "-listen=127.0.0.1:0", text)

        arguments = [here(argument) for argument in container["args"]]
        environment = dict(os.environ, **{e["name"]: e["value"] for e in container.get("env", [])})
        log = open(place / "log", "w+")
        self.addCleanup(log.close)
        daemon = staging.subprocess.Popen([*alone, os.environ["GABIOND"], *arguments], stderr=log, env=environment)
        try:
            self.assertTrue(staging.wait_for_text(place / "log", '"listening"', daemon), (place / "log").read_text())
            if alone:
                for name, value in flags_of(container).items():
                    if name.endswith("-listen"):
                        self.assertIn(value, (place / "log").read_text())
            for name in ("startupProbe", "readinessProbe", "livenessProbe"):
                program, *rest = container[name]["exec"]["command"]
                self.assertEqual(program, "gabionctl")
                timeout, = [int(word.split("=")[1]) for word in rest if word.startswith("--timeout=")]
                self.assertLess(timeout, container[name]["timeoutSeconds"])
                self.assertEqual(staging.run(os.environ["GABION_CTL"], *map(here, rest)).stdout, "SERVING\n")
        finally:
            daemon.terminate()
            self.assertEqual(daemon.wait(), 0)
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            rest = map(here, container[name]["exec"]["command"][1:])
            self.assertNotEqual(staging.run(os.environ["GABION_CTL"], *rest, ok=False).returncode, 0, name)

    def test_every_setting_is_the_charts_or_a_value(self):
        known = set(re.findall(r"(?m)^ *--([a-z0-9-]+)", staging.run(os.environ["GABIOND"], "--help").stdout))
        schema = json.loads((CHART / "values.schema.json").read_text())
        values = set(schema["properties"]["settings"]["properties"])
        made = set(flags_of(container_of(render("--values", CHART / "ci/grpc.yaml"))))
        self.assertEqual(values & made, set())
        self.assertEqual(values | made, known - {"help", "version", "config"})


class SchemaTest(unittest.TestCase):
    def refused(self, *settings):
        arguments = [word for setting in settings for word in ("--set-json", setting)]
        done = template(*arguments, ok=False)
        self.assertNotEqual(done.returncode, 0, f"{settings} was taken")
        self.assertIn("schema", done.stderr)
        return done.stderr

    def test_the_defaults_are_all_there_is(self):
        """Each value that values.yaml has is in the schema, on every level that the schema closes, and the other way round."""
        def compare(values, schema, path):
            if schema.get("additionalProperties") is not False:
                return
            allowed = set(schema["properties"]) - {"global"}
            if path not in ("settings", "resources", "probes.startup", "probes.readiness", "probes.liveness"):
                self.assertEqual(allowed, set(values), path)
            self.assertLessEqual(set(values), allowed, path)
            for name, value in values.items():
                if isinstance(value, dict):
                    compare(value, schema["properties"][name], f"{path}.{name}".lstrip("."))
        compare(yaml.safe_load((CHART / "values.yaml").read_text()),
                json.loads((CHART / "values.schema.json").read_text()), "")

    def test_what_would_not_work_is_refused(self):
        for setting in ('walrus=1', 'image.repository=""', 'image.digest="abc"', 'image.pullPolicy="Sometimes"',
                        'logLevel="loud"', 'settings.max-connections=0', 'settings.data-dir="/tmp"',
                        'settings.io-driver="tape"', 'nbd.port=80', 'nbd.port="x"', 'nbd.address="example.org"',
                        'nbd.service.type="ExternalName"', 'persistence.size="much"',
                        'persistence.accessModes=["ReadWriteMany"]', 'persistence.accessModes=[]',
                        'podSecurityContext.runAsNonRoot=false', 'podSecurityContext.runAsUser=0',
                        'securityContext.privileged=true', 'securityContext.allowPrivilegeEscalation=true',
                        'probes.liveness.timeoutSeconds=0', 'networkPolicy.nbdFrom=[{}]',
                        'fullnameOverride="Not A Name"', 'terminationGracePeriodSeconds=0', 'replicas=2'):
            with self.subTest(setting):
                self.refused(setting)

    def test_grpc_on_tcp_is_refused_unless_somebody_is_let_in_by_name(self):
        peer = 'networkPolicy.grpcFrom=[{"podSelector": {}}]'
        self.refused("grpc.insecureTcp=true")
        self.refused("grpc.insecureTcp=true", peer, "networkPolicy.enabled=false")
        self.assertEqual(template("--set-json", "grpc.insecureTcp=true", "--set-json", peer, ok=False).returncode, 0)


class NotesTest(unittest.TestCase):
    def notes(self, *arguments):
        return helm("install", "gabion", CHART, "--namespace", "storage", "--dry-run=client", *arguments).stdout

    def test_they_say_how_to_call_and_warn_of_what_is_open(self):
        plain = self.notes()
        self.assertIn("exec gabion-0 -- gabionctl health readiness", plain)
        self.assertIn("nbd://gabion-nbd.storage.svc:10809/EXPORT", plain)
        self.assertNotIn("WARNING", plain)
        self.assertIn("nobody reaches it", self.notes("--set-json", "networkPolicy.nbdFrom=[]"))
        self.assertIn("WARNING", self.notes("--set", "networkPolicy.enabled=false"))
        self.assertIn("without credentials", self.notes("--values", CHART / "ci/grpc.yaml"))

    def test_the_calls_that_they_show_are_calls(self):
        shown = re.findall(r"-- gabionctl (call \S+) '(.*)'", self.notes())
        self.assertEqual(len(shown), 2)
        for call, request in shown:
            staging.run(os.environ["GABION_CTL"], "--print-grpcurl", *call.split(), request)


staging.main(["helm"])
