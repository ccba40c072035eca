"""A caller that has none of the protos: it learns them by reflection, makes calls, and decodes errors."""

import importlib
import os
import subprocess
import sys
import tempfile

import harness
from harness import MiB

PROTOS = "/usr/share/grpc-proto"
STANDARD = ("grpc/reflection/v1/reflection.proto", "grpc/reflection/v1alpha/reflection.proto", "grpc/health/v1/health.proto")
OURS = {"gabion.v1." + name for name in
        ("ExportService", "FilterService", "ImageService", "InspectService", "PoolService", "ServerService")}


def compiled(folder):
    """The modules of reflection (v1, v1alpha) and health, made by protoc."""
    subprocess.run(["protoc", f"-I{PROTOS}", f"--python_out={folder}", *STANDARD], check=True)
    sys.path.insert(0, folder)
    import grpc  # a package of the same name as the generated one: let it see both
    grpc.__path__.append(os.path.join(folder, "grpc"))
    return [importlib.import_module(path[:-len(".proto")].replace("/", ".") + "_pb2") for path in STANDARD]


class ReflectionTest(harness.GabionTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        import grpc
        cls.folder = tempfile.TemporaryDirectory()
        cls.v1, cls.v1alpha, cls.health = compiled(cls.folder.name)
        cls.channel = grpc.insecure_channel("unix:" + cls.daemon.socket)

    @classmethod
    def tearDownClass(cls):
        cls.channel.close()
        cls.folder.cleanup()
        super().tearDownClass()

    def ask(self, module, **request):
        package = module.DESCRIPTOR.package
        call = self.channel.stream_stream(
            f"/{package}.ServerReflection/ServerReflectionInfo",
            request_serializer=module.ServerReflectionRequest.SerializeToString,
            response_deserializer=module.ServerReflectionResponse.FromString)
        answer, = call(iter([module.ServerReflectionRequest(**request)]), timeout=harness.TIME_LIMIT_S)
        return answer

    def pool(self, module):
        """All that the server tells about its services and error details."""
        from google.protobuf import descriptor_pb2, descriptor_pool
        files, names = {}, []
        symbols = [*OURS, *("google.rpc." + name for name in (
            "ErrorInfo", "BadRequest", "PreconditionFailure", "ResourceInfo", "QuotaFailure", "RetryInfo", "Status"))]
        answers = [self.ask(module, file_containing_symbol=symbol) for symbol in symbols]
        while answers:
            answer = answers.pop()
            self.assertFalse(answer.HasField("error_response"), answer)
            for data in answer.file_descriptor_response.file_descriptor_proto:
                file = descriptor_pb2.FileDescriptorProto.FromString(data)
                if file.name not in files:
                    files[file.name] = file
                    names += file.dependency
            while names:
                name = names.pop()
                if name not in files:
                    answers.append(self.ask(module, file_by_filename=name))
                    break
        result = descriptor_pool.DescriptorPool()

        def add(name):
            file = files.pop(name, None)
            if file is not None:
                for dependency in file.dependency:
                    add(dependency)
                result.Add(file)
        for name in list(files):
            add(name)
        return result

    def test_both_versions_list_all_services(self):
        for module in (self.v1, self.v1alpha):
            with self.subTest(module.DESCRIPTOR.package):
                answer = self.ask(module, list_services="")
                names = {service.name for service in answer.list_services_response.service}
                self.assertLessEqual(OURS | {"grpc.health.v1.Health"}, names)

    def test_what_does_not_exist_is_an_error(self):
        for module in (self.v1, self.v1alpha):
            answer = self.ask(module, file_containing_symbol="gabion.v1.Nothing")
            self.assertEqual(answer.error_response.error_code, 5)

    def test_healthy(self):
        check = self.channel.unary_unary(
            "/grpc.health.v1.Health/Check", request_serializer=self.health.HealthCheckRequest.SerializeToString,
            response_deserializer=self.health.HealthCheckResponse.FromString)
        answer = check(self.health.HealthCheckRequest(), timeout=harness.TIME_LIMIT_S)
        self.assertEqual(answer.status, self.health.HealthCheckResponse.SERVING)

    def method(self, pool, service, name):
        """A callable that takes and returns what reflection says."""
        from google.protobuf import json_format, message_factory
        factory = message_factory.MessageFactory(pool)
        method = pool.FindServiceByName("gabion.v1." + service).methods_by_name[name]
        request, reply = factory.GetPrototype(method.input_type), factory.GetPrototype(method.output_type)
        call = self.channel.unary_unary(f"/gabion.v1.{service}/{name}", request_serializer=request.SerializeToString,
                                        response_deserializer=reply.FromString)
        return lambda **fields: call(json_format.ParseDict(fields, request()), timeout=harness.TIME_LIMIT_S)

    def test_calls_by_what_reflection_tells(self):
        import grpc
        from google.protobuf import any_pb2, message_factory
        for module in (self.v1, self.v1alpha):
            with self.subTest(module.DESCRIPTOR.package):
                pool = self.pool(module)
                name = "by-" + module.DESCRIPTOR.package.rsplit(".", 1)[1]
                operation = self.method(pool, "ImageService", "CreateImage")(
                    imageId=name, image={"raw": {}, "virtualSizeBytes": str(MiB)})
                self.assertTrue(operation.done)
                image = self.method(pool, "ImageService", "GetImage")(name="images/" + name)
                self.assertEqual(image.virtual_size_bytes, MiB)
                with self.assertRaises(grpc.RpcError) as caught:
                    self.method(pool, "ImageService", "GetImage")(name="images/nobody")
                self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)
                trailer = dict(caught.exception.trailing_metadata())["grpc-status-details-bin"]
                factory = message_factory.MessageFactory(pool)
                status = factory.GetPrototype(pool.FindMessageTypeByName("google.rpc.Status")).FromString(trailer)
                reasons = []
                for detail in status.details:
                    packed = any_pb2.Any.FromString(detail.SerializeToString())
                    kind = factory.GetPrototype(pool.FindMessageTypeByName(packed.type_url.rsplit("/", 1)[1]))
                    reasons.append(getattr(kind.FromString(packed.value), "reason", ""))
                self.assertIn("RESOURCE_NOT_FOUND", reasons)


if __name__ == "__main__":
    harness.main(commands=["protoc"], modules=["grpc", "google.protobuf"])
