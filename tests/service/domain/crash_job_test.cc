// Calls that change operations, cut off at each of their steps.
#include <gtest/gtest.h>

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
  // Whatever holds it up, it goes on to its end.
  void LetEnd() {
    const auto quick = SetRate(0);
    v1::ResumeJobRequest request;
    request.set_name(operation_);
    const auto resumed = Send(request);
    AwaitQuiet();
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

}  // namespace
}  // namespace gabion::service
