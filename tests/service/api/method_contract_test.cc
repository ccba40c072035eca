// What the messages of every method must have, by its kind: walks the methods of the running
// server, so that one that is added is held to it.
#include <gtest/gtest.h>

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "gabion/v1/filter.pb.h"
#include "gabion/v1/options.pb.h"
#include "google/api/resource.pb.h"
#include "google/longrunning/operations.pb.h"
#include "google/protobuf/field_mask.pb.h"
#include "grpc/reflection/v1/reflection.grpc.pb.h"
#include "service/field_rules.h"
#include "service/message_rules.h"
#include "tests/service/api/contract_fixture.h"

namespace gabion::service {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::DescriptorPool;
using google::protobuf::FieldDescriptor;
using google::protobuf::MethodDescriptor;
using google::protobuf::ServiceDescriptor;
using grpc::reflection::v1::ServerReflection;

class MethodContractTest : public ServerFixture {
 protected:
  // Of every service that the server says it has, but for those of gRPC itself.
  std::vector<const MethodDescriptor*> Methods() {
    grpc::ClientContext context;
    const auto stream = ServerReflection::NewStub(channel_)->ServerReflectionInfo(&context);
    grpc::reflection::v1::ServerReflectionRequest request;
    request.set_list_services("");
    grpc::reflection::v1::ServerReflectionResponse response;
    EXPECT_TRUE(stream->Write(request) && stream->Read(&response));
    stream->WritesDone();
    EXPECT_TRUE(stream->Finish().ok());
    std::vector<const MethodDescriptor*> methods;
    for (const auto& service : response.list_services_response().service()) {
      if (service.name().starts_with("grpc.")) continue;
      const ServiceDescriptor* found =
          DescriptorPool::generated_pool()->FindServiceByName(service.name());
      EXPECT_NE(found, nullptr) << service.name();
      for (int i = 0; found != nullptr && i < found->method_count(); ++i) {
        methods.push_back(found->method(i));
      }
    }
    EXPECT_GE(methods.size(), 31u);
    return methods;
  }

  // Of the methods of one of these kinds that have our messages.
  void ForEach(const std::set<MethodKind>& kinds,
               const std::function<void(const MethodDescriptor&)>& check) {
    int seen = 0;
    for (const MethodDescriptor* method : Methods()) {
      if (!HasOurMessages(*method) || !kinds.contains(KindOf(*method))) continue;
      SCOPED_TRACE(method->full_name());
      check(*method);
      ++seen;
    }
    EXPECT_GT(seen, 0);
  }

  static const FieldDescriptor* Expect(const Descriptor& message, const std::string& name,
                                       FieldDescriptor::CppType type) {
    const FieldDescriptor* field = message.FindFieldByName(name);
    EXPECT_NE(field, nullptr) << message.full_name() << " lacks " << name;
    if (field == nullptr) return nullptr;
    EXPECT_EQ(field->cpp_type(), type) << field->full_name();
    EXPECT_FALSE(field->is_repeated() && !field->is_map()) << field->full_name();
    return field;
  }
  static void ExpectMask(const Descriptor& message, const std::string& name) {
    const FieldDescriptor* field = Expect(message, name, FieldDescriptor::CPPTYPE_MESSAGE);
    if (field == nullptr) return;
    EXPECT_EQ(field->message_type(), google::protobuf::FieldMask::descriptor());
  }
  static void ExpectRequired(const FieldDescriptor* field) {
    if (field == nullptr) return;
    EXPECT_TRUE(HasBehavior(*field, google::api::REQUIRED)) << field->full_name();
  }
  static v1::Rules::Format FormatOf(const FieldDescriptor* field) {
    return field == nullptr ? v1::Rules::FORMAT_UNSPECIFIED
                            : field->options().GetExtension(v1::rules).format();
  }
  // A message type that operation_info names, relative to the method's package.
  static const Descriptor* Named(const MethodDescriptor& method, const std::string& type) {
    const DescriptorPool* pool = DescriptorPool::generated_pool();
    const Descriptor* found = pool->FindMessageTypeByName(type);
    return found != nullptr ? found
                            : pool->FindMessageTypeByName(method.file()->package() + "." + type);
  }
  static bool IsResource(const Descriptor* message) {
    return message != nullptr && message->options().HasExtension(google::api::resource);
  }
  static bool AnswersOperation(const MethodDescriptor& method) {
    return method.output_type() == google::longrunning::Operation::descriptor();
  }
};

constexpr auto kText = FieldDescriptor::CPPTYPE_STRING;
constexpr auto kFlag = FieldDescriptor::CPPTYPE_BOOL;

TEST_F(MethodContractTest, EveryMethodHasAnEntryInTheTableThatTestsCallsAndNoEntryIsLeftOver) {
  std::set<std::string> served;
  for (const MethodDescriptor* method : Methods()) served.insert(method->full_name());
  std::set<std::string> in_table;
  for (const MethodCase& one : MethodCases()) in_table.insert(one.method);
  EXPECT_EQ(served, in_table);
}

TEST_F(MethodContractTest, WhatChangesSomethingIsKnownToTheServerAsThat) {
  for (const MethodDescriptor* method : Methods()) {
    EXPECT_EQ(DescribeMethod(*method).changes, Changes(KindOf(*method))) << method->full_name();
  }
}

TEST_F(MethodContractTest, MutatorsHaveARequestIdAndADryRun) {
  using enum MethodKind;
  ForEach({kCreate, kUpdate, kDelete, kUndelete, kMutator}, [](const MethodDescriptor& method) {
    const Descriptor& request = *method.input_type();
    EXPECT_EQ(FormatOf(Expect(request, "request_id", kText)), v1::Rules::FORMAT_REQUEST_ID);
    Expect(request, "validate_only", kFlag);
  });
}

TEST_F(MethodContractTest, CreateTakesAnIdAndTheResource) {
  ForEach({MethodKind::kCreate}, [](const MethodDescriptor& method) {
    const Descriptor& request = *method.input_type();
    const FieldDescriptor* resource = ResourceField(request);
    ASSERT_NE(resource, nullptr);
    ExpectRequired(resource);
    EXPECT_EQ(method.name(), "Create" + resource->message_type()->name());
    const auto& type = resource->message_type()->options().GetExtension(google::api::resource);
    EXPECT_EQ(resource->name(), type.singular());
    const FieldDescriptor* id = Expect(request, type.singular() + "_id", kText);
    ExpectRequired(id);
    EXPECT_EQ(FormatOf(id), v1::Rules::FORMAT_RESOURCE_ID);
    EXPECT_TRUE(AnswersOperation(method) || method.output_type() == resource->message_type());
  });
}

TEST_F(MethodContractTest, GetTakesANameAndAReadMaskAndAnswersTheResource) {
  ForEach({MethodKind::kGet}, [](const MethodDescriptor& method) {
    ExpectRequired(Expect(*method.input_type(), "name", kText));
    ExpectMask(*method.input_type(), "read_mask");
    EXPECT_TRUE(IsResource(method.output_type()));
  });
}

TEST_F(MethodContractTest, ListHasPagesFilterOrderReadMaskAndRevision) {
  ForEach({MethodKind::kList}, [](const MethodDescriptor& method) {
    const Descriptor& request = *method.input_type();
    Expect(request, "page_size", FieldDescriptor::CPPTYPE_INT32);
    for (const char* text : {"page_token", "filter", "order_by"}) Expect(request, text, kText);
    ExpectMask(request, "read_mask");
    const Descriptor& response = *method.output_type();
    Expect(response, "next_page_token", kText);
    Expect(response, "revision", FieldDescriptor::CPPTYPE_UINT64);
    const FieldDescriptor* resources = ResourcesField(response);
    ASSERT_NE(resources, nullptr);
    EXPECT_EQ(resources->number(), 1);
    EXPECT_TRUE(IsResource(resources->message_type()));
    const auto& type = resources->message_type()->options().GetExtension(google::api::resource);
    EXPECT_EQ(resources->name(), type.plural());
  });
}

TEST_F(MethodContractTest, UpdateTakesTheResourceWithItsEtagAndAMask) {
  ForEach({MethodKind::kUpdate}, [](const MethodDescriptor& method) {
    ExpectMask(*method.input_type(), "update_mask");
    const FieldDescriptor* resource = ResourceField(*method.input_type());
    ASSERT_NE(resource, nullptr);
    ExpectRequired(resource);
    Expect(*resource->message_type(), "etag", kText);
    EXPECT_EQ(method.output_type(), resource->message_type());
  });
}

TEST_F(MethodContractTest, DeleteAndUndeleteTakeNameAndEtag) {
  ForEach({MethodKind::kDelete, MethodKind::kUndelete}, [](const MethodDescriptor& method) {
    ExpectRequired(Expect(*method.input_type(), "name", kText));
    Expect(*method.input_type(), "etag", kText);
  });
  ForEach({MethodKind::kDelete}, [](const MethodDescriptor& method) {
    Expect(*method.input_type(), "allow_missing", kFlag);
  });
}

TEST_F(MethodContractTest, OperationsSayWhatIsInThem) {
  int seen = 0;
  for (const MethodDescriptor* method : Methods()) {
    if (!HasOurMessages(*method) || !AnswersOperation(*method)) continue;
    SCOPED_TRACE(method->full_name());
    ASSERT_TRUE(method->options().HasExtension(google::longrunning::operation_info));
    const auto& info = method->options().GetExtension(google::longrunning::operation_info);
    const Descriptor* response = Named(*method, info.response_type());
    const Descriptor* metadata = Named(*method, info.metadata_type());
    EXPECT_NE(response, nullptr) << info.response_type();
    EXPECT_EQ(metadata, v1::JobMetadata::descriptor()) << info.metadata_type();
    if (KindOf(*method) == MethodKind::kCreate) {
      EXPECT_EQ(response, ResourceField(*method->input_type())->message_type());
    }
    ++seen;
  }
  EXPECT_GT(seen, 0);
}

// In requests, and in what they and answers hold.
TEST_F(MethodContractTest, FieldsThatHoldNamesSayOfWhat) {
  static const std::set<std::string> names = {"name",      "parent", "source", "pool",
                                              "operation", "target", "image",  "dependents"};
  std::set<const Descriptor*> seen;
  const std::function<void(const Descriptor&)> walk = [&](const Descriptor& message) {
    if (!seen.insert(&message).second) return;
    for (int i = 0; i < message.field_count(); ++i) {
      const FieldDescriptor& field = *message.field(i);
      if (IsOurs(field)) walk(*field.message_type());
      const bool own = HasBehavior(field, google::api::IDENTIFIER);
      if (own || field.cpp_type() != kText || !names.contains(field.name())) continue;
      const auto& reference = field.options().GetExtension(google::api::resource_reference);
      const bool says = field.name() == "parent" && reference.type().empty()
                            ? !reference.child_type().empty()
                            : !reference.type().empty();
      EXPECT_TRUE(says) << field.full_name();
    }
  };
  for (const MethodDescriptor* method : Methods()) {
    if (method->full_name() == "google.longrunning.Operations.ListOperations") continue;
    walk(*method->input_type());
    if (HasOurMessages(*method) && !AnswersOperation(*method)) walk(*method->output_type());
  }
  walk(*v1::JobMetadata::descriptor());
}

TEST_F(MethodContractTest, StoredResourcesHaveWhatAllOfThemHave) {
  std::set<const Descriptor*> restorable;
  ForEach({MethodKind::kUndelete}, [&](const MethodDescriptor& method) {
    const auto& info = method.options().GetExtension(google::longrunning::operation_info);
    restorable.insert(Named(method, info.response_type()));
  });
  ForEach({MethodKind::kCreate}, [&](const MethodDescriptor& method) {
    const Descriptor& resource = *ResourceField(*method.input_type())->message_type();
    ASSERT_TRUE(HasBehavior(*resource.FindFieldByName("name"), google::api::IDENTIFIER));
    EXPECT_FALSE(HasBehavior(*Expect(resource, "etag", kText), google::api::OUTPUT_ONLY));
    EXPECT_EQ(FormatOf(resource.FindFieldByName("labels")), v1::Rules::FORMAT_LABELS);
    std::vector<std::string> output = {"uid",         "generation",  "observed_generation",
                                       "reconciling", "create_time", "update_time"};
    // A filter is nothing but what callers say of it: it is in no state.
    if (&resource != v1::Filter::descriptor()) {
      output.insert(output.end(), {"state", "state_error", "conditions"});
    }
    if (restorable.contains(&resource)) {
      output.insert(output.end(), {"delete_time", "purge_time"});
    } else {
      EXPECT_EQ(resource.FindFieldByName("delete_time"), nullptr);
    }
    for (const std::string& name : output) {
      const FieldDescriptor* field = resource.FindFieldByName(name);
      ASSERT_NE(field, nullptr) << resource.full_name() << " lacks " << name;
      EXPECT_TRUE(HasBehavior(*field, google::api::OUTPUT_ONLY)) << field->full_name();
    }
  });
}

}  // namespace
}  // namespace gabion::service
