// Every reason that the API gives, as a client sees it: once each, over a socket.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <regex>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "google/protobuf/util/json_util.h"
#include "tests/service/api/error_scenes.h"
#include "tests/service/api/wire.h"

namespace gabion::service {
namespace {

using google::longrunning::Operation;

// The text without what differs from run to run.
std::string Masked(const std::string& text) {
  static const std::regex operation("operations/[0-9a-f]{8}-[0-9a-f-]{27}");
  static const std::regex fact("(etag|revision|purge-time)=\\S+");
  return std::regex_replace(std::regex_replace(text, operation, "operations/*"), fact, "$1=*");
}

// An error without its sentence: code, reason and metadata, then the details by type.
std::string Summary(const google::rpc::Status& wire) {
  EXPECT_FALSE(wire.message().empty());
  std::string front = absl::StatusCodeToString(static_cast<absl::StatusCode>(wire.code()));
  std::string text;
  for (const auto& any : wire.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest bad;
    google::rpc::PreconditionFailure precondition;
    google::rpc::QuotaFailure quota;
    google::rpc::ResourceInfo resource;
    google::rpc::RetryInfo retry;
    google::rpc::RequestInfo request;
    if (any.UnpackTo(&info)) {
      EXPECT_EQ(info.domain(), "gabion");
      front += " " + info.reason();
      const std::map<std::string, std::string> sorted(info.metadata().begin(),
                                                      info.metadata().end());
      for (const auto& [key, value] : sorted) front += " " + key + "=" + value;
    } else if (any.UnpackTo(&bad)) {
      for (const auto& field : bad.field_violations()) {
        EXPECT_FALSE(field.description().empty());
        text += " | field " + field.field() + " " + field.reason();
      }
    } else if (any.UnpackTo(&precondition)) {
      for (const auto& violation : precondition.violations()) {
        text += " | precondition " + violation.type() + " " + violation.subject();
      }
    } else if (any.UnpackTo(&quota)) {
      for (const auto& violation : quota.violations()) text += " | quota " + violation.subject();
    } else if (any.UnpackTo(&resource)) {
      text += " | resource " + resource.resource_type() + " " + resource.resource_name();
    } else if (any.UnpackTo(&retry)) {
      text += " | retry";
    } else if (any.UnpackTo(&request)) {
      EXPECT_EQ(request.request_id().size(), 36u);
      text += " | request";
    } else {
      ADD_FAILURE() << any.type_url();
    }
  }
  return Masked(front + text);
}

// The JSON `text` as the serialized request of `method`.
std::string RequestOf(const google::protobuf::MethodDescriptor& method, const std::string& text) {
  const std::unique_ptr<google::protobuf::Message> request(
      google::protobuf::MessageFactory::generated_factory()
          ->GetPrototype(method.input_type())
          ->New());
  const auto parsed = google::protobuf::util::JsonStringToMessage(text, request.get());
  EXPECT_TRUE(parsed.ok()) << parsed.ToString() << " in " << text;
  return request->SerializeAsString();
}

google::rpc::Status Play(const ErrorScene& scene, ErrorStage& stage) {
  scene.prepare(stage);
  std::string name = scene.method;
  name.replace(name.find('/'), 1, ".");
  const auto* method = google::protobuf::DescriptorPool::generated_pool()->FindMethodByName(name);
  if (method == nullptr) {
    ADD_FAILURE() << name;
    return {};
  }
  const std::string request = RequestOf(*method, stage.Fill(scene.request));
  const WireAnswer answer = CallOnWire(stage.channel(), scene.method, request, 1000);
  stage.Settle();
  google::rpc::Status error;
  if (!scene.in_operation) {
    EXPECT_TRUE(error.ParseFromString(answer.status.error_details()));
    EXPECT_EQ(error.code(), answer.status.error_code());
    return error;
  }
  EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
  Operation operation;
  if (answer.messages.size() == 1) operation.ParseFromString(answer.messages[0]);
  return operation.error();
}

TEST(ErrorGoldensTest, EveryReasonAsAClientSeesIt) {
  ErrorStage stage;
  std::set<std::string> seen;
  for (const ErrorScene& scene : ErrorScenes()) {
    const google::rpc::Status error = Play(scene, stage);
    EXPECT_EQ(Summary(error), scene.summary) << error.message();
    EXPECT_EQ(InfoOf(FromRpcStatus(error)).reason(), scene.reason.name);
    EXPECT_TRUE(seen.insert(std::string(scene.reason.name)).second) << scene.reason.name;
  }
  const std::set<std::string> kept_for_later = {
      "PERMISSION_DENIED"  // whoever reaches the daemon may do everything
  };
  for (const ErrorReason& reason : AllReasons()) {
    const std::string name(reason.name);
    EXPECT_NE(seen.contains(name), kept_for_later.contains(name)) << name;
  }
}

}  // namespace
}  // namespace gabion::service
