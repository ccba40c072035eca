// Every method that changes something: etags, dry runs, requests that are sent again, and the end
// of the daemon.
#include <gtest/gtest.h>

#include <string>

#include "google/longrunning/operations.pb.h"
#include "google/protobuf/util/message_differencer.h"
#include "service/message_rules.h"
#include "service/validate.h"
#include "tests/service/api/contract_fixture.h"

namespace gabion::service {
namespace {

using google::longrunning::Operation;
using google::protobuf::util::MessageDifferencer;

constexpr const char* kId = "c6a7b9f0-3b1e-4f6e-9d5a-0a1b2c3d4e5f";

class MethodEffectsTest : public MethodTest {
 protected:
  // Where the etag stands: in the request, or in the resource that an update takes. Null: nowhere.
  Message* WithEtag(Message* request) const {
    if (request->GetDescriptor()->FindFieldByName("etag") != nullptr) return request;
    const FieldDescriptor* resource = ResourceField(*request->GetDescriptor());
    if (kind_ != MethodKind::kUpdate || resource == nullptr) return nullptr;
    return request->GetReflection()->MutableMessage(request, resource);
  }
  // What callers set in the answer, or in the response of the operation that it is.
  static std::string Essence(const Message& answer) {
    if (answer.GetDescriptor() != Operation::descriptor()) {
      const std::unique_ptr<Message> copy(answer.New());
      copy->CopyFrom(answer);
      ClearOutputOnly(copy.get());
      const FieldDescriptor* etag = copy->GetDescriptor()->FindFieldByName("etag");
      if (etag != nullptr) copy->GetReflection()->ClearField(copy.get(), etag);
      return copy->GetDescriptor()->full_name() + " " + copy->ShortDebugString();
    }
    Operation operation;
    operation.CopyFrom(answer);
    const std::string url = operation.response().type_url();
    const auto* type = google::protobuf::DescriptorPool::generated_pool()->FindMessageTypeByName(
        url.substr(url.rfind('/') + 1));
    if (type == nullptr) return "no response";
    const std::unique_ptr<Message> response(
        google::protobuf::MessageFactory::generated_factory()->GetPrototype(type)->New());
    EXPECT_TRUE(response->ParseFromString(operation.response().value()));
    return Essence(*response);
  }
  static std::string NameOf(const Message& operation) {
    return operation.GetReflection()->GetString(operation,
                                                operation.GetDescriptor()->FindFieldByName("name"));
  }
  bool answers_operation() const {
    return method_.descriptor->output_type() == Operation::descriptor();
  }
  // The operation that the answer is, as it is now; other answers as they are.
  Answer Ended(Answer answer) {
    Settle(answer);
    if (!answers_operation() || NameOf(*answer.message).empty()) return answer;
    const auto now = domain_->operations().Get(NameOf(*answer.message));
    EXPECT_TRUE(now.ok()) << now.status();
    if (now.ok()) answer.message->CopyFrom(*now);
    return answer;
  }
};

TEST_P(MethodEffectsTest, AnEtagOfAnotherTimeIsRefusedAndTheRightOneTaken) {
  const auto request = Valid();
  Message* place = WithEtag(request.get());
  if (place == nullptr) GTEST_SKIP() << "it takes no etag";
  SetText(place, "etag", "\"of another time\"");
  const auto before = Everything();
  const absl::Status status = Invoke(method_, *request).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted) << status;
  EXPECT_EQ(ReasonIn(status), "ETAG_MISMATCH");
  EXPECT_EQ(Everything(), before);
  SetText(place, "etag", MetadataIn(status, "etag"));
  const Answer answer = Invoke(method_, *request);
  EXPECT_TRUE(answer.status.ok()) << answer.status;
}

TEST_P(MethodEffectsTest, ADryRunChangesNothingAndAnswersWhatTheCallDoes) {
  if (method_.validate_only == nullptr) GTEST_SKIP() << "it cannot be tried";
  const auto before = Everything();
  const auto request = Valid();
  SetFlag(request.get(), method_.validate_only);
  SetText(request.get(), "request_id", kId);
  const Answer tried = Invoke(method_, *request);
  ASSERT_TRUE(tried.status.ok()) << tried.status;
  EXPECT_EQ(Everything(), before);
  if (answers_operation()) {
    Operation operation;
    operation.CopyFrom(*tried.message);
    EXPECT_EQ(operation.name(), "");
    EXPECT_TRUE(operation.done());
    EXPECT_TRUE(operation.has_response());
  }
  const auto real = Valid();
  SetText(real.get(), "request_id", kId);  // that of a dry run is not used up
  const Answer answer = Ended(Invoke(method_, *real));
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_NE(Everything(), before);
  const bool of_job = method_.descriptor->service()->name() == "JobService";
  if (!of_job) {
    EXPECT_EQ(Essence(*tried.message), Essence(*answer.message));
  }
}

TEST_P(MethodEffectsTest, ADryRunIsRefusedAsTheCallIs) {
  if (method_.validate_only == nullptr) GTEST_SKIP() << "it cannot be tried";
  const auto request = Valid(GetParam().refused);
  const absl::Status refused = Invoke(method_, *request).status;
  ASSERT_FALSE(refused.ok());
  const auto before = Everything();
  SetFlag(request.get(), method_.validate_only);
  const absl::Status tried = Invoke(method_, *request).status;
  EXPECT_EQ(tried.code(), refused.code());
  EXPECT_EQ(tried.message(), refused.message());
  EXPECT_TRUE(MessageDifferencer::Equals(InfoOf(tried), InfoOf(refused))) << tried << refused;
  EXPECT_TRUE(MessageDifferencer::Equals(ViolationsOf(tried), ViolationsOf(refused)));
  EXPECT_EQ(Everything(), before);
}

TEST_P(MethodEffectsTest, ARequestThatIsSentAgainHasOneEffectAndOneAnswer) {
  if (!has_request_id()) GTEST_SKIP() << "it takes no request_id";
  const auto request = Valid();
  SetText(request.get(), "request_id", kId);
  const auto before = Everything();
  const Answer first = Ended(Invoke(method_, *request));
  ASSERT_TRUE(first.status.ok()) << first.status;
  const auto after = Everything();
  EXPECT_NE(after, before);
  const Answer second = Invoke(method_, *request);
  ASSERT_TRUE(second.status.ok()) << second.status;
  Settle(second);
  EXPECT_EQ(Everything(), after);
  EXPECT_EQ(second.message->DebugString(), first.message->DebugString());
}

TEST_P(MethodEffectsTest, ARequestIdIsOfOneRequest) {
  if (!has_request_id()) GTEST_SKIP() << "it takes no request_id";
  const auto request = Valid();
  SetText(request.get(), "request_id", kId);
  ASSERT_TRUE(Ended(Invoke(method_, *request)).status.ok());
  const auto after = Everything();
  const auto other = Valid(GetParam().changed);
  ASSERT_NE(other->DebugString(), Valid()->DebugString());
  SetText(other.get(), "request_id", kId);
  const absl::Status status = Invoke(method_, *other).status;
  EXPECT_TRUE(Violates(status, "request_id", "REQUEST_ID_REUSED")) << status;
  EXPECT_EQ(Everything(), after);
}

TEST_P(MethodEffectsTest, WhatIsMissingCanBeDeletedIfThatIsAllowed) {
  const FieldDescriptor* allow = method_.descriptor->input_type()->FindFieldByName("allow_missing");
  if (kind_ != MethodKind::kDelete || allow == nullptr) GTEST_SKIP() << "it deletes nothing";
  const auto request = Valid();
  ASSERT_TRUE(Ended(Invoke(method_, *request)).status.ok());
  EXPECT_EQ(ReasonIn(Invoke(method_, *request).status), "RESOURCE_NOT_FOUND");
  const auto before = Everything();
  SetFlag(request.get(), allow);
  const Answer answer = Invoke(method_, *request);
  EXPECT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(Everything(), before);
}

TEST_P(MethodEffectsTest, ADaemonThatEndsShowsAndDoesNotChange) {
  server_->Drain();
  const auto before = Everything();
  const absl::Status status = Invoke(method_, *Valid()).status;
  if (changes() || GetParam().waits) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_EQ(ReasonIn(status), "DRAINING");
  } else {
    EXPECT_TRUE(status.ok()) << status;
  }
  EXPECT_EQ(Everything(), before);
}

INSTANTIATE_TEST_SUITE_P(All, MethodEffectsTest, testing::ValuesIn(MethodCases()), CaseName);

}  // namespace
}  // namespace gabion::service
