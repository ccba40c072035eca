// The whole data plane in one process, with libnbd as the client.
#include "engine/engine.h"

#include <gtest/gtest.h>
#include <libnbd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "engine/base/reason.h"
#include "tests/engine/engine_fixture.h"

namespace gabion::engine {
namespace {

TEST_P(EngineTest, WhatIsWrittenIsReadBackAndIsInTheFile) {
  ASSERT_TRUE(CreateImage("a", 1000300).ok());
  const absl::StatusOr<ExportState> state = CreateExport(Export("e", "a"));
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(state->effective.export_size.value, 1000300u);
  const Nbd nbd = Connect("e");
  ASSERT_NE(nbd, nullptr) << nbd_get_error();
  EXPECT_EQ(nbd_get_size(nbd.get()), 1000300);
  const std::string text = "the last bytes of an odd disk";
  const uint64_t offset = 1000300 - text.size();
  ASSERT_EQ(nbd_pwrite(nbd.get(), text.data(), text.size(), offset, 0), 0) << nbd_get_error();
  std::string back(text.size(), '\0');
  ASSERT_EQ(nbd_pread(nbd.get(), back.data(), back.size(), offset, 0), 0) << nbd_get_error();
  EXPECT_EQ(back, text);
  ASSERT_EQ(nbd_flush(nbd.get(), 0), 0);
  std::ifstream file(directory_ / "images" / "a.raw", std::ios::binary);
  file.seekg(static_cast<std::streamoff>(offset));
  std::string stored(text.size(), '\0');
  file.read(stored.data(), static_cast<std::streamsize>(stored.size()));
  EXPECT_EQ(stored, text);
}

TEST_P(EngineTest, LongReadsComeInPieces) {
  constexpr uint64_t kSize = 80 << 20;
  ASSERT_TRUE(CreateImage("a", kSize).ok());
  ASSERT_TRUE(CreateExport(Export("e", "a")).ok());
  const Nbd nbd = Connect("e");
  ASSERT_NE(nbd, nullptr) << nbd_get_error();
  std::vector<char> data(60 << 20, 'x');
  nbd_set_strict_mode(nbd.get(), 0);
  ASSERT_EQ(nbd_pwrite(nbd.get(), data.data(), 1 << 20, 33 << 20, 0), 0) << nbd_get_error();
  ASSERT_EQ(nbd_pread(nbd.get(), data.data(), data.size(), 0, 0), 0) << nbd_get_error();
  EXPECT_EQ(data[0], '\0');
  EXPECT_EQ(data[33 << 20], 'x');
  EXPECT_EQ(data[(34 << 20) - 1], 'x');
  EXPECT_EQ(data[34 << 20], '\0');
}

struct Extents {
  std::vector<uint32_t> entries;
};

int CollectExtents(void* user, const char*, uint64_t, uint32_t* entries, size_t count, int*) {
  static_cast<Extents*>(user)->entries.assign(entries, entries + count);
  return 0;
}

TEST_P(EngineTest, StatusIsMergedToTheAdvertisedMinimum) {
  ASSERT_TRUE(CreateImage("a", 1 << 20).ok());
  ExportSpec spec = Export("e", "a");
  spec.block_sizes.minimum = 65536;
  ASSERT_TRUE(CreateExport(spec).ok());
  const Nbd nbd = Connect("e");
  ASSERT_NE(nbd, nullptr) << nbd_get_error();
  const std::vector<char> block(65536, 'x');
  ASSERT_EQ(nbd_pwrite(nbd.get(), block.data(), 65536, 131072, 0), 0) << nbd_get_error();
  Extents extents;
  const nbd_extent_callback callback = {.callback = &CollectExtents, .user_data = &extents};
  ASSERT_EQ(nbd_block_status(nbd.get(), 1 << 20, 0, callback, 0), 0) << nbd_get_error();
  EXPECT_EQ(extents.entries, (std::vector<uint32_t>{131072, 3, 65536, 0, 851968, 3}));
}

TEST_P(EngineTest, PaddingTakesZerosOnly) {
  ASSERT_TRUE(CreateImage("a", 1000).ok());
  ExportSpec spec = Export("e", "a");
  spec.block_sizes.minimum = 512;
  const absl::StatusOr<ExportState> state = CreateExport(spec);
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(state->effective.export_size.value, 1024u);
  const Nbd nbd = Connect("e");
  ASSERT_NE(nbd, nullptr) << nbd_get_error();
  std::vector<char> block(512, 'x');
  EXPECT_EQ(nbd_pwrite(nbd.get(), block.data(), 512, 512, 0), -1);
  EXPECT_EQ(nbd_get_errno(), ENOSPC);
  std::fill(block.begin() + 488, block.end(), '\0');
  EXPECT_EQ(nbd_pwrite(nbd.get(), block.data(), 512, 512, 0), 0) << nbd_get_error();
  EXPECT_EQ(fs::file_size(directory_ / "images" / "a.raw"), 1000u);
}

TEST_P(EngineTest, RefuseNamesSizeAndMinimum) {
  ASSERT_TRUE(CreateImage("a", 1000).ok());
  ExportSpec spec = Export("e", "a");
  spec.block_sizes.minimum = 512;
  spec.block_sizes.tail = block::TailPolicy::kRefuse;
  const absl::StatusOr<ExportState> state = CreateExport(spec);
  ASSERT_EQ(state.status().code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(ReasonOf(state.status()).has_value());
  EXPECT_EQ(ReasonOf(state.status())->reason, "SIZE_NOT_MULTIPLE_OF_MINIMUM");
  EXPECT_EQ(Connect("e"), nullptr) << "nothing is half-created";
  spec.block_sizes.tail = block::TailPolicy::kPadZero;
  EXPECT_TRUE(CreateExport(spec).ok()) << "the name is free again";
}

TEST_P(EngineTest, SeveralExportsShareAnImage) {
  ASSERT_TRUE(CreateImage("a", 1000).ok());
  ExportSpec exact = Export("exact", "a");
  ExportSpec grow = Export("grow", "a");
  grow.block_sizes.minimum = 512;
  grow.block_sizes.tail = block::TailPolicy::kPadGrow;
  ExportSpec padded = Export("padded", "a");
  padded.block_sizes.minimum = 4096;
  for (const ExportSpec& spec : {exact, grow, padded}) ASSERT_TRUE(CreateExport(spec).ok());
  const Nbd grown = Connect("grow");
  const Nbd seen = Connect("padded");
  ASSERT_NE(grown, nullptr) << nbd_get_error();
  ASSERT_NE(seen, nullptr) << nbd_get_error();
  std::vector<char> block(512, 'x');
  ASSERT_EQ(nbd_pwrite(grown.get(), block.data(), 512, 512, 0), 0) << nbd_get_error();
  EXPECT_EQ(fs::file_size(directory_ / "images" / "a.raw"), 1024u);
  std::vector<char> all(4096, '?');
  ASSERT_EQ(nbd_pread(seen.get(), all.data(), 4096, 0, 0), 0) << nbd_get_error();
  EXPECT_EQ(all[1023], 'x') << "what one export wrote, the other's old padding shows";
  EXPECT_EQ(all[1024], '\0');
  // New connections see the new size, as soon as the listeners' shard has heard of it.
  int64_t size = 0;
  for (int tries = 0; tries < 1000 && size != 1024; ++tries) {
    const Nbd later = Connect("exact");
    ASSERT_NE(later, nullptr) << nbd_get_error();
    size = nbd_get_size(later.get());
  }
  EXPECT_EQ(size, 1024);
}

TEST_P(EngineTest, ReadOnlyTakesEffectOnConnectedClients) {
  ASSERT_TRUE(CreateImage("a", 4096).ok());
  ExportSpec spec = Export("e", "a");
  ASSERT_TRUE(CreateExport(spec).ok());
  const Nbd nbd = Connect("e");
  ASSERT_NE(nbd, nullptr) << nbd_get_error();
  spec.read_only = true;
  spec.generation = 2;
  const absl::StatusOr<ExportState> state = UpdateExport(spec);
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_FALSE(state->read_only_propagated);
  char byte = 'x';
  EXPECT_EQ(nbd_pwrite(nbd.get(), &byte, 1, 0, 0), -1);
  EXPECT_EQ(nbd_get_errno(), EPERM);
  EXPECT_EQ(nbd_pread(nbd.get(), &byte, 1, 0, 0), 0);
  EXPECT_EQ(byte, '\0');
}

TEST_P(EngineTest, SafeDeleteRefusesWhileConnectedAndHardDeleteCuts) {
  ASSERT_TRUE(CreateImage("a", 4096).ok());
  ASSERT_TRUE(CreateExport(Export("e", "a")).ok());
  const Nbd nbd = Connect("e");
  ASSERT_NE(nbd, nullptr) << nbd_get_error();
  const absl::Status refused = DeleteExport("exports/e", DeleteMode::kSafe);
  ASSERT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(refused)->reason, "EXPORT_HAS_CONNECTIONS");
  EXPECT_TRUE(DeleteExport("exports/e", DeleteMode::kHard).ok());
  char byte = 0;
  EXPECT_EQ(nbd_pread(nbd.get(), &byte, 1, 0, 0), -1);
  EXPECT_TRUE(Wait<absl::Status>([&](auto done) {
                engine_->DeleteImage(Image("a"), std::move(done));
              }).ok());
  EXPECT_FALSE(fs::exists(directory_ / "images" / "a.raw"));
}

TEST_P(EngineTest, AnImageInUseIsNotDeleted) {
  ASSERT_TRUE(CreateImage("a", 4096).ok());
  ASSERT_TRUE(CreateExport(Export("e", "a")).ok());
  const absl::Status refused =
      Wait<absl::Status>([&](auto done) { engine_->DeleteImage(Image("a"), std::move(done)); });
  ASSERT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(refused)->reason, "IMAGE_IN_USE");
  EXPECT_TRUE(fs::exists(directory_ / "images" / "a.raw"));
}

TEST_P(EngineTest, AConnectionCanBeSeenAndClosed) {
  ASSERT_TRUE(CreateImage("a", 4096).ok());
  ASSERT_TRUE(CreateExport(Export("e", "a")).ok());
  const Nbd nbd = Connect("e");
  ASSERT_NE(nbd, nullptr) << nbd_get_error();
  // A simple round trip, so that the connection has reached its shard.
  char byte = 0;
  ASSERT_EQ(nbd_pread(nbd.get(), &byte, 1, 0, 0), 0);
  auto list = [&] {
    return Wait<absl::StatusOr<std::vector<ConnectionState>>>(
        [&](auto done) { engine_->ListConnections("exports/e", std::move(done)); });
  };
  const auto connections = list();
  ASSERT_TRUE(connections.ok());
  ASSERT_EQ(connections->size(), 1u);
  EXPECT_TRUE(connections->front().requested_block_sizes);
  EXPECT_EQ(connections->front().minimum_bytes, 1u);
  const uint64_t id = connections->front().id;
  EXPECT_TRUE(Wait<absl::Status>([&](auto done) {
                engine_->CloseConnection("exports/e", id, std::move(done));
              }).ok());
  EXPECT_EQ(nbd_pread(nbd.get(), &byte, 1, 0, 0), -1);
  const absl::Status again = Wait<absl::Status>(
      [&](auto done) { engine_->CloseConnection("exports/e", id, std::move(done)); });
  EXPECT_TRUE(again.ok() || again.code() == absl::StatusCode::kNotFound) << again;
}

TEST_P(EngineTest, TargetsSeeWhatClientsSee) {
  ASSERT_TRUE(CreateImage("a", 1000).ok());
  ExportSpec spec = Export("e", "a");
  spec.block_sizes.minimum = 512;
  ASSERT_TRUE(CreateExport(spec).ok());
  using Opened = absl::StatusOr<std::unique_ptr<Target>>;
  const Opened target =
      Wait<Opened>([&](auto done) { engine_->OpenExportTarget("exports/e", std::move(done)); });
  ASSERT_TRUE(target.ok()) << target.status();
  EXPECT_EQ((*target)->size().value, 1024u);
  EXPECT_EQ((*target)->content_size().value, 1000u);
  EXPECT_TRUE(Wait<absl::Status>([&](auto done) {
                (*target)->Write(ByteOffset{5}, std::vector<std::byte>(3, std::byte{7}),
                                 std::move(done));
              }).ok());
  using Data = absl::StatusOr<std::vector<std::byte>>;
  const Data data = Wait<Data>([&](auto done) { (*target)->Read(Range(4, 5), std::move(done)); });
  ASSERT_TRUE(data.ok());
  EXPECT_EQ((*data)[0], std::byte{0});
  EXPECT_EQ((*data)[3], std::byte{7});
  const Data beyond =
      Wait<Data>([&](auto done) { (*target)->Read(Range(1000, 25), std::move(done)); });
  EXPECT_EQ(beyond.status().code(), absl::StatusCode::kOutOfRange);
}

TEST_P(EngineTest, GrowingAnImageIsSeenByNewConnections) {
  ASSERT_TRUE(CreateImage("a", 4096).ok());
  ASSERT_TRUE(CreateExport(Export("e", "a")).ok());
  const Nbd before = Connect("e");
  ASSERT_NE(before, nullptr) << nbd_get_error();
  const auto grown = Wait<absl::StatusOr<ImageInfo>>(
      [&](auto done) { engine_->GrowImage(Image("a"), ByteCount{8192}, std::move(done)); });
  ASSERT_TRUE(grown.ok()) << grown.status();
  EXPECT_EQ(grown->virtual_size.value, 8192u);
  EXPECT_EQ(nbd_get_size(before.get()), 4096);
  const Nbd after = Connect("e");
  ASSERT_NE(after, nullptr) << nbd_get_error();
  EXPECT_EQ(nbd_get_size(after.get()), 8192);
  const auto shrunk = Wait<absl::StatusOr<ImageInfo>>(
      [&](auto done) { engine_->GrowImage(Image("a"), ByteCount{4096}, std::move(done)); });
  EXPECT_EQ(ReasonOf(shrunk.status())->reason, "SHRINK_NOT_ALLOWED");
}

// A client that says nothing; -1 if it cannot connect.
int ConnectSilently(const std::string& path) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) return fd;
  close(fd);
  return -1;
}

TEST_P(EngineTest, SilentClientsTakeNoMoreThanTheHandshakesThatAreAllowed) {
  ASSERT_TRUE(CreateImage("a", 4096).ok());
  ASSERT_TRUE(CreateExport(Export("e", "a")).ok());
  const Nbd served = Connect("e");
  ASSERT_NE(served, nullptr) << nbd_get_error();
  const std::string path = directory_ / "nbd.sock";
  std::vector<int> silent;
  char greeting[18];
  for (uint32_t i = 0; i < NbdOptions().max_handshakes; ++i) {
    silent.push_back(ConnectSilently(path));
    ASSERT_EQ(read(silent.back(), greeting, sizeof(greeting)), 18) << "connection " << i;
  }
  silent.push_back(ConnectSilently(path));
  EXPECT_EQ(read(silent.back(), greeting, sizeof(greeting)), 0) << "hung up at once";
  char byte = 0;
  EXPECT_EQ(nbd_pread(served.get(), &byte, 1, 0, 0), 0) << "sessions are served";
  for (const int fd : silent) close(fd);
  Nbd later;
  while (later == nullptr) later = Connect("e");
}

TEST_P(EngineTest, ManyConnectionsComeAndGo) {
  ASSERT_TRUE(CreateImage("a", 1 << 20).ok());
  ASSERT_TRUE(CreateExport(Export("e", "a")).ok());
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < 50; ++i) {
        const Nbd nbd = Connect("e");
        ASSERT_NE(nbd, nullptr) << nbd_get_error();
        std::vector<char> block(4096, static_cast<char>('a' + t));
        const uint64_t offset = static_cast<uint64_t>(t) * 65536;
        ASSERT_EQ(nbd_pwrite(nbd.get(), block.data(), 4096, offset, 0), 0);
        ASSERT_EQ(nbd_pread(nbd.get(), block.data(), 4096, offset, 0), 0);
        ASSERT_EQ(block[4095], 'a' + t);
        if (i % 2 == 0) nbd_shutdown(nbd.get(), 0);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

INSTANTIATE_TEST_SUITE_P(Shards, EngineTest, ::testing::Values(1u, 3u),
                         [](const auto& shards) { return "S" + std::to_string(shards.param); });

}  // namespace
}  // namespace gabion::engine
