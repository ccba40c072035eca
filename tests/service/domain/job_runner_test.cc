// How jobs run, as callers see it.
#include "service/domain/job_runner.h"

#include "tests/service/domain/job_fixture.h"

namespace gabion::service {
namespace {

using std::chrono::hours;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::Pair;

TEST(PieceBudgetTest, IsAQuarterOfASecondButNeverTiny) {
  constexpr uint64_t kMi = uint64_t{1} << 20;
  EXPECT_EQ(PieceBudget(16 * kMi, 0), 16 * kMi);
  EXPECT_EQ(PieceBudget(16 * kMi, 1), kMi / 16);
  EXPECT_EQ(PieceBudget(16 * kMi, 4 * kMi), kMi);
  EXPECT_EQ(PieceBudget(16 * kMi, UINT64_MAX), 16 * kMi);
  EXPECT_EQ(PieceBudget(100, 1), 100u);
}

TEST(PieceTimeTest, IsBytesOverRate) {
  EXPECT_EQ(PieceTime(1000, 0), seconds(0));
  EXPECT_EQ(PieceTime(1000, 100), seconds(10));
  EXPECT_EQ(PieceTime(0, 1), seconds(0));
  EXPECT_EQ(PieceTime(UINT64_MAX, 1), hours(30 * 24));
}

class JobRunnerTest : public JobFixture {};

TEST_F(JobRunnerTest, ShortWorkIsDoneWhenItsCallAnswers) {
  fake_.total_bytes = 50;
  const std::string name = Begin();
  EXPECT_EQ(Metadata(name).state(), JobMetadata::STATE_QUEUED);
  const Operation operation = Start(name);
  EXPECT_TRUE(operation.done());
  v1::Image image;
  ASSERT_TRUE(operation.response().UnpackTo(&image));
  EXPECT_EQ(image.name(), kTarget);
  const JobMetadata metadata = MetadataOf(operation);
  EXPECT_EQ(metadata.state(), JobMetadata::STATE_DONE);
  EXPECT_EQ(metadata.done_bytes(), 50u);
  EXPECT_EQ(metadata.total_bytes(), 50u);
  EXPECT_TRUE(metadata.has_start_time() && metadata.has_end_time());
  EXPECT_FALSE(metadata.resumed_after_restart());
  EXPECT_EQ(Get(name).SerializeAsString(), operation.SerializeAsString());
  EXPECT_EQ(Rows("jobs"), 0u);
  EXPECT_EQ(Rows("images"), 1u);
}

TEST_F(JobRunnerTest, LongWorkGoesOnInPiecesAndWritesHowFarItIs) {
  fake_.total_bytes = 250;
  std::vector<uint64_t> seen;
  fake_.work = [&](const std::string& name, uint64_t) {
    seen.push_back(Metadata(name).done_bytes());
    return absl::OkStatus();
  };
  const std::string name = Begin();
  Start(name);
  EXPECT_TRUE(WaitDone(name).has_response());
  EXPECT_THAT(fake_.pieces(), ElementsAre(Pair(0, kPiece), Pair(100, kPiece), Pair(200, kPiece)));
  EXPECT_THAT(seen, ElementsAre(0, 100, 200));
}

TEST_F(JobRunnerTest, WorkThatFailsIsUndoneAndTellsWhy) {
  fake_.total_bytes = 50;
  fake_.work = [](const std::string&, uint64_t) -> absl::Status {
    return Error(reason::kPoolFull, "There is no space.");
  };
  const Operation operation = Start(Begin());
  EXPECT_TRUE(operation.done());
  EXPECT_EQ(ReasonOf(operation), "POOL_FULL");
  EXPECT_EQ(fake_.finished, 0);
  EXPECT_EQ(Rows("undone"), 1u);
  EXPECT_EQ(Rows("images"), 0u);
  EXPECT_EQ(Rows("jobs"), 0u);
}

TEST_F(JobRunnerTest, WhatMayPassIsTriedAgainAndTold) {
  fake_.total_bytes = 50;
  fake_.retries_transient = true;
  int tries = 0;
  std::string told;
  fake_.work = [&](const std::string& name, uint64_t) -> absl::Status {
    if (++tries < 3) return Error(reason::kPoolUnreachable, "The pool does not answer.");
    told = Metadata(name).last_transient_error().message();
    return absl::OkStatus();
  };
  const std::string name = Begin();
  Start(name);
  EXPECT_TRUE(WaitDone(name).has_response());
  EXPECT_EQ(told, "The pool does not answer.");
  EXPECT_FALSE(Metadata(name).has_last_transient_error());
  EXPECT_EQ(tries, 3);
}

TEST_F(JobRunnerTest, AFinishThatFailsIsUndone) {
  fake_.finish = [] { return absl::FailedPreconditionError("no"); };
  const Operation operation = Start(Begin());
  EXPECT_EQ(operation.error().code(), static_cast<int>(absl::StatusCode::kFailedPrecondition));
  EXPECT_EQ(Rows("undone"), 1u);
}

TEST_F(JobRunnerTest, AnOutcomeThatCannotBeWrittenIsWrittenLater) {
  std::atomic<bool> refuse = false;
  store_.SetGate([&] {
    return refuse.exchange(false) ? absl::AbortedError("lost a race") : absl::OkStatus();
  });
  fake_.finish = [&] {
    refuse = fake_.finished == 1;
    return absl::OkStatus();
  };
  const std::string name = Begin();
  Start(name);
  EXPECT_TRUE(WaitDone(name).has_response());
  EXPECT_EQ(fake_.finished, 2);
  EXPECT_EQ(Rows("images"), 1u);
}

TEST_F(JobRunnerTest, AnOutcomeWhoseWritingWasNotAnsweredIsNotWrittenAgain) {
  std::atomic<bool> lose = false;
  store_.SetAnswer([&] {
    return lose.exchange(false) ? absl::UnavailableError("who knows") : absl::OkStatus();
  });
  fake_.finish = [&] {
    lose = true;
    return absl::OkStatus();
  };
  const std::string name = Begin();
  Start(name);
  EXPECT_TRUE(WaitDone(name).has_response());
  EXPECT_EQ(Rows("images"), 1u);
}

TEST_F(JobRunnerTest, AnUndoThatFailsIsTriedAgain) {
  fake_.work = [](const std::string&, uint64_t) { return absl::DataLossError("gone"); };
  fake_.undo = [&] { return fake_.undone < 3 ? absl::InternalError("stuck") : absl::OkStatus(); };
  const std::string name = Begin();
  Start(name);
  EXPECT_EQ(WaitDone(name).error().code(), static_cast<int>(absl::StatusCode::kDataLoss));
  EXPECT_EQ(fake_.undone, 3);
  EXPECT_EQ(Rows("undone"), 1u);
}

TEST_F(JobRunnerTest, WhatIsUndoneGoesInPiecesAndNobodyWaitsForThem) {
  fake_.work = [](const std::string&, uint64_t) { return absl::DataLossError("gone"); };
  constexpr Patience kNone{.until = Patience::Clock::time_point::min()};
  int pieces = 0;
  fake_.put_away = [&]() -> absl::StatusOr<bool> {
    EXPECT_TRUE(locks_.LockFor(kNone, {kTarget}).ok());
    return ++pieces == 3;
  };
  fake_.undo = [&] {
    EXPECT_FALSE(locks_.LockFor(kNone, {kTarget}).ok());
    EXPECT_EQ(pieces, 3);
    return absl::OkStatus();
  };
  const std::string name = Begin();
  EXPECT_EQ(MetadataOf(Start(name)).state(), JobMetadata::STATE_CANCELLING);
  EXPECT_TRUE(WaitDone(name).has_error());
  EXPECT_EQ(fake_.undone, 1);
}

TEST_F(JobRunnerTest, APieceThatCannotBePutAwayIsTriedAgain) {
  fake_.work = [](const std::string&, uint64_t) { return absl::DataLossError("gone"); };
  std::atomic<int> tries = 0;
  fake_.put_away = [&]() -> absl::StatusOr<bool> {
    if (++tries < 3) return absl::UnavailableError("stuck");
    return true;
  };
  const std::string name = Begin();
  Start(name);
  EXPECT_EQ(WaitDone(name).error().code(), static_cast<int>(absl::StatusCode::kDataLoss));
  EXPECT_EQ(tries, 3);
}

TEST_F(JobRunnerTest, AnUndoThatFailsLooksAgainWhatIsLeft) {
  fake_.work = [](const std::string&, uint64_t) { return absl::DataLossError("gone"); };
  std::atomic<int> looks = 0;
  fake_.put_away = [&]() -> absl::StatusOr<bool> { return ++looks > 0; };
  fake_.undo = [&] { return fake_.undone < 2 ? absl::InternalError("stuck") : absl::OkStatus(); };
  const std::string name = Begin();
  Start(name);
  EXPECT_TRUE(WaitDone(name).has_error());
  EXPECT_EQ(looks, 2);
}

TEST_F(JobRunnerTest, CancelStopsWorkAndUndoesIt) {
  fake_.total_bytes = 1000;
  fake_.work = [&](const std::string& name, uint64_t from) {
    if (from == 200) {
      EXPECT_TRUE(manager_->Cancel(name).ok());
    }
    return absl::OkStatus();
  };
  const std::string name = Begin();
  Start(name);
  const Operation operation = WaitDone(name);
  EXPECT_EQ(operation.error().code(), static_cast<int>(absl::StatusCode::kCancelled));
  EXPECT_EQ(ReasonOf(operation), "OPERATION_CANCELLED");
  EXPECT_TRUE(MetadataOf(operation).cancel_requested());
  EXPECT_EQ(fake_.pieces().size(), 3u);
  EXPECT_EQ(Rows("undone"), 1u);
  EXPECT_TRUE(manager_->Cancel(name).ok());  // again
}

TEST_F(JobRunnerTest, CancelBeforeTheStartEndsItWithoutWork) {
  const std::string name = Begin();
  EXPECT_TRUE(manager_->Cancel(name).ok());
  EXPECT_EQ(ReasonOf(Start(name)), "OPERATION_CANCELLED");
  EXPECT_TRUE(fake_.pieces().empty());
}

TEST_F(JobRunnerTest, CancelPastThePointOfNoReturnIsToldAndChangesNothing) {
  fake_.total_bytes = 300;
  fake_.can_cancel = false;
  fake_.work = [&](const std::string& name, uint64_t) {
    EXPECT_TRUE(manager_->Cancel(name).ok());
    return absl::OkStatus();
  };
  const std::string name = Begin();
  Start(name);
  const Operation operation = WaitDone(name);
  EXPECT_TRUE(operation.has_response());
  EXPECT_TRUE(MetadataOf(operation).cancel_requested());
}

// Begins a job of three pieces that is paused in its first one.
class PausedJobTest : public JobFixture {
 protected:
  PausedJobTest() {
    fake_.total_bytes = 300;
    fake_.work = [this](const std::string& name, uint64_t from) {
      if (from == 0 && Metadata(name).target() == kTarget) {
        EXPECT_TRUE(Pause(name).ok());
      }
      return absl::OkStatus();
    };
    name_ = Begin();
    EXPECT_EQ(MetadataOf(Start(name_)).state(), JobMetadata::STATE_PAUSED);
  }

  size_t Pieces() { return fake_.pieces().size(); }

  std::string name_;
};

TEST_F(PausedJobTest, WaitsUntilItIsResumed) {
  RunAnother();
  EXPECT_EQ(Pieces(), 1u + 3u);
  EXPECT_EQ(Metadata(name_).done_bytes(), 100u);
  EXPECT_TRUE(Pause(name_).ok());  // again
  EXPECT_TRUE(Resume(name_).ok());
  EXPECT_TRUE(WaitDone(name_).has_response());
}

TEST_F(PausedJobTest, CanBeCancelled) {
  EXPECT_TRUE(manager_->Cancel(name_).ok());
  EXPECT_EQ(ReasonOf(WaitDone(name_)), "OPERATION_CANCELLED");
  EXPECT_EQ(Pieces(), 1u);
}

TEST_F(PausedJobTest, StaysPausedOverARestartAndGoesOnFromItsCheckpoint) {
  Restart();
  RunAnother();
  EXPECT_EQ(Pieces(), 1u + 3u);
  EXPECT_EQ(Metadata(name_).state(), JobMetadata::STATE_PAUSED);
  EXPECT_TRUE(Metadata(name_).resumed_after_restart());
  EXPECT_TRUE(Resume(name_).ok());
  EXPECT_TRUE(WaitDone(name_).has_response());
  EXPECT_EQ(fake_.pieces().at(4).first, 100u);
}

TEST_F(PausedJobTest, ALimitHoldsItBackAndItsEndLetsItGo) {
  EXPECT_TRUE(SetRate(name_, 1).ok());  // the first piece was worth 100 s
  EXPECT_TRUE(Resume(name_).ok());
  RunAnother();
  EXPECT_EQ(Pieces(), 1u + 3u);
  EXPECT_EQ(Metadata(name_).limit_bytes_per_second(), 1u);
  EXPECT_TRUE(SetRate(name_, 0).ok());
  EXPECT_TRUE(WaitDone(name_).has_response());
}

TEST_F(JobRunnerTest, AJobThatWaitsIsAskedAgainWhenItIsWoken) {
  manager_.reset();
  options_.first_retry = options_.longest_retry = hours(1);
  Open();
  fake_.moves_bytes = false;
  std::atomic<bool> ready = false;
  fake_.ready = [&] { return ready.load(); };
  const std::string name = Begin();
  EXPECT_EQ(MetadataOf(Start(name)).state(), JobMetadata::STATE_RUNNING);
  EXPECT_EQ(InfoOf(Pause(name)).reason(), "FEATURE_NOT_BUILT");
  EXPECT_EQ(InfoOf(SetRate(name, 5)).reason(), "FEATURE_NOT_BUILT");
  ready = true;
  manager_->Wake(name);
  EXPECT_TRUE(WaitDone(name).has_response());
  EXPECT_EQ(fake_.pieces().size(), 2u);
}

TEST_F(JobRunnerTest, AJobThatWaitsIsAskedAgainByItself) {
  fake_.ready = [&] { return fake_.pieces().size() == 4; };
  const std::string name = Begin();
  Start(name);
  EXPECT_TRUE(WaitDone(name).has_response());
}

}  // namespace
}  // namespace gabion::service
