#include "service/domain/reconciler.h"

#include <gtest/gtest.h>

#include <future>
#include <vector>

namespace gabion::service {
namespace {

using std::chrono::milliseconds;
constexpr auto kDone = Reconciler::Outcome::kDone;
constexpr auto kRetry = Reconciler::Outcome::kRetry;

TEST(ReconcilerTest, TriesUntilItIsDoneAndWaitsLongerEachTime) {
  std::vector<Reconciler::Clock::time_point> times;
  std::promise<void> done;
  Reconciler reconciler({milliseconds(10), milliseconds(1000)}, [&](const std::string& key) {
    EXPECT_EQ(key, "a");
    times.push_back(Reconciler::Clock::now());
    if (times.size() < 4) return kRetry;
    done.set_value();
    return kDone;
  });
  const auto start = Reconciler::Clock::now();
  reconciler.AddFailed("a");
  reconciler.AddFailed("a");  // once is enough
  done.get_future().wait();
  reconciler.Stop();
  ASSERT_EQ(times.size(), 4u);
  EXPECT_GE(times[0] - start, milliseconds(8));
  EXPECT_GE(times[1] - times[0], milliseconds(16));
  EXPECT_GE(times[2] - times[1], milliseconds(32));
  EXPECT_GE(times[3] - times[2], milliseconds(64));
}

TEST(ReconcilerTest, RemovedKeyIsNotTried) {
  std::promise<void> done;
  Reconciler reconciler({milliseconds(1), milliseconds(1)}, [&](const std::string& key) {
    EXPECT_EQ(key, "b");
    done.set_value();
    return kDone;
  });
  // Long before it is due, because nothing else is.
  Reconciler idle({milliseconds(60'000), milliseconds(60'000)}, [](const std::string&) {
    ADD_FAILURE();
    return kDone;
  });
  idle.AddFailed("a");
  idle.Remove("a");
  reconciler.Add("b");
  done.get_future().wait();
}

TEST(ReconcilerTest, StopDoesNotWaitForWhatIsDueLater) {
  Reconciler reconciler({milliseconds(3'600'000), milliseconds(3'600'000)},
                        [](const std::string&) { return kDone; });
  reconciler.AddFailed("a");
  reconciler.Stop();
}

TEST(ReconcilerTest, WhatIsAddedWhileItIsWorkedOnIsWorkedOnAgain) {
  std::promise<void> begun;
  std::promise<void> go_on;
  std::promise<void> again;
  int visits = 0;
  Reconciler reconciler({milliseconds(60'000), milliseconds(60'000)}, [&](const std::string&) {
    if (++visits == 1) {
      begun.set_value();
      go_on.get_future().wait();
    } else {
      again.set_value();
    }
    return kDone;
  });
  reconciler.Add("a");
  begun.get_future().wait();
  reconciler.Add("a");
  go_on.set_value();
  again.get_future().wait();
  reconciler.Stop();
  EXPECT_EQ(visits, 2);
}

TEST(ReconcilerTest, AddingMakesAWaitingFailureDue) {
  std::promise<void> worked;
  Reconciler reconciler({milliseconds(3'600'000), milliseconds(3'600'000)},
                        [&](const std::string&) {
                          worked.set_value();
                          return kDone;
                        });
  reconciler.AddFailed("a");
  reconciler.Add("a");
  worked.get_future().wait();
}

}  // namespace
}  // namespace gabion::service
