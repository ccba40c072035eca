// What a thousand exports cost that nobody uses.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <latch>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/engine.h"
#include "tests/support_io/temp_dir.h"

namespace gabion::engine {
namespace {

constexpr int kExports = 1000;

uint64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  uint64_t size = 0;
  uint64_t resident = 0;
  statm >> size >> resident;
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

// An open image takes two descriptors.
void RaiseFileLimit() {
  rlimit files;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
  files.rlim_cur = files.rlim_max;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &files), 0);
}

ExportSpec Spec(int i) {
  ExportSpec spec;
  spec.name = absl::StrCat("exports/e", i);
  spec.nbd_name = absl::StrCat("e", i);
  spec.image.name = absl::StrCat("images/i", i);
  spec.image.uid = absl::StrCat("uid-", i);
  spec.image.pool = "pools/default";
  spec.image.file_name = absl::StrCat(i, ".raw");
  return spec;
}

// Starts `call` for every export, all at once, and waits for all of them.
template <typename F>
void ForAll(F call) {
  std::latch left(kExports);
  for (int i = 0; i < kExports; ++i) {
    call(i, [&left](const absl::Status& status) {
      EXPECT_TRUE(status.ok()) << status;
      left.count_down();
    });
  }
  left.wait();
}

TEST(EngineIdleTest, AnExportThatNobodyUsesTakesLittleMemory) {
  RaiseFileLimit();
  const test::TempDir directory;
  absl::StatusOr<std::unique_ptr<Engine>> engine =
      Engine::Start({.shards = 2, .nbd = {.unix_path = directory.File("nbd.sock")}}, NullLogger());
  ASSERT_TRUE(engine.ok()) << engine.status();
  ASSERT_TRUE((*engine)->AddPool("pools/default", directory.path()).ok());
  ForAll([&](int i, auto done) {
    ImageBuild build{.spec = Spec(i).image, .size = ByteCount{kGiB}};
    (*engine)->BuildImage(
        std::move(build), ByteOffset{0}, ByteCount{kMiB},
        [done](const absl::StatusOr<BuildProgress>& made) { done(made.status()); });
  });
  const uint64_t before = ResidentBytes();
  const auto start = std::chrono::steady_clock::now();
  ForAll([&](int i, auto done) {
    (*engine)->CreateExport(
        Spec(i), [done](const absl::StatusOr<ExportState>& state) { done(state.status()); });
  });
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
  const uint64_t after = ResidentBytes();
  const uint64_t each = after > before ? (after - before) / kExports : 0;
  std::cout << kExports << " exports on as many images: " << took.count() << " ms to create, "
            << each << " bytes of memory each\n";
  RecordProperty("bytes_per_export", absl::StrCat(each));
  EXPECT_LT(each, 64 * kKiB);
  (*engine)->Stop();
}

}  // namespace
}  // namespace gabion::engine
