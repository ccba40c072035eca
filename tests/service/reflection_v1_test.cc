#include "service/reflection_v1.h"

#include <gmock/gmock.h>
#include <google/protobuf/descriptor.pb.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <set>

namespace gabion::service {
namespace {

using google::protobuf::DescriptorPool;
using grpc::reflection::v1::ServerReflection;
using grpc::reflection::v1::ServerReflectionRequest;
using grpc::reflection::v1::ServerReflectionResponse;
using testing::Contains;
using testing::ElementsAre;

ServerReflectionResponse Ask(const ServerReflectionRequest& request) {
  return AnswerReflection(*DescriptorPool::generated_pool(), {"a.A", "b.B"}, request);
}

std::vector<std::string> FilesOf(const ServerReflectionResponse& response) {
  std::vector<std::string> names;
  for (const std::string& bytes : response.file_descriptor_response().file_descriptor_proto()) {
    google::protobuf::FileDescriptorProto file;
    EXPECT_TRUE(file.ParseFromString(bytes));
    names.push_back(file.name());
  }
  return names;
}

TEST(AnswerReflectionTest, ListsTheServicesItWasGiven) {
  ServerReflectionRequest request;
  request.set_host("h");
  request.set_list_services("");
  const auto response = Ask(request);
  EXPECT_EQ(response.valid_host(), "h");
  EXPECT_TRUE(response.original_request().has_list_services());
  ASSERT_EQ(response.list_services_response().service_size(), 2);
  EXPECT_EQ(response.list_services_response().service(1).name(), "b.B");
}

TEST(AnswerReflectionTest, AFileComesWithAllThatItImportsOnce) {
  for (const std::string symbol : {"gabion.v1.ExportService", "gabion.v1.ExportService.GetExport",
                                   "gabion.v1.Export.State", "gabion.v1.Export"}) {
    ServerReflectionRequest request;
    request.set_file_containing_symbol(symbol);
    const auto files = FilesOf(Ask(request));
    ASSERT_FALSE(files.empty()) << symbol;
    EXPECT_EQ(files[0], "gabion/v1/export.proto");
    EXPECT_THAT(files, Contains("google/rpc/status.proto"));
    EXPECT_THAT(files, Contains("google/protobuf/descriptor.proto"));
    EXPECT_EQ(std::set<std::string>(files.begin(), files.end()).size(), files.size());
  }
}

TEST(AnswerReflectionTest, FilesAndExtensionsAreFound) {
  ServerReflectionRequest request;
  request.set_file_by_filename("google/rpc/error_details.proto");
  EXPECT_THAT(FilesOf(Ask(request)), Contains("google/rpc/error_details.proto"));
  request.mutable_file_containing_extension()->set_containing_type("google.protobuf.FieldOptions");
  request.mutable_file_containing_extension()->set_extension_number(50001);
  EXPECT_EQ(FilesOf(Ask(request))[0], "gabion/v1/options.proto");
  request.set_all_extension_numbers_of_type("google.protobuf.FieldOptions");
  const auto numbers = Ask(request).all_extension_numbers_response();
  EXPECT_EQ(numbers.base_type_name(), "google.protobuf.FieldOptions");
  EXPECT_THAT(numbers.extension_number(), Contains(50001));
  EXPECT_THAT(numbers.extension_number(), Contains(1052));
}

TEST(AnswerReflectionTest, WhatIsNotThereIsNotFound) {
  std::vector<ServerReflectionRequest> requests(5);
  requests[0].set_file_by_filename("no/such.proto");
  requests[1].set_file_containing_symbol("no.Such");
  requests[2].mutable_file_containing_extension()->set_containing_type("no.Such");
  requests[3].mutable_file_containing_extension()->set_containing_type("gabion.v1.Export");
  requests[3].mutable_file_containing_extension()->set_extension_number(-1);
  requests[4].set_all_extension_numbers_of_type("no.Such");
  for (const auto& request : requests) {
    EXPECT_EQ(Ask(request).error_response().error_code(), grpc::NOT_FOUND) << request.DebugString();
  }
  EXPECT_EQ(Ask({}).error_response().error_code(), grpc::INVALID_ARGUMENT);
}

TEST(ReflectionV1Test, AServerAnswersManyQuestionsOnOneStreamBesideV1Alpha) {
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  ReflectionV1 service({"gabion.v1.PoolService"});
  grpc::ServerBuilder builder;
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  ASSERT_NE(server, nullptr);
  const auto stub = ServerReflection::NewStub(server->InProcessChannel({}));
  grpc::ClientContext context;
  const auto stream = stub->ServerReflectionInfo(&context);
  ServerReflectionRequest request;
  ServerReflectionResponse response;
  request.set_list_services("");
  ASSERT_TRUE(stream->Write(request));
  ASSERT_TRUE(stream->Read(&response));
  std::vector<std::string> names;
  for (const auto& listed : response.list_services_response().service()) {
    names.push_back(listed.name());
  }
  EXPECT_THAT(names, ElementsAre("gabion.v1.PoolService", "grpc.reflection.v1.ServerReflection"));
  request.set_file_containing_symbol("gabion.v1.PoolService");
  ASSERT_TRUE(stream->Write(request));
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(FilesOf(response)[0], "gabion/v1/pool.proto");
  stream->WritesDone();
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_TRUE(stream->Finish().ok());
  server->Shutdown();
}

}  // namespace
}  // namespace gabion::service
