// What requests on qcow2 images cost: syncs, reads of the backing image, loads of tables.
#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "engine/base/check.h"
#include "engine/formats/qcow2/create.h"
#include "engine/formats/qcow2/qcow2_node.h"
#include "engine/runtime/ready_queue.h"
#include "tests/support/memory_node.h"
#include "tests/support_io/memory_file.h"

namespace gabion::qcow2 {
namespace {

using test::MemoryFile;
using test::MemoryNode;
using test::NodeCall;

constexpr uint64_t kCluster = 64 * kKiB;

class DiskCostTest : public ::testing::Test {
 protected:
  void Open(block::Node* backing) {
    CreateOptions create{.size = 64 * kCluster};
    if (backing != nullptr) {
      create.backing_file = "base.raw";
      create.backing_format = "raw";
    }
    const absl::StatusOr<NewImageLayout> layout = NewImageLayout::Plan(create);
    ASSERT_TRUE(layout.ok()) << layout.status();
    auto file = std::make_unique<MemoryFile>(layout->file_bytes());
    layout->Fill(0, MutableBytes(file->bytes()).first(layout->metadata_bytes()));
    file->WaitIn(ready_);
    file_ = file.get();
    auto opened = Run(OpenQcow2(std::move(file), {.name = "images/a", .backing = backing}, ready_));
    ASSERT_TRUE(opened.ok()) << opened.status();
    node_ = *std::move(opened);
    ASSERT_TRUE(Run(node_->BeginWriting()).ok());
  }
  void TearDown() override {
    if (node_ == nullptr) return;
    EXPECT_TRUE(Run(node_->Close()).ok());
  }

  template <typename T>
  T Run(Task<T> task) {
    while (!task.done()) CHECK_GT(ready_.RunOnce(), 0u);
    return task.Take();
  }
  Task<absl::Status> Write(uint64_t offset, uint64_t length, bool durable = false) {
    content_.resize(4 * kCluster, std::byte{7});
    return node_->Write(Range(offset, length), Bytes(content_).first(length), {.durable = durable});
  }
  std::size_t Syncs() const { return file_->count("sync"); }

  runtime::ReadyQueue ready_;
  std::vector<std::byte> content_;
  MemoryFile* file_ = nullptr;  // the node's
  std::unique_ptr<Qcow2Node> node_;
};

TEST_F(DiskCostTest, AFlushIsOneSyncUnlessSomethingWasAllocated) {
  Open(nullptr);
  ASSERT_TRUE(Run(Write(0, 4096)).ok());
  std::size_t before = Syncs();
  ASSERT_TRUE(Run(node_->Flush()).ok());
  EXPECT_EQ(Syncs() - before, 2u);  // data and what it needs first, then what refers to it
  ASSERT_TRUE(Run(Write(0, 4096)).ok());
  before = Syncs();
  ASSERT_TRUE(Run(node_->Flush()).ok());
  EXPECT_EQ(Syncs() - before, 1u);
  before = Syncs();
  const std::size_t writes = file_->count("write");
  ASSERT_TRUE(Run(node_->Flush()).ok());
  EXPECT_EQ(Syncs() - before, 1u);
  EXPECT_EQ(file_->count("write"), writes);
}

TEST_F(DiskCostTest, AllWhoAllocateInOneTurnShareACommit) {
  Open(nullptr);
  ASSERT_TRUE(Run(Write(0, 512)).ok());  // the L2 table
  ASSERT_TRUE(Run(node_->Flush()).ok());
  const std::size_t before = Syncs();
  std::vector<Task<absl::Status>> writes;
  for (uint64_t i = 1; i <= 16; ++i) writes.push_back(Write(i * kCluster, 512, /*durable=*/true));
  for (Task<absl::Status>& write : writes) EXPECT_TRUE(Run(std::move(write)).ok());
  // One commit for those that were written when it began, at most one more for the rest.
  EXPECT_LE(Syncs() - before, 4u);
}

TEST_F(DiskCostTest, ADurableWriteInPlaceIsOneWriteAndNoCommit) {
  Open(nullptr);
  ASSERT_TRUE(Run(Write(0, 4096)).ok());
  ASSERT_TRUE(Run(node_->Flush()).ok());
  const std::size_t syncs = Syncs();
  const std::size_t writes = file_->count("write");
  ASSERT_TRUE(Run(Write(512, 512, /*durable=*/true)).ok());
  EXPECT_EQ(Syncs(), syncs);
  EXPECT_EQ(file_->count("write"), writes + 1);
}

TEST_F(DiskCostTest, WritesToOneClusterShareItsCopyOnWrite) {
  MemoryNode backing({.size = 64 * kCluster, .writable = false});
  backing.Fill(Range(0, 64 * kCluster), std::byte{3});
  Open(&backing);
  std::vector<Task<absl::Status>> writes;
  for (uint64_t i = 0; i < 8; ++i) writes.push_back(Write(kCluster + i * 4096, 4096));
  for (Task<absl::Status>& write : writes) EXPECT_TRUE(Run(std::move(write)).ok());
  EXPECT_LE(backing.CountCalls(NodeCall::kRead), 2u);  // around the first one
  std::vector<std::byte> now(kCluster);
  ASSERT_TRUE(Run(node_->Read(Range(kCluster, kCluster), now)).ok());
  for (uint64_t i = 0; i < kCluster; ++i) {
    ASSERT_EQ(now[i], i < 8 * 4096 ? std::byte{7} : std::byte{3}) << i;
  }
  EXPECT_TRUE(Run(std::exchange(node_, nullptr)->Close()).ok());  // before its backing image goes
}

TEST_F(DiskCostTest, NewClustersBehindTheEndNeedNoZeros) {
  Open(nullptr);
  ASSERT_TRUE(Run(Write(kCluster + 4096, 4096)).ok());
  EXPECT_EQ(file_->largest_write(), 4096u);
}

TEST_F(DiskCostTest, TablesAreReadOnce) {
  Open(nullptr);
  ASSERT_TRUE(Run(Write(0, 4 * kCluster)).ok());
  ASSERT_TRUE(Run(node_->Flush()).ok());
  std::vector<std::byte> now(512);
  ASSERT_TRUE(Run(node_->Read(Range(0, 512), now)).ok());
  const std::size_t reads = file_->count("read");
  for (uint64_t i = 0; i < 16; ++i) {
    ASSERT_TRUE(Run(node_->Read(Range(i * 8192, 512), now)).ok());
  }
  EXPECT_EQ(file_->count("read"), reads + 16);
}

}  // namespace
}  // namespace gabion::qcow2
