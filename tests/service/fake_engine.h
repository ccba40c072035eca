// An engine without disks and sockets: images and exports in memory. For tests of the control
// plane.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "service/executor.h"

namespace gabion::service {

// What outlives the fake daemon: the files of the pools. Thread-safe.
class FakeFiles {
 public:
  struct File {
    std::string uid;
    std::string bytes;
    bool locked = false;           // by another process
    engine::Qcow2Info qcow2 = {};  // what it says if it is opened as a qcow2 file
  };

  bool Has(const std::string& name) const;
  File Get(const std::string& name) const;
  void Put(const std::string& name, File file);
  void Remove(const std::string& name);
  void Clear();
  void SetLocked(const std::string& name, bool locked);
  // No file can be larger.
  void SetMaxSize(uint64_t bytes);
  uint64_t max_size() const;
  std::size_t count() const;
  // Name and content of each.
  std::map<std::string, std::string> All() const;
  std::vector<std::string> names() const;

 private:
  friend class FakeEngine;
  friend class FakeTarget;
  mutable std::recursive_mutex mutex_;
  std::map<std::string, File> files_;  // by name in the one pool
  uint64_t max_size_ = ~uint64_t{0};
};

// Does what engine.h says, on a thread of its own, and fails on command. Owned by the test; any
// thread.
class FakeEngine final : public engine::Engine {
 public:
  // `files` outlives this.
  explicit FakeEngine(FakeFiles& files);
  ~FakeEngine() override;

  // The next call of `method`, e.g. "CreateImage", answers `status` and does nothing.
  void FailNext(const std::string& method, absl::Status status);
  // From now on `gate` is asked before every call that changes something; its error is the answer.
  void SetGate(std::function<absl::Status()> gate);
  // From now on `gate` is asked when such a call has had its effect; its error is the answer.
  void SetAnswerGate(std::function<absl::Status()> gate);
  // Calls of `method` are done but not answered until Release().
  void Hold(const std::string& method);
  void Release(const std::string& method);
  // Blocks until `count` calls of `method` have been made since the start.
  void AwaitCalls(const std::string& method, int count);
  int calls(const std::string& method) const;

  // From now on `check` is asked whether an export can be served with its filters: by
  // CreateExport, UpdateExport and CheckExport.
  void SetStackCheck(std::function<absl::Status(const engine::ExportSpec&)> check);
  // What each entry of that id has counted; others have nothing.
  void SetStatistics(const std::string& entry_id, filters::Statistics statistics);

  // What checks find. A repair fixes all of it.
  void SetReport(engine::CheckReport report);
  // From now on checks stay in their middle until they are cancelled or ReleaseChecks().
  void HoldChecks();
  void ReleaseChecks();
  // Blocks until a check has come to its middle.
  void AwaitHeldCheck();

  void AddConnection(const std::string& export_name, engine::ConnectionState connection);
  // A client leaves of its own accord; nothing if it is not there.
  void RemoveConnection(const std::string& export_name, uint64_t id);
  bool Serves(const std::string& export_name) const;
  std::vector<std::string> served() const;
  engine::ExportSpec Spec(const std::string& export_name) const;
  int open_targets() const;

  engine::EngineInfo info() const override;
  void Ping(engine::Callback<absl::Status> done) override;
  // Told by AddConnection(), CloseConnection() and DeleteExport().
  void SetObserver(engine::Observer observer) override;
  absl::Status AddPool(const std::string& name, const std::string& directory) override;
  void GetPool(std::string name, engine::Callback<absl::StatusOr<engine::PoolInfo>> done) override;
  void CreateImage(engine::ImageSpec spec, ByteCount size,
                   engine::Callback<absl::StatusOr<engine::ImageInfo>> done) override;
  void ImportImage(engine::ImageSpec spec, std::string source_file, bool move,
                   engine::Callback<absl::StatusOr<engine::ImageInfo>> done) override;
  // Pieces are of bytes of the disk: a budget of 10 makes 10 bytes of it.
  void BuildImage(engine::ImageBuild build, ByteOffset from, ByteCount budget,
                  engine::Callback<absl::StatusOr<engine::BuildProgress>> done) override;
  void CheckBuild(engine::ImageBuild build,
                  engine::Callback<absl::StatusOr<engine::BuildProgress>> done) override;
  void RemoveImage(engine::ImageSpec spec, ByteCount budget,
                   engine::Callback<absl::StatusOr<engine::RemovalProgress>> done) override;
  void CheckRemoval(engine::ImageSpec spec, engine::Callback<absl::Status> done) override;
  void SweepPool(std::string pool, std::vector<std::string> keep_uids,
                 engine::Callback<absl::StatusOr<std::vector<std::string>>> done) override;
  void StatImage(engine::ImageSpec spec,
                 engine::Callback<absl::StatusOr<engine::ImageInfo>> done) override;
  void StatImages(std::vector<engine::ImageSpec> specs,
                  engine::Callback<std::vector<absl::StatusOr<engine::ImageInfo>>> done) override;
  void CheckSize(std::string pool, ByteCount size, engine::Callback<absl::Status> done) override;
  void GrowImage(engine::ImageSpec spec, ByteCount size,
                 engine::Callback<absl::StatusOr<engine::ImageInfo>> done) override;
  void ShrinkImage(engine::ImageSpec spec, ByteCount size,
                   engine::Callback<absl::StatusOr<engine::ImageInfo>> done) override;
  // Finds what SetReport() says; counts as "CheckImage" or, if it repairs, "RepairImage".
  void CheckImage(engine::ImageSpec spec, engine::ImageRepair repair, engine::CheckControl* control,
                  engine::Callback<absl::StatusOr<engine::CheckReport>> done) override;
  void DeleteImage(engine::ImageSpec spec, engine::Callback<absl::Status> done) override;
  void CreateExport(engine::ExportSpec spec,
                    engine::Callback<absl::StatusOr<engine::ExportState>> done) override;
  void UpdateExport(engine::ExportSpec spec,
                    engine::Callback<absl::StatusOr<engine::ExportState>> done) override;
  void DeleteExport(std::string name, engine::DeleteMode mode,
                    engine::Callback<absl::Status> done) override;
  void GetExport(std::string name,
                 engine::Callback<absl::StatusOr<engine::ExportState>> done) override;
  void GetExports(std::vector<std::string> names,
                  engine::Callback<std::vector<absl::StatusOr<engine::ExportState>>> done) override;
  void ListConnections(
      std::string export_name,
      engine::Callback<absl::StatusOr<std::vector<engine::ConnectionState>>> done) override;
  void CloseConnection(std::string export_name, uint64_t id,
                       engine::Callback<absl::Status> done) override;
  void GetFilterStatistics(
      std::string export_name,
      engine::Callback<absl::StatusOr<std::vector<engine::FilterStatistics>>> done) override;
  void CheckExport(engine::ExportSpec spec,
                   engine::Callback<absl::StatusOr<engine::ExportState>> done) override;
  void OpenImageTarget(
      engine::ImageSpec spec, bool writable,
      engine::Callback<absl::StatusOr<std::unique_ptr<engine::Target>>> done) override;
  void OpenExportTarget(
      std::string export_name,
      engine::Callback<absl::StatusOr<std::unique_ptr<engine::Target>>> done) override;
  void Stop() override;

 private:
  friend class FakeTarget;
  struct Export {
    engine::ExportSpec spec;
    std::vector<engine::ConnectionState> connections;
  };

  template <typename T>
  void Do(const std::string& method, engine::Callback<T> done, std::function<T()> work);
  absl::StatusOr<engine::ImageInfo> Info(const engine::ImageSpec& spec) const;
  absl::StatusOr<engine::ExportState> State(const Export& exported) const;
  absl::Status CheckStack(const engine::ExportSpec& spec) const;
  absl::Status CheckFits(ByteCount size) const;
  absl::Status CheckUnlocked(const engine::ImageSpec& spec) const;
  absl::Status CheckUnused(const engine::ImageSpec& spec) const;
  absl::StatusOr<engine::BuildProgress> Check(const engine::ImageBuild& build) const;
  absl::StatusOr<engine::BuildProgress> Build(const engine::ImageBuild& build, ByteOffset from,
                                              ByteCount budget);
  absl::StatusOr<engine::RemovalProgress> Removal(const engine::ImageSpec& spec, ByteCount budget);
  void TellEnd(const std::string& export_name, const Export& exported) const;
  absl::Status StayInTheMiddle(engine::CheckControl& control);
  absl::StatusOr<engine::CheckReport> Report(const engine::ImageSpec& spec,
                                             engine::ImageRepair repair);

  FakeFiles& files_;
  mutable std::mutex mutex_;
  std::condition_variable called_;
  std::map<std::string, int> calls_;
  std::function<absl::Status()> gate_;
  std::function<absl::Status()> answer_gate_;
  std::map<std::string, std::deque<absl::Status>> failures_;
  std::map<std::string, std::vector<absl::AnyInvocable<void() &&>>> held_;
  std::map<std::string, std::string> pools_;
  std::map<std::string, Export> exports_;
  std::multiset<std::string> open_targets_;  // the files
  engine::Observer observer_;
  std::function<absl::Status(const engine::ExportSpec&)> stack_check_;
  std::map<std::string, filters::Statistics> statistics_;  // by entry id
  engine::CheckReport report_;
  bool holds_checks_ = false;
  int held_checks_ = 0;
  Executor thread_{1};  // behind the others: its work uses them
  Executor checks_{2};  // of checks, which take their time; uses thread_
};

namespace internal {

// What `work` answers, or the failure: in a batch, for each.
template <typename T>
T ResultOf(const absl::Status& failure, const std::function<T()>& work) {
  if constexpr (std::is_constructible_v<T, absl::Status>) {
    return failure.ok() ? work() : T(failure);
  } else {
    T answers = work();
    if (failure.ok()) return answers;
    for (auto& answer : answers) answer = failure;
    return answers;
  }
}

}  // namespace internal

template <typename T>
void FakeEngine::Do(const std::string& method, engine::Callback<T> done, std::function<T()> work) {
  thread_.Run([this, method, done = std::move(done), work = std::move(work)]() mutable {
    absl::Status failure;
    std::function<absl::Status()> answer_gate;
    {
      const std::lock_guard lock(mutex_);
      auto& failures = failures_[method];
      if (!failures.empty()) {
        failure = failures.front();
        failures.pop_front();
      }
      const bool changes = !method.starts_with("Stat") && !method.starts_with("Get") &&
                           !method.starts_with("List") && !method.starts_with("Check") &&
                           method != "Ping";
      if (failure.ok() && gate_ && changes) failure = gate_();
      if (failure.ok() && changes) answer_gate = answer_gate_;
    }
    T result = internal::ResultOf<T>(failure, work);
    const absl::Status lost = answer_gate ? answer_gate() : absl::OkStatus();
    if (!lost.ok()) {
      result = internal::ResultOf<T>(lost, [&result] { return std::move(result); });
    }
    absl::AnyInvocable<void()&&> answer = [done = std::move(done),
                                           result = std::move(result)]() mutable {
      std::move(done)(std::move(result));
    };
    {
      const std::lock_guard lock(mutex_);
      ++calls_[method];
      called_.notify_all();
      const auto held = held_.find(method);
      if (held != held_.end()) {
        held->second.push_back(std::move(answer));
        return;
      }
    }
    std::move(answer)();
  });
}

}  // namespace gabion::service
