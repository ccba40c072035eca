// A dry run tells conditions without a trace.
#include <gtest/gtest.h>

#include "service/domain/condition_log.h"

namespace gabion::service {
namespace {

google::protobuf::Timestamp At(int64_t seconds) {
  google::protobuf::Timestamp time;
  time.set_seconds(seconds);
  return time;
}

google::protobuf::Timestamp Tell(ConditionLog& log, const std::string& uid, bool satisfied) {
  const ConditionLog::Fact ready{.type = "Ready",
                                 .satisfied = satisfied,
                                 .reason = "NOT",
                                 .message = "It is not.",
                                 .not_before = At(5)};
  Conditions told;
  log.Tell(uid, 1, ready, &told);
  return told.Get(0).last_transition_time();
}

TEST(ConditionTrialTest, WhatIsToldToItLeavesNothing) {
  ConditionLog log;
  ConditionLog trial(log, "a");
  EXPECT_GT(Tell(trial, "a", false).seconds(), 5);
  EXPECT_EQ(Tell(log, "a", true).seconds(), 5);  // it was never otherwise
}

TEST(ConditionTrialTest, ItKnowsWhatIsKnownOfItsResourceAndOfNoOther) {
  ConditionLog log;
  const std::string since = Tell(log, "a", false).DebugString();
  Tell(log, "b", false);
  ConditionLog trial(log, "a");
  EXPECT_EQ(Tell(trial, "a", false).DebugString(), since);
  EXPECT_EQ(Tell(trial, "b", true).seconds(), 5);
}

}  // namespace
}  // namespace gabion::service
