#include "engine/filters/retry.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "engine/base/check.h"
#include "tests/engine/filters/filter_stand.h"

namespace gabion::filters {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using test::MemoryNode;
using test::NodeCall;

uint64_t Counter(const Filter& filter, const std::string& name) {
  for (const Statistics::Counter& counter : filter.GetStatistics().counters) {
    if (counter.name == name) return counter.value;
  }
  ADD_FAILURE() << "no counter " << name;
  return 0;
}

class RetryTest : public testing::Test {
 protected:
  RetryTest() {
    child_.SetFault([this](NodeCall, ByteRange) {
      if (failures_ == 0) return absl::OkStatus();
      --failures_;
      return error_;
    });
  }

  // The next `failures` calls of the child fail with `error`.
  void Fail(int failures, absl::Status error = absl::UnavailableError("gone")) {
    failures_ = failures;
    error_ = std::move(error);
  }

  test::FilterStand stand_;
  MemoryNode child_{{.size = 4096}};
  int failures_ = 0;
  absl::Status error_;
};

TEST_F(RetryTest, ARequestIsMadeAgainUntilItSucceeds) {
  const auto filter = NewRetry(child_, stand_.environment(), {});
  child_.Fill(Range(0, 4096), std::byte{7});
  Fail(3);
  std::vector<std::byte> bytes(100);
  Task<absl::Status> read = filter->Read(Range(10, 100), bytes);
  stand_.clock.Advance(seconds(60));
  EXPECT_TRUE(read.Take().ok());
  EXPECT_EQ(bytes, test::Filled(100, 7));
  EXPECT_EQ(child_.CountCalls(NodeCall::kRead), 4u);
  EXPECT_EQ(Counter(*filter, "retries"), 3u);
  EXPECT_EQ(Counter(*filter, "recovered"), 1u);
  EXPECT_EQ(Counter(*filter, "given_up"), 0u);
}

TEST_F(RetryTest, TheWaitDoublesUpToTheLongest) {
  const RetryOptions options{
      .max_retries = 5, .initial_backoff = milliseconds(100), .max_backoff = milliseconds(500)};
  const auto filter = NewRetry(child_, stand_.environment(), options);
  Fail(100);
  Task<absl::Status> zero = filter->Zero(Range(0, 1), {});
  std::size_t calls = 1;
  const int waits_ms[] = {100, 200, 400, 500, 500};
  for (const int wait_ms : waits_ms) {
    stand_.clock.Advance(milliseconds(wait_ms) - runtime::Duration(1));
    EXPECT_EQ(child_.calls().size(), calls);
    stand_.clock.Advance(runtime::Duration(1));
    EXPECT_EQ(child_.calls().size(), ++calls);
  }
  ASSERT_TRUE(zero.done());
  EXPECT_EQ(zero.Take(), absl::UnavailableError("gone")) << "the child's error, as it is";
  EXPECT_EQ(Counter(*filter, "retries"), 5u);
  EXPECT_EQ(Counter(*filter, "given_up"), 1u);
}

TEST_F(RetryTest, AThousandRetriesWaitNoLongerThanTheLongest) {
  const RetryOptions options{
      .max_retries = 1000, .initial_backoff = milliseconds(1), .max_backoff = seconds(3600)};
  const auto filter = NewRetry(child_, stand_.environment(), options);
  Fail(100000);
  Task<absl::Status> discard = filter->Discard(Range(0, 1));
  stand_.clock.Advance(seconds(3600) * 1000);
  ASSERT_TRUE(discard.done());
  EXPECT_EQ(child_.calls().size(), 1001u);
}

// Otherwise one request, or several such filters on each other, would keep all others waiting.
TEST_F(RetryTest, WithoutABackoffOthersStillGetTheirTurn) {
  const auto filter = NewRetry(child_, stand_.environment(),
                               {.max_retries = 3, .initial_backoff = {}, .max_backoff = {}});
  Fail(2);
  Task<absl::Status> discard = filter->Discard(Range(0, 1));
  EXPECT_EQ(child_.calls().size(), 1u);
  stand_.clock.Advance(milliseconds(1));
  EXPECT_EQ(child_.calls().size(), 2u);
  stand_.clock.Advance(milliseconds(1));
  ASSERT_TRUE(discard.done());
  EXPECT_EQ(discard.Take(), absl::OkStatus());
}

TEST_F(RetryTest, WhatIsAskedForIsMadeAgain) {
  const auto filter = NewRetry(child_, stand_.environment(), {});
  std::vector<std::byte> bytes(8);
  Fail(1);
  Task<absl::Status> read = filter->Read(Range(0, 8), bytes);
  Fail(1);
  Task<absl::Status> write = filter->Write(Range(0, 8), bytes, {.durable = true});
  Fail(1);
  Task<absl::Status> zero = filter->Zero(Range(0, 8), {.durable = true});
  Fail(1);
  Task<absl::Status> discard = filter->Discard(Range(0, 8));
  Fail(1);
  Task<absl::StatusOr<block::ExtentList>> status = filter->BlockStatus(Range(0, 8), 1);
  EXPECT_FALSE(read.done() || write.done() || zero.done() || discard.done() || status.done());
  stand_.clock.Advance(seconds(1));
  EXPECT_TRUE(read.Take().ok());
  EXPECT_TRUE(write.Take().ok());
  EXPECT_TRUE(zero.Take().ok());
  EXPECT_TRUE(discard.Take().ok());
  EXPECT_EQ(status.Take()->size(), 1u);
  for (const test::CallRecord& record : child_.calls()) {
    const bool can_be = record.call == NodeCall::kWrite || record.call == NodeCall::kZero;
    EXPECT_EQ(record.durable, can_be) << "made again as it was";
  }
  EXPECT_EQ(Counter(*filter, "recovered"), 5u);
}

TEST_F(RetryTest, AFailedFlushOrHintIsNotMadeAgain) {
  const auto filter = NewRetry(child_, stand_.environment(), {});
  Fail(1);
  Task<absl::Status> hint = filter->Cache(Range(0, 8));
  ASSERT_TRUE(hint.done());
  EXPECT_EQ(hint.Take().code(), absl::StatusCode::kUnavailable);
  Fail(1);
  Task<absl::Status> flush = filter->Flush();
  ASSERT_TRUE(flush.done());
  EXPECT_EQ(flush.Take().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(child_.CountCalls(NodeCall::kFlush), 1u);
  EXPECT_EQ(stand_.clock.pending(), 0u);
}

TEST_F(RetryTest, WhatWouldFailAgainFailsAtOnce) {
  const absl::StatusCode codes[] = {
      absl::StatusCode::kInvalidArgument,    absl::StatusCode::kOutOfRange,
      absl::StatusCode::kPermissionDenied,   absl::StatusCode::kUnimplemented,
      absl::StatusCode::kFailedPrecondition, absl::StatusCode::kDataLoss,
      absl::StatusCode::kResourceExhausted};
  for (const absl::StatusCode code : codes) {
    const auto filter = NewRetry(child_, stand_.environment(), {});
    Fail(1, absl::Status(code, "no"));
    Task<absl::Status> discard = filter->Discard(Range(0, 1));
    ASSERT_TRUE(discard.done()) << absl::StatusCodeToString(code);
    EXPECT_EQ(discard.Take().code(), code);
    EXPECT_EQ(Counter(*filter, "given_up"), 0u);
  }
}

TEST_F(RetryTest, WhatMayPassIsMadeAgain) {
  const absl::StatusCode codes[] = {
      absl::StatusCode::kInternal,        absl::StatusCode::kUnavailable,
      absl::StatusCode::kAborted,         absl::StatusCode::kUnknown,
      absl::StatusCode::kNotFound,        absl::StatusCode::kCancelled,
      absl::StatusCode::kDeadlineExceeded};
  for (const absl::StatusCode code : codes) {
    const auto filter = NewRetry(child_, stand_.environment(), {});
    Fail(1, absl::Status(code, "later"));
    Task<absl::Status> discard = filter->Discard(Range(0, 1));
    stand_.clock.Advance(seconds(1));
    ASSERT_TRUE(discard.done());
    EXPECT_TRUE(discard.Take().ok()) << absl::StatusCodeToString(code);
  }
}

TEST_F(RetryTest, NoSpaceIsWaitedForIfAskedTo) {
  const auto filter = NewRetry(child_, stand_.environment(), {.retry_no_space = true});
  Fail(1, absl::ResourceExhaustedError("full"));
  Task<absl::Status> discard = filter->Discard(Range(0, 1));
  stand_.clock.Advance(seconds(1));
  ASSERT_TRUE(discard.done());
  EXPECT_TRUE(discard.Take().ok());
}

TEST_F(RetryTest, AFailureOfAnotherKindEndsTheRetries) {
  const auto filter = NewRetry(child_, stand_.environment(), {});
  Fail(2);
  Task<absl::Status> discard = filter->Discard(Range(0, 1));
  Fail(1, absl::DataLossError("bad"));
  stand_.clock.Advance(milliseconds(100));
  ASSERT_TRUE(discard.done());
  EXPECT_EQ(discard.Take().code(), absl::StatusCode::kDataLoss);
}

TEST_F(RetryTest, FewerRetriesLeftFailWhatWaitsAtOnce) {
  const auto filter = NewRetry(child_, stand_.environment(), {});
  Fail(100);
  Task<absl::Status> discard = filter->Discard(Range(0, 1));
  stand_.clock.Advance(milliseconds(100));
  EXPECT_FALSE(discard.done());
  filter->Configure({.max_retries = 1});
  stand_.ready.RunUntilIdle();
  ASSERT_TRUE(discard.done());
  EXPECT_FALSE(discard.Take().ok());
  EXPECT_EQ(stand_.clock.pending(), 0u);
  EXPECT_EQ(Counter(*filter, "given_up"), 1u);
}

TEST_F(RetryTest, AShorterWaitHoldsForWhatWaits) {
  const auto filter = NewRetry(child_, stand_.environment(),
                               {.initial_backoff = seconds(9), .max_backoff = seconds(9)});
  Fail(1);
  Task<absl::Status> discard = filter->Discard(Range(0, 1));
  stand_.clock.Advance(seconds(2));
  filter->Configure({.initial_backoff = seconds(3), .max_backoff = seconds(9)});
  stand_.clock.Advance(milliseconds(999));
  EXPECT_FALSE(discard.done());
  stand_.clock.Advance(milliseconds(1));
  ASSERT_TRUE(discard.done()) << "counted from the failure";
  EXPECT_TRUE(discard.Take().ok());
}

TEST_F(RetryTest, ATimerThatFiresAsConfigureComesDoesNoHarm) {
  const auto filter = NewRetry(child_, stand_.environment(), {.initial_backoff = seconds(1)});
  Fail(1);
  Task<absl::Status> discard = filter->Discard(Range(0, 1));
  filter->Configure({.initial_backoff = milliseconds(1)});
  filter->Configure({.initial_backoff = milliseconds(1)});
  stand_.clock.Advance(milliseconds(1));
  ASSERT_TRUE(discard.done());
  EXPECT_TRUE(discard.Take().ok());
}

TEST_F(RetryTest, RequestsWaitEachForItself) {
  test::RandomSource random;
  const auto filter = NewRetry(child_, stand_.environment(), {.max_retries = 20});
  child_.SetDeferred(stand_.ready, random);
  child_.SetFault([&](NodeCall, ByteRange) {
    return random.OneIn(2) ? absl::InternalError("again") : absl::OkStatus();
  });
  std::vector<std::vector<std::byte>> buffers;
  std::vector<Task<absl::Status>> writes;
  for (uint64_t i = 0; i < 64; ++i) buffers.push_back(test::Filled(64, 1 + i % 255));
  for (uint64_t i = 0; i < 64; ++i)
    writes.push_back(filter->Write(Range(64 * i, 64), buffers[i], {}));
  stand_.clock.Advance(seconds(1000));
  for (uint64_t i = 0; i < 64; ++i) {
    ASSERT_TRUE(writes[i].done());
    ASSERT_TRUE(writes[i].Take().ok());
    EXPECT_EQ(child_.content()[64 * i + 63], std::byte(1 + i % 255));
  }
}

}  // namespace
}  // namespace gabion::filters
