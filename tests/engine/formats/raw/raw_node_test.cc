#include "engine/formats/raw/raw_node.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/align.h"
#include "engine/io/pool_file.h"
#include "engine/runtime/reactor.h"
#include "engine/runtime/worker_pool.h"
#include "tests/support/random_source.h"
#include "tests/support_io/finish.h"
#include "tests/support_io/memory_file.h"
#include "tests/support_io/temp_dir.h"

namespace gabion::raw {
namespace {

using block::Extent;
using block::ExtentKind;
using block::ExtentList;
using block::ZeroOptions;
using test::MemoryFile;

// A node over a file in memory, and the file.
struct Disk {
  explicit Disk(std::size_t size, RawOptions options = {}) : Disk(New(size), std::move(options)) {}
  Disk(std::unique_ptr<MemoryFile> owned, RawOptions options)
      : file(owned.get()), node(NewRawNode(std::move(owned), std::move(options))) {}
  static std::unique_ptr<MemoryFile> New(std::size_t size) {
    return std::make_unique<MemoryFile>(size);
  }

  MemoryFile* file;
  std::unique_ptr<block::Node> node;
};

std::vector<std::byte> Filled(std::size_t size, int value) {
  return std::vector<std::byte>(size, std::byte(value));
}

Extent Atom(uint64_t offset, uint64_t length, ExtentKind kind) {
  return Extent{Range(offset, length), kind, 1, offset, false};
}

TEST(RawNodeTest, ItsLimitsAreThoseOfTheFile) {
  auto file = Disk::New(1000300);
  file->unit = 512;
  const Disk disk(std::move(file), {.request_alignment = {64}, .name = "images/a"});
  EXPECT_EQ(disk.node->limits().size.value, 1000300u);
  EXPECT_EQ(disk.node->limits().alignment.value, 512u);
  EXPECT_EQ(disk.node->limits().memory_alignment, 512u);
  EXPECT_EQ(disk.node->limits().alignment_from, "images/a");
  EXPECT_TRUE(disk.node->limits().writable);
  EXPECT_TRUE(disk.node->limits().fast_zero);
  EXPECT_EQ(disk.node->limits().layers, 1u);
}

TEST(RawNodeTest, TheImageMayAskForMoreThanTheFile) {
  const Disk disk(1000300, {.request_alignment = {4096}, .name = "images/a"});
  EXPECT_EQ(disk.node->limits().alignment.value, 4096u);
  EXPECT_EQ(disk.node->limits().memory_alignment, 1u);
}

TEST(RawNodeTest, NobodyAskedForAnAlignmentOfOne) {
  const Disk disk(10, {.name = "images/a"});
  EXPECT_EQ(disk.node->limits().alignment.value, 1u);
  EXPECT_EQ(disk.node->limits().alignment_from, "");
}

TEST(RawNodeTest, AReadOnlyFileMakesAReadOnlyNode) {
  auto file = Disk::New(4096);
  file->is_writable = false;
  const Disk disk(std::move(file), {});
  EXPECT_FALSE(disk.node->limits().writable);
  EXPECT_FALSE(disk.node->limits().fast_zero);
  EXPECT_EQ(disk.node->Resize({8192}).Take().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_TRUE(disk.node->Flush().Take().ok());
  EXPECT_TRUE(disk.node->Close().Take().ok());
  EXPECT_EQ(disk.file->count("sync"), 0u);
}

TEST(RawNodeTest, BytesAreWhereTheFileHasThem) {
  const Disk disk(10000);
  const auto data = Filled(100, 7);
  ASSERT_TRUE(disk.node->Write(Range(77, 100), data, {}).Take().ok());
  EXPECT_TRUE(std::equal(data.begin(), data.end(), disk.file->bytes().begin() + 77));
  EXPECT_FALSE(disk.file->synced());
  std::vector<std::byte> in(102);
  ASSERT_TRUE(disk.node->Read(Range(76, 102), in).Take().ok());
  EXPECT_EQ(in[0], std::byte{0});
  EXPECT_EQ(in[1], std::byte{7});
  EXPECT_EQ(in[101], std::byte{0});
  ASSERT_TRUE(disk.node->Flush().Take().ok());
  EXPECT_TRUE(disk.file->synced());
}

TEST(RawNodeTest, ADurableWriteNeedsNoFlush) {
  const Disk disk(10000);
  ASSERT_TRUE(disk.node->Write(Range(0, 10), Filled(10, 1), {.durable = true}).Take().ok());
  EXPECT_TRUE(disk.file->synced());
}

TEST(RawNodeTest, HolesAreZerosWithoutSpaceAndDataIsDataEvenIfZero) {
  const Disk disk(10000);
  ASSERT_TRUE(disk.node->Write(Range(1000, 500), Filled(500, 0), {}).Take().ok());
  const auto status = disk.node->BlockStatus(Range(10, 9000), 100).Take();
  ASSERT_TRUE(status.ok());
  EXPECT_EQ(*status,
            (ExtentList{Atom(10, 990, ExtentKind::kZero), Atom(1000, 500, ExtentKind::kData),
                        Atom(1500, 7510, ExtentKind::kZero)}));
}

TEST(RawNodeTest, BlockStatusStopsAtTheNumberOfExtentsAskedFor) {
  const Disk disk(10000);
  ASSERT_TRUE(disk.node->Write(Range(1000, 500), Filled(500, 1), {}).Take().ok());
  const auto status = disk.node->BlockStatus(Range(0, 10000), 2).Take();
  ASSERT_TRUE(status.ok());
  EXPECT_EQ(status->size(), 2u);
  EXPECT_EQ(status->back().range.end().value, 1500u);
}

TEST(RawNodeTest, ZeroPunchesIfItMay) {
  const Disk disk(10000);
  ASSERT_TRUE(disk.node->Write(Range(0, 10000), Filled(10000, 1), {}).Take().ok());
  ASSERT_TRUE(disk.node->Zero(Range(100, 50), {}).Take().ok());
  EXPECT_FALSE(disk.file->AllocatedAt(100));
  EXPECT_EQ(disk.file->bytes()[149], std::byte{0});
  EXPECT_EQ(disk.file->bytes()[150], std::byte{1});
  ASSERT_TRUE(disk.node->Zero(Range(200, 50), {.may_unmap = false}).Take().ok());
  EXPECT_TRUE(disk.file->AllocatedAt(200));
  EXPECT_EQ(disk.file->bytes()[200], std::byte{0});
}

TEST(RawNodeTest, ZeroKeepsTheSpaceWhereItCannotPunch) {
  const Disk disk(10000);
  disk.file->can_punch = false;
  ASSERT_TRUE(disk.node->Zero(Range(100, 50), {.fast_only = true}).Take().ok());
  EXPECT_TRUE(disk.file->AllocatedAt(100));
  EXPECT_TRUE(disk.node->limits().fast_zero);
}

TEST(RawNodeTest, ZeroNeverPunchesWhereSpaceIsToBeKept) {
  const Disk disk(10000);
  disk.file->can_keep_allocated = false;
  const ZeroOptions fast{.may_unmap = false, .fast_only = true};
  EXPECT_EQ(disk.node->Zero(Range(100, 50), fast).Take().code(), absl::StatusCode::kUnimplemented);
  ASSERT_TRUE(disk.node->Zero(Range(100, 50), {.may_unmap = false}).Take().ok());
  EXPECT_TRUE(disk.file->AllocatedAt(100));
  EXPECT_EQ(disk.file->count("write"), 1u);
}

TEST(RawNodeTest, ZeroWritesZerosWhereNothingElseWorksButNotIfThatIsTooSlow) {
  const std::size_t size = 5 * kMiB + 300;
  const Disk disk(size);
  disk.file->can_punch = false;
  disk.file->can_keep_allocated = false;
  ASSERT_TRUE(disk.node->Write(Range(0, size), Filled(size, 1), {.durable = true}).Take().ok());
  EXPECT_EQ(disk.node->Zero(Range(1, 10), {.fast_only = true}).Take().code(),
            absl::StatusCode::kUnimplemented);
  EXPECT_EQ(disk.file->bytes()[1], std::byte{1});
  EXPECT_FALSE(disk.node->limits().fast_zero);
  const std::size_t writes = disk.file->count("write");
  ASSERT_TRUE(disk.node->Zero(Range(1, size - 1), {.durable = true}).Take().ok());
  EXPECT_EQ(disk.file->count("write") - writes, 3u) << "in pieces of bounded size";
  EXPECT_EQ(disk.file->bytes()[0], std::byte{1});
  EXPECT_TRUE(std::all_of(disk.file->bytes().begin() + 1, disk.file->bytes().end(),
                          [](std::byte b) { return b == std::byte{0}; }));
  EXPECT_TRUE(disk.file->synced());
}

TEST(RawNodeTest, ADurableZeroIsSynced) {
  const Disk disk(10000);
  ASSERT_TRUE(disk.node->Zero(Range(0, 100), {.durable = true}).Take().ok());
  EXPECT_TRUE(disk.file->synced());
  ASSERT_TRUE(disk.node->Zero(Range(0, 100), {}).Take().ok());
  EXPECT_FALSE(disk.file->synced());
}

TEST(RawNodeTest, DiscardPunchesOrDoesNothing) {
  const Disk disk(10000);
  ASSERT_TRUE(disk.node->Write(Range(0, 10000), Filled(10000, 1), {}).Take().ok());
  ASSERT_TRUE(disk.node->Discard(Range(0, 100)).Take().ok());
  EXPECT_FALSE(disk.file->AllocatedAt(0));
  disk.file->can_punch = false;
  ASSERT_TRUE(disk.node->Discard(Range(100, 100)).Take().ok());
  EXPECT_EQ(disk.file->bytes()[100], std::byte{1});
}

TEST(RawNodeTest, ErrorsOfTheFileComeThrough) {
  const Disk disk(10000);
  std::vector<std::byte> in(10);
  const absl::Status lost = absl::DataLossError("read: Input/output error");
  for (const char* call : {"read", "write", "zero", "sync", "map", "resize"}) {
    disk.file->FailNext(call, lost);
  }
  EXPECT_EQ(disk.node->Read(Range(0, 10), in).Take(), lost);
  EXPECT_EQ(disk.node->Write(Range(0, 10), in, {}).Take(), lost);
  EXPECT_EQ(disk.node->Zero(Range(0, 10), {}).Take(), lost);
  EXPECT_EQ(disk.node->Flush().Take(), lost);
  EXPECT_EQ(disk.node->BlockStatus(Range(0, 10), 1).Take().status(), lost);
  EXPECT_EQ(disk.node->Resize({20000}).Take(), lost);
  EXPECT_EQ(disk.node->limits().size.value, 10000u);
  disk.file->FailNext("zero", lost);
  EXPECT_EQ(disk.node->Discard(Range(0, 10)).Take(), lost);
}

TEST(RawNodeTest, ResizingChangesTheDisk) {
  const Disk disk(10000);
  ASSERT_TRUE(disk.node->Resize({12345}).Take().ok());
  EXPECT_EQ(disk.node->limits().size.value, 12345u);
  EXPECT_EQ(disk.file->bytes().size(), 12345u);
}

TEST(RawNodeTest, CloseFlushesAndClosesEvenIfTheFlushFails) {
  const Disk disk(10000);
  disk.file->FailNext("sync", absl::DataLossError("fdatasync: Input/output error"));
  EXPECT_EQ(disk.node->Close().Take().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(disk.file->count("close"), 1u);
}

TEST(RawNodeTest, OperationsRunSideBySide) {
  runtime::ReadyQueue ready;
  const Disk disk(10000);
  disk.file->WaitIn(ready);
  const auto a = Filled(100, 1);
  const auto b = Filled(100, 2);
  Task<absl::Status> first = disk.node->Write(Range(0, 100), a, {});
  Task<absl::Status> second = disk.node->Write(Range(100, 100), b, {});
  Task<absl::Status> third = disk.node->Zero(Range(200, 100), {.durable = true});
  EXPECT_FALSE(first.done() || second.done() || third.done());
  ready.RunUntilIdle();
  EXPECT_TRUE(first.Take().ok() && second.Take().ok() && third.Take().ok());
}

// Against a byte array, over a file that can do everything, something or nothing.
void RunRandomOperations(block::Node& node, runtime::Reactor& reactor, int steps) {
  test::RandomSource random;
  const std::size_t size = node.limits().size.value;
  const uint64_t unit = node.limits().alignment.value;
  std::vector<std::byte> model(size);
  for (int step = 0; step < steps; ++step) {
    const ByteRange range = AlignOutward(random.RangeWithin(size), node.limits().alignment, {size});
    ASSERT_TRUE(IsAlignedWithin(range, {unit}, {size}));
    std::vector<std::byte> data(range.length.value);
    const auto at = model.begin() + static_cast<std::ptrdiff_t>(range.offset.value);
    const bool coin = random.OneIn(2);
    switch (random.Below(5)) {
      case 0:
        random.FillNonZero(data);
        ASSERT_TRUE(
            test::Finish(reactor, node.Write(range, data, {.durable = random.OneIn(9)})).ok());
        std::copy(data.begin(), data.end(), at);
        break;
      case 1: {
        const block::ZeroOptions options{.may_unmap = coin, .fast_only = random.OneIn(3)};
        const absl::Status status = test::Finish(reactor, node.Zero(range, options));
        if (options.fast_only && absl::IsUnimplemented(status)) break;
        ASSERT_TRUE(status.ok()) << status;
        std::fill_n(at, range.length.value, std::byte{0});
        break;
      }
      case 2: {
        const auto status = test::Finish(reactor, node.BlockStatus(range, 1 + random.Below(5)));
        ASSERT_TRUE(status.ok());
        for (const Extent& extent : *status) {
          for (uint64_t i = 0; ReadsZero(extent.kind) && i < extent.range.length.value; ++i) {
            ASSERT_EQ(model[extent.range.offset.value + i], std::byte{0}) << "a false zero";
          }
        }
        break;
      }
      default:
        ASSERT_TRUE(test::Finish(reactor, node.Read(range, data)).ok());
        ASSERT_TRUE(std::equal(data.begin(), data.end(), at)) << "step " << step;
    }
  }
}

TEST(RawNodeTest, RandomOperationsKeepToTheByteArray) {
  runtime::Reactor reactor({});
  for (const bool can_punch : {true, false}) {
    for (const bool can_keep : {true, false}) {
      const Disk disk(20001);
      disk.file->can_punch = can_punch;
      disk.file->can_keep_allocated = can_keep;
      RunRandomOperations(*disk.node, reactor, 300);
    }
  }
}

TEST(RawNodeTest, RandomOperationsKeepToTheByteArrayOnARealFile) {
  test::TempDir dir;
  runtime::Reactor reactor({});
  runtime::WorkerPool pool("worker", 2);
  runtime::Workers workers(pool, reactor);
  const std::string path = dir.File("disk.raw");
  io::UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_TRUE(fd.valid());
  ASSERT_EQ(ftruncate(fd.get(), 1000300), 0);
  auto file = io::NewPoolFile(std::move(fd), workers);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto node = NewRawNode(std::move(file).value(), {.request_alignment = {512}});
  RunRandomOperations(*node, reactor, 300);
  EXPECT_TRUE(test::Finish(reactor, node->Close()).ok());
}

}  // namespace
}  // namespace gabion::raw
