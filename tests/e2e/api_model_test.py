"""Random calls of several clients, restarts and kill -9 in between: every answer, list, watch and file is as modelled.

The calls take turns, but for one at a time that is under way when the daemon is killed: that has a request_id and is
repeated afterwards, so that its answer and its one effect are known, too.
"""

import base64
import copy
import os
import threading
import time
import uuid

import harness
from api_client import Api
from api_model import Model, Refused, difference

STEPS = int(os.environ.get("GABION_STEPS", "900"))
IDS = ("a", "b", "c", "d", "e")
SIZES = (512, 1024, 4096, 10240, 65536)
KINDS = ("image", "export", "connection", "operation", "pool")


class Shadow:
    """What a watch stream has told; goes on after a restart from where it was."""

    def __init__(self, api):
        self.api, self.resources, self.revision, self.failure = api, {}, 0, None
        self.go_on({"sendInitial": True})

    def go_on(self, request=None):
        self.stream = self.api.stream("WatchService/Watch", request or {"afterRevision": str(self.revision)})
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self):
        try:
            for message in self.stream:
                self.take(self.api.protos.to_json(message))
        except self.api.grpc.RpcError as failed:
            self.failure = failed.code().name

    def take(self, message):
        self.revision = int(message.get("revision", 0)) or self.revision
        if message["kind"] == "KIND_PUT":
            self.resources[message["name"]] = next(message[kind] for kind in KINDS if kind in message)
        elif message["kind"] == "KIND_DELETED":
            self.resources.pop(message["name"], None)

    def close(self):
        self.stream.cancel()
        self.thread.join()


class ApiModelTest(harness.GabionTestCase):
    def setUp(self):
        self.rng, self.model = harness.random_source(), Model()
        self.handles = []  # (export's name, its connection)
        self.finished = {}  # operations by name
        self.history = []  # (method, request, answer) of calls with a request_id
        self.connect_all()
        self.shadow = Shadow(self.apis[0])

    def connect_all(self):
        self.apis = [Api(self.daemon) for _ in range(3)]

    def tearDown(self):
        self.shadow.close()
        for api in self.apis:
            api.close()
        super().tearDown()

    def test_random_calls(self):
        for step in range(STEPS):
            try:
                self.step()
                if step % 60 == 59:
                    self.check_everything()
            except Exception as error:
                raise AssertionError(f"step {step}: {error}") from error
        self.check_everything()

    def step(self):
        actions = ((self.one_call, 60), (self.look, 12), (self.repeat, 6), (self.client, 8), (self.kill, 0.8),
                   (self.kill_in_flight, 1.2), (self.stop, 0.8))
        action, = self.rng.choices([a for a, _ in actions], [weight for _, weight in actions])
        action()

    # ---- calls

    def one_call(self):
        method, request = self.random_call()
        if self.rng.random() < 0.1 and method != "InspectService/Read":
            request["validateOnly"] = True
        self.make(self.rng.choice(self.apis), method, request)

    def make(self, api, method, request):
        """Makes a call and checks its answer."""
        self.compare(method, request, self.expect(method, request), self.answer(api, method, request))

    def expect(self, method, request):
        try:
            return self.model.apply(method, request)
        except Refused as refused:
            return refused

    def answer(self, api, method, request):
        """The answer, of an operation once it is done; or the CallError."""
        try:
            answer = api.call(method, request)
            if "metadata" not in answer:
                return answer
            if not answer.get("done"):
                answer = api.call("Operations/WaitOperation", {"name": answer["name"], "timeout": "20s"})
            self.finished[answer["name"]] = answer
            return answer
        except harness.CallError as error:
            return error

    def compare(self, method, request, expected, answer):
        told = f"{method} {request}\nshould answer {expected}\nand answered {answer}"
        if isinstance(expected, Refused) or isinstance(answer, harness.CallError):
            refused = [(each.code, each.reason) if isinstance(each, Exception) else None for each in (expected, answer)]
            self.assertEqual(*refused, told)
            return
        wrong = difference(expected, answer)
        self.assertIsNone(wrong, told)
        resource = answer.get("response", answer)
        if not request.get("validateOnly"):
            self.model.learn(resource)
            if "requestId" in request:
                self.history.append((method, request, answer))
        if method.split("/")[1].startswith("Delete"):
            self.handles = [(name, handle) for name, handle in self.handles if name in self.model.exports]
            self.wait_for_purges()

    def wait_for_purges(self):
        """What goes a moment later."""
        wanted = set(self.model.images)
        def there():
            reply = self.apis[0].call("ImageService/ListImages", {"showDeleted": True})
            return {image["name"] for image in reply.get("images", [])}
        harness.wait_until(lambda: there() == wanted, f"there are {wanted} and nothing else")

    def random_call(self):
        rng = self.rng
        image, export = "images/" + rng.choice(IDS), "exports/" + rng.choice(IDS)
        labels = rng.choice(({}, {"a": "1"}, {"a": "2", "b": "x"}))
        etag = rng.choice(("", "", "", self.model.etags.get(image, '"0"'), '"0"'))
        export_etag = rng.choice(("", "", "", self.model.etags.get(export, '"0"'), '"0"'))
        spec = {"source": image, "labels": labels, "readOnly": rng.random() < 0.3, "description": rng.choice(("", "text"))}
        patch = {"name": export, "labels": labels, "readOnly": rng.random() < 0.5, "enabled": rng.random() < 0.8,
                 "description": rng.choice(("", "other")), "etag": export_etag}
        size = str(rng.choice((*SIZES, *SIZES, 0)))
        data = base64.b64encode(rng.randbytes(rng.choice((1, 100, 512, 2000)))).decode()
        place = {"name": rng.choice((image, export)), "offset": str(rng.choice((0, 7, 400, 4000)))}
        calls = (
            (5, "ImageService/CreateImage", {"imageId": rng.choice((*IDS, *IDS, "Bad_")), "image": {
                "raw": {}, "virtualSizeBytes": size, "labels": labels}}),
            (4, "ImageService/UpdateImage", {"image": {"name": image, "virtualSizeBytes": size, "labels": labels, "etag": etag}}),
            (3, "ImageService/DeleteImage", {"name": image, "etag": etag, "allowMissing": rng.random() < 0.2}),
            (2, "ImageService/DeleteImage", {"name": image, "etag": etag, "mode": "MODE_TOMBSTONE"}),
            (2, "ImageService/UndeleteImage", {"name": image, "etag": etag}),
            (6, "ExportService/CreateExport", {"exportId": rng.choice((*IDS, "-")), "export": spec}),
            (6, "ExportService/UpdateExport", {"export": patch}),
            (4, "ExportService/DeleteExport", {"name": export, "etag": export_etag, "mode": rng.choice(("MODE_SAFE", "MODE_HARD")),
                                               "allowMissing": rng.random() < 0.2}),
            (6, "InspectService/Write", {**place, "data": data}),
            (4, "InspectService/Read", {**place, "length": str(rng.choice((1, 512, 3000)))}))
        _, method, request = rng.choices(calls, [weight for weight, _, _ in calls])[0]
        if method.startswith("ImageService/Update") and rng.random() < 0.5:
            request["updateMask"] = rng.choice(("labels", "virtualSizeBytes", "labels,virtualSizeBytes", "nonsense"))
        if method.startswith("ExportService/Update"):
            if rng.random() < 0.5:
                request["updateMask"] = rng.choice(("labels", "readOnly", "enabled,description", "nonsense"))
            if rng.random() < 0.1:
                request["export"].update(source=image, nbdName=rng.choice(IDS))
            if rng.random() < 0.2:
                request["allowMissing"] = True
                request["export"].update(source=image)
        if method.startswith("ExportService/Create") and rng.random() < 0.3:
            request["export"]["nbdName"] = rng.choice((*IDS, "another name"))
        if request.get("mode") == "MODE_TOMBSTONE" and rng.random() < 0.6:
            request["retention"] = "86400s"
        if method != "InspectService/Read" and rng.random() < 0.5:
            request["requestId"] = self.request_id()
        return method, request

    def request_id(self):
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def repeat(self):
        """A call that was answered long ago; and another one under its request id."""
        if not self.history:
            return
        method, request, answer = self.rng.choice(self.history)
        self.assertEqual(self.answer(self.rng.choice(self.apis), method, request), answer, f"{method} {request} again")
        other = copy.deepcopy(request)
        if "name" in other:
            other["name"] = other["name"].split("/")[0] + "/other"
        else:
            (other.get("image") or other["export"])["labels"] = {"an": "other"}
        error = self.answer(self.apis[0], method, other)
        self.assertEqual((error.code, error.reason), ("INVALID_ARGUMENT", "REQUEST_ID_REUSED"))

    def look(self):
        rng, api = self.rng, self.rng.choice(self.apis)
        kind = rng.choice(("Image", "Export"))
        if rng.random() < 0.5:
            return self.make(api, f"{kind}Service/Get{kind}", {"name": f"{kind.lower()}s/{rng.choice(IDS)}"})
        request = {"pageSize": rng.choice((1, 2, 50))}
        if kind == "Image":
            request.update(rng.choice(({}, {"showDeleted": True}, {"filter": 'labels.a = "1"'}, {"orderBy": "virtual_size_bytes desc"})))
        else:
            request.update(rng.choice(({}, {"filter": "read_only = true"})))
        self.check_list(api, kind, request)

    def check_list(self, api, kind, request):
        expected, got, token = getattr(self.model, f"List{kind}s")(request), [], None
        while token != "":
            reply = api.call(f"{kind}Service/List{kind}s", {**request, "pageToken": token or ""})
            got += reply.get(f"{kind.lower()}s", [])
            token = reply.get("nextPageToken", "")
        self.assertEqual([each["name"] for each in got], [each["name"] for each in expected], request)
        for one, other in zip(expected, got):
            self.assertIsNone(difference(one, other), other)
            self.model.learn(other)
        return got

    # ---- NBD clients

    def client(self):
        """One comes, reads, and stays; or one goes."""
        import nbd
        if self.handles and (len(self.handles) > 3 or self.rng.random() < 0.5):
            name, handle = self.handles.pop(self.rng.randrange(len(self.handles)))
            harness.hang_up(handle)
            self.model.exports[name].connections -= 1
            return self.wait_for_connections(name)
        name = "exports/" + self.rng.choice(IDS)
        export = self.model.exports.get(name)
        if export is None or not export.enabled:
            names = {each.nbd_name for each in self.model.exports.values() if each.enabled}
            if name.split("/")[1] not in names:
                with self.assertRaises(nbd.Error):
                    harness.nbd_connect(self.daemon.uri(name.split("/")[1]))
            return
        handle = harness.nbd_connect(self.daemon.uri(export.nbd_name))
        content = self.model.images[export.source].content
        self.assertEqual(handle.get_size(), len(content))
        self.assertEqual(handle.is_read_only(), export.read_only)
        self.assertEqual(handle.pread(len(content), 0), bytes(content))
        self.handles.append((name, handle))
        export.connections += 1
        self.wait_for_connections(name)

    def wait_for_connections(self, name):
        wanted = self.model.exports[name].connections
        harness.wait_until(lambda: self.apis[0].call("ExportService/GetExport", {"name": name}).get("connectionCount", 0) == wanted,
                           f"{name} has {wanted} connections")

    # ---- ends of the daemon

    def kill(self):
        self.daemon.kill()
        self.after_end("UNAVAILABLE")

    def stop(self):
        begin = time.monotonic()
        self.assertEqual(self.daemon.stop(), 0)
        self.assertLess(time.monotonic() - begin, 4, "it waited for clients that do nothing")
        self.after_end("UNAVAILABLE")

    def after_end(self, code):
        self.shadow.thread.join()
        self.assertEqual(self.shadow.failure, code)
        for api in self.apis:
            api.close()
        self.daemon.start()
        self.connect_all()
        for export in self.model.exports.values():
            export.connections = 0
        self.handles.clear()
        self.shadow.api = self.apis[0]
        self.shadow.go_on()

    def kill_in_flight(self):
        method, request = self.random_call()
        if method == "InspectService/Read":
            return
        request.setdefault("requestId", self.request_id())
        api, lost = self.rng.choice(self.apis[1:]), []
        expected = self.expect(method, request)
        delay = self.rng.random() * 0.006
        thread = threading.Thread(target=lambda: lost.append(self.answer(api, method, request)))
        thread.start()
        time.sleep(delay)  # whatever it is doing by then
        self.daemon.kill()
        thread.join()
        # Its clients are gone with the daemon: what was refused because of them is not any more.
        clients = isinstance(expected, Refused) and expected.reason == "EXPORT_HAS_CONNECTIONS"
        self.after_end("UNAVAILABLE")
        if clients:
            expected = self.expect(method, request)
        answer = self.answer(self.apis[1], method, request)
        if isinstance(expected, dict) and "connectionCount" in expected:
            expected["connectionCount"] = answer.get("connectionCount") if isinstance(answer, dict) else None
        self.compare(method, request, expected, answer)

    # ---- everything

    def check_everything(self):
        api = self.rng.choice(self.apis)
        images = self.check_list(api, "Image", {"showDeleted": True})
        exports = self.check_list(api, "Export", {})
        self.check_files()
        for operation in self.rng.sample(sorted(self.finished), min(len(self.finished), 20)):
            self.assertEqual(api.call("Operations/GetOperation", {"name": operation}), self.finished[operation])
        self.check_shadow(images + exports)

    def check_files(self):
        names = {f"{name.split('/')[1]}.raw": image for name, image in self.model.images.items()}
        self.assertEqual(set(os.listdir(self.daemon.pool)), set(names))
        for name, image in names.items():
            self.assertEqual(harness.read_file(os.path.join(self.daemon.pool, name)), bytes(image.content), name)

    def check_shadow(self, resources):
        """The stream gets there: resources, connections, operations."""
        def plain(resource):
            return {key: value for key, value in resource.items() if key not in ("allocatedBytes", "conditions")}  # measured
        connections = self.apis[0].call("ExportService/ListConnections", {"parent": "exports/-"}).get("connections", [])
        wanted = {resource["name"]: plain(resource) for resource in resources}

        def missing():
            told = dict(self.shadow.resources)
            names = {name for name in told if "/connections/" in name}
            there = {name: plain(told[name]) for name in told if name.startswith(("images/", "exports/")) and name not in names}
            return [each for each in (
                *((name, wanted.get(name), there.get(name)) for name in {**wanted, **there} if wanted.get(name) != there.get(name)),
                *(names ^ {connection["name"] for connection in connections}),
                *(name for name, operation in self.finished.items() if told.get(name) != operation))]
        try:
            harness.wait_until(lambda: not missing(), "the stream has told everything", seconds=20)
        except AssertionError as error:
            raise AssertionError(f"{error} {self.shadow.failure}: {missing()}") from None


if __name__ == "__main__":
    harness.main(commands=["protoc"], modules=["nbd", "grpc", "google.protobuf"])
