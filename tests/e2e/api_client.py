"""A caller that speaks gRPC itself, for tests with more calls than processes can be started for.

Requests and replies are JSON as gabionctl reads and prints it, errors are CallError; only the transport differs.
"""

import os
import subprocess
import tempfile

import harness

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # children exec at once; before the module is loaded

PROTO = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../proto")
PROTOS = ("image", "export", "job", "watch", "pool", "inspect", "server")
PACKAGES = {"Operations": "google.longrunning"}


class Protos:
    """What protoc makes of the protos, once for the process."""

    _loaded = None

    def __init__(self):
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "set")
            subprocess.run(["protoc", f"-I{PROTO}", "--include_imports", f"--descriptor_set_out={path}",
                            *(f"gabion/v1/{name}.proto" for name in PROTOS), "google/longrunning/operations.proto",
                            "google/rpc/error_details.proto", "google/rpc/status.proto"], check=True)
            files = descriptor_pb2.FileDescriptorSet.FromString(harness.read_file(path))
        self.pool = descriptor_pool.DescriptorPool()
        for file in files.file:
            self.pool.Add(file)
        self.factory = message_factory.MessageFactory(self.pool)

    @classmethod
    def get(cls):
        cls._loaded = cls._loaded or Protos()
        return cls._loaded

    def method(self, name):
        """(path, type of the request, type of the response) of "Service/Method"."""
        service, method = name.split("/")
        package = PACKAGES.get(service, "gabion.v1")
        found = self.pool.FindServiceByName(f"{package}.{service}").methods_by_name[method]
        return (f"/{package}.{service}/{method}", self.factory.GetPrototype(found.input_type),
                self.factory.GetPrototype(found.output_type))

    def to_json(self, message):
        from google.protobuf import json_format
        return json_format.MessageToDict(message, descriptor_pool=self.pool)

    def from_json(self, fields, kind):
        from google.protobuf import json_format
        return json_format.ParseDict(fields, kind(), descriptor_pool=self.pool)

    def error(self, method, failed):
        """CallError of a grpc.RpcError."""
        details = dict(failed.trailing_metadata() or ()).get("grpc-status-details-bin")
        error = {"code": failed.code().name, "message": failed.details()}
        if details is not None:
            kind = self.factory.GetPrototype(self.pool.FindMessageTypeByName("google.rpc.Status"))
            error["details"] = self.to_json(kind.FromString(details)).get("details", [])
        return harness.CallError(method, error)


class Api:
    """A channel of its own to a daemon; any thread may call."""

    def __init__(self, daemon, **options):
        import grpc
        self.grpc, self.protos = grpc, Protos.get()
        # A socket that is gone for a moment, because the daemon is restarted, is tried again at once.
        settings = {"grpc.initial_reconnect_backoff_ms": 20, "grpc.max_reconnect_backoff_ms": 100,
                    "grpc.use_local_subchannel_pool": 1, **options}
        self.channel = grpc.insecure_channel("unix:" + daemon.socket, options=list(settings.items()))

    def close(self):
        self.channel.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def wait_ready(self):
        """After a restart: until the channel is connected again. Calls that find it broken fail at once."""
        self.grpc.channel_ready_future(self.channel).result(harness.TIME_LIMIT_S)

    def call(self, method, request):
        """The reply of a unary method; CallError if it failed."""
        path, asked, answered = self.protos.method(method)
        call = self.channel.unary_unary(path, request_serializer=asked.SerializeToString, response_deserializer=answered.FromString)
        try:
            return self.protos.to_json(call(self.protos.from_json(request, asked), timeout=harness.TIME_LIMIT_S))
        except self.grpc.RpcError as failed:
            raise self.protos.error(method, failed) from None

    def result(self, operation):
        """What the operation responds with once it is done; CallError if it failed."""
        while not operation.get("done"):
            operation = self.call("Operations/WaitOperation", {"name": operation["name"], "timeout": "10s"})
        if "error" in operation:
            raise harness.CallError.of_operation(operation)
        return operation["response"]

    def stream(self, method, request):
        """A call of a streaming method: iterates over messages (not JSON) and has cancel()."""
        path, asked, answered = self.protos.method(method)
        call = self.channel.unary_stream(path, request_serializer=asked.SerializeToString, response_deserializer=answered.FromString)
        return call(self.protos.from_json(request, asked))


def peak_memory(pid):
    """Bytes of memory that a process has had at most since forget_peak()."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


def forget_peak(pid):
    """Returns what it has now."""
    with open(f"/proc/{pid}/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
    return peak_memory(pid)
