"""Calls with a request_id whose answer was lost to kill -9: repeated, they have one effect and get its answer."""

import itertools
import random
import threading
import uuid

import harness
from api_client import Api

ROUNDS = 8
CLIENTS = 6


class Killed(Exception):
    """The daemon went before it answered."""


class Caller:
    """Works on resources of its own, so that it knows what each call must do."""

    def __init__(self, daemon, number, seed):
        self.api, self.rng, self.number = Api(daemon), random.Random(seed), number
        self.ids = itertools.count()
        self.images, self.exports = {}, {}  # id -> generation, source's id and generation
        self.unanswered = None  # (method, request, then)
        self.answered = []  # (method, request, answer)
        self.failure = None

    def run(self, tick):
        """Makes calls until the daemon is gone."""
        try:
            while True:
                self.step()
                tick.release()
        except Killed:
            pass
        except BaseException as failure:  # told by the test's thread
            self.failure = failure
        finally:
            tick.release()

    def step(self):
        actions = [self.create_image]
        free = [image for image in self.images if image not in {source for source, _ in self.exports.values()}]
        if self.images:
            actions += [self.update_image, self.grow_image, self.create_export]
        if free:
            actions += [self.delete_image, self.bury_and_return]
        if self.exports:
            actions += [self.update_export, self.update_export, self.delete_export]
        self.rng.choice(actions)(free)

    def mutate(self, method, request, then):
        """A call with a request_id; `then` checks the answer, now or when it has been repeated."""
        self.unanswered = (method, {**request, "requestId": str(uuid.UUID(int=self.rng.getrandbits(128), version=4))}, then)
        self.ask()

    def ask(self):
        """What was asked last, until it is answered."""
        method, request, then = self.unanswered
        try:
            answer = self.api.call(method, request)
            if "metadata" in answer:
                self.api.result(answer)
                answer = self.api.call("Operations/GetOperation", {"name": answer["name"]})
        except harness.CallError as error:
            if error.code == "UNAVAILABLE":
                raise Killed from None
            raise
        self.unanswered = None
        self.answered.append((method, request, answer))
        then(answer)

    def after_restart(self):
        self.api.wait_ready()
        if self.unanswered is not None:
            self.ask()
        for method, request, answer in self.rng.sample(self.answered, min(len(self.answered), 8)):
            again = self.api.call(method, request)
            assert again == answer, f"{method} {request}\nwas answered: {answer}\nand is answered: {again}"
        for image, generation in self.images.items():
            there = self.api.call("ImageService/GetImage", {"name": f"images/{image}"})
            assert (there["generation"], there["state"]) == (str(generation), "STATE_ACTIVE"), (generation, there)
        for export, (source, generation) in self.exports.items():
            there = self.api.call("ExportService/GetExport", {"name": f"exports/{export}"})
            assert (there["generation"], there["source"], there["state"]) == (
                str(generation), f"images/{source}", "STATE_ACTIVE"), (generation, there)

    def expected(self):
        """Names of what there must be."""
        return {f"images/{image}" for image in self.images} | {f"exports/{export}" for export in self.exports}

    # ---- what it does

    def create_image(self, _free):
        name = f"c{self.number}-{next(self.ids)}"
        self.mutate("ImageService/CreateImage", {"imageId": name, "image": {"raw": {}, "virtualSizeBytes": "512"}},
                    lambda answer: self.images.update({name: int(answer["response"]["generation"])}))

    def changed(self, name):
        def then(answer):
            self.images[name] += 1
            assert answer["generation"] == str(self.images[name]), answer
        return then

    def update_image(self, _free):
        name = self.rng.choice(list(self.images))
        self.mutate("ImageService/UpdateImage", {
            "image": {"name": f"images/{name}", "labels": {"n": str(next(self.ids))}}, "updateMask": "labels"}, self.changed(name))

    def grow_image(self, _free):
        name = self.rng.choice(list(self.images))
        self.mutate("ImageService/UpdateImage", {
            "image": {"name": f"images/{name}", "virtualSizeBytes": str(512 + 512 * (next(self.ids) + 1) * 100)},
            "updateMask": "virtualSizeBytes"}, self.changed(name))

    def delete_image(self, free):
        name = self.rng.choice(free)
        self.mutate("ImageService/DeleteImage", {"name": f"images/{name}"}, lambda _: self.images.pop(name))

    def bury_and_return(self, free):
        name = self.rng.choice(free)

        def back(answer):
            assert answer["response"]["generation"] == str(self.images[name]), answer
            assert "deleteTime" not in answer["response"], answer
        self.mutate("ImageService/DeleteImage", {"name": f"images/{name}", "mode": "MODE_TOMBSTONE", "retention": "86400s"},
                    lambda _: self.mutate("ImageService/UndeleteImage", {"name": f"images/{name}"}, back))

    def create_export(self, _free):
        name, source = f"c{self.number}-{next(self.ids)}", self.rng.choice(list(self.images))
        self.mutate("ExportService/CreateExport", {"exportId": name, "export": {"source": f"images/{source}"}},
                    lambda answer: self.exports.update({name: (source, int(answer["generation"]))}))

    def update_export(self, _free):
        name = self.rng.choice(list(self.exports))

        def then(answer):
            source, generation = self.exports[name]
            self.exports[name] = (source, generation + 1)
            assert answer["generation"] == str(generation + 1), answer
        self.mutate("ExportService/UpdateExport", {
            "export": {"name": f"exports/{name}", "description": str(next(self.ids))}, "updateMask": "description"}, then)

    def delete_export(self, _free):
        name = self.rng.choice(list(self.exports))
        self.mutate("ExportService/DeleteExport", {"name": f"exports/{name}"}, lambda _: self.exports.pop(name))


class RequestIdTest(harness.GabionTestCase):
    def test_each_call_has_one_effect_whenever_the_daemon_is_killed(self):
        rng = harness.random_source()
        callers = [Caller(self.daemon, number, rng.random()) for number in range(CLIENTS)]
        for caller in callers:
            self.addCleanup(caller.api.close)
        repeated = 0
        for _ in range(ROUNDS):
            tick = threading.Semaphore(0)
            threads = [threading.Thread(target=caller.run, args=(tick,)) for caller in callers]
            for thread in threads:
                thread.start()
            for _ in range(rng.randrange(20, 150)):
                tick.acquire()
            self.daemon.kill()
            for thread in threads:
                thread.join()
            self.daemon.start()
            repeated += sum(caller.unanswered is not None for caller in callers)
            for caller in callers:
                if caller.failure is not None:
                    raise AssertionError(f"a call of {caller.number}: {caller.failure}") from caller.failure
                caller.after_restart()
            self.check_lists(callers)
        self.assertGreater(repeated, ROUNDS, "the kills came between the calls")

    def check_lists(self, callers):
        there = set()
        for method, key in (("ImageService/ListImages", "images"), ("ExportService/ListExports", "exports")):
            there |= {resource["name"] for resource in self.daemon.call(method, {"pageSize": 1000}).get(key, [])}
        self.assertEqual(there, set().union(*(caller.expected() for caller in callers)))


if __name__ == "__main__":
    harness.main(commands=["protoc"], modules=["grpc", "google.protobuf"])
