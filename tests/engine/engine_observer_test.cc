// What the control plane learns of many exports at once and of connections, and how it shuts an
// export down under its clients.
#include <gtest/gtest.h>
#include <libnbd.h>

#include <cerrno>
#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine/base/reason.h"
#include "tests/engine/engine_fixture.h"

namespace gabion::engine {
namespace {

// Writes down what an engine tells of connections. Thread-safe.
class Journal {
 public:
  Observer MakeObserver() {
    Observer observer;
    observer.connected = [this](const std::string& name, const ConnectionState& state) {
      Write(name, state.id, "connected " + state.peer);
    };
    observer.disconnected = [this](const std::string& name, uint64_t id) {
      Write(name, id, "disconnected");
    };
    return observer;
  }

  // Blocks until there are `count` entries.
  std::vector<std::string> Await(std::size_t count) {
    std::unique_lock lock(mutex_);
    written_.wait(lock, [&] { return entries_.size() >= count; });
    return entries_;
  }
  // What was told of each connection, in order.
  std::map<uint64_t, std::vector<std::string>> ByConnection() {
    const std::lock_guard lock(mutex_);
    return by_connection_;
  }

 private:
  void Write(const std::string& name, uint64_t id, const std::string& what) {
    const std::lock_guard lock(mutex_);
    entries_.push_back(name + " " + what.substr(0, what.find(':')));
    by_connection_[id].push_back(what.substr(0, what.find(' ')));
    written_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable written_;
  std::vector<std::string> entries_;
  std::map<uint64_t, std::vector<std::string>> by_connection_;
};

class EngineObserverTest : public EngineTest {
 protected:
  void SetUp() override {
    EngineTest::SetUp();
    engine_->SetObserver(journal_.MakeObserver());
  }
  void TearDown() override { EngineTest::TearDown(); }

  std::vector<absl::StatusOr<ExportState>> GetExports(std::vector<std::string> names) {
    return Wait<std::vector<absl::StatusOr<ExportState>>>(
        [&](auto done) { engine_->GetExports(std::move(names), std::move(done)); });
  }

  Journal journal_;
};

TEST_P(EngineObserverTest, ConnectionsAreToldWhenTheyComeAndGo) {
  ASSERT_TRUE(CreateImage("a", 4096).ok());
  ASSERT_TRUE(CreateExport(Export("e", "a")).ok());
  Nbd nbd = Connect("e");
  ASSERT_NE(nbd, nullptr) << nbd_get_error();
  EXPECT_EQ(journal_.Await(1).back(), "exports/e connected unix");
  EXPECT_EQ(GetExports({"exports/e"})[0]->connection_count, 1u);
  nbd.reset();
  EXPECT_EQ(journal_.Await(2).back(), "exports/e disconnected");
  EXPECT_EQ(GetExports({"exports/e"})[0]->connection_count, 0u);
}

TEST_P(EngineObserverTest, EveryConnectionIsToldTwiceInOrder) {
  ASSERT_TRUE(CreateImage("a", 4096).ok());
  ASSERT_TRUE(CreateImage("b", 4096).ok());
  ASSERT_TRUE(CreateExport(Export("e", "a")).ok());
  ASSERT_TRUE(CreateExport(Export("f", "b")).ok());
  constexpr int kEach = 40;
  std::vector<std::thread> threads;
  for (const char* const id : {"e", "f"}) {
    threads.emplace_back([this, id] {
      for (int i = 0; i < kEach; ++i) {
        const Nbd nbd = Connect(id);
        ASSERT_NE(nbd, nullptr) << nbd_get_error();
        if (i % 2 == 0) nbd_shutdown(nbd.get(), 0);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  journal_.Await(4 * kEach);
  const auto told = journal_.ByConnection();
  EXPECT_EQ(told.size(), 2u * kEach);
  for (const auto& [id, entries] : told) {
    EXPECT_EQ(entries, (std::vector<std::string>{"connected", "disconnected"})) << id;
  }
}

TEST_P(EngineObserverTest, StoppingTellsTheEndOfWhatIsStillConnected) {
  ASSERT_TRUE(CreateImage("a", 4096).ok());
  ASSERT_TRUE(CreateExport(Export("e", "a")).ok());
  const Nbd nbd = Connect("e");
  ASSERT_NE(nbd, nullptr) << nbd_get_error();
  journal_.Await(1);
  Stop();
  EXPECT_EQ(journal_.Await(2).back(), "exports/e disconnected");
}

TEST_P(EngineObserverTest, ShutdownTellsTheClientAndClosesAfterWhatItWrote) {
  ASSERT_TRUE(CreateImage("a", 4096).ok());
  ASSERT_TRUE(CreateExport(Export("e", "a")).ok());
  const Nbd busy = Connect("e");
  const Nbd idle = Connect("e");
  ASSERT_NE(busy, nullptr) << nbd_get_error();
  ASSERT_NE(idle, nullptr) << nbd_get_error();
  const char before = 'b';
  ASSERT_EQ(nbd_pwrite(busy.get(), &before, 1, 0, 0), 0) << nbd_get_error();
  std::promise<absl::Status> deleted;
  engine_->DeleteExport("exports/e", DeleteMode::kShutdown,
                        [&](absl::Status status) { deleted.set_value(std::move(status)); });
  char byte = 'x';
  while (nbd_pwrite(busy.get(), &byte, 1, 1, 0) == 0) {
  }
  EXPECT_EQ(nbd_get_errno(), ESHUTDOWN) << nbd_get_error();
  EXPECT_EQ(nbd_pread(busy.get(), &byte, 1, 0, 0), -1) << "there is no way back";
  EXPECT_EQ(Connect("e"), nullptr) << "nobody is let in";
  EXPECT_TRUE(deleted.get_future().get().ok());
  EXPECT_EQ(nbd_pread(idle.get(), &byte, 1, 0, 0), -1) << "closed, without having asked";
  EXPECT_EQ(GetExports({"exports/e"})[0].status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(CreateExport(Export("e", "a")).ok()) << "name and image are free";
  const Nbd again = Connect("e");
  ASSERT_NE(again, nullptr) << nbd_get_error();
  ASSERT_EQ(nbd_pread(again.get(), &byte, 1, 0, 0), 0) << nbd_get_error();
  EXPECT_EQ(byte, 'b');
}

TEST_P(EngineObserverTest, ShutdownWithoutConnectionsIsDoneAtOnce) {
  ASSERT_TRUE(CreateImage("a", 4096).ok());
  ASSERT_TRUE(CreateExport(Export("e", "a")).ok());
  EXPECT_TRUE(DeleteExport("exports/e", DeleteMode::kShutdown).ok());
  EXPECT_EQ(DeleteExport("exports/e", DeleteMode::kShutdown).code(), absl::StatusCode::kNotFound);
}

TEST_P(EngineObserverTest, BatchesAnswerEachInOrder) {
  std::vector<std::string> names;
  std::vector<ImageSpec> images;
  for (int i = 0; i < 20; ++i) {
    const std::string id = "i" + std::to_string(i);
    ASSERT_TRUE(CreateImage(id, 4096 + i).ok());
    ASSERT_TRUE(CreateExport(Export(id, id)).ok());
    names.push_back("exports/" + id);
    images.push_back(Image(id));
  }
  names[7] = "exports/nobody";
  images[7] = Image("nothing");
  images[8].pool = "pools/none";
  const auto states = GetExports(names);
  const auto infos = Wait<std::vector<absl::StatusOr<ImageInfo>>>(
      [&](auto done) { engine_->StatImages(images, std::move(done)); });
  ASSERT_EQ(states.size(), 20u);
  ASSERT_EQ(infos.size(), 20u);
  for (uint64_t i = 0; i < 20; ++i) {
    EXPECT_EQ(states[i].ok(), i != 7) << i;
    if (states[i].ok()) {
      EXPECT_EQ(states[i]->effective.export_size.value, 4096 + i);
    }
    EXPECT_EQ(infos[i].ok(), i != 7 && i != 8) << i;
    if (infos[i].ok()) {
      EXPECT_EQ(infos[i]->virtual_size.value, 4096 + i);
    }
  }
  EXPECT_EQ(ReasonOf(states[7].status())->reason, "RESOURCE_NOT_FOUND");
  EXPECT_EQ(ReasonOf(infos[7].status())->reason, "IMAGE_FILE_MISSING");
  EXPECT_EQ(ReasonOf(infos[8].status())->reason, "RESOURCE_NOT_FOUND");
  EXPECT_TRUE(GetExports({}).empty());
}

// More than the engine looks at in one go.
TEST_P(EngineObserverTest, ABatchMayBeLong) {
  ASSERT_TRUE(CreateImage("a", 4096).ok());
  std::vector<ImageSpec> images(1000, Image("nothing"));
  images[999] = Image("a");
  const auto infos = Wait<std::vector<absl::StatusOr<ImageInfo>>>(
      [&](auto done) { engine_->StatImages(images, std::move(done)); });
  ASSERT_EQ(infos.size(), 1000u);
  EXPECT_EQ(ReasonOf(infos[998].status())->reason, "IMAGE_FILE_MISSING");
  ASSERT_TRUE(infos[999].ok());
  EXPECT_EQ(infos[999]->virtual_size.value, 4096u);
}

TEST_P(EngineObserverTest, PingIsAnsweredByEveryShard) {
  EXPECT_TRUE(Wait<absl::Status>([&](auto done) { engine_->Ping(std::move(done)); }).ok());
}

INSTANTIATE_TEST_SUITE_P(Shards, EngineObserverTest, ::testing::Values(1u, 3u),
                         [](const auto& shards) { return "S" + std::to_string(shards.param); });

}  // namespace
}  // namespace gabion::engine
