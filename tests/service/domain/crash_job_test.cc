// Calls that change operations, cut off at each of their steps.
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <string>
#include <thread>

#include "tests/service/domain/crash_fixture.h"

namespace gabion::service {
namespace {

using v1::JobMetadata;

// The operation makes images/a, and rests in the middle of that.
class CrashJobTest : public CrashFixture {
 protected:
  static constexpr uint64_t kSlow = 1;  // byte a second: it rests after each piece

  // Paused after the first piece.
  void MakePaused() {
    const int before = engine_->calls("BuildImage");
    engine_->Hold("BuildImage");
    std::thread creating([this] {
      const auto made = Send(CreateImageRequest("a"));
      ASSERT_TRUE(made.ok() && !made->done());
      operation_ = made->name();
    });
    engine_->AwaitCalls("BuildImage", before + 1);
    v1::PauseJobRequest request;
    for (const Row& row : RowsOf("jobs")) request.set_name(row.name);
    EXPECT_TRUE(Send(request).ok());
    engine_->Release("BuildImage");
    creating.join();
    ASSERT_EQ(Metadata().state(), JobMetadata::STATE_PAUSED);
  }
  // Works, but so slowly that it does not end.
  void MakeSlow() {
    MakePaused();
    ASSERT_TRUE(SetRate(kSlow).ok());
    v1::ResumeJobRequest request;
    request.set_name(operation_);
    ASSERT_TRUE(Send(request).ok());
  }
  absl::StatusOr<Operation> SetRate(uint64_t rate) {
    v1::SetJobRateRequest request;
    request.set_name(operation_);
    request.set_limit_bytes_per_second(rate);
    return Send(request);
  }
  template <typename Request>
  Request About(bool other) {
    Request request;
    request.set_name(other ? "operations/other" : operation_);
    return request;
  }
  JobMetadata Metadata() { return MetadataOf(*domain_->operations().Get(operation_)); }
  // Whatever holds it up, it goes on to its end. If the step that failed was one of its work, that
  // end is the error, and there is nothing.
  void LetEnd() {
    const auto quick = SetRate(0);
    v1::ResumeJobRequest request;
    request.set_name(operation_);
    const auto resumed = Send(request);
    AwaitQuiet();
    const auto ended = domain_->operations().Get(operation_);
    ASSERT_TRUE(ended.ok()) << ended.status();
    if (ended->has_error()) {
      EXPECT_EQ(ended->error().code(), static_cast<int>(absl::StatusCode::kUnavailable));
      return ExpectNoImage("images/a");
    }
    EXPECT_EQ(GetImage("images/a").virtual_size_bytes(), kSize);
  }

  std::string operation_;
};

TEST_F(CrashJobTest, Pause) {
  Scenario scenario;
  scenario.prepare = [this] { MakeSlow(); };
  scenario.call = [this](bool other) { return Ask(About<v1::PauseJobRequest>(other)); };
  scenario.done = [this](bool) { EXPECT_EQ(Metadata().state(), JobMetadata::STATE_PAUSED); };
  scenario.finish = [this] { LetEnd(); };
  ForEveryCut(scenario);
}

TEST_F(CrashJobTest, Rate) {
  Scenario scenario;
  scenario.prepare = [this] { MakePaused(); };
  scenario.call = [this](bool other) {
    auto request = About<v1::SetJobRateRequest>(false);
    request.set_limit_bytes_per_second(other ? 7 : 5000);
    return Ask(request);
  };
  scenario.done = [this](bool) { EXPECT_EQ(Metadata().limit_bytes_per_second(), 5000u); };
  scenario.finish = [this] { LetEnd(); };
  ForEveryCut(scenario);
}

TEST_F(CrashJobTest, Resumption) {
  Scenario scenario;
  scenario.prepare = [this] { MakePaused(); };
  scenario.call = [this](bool other) -> absl::StatusOr<Told> {
    return Ask(About<v1::ResumeJobRequest>(other));
  };
  scenario.done = [this](bool) { EXPECT_NE(Metadata().state(), JobMetadata::STATE_PAUSED); };
  scenario.finish = [this] { LetEnd(); };
  ForEveryCut(scenario);
}

TEST_F(CrashJobTest, Cancelling) {
  Scenario scenario;
  scenario.has_request_id = false;
  scenario.prepare = [this] { MakeSlow(); };
  scenario.call = [this](bool other) -> absl::StatusOr<Told> {
    RETURN_IF_ERROR(Send(About<google::longrunning::CancelOperationRequest>(other)).status());
    return Told();
  };
  scenario.done = [this](bool) { EXPECT_TRUE(Metadata().cancel_requested()); };
  scenario.finish = [this] {
    AwaitQuiet();
    const auto ended = domain_->operations().Get(operation_);
    EXPECT_EQ(ReasonIn(FromRpcStatus(ended->error())), "OPERATION_CANCELLED");
    ExpectNoImage("images/a");
  };
  ForEveryCut(scenario);
}

TEST_F(CrashJobTest, CancellingAnImportThatHasMovedItsFileDoesNotLoseIt) {
  NewWorld();
  const std::string content(kSize, 'x');
  files_.Put("disk.img", {"", content, false});
  engine_->Hold("BuildImage");
  std::thread importing([this] {
    v1::ImportImageRequest request;
    request.set_image_id("a");
    request.mutable_image()->mutable_raw();
    request.set_source_file("disk.img");
    request.set_move(true);
    EXPECT_TRUE(Send(request).ok());
  });
  engine_->AwaitCalls("BuildImage", 1);
  operation_ = RowsOf("jobs").at(0).name;
  ASSERT_TRUE(Send(About<v1::PauseJobRequest>(false)).ok());
  engine_->Release("BuildImage");
  importing.join();
  ASSERT_TRUE(Send(About<google::longrunning::CancelOperationRequest>(false)).ok());
  ASSERT_TRUE(Send(About<v1::ResumeJobRequest>(false)).ok());
  AwaitQuiet();
  EXPECT_EQ(GetImage("images/a").state(), v1::Image::STATE_ACTIVE);
  EXPECT_EQ(files_.Get("a.raw").bytes, content);
}

// Whoever took the row away: there is nothing left to be undone.
TEST_F(CrashJobTest, CancellingEndsThoughTheRowOfTheImageIsGone) {
  NewWorld();
  MakePaused();
  ASSERT_TRUE(kept_->Commit({Remove("images", "images/a")}).ok());
  ASSERT_TRUE(Send(About<google::longrunning::CancelOperationRequest>(false)).ok());
  AwaitQuiet();
  const auto ended = domain_->operations().Get(operation_);
  EXPECT_EQ(ReasonIn(FromRpcStatus(ended->error())), "OPERATION_CANCELLED");
  ExpectAgreement();
}

TEST_F(CrashJobTest, RemovalEndsThoughTheRowOfTheImageIsGone) {
  NewWorld();
  MakeImage("a");
  engine_->Hold("RemoveImage");
  std::thread removing([this] {
    v1::DeleteImageRequest request;
    request.set_name("images/a");
    EXPECT_TRUE(Send(request).ok());
  });
  engine_->AwaitCalls("RemoveImage", 1);
  ASSERT_TRUE(kept_->Commit({Remove("images", "images/a")}).ok());
  engine_->Release("RemoveImage");
  removing.join();
  AwaitQuiet();
  ExpectAgreement();
}

class CrashDrainTest : public CrashFixture {
 protected:
  // An export with a client, which is being deleted.
  void MakeDraining() {
    NewWorld();
    MakeImage("a");
    MakeExport("e", "images/a");
    Connect("exports/e", 1);
    v1::DeleteExportRequest request;
    request.set_name("exports/e");
    request.set_mode(v1::DeleteExportRequest::MODE_HIDE);
    const auto hiding = Send(request);
    ASSERT_TRUE(hiding.ok() && !hiding->done());
    operation_ = hiding->name();
  }
  // Nothing is left of the export, so that its names can be taken.
  void ExpectGone() {
    AwaitQuiet();
    ExpectNoExport("exports/e");
    EXPECT_TRUE(GetImage("images/a").dependents().empty());
    v1::CreateExportRequest request = CreateExportRequest("other", "images/a");
    request.mutable_export_()->set_nbd_name("e");
    const auto other = Send(request);
    EXPECT_TRUE(other.ok()) << other.status();
    ExpectAgreement();
  }

  std::string operation_;
};

TEST_F(CrashDrainTest, CancellingEndsThoughTheRowOfTheExportIsGone) {
  MakeDraining();
  ASSERT_TRUE(kept_->Commit({Remove("exports", "exports/e")}).ok());
  google::longrunning::CancelOperationRequest request;
  request.set_name(operation_);
  ASSERT_TRUE(Send(request).ok());
  ExpectGone();
}

// Its row goes before its names are free: who comes in between waits, and is not refused.
TEST_F(CrashDrainTest, WhoSeesTheExportGoneGetsItsNames) {
  MakeDraining();
  std::promise<void> gone;
  std::promise<void> goes_on;
  std::atomic<bool> told = false;
  store_.SetAnswerGate([&, going_on = goes_on.get_future().share()] {
    if (Rows("exports") > 0) return absl::OkStatus();
    if (!told.exchange(true)) gone.set_value();
    going_on.wait();
    return absl::OkStatus();
  });
  engine_->RemoveConnection("exports/e", 1);
  gone.get_future().wait();
  v1::CreateExportRequest request = CreateExportRequest("other", "images/a");
  request.mutable_export_()->set_nbd_name("e");
  Call impatient;
  impatient.patience.until = Patience::Clock::time_point::min();
  const absl::Status waits = domain_->exports().Create(request, impatient).status();
  EXPECT_EQ(ReasonIn(waits), "OPERATION_IN_PROGRESS");
  EXPECT_EQ(MetadataIn(waits, "resource"), "exports/e");
  goes_on.set_value();
  ExpectGone();
}

TEST_F(CrashDrainTest, DeletionWhoseLastAnswerOfTheStoreIsLostHasEnded) {
  MakeDraining();
  std::atomic<bool> lost = false;
  store_.SetAnswerGate([&] {
    const bool loses = Rows("jobs") == 0 && !lost.exchange(true);
    return loses ? absl::UnavailableError("The answer is lost.") : absl::OkStatus();
  });
  engine_->RemoveConnection("exports/e", 1);
  // The job is gone before it is known to be: its operation tells when.
  std::promise<void> ended;
  domain_->operations().WhenDone(operation_, [&ended] { ended.set_value(); });
  ended.get_future().wait();
  EXPECT_TRUE(lost);
  store_.SetAnswerGate(nullptr);
  ExpectGone();
}

}  // namespace
}  // namespace gabion::service
