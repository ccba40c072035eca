// What must hold for every message, field and method of the API, checked over the linked
// descriptors.
#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "gabion/store/v1/records.pb.h"
#include "gabion/v1/common.pb.h"
#include "gabion/v1/options.pb.h"
#include "gabion/v1/watch.pb.h"
#include "google/api/field_behavior.pb.h"
#include "google/api/resource.pb.h"
#include "google/longrunning/operations.pb.h"

namespace gabion::service {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::DescriptorPool;
using google::protobuf::FieldDescriptor;
using google::protobuf::FileDescriptor;

std::vector<const FileDescriptor*> GabionFiles() {
  std::vector<const FileDescriptor*> files;
  for (const char* path :
       {"gabion/v1/pool.proto", "gabion/v1/image.proto", "gabion/v1/image_resource.proto",
        "gabion/v1/export.proto", "gabion/v1/filter.proto", "gabion/v1/filter_copy_spec.proto",
        "gabion/v1/filter_spec.proto", "gabion/v1/filter_stack.proto", "gabion/v1/inspect.proto",
        "gabion/v1/server.proto", "gabion/v1/block_sizes.proto", "gabion/v1/common.proto",
        "gabion/v1/job.proto", "gabion/v1/watch.proto", "gabion/store/v1/records.proto"}) {
    files.push_back(DescriptorPool::generated_pool()->FindFileByName(path));
    EXPECT_NE(files.back(), nullptr) << path;
  }
  return files;
}

bool IsResource(const Descriptor& message) {
  return message.options().HasExtension(google::api::resource);
}

void Visit(const Descriptor& message, const std::function<void(const FieldDescriptor&)>& visit) {
  for (int i = 0; i < message.field_count(); ++i) visit(*message.field(i));
  for (int i = 0; i < message.nested_type_count(); ++i) Visit(*message.nested_type(i), visit);
}

void ForEachField(const std::function<void(const FieldDescriptor&)>& visit) {
  for (const FileDescriptor* file : GabionFiles()) {
    for (int i = 0; i < file->message_type_count(); ++i) Visit(*file->message_type(i), visit);
  }
}

bool HasBehavior(const FieldDescriptor& field, google::api::FieldBehavior wanted) {
  const auto& options = field.options();
  for (int i = 0; i < options.ExtensionSize(google::api::field_behavior); ++i) {
    if (options.GetExtension(google::api::field_behavior, i) == wanted) return true;
  }
  return false;
}

TEST(DescriptorsTest, EverythingThatClientsDecodeByReflectionIsLinked) {
  // Linking the reflection library beside our own copies must not abort at start either.
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  const DescriptorPool* pool = DescriptorPool::generated_pool();
  for (const char* symbol : {"google.rpc.Status",
                             "google.rpc.ErrorInfo",
                             "google.rpc.BadRequest",
                             "google.rpc.PreconditionFailure",
                             "google.rpc.ResourceInfo",
                             "google.rpc.QuotaFailure",
                             "google.rpc.RetryInfo",
                             "google.rpc.RequestInfo",
                             "google.longrunning.Operation",
                             "google.protobuf.Empty",
                             "grpc.health.v1.Health",
                             "grpc.reflection.v1.ServerReflection",
                             "grpc.reflection.v1alpha.ServerReflection",
                             "gabion.v1.PoolService",
                             "gabion.v1.ImageService",
                             "gabion.v1.ExportService",
                             "gabion.v1.FilterService",
                             "gabion.v1.InspectService",
                             "gabion.v1.ServerService",
                             "gabion.v1.JobService",
                             "gabion.v1.WatchService",
                             "gabion.v1.JobMetadata",
                             "gabion.v1.Condition",
                             "google.longrunning.Operations",
                             "google.longrunning.operation_info"}) {
    EXPECT_NE(pool->FindFileContainingSymbol(symbol), nullptr) << symbol;
  }
}

TEST(DescriptorsTest, NoFieldIsAPath) {
  ForEachField([](const FieldDescriptor& field) {
    EXPECT_EQ(field.name().find("path"), std::string::npos) << field.full_name();
  });
}

TEST(DescriptorsTest, ReferencesNameResourceTypesThatExist) {
  // Operations are Google's message, and so declared beside it.
  const auto& operations = google::longrunning::Operation::descriptor()->file()->options();
  std::vector<std::string> types = {
      operations.GetExtension(google::api::resource_definition, 0).type()};
  for (const FileDescriptor* file : GabionFiles()) {
    for (int i = 0; i < file->message_type_count(); ++i) {
      const Descriptor& message = *file->message_type(i);
      if (!IsResource(message)) continue;
      types.push_back(message.options().GetExtension(google::api::resource).type());
    }
  }
  const auto known = [&](const std::string& type) {
    return std::find(types.begin(), types.end(), type) != types.end();
  };
  ForEachField([&](const FieldDescriptor& field) {
    if (!field.options().HasExtension(google::api::resource_reference)) return;
    const auto& reference = field.options().GetExtension(google::api::resource_reference);
    if (!reference.child_type().empty()) {
      EXPECT_TRUE(known(reference.child_type())) << field.full_name();
    } else if (reference.type() == "*") {
      const auto& rules = field.options().GetExtension(v1::rules);
      EXPECT_GT(rules.reference_types_size(), 0) << field.full_name();
      for (const auto& type : rules.reference_types()) {
        EXPECT_TRUE(known(type)) << field.full_name();
      }
    } else {
      EXPECT_TRUE(known(reference.type())) << field.full_name();
    }
  });
}

TEST(DescriptorsTest, SiblingsNamedByRulesExist) {
  ForEachField([](const FieldDescriptor& field) {
    const auto& rules = field.options().GetExtension(v1::rules);
    for (const std::string& sibling : {rules.not_below_field(), rules.multiple_of_field()}) {
      if (sibling.empty()) continue;
      const FieldDescriptor* other = field.containing_type()->FindFieldByName(sibling);
      ASSERT_NE(other, nullptr) << field.full_name();
      EXPECT_EQ(other->cpp_type(), field.cpp_type()) << field.full_name();
    }
  });
}

TEST(DescriptorsTest, NamesOfResourcesAreIdentifiersAndServerSetFieldsAreOutputOnly) {
  for (const FileDescriptor* file : GabionFiles()) {
    for (int i = 0; i < file->message_type_count(); ++i) {
      const Descriptor* message = file->message_type(i);
      if (!IsResource(*message)) continue;
      const FieldDescriptor* name = message->FindFieldByName("name");
      ASSERT_NE(name, nullptr) << message->full_name();
      EXPECT_EQ(name->number(), 1);
      EXPECT_TRUE(HasBehavior(*name, google::api::IDENTIFIER)) << name->full_name();
      for (const char* output :
           {"uid", "generation", "observed_generation", "reconciling", "create_time", "update_time",
            "delete_time", "purge_time", "state", "state_error", "operation", "dependents"}) {
        const FieldDescriptor* field = message->FindFieldByName(output);
        if (field == nullptr) continue;
        EXPECT_TRUE(HasBehavior(*field, google::api::OUTPUT_ONLY)) << field->full_name();
      }
    }
  }
}

TEST(DescriptorsTest, ConditionsAreListsThatOnlyTheServerWrites) {
  int seen = 0;
  ForEachField([&](const FieldDescriptor& field) {
    if (field.message_type() != v1::Condition::descriptor()) return;
    ++seen;
    EXPECT_EQ(field.name(), "conditions") << field.full_name();
    EXPECT_TRUE(field.is_repeated()) << field.full_name();
    EXPECT_TRUE(HasBehavior(field, google::api::OUTPUT_ONLY)) << field.full_name();
  });
  EXPECT_EQ(seen, 2);
}

TEST(DescriptorsTest, AWatchCanTellEveryResource) {
  std::vector<const Descriptor*> told;
  const auto* resource = v1::WatchResponse::descriptor()->FindOneofByName("resource");
  ASSERT_NE(resource, nullptr);
  for (int i = 0; i < resource->field_count(); ++i) {
    told.push_back(resource->field(i)->message_type());
  }
  std::vector<const Descriptor*> resources = {google::longrunning::Operation::descriptor()};
  for (const FileDescriptor* file : GabionFiles()) {
    for (int i = 0; i < file->message_type_count(); ++i) {
      if (IsResource(*file->message_type(i))) resources.push_back(file->message_type(i));
    }
  }
  EXPECT_THAT(told, testing::UnorderedElementsAreArray(resources));
}

TEST(DescriptorsTest, WhatTheDaemonKeepsForItselfIsInNoRequestAndNoAnswer) {
  const FileDescriptor* records = store::v1::Job::descriptor()->file();
  EXPECT_EQ(records->service_count(), 0);
  for (const FileDescriptor* file : GabionFiles()) {
    if (file == records) continue;
    for (int i = 0; i < file->dependency_count(); ++i) {
      EXPECT_NE(file->dependency(i), records) << file->name();
    }
  }
}

TEST(DescriptorsTest, EveryStoredJobSaysWhatItDoes) {
  const Descriptor* job = store::v1::Job::descriptor();
  const auto* work = job->FindOneofByName("work");
  ASSERT_NE(work, nullptr);
  for (int i = 0; i < work->field_count(); ++i) {
    EXPECT_EQ(work->field(i)->message_type()->file(), job->file()) << work->field(i)->full_name();
  }
  // A row is bound to the request that it answers, so that it ends with it.
  for (const Descriptor* row : {job, store::v1::Intent::descriptor()}) {
    const FieldDescriptor* request = row->FindFieldByName("request");
    ASSERT_NE(request, nullptr) << row->full_name();
    EXPECT_EQ(request->number(), 1) << row->full_name();
  }
}

TEST(DescriptorsTest, PageSizesRefuseNegativeValuesByTheirOwnReason) {
  int seen = 0;
  ForEachField([&](const FieldDescriptor& field) {
    if (field.name() != "page_size") return;
    ++seen;
    const auto& rules = field.options().GetExtension(v1::rules);
    EXPECT_TRUE(rules.has_min()) << field.full_name();
    EXPECT_EQ(rules.min(), 0) << field.full_name();
    EXPECT_EQ(rules.reason(), "PAGE_SIZE_NEGATIVE") << field.full_name();
  });
  EXPECT_EQ(seen, 5);
}

}  // namespace
}  // namespace gabion::service
