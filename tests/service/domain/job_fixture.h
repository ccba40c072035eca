// A manager of operations over a store in memory, and jobs that do what the test says.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "gabion/v1/image.pb.h"
#include "service/domain/operation_manager.h"
#include "service/errors.h"
#include "service/store/memory_store.h"
#include "tests/service/domain/breaking_store.h"

namespace gabion::service {

using google::longrunning::Operation;
using v1::JobMetadata;

// What the jobs of a test do, and what they have been asked for. It outlives restarts, as a disk
// does. Set before the jobs run; the hooks run on their threads.
struct FakeWork {
  using Piece = std::pair<uint64_t, uint64_t>;  // from, budget

  uint64_t total_bytes = 0;
  bool can_cancel = true;
  bool retries_transient = false;
  bool moves_bytes = true;
  // Called in front of the effect of each; an error is returned instead of the effect.
  std::function<absl::Status(const std::string& operation, uint64_t from)> work;
  std::function<absl::Status()> finish;
  std::function<absl::StatusOr<bool>()> put_away;
  std::function<absl::Status()> undo;
  std::function<bool()> ready;  // a job that waits

  std::vector<Piece> pieces() {
    const std::lock_guard lock(mutex);
    return pieces_done;
  }

  std::mutex mutex;
  std::vector<Piece> pieces_done;
  std::atomic<int> finished = 0;
  std::atomic<int> undone = 0;
};

class FakeJob final : public Job {
 public:
  FakeJob(FakeWork& fake, std::string operation, std::string target)
      : fake_(fake), operation_(std::move(operation)), target_(std::move(target)) {}

  std::vector<std::string> Locks() const override { return {target_}; }

  absl::StatusOr<JobProgress> Work(uint64_t from_bytes, uint64_t budget_bytes) override {
    {
      const std::lock_guard lock(fake_.mutex);
      fake_.pieces_done.emplace_back(from_bytes, budget_bytes);
    }
    if (fake_.work) {
      if (const absl::Status status = fake_.work(operation_, from_bytes); !status.ok()) {
        return status;
      }
    }
    JobProgress progress;
    progress.total_bytes = fake_.total_bytes;
    progress.done_bytes = std::min(fake_.total_bytes, from_bytes + budget_bytes);
    progress.complete = fake_.ready ? fake_.ready() : progress.done_bytes == progress.total_bytes;
    return progress;
  }

  absl::StatusOr<JobOutcome> Finish() override {
    ++fake_.finished;
    if (fake_.finish) {
      if (const absl::Status status = fake_.finish(); !status.ok()) return status;
    }
    JobOutcome outcome;
    v1::Image image;
    image.set_name(target_);
    outcome.steps.push_back(Insert("images", target_, image.SerializeAsString()));
    outcome.response.PackFrom(image);
    return outcome;
  }

  absl::StatusOr<bool> PutAway(uint64_t budget_bytes) override {
    EXPECT_GT(budget_bytes, 0u);
    return fake_.put_away ? fake_.put_away() : true;
  }

  absl::StatusOr<JobOutcome> Undo(const absl::Status& why) override {
    EXPECT_FALSE(why.ok());
    ++fake_.undone;
    if (fake_.undo) {
      if (const absl::Status status = fake_.undo(); !status.ok()) return status;
    }
    JobOutcome outcome;
    outcome.steps.push_back(Insert("undone", target_, ""));
    return outcome;
  }

  bool CanCancel() const override { return fake_.can_cancel; }
  bool RetriesTransient() const override { return fake_.retries_transient; }
  bool MovesBytes() const override { return fake_.moves_bytes; }

 private:
  FakeWork& fake_;
  const std::string operation_;
  const std::string target_;
};

class JobFixture : public testing::Test {
 protected:
  static constexpr uint64_t kPiece = 100;
  static constexpr const char* kTarget = "images/a";

  JobFixture() : kept_(NewMemoryStore()), store_(*kept_), tokens_(std::string(32, 'k')) {
    options_.threads = 1;
    options_.piece_bytes = kPiece;
    options_.first_retry = std::chrono::milliseconds(1);
    options_.longest_retry = std::chrono::milliseconds(2);
    options_.checkpoint_every = std::chrono::milliseconds(0);
    Open();
  }
  ~JobFixture() override { manager_.reset(); }

  void Open() {
    manager_ = std::make_unique<OperationManager>(store_, locks_, tokens_, NullLogger(), options_);
    manager_->Register(store::v1::Job::kBuild,
                       [this](const std::string& operation, const JobMetadata& metadata,
                              const store::v1::Job&) -> absl::StatusOr<std::unique_ptr<Job>> {
                         return std::make_unique<FakeJob>(fake_, operation, metadata.target());
                       });
  }
  void Restart() {
    manager_.reset();
    Open();
    const absl::Status recovered = manager_->Recover();
    ASSERT_TRUE(recovered.ok()) << recovered;
  }

  // The operation's name; empty if it could not be written.
  std::string Begin(const std::string& target = kTarget, const Call& call = {}) {
    store::v1::Job work;
    work.mutable_build();
    std::vector<Mutation> steps;
    const auto name =
        manager_->Begin(call, JobMetadata::KIND_CREATE, target, std::move(work), &steps);
    EXPECT_TRUE(name.ok()) << name.status();
    return store_.Commit(steps).ok() ? *name : "";
  }
  Operation Start(const std::string& name) {
    const auto operation = manager_->Start(name);
    EXPECT_TRUE(operation.ok()) << operation.status();
    return operation.value_or(Operation());
  }
  // A job that stays paused from its beginning.
  std::string BeginPaused(const std::string& target = kTarget) {
    const std::string name = Begin(target);
    EXPECT_TRUE(Pause(name).ok());
    EXPECT_EQ(MetadataOf(Start(name)).state(), JobMetadata::STATE_PAUSED);
    return name;
  }
  Operation Get(const std::string& name) {
    const auto operation = manager_->Get(name);
    EXPECT_TRUE(operation.ok()) << operation.status();
    return operation.value_or(Operation());
  }
  JobMetadata Metadata(const std::string& name) { return MetadataOf(Get(name)); }
  Operation WaitDone(const std::string& name) {
    std::promise<void> done;
    manager_->WhenDone(name, [&] { done.set_value(); });
    done.get_future().wait();
    return Get(name);
  }
  static std::string ReasonOf(const Operation& operation) {
    return InfoOf(FromRpcStatus(operation.error())).reason();
  }
  // Runs another job from its beginning to its end on the threads that run jobs.
  void RunAnother() {
    const std::string name = Begin("images/other");
    Start(name);  // the first piece is done here, the others there
    ASSERT_TRUE(WaitDone(name).has_response());
  }

  absl::Status Pause(const std::string& name, const Call& call = {}) {
    v1::PauseJobRequest request;
    request.set_name(name);
    return manager_->Pause(request, call).status();
  }
  absl::Status Resume(const std::string& name, const Call& call = {}) {
    v1::ResumeJobRequest request;
    request.set_name(name);
    return manager_->Resume(request, call).status();
  }
  absl::Status SetRate(const std::string& name, uint64_t rate, const Call& call = {}) {
    v1::SetJobRateRequest request;
    request.set_name(name);
    request.set_limit_bytes_per_second(rate);
    return manager_->SetRate(request, call).status();
  }

  size_t Rows(const std::string& collection) {
    return kept_->List(collection, "", 1000)->rows.size();
  }

  std::unique_ptr<MetadataStore> kept_;
  BreakingStore store_;
  ResourceLocks locks_;
  PageTokens tokens_;
  OperationOptions options_;
  FakeWork fake_;
  std::unique_ptr<OperationManager> manager_;
};

}  // namespace gabion::service
