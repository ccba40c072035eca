// The engine while everything happens at once: real sockets, real threads, no order.
#include <gtest/gtest.h>
#include <libnbd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "tests/support/nbd_client.h"
#include "tests/support_io/temp_dir.h"

namespace gabion::engine {
namespace {

template <typename T, typename F>
T Wait(F start) {
  std::promise<T> promise;
  std::future<T> future = promise.get_future();
  start(Callback<T>([&promise](T value) { promise.set_value(std::move(value)); }));
  return future.get();
}

struct CloseNbd {
  void operator()(nbd_handle* handle) const { nbd_close(handle); }
};
using Nbd = std::unique_ptr<nbd_handle, CloseNbd>;
using State = absl::StatusOr<ExportState>;

constexpr uint32_t kMaxConnections = 32;
constexpr uint64_t kSize = 8 * kMiB;

class EngineStressTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  void SetUp() override {
    EngineOptions options;
    options.shards = GetParam();
    options.nbd.unix_path = directory_.path() + "/nbd.sock";
    options.nbd.max_connections = kMaxConnections;
    absl::StatusOr<std::unique_ptr<Engine>> engine = Engine::Start(options, NullLogger());
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
    ASSERT_TRUE(engine_->AddPool("pools/p", directory_.path()).ok());
    for (const char* id : {"a", "b"}) {
      const auto made = Wait<absl::StatusOr<ImageInfo>>(
          [&](auto done) { engine_->CreateImage(Image(id), ByteCount{kSize}, std::move(done)); });
      ASSERT_TRUE(made.ok()) << made.status();
    }
  }
  void TearDown() override { Stop(); }
  void Stop() {
    if (engine_ == nullptr) return;
    engine_->Stop();
    engine_.reset();
  }

  static ImageSpec Image(const std::string& id) {
    ImageSpec spec;
    spec.name = "images/" + id;
    spec.uid = "uid-" + id;
    spec.pool = "pools/p";
    spec.file_name = id + ".raw";
    return spec;
  }
  static ExportSpec Export(const std::string& id, const std::string& image) {
    ExportSpec spec;
    spec.name = "exports/" + id;
    spec.nbd_name = id;
    spec.image = Image(image);
    return spec;
  }
  absl::Status Create(const ExportSpec& spec) {
    return Wait<State>([&](auto done) { engine_->CreateExport(spec, std::move(done)); }).status();
  }
  absl::Status Update(const ExportSpec& spec) {
    return Wait<State>([&](auto done) { engine_->UpdateExport(spec, std::move(done)); }).status();
  }
  absl::Status Delete(const std::string& id, DeleteMode mode) {
    return Wait<absl::Status>(
        [&](auto done) { engine_->DeleteExport("exports/" + id, mode, std::move(done)); });
  }

  // Null if the engine does not let us in.
  Nbd Connect(const std::string& id) const {
    Nbd nbd(nbd_create());
    const std::string uri = "nbd+unix:///" + id + "?socket=" + directory_.path() + "/nbd.sock";
    if (nbd_connect_uri(nbd.get(), uri.c_str()) != 0) return nullptr;
    return nbd;
  }

  // A bare socket to the engine.
  int Dial() const {
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    const std::string path = directory_.path() + "/nbd.sock";
    std::memcpy(address.sun_path, path.c_str(), path.size());
    EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    return fd;
  }

  // Comes, works a little and goes, again and again; being cut off is in the game.
  void Haunt(const std::string& id, const std::atomic<bool>& stop) const {
    std::vector<char> block(65536, 'x');
    for (uint64_t round = 0; !stop; ++round) {
      const Nbd nbd = Connect(id);
      if (nbd == nullptr) continue;
      for (uint64_t i = 0; i < round % 7; ++i) {
        const uint64_t offset = (round * 7 + i) % 100 * 65536;
        if (nbd_pwrite(nbd.get(), block.data(), block.size(), offset, 0) != 0) break;
        if (nbd_pread(nbd.get(), block.data(), block.size(), offset, 0) != 0) break;
      }
      if (round % 2 == 0) nbd_shutdown(nbd.get(), 0);
    }
  }

  test::TempDir directory_;
  std::unique_ptr<Engine> engine_;
};

TEST_P(EngineStressTest, ExportsComeAndGoUnderArrivingClients) {
  std::atomic<bool> stop = false;
  std::vector<std::thread> clients;
  for (int i = 0; i < 3; ++i) clients.emplace_back([&] { Haunt("e", stop); });
  for (int round = 0; round < 30; ++round) {
    ExportSpec spec = Export("e", round % 3 == 0 ? "b" : "a");
    EXPECT_TRUE(Create(spec).ok());
    for (int change = 0; change < 4; ++change) {
      spec.read_only = change % 2 == 0;
      spec.block_sizes.minimum = change == 3 ? 4096 : 0;
      const absl::Status updated = Update(spec);
      EXPECT_TRUE(updated.ok()) << updated;
    }
    const uint64_t size = kSize + static_cast<uint64_t>(round + 1) * 4096;
    const auto grown = Wait<absl::StatusOr<ImageInfo>>(
        [&](auto done) { engine_->GrowImage(spec.image, ByteCount{size}, std::move(done)); });
    EXPECT_TRUE(grown.ok()) << grown.status();
    const absl::Status safe = Delete("e", DeleteMode::kSafe);
    EXPECT_TRUE(safe.ok() || safe.code() == absl::StatusCode::kFailedPrecondition) << safe;
    if (!safe.ok()) {
      EXPECT_TRUE(Delete("e", DeleteMode::kHard).ok());
    }
  }
  stop = true;
  for (std::thread& client : clients) client.join();
  // Nothing has been lost on the way: as many connections as before can be had at once.
  ASSERT_TRUE(Create(Export("e", "a")).ok());
  std::vector<Nbd> all;
  for (int attempt = 0; attempt < 10000 && all.size() < kMaxConnections; ++attempt) {
    Nbd nbd = Connect("e");  // ended ones may take a moment to give their places back
    if (nbd != nullptr) all.push_back(std::move(nbd));
  }
  EXPECT_EQ(all.size(), kMaxConnections);
  EXPECT_EQ(Connect("e"), nullptr);
}

TEST_P(EngineStressTest, StopEndsEverythingThatIsInFlight) {
  ASSERT_TRUE(Create(Export("e", "a")).ok());
  ASSERT_TRUE(Create(Export("f", "b")).ok());
  std::atomic<bool> stop = false;
  std::atomic<int> served = 0;
  std::vector<std::thread> clients;
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back([this, &stop, &served, i] {
      const Nbd nbd = Connect(i % 2 == 0 ? "e" : "f");
      std::vector<char> block(262144, 'x');
      while (nbd != nullptr && !stop) {
        if (nbd_pwrite(nbd.get(), block.data(), block.size(), 0, 0) != 0) return;
        if (nbd_pread(nbd.get(), block.data(), block.size(), 0, 0) != 0) return;
        ++served;
      }
    });
  }
  std::vector<int> silent;  // in the middle of the handshake
  for (int i = 0; i < 3; ++i) silent.push_back(Dial());
  while (served < 40) std::this_thread::yield();
  Stop();
  stop = true;
  for (std::thread& client : clients) client.join();
  for (const int fd : silent) close(fd);
}

TEST_P(EngineStressTest, ClientThatDoesNotReadHoldsUpNobody) {
  ExportSpec spec = Export("e", "a");
  spec.block_sizes.maximum_payload = kMiB;
  ASSERT_TRUE(Create(spec).ok());
  const int fd = Dial();
  std::string bytes("\0\0\0\3IHAVEOPT\0\0\0\10\0\0\0\0", 20);  // structured replies
  bytes += std::string("IHAVEOPT\0\0\0\7\0\0\0\11\0\0\0\1e\0\1\0\3", 16 + 9);
  for (uint64_t cookie = 0; cookie < 8; ++cookie) {
    bytes += test::RequestBytes({0, 0, 0, static_cast<uint32_t>(kSize), cookie});
  }
  const Nbd writer = Connect("e");
  ASSERT_NE(writer, nullptr);
  const std::vector<char> block(kMiB, 'x');  // so that replies are data and fill the socket
  for (uint64_t at = 0; at < kSize; at += kMiB) {
    ASSERT_EQ(nbd_pwrite(writer.get(), block.data(), block.size(), at, 0), 0);
  }
  ASSERT_EQ(send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  std::string start(4096, '\0');
  const std::size_t handshake = 18 + 20 + (20 + 12) + (20 + 14) + 20;
  ASSERT_EQ(recv(fd, start.data(), handshake + 28, MSG_WAITALL),
            static_cast<ssize_t>(handshake + 28));  // the first chunk has begun
  spec.read_only = true;
  EXPECT_TRUE(Update(spec).ok());
  std::vector<char> back(4096);
  EXPECT_EQ(nbd_pread(writer.get(), back.data(), back.size(), 0, 0), 0);
  EXPECT_EQ(nbd_pwrite(writer.get(), block.data(), 4096, 0, 0), -1);
  close(fd);
  EXPECT_TRUE(Delete("e", DeleteMode::kHard).ok());
}

INSTANTIATE_TEST_SUITE_P(Shards, EngineStressTest, ::testing::Values(1u, 2u),
                         [](const auto& shards) { return "S" + std::to_string(shards.param); });

}  // namespace
}  // namespace gabion::engine
