#include "service/domain/retrier.h"

#include <gtest/gtest.h>

#include <future>
#include <vector>

namespace gabion::service {
namespace {

using std::chrono::milliseconds;

TEST(RetrierTest, TriesUntilItIsDoneAndWaitsLongerEachTime) {
  std::vector<Retrier::Clock::time_point> times;
  std::promise<void> done;
  Retrier retrier(milliseconds(4), milliseconds(1000), [&](const std::string& key) {
    EXPECT_EQ(key, "a");
    times.push_back(Retrier::Clock::now());
    if (times.size() < 4) return false;
    done.set_value();
    return true;
  });
  const auto start = Retrier::Clock::now();
  retrier.Add("a");
  retrier.Add("a");  // once is enough
  done.get_future().wait();
  retrier.Stop();
  ASSERT_EQ(times.size(), 4u);
  EXPECT_GE(times[0] - start, milliseconds(4));
  EXPECT_GE(times[1] - times[0], milliseconds(8));
  EXPECT_GE(times[2] - times[1], milliseconds(16));
  EXPECT_GE(times[3] - times[2], milliseconds(32));
}

TEST(RetrierTest, RemovedKeyIsNotTried) {
  std::promise<void> done;
  Retrier retrier(milliseconds(1), milliseconds(1), [&](const std::string& key) {
    EXPECT_EQ(key, "b");
    done.set_value();
    return true;
  });
  // Long before it is due, because nothing else is.
  Retrier idle(milliseconds(60'000), milliseconds(60'000), [](const std::string&) {
    ADD_FAILURE();
    return true;
  });
  idle.Add("a");
  idle.Remove("a");
  retrier.Add("b");
  done.get_future().wait();
}

TEST(RetrierTest, StopDoesNotWaitForWhatIsDueLater) {
  Retrier retrier(milliseconds(3'600'000), milliseconds(3'600'000),
                  [](const std::string&) { return true; });
  retrier.Add("a");
  retrier.Stop();
}

}  // namespace
}  // namespace gabion::service
