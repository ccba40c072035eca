#include "service/domain/operation_manager.h"

#include <future>
#include <set>
#include <thread>

#include "service/domain/request_log.h"
#include "tests/service/domain/job_fixture.h"

namespace gabion::service {
namespace {

using google::longrunning::ListOperationsRequest;
using std::chrono::seconds;
using testing::ElementsAre;

class OperationManagerTest : public JobFixture {
 protected:
  Operation AddDone() {
    v1::Image image;
    image.set_name("images/done");
    std::vector<Mutation> steps;
    const Operation operation =
        OperationManager::AddDone({}, JobMetadata::KIND_UNDELETE, "images/done", image, &steps);
    EXPECT_TRUE(store_.Commit(steps).ok());
    return operation;
  }
  std::string ListReason(const ListOperationsRequest& request) {
    return InfoOf(manager_->List(request).status()).reason();
  }
};

TEST_F(OperationManagerTest, WhatDoesNotExistIsNotFound) {
  const std::string name = "operations/none";
  EXPECT_EQ(InfoOf(manager_->Get(name).status()).reason(), "RESOURCE_NOT_FOUND");
  EXPECT_EQ(InfoOf(manager_->Start(name).status()).reason(), "RESOURCE_NOT_FOUND");
  EXPECT_EQ(InfoOf(manager_->Cancel(name)).reason(), "RESOURCE_NOT_FOUND");
  EXPECT_EQ(InfoOf(manager_->Delete(name)).reason(), "RESOURCE_NOT_FOUND");
  EXPECT_EQ(InfoOf(Pause(name)).reason(), "RESOURCE_NOT_FOUND");
  EXPECT_EQ(InfoOf(Resume(name)).reason(), "RESOURCE_NOT_FOUND");
  EXPECT_EQ(InfoOf(SetRate(name, 1)).reason(), "RESOURCE_NOT_FOUND");
  manager_->Wake(name);
}

TEST_F(OperationManagerTest, WhatIsDoneCannotBePausedAndIsForgottenOnRequest) {
  const Operation operation = AddDone();
  const std::string& name = operation.name();
  EXPECT_EQ(Get(name).SerializeAsString(), operation.SerializeAsString());
  EXPECT_EQ(Metadata(name).state(), JobMetadata::STATE_DONE);
  EXPECT_EQ(InfoOf(Pause(name)).reason(), "OPERATION_DONE");
  EXPECT_EQ(InfoOf(Resume(name)).reason(), "OPERATION_DONE");
  EXPECT_EQ(InfoOf(SetRate(name, 1)).reason(), "OPERATION_DONE");
  EXPECT_TRUE(manager_->Cancel(name).ok());
  EXPECT_TRUE(manager_->Delete(name).ok());
  EXPECT_EQ(InfoOf(manager_->Delete(name)).reason(), "RESOURCE_NOT_FOUND");
}

TEST_F(OperationManagerTest, WhatIsNotDoneIsNotForgotten) {
  const std::string name = BeginPaused();
  EXPECT_EQ(InfoOf(manager_->Delete(name)).reason(), "OPERATION_NOT_DONE");
  EXPECT_EQ(InfoOf(manager_->Delete(name)).metadata().at("operation"), name);
  EXPECT_EQ(Metadata(name).state(), JobMetadata::STATE_PAUSED);
}

TEST_F(OperationManagerTest, ADryRunChangesNothing) {
  const std::string name = BeginPaused();
  const std::string before = Get(name).SerializeAsString();
  Call call;
  call.validate_only = true;
  v1::SetJobRateRequest request;
  request.set_name(name);
  request.set_limit_bytes_per_second(7);
  const auto would_be = manager_->SetRate(request, call);
  ASSERT_TRUE(would_be.ok()) << would_be.status();
  EXPECT_EQ(MetadataOf(*would_be).limit_bytes_per_second(), 7u);
  EXPECT_TRUE(Resume(name, call).ok());
  EXPECT_EQ(Get(name).SerializeAsString(), before);
}

TEST_F(OperationManagerTest, ARequestIsRememberedWithItsEffect) {
  RequestLog log(store_, locks_);
  Call create;
  create.request = "CreateImage/1";
  const std::string name = Begin(kTarget, create);
  EXPECT_EQ((*log.Find(create))->operation(), name);
  Call pause;
  pause.request = "PauseJob/2";
  EXPECT_TRUE(Pause(name, pause).ok());
  EXPECT_EQ((*log.Find(pause))->operation(), name);
  Call again;  // changes nothing any more, and is remembered
  again.request = "PauseJob/3";
  EXPECT_TRUE(Pause(name, again).ok());
  EXPECT_EQ((*log.Find(again))->operation(), name);
  Call refused;
  refused.request = "PauseJob/4";
  store_.SetGate([] { return absl::UnavailableError("disk"); });
  EXPECT_EQ(SetRate(name, 7, refused).code(), absl::StatusCode::kUnavailable);
  store_.SetGate(nullptr);
  EXPECT_FALSE((*log.Find(refused)).has_value());
  EXPECT_EQ(Metadata(name).limit_bytes_per_second(), 0u);
}

TEST_F(OperationManagerTest, ATargetKnowsItsOperationWhileItIsNotDone) {
  EXPECT_EQ(manager_->OperationOf(kTarget), std::nullopt);
  const std::string name = Begin();
  EXPECT_EQ(manager_->OperationOf(kTarget), name);
  EXPECT_TRUE(Start(name).done());
  EXPECT_EQ(manager_->OperationOf(kTarget), std::nullopt);
}

TEST_F(OperationManagerTest, AnOperationThatCouldNotBeWrittenIsNotKnown) {
  store_.SetGate([] { return absl::UnavailableError("disk"); });
  EXPECT_EQ(Begin(), "");
  EXPECT_EQ(manager_->OperationOf(kTarget), std::nullopt);
}

TEST_F(OperationManagerTest, ThereIsALimit) {
  manager_.reset();
  options_.max_jobs = 2;
  Open();
  BeginPaused("images/a");
  const std::string second = BeginPaused("images/b");
  std::vector<Mutation> steps;
  const absl::Status full =
      manager_->Begin({}, JobMetadata::KIND_CREATE, "images/c", {}, &steps).status();
  EXPECT_EQ(InfoOf(full).reason(), "TOO_MANY_JOBS");
  EXPECT_EQ(InfoOf(full).metadata().at("limit"), "2");
  EXPECT_TRUE(steps.empty());
  EXPECT_TRUE(manager_->Cancel(second).ok());
  WaitDone(second);
  EXPECT_NE(Begin("images/c"), "");
}

TEST_F(OperationManagerTest, DeletionsAreNotLimited) {
  manager_.reset();
  options_.max_jobs = 1;
  Open();
  BeginPaused("images/a");
  std::vector<Mutation> steps;
  for (const auto kind : {JobMetadata::KIND_DELETE, JobMetadata::KIND_DRAIN}) {
    const absl::Status begun = manager_->Begin({}, kind, "images/b", {}, &steps).status();
    EXPECT_TRUE(begun.ok()) << begun;
  }
}

TEST_F(OperationManagerTest, WhatCouldNotBeStartedIsStartedLater) {
  const std::string name = Begin();
  std::atomic<int> failures = 3;
  store_.SetReadGate(
      [&] { return failures-- > 0 ? absl::UnavailableError("disk") : absl::OkStatus(); });
  EXPECT_EQ(manager_->Start(name).status().code(), absl::StatusCode::kUnavailable);
  while (failures >= 0) std::this_thread::yield();  // ctest ends it otherwise
  EXPECT_TRUE(WaitDone(name).has_response());
}

TEST_F(OperationManagerTest, WhatWasBegunWithoutAnAnswerIsStarted) {
  store_.SetAnswer([] { return absl::UnavailableError("who knows"); });
  store::v1::Job work;
  work.mutable_build();
  std::vector<Mutation> steps;
  const auto name = manager_->Begin({}, JobMetadata::KIND_CREATE, kTarget, work, &steps);
  ASSERT_TRUE(name.ok());
  EXPECT_FALSE(store_.Commit(steps).ok());
  store_.SetAnswer({});
  manager_->StartIfBegun(*name);
  EXPECT_TRUE(WaitDone(*name).has_response());
  manager_->StartIfBegun("operations/none");  // changes nothing
}

TEST_F(OperationManagerTest, WhatIsDeletedIsKeptForTheCallsThatItAnswered) {
  RequestLog requests(store_, locks_);
  const std::string name = Begin();
  EXPECT_FALSE(requests.Deleted(name)->has_value());
  const Operation ended = Start(name);
  ASSERT_TRUE(ended.done());
  ASSERT_TRUE(manager_->Delete(name).ok());
  const auto kept = requests.Deleted(name);
  ASSERT_TRUE(kept.ok() && kept->has_value());
  EXPECT_EQ((*kept)->SerializeAsString(), ended.SerializeAsString());
  ASSERT_TRUE(requests.Expire(seconds(3600)).ok());
  EXPECT_TRUE(requests.Deleted(name)->has_value());
  ASSERT_TRUE(requests.Expire(seconds(-10)).ok());  // as if ten seconds had passed
  EXPECT_FALSE(requests.Deleted(name)->has_value());
  EXPECT_EQ(Rows("requests") + Rows("expiries"), 0u);
}

TEST_F(OperationManagerTest, ListsAllInPages) {
  std::set<std::string> names;
  for (int i = 0; i < 5; ++i) names.insert(AddDone().name());
  ListOperationsRequest request;
  request.set_page_size(2);
  std::vector<std::string> seen;
  do {
    const auto page = manager_->List(request);
    ASSERT_TRUE(page.ok()) << page.status();
    EXPECT_LE(page->operations_size(), 2);
    for (const Operation& operation : page->operations()) seen.push_back(operation.name());
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  EXPECT_EQ(seen, std::vector<std::string>(names.begin(), names.end()));
  request.set_page_size(0);
  request.set_name("operations");
  EXPECT_EQ(manager_->List(request)->operations_size(), 5);
}

TEST_F(OperationManagerTest, ListsWhatAFilterAsksFor) {
  AddDone();
  const std::string paused = BeginPaused();
  ListOperationsRequest request;
  const auto only = [&](const std::string& filter) {
    request.set_filter(filter);
    const auto page = manager_->List(request);
    EXPECT_TRUE(page.ok()) << page.status();
    return page.ok() && page->operations_size() == 1 ? page->operations(0).name() : "";
  };
  EXPECT_EQ(only("done = false AND metadata.target = \"images/a\""), paused);
  EXPECT_EQ(only("metadata.state = STATE_PAUSED"), paused);
  EXPECT_NE(only("done = true"), paused);
  request.set_filter("nothing = 1");
  EXPECT_EQ(ListReason(request), "FILTER_EXPRESSION_INVALID");
}

TEST_F(OperationManagerTest, RefusesListsThatMakeNoSense) {
  ListOperationsRequest request;
  request.set_name("images");
  EXPECT_EQ(ListReason(request), "NAME_INVALID");
  request.Clear();
  request.set_page_size(-1);
  EXPECT_EQ(ListReason(request), "PAGE_SIZE_NEGATIVE");
  request.Clear();
  request.set_page_token("x");
  EXPECT_EQ(ListReason(request), "PAGE_TOKEN_INVALID");
}

TEST_F(OperationManagerTest, WhatHasBeenDoneForLongIsForgotten) {
  for (int i = 0; i < 300; ++i) AddDone();
  const std::string paused = BeginPaused();
  ASSERT_TRUE(manager_->Expire(seconds(3600)).ok());
  EXPECT_EQ(Rows("operations"), 301u);
  ASSERT_TRUE(manager_->Expire(seconds(-10)).ok());  // as if ten seconds had passed
  EXPECT_EQ(Rows("operations"), 1u);
  EXPECT_EQ(Metadata(paused).state(), JobMetadata::STATE_PAUSED);
}

TEST_F(OperationManagerTest, WhoWaitsIsCalledOnceAtTheEnd) {
  const std::string name = BeginPaused();
  std::promise<void> called;
  manager_->WhenDone(name, [&] {
    EXPECT_TRUE(Get(name).done());
    called.set_value();
  });
  const uint64_t withdrawn = manager_->WhenDone(name, [] { ADD_FAILURE(); });
  EXPECT_TRUE(manager_->Withdraw(withdrawn));
  EXPECT_FALSE(manager_->Withdraw(withdrawn));
  EXPECT_TRUE(Resume(name).ok());
  called.get_future().wait();
  bool at_once = false;
  const uint64_t late = manager_->WhenDone(name, [&] { at_once = true; });
  EXPECT_TRUE(at_once);
  EXPECT_FALSE(manager_->Withdraw(late));
  at_once = false;
  manager_->WhenDone("operations/none", [&] { at_once = true; });
  EXPECT_TRUE(at_once);
}

TEST_F(OperationManagerTest, WhoWaitsBeforeTheStartIsCalledToo) {
  const std::string name = Begin();
  std::atomic<int> called = 0;
  manager_->WhenDone(name, [&] { ++called; });
  EXPECT_EQ(called, 0);
  EXPECT_TRUE(Start(name).done());
  EXPECT_EQ(called, 1);
}

TEST_F(OperationManagerTest, EachWaitIsCalledOrWithdrawnNeverBoth) {
  fake_.total_bytes = 200;
  constexpr int kRounds = 200;
  for (int round = 0; round < kRounds; ++round) {
    const std::string name = Begin("images/" + std::to_string(round));
    std::atomic<int> called = 0;
    std::vector<uint64_t> ids;
    for (int i = 0; i < 8; ++i) ids.push_back(manager_->WhenDone(name, [&] { ++called; }));
    int withdrawn = 0;
    std::thread other([&] {
      for (const uint64_t id : ids) withdrawn += manager_->Withdraw(id) ? 1 : 0;
    });
    Start(name);
    other.join();
    WaitDone(name);
    manager_->Stop();  // calls that are under way have come back
    ASSERT_EQ(called + withdrawn, 8);
    Restart();
  }
}

TEST_F(OperationManagerTest, WorkThatNobodyKnowsEndsInterrupted) {
  std::vector<Mutation> steps;
  store::v1::Job work;
  work.mutable_drain();
  const auto name = manager_->Begin({}, JobMetadata::KIND_DRAIN, "exports/e", work, &steps);
  ASSERT_TRUE(name.ok() && store_.Commit(steps).ok());
  Restart();
  EXPECT_EQ(ReasonOf(WaitDone(*name)), "JOB_INTERRUPTED");
  EXPECT_EQ(Rows("jobs"), 0u);
}

TEST_F(OperationManagerTest, HalfOfAnOperationEndsInterrupted) {
  const std::string no_job = Begin("images/a");
  ASSERT_TRUE(store_.Commit({Remove("jobs", no_job)}).ok());
  const std::string no_row = Begin("images/b");
  ASSERT_TRUE(store_.Commit({Remove("operations", no_row)}).ok());
  Restart();
  for (const std::string& name : {no_job, no_row}) {
    const Operation operation = WaitDone(name);
    EXPECT_TRUE(operation.done());
    EXPECT_EQ(ReasonOf(operation), "JOB_INTERRUPTED");
    EXPECT_EQ(Metadata(name).state(), JobMetadata::STATE_DONE);
  }
  EXPECT_EQ(Metadata(no_job).target(), "images/a");
  EXPECT_EQ(Rows("jobs"), 0u);
}

// Loses power after each of the commits that a scenario makes, one after another, and looks at what
// the next run makes of it.
class RestartTest : public JobFixture {
 protected:
  // False: there was no commit after the first `commits` ones, so that nothing was cut.
  bool CutAfter(int commits, bool* cancelled) {
    manager_.reset();
    kept_ = NewMemoryStore();
    cut_store_ = std::make_unique<BreakingStore>(*kept_);
    fake_.pieces_done.clear();
    std::promise<void> over;
    std::once_flag once;
    std::atomic<int> left = commits;
    std::atomic<bool> cut = false;
    cut_store_->SetGate([&]() -> absl::Status {
      if (left-- > 0) return absl::OkStatus();
      cut = true;
      std::call_once(once, [&] { over.set_value(); });
      return absl::UnavailableError("power cut");
    });
    OpenOn(*cut_store_);
    const std::string name = BeginOn(*cut_store_);
    if (!name.empty()) {
      manager_->WhenDone(name, [&] { std::call_once(once, [&] { over.set_value(); }); });
      Start(name);
      over.get_future().wait();
    }
    manager_.reset();
    cut_store_->SetGate(nullptr);
    if (!name.empty()) Converges(name, cut, cancelled);
    return cut;
  }

  void Converges(const std::string& name, bool restarted, bool* cancelled) {
    OpenOn(*cut_store_);
    const absl::Status recovered = manager_->Recover();
    ASSERT_TRUE(recovered.ok()) << recovered;
    const Operation operation = WaitDone(name);
    ASSERT_TRUE(operation.done());
    EXPECT_EQ(Rows("jobs"), 0u);
    EXPECT_EQ(Rows("images"), operation.has_response() ? 1u : 0u);
    EXPECT_EQ(Rows("undone"), operation.has_response() ? 0u : 1u);
    if (fake_fails_) {
      EXPECT_EQ(ReasonOf(operation), "POOL_FULL");
    }
    if (cancel_asked_) {
      EXPECT_EQ(ReasonOf(operation), "OPERATION_CANCELLED");
    }
    if (!fake_fails_ && !cancel_asked_) {
      EXPECT_TRUE(operation.has_response());
    }
    *cancelled = cancel_asked_;
    const bool resumed = MetadataOf(operation).resumed_after_restart();
    if (!restarted) {
      EXPECT_FALSE(resumed);
    }
  }

  // How many commits the scenario makes.
  int CutEverywhere() {
    bool cancelled = false;
    for (int commits = 0; commits < 100; ++commits) {
      SCOPED_TRACE(commits);
      cancel_asked_ = false;
      if (!CutAfter(commits, &cancelled)) return commits;
    }
    ADD_FAILURE() << "it never ends";
    return 100;
  }

  void OpenOn(MetadataStore& store) {
    manager_ = std::make_unique<OperationManager>(store, locks_, tokens_, NullLogger(), options_);
    manager_->Register(store::v1::Job::kBuild,
                       [this](const std::string& operation, const JobMetadata& metadata,
                              const store::v1::Job&) -> absl::StatusOr<std::unique_ptr<Job>> {
                         return std::make_unique<FakeJob>(fake_, operation, metadata.target());
                       });
  }
  std::string BeginOn(MetadataStore& store) {
    store::v1::Job work;
    work.mutable_build();
    std::vector<Mutation> steps;
    const auto name = manager_->Begin({}, JobMetadata::KIND_CREATE, kTarget, work, &steps);
    return name.ok() && store.Commit(steps).ok() ? *name : "";
  }

  std::unique_ptr<BreakingStore> cut_store_;
  bool fake_fails_ = false;
  std::atomic<bool> cancel_asked_ = false;
};

TEST_F(RestartTest, WorkHasItsEffectOnce) {
  fake_.total_bytes = 450;
  EXPECT_GE(CutEverywhere(), 6);
}

TEST_F(RestartTest, AnAnswerThatTheStoreLosesChangesNothing) {
  fake_.total_bytes = 450;
  int lost = 0;
  for (int commits = 1; commits < 12; ++commits) {
    SCOPED_TRACE(commits);
    const std::string target = "images/" + std::to_string(commits);
    const std::string name = Begin(target);
    std::atomic<int> left = commits;
    store_.SetAnswer([&]() -> absl::Status {
      if (--left != 0) return absl::OkStatus();
      ++lost;
      return absl::UnavailableError("lost");
    });
    Start(name);
    EXPECT_TRUE(WaitDone(name).has_response());
    manager_->Stop();
    store_.SetAnswer(nullptr);
    EXPECT_EQ(Rows("images"), static_cast<size_t>(commits));
    EXPECT_EQ(Rows("jobs"), 0u);
    Restart();
  }
  EXPECT_GE(lost, 5);
}

TEST_F(RestartTest, ShortWorkHasItsEffectOnce) {
  fake_.total_bytes = 50;
  EXPECT_EQ(CutEverywhere(), 2);  // it begins, and it is done
}

TEST_F(RestartTest, WorkThatFailsIsUndoneOnce) {
  fake_.total_bytes = 450;
  fake_fails_ = true;
  fake_.work = [](const std::string&, uint64_t from) -> absl::Status {
    if (from < 200) return absl::OkStatus();
    return Error(reason::kPoolFull, "There is no space.");
  };
  EXPECT_GE(CutEverywhere(), 5);
}

TEST_F(RestartTest, AnAnsweredCancelIsKept) {
  fake_.total_bytes = 450;
  fake_.work = [this](const std::string& name, uint64_t from) -> absl::Status {
    if (from == 200 && manager_->Cancel(name).ok()) cancel_asked_ = true;
    return absl::OkStatus();
  };
  EXPECT_GE(CutEverywhere(), 6);
}

}  // namespace
}  // namespace gabion::service
