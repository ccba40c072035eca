#include "service/domain/observer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "service/domain/await.h"
#include "service/domain/change_feed.h"
#include "service/store/memory_store.h"
#include "tests/service/domain/fixture.h"
#include "tests/service/fake_engine.h"

namespace gabion::service {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

engine::ConnectionState State(uint64_t id) {
  engine::ConnectionState state;
  state.id = id;
  state.peer = absl::StrCat("peer ", id);
  state.connect_time_us = 1'500'000;
  return state;
}

// exports/e and exports/f, whose connections an observer writes.
class ObserverTest : public testing::Test {
 protected:
  ObserverTest() : kept_(NewMemoryStore()), store_(*kept_), engine_(files_), feed_(store_) {
    for (const char* name : {"exports/e", "exports/f"}) {
      EXPECT_TRUE(store_.Commit({Put("exports", name, "")}).ok());
      engine::ExportSpec spec;
      spec.name = name;
      spec.nbd_name = name;
      EXPECT_TRUE(Await<absl::StatusOr<engine::ExportState>>([&](auto done) {
                    engine_.CreateExport(spec, std::move(done));
                  }).ok());
    }
    feed_.Subscribe([this] {
      const std::lock_guard lock(mutex_);
      changed_.notify_all();
    });
  }
  ~ObserverTest() override {
    OpenGate();
    observer_.reset();
  }

  void Observe(std::size_t max_events = 100) {
    begin_ = *store_.Revision();
    ObserverOptions options;
    options.gather = std::chrono::milliseconds(1);
    options.retry = std::chrono::milliseconds(1);
    options.max_events = max_events;
    observer_ = std::make_unique<ConnectionObserver>(engine_, store_, NullLogger(), options);
    const absl::Status started = observer_->Start();
    ASSERT_TRUE(started.ok()) << started;
  }
  void Connect(const std::string& export_name, uint64_t id) {
    engine_.AddConnection(export_name, State(id));
    observer_->inbox()->Connected(export_name, State(id));
  }
  void Disconnect(const std::string& export_name, uint64_t id) {
    const absl::Status closed = Await<absl::Status>(
        [&](auto done) { engine_.CloseConnection(export_name, id, std::move(done)); });
    EXPECT_TRUE(closed.ok()) << closed;
    observer_->inbox()->Disconnected(export_name, id);
  }
  std::vector<std::string> Rows() {
    std::vector<std::string> names;
    const absl::StatusOr<Page> page = store_.List("connections", "", 1000, "");
    for (const Row& row : page->rows) names.push_back(row.name);
    return names;
  }
  // Blocks until the rows are these.
  void AwaitRows(const std::vector<std::string>& names) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return Rows() == names; });
  }
  // "put connections/1", "touch exports/e": what was logged since the observer began.
  std::vector<std::string> Log() {
    std::vector<std::string> texts;
    const absl::StatusOr<std::vector<Change>> changes = store_.Changes(begin_, 1000);
    for (const Change& change : *changes) {
      constexpr const char* kKinds[] = {"put", "delete", "touch"};
      texts.push_back(absl::StrCat(kKinds[static_cast<int>(change.kind)], " ", change.name));
    }
    return texts;
  }

  // Commits of the observer wait from now on, and whoever calls this waits until one does.
  void HoldACommit(const std::function<void()>& cause) {
    {
      const std::lock_guard lock(mutex_);
      held_ = true;
    }
    store_.SetGate([this] {
      std::unique_lock lock(mutex_);
      waiting_ = true;
      changed_.notify_all();
      changed_.wait(lock, [this] { return !held_; });
      return gate_answer_;
    });
    cause();
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return waiting_; });
  }
  void OpenGate(absl::Status first_answer = absl::OkStatus()) {
    const std::lock_guard lock(mutex_);
    held_ = false;
    gate_answer_ = std::move(first_answer);
    changed_.notify_all();
  }

  FakeFiles files_;
  const std::unique_ptr<MetadataStore> kept_;
  GatedStore store_;
  FakeEngine engine_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool held_ = false;
  bool waiting_ = false;
  absl::Status gate_answer_;
  uint64_t begin_ = 0;
  ChangeFeed feed_;
  std::unique_ptr<ConnectionObserver> observer_;
};

TEST_F(ObserverTest, AConnectionIsARowFromItsBeginToItsEndAndTouchesTheExport) {
  Observe();
  Connect("exports/e", 7);
  AwaitRows({"exports/e/connections/7"});
  const absl::StatusOr<Row> row = store_.Get("connections", "exports/e/connections/7");
  ASSERT_TRUE(row.ok()) << row.status();
  v1::Connection connection;
  ASSERT_TRUE(connection.ParseFromString(row->value));
  EXPECT_EQ(connection.name(), "exports/e/connections/7");
  EXPECT_EQ(connection.peer_address(), "peer 7");
  EXPECT_EQ(connection.connect_time().nanos(), 500'000'000);
  Disconnect("exports/e", 7);
  AwaitRows({});
  EXPECT_THAT(Log(), ElementsAre("put exports/e/connections/7", "touch exports/e",
                                 "delete exports/e/connections/7", "touch exports/e"));
}

TEST_F(ObserverTest, WhatComesDuringACommitIsTheNextOne) {
  Observe();
  HoldACommit([&] { Connect("exports/e", 1); });
  for (uint64_t id = 2; id <= 4; ++id) Connect("exports/e", id);
  Connect("exports/f", 5);
  Disconnect("exports/e", 1);
  OpenGate();
  AwaitRows({"exports/e/connections/2", "exports/e/connections/3", "exports/e/connections/4",
             "exports/f/connections/5"});
  EXPECT_THAT(Log(),
              ElementsAre("put exports/e/connections/1", "touch exports/e",
                          "put exports/e/connections/2", "put exports/e/connections/3",
                          "put exports/e/connections/4", "put exports/f/connections/5",
                          "delete exports/e/connections/1", "touch exports/e", "touch exports/f"));
}

TEST_F(ObserverTest, RowsOfTheLastRunAreRemovedAtTheStartInTheLog) {
  std::vector<Mutation> left;
  for (int i = 0; i < 300; ++i) {
    left.push_back(Put("connections", absl::StrCat("exports/e/connections/", i + 1), "old"));
  }
  ASSERT_TRUE(store_.Commit(left).ok());
  Observe();
  EXPECT_THAT(Rows(), IsEmpty());
  std::size_t deletions = 0;
  for (const std::string& text : Log()) deletions += text.starts_with("delete exports/e/") ? 1 : 0;
  EXPECT_EQ(deletions, 300u);
}

TEST_F(ObserverTest, WhatDoesNotFitIsAskedOfTheEngine) {
  Observe(/*max_events=*/3);
  HoldACommit([&] { Connect("exports/e", 1); });
  for (uint64_t id = 2; id <= 9; ++id) Connect("exports/f", id);
  for (uint64_t id = 2; id <= 7; ++id) Disconnect("exports/f", id);
  Disconnect("exports/e", 1);
  OpenGate();
  AwaitRows({"exports/f/connections/8", "exports/f/connections/9"});
  Disconnect("exports/f", 9);
  AwaitRows({"exports/f/connections/8"});
}

TEST_F(ObserverTest, WhatCouldNotBeWrittenIsWrittenLater) {
  Observe();
  int failures = 3;
  store_.SetGate([&failures]() -> absl::Status {
    return failures-- > 0 ? absl::ResourceExhaustedError("the disk is full") : absl::OkStatus();
  });
  Connect("exports/e", 1);
  Connect("exports/f", 2);
  AwaitRows({"exports/e/connections/1", "exports/f/connections/2"});
}

TEST_F(ObserverTest, TheEndOfAConnectionThatHasNoRowIsNothing) {
  Observe();
  observer_->inbox()->Disconnected("exports/e", 5);
  Connect("exports/e", 6);
  AwaitRows({"exports/e/connections/6"});
  EXPECT_THAT(Log(), ElementsAre("put exports/e/connections/6", "touch exports/e"));
}

TEST_F(ObserverTest, AnExportThatIsGoneHasNoConnectionsAfterAResync) {
  Observe(/*max_events=*/1);
  Connect("exports/e", 1);
  AwaitRows({"exports/e/connections/1"});
  HoldACommit([&] { Connect("exports/f", 2); });
  EXPECT_TRUE(Await<absl::Status>([&](auto done) {
                engine_.DeleteExport("exports/e", engine::DeleteMode::kHard, std::move(done));
              }).ok());
  observer_->inbox()->Disconnected("exports/e", 1);
  Connect("exports/f", 3);
  OpenGate();
  AwaitRows({"exports/f/connections/2", "exports/f/connections/3"});
}

TEST_F(ObserverTest, TheEngineMayGoOnTellingAfterTheEnd) {
  Observe();
  const std::shared_ptr<ConnectionInbox> inbox = observer_->inbox();
  Connect("exports/e", 1);
  AwaitRows({"exports/e/connections/1"});
  observer_.reset();
  inbox->Disconnected("exports/e", 1);
  inbox->Connected("exports/e", State(2));
  EXPECT_THAT(Rows(), ElementsAre("exports/e/connections/1"));
}

}  // namespace
}  // namespace gabion::service
