"""What the control plane must answer, and what there must be afterwards: images, exports and the bytes of both.

Answers are compared with partial JSON: a field that is None must be absent, ANY must be there, others must be equal.
"""

import base64
import re

ANY = object()
ID = re.compile(r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$")


class Refused(Exception):
    def __init__(self, code, reason):
        super().__init__(f"{code} {reason}")
        self.code, self.reason = code, reason


def difference(expected, got, path=""):
    """Where `got` is not as expected; None if it is."""
    if expected is None or expected is ANY:
        there = got is not None
        return None if there == (expected is ANY) else f"{path}: {got!r} should {'be' if expected is ANY else 'not be'} there"
    if isinstance(expected, dict) and isinstance(got, dict):
        found = (difference(value, got.get(key), f"{path}.{key}") for key, value in expected.items())
        return next((text for text in found if text), None)
    return None if expected == got else f"{path}: {got!r} should be {expected!r}"


class Image:
    def __init__(self, size, labels):
        self.labels, self.content = labels, bytearray(size)
        self.generation, self.uid = 1, ANY
        self.deleted = self.kept = False  # a tombstone; one with a retention
        self.burials = 0

    def version(self):
        """What the etag speaks of."""
        return self.uid, self.generation, self.burials if self.deleted else 0


class Export:
    def __init__(self, export_id, spec):
        self.source = spec["source"]
        self.nbd_name = spec.get("nbdName") or export_id
        self.labels, self.description = spec.get("labels", {}), spec.get("description", "")
        self.read_only, self.enabled = spec.get("readOnly", False), spec.get("enabled", True)
        self.generation, self.uid, self.connections = 1, ANY, 0

    def version(self):
        return self.uid, self.generation

    def spec(self):
        return self.source, self.nbd_name, self.labels, self.description, self.read_only, self.enabled


class Model:
    def __init__(self):
        self.images, self.exports = {}, {}  # by name
        self.etags = {}  # name -> the last one that was seen
        self.versions = {}  # etag -> what it spoke of

    # ---- what is told

    def image(self, name):
        image = self.images[name]
        exports = sorted(e for e, export in self.exports.items() if export.source == name)
        return {"name": name, "uid": image.uid, "etag": ANY, "generation": str(image.generation), "labels": image.labels or None,
                "pool": "pools/default", "raw": {}, "virtualSizeBytes": str(len(image.content)), "state": "STATE_ACTIVE",
                "stateError": None, "dependents": exports or None, "reconciling": None, "operation": None,
                "deleteTime": ANY if image.deleted else None, "purgeTime": ANY if image.deleted else None,
                "observedGeneration": str(image.generation)}

    def export(self, name):
        export = self.exports[name]
        return {"name": name, "uid": export.uid, "etag": ANY, "generation": str(export.generation),
                "labels": export.labels or None, "source": export.source, "nbdName": export.nbd_name,
                "description": export.description or None, "readOnly": export.read_only or None, "enabled": export.enabled,
                "state": "STATE_ACTIVE" if export.enabled else "STATE_HIDDEN", "stateError": None,
                "connectionCount": export.connections or None, "observedGeneration": str(export.generation),
                "reconciling": None, "operation": None}

    def learn(self, resource):
        """uids and etags are the daemon's choice; then they stay."""
        name = resource.get("name", "")
        there = {**self.images, **self.exports}.get(name)
        if there is not None and there.uid is ANY:
            there.uid = resource["uid"]
        if there is not None and there.uid == resource["uid"]:
            self.etags[name] = resource["etag"]
            known = self.versions.setdefault(resource["etag"], there.version())
            assert known == there.version(), f"{name} has the etag of {known} and is {there.version()}"

    # ---- calls: the expected answer, or Refused

    def apply(self, method, request):
        return getattr(self, method.split("/")[1])(request)

    def find(self, name):
        there = self.images if name.startswith("images/") else self.exports
        if name not in there:
            raise Refused("NOT_FOUND", "RESOURCE_NOT_FOUND")
        return there[name]

    def check_etag(self, name, etag):
        if etag and self.versions.get(etag) != self.find(name).version():
            raise Refused("ABORTED", "ETAG_MISMATCH")

    @staticmethod
    def operation(kind, target, response, validate_only):
        if validate_only:
            return {"name": None, "done": True, "error": None, "response": response}
        return {"name": ANY, "done": True, "error": None, "response": response,
                "metadata": {"kind": kind, "target": target, "state": "STATE_DONE", "startTime": ANY, "endTime": ANY}}

    def CreateImage(self, r):
        asked, name = r["image"], "images/" + r["imageId"]
        size, labels = int(asked.get("virtualSizeBytes", 0)), asked.get("labels", {})
        if not ID.match(r["imageId"]):
            raise Refused("INVALID_ARGUMENT", "NAME_INVALID")
        if size == 0:
            raise Refused("INVALID_ARGUMENT", "FIELD_REQUIRED")
        if name in self.images:
            old = self.images[name]
            same = (len(old.content), old.labels) == (size, labels)
            raise Refused("ALREADY_EXISTS", "RESOURCE_EXISTS" if same else "RESOURCE_EXISTS_DIFFERENT")
        if r.get("validateOnly"):
            return self.operation(None, None, {"name": name, "virtualSizeBytes": str(size)}, True)
        self.images[name] = Image(size, labels)
        return self.operation("KIND_CREATE", name, self.image(name), False)

    def UpdateImage(self, r):
        patch, name = r["image"], r["image"]["name"]
        image = self.find(name)
        self.check_etag(name, patch.get("etag"))
        labels = patch.get("labels") or image.labels
        size = int(patch.get("virtualSizeBytes", 0)) or len(image.content)
        mask = r.get("updateMask")
        if mask is not None:
            paths = mask.split(",")
            if "nonsense" in paths:
                raise Refused("INVALID_ARGUMENT", "FIELD_MASK_INVALID")
            labels = patch.get("labels", {}) if "labels" in paths else image.labels
            if "virtualSizeBytes" not in paths:
                size = len(image.content)
            elif int(patch.get("virtualSizeBytes", 0)) == 0:
                raise Refused("INVALID_ARGUMENT", "FIELD_REQUIRED")
        if size < len(image.content):
            raise Refused("INVALID_ARGUMENT", "SHRINK_NOT_ALLOWED")
        changed = (labels, size) != (image.labels, len(image.content))
        before = image.labels, image.content, image.generation
        image.labels, image.generation = labels, image.generation + changed
        image.content = image.content + bytes(size - len(image.content))
        told = self.image(name)
        if r.get("validateOnly"):
            image.labels, image.content, image.generation = before
        return told

    def DeleteImage(self, r):
        name, validate_only = r["name"], r.get("validateOnly")
        if name not in self.images and r.get("allowMissing"):
            return self.operation(None, None, {}, True)
        image = self.find(name)
        self.check_etag(name, r.get("etag"))
        tombstone = r.get("mode") == "MODE_TOMBSTONE"
        if not tombstone and self.image(name)["dependents"]:
            raise Refused("FAILED_PRECONDITION", "IMAGE_IN_USE")
        if not validate_only:
            image.burials += not image.deleted
            image.deleted, image.kept = True, "retention" in r
            if not tombstone:
                del self.images[name]
            self.purge()
        return self.operation("KIND_DELETE", name, {}, validate_only)

    def purge(self):
        """What nothing needs any more goes, a moment later."""
        for name in [n for n, image in self.images.items() if image.deleted and not image.kept]:
            if not self.image(name)["dependents"]:
                del self.images[name]

    def UndeleteImage(self, r):
        name = r["name"]
        image = self.find(name)
        self.check_etag(name, r.get("etag"))
        if not image.deleted:
            raise Refused("FAILED_PRECONDITION", "IMAGE_NOT_DELETED")
        image.deleted = False
        told = self.image(name)
        image.deleted = bool(r.get("validateOnly"))
        return self.operation("KIND_UNDELETE", name, told, r.get("validateOnly"))

    def CreateExport(self, r):
        name = "exports/" + r["exportId"]
        if not ID.match(r["exportId"]):
            raise Refused("INVALID_ARGUMENT", "NAME_INVALID")
        export = Export(r["exportId"], r["export"])
        if name in self.exports:
            same = export.spec() == self.exports[name].spec()
            raise Refused("ALREADY_EXISTS", "RESOURCE_EXISTS" if same else "RESOURCE_EXISTS_DIFFERENT")
        if self.find(export.source).deleted:
            raise Refused("FAILED_PRECONDITION", "IMAGE_DELETED")
        if any(other.nbd_name == export.nbd_name for other in self.exports.values()):
            raise Refused("ALREADY_EXISTS", "RESOURCE_EXISTS")
        self.exports[name] = export
        told = self.export(name)
        if r.get("validateOnly"):
            del self.exports[name]
            return {"name": name, "source": export.source}
        return told

    def UpdateExport(self, r):
        patch, name = r["export"], r["export"]["name"]
        if name not in self.exports and r.get("allowMissing"):
            return self.CreateExport({**r, "exportId": name.split("/")[1], "export": patch})
        export = self.find(name)
        self.check_etag(name, patch.get("etag"))
        fields = {"labels": ("labels", {}), "description": ("description", ""), "readOnly": ("read_only", False),
                  "enabled": ("enabled", True), "nbdName": ("nbd_name", ""), "source": ("source", "")}
        mask = r.get("updateMask")
        if mask is None:
            paths = [path for path in fields if patch.get(path) not in (None, "", {}) and (path == "enabled" or patch[path])]
        else:
            paths = mask.split(",")
        if "nonsense" in paths:
            raise Refused("INVALID_ARGUMENT", "FIELD_MASK_INVALID")
        wanted = {fields[path][0]: patch.get(path, fields[path][1]) for path in paths}
        if any(wanted.get(fixed, getattr(export, fixed)) != getattr(export, fixed) for fixed in ("nbd_name", "source")):
            raise Refused("INVALID_ARGUMENT", "FIELD_IMMUTABLE")
        changed = any(getattr(export, key) != value for key, value in wanted.items())
        before = dict(vars(export))
        vars(export).update(wanted)
        export.generation += changed
        told = self.export(name)
        if r.get("validateOnly"):
            vars(export).update(before)
        return told

    def DeleteExport(self, r):
        name = r["name"]
        if name not in self.exports and r.get("allowMissing"):
            return self.operation(None, None, {}, True)
        export = self.find(name)
        self.check_etag(name, r.get("etag"))
        if export.connections and r.get("mode", "MODE_SAFE") == "MODE_SAFE":
            raise Refused("FAILED_PRECONDITION", "EXPORT_HAS_CONNECTIONS")
        if not r.get("validateOnly"):
            del self.exports[name]
            self.purge()
        return self.operation("KIND_DRAIN", name, {}, r.get("validateOnly"))

    # ---- bytes

    def target(self, name):
        there = self.find(name)
        return there if isinstance(there, Image) else self.images[there.source]

    def Write(self, r):
        there, image = self.find(r["name"]), self.target(r["name"])
        data, at = base64.b64decode(r["data"]), int(r.get("offset", 0))
        if image is there and image.deleted:
            raise Refused("FAILED_PRECONDITION", "IMAGE_DELETED")
        if at + len(data) > len(image.content):
            raise Refused("OUT_OF_RANGE", "OFFSET_BEYOND_END")
        if image is not there and there.read_only:
            raise Refused("FAILED_PRECONDITION", "EXPORT_READ_ONLY")
        if not r.get("validateOnly"):
            image.content[at:at + len(data)] = data
        return {}

    def Read(self, r):
        there, image = self.find(r["name"]), self.target(r["name"])
        at, length = int(r.get("offset", 0)), int(r["length"])
        if image is there and image.deleted:
            raise Refused("FAILED_PRECONDITION", "IMAGE_DELETED")
        if at + length > len(image.content):
            raise Refused("OUT_OF_RANGE", "OFFSET_BEYOND_END")
        return {"data": base64.b64encode(image.content[at:at + length]).decode()}

    def GetImage(self, r):
        self.find(r["name"])
        return self.image(r["name"])

    def GetExport(self, r):
        self.find(r["name"])
        return self.export(r["name"])

    # ---- lists

    def ListImages(self, r):
        names = [n for n, image in self.images.items() if r.get("showDeleted") or not image.deleted]
        if "filter" in r:
            names = [n for n in names if self.images[n].labels.get("a") == "1"]
        names.sort()
        if "orderBy" in r:
            names.sort(key=lambda n: -len(self.images[n].content))
        return [self.image(name) for name in names]

    def ListExports(self, r):
        names = sorted(self.exports)
        if "filter" in r:
            names = [n for n in names if self.exports[n].read_only]
        return [self.export(name) for name in names]
