#include "engine/io/file.h"

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include "tests/engine/io/file_fixture.h"
#include "tests/support/random_source.h"

namespace gabion::io {
namespace {

INSTANTIATE_TEST_SUITE_P(Drivers, FileTest,
                         testing::Values(FileCase{true, false}, FileCase{true, true},
                                         FileCase{false, false}, FileCase{false, true}),
                         NameOf);

uint64_t AllocatedBytes(const std::string& path) {
  struct stat details;
  EXPECT_EQ(stat(path.c_str(), &details), 0);
  return static_cast<uint64_t>(details.st_blocks) * 512;
}

TEST_P(FileTest, SaysWhatItIs) {
  Open(dir_.File("f"), 10000);
  EXPECT_EQ(file_->size().value, 10000u);
  EXPECT_TRUE(file_->writable());
  EXPECT_EQ(file_->driver(), GetParam().uring ? "io_uring" : "threads");
  EXPECT_EQ(file_->alignment() % unit(), 0u);
}

TEST_P(FileTest, AReadOnlyDescriptorIsNotWritable) {
  Open(dir_.File("f"), 10000, O_RDONLY);
  EXPECT_FALSE(file_->writable());
}

TEST_P(FileTest, ReadsWhatWasWritten) {
  Open(dir_.File("f"), 64 * kKiB);
  AlignedBytes out(8192, 0x5a);
  ASSERT_TRUE(Write(4096, out.span()).ok());
  AlignedBytes in(16384, 1);
  ASSERT_TRUE(Read(0, in.span()).ok());
  EXPECT_TRUE(in.AllEqual(0, 4096, 0));
  EXPECT_TRUE(in.AllEqual(4096, 12288, 0x5a));
  EXPECT_TRUE(in.AllEqual(12288, 16384, 0));
}

TEST_P(FileTest, WhatIsNotCachedIsReadFromTheDevice) {
  const std::string path = dir_.File("f");
  Open(path, 4 * kMiB);
  AlignedBytes out(4 * kMiB, 0x11);
  ASSERT_TRUE(Write(0, out.span()).ok());
  ASSERT_TRUE(Finish(file_->Sync()).ok());
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_EQ(posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
  AlignedBytes in(4 * kMiB, 1);
  ASSERT_TRUE(Read(0, in.span()).ok());
  EXPECT_TRUE(in.AllEqual(0, 4 * kMiB, 0x11));
}

TEST_P(FileTest, PastTheEndEverythingReadsAsZeros) {
  Open(dir_.File("f"), 5000);
  AlignedBytes out(4096, 0x77);
  ASSERT_TRUE(Write(0, out.span()).ok());
  AlignedBytes in(12288, 1);
  ASSERT_TRUE(Read(0, in.span()).ok());
  EXPECT_TRUE(in.AllEqual(0, 4096, 0x77));
  EXPECT_TRUE(in.AllEqual(4096, 12288, 0));
  AlignedBytes behind(4096, 1);
  ASSERT_TRUE(Read(1048576, behind.span()).ok());
  EXPECT_TRUE(behind.AllEqual(0, 4096, 0));
}

TEST_P(FileTest, TheUnalignedEndIsWrittenAndReadExactly) {
  const std::string path = dir_.File("f");
  Open(path, 9001);
  AlignedBytes out(9001, 0x21);
  ASSERT_TRUE(Write(0, out.span()).ok());
  AlignedBytes tail(9001 - 8192, 0x22);
  ASSERT_TRUE(Write(8192, tail.span(), true).ok());
  EXPECT_EQ(file_->size().value, 9001u);
  AlignedBytes in(9001, 1);
  ASSERT_TRUE(Read(0, in.span()).ok());
  EXPECT_TRUE(in.AllEqual(0, 8192, 0x21));
  EXPECT_TRUE(in.AllEqual(8192, 9001, 0x22));
  AlignedBytes end(9001 - 8192, 1);
  ASSERT_TRUE(Read(8192, end.span()).ok());
  EXPECT_TRUE(end.AllEqual(0, 9001 - 8192, 0x22));
  struct stat details;
  ASSERT_EQ(stat(path.c_str(), &details), 0);
  EXPECT_EQ(details.st_size, 9001);
}

TEST_P(FileTest, AWritePastTheEndMakesTheFileLonger) {
  Open(dir_.File("f"), 4096);
  AlignedBytes out(5000, 0x33);
  ASSERT_TRUE(Write(16384, out.span()).ok());
  EXPECT_EQ(file_->size().value, 16384u + 5000u);
  AlignedBytes in(16384, 1);
  ASSERT_TRUE(Read(0, in.span()).ok());
  EXPECT_TRUE(in.AllEqual(0, 16384, 0));
}

TEST_P(FileTest, MemoryNeedsNoAlignment) {
  Open(dir_.File("f"), 3 * kMiB + 5);
  AlignedBytes out(3 * kMiB + 6, 0x44);
  ASSERT_TRUE(Write(0, out.span().subspan(1)).ok());
  AlignedBytes in(3 * kMiB + 8, 1);
  ASSERT_TRUE(Read(0, in.span().subspan(3)).ok());
  EXPECT_TRUE(in.AllEqual(3, in.span().size(), 0x44));
  EXPECT_TRUE(in.AllEqual(0, 3, 1));
}

TEST_P(FileTest, EmptyRequestsDoNothing) {
  Open(dir_.File("f"), 4096);
  EXPECT_TRUE(Read(0, {}).ok());
  EXPECT_TRUE(Write(4096, {}).ok());
  EXPECT_TRUE(Finish(file_->Zero(Range(4096, 0), ZeroMode::kPunch)).ok());
  EXPECT_EQ(file_->size().value, 4096u);
}

TEST_P(FileTest, PunchingGivesSpaceBackAndReadsAsZeros) {
  const std::string path = dir_.File("f");
  Open(path, kMiB);
  AlignedBytes out(kMiB, 0x55);
  ASSERT_TRUE(Write(0, out.span()).ok());
  ASSERT_TRUE(Finish(file_->Sync()).ok());
  const uint64_t before = AllocatedBytes(path);
  const absl::Status status = Finish(file_->Zero(Range(65536, 524288), ZeroMode::kPunch));
  if (absl::IsUnimplemented(status)) GTEST_SKIP() << "no PUNCH_HOLE here";
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_LE(AllocatedBytes(path) + 524288, before);
  AlignedBytes in(kMiB, 1);
  ASSERT_TRUE(Read(0, in.span()).ok());
  EXPECT_TRUE(in.AllEqual(0, 65536, 0x55));
  EXPECT_TRUE(in.AllEqual(65536, 65536 + 524288, 0));
  EXPECT_TRUE(in.AllEqual(65536 + 524288, kMiB, 0x55));
  EXPECT_EQ(file_->size().value, kMiB);
}

TEST_P(FileTest, ZeroingWithSpaceKeptAllocates) {
  const std::string path = dir_.File("f");
  Open(path, kMiB);
  const absl::Status status = Finish(file_->Zero(Range(0, 524288), ZeroMode::kKeepAllocated));
  if (absl::IsUnimplemented(status)) GTEST_SKIP() << "no ZERO_RANGE here";
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_GE(AllocatedBytes(path), 524288u);
  AlignedBytes in(524288, 1);
  ASSERT_TRUE(Read(0, in.span()).ok());
  EXPECT_TRUE(in.AllEqual(0, 524288, 0));
}

TEST_P(FileTest, ZeroingPastTheEndChangesNothing) {
  const std::string path = dir_.File("f");
  Open(path, 8192);
  ASSERT_TRUE(Finish(file_->Zero(Range(8192, kMiB), ZeroMode::kKeepAllocated)).ok());
  EXPECT_EQ(AllocatedBytes(path), 0u);
  EXPECT_EQ(file_->size().value, 8192u);
}

TEST_P(FileTest, MapsDataAndHoles) {
  Open(dir_.File("f"), kMiB);
  AlignedBytes out(65536, 0x66);
  ASSERT_TRUE(Write(131072, out.span()).ok());
  ASSERT_TRUE(Write(524288, out.span()).ok());
  const auto all = Finish(file_->Map(Range(0, kMiB), 100));
  ASSERT_TRUE(all.ok());
  const std::vector<FileExtent> expected = {{Range(0, 131072), true},
                                            {Range(131072, 65536), false},
                                            {Range(196608, 327680), true},
                                            {Range(524288, 65536), false},
                                            {Range(589824, kMiB - 589824), true}};
  EXPECT_EQ(*all, expected);
  const auto some = Finish(file_->Map(Range(131072 + 7, 400000), 2));
  ASSERT_TRUE(some.ok());
  EXPECT_EQ(*some, (std::vector<FileExtent>{{Range(131079, 65529), false},
                                            {Range(196608, 327680), true}}));
  const auto clipped = Finish(file_->Map(Range(600000, 100), 2));
  ASSERT_TRUE(clipped.ok());
  EXPECT_EQ(*clipped, (std::vector<FileExtent>{{Range(600000, 100), true}}));
}

TEST_P(FileTest, ResizingCutsAndGrowsWithZeros) {
  Open(dir_.File("f"), 8192);
  AlignedBytes out(8192, 0x12);
  ASSERT_TRUE(Write(0, out.span()).ok());
  ASSERT_TRUE(Finish(file_->Resize(ByteCount{5000})).ok());
  EXPECT_EQ(file_->size().value, 5000u);
  ASSERT_TRUE(Finish(file_->Resize(ByteCount{12288})).ok());
  AlignedBytes in(12288, 1);
  ASSERT_TRUE(Read(0, in.span()).ok());
  EXPECT_TRUE(in.AllEqual(0, 5000, 0x12));
  EXPECT_TRUE(in.AllEqual(5000, 12288, 0));
  EXPECT_EQ(Finish(file_->Resize(ByteCount{~uint64_t{0}})).code(),
            absl::StatusCode::kResourceExhausted);
}

TEST_P(FileTest, PrefetchIsAHint) {
  Open(dir_.File("f"), kMiB);
  EXPECT_TRUE(Finish(file_->Prefetch(Range(0, kMiB))).ok());
  EXPECT_TRUE(Finish(file_->Prefetch(Range(2 * kMiB, kMiB))).ok());
}

TEST_P(FileTest, WritingAReadOnlyDescriptorIsAnErrorWithoutAPath) {
  Open(dir_.File("f"), 8192, O_RDONLY);
  AlignedBytes out(4096, 1);
  const absl::Status status = Write(0, out.span());
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(std::string(status.message()), "write: Bad file descriptor");
}

TEST_P(FileTest, AFileSizeLimitIsResourceExhausted) {
  Open(dir_.File("f"), 4096);
  const rlimit tight{65536, RLIM_INFINITY};
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &tight), 0);
  AlignedBytes out(8192, 1);
  const absl::Status cached = Write(131072, out.span());
  const absl::Status durable = Write(131072, out.span(), true);
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, handler);
  EXPECT_EQ(cached.code(), absl::StatusCode::kResourceExhausted) << cached;
  EXPECT_EQ(durable.code(), absl::StatusCode::kResourceExhausted) << durable;
  EXPECT_EQ(file_->size().value, 4096u);
}

TEST_P(FileTest, AFullFileSystemIsResourceExhausted) {
  const std::string mount_point = dir_.File("small");
  ASSERT_EQ(mkdir(mount_point.c_str(), 0700), 0);
  // The mount must not be seen outside of this process.
  if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      mount("none", mount_point.c_str(), "tmpfs", 0, "size=256k") != 0) {
    GTEST_SKIP() << "cannot mount a tmpfs of 256 KiB here: " << std::strerror(errno);
  }
  Open(mount_point + "/f", 8 * kMiB);
  if (file_ != nullptr) {
    AlignedBytes out(kMiB, 1);
    const absl::Status status = Write(0, out.span());
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_EQ(std::string(status.message()), "write: No space left on device");
    const absl::Status durable = Write(0, out.span(), true);
    EXPECT_EQ(durable.code(), absl::StatusCode::kResourceExhausted) << durable;
    AlignedBytes in(4096, 1);
    EXPECT_TRUE(Read(4 * kMiB, in.span()).ok());
    EXPECT_TRUE(in.AllEqual(0, 4096, 0));
    EXPECT_TRUE(Finish(file_->Close()).ok());
    file_ = nullptr;
  }
  EXPECT_EQ(umount(mount_point.c_str()), 0);
}

Task<absl::Status> WriteThenRead(File& file, uint64_t offset, MutableBytes out, MutableBytes in,
                                 bool durable) {
  const absl::Status written = co_await file.Write(ByteOffset{offset}, out, durable);
  if (!written.ok()) co_return written;
  const absl::Status read = co_await file.Read(ByteOffset{offset}, in);
  co_return read;
}

TEST_P(FileTest, ManyOperationsRunAtOnce) {
  constexpr std::size_t kCount = 1500;  // more than the ring takes at a time
  Open(dir_.File("f"), kCount * 4096);
  std::vector<AlignedBytes> out;
  std::vector<AlignedBytes> in;
  for (std::size_t i = 0; i < kCount; ++i) {
    out.emplace_back(4096, static_cast<int>(i % 251));
    in.emplace_back(4096, 255);
  }
  std::vector<Task<absl::Status>> tasks;
  for (std::size_t i = 0; i < kCount; ++i) {
    const bool durable = i % 64 == 0;
    tasks.push_back(WriteThenRead(*file_, i * 4096, out[i].span(), in[i].span(), durable));
  }
  for (std::size_t i = 0; i < kCount; ++i) {
    const absl::Status status = Finish(std::move(tasks[i]));
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_TRUE(in[i].AllEqual(0, 4096, static_cast<int>(i % 251)));
  }
}

// One operation at a time against a byte array; all of them on ranges of any size, in units.
class Model {
 public:
  Model(std::size_t unit, std::size_t size) : unit_(unit), bytes_(size) {}

  std::size_t Pick(std::size_t below) { return random_.Below(below); }
  // A range of units within [0, limit), or up to an end that is no multiple.
  ByteRange PickRange(std::size_t limit) {
    const std::size_t begin = Pick(limit) / unit_ * unit_;
    const std::size_t units = 1 + Pick(20000) / unit_;
    return Range(begin, std::min(units * unit_, limit - begin));
  }
  std::vector<std::byte>& bytes() { return bytes_; }
  void Put(ByteRange range, int value) {
    if (range.end().value > bytes_.size()) bytes_.resize(range.end().value);
    for (uint64_t i = 0; i < range.length.value; ++i) {
      bytes_[range.offset.value + i] = std::byte(value);
    }
  }

 private:
  test::RandomSource random_;
  std::size_t unit_;
  std::vector<std::byte> bytes_;
};

TEST_P(FileTest, RandomOperationsKeepToTheByteArray) {
  const std::size_t size = 300000;
  Open(dir_.File("f"), size);
  Model model(unit(), size);
  for (int step = 0; step < 600; ++step) {
    const int value = 1 + static_cast<int>(model.Pick(255));
    const std::size_t now = model.bytes().size();
    switch (model.Pick(8)) {
      case 0:
      case 1: {
        const std::size_t limit = direct() ? now : now + (step % 50 == 0 ? 3000 : 0);
        const ByteRange range = model.PickRange(limit);
        AlignedBytes out(range.length.value, value);
        ASSERT_TRUE(Write(range.offset.value, out.span(), step % 32 == 0).ok());
        model.Put(range, value);
        break;
      }
      case 2:
      case 3: {
        const ByteRange range = model.PickRange(now);
        const auto mode = value % 2 == 0 ? ZeroMode::kPunch : ZeroMode::kKeepAllocated;
        const absl::Status status = Finish(file_->Zero(range, mode));
        if (absl::IsUnimplemented(status)) break;
        ASSERT_TRUE(status.ok()) << status;
        model.Put(range, 0);
        break;
      }
      case 4: {
        if (step % 10 != 0) break;
        const std::size_t to = 200000 + model.Pick(200000);
        ASSERT_TRUE(Finish(file_->Resize(ByteCount{to})).ok());
        model.bytes().resize(to);
        break;
      }
      case 5: {
        const absl::Status synced = Finish(file_->Sync());
        ASSERT_TRUE(synced.ok()) << synced;
        const ByteRange range = model.PickRange(now);
        const auto extents = Finish(file_->Map(range, 1 + model.Pick(100)));
        ASSERT_TRUE(extents.ok());
        ASSERT_FALSE(extents->empty());
        uint64_t at = range.offset.value;
        for (const FileExtent& extent : *extents) {
          ASSERT_EQ(extent.range.offset.value, at);
          at = extent.range.end().value;
          ASSERT_LE(at, range.end().value);
          for (uint64_t i = extent.range.offset.value; extent.hole && i < at; ++i) {
            ASSERT_EQ(model.bytes()[i], std::byte{0}) << "a hole that is not zero at " << i;
          }
        }
        break;
      }
      default: {
        const ByteRange range = model.PickRange(now);
        AlignedBytes in(range.length.value, 1);
        ASSERT_TRUE(Read(range.offset.value, in.span()).ok());
        ASSERT_EQ(std::memcmp(in.span().data(), model.bytes().data() + range.offset.value,
                              range.length.value),
                  0)
            << "step " << step << ", offset " << range.offset.value;
      }
    }
    ASSERT_EQ(file_->size().value, model.bytes().size());
  }
}

}  // namespace
}  // namespace gabion::io
