#include "engine/filters/verify.h"

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <vector>

#include "tests/engine/filters/disk_model.h"

namespace gabion::filters {
namespace {

using test::CounterOf;
using test::DiskModel;
using test::Filled;
using test::FilterBase;
using test::MemoryNode;
using test::NodeCall;
using test::RandomSource;
using OnMismatch = VerifyOptions::OnMismatch;

constexpr uint64_t kSize = 10000;

class VerifyTest : public testing::Test {
 protected:
  VerifyTest() {
    child_.Fill(Range(0, kSize), std::byte{1}, 2);
    reference_.Fill(Range(0, kSize), std::byte{1});
  }
  std::unique_ptr<LiveFilter<VerifyOptions>> Make(OnMismatch on_mismatch = OnMismatch::kFail) {
    return NewVerify(child_, base_.environment(), reference_, {.on_mismatch = on_mismatch});
  }
  absl::Status Read(Filter& filter, ByteRange range) {
    std::vector<std::byte> bytes(range.length.value);
    return base_.Finish(filter.Read(range, bytes));
  }

  FilterBase base_;
  MemoryNode child_{{.size = kSize, .layers = 2, .fast_zero = true}};
  MemoryNode reference_{{.size = kSize, .fast_zero = true}};
};

TEST_F(VerifyTest, EqualBytesAreTheChilds) {
  const auto verify = Make();
  EXPECT_EQ(base_.Read(*verify, Range(10, 100)), Filled(100, 1));
  EXPECT_EQ(CounterOf(*verify, "compared_bytes"), 100u);
  EXPECT_EQ(CounterOf(*verify, "mismatches"), 0u);
  EXPECT_EQ(base_.StatusOf(*verify, Range(0, kSize), 5),
            base_.StatusOf(child_, Range(0, kSize), 5));
}

TEST_F(VerifyTest, ADifferenceFailsTheReadAndNamesTheFirstByte) {
  const auto verify = Make();
  reference_.Fill(Range(57, 3), std::byte{0xab});
  const absl::Status status = Read(*verify, Range(10, 100));
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(status.message(), "exports/a, filter 'f': byte 57 is 0x1, and 0xab in the reference");
  EXPECT_EQ(CounterOf(*verify, "mismatches"), 1u);
  EXPECT_TRUE(Read(*verify, Range(60, 100)).ok());
}

TEST_F(VerifyTest, DifferencesAreFoundBehindTheFirstPiece) {
  const uint64_t size = 3 * kMiB + 5;
  MemoryNode child({.size = size});
  MemoryNode reference({.size = size});
  reference.Fill(Range(size - 1, 1), std::byte{1});
  const auto verify = NewVerify(child, base_.environment(), reference, {});
  const absl::Status status = Read(*verify, Range(3, size - 3));
  EXPECT_NE(status.message().find("byte 3145732 is"), std::string::npos) << status;
}

TEST_F(VerifyTest, ADifferenceThatIsReportedDoesNotFailTheRead) {
  const auto verify = Make(OnMismatch::kReport);
  reference_.Fill(Range(57, 1), std::byte{2});
  EXPECT_EQ(base_.Read(*verify, Range(57, 1)), Filled(1, 1));
  EXPECT_EQ(base_.Read(*verify, Range(57, 1)), Filled(1, 1));
  EXPECT_EQ(CounterOf(*verify, "mismatches"), 2u);
  EXPECT_EQ(base_.logger.lines.size(), 1u);
  base_.clock.Advance(std::chrono::seconds(10));
  EXPECT_EQ(base_.Read(*verify, Range(57, 1)), Filled(1, 1));
  EXPECT_EQ(base_.logger.lines.size(), 2u);
  verify->Configure({.on_mismatch = OnMismatch::kFail});
  EXPECT_EQ(Read(*verify, Range(57, 1)).code(), absl::StatusCode::kDataLoss);
}

TEST_F(VerifyTest, AReferenceThatCannotBeReadFailsTheReadUnlessItIsOnlyReported) {
  reference_.SetFault([](NodeCall call, ByteRange) {
    return call == NodeCall::kRead ? absl::InternalError("broken") : absl::OkStatus();
  });
  const auto verify = Make();
  const absl::Status status = Read(*verify, Range(0, 1));
  EXPECT_EQ(status.message(), "exports/a, filter 'f': the reference: broken");
  verify->Configure({.on_mismatch = OnMismatch::kReport});
  EXPECT_EQ(base_.Read(*verify, Range(0, 1)), Filled(1, 1));
  EXPECT_EQ(CounterOf(*verify, "reference_failures"), 2u);
}

TEST_F(VerifyTest, ChangesAndFlushesReachBoth) {
  const auto verify = Make();
  EXPECT_TRUE(base_.Write(*verify, Range(0, 100), 7, true).ok());
  EXPECT_TRUE(reference_.calls().back().durable);
  EXPECT_TRUE(base_.Finish(verify->Zero(Range(50, 10), {})).ok());
  EXPECT_TRUE(base_.Finish(verify->Flush()).ok());
  EXPECT_EQ(child_.content(), reference_.content());
  EXPECT_EQ(child_.content()[0], std::byte{7});
  EXPECT_EQ(reference_.CountCalls(NodeCall::kFlush), 1u);
  reference_.SetFault([](NodeCall, ByteRange) { return absl::InternalError("broken"); });
  EXPECT_EQ(base_.Write(*verify, Range(0, 1), 8).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(base_.Finish(verify->Flush()).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(Read(*verify, Range(0, 1)).code(), absl::StatusCode::kInternal);
}

TEST_F(VerifyTest, AWriteThatTheChildRefusesDoesNotReachTheReference) {
  const auto verify = Make();
  child_.SetFault([](NodeCall, ByteRange) { return absl::ResourceExhaustedError("full"); });
  EXPECT_EQ(base_.Write(*verify, Range(0, 1), 8).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(reference_.calls().empty());
}

TEST_F(VerifyTest, ADiscardLeavesTheSameBytesOnBoth) {
  MemoryNode keeps({.size = kSize, .fast_zero = true, .discard_zeroes = false});
  MemoryNode slow({.size = kSize, .discard_zeroes = true});
  keeps.Fill(Range(0, kSize), std::byte{1});
  slow.Fill(Range(0, kSize), std::byte{1});
  for (MemoryNode* const reference : {&keeps, &slow}) {
    const auto verify = NewVerify(child_, base_.environment(), *reference, {});
    child_.Fill(Range(0, kSize), std::byte{1});
    EXPECT_TRUE(base_.Finish(verify->Discard(Range(0, 100))).ok());
    EXPECT_EQ(base_.Read(*verify, Range(0, kSize)).size(), kSize);
  }
}

TEST_F(VerifyTest, IsWritableWhereBothAreAndAsLongAsTheShorter) {
  MemoryNode reference({.size = kSize - 5, .writable = false});
  const auto verify = NewVerify(child_, base_.environment(), reference, {});
  EXPECT_FALSE(verify->limits().writable);
  EXPECT_FALSE(verify->limits().fast_zero);
  EXPECT_EQ(verify->limits().size, ByteCount{kSize - 5});
  EXPECT_EQ(verify->limits().layers, 2u);
  EXPECT_EQ(base_.Finish(verify->Resize(ByteCount{1})).code(), absl::StatusCode::kUnimplemented);
}

TEST(VerifyPropertyTest, RacesMakeNoDifferences) {
  RandomSource random;
  for (int round = 0; round < 60; ++round) {
    FilterBase base;
    base.ready.SetChooser(&RandomSource::Choose, &random);
    const uint64_t size = random.Between(1, 20000);
    MemoryNode child({.size = size, .layers = 3, .fast_zero = random.OneIn(2)});
    MemoryNode reference({.size = size, .fast_zero = random.OneIn(2)});
    FillAtRandom(child, random);
    reference.Put(0, child.content());
    child.SetDeferred(base.ready, random);
    reference.SetDeferred(base.ready, random);
    const auto verify = NewVerify(child, base.environment(), reference, {});
    DiskModel model(base, random, *verify, child.content(), {.window = 2000});
    for (int wave = 0; wave < 15; ++wave) {
      std::vector<std::byte> bytes(size);
      Task<absl::Status> read = verify->Read(Range(0, size), bytes);  // meets the others' writes
      ASSERT_NO_FATAL_FAILURE(model.RunWave());
      ASSERT_TRUE(read.done());
      const absl::Status status = read.Take();
      ASSERT_TRUE(status.ok()) << status;
    }
    ASSERT_EQ(CounterOf(*verify, "mismatches"), 0u);
    ASSERT_EQ(child.content(), reference.content());
  }
}

}  // namespace
}  // namespace gabion::filters
