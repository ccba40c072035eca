// Calls that are cut off at each of their steps, and what must be true after the restart.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "google/longrunning/operations.pb.h"
#include "service/domain/filter_stack.h"
#include "service/domain/identity.h"
#include "service/domain/image_file.h"
#include "tests/service/domain/api_calls.h"
#include "tests/service/domain/death.h"
#include "tests/service/domain/fixture.h"

namespace gabion::service {

// An answer, so that two can be compared: an operation is the same whatever has become of it.
struct Told {
  std::string text;
  std::string operation;  // its name; empty if it is none, or one that is not kept
};

inline Told TellOf(const google::longrunning::Operation& operation) {
  if (operation.name().empty()) return {operation.DebugString(), ""};
  return {operation.name(), operation.name()};
}
template <typename Response>
Told TellOf(const Response& response) {
  return {response.DebugString(), ""};
}

// One call and what belongs to it. The functions are called in a world of their own for each cut.
struct Scenario {
  std::function<void()> prepare = [] {};
  // Makes the call; `other`: with the same id and another body.
  std::function<absl::StatusOr<Told>(bool other)> call;
  std::function<void()> meanwhile = [] {};  // what happens outside when it has been answered
  // Expects that the effect is there, once; `answered`: the first call was.
  std::function<void(bool answered)> done;
  std::function<void()> failed = [] {};  // the operation has ended with an error
  std::function<void()> finish;          // lets work end that waits for somebody; may be empty
  bool has_request_id = true;
};

class CrashFixture : public DomainFixture {
 protected:
  using Way = Death::Way;
  using Operation = google::longrunning::Operation;

  static constexpr const char* kRequestId = "5a3b1c1e-0000-4000-8000-000000000001";
  static constexpr uint64_t kSize = 3500;  // of an image: several pieces
  static constexpr int kMoreThanAnyCallTakes = 100;

  CrashFixture() {
    adjust_ = [](DomainOptions* options) {
      options->operations.piece_bytes = 1000;
      options->operations.checkpoint_every = std::chrono::milliseconds(0);
      // What is tried again in the background is no step of a call.
      options->exports.reconciler.first_wait = std::chrono::hours(1);
      options->exports.reconciler.longest_wait = std::chrono::hours(1);
    };
    prepare_engine_ = [this](FakeEngine* engine) {
      engine->SetGate([this] { return death_.Before(); });
      engine->SetAnswerGate([this] { return death_.Answer(); });
    };
    store_.SetGate([this] { return death_.BeforeCommit(); });
    store_.SetAnswerGate([this] { return death_.AnswerCommit(); });
  }
  ~CrashFixture() override { Kill(); }

  // Plays the scenario with a cut at every one of its steps, in each way, also with a second cut
  // while the daemon recovers, until it runs through uncut.
  void ForEveryCut(const Scenario& scenario) {
    CutEverywhere(scenario, Way::kBefore, false);
    CutEverywhere(scenario, Way::kBefore, true);
    CutEverywhere(scenario, Way::kAfter, false);
    CutEverywhere(scenario, Way::kAfter, true);
    CutEverywhere(scenario, Way::kFailBefore, false);
    CutEverywhere(scenario, Way::kFailAfter, false);
  }

  template <typename Request>
  auto Send(const Request& request) {
    return calls_->Send(request);
  }
  // The answer to a request that carries the id.
  template <typename Request>
  absl::StatusOr<Told> Ask(Request request) {
    request.set_request_id(kRequestId);
    ASSIGN_OR_RETURN(const auto response, calls_->Send(request));
    return TellOf(response);
  }

  v1::CreateImageRequest CreateImageRequest(const std::string& id, uint64_t size = kSize) {
    v1::CreateImageRequest request;
    request.set_image_id(id);
    request.mutable_image()->mutable_raw();
    request.mutable_image()->set_virtual_size_bytes(size);
    return request;
  }
  v1::CreateExportRequest CreateExportRequest(const std::string& id, const std::string& image) {
    v1::CreateExportRequest request;
    request.set_export_id(id);
    request.mutable_export_()->set_source(image);
    return request;
  }
  void MakeImage(const std::string& id) {
    const auto made = Send(CreateImageRequest(id));
    ASSERT_TRUE(made.ok()) << made.status();
    AwaitQuiet();
  }
  v1::CloneImageRequest CloneImageRequest(const std::string& id, const std::string& source) {
    v1::CloneImageRequest request;
    request.set_image_id(id);
    request.set_source(source);
    return request;
  }
  void MakeClone(const std::string& id, const std::string& source) {
    const auto made = Send(CloneImageRequest(id, source));
    ASSERT_TRUE(made.ok()) << made.status();
    AwaitQuiet();
  }
  void MakeExport(const std::string& id, const std::string& image) {
    const auto made = Send(CreateExportRequest(id, image));
    ASSERT_TRUE(made.ok()) << made.status();
  }
  // A restart that is no part of what is tested.
  void Reopen() {
    Leave();
    Start();
    Enter();
  }
  void Connect(const std::string& export_name, uint64_t id) {
    engine::ConnectionState connection;
    connection.id = id;
    engine_->AddConnection(export_name, connection);
  }

  // The image that is there now; fails the test if there is none.
  v1::Image GetImage(const std::string& name) {
    auto image = domain_->images().Get(name);
    EXPECT_TRUE(image.ok()) << image.status();
    return image.value_or(v1::Image());
  }
  void ExpectNoImage(const std::string& name) {
    EXPECT_EQ(ReasonIn(domain_->images().Get(name).status()), "RESOURCE_NOT_FOUND");
  }
  void ExpectNoExport(const std::string& name) {
    EXPECT_EQ(ReasonIn(domain_->exports().Get(name).status()), "RESOURCE_NOT_FOUND");
    EXPECT_FALSE(engine_->Serves(name));
  }

  std::vector<Row> RowsOf(const std::string& collection) {
    return kept_->List(collection, "", 1000)->rows;
  }
  std::size_t Rows(const std::string& collection) { return RowsOf(collection).size(); }
  // With the tombstones.
  v1::ListImagesResponse AllImages() {
    v1::ListImagesRequest request;
    request.set_show_deleted(true);
    const auto all = domain_->images().List(request);
    EXPECT_TRUE(all.ok()) << all.status();
    return all.value_or(v1::ListImagesResponse());
  }
  // Nothing is under way that ends by itself.
  bool IsQuiet() {
    if (Rows("jobs") + Rows("intents") > 0) return false;
    const v1::ListImagesResponse all = AllImages();
    for (const v1::Image& image : all.images()) {
      const bool due =
          image.has_purge_time() && image.purge_time().seconds() <= Now().seconds() + 10;
      if (due && image.dependents().empty()) return false;
    }
    return true;
  }
  // No job runs any more. What a call has left that failed in the middle may still be there.
  void AwaitAnswered() {
    ASSERT_TRUE(death_.Await([this] { return death_.came() ? Rows("jobs") == 0 : IsQuiet(); }))
        << "A job never ends.";
  }
  void AwaitQuiet() {
    ASSERT_TRUE(death_.Await([this] { return IsQuiet(); })) << "It never comes to rest.";
  }

  void Enter() {
    if (domain_ == nullptr) return;
    calls_ = std::make_unique<ApiCalls>(*domain_);
    subscription_ = domain_->feed().Subscribe([this] { death_.Poke(); });
  }
  void Leave() {
    calls_.reset();
    if (domain_ != nullptr) domain_->feed().Unsubscribe(subscription_);
    Stop();
  }
  // Dies where it is, and is not there any more.
  void Kill() {
    death_.Kill();
    Leave();
  }
  void NewWorld() {
    Kill();
    files_.Clear();
    foreign_files_.clear();
    kept_ = NewMemoryStore();
    store_.Exchange(*kept_);
    Resurrect();
  }
  void Resurrect() {
    death_.Never();
    Start();
    Enter();
  }

  // Rows, files and what is served say the same, and nothing is left over.
  void ExpectAgreement() {
    EXPECT_EQ(Rows("jobs"), 0u);
    EXPECT_EQ(Rows("intents"), 0u);
    ExpectImages();
    ExpectExports();
    ExpectFilters();
    for (const Row& row : RowsOf("requests")) {
      store::v1::Request request;
      ASSERT_TRUE(request.ParseFromString(row.value));
      EXPECT_NE(request.answer_case(), store::v1::Request::ANSWER_NOT_SET) << row.name;
    }
    for (const Row& row : RowsOf("operations")) {
      EXPECT_TRUE(domain_->operations().Get(row.name)->done()) << row.name;
    }
  }
  void ExpectImages() {
    std::set<std::string> expected = foreign_files_;
    const v1::ListImagesResponse all = AllImages();
    std::set<std::pair<std::string, std::string>> stand;  // backing image, image on it
    std::set<std::pair<std::string, std::string>> told;
    for (const v1::Image& image : all.images()) {
      if (!image.backing_image().empty()) stand.emplace(image.backing_image(), image.name());
      for (const std::string& dependent : image.dependents()) {
        if (dependent.starts_with("images/")) told.emplace(image.name(), dependent);
      }
    }
    EXPECT_EQ(told, stand);
    for (const v1::Image& image : all.images()) {
      const std::string file = SpecOf(image).file_name;
      expected.insert(file);
      EXPECT_EQ(image.state(), v1::Image::STATE_ACTIVE);
      EXPECT_EQ(image.observed_generation(), image.generation());
      EXPECT_FALSE(image.reconciling());
      EXPECT_TRUE(image.operation().empty());
      if (!files_.Has(file)) continue;
      EXPECT_EQ(files_.Get(file).uid, image.uid());
      EXPECT_EQ(files_.Get(file).bytes.size(), image.virtual_size_bytes());
    }
    const std::vector<std::string> names = files_.names();
    EXPECT_EQ(std::set<std::string>(names.begin(), names.end()), expected);
  }
  void ExpectExports() {
    std::set<std::string> expected;
    const auto all = domain_->exports().List({});
    ASSERT_TRUE(all.ok()) << all.status();
    for (const v1::Export& exported : all->exports()) {
      EXPECT_TRUE(exported.operation().empty());
      const bool served = engine_->Serves(exported.name());
      EXPECT_EQ(exported.state() == v1::Export::STATE_FAILED, !served) << exported.DebugString();
      if (!served) continue;
      expected.insert(exported.name());
      EXPECT_EQ(exported.observed_generation(), exported.generation());
      EXPECT_FALSE(exported.reconciling());
      const engine::ExportSpec spec = engine_->Spec(exported.name());
      EXPECT_EQ(spec.generation, exported.generation());
      EXPECT_EQ(spec.read_only, exported.read_only());
      EXPECT_EQ(spec.enabled, exported.enabled());
      EXPECT_EQ(spec.description, exported.description());
    }
    const std::vector<std::string> served = engine_->served();
    EXPECT_EQ(std::set<std::string>(served.begin(), served.end()), expected);
  }

  // Every export is served with the filters that the rows say, and filters tell their exports.
  void ExpectFilters() {
    const auto filters = domain_->filters().List({});
    const auto exports = domain_->exports().List({});
    ASSERT_TRUE(filters.ok() && exports.ok());
    std::set<std::pair<std::string, std::string>> attached;
    std::set<std::pair<std::string, std::string>> told;
    StackSource source;
    source.allow_faults = true;
    source.find = [&](const std::string& name, const std::string&) -> absl::StatusOr<v1::Filter> {
      return domain_->filters().Get(name);
    };
    for (const v1::Filter& filter : filters->filters()) {
      EXPECT_EQ(filter.observed_generation(), filter.generation()) << filter.name();
      for (const std::string& name : filter.exports()) told.emplace(filter.name(), name);
    }
    for (const v1::Export& exported : exports->exports()) {
      for (const std::string& name : FiltersOf(exported)) attached.emplace(name, exported.name());
      if (!engine_->Serves(exported.name())) continue;
      const auto stack = ResolveStack(exported, source);
      ASSERT_TRUE(stack.ok()) << stack.status();
      EXPECT_TRUE(engine_->Spec(exported.name()).filters == *stack) << exported.name();
    }
    EXPECT_EQ(told, attached);
  }

  Death death_;
  std::unique_ptr<ApiCalls> calls_;
  std::set<std::string> foreign_files_;  // that belong in the pool

 private:
  void CutEverywhere(const Scenario& scenario, Way way, bool twice) {
    bool cut = true;
    for (int steps = 0; cut && !HasFailure(); ++steps) {
      SCOPED_TRACE(testing::Message() << "after " << steps << " steps, way "
                                      << static_cast<int>(way) << (twice ? ", twice" : ""));
      ASSERT_LT(steps, kMoreThanAnyCallTakes);
      NewWorld();
      scenario.prepare();
      cut = Play(scenario, steps, way, twice);
      EXPECT_TRUE(cut || steps > 0 || way == Way::kFailAfter) << "The call has no steps.";
    }
  }
  // True if there was a step to cut at.
  bool Play(const Scenario& scenario, int steps, Way way, bool twice) {
    death_.After(steps, way);
    const absl::StatusOr<Told> first = scenario.call(false);
    scenario.meanwhile();
    // A call that has failed has left nothing that runs.
    if (!scenario.finish && first.ok()) AwaitAnswered();
    const bool cut = death_.came();
    EXPECT_TRUE(cut || first.ok()) << first.status();
    Kill();
    if (twice) DieAgain(steps % 7, way, !scenario.finish);
    Resurrect();
    if (testing::Test::HasFatalFailure()) return false;
    if (!scenario.finish) AwaitQuiet();
    Judge(scenario, first, way == Way::kFailBefore || way == Way::kFailAfter);
    return cut;
  }
  void DieAgain(int steps, Way way, bool await) {
    death_.After(steps, way);
    if (TryStart().ok()) {
      Enter();
      if (await) AwaitQuiet();
    }
    Kill();
  }

  // A job that met an error that passes may have failed, if it has said so.
  bool HasFailed(const absl::StatusOr<Told>& told) {
    if (!told.ok() || told->operation.empty()) return false;
    const auto operation = domain_->operations().Get(told->operation);
    return operation.ok() && operation->has_error();
  }

  void Judge(const Scenario& scenario, const absl::StatusOr<Told>& first, bool may_fail) {
    if (may_fail && HasFailed(first)) {
      scenario.failed();
      return ExpectAgreement();
    }
    if (first.ok()) scenario.done(true);
    const absl::StatusOr<Told> again = scenario.call(false);
    ASSERT_TRUE(again.ok()) << again.status();
    if (may_fail && HasFailed(again)) {
      scenario.failed();
      return ExpectAgreement();
    }
    if (first.ok()) {
      EXPECT_EQ(again->text, first->text);
    }
    if (!scenario.finish) AwaitQuiet();
    if (!again->operation.empty() && !scenario.finish) {
      const auto operation = domain_->operations().Get(again->operation);
      EXPECT_TRUE(operation.ok() && operation->has_response()) << again->operation;
    }
    if (scenario.has_request_id) {
      EXPECT_EQ(ReasonIn(scenario.call(true).status()), "REQUEST_ID_REUSED");
    }
    scenario.done(first.ok());
    if (scenario.finish) {
      scenario.finish();
      AwaitQuiet();
    }
    ExpectAgreement();
  }

  uint64_t subscription_ = 0;
};

}  // namespace gabion::service
