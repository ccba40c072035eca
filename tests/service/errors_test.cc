#include "service/errors.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include <regex>
#include <set>
#include <string>
#include <vector>

#include "engine/base/reason.h"
#include "engine/base/text.h"

namespace gabion::service {
namespace {

using google::rpc::BadRequest;
using google::rpc::ErrorInfo;
using testing::HasSubstr;

// The detail of one type; fails the test if there is not exactly one.
template <typename Detail>
Detail DetailOf(const google::rpc::Status& status) {
  Detail detail;
  int count = 0;
  for (const auto& any : status.details()) count += any.UnpackTo(&detail) ? 1 : 0;
  EXPECT_EQ(count, 1) << detail.GetDescriptor()->full_name() << " in " << status.DebugString();
  return detail;
}

google::rpc::Status RpcStatusOf(const grpc::Status& status) {
  google::rpc::Status wire;
  EXPECT_TRUE(wire.ParseFromString(status.error_details()));
  EXPECT_EQ(wire.code(), static_cast<int>(status.error_code()));
  EXPECT_EQ(wire.message(), status.error_message());
  return wire;
}

TEST(ReasonsTest, NamesKeepTheRulesOfErrorInfoAndAreUnique) {
  const std::regex shape("[A-Z][A-Z0-9_]+[A-Z0-9]");
  std::set<std::string> seen;
  for (const ErrorReason& reason : AllReasons()) {
    const std::string name(reason.name);
    EXPECT_TRUE(std::regex_match(name, shape)) << name;
    EXPECT_LE(name.size(), 63u) << name;
    EXPECT_TRUE(seen.insert(name).second) << name;
    EXPECT_EQ(FindReason(name)->code, reason.code);
  }
  EXPECT_GE(seen.size(), 40u);
  EXPECT_EQ(FindReason("NO_SUCH_REASON"), nullptr);
}

TEST(ErrorTest, CarriesReasonDomainAndDetailsSortedByType) {
  const absl::Status status = Error(reason::kImageInUse, "images/a is served.")
                                  .Metadata("image", "images/a")
                                  .Precondition("images/a", "Delete exports/e first.");
  std::string json;
  ASSERT_TRUE(google::protobuf::util::MessageToJsonString(ToRpcStatus(status), &json).ok());
  EXPECT_EQ(json, R"({"code":9,"message":"images/a is served.","details":[)"
                  R"({"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"IMAGE_IN_USE",)"
                  R"("domain":"gabion","metadata":{"image":"images/a"}},)"
                  R"({"@type":"type.googleapis.com/google.rpc.PreconditionFailure","violations":[)"
                  R"({"type":"IMAGE_IN_USE","subject":"images/a",)"
                  R"("description":"Delete exports/e first."}]}]})");
}

TEST(ErrorTest, FirstFieldIsAlsoMetadata) {
  const absl::Status status = Error(reason::kShrinkNotAllowed, "smaller")
                                  .Field("image.virtual_size_bytes", "must not shrink")
                                  .Field("image.pool", "cannot change", "FIELD_IMMUTABLE");
  const google::rpc::Status wire = ToRpcStatus(status);
  EXPECT_EQ(DetailOf<ErrorInfo>(wire).metadata().at("field"), "image.virtual_size_bytes");
  const auto bad = DetailOf<BadRequest>(wire);
  ASSERT_EQ(bad.field_violations_size(), 2);
  EXPECT_EQ(bad.field_violations(0).reason(), "SHRINK_NOT_ALLOWED");
  EXPECT_EQ(bad.field_violations(1).reason(), "FIELD_IMMUTABLE");
}

TEST(ErrorTest, AbortedAndUnavailableSayWhenToTryAgain) {
  const auto draining = DetailOf<google::rpc::RetryInfo>(ToRpcStatus(Draining()));
  EXPECT_EQ(draining.retry_delay().seconds(), 1);
  const absl::Status soon = Error(reason::kConcurrentUpdate, "changed meanwhile")
                                .RetryAfter(std::chrono::milliseconds(1500));
  const auto retry = DetailOf<google::rpc::RetryInfo>(ToRpcStatus(soon));
  EXPECT_EQ(retry.retry_delay().seconds(), 1);
  EXPECT_EQ(retry.retry_delay().nanos(), 500000000);
}

TEST(ErrorTest, TimeDoesNotHelpAgainstAnEtag) {
  const auto wire = ToRpcStatus(Error(reason::kEtagMismatch, "It has changed."));
  ASSERT_EQ(wire.details_size(), 1);
  EXPECT_TRUE(wire.details(0).Is<ErrorInfo>());
}

TEST(ErrorTest, NotFoundNamesTheResourceAndTheFieldThatNamedIt) {
  const google::rpc::Status wire =
      ToRpcStatus(NotFound("gabion/Image", "images/a", "export.source"));
  EXPECT_EQ(wire.code(), static_cast<int>(absl::StatusCode::kNotFound));
  EXPECT_EQ(DetailOf<ErrorInfo>(wire).reason(), "RESOURCE_NOT_FOUND");
  EXPECT_EQ(DetailOf<ErrorInfo>(wire).metadata().at("field"), "export.source");
  EXPECT_EQ(DetailOf<google::rpc::ResourceInfo>(wire).resource_name(), "images/a");
}

TEST(ToRpcStatusTest, EveryCodeWithoutDetailsGetsErrorInfoOfItsOwn) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "from below");
    const google::rpc::Status wire = ToRpcStatus(status);
    EXPECT_FALSE(DetailOf<ErrorInfo>(wire).reason().empty()) << code;
    EXPECT_EQ(DetailOf<ErrorInfo>(wire).domain(), "gabion") << code;
  }
}

TEST(ToRpcStatusTest, ReasonsOfTheEngineBecomeErrorInfo) {
  const absl::Status status = WithReason(absl::FailedPreconditionError("held by qemu"),
                                         {"IMAGE_LOCKED", {{"image", "images/a"}}});
  const google::rpc::Status wire = ToRpcStatus(status);
  EXPECT_EQ(wire.details_size(), 2);  // nothing else goes out
  EXPECT_EQ(DetailOf<ErrorInfo>(wire).reason(), "IMAGE_LOCKED");
  EXPECT_EQ(DetailOf<ErrorInfo>(wire).metadata().at("image"), "images/a");
  const auto failure = DetailOf<google::rpc::PreconditionFailure>(wire);
  EXPECT_EQ(failure.violations(0).subject(), "images/a");
  EXPECT_EQ(failure.violations(0).type(), "IMAGE_LOCKED");
}

TEST(ToRpcStatusTest, EveryCodeHasTheDetailThatBelongsToIt) {
  const absl::Status field = WithReason(absl::InvalidArgumentError("too small"),
                                        {"SHRINK_NOT_ALLOWED", {{"field", "image.size"}}});
  EXPECT_EQ(DetailOf<BadRequest>(ToRpcStatus(field)).field_violations(0).field(), "image.size");
  const absl::Status gone = WithReason(absl::NotFoundError("no file"),
                                       {"RESOURCE_NOT_FOUND", {{"resource", "images/a"}}});
  EXPECT_EQ(DetailOf<google::rpc::ResourceInfo>(ToRpcStatus(gone)).resource_type(), "gabion/Image");
  const google::rpc::Status full = ToRpcStatus(absl::ResourceExhaustedError("no space"));
  EXPECT_EQ(DetailOf<google::rpc::QuotaFailure>(full).violations(0).description(), "no space");
}

TEST(ToRpcStatusTest, DefectsKeepTheirSecretsAndGiveARequestId) {
  for (const auto code : {absl::StatusCode::kInternal, absl::StatusCode::kUnknown}) {
    const absl::Status status(code, "/secret/path: errno 5");
    const google::rpc::Status wire = ToRpcStatus(status, "r-17");
    EXPECT_EQ(wire.code(), static_cast<int>(absl::StatusCode::kInternal));
    EXPECT_EQ(wire.DebugString().find("secret"), std::string::npos);
    EXPECT_THAT(wire.message(), HasSubstr("r-17"));
    EXPECT_EQ(DetailOf<google::rpc::RequestInfo>(wire).request_id(), "r-17");
  }
}

TEST(ToRpcStatusTest, OkStaysOk) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_TRUE(FromGrpcStatus(grpc::Status::OK).ok());
}

// What a peer with the default limit of 8 KiB of metadata has to take: details in base64, and the
// message percent-encoded.
size_t WorstTrailerBytes(const grpc::Status& status) {
  return (status.error_details().size() + 2) / 3 * 4 + 3 * status.error_message().size();
}

TEST(ToRpcStatusTest, HugeErrorsFitIntoATrailerAndSayWhatIsLeftOut) {
  Error error(reason::kFieldInvalid, std::string(5000, 'm'));
  for (int i = 0; i < 1000; ++i) {
    error.Field("labels[\"k" + std::to_string(i) + "\"]", std::string(400, 'd'));
  }
  const grpc::Status status = ToGrpcStatus(error);
  EXPECT_LT(WorstTrailerBytes(status), 8192u);
  const auto bad = DetailOf<BadRequest>(RpcStatusOf(status));
  ASSERT_GT(bad.field_violations_size(), 2);
  const int kept = bad.field_violations_size() - 1;
  EXPECT_EQ(bad.field_violations(kept).description(),
            std::to_string(1000 - kept) + " more left out");
  EXPECT_EQ(bad.field_violations(0).field(), "labels[\"k0\"]");
}

TEST(ToRpcStatusTest, ListsInMetadataCountWhatIsLeftOut) {
  std::vector<std::string> exports;
  for (int i = 0; i < 500; ++i) exports.push_back("exports/e" + std::to_string(i));
  const google::rpc::Status wire =
      ToRpcStatus(Error(reason::kImageInUse, "in use").MetadataList("exports", exports));
  const auto info = DetailOf<ErrorInfo>(wire);
  const std::string told = info.metadata().at("exports");
  const auto count = std::count(told.begin(), told.end(), ',') + 1;
  EXPECT_EQ(info.metadata().at("exports-omitted"), std::to_string(500 - count));
}

TEST(ToRpcStatusTest, ManyLongFactsStillFit) {
  Error error(reason::kImageInUse, "x");
  for (int i = 0; i < 40; ++i) error.Metadata("key" + std::to_string(i), std::string(900, 'v'));
  const grpc::Status status = ToGrpcStatus(error.Precondition("images/a", "y"));
  EXPECT_LT(WorstTrailerBytes(status), 8192u);
  EXPECT_EQ(DetailOf<ErrorInfo>(RpcStatusOf(status)).reason(), "IMAGE_IN_USE");
}

TEST(ToRpcStatusTest, BytesThatAreNoUtf8DoNotBreakTheMessage) {
  const absl::Status status = Error(reason::kFieldInvalid, "bad \xFF name")
                                  .Field("image.source\xFE", "\xC3")
                                  .Metadata("value", "\xFF");
  const google::rpc::Status wire = RpcStatusOf(ToGrpcStatus(status));
  EXPECT_EQ(wire.message(), "bad ? name");
  EXPECT_EQ(DetailOf<ErrorInfo>(wire).metadata().at("value"), "?");
}

TEST(FromGrpcStatusTest, ComesBackAsItWent) {
  const absl::Status sent = AlreadyExists(reason::kResourceExists, "gabion/Image", "images/a");
  const absl::Status received = FromGrpcStatus(ToGrpcStatus(sent));
  EXPECT_EQ(received, sent);
  EXPECT_EQ(InfoOf(received).reason(), "RESOURCE_EXISTS");
}

TEST(FromGrpcStatusTest, DetailsThatAreNoStatusAreDropped) {
  const grpc::Status status(grpc::StatusCode::NOT_FOUND, "gone", "\xFF\xFF\xFF");
  const absl::Status received = FromGrpcStatus(status);
  EXPECT_EQ(received.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(AsStd(received.message()), "gone");
}

}  // namespace
}  // namespace gabion::service
