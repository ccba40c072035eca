#include "tests/sim/model.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace gabion::sim {
namespace {

constexpr ByteRange kAll = Range(0, 512);

// A disk of one sector, to which one does things and about which one asks what it may show.
class ModelTest : public testing::Test {
 protected:
  OpId Done(Effect effect, bool durable = false) {
    const OpId op = model_.Begin(effect, kAll);
    model_.Succeed(op, durable);
    return op;
  }
  void Flush() { model_.EndFlush(model_.BeginFlush()); }

  std::vector<std::byte> BytesOf(OpId op) const {
    std::vector<std::byte> bytes(kAll.length.value);
    if (op != Model::kNothing) content_.Fill(op, 0, bytes);
    return bytes;
  }
  // True if a look that takes no time may see `op`. A copy is asked, which may learn from it.
  bool MayShow(OpId op) const {
    Model copy = model_;
    const Model::Moment begun = copy.BeginLook();
    return copy.CheckRead(begun, kAll, BytesOf(op)).ok();
  }
  void See(OpId op, bool lasting = false) {
    const Model::Moment begun = model_.BeginLook();
    EXPECT_TRUE(model_.CheckRead(begun, kAll, BytesOf(op), lasting).ok());
    model_.EndLook(begun);
  }
  bool MayAnswer(const block::ExtentList& extents, std::size_t most = 10) const {
    Model copy = model_;
    const Model::Moment begun = copy.BeginLook();
    block::Limits limits;
    return copy.CheckExtents(begun, kAll, extents, most, limits).ok();
  }

  const Content content_{99};
  Model model_{content_, 512, {}};
};

TEST_F(ModelTest, WhatHasSucceededReplacesWhatWasBefore) {
  EXPECT_TRUE(MayShow(Model::kNothing));
  const OpId first = Done(Effect::kData);
  EXPECT_TRUE(MayShow(first));
  EXPECT_FALSE(MayShow(Model::kNothing));
  const OpId second = Done(Effect::kData);
  EXPECT_TRUE(MayShow(second));
  EXPECT_FALSE(MayShow(first));
}

TEST_F(ModelTest, OperationsAtTheSameTimeEndInAnyOrder) {
  const OpId first = model_.Begin(Effect::kData, kAll);
  const OpId second = model_.Begin(Effect::kData, kAll);
  model_.Succeed(second, false);
  model_.Succeed(first, false);
  EXPECT_TRUE(MayShow(first));
  EXPECT_TRUE(MayShow(second));
  EXPECT_FALSE(MayShow(Model::kNothing));
}

TEST_F(ModelTest, WhatWasSeenInQuietStays) {
  const OpId first = model_.Begin(Effect::kData, kAll);
  const OpId second = model_.Begin(Effect::kData, kAll);
  See(first);  // not in quiet
  model_.Succeed(first, false);
  model_.Succeed(second, false);
  EXPECT_TRUE(MayShow(second));
  See(first);
  EXPECT_FALSE(MayShow(second));
}

TEST_F(ModelTest, LooksAtTheSameTimeSeeTheSameInQuiet) {
  const OpId failed = model_.Begin(Effect::kData, kAll);
  model_.Fail(failed);
  const block::ExtentList zeros = {{.range = kAll, .kind = block::ExtentKind::kZero}};
  for (const bool zero_first : {false, true}) {
    Model model = model_;
    const Model::Moment begun[] = {model.BeginLook(), model.BeginLook(), model.BeginLook(),
                                   model.BeginLook()};
    const OpId seen[] = {zero_first ? Model::kNothing : failed,
                         zero_first ? failed : Model::kNothing};
    EXPECT_TRUE(model.CheckRead(begun[0], kAll, BytesOf(seen[0])).ok());
    EXPECT_FALSE(model.CheckRead(begun[1], kAll, BytesOf(seen[1])).ok());
    EXPECT_EQ(model.CheckExtents(begun[2], kAll, zeros, 1, {}).ok(), zero_first);
    EXPECT_TRUE(model.CheckRead(begun[3], kAll, BytesOf(seen[0])).ok());
  }
}

TEST_F(ModelTest, WhatHasFailedOrIsInFlightMayShow) {
  const OpId before = Done(Effect::kData);
  const OpId failed = model_.Begin(Effect::kData, kAll);
  model_.Fail(failed);
  const OpId open = model_.Begin(Effect::kZeros, kAll);
  EXPECT_TRUE(MayShow(before));
  EXPECT_TRUE(MayShow(failed));
  EXPECT_TRUE(MayShow(Model::kNothing));
  model_.Withdraw(open);
  EXPECT_FALSE(MayShow(Model::kNothing));
}

TEST_F(ModelTest, ALookMaySeeWhatIsReplacedMeanwhile) {
  const OpId before = Done(Effect::kData);
  const Model::Moment begun = model_.BeginLook();
  const OpId after = Done(Effect::kData, true);
  EXPECT_TRUE(model_.CheckRead(begun, kAll, BytesOf(before)).ok());
  EXPECT_TRUE(model_.CheckRead(begun, kAll, BytesOf(after)).ok());
  model_.EndLook(begun);
  EXPECT_FALSE(MayShow(before));
}

TEST_F(ModelTest, ASectorShowsOneEffectAndNotAMix) {
  const OpId first = model_.Begin(Effect::kData, kAll);
  const OpId second = model_.Begin(Effect::kData, kAll);
  std::vector<std::byte> mixed = BytesOf(first);
  mixed.back() = BytesOf(second).back();
  const Model::Moment begun = model_.BeginLook();
  EXPECT_FALSE(model_.CheckRead(begun, kAll, mixed).ok());
}

TEST_F(ModelTest, ACrashBringsBackWhatWasNotFlushedAway) {
  const OpId first = Done(Effect::kData);
  Flush();
  const OpId second = Done(Effect::kData);
  const OpId third = Done(Effect::kData);
  model_.Crash();
  EXPECT_FALSE(MayShow(Model::kNothing));
  EXPECT_TRUE(MayShow(first));
  EXPECT_TRUE(MayShow(second));
  EXPECT_TRUE(MayShow(third));
  See(second, true);
  model_.Crash();
  EXPECT_TRUE(MayShow(second));
  EXPECT_FALSE(MayShow(first));
  EXPECT_FALSE(MayShow(third));
}

TEST_F(ModelTest, ADurableOperationNeedsNoFlush) {
  const OpId first = Done(Effect::kData);
  const OpId second = Done(Effect::kData, true);
  model_.Crash();
  EXPECT_FALSE(MayShow(first));
  EXPECT_TRUE(MayShow(second));
}

TEST_F(ModelTest, AFlushCoversOnlyWhatWasDoneWhenItBegan) {
  const OpId first = Done(Effect::kData);
  const Model::Moment flush = model_.BeginFlush();
  const OpId second = Done(Effect::kData);
  model_.EndFlush(flush);
  model_.Crash();
  EXPECT_FALSE(MayShow(Model::kNothing));
  EXPECT_TRUE(MayShow(first));
  EXPECT_TRUE(MayShow(second));
}

TEST_F(ModelTest, WhatWasSeenOfADiscardIsFlushedToo) {
  const OpId data = Done(Effect::kData, true);
  Done(Effect::kDiscard);
  EXPECT_TRUE(MayShow(data));
  EXPECT_TRUE(MayShow(Model::kNothing));
  See(Model::kNothing);
  EXPECT_FALSE(MayShow(data));
  Flush();
  model_.Crash();
  EXPECT_FALSE(MayShow(data));
}

TEST_F(ModelTest, ZerosAreOnlyWhereZerosMayShow) {
  const block::Extent zeros{.range = kAll, .kind = block::ExtentKind::kZero};
  const block::Extent data{.range = kAll};
  EXPECT_TRUE(MayAnswer({zeros}));
  EXPECT_TRUE(MayAnswer({data}));
  const OpId op = model_.Begin(Effect::kData, kAll);
  EXPECT_TRUE(MayAnswer({zeros}));
  model_.Succeed(op, false);
  EXPECT_FALSE(MayAnswer({zeros}));
  EXPECT_TRUE(MayAnswer({data}));
  Done(Effect::kDiscard);
  EXPECT_TRUE(MayAnswer({zeros}));
}

TEST_F(ModelTest, ExtentsFollowOneAnotherWithinTheRequest) {
  const auto data = [](uint64_t offset, uint64_t length) {
    return block::Extent{.range = Range(offset, length)};
  };
  EXPECT_TRUE(MayAnswer({data(0, 100), data(100, 412)}));
  EXPECT_TRUE(MayAnswer({data(0, 100)}));
  EXPECT_FALSE(MayAnswer({}));
  EXPECT_FALSE(MayAnswer({data(1, 511)}));
  EXPECT_FALSE(MayAnswer({data(0, 100), data(101, 100)}));
  EXPECT_FALSE(MayAnswer({data(0, 100), data(100, 0)}));
  EXPECT_FALSE(MayAnswer({data(0, 513)}));
  EXPECT_FALSE(MayAnswer({data(0, 100), data(100, 100)}, 1));
  block::Extent deep = data(0, 512);
  deep.layer = 2;
  EXPECT_FALSE(MayAnswer({deep}));
  deep.layer = 0;
  EXPECT_FALSE(MayAnswer({deep}));
}

TEST(ContentTest, SaysWhereBytesComeFrom) {
  const Content content(5);
  std::vector<std::byte> bytes(64);
  content.Fill(7, 4096, bytes);
  EXPECT_TRUE(content.Matches(7, 4096, bytes));
  EXPECT_FALSE(content.Matches(7, 4104, bytes));
  EXPECT_FALSE(content.Matches(8, 4096, bytes));
  EXPECT_EQ(content.Trace(1024, bytes, 10), "at 1024 what operation 7 wrote at 4096");
  EXPECT_EQ(content.Trace(1024, bytes, 5), "bytes that no operation wrote as a whole word");
}

TEST(ContentTest, IsTheSameHoweverItIsCut) {
  const Content content(5);
  std::vector<std::byte> whole(100);
  content.Fill(3, 1000, whole);
  for (std::size_t cut = 0; cut <= whole.size(); ++cut) {
    std::vector<std::byte> parts(100);
    content.Fill(3, 1000, MutableBytes(parts).first(cut));
    content.Fill(3, 1000 + cut, MutableBytes(parts).subspan(cut));
    EXPECT_EQ(parts, whole);
  }
}

}  // namespace
}  // namespace gabion::sim
