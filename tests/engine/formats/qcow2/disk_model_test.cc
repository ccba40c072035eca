// Random requests on qcow2 images of random shapes, against an array of bytes; and what qemu-img
// says of the files.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/formats/qcow2/create.h"
#include "engine/formats/qcow2/qcow2_node.h"
#include "engine/runtime/ready_queue.h"
#include "tests/support/memory_node.h"
#include "tests/support/random_source.h"
#include "tests/support_io/memory_file.h"
#include "tests/support_io/temp_dir.h"

namespace gabion::qcow2 {
namespace {

using test::MemoryFile;
using test::MemoryNode;
using test::RandomSource;

// A File that forwards to one that outlives it, so that the bytes are there after the node's end.
class Borrowed final : public io::File {
 public:
  explicit Borrowed(io::File& file) : file_(file) {}
  ByteCount size() const override { return file_.size(); }
  bool writable() const override { return file_.writable(); }
  uint32_t alignment() const override { return file_.alignment(); }
  std::string_view driver() const override { return file_.driver(); }
  Task<absl::Status> Read(ByteOffset offset, MutableBytes dst) override {
    return file_.Read(offset, dst);
  }
  Task<absl::Status> Write(ByteOffset offset, Bytes src, bool durable) override {
    return file_.Write(offset, src, durable);
  }
  Task<absl::Status> Zero(ByteRange range, io::ZeroMode mode) override {
    return file_.Zero(range, mode);
  }
  Task<absl::Status> Sync() override { return file_.Sync(); }
  Task<absl::Status> Prefetch(ByteRange range) override { return file_.Prefetch(range); }
  Task<absl::StatusOr<std::vector<io::FileExtent>>> Map(ByteRange range,
                                                        std::size_t max_extents) override {
    return file_.Map(range, max_extents);
  }
  Task<absl::Status> Resize(ByteCount size) override { return file_.Resize(size); }
  Task<absl::Status> Close() override { return absl::OkStatus(); }

 private:
  io::File& file_;
};

struct Shape {
  CreateOptions create;
  uint64_t backing_size = 0;  // 0: none
};

Shape RandomShape(RandomSource& random) {
  Shape shape;
  CreateOptions& create = shape.create;
  create.version = random.OneIn(5) ? 2 : 3;
  create.cluster_bits = static_cast<uint32_t>(random.Between(9, 17));
  if (create.version == 3) {
    create.extended_l2 = random.OneIn(3);
    create.refcount_order = static_cast<uint32_t>(random.Between(0, 6));
    if (random.OneIn(4)) create.compression = Compression::kZstd;
  }
  if (create.extended_l2) create.cluster_bits = std::max(create.cluster_bits, 14u);
  const uint64_t cluster = uint64_t{1} << create.cluster_bits;
  create.size = random.Between(1, std::min<uint64_t>(40 * cluster, 2 * kMiB));
  // QEMU knows sizes in sectors only.
  create.size = RoundUp(create.size, 512);
  if (random.OneIn(2)) {
    shape.backing_size = RoundUp(random.Between(1, create.size + create.size / 2), 512);
    create.backing_file = "base.raw";
    create.backing_format = "raw";
  }
  const bool can_preallocate = !create.backing_file.has_value() || create.extended_l2;
  create.preallocate_metadata = can_preallocate && random.OneIn(4);
  return shape;
}

void MakeImage(const Shape& shape, MemoryFile& file) {
  const absl::StatusOr<NewImageLayout> layout = NewImageLayout::Plan(shape.create);
  ASSERT_TRUE(layout.ok()) << layout.status();
  file.bytes().clear();
  std::vector<std::byte> metadata(layout->metadata_bytes());
  layout->Fill(0, metadata);
  ASSERT_TRUE(file.Resize(ByteCount{layout->file_bytes()}).Take().ok());
  ASSERT_TRUE(file.Write(ByteOffset{0}, metadata, false).Take().ok());
}

class Player {
 public:
  Player(RandomSource& random, const Shape& shape) : random_(random), shape_(shape), file_(0) {
    MakeImage(shape, file_);
    model_.resize(shape.create.size);
    if (shape.backing_size > 0) {
      backing_ = std::make_unique<MemoryNode>(
          test::MemoryNodeOptions{.size = shape.backing_size, .writable = false});
      for (int i = 0; i < 4; ++i) {
        const ByteRange range = random.RangeWithin(shape.backing_size);
        std::vector<std::byte> content(range.length.value);
        random.FillNonZero(content);
        backing_->Put(range.offset.value, content);
      }
      const std::size_t common = std::min(model_.size(), backing_->content().size());
      std::copy_n(backing_->content().begin(), common, model_.begin());
    }
    Open();
  }
  ~Player() { Close(); }

  void Open() {
    Qcow2Options options{.name = "images/a", .backing = backing_.get()};
    options.cache_bytes = ByteCount{random_.OneIn(2) ? 1 : 1 * kMiB};
    absl::StatusOr<std::unique_ptr<Qcow2Node>> opened =
        Run(OpenQcow2(std::make_unique<Borrowed>(file_), std::move(options), ready_));
    ASSERT_TRUE(opened.ok()) << opened.status();
    node_ = *std::move(opened);
    const absl::Status begun = Run(node_->BeginWriting());
    ASSERT_TRUE(begun.ok()) << begun;
  }
  void Close() {
    if (node_ == nullptr) return;
    const absl::Status closed = Run(node_->Close());
    EXPECT_TRUE(closed.ok()) << closed;
    node_.reset();
  }

  void Step() {
    const ByteRange range = random_.RangeWithin(model_.size());
    const auto at = model_.begin() + static_cast<std::ptrdiff_t>(range.offset.value);
    const bool durable = random_.OneIn(8);
    switch (random_.Below(8)) {
      case 0:
      case 1:
      case 2: {
        std::vector<std::byte> content(range.length.value);
        random_.FillNonZero(content);
        const absl::Status status = Run(node_->Write(range, content, {.durable = durable}));
        ASSERT_TRUE(status.ok()) << status;
        std::copy(content.begin(), content.end(), at);
        break;
      }
      case 3: {
        const block::ZeroOptions options{
            .durable = durable, .may_unmap = random_.OneIn(2), .fast_only = random_.OneIn(4)};
        const absl::Status status = Run(node_->Zero(range, options));
        if (options.fast_only && absl::IsUnimplemented(status)) break;
        ASSERT_TRUE(status.ok()) << status;
        std::fill_n(at, range.length.value, std::byte{0});
        break;
      }
      case 4: {
        ASSERT_TRUE(Run(node_->Discard(range)).ok());
        // Old content or zeros, byte by byte; from now on it is what it is.
        std::vector<std::byte> now(range.length.value);
        const absl::Status read = Run(node_->Read(range, now));
        ASSERT_TRUE(read.ok()) << read;
        for (std::size_t i = 0; i < now.size(); ++i) {
          ASSERT_TRUE(now[i] == std::byte{0} || now[i] == at[static_cast<std::ptrdiff_t>(i)]);
        }
        std::copy(now.begin(), now.end(), at);
        break;
      }
      case 5:
        CompareContent(range);
        break;
      case 6:
        if (random_.OneIn(4)) {
          Close();
          Open();
        } else {
          ASSERT_TRUE(Run(node_->Flush()).ok());
        }
        break;
      case 7:
        CompareStatus(range);
        break;
    }
  }

  void CompareContent(ByteRange range) {
    std::vector<std::byte> now(range.length.value);
    const absl::Status read = Run(node_->Read(range, now));
    ASSERT_TRUE(read.ok()) << read;
    const auto at = model_.begin() + static_cast<std::ptrdiff_t>(range.offset.value);
    ASSERT_TRUE(std::equal(now.begin(), now.end(), at))
        << "offset " << range.offset.value << " length " << range.length.value;
  }
  void CompareStatus(ByteRange range) {
    uint64_t at = range.offset.value;
    while (at < range.end().value) {
      const ByteRange rest = Range(at, range.end().value - at);
      const absl::StatusOr<block::ExtentList> list =
          Run(node_->BlockStatus(rest, random_.Between(1, 20)));
      ASSERT_TRUE(list.ok()) << list.status();
      ASSERT_FALSE(list->empty());
      for (const block::Extent& extent : *list) {
        ASSERT_EQ(extent.range.offset.value, at);
        ASSERT_LE(extent.range.end().value, range.end().value);
        at = extent.range.end().value;
        if (!block::ReadsZero(extent.kind)) continue;
        for (uint64_t i = extent.range.offset.value; i < at; ++i) {
          ASSERT_EQ(model_[i], std::byte{0}) << i;
        }
      }
    }
  }
  void Resize() {
    const uint64_t size = RoundUp(random_.Between(1, 2 * model_.size()), 512);
    const absl::Status status = Run(node_->Resize(ByteCount{size}));
    ASSERT_TRUE(status.ok()) << status;
    model_.resize(size);
  }

  void CheckWithQemu() {
    Close();
    const test::TempDir dir;
    Save(dir.File("a.qcow2"), file_.bytes());
    Save(dir.File("model.raw"), model_);
    if (backing_ != nullptr) Save(dir.File("base.raw"), backing_->content());
    ASSERT_EQ(Shell("qemu-img check -q " + dir.File("a.qcow2")), 0);
    ASSERT_EQ(Shell("qemu-img compare -q -f qcow2 -F raw " + dir.File("a.qcow2") + " " +
                    dir.File("model.raw")),
              0);
    Open();
  }

 private:
  template <typename T>
  T Run(Task<T> task) {
    while (!task.done()) CHECK_GT(ready_.RunOnce(), 0u);
    return task.Take();
  }
  static void Save(const std::string& path, const std::vector<std::byte>& bytes) {
    std::ofstream out(path, std::ios::binary);
    out.write(reinterpret_cast<const char*>(bytes.data()),
              static_cast<std::streamsize>(bytes.size()));
  }
  static int Shell(const std::string& command) { return std::system(command.c_str()); }

  RandomSource& random_;
  const Shape shape_;
  runtime::ReadyQueue ready_;
  MemoryFile file_;
  std::unique_ptr<MemoryNode> backing_;
  std::unique_ptr<Qcow2Node> node_;
  std::vector<std::byte> model_;
};

std::string Describe(const Shape& shape) {
  const CreateOptions& create = shape.create;
  return absl::StrCat(
      "v", create.version, " cluster 2^", create.cluster_bits, " size ", create.size,
      " refcount order ", create.refcount_order, create.extended_l2 ? " extended" : "",
      create.preallocate_metadata ? " preallocated" : "", " backing ", shape.backing_size);
}

TEST(DiskModelTest, AnswersAsAnArrayOfBytesDoes) {
  const bool has_qemu = std::system("qemu-img --version >/dev/null 2>&1") == 0;
  RandomSource random;
  for (int round = 0; round < 60; ++round) {
    const Shape shape = RandomShape(random);
    SCOPED_TRACE(absl::StrCat("round ", round, ": ", Describe(shape)));
    Player player(random, shape);
    for (int step = 0; step < 200; ++step) {
      player.Step();
      if (random.OneIn(60)) player.Resize();
      if (HasFatalFailure()) return;
    }
    if (has_qemu && round % 3 == 0) player.CheckWithQemu();
    if (HasFatalFailure()) return;
  }
  if (!has_qemu) GTEST_SKIP() << "qemu-img is not here: the files were not checked with it";
}

}  // namespace
}  // namespace gabion::qcow2
