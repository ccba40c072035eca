#include "service/domain/request_log.h"

#include <gtest/gtest.h>

#include <future>

#include "gabion/v1/image.pb.h"
#include "service/errors.h"
#include "service/store/memory_store.h"

namespace gabion::service {
namespace {

using std::chrono::seconds;
using store::v1::Request;

class RequestLogTest : public testing::Test {
 protected:
  RequestLogTest() : store_(NewMemoryStore()), log_(*store_, locks_) {}

  static Call CallOf(const std::string& id, const std::string& fingerprint = "f") {
    Call call;
    call.request = "CreateImage/" + id;
    call.fingerprint = fingerprint;
    return call;
  }
  static v1::Image Image(const std::string& name) {
    v1::Image image;
    image.set_name(name);
    return image;
  }
  void Commit(const std::vector<Mutation>& steps) {
    const auto committed = store_->Commit(steps);
    ASSERT_TRUE(committed.ok()) << committed.status();
  }
  std::optional<Request> Find(const Call& call) {
    const auto found = log_.Find(call);
    EXPECT_TRUE(found.ok()) << found.status();
    return found.value_or(std::nullopt);
  }
  size_t Rows(const std::string& collection) {
    return store_->List(collection, "", 1000)->rows.size();
  }
  void Begin(const Call& call) {
    std::vector<Mutation> steps;
    RequestLog::Begin(call, &steps);
    Commit(steps);
  }
  void Answered(const Call& call) {
    std::vector<Mutation> steps;
    RequestLog::BeginAnswered(call, Image("images/a"), &steps);
    Commit(steps);
  }

  std::unique_ptr<MetadataStore> store_;
  ResourceLocks locks_;
  RequestLog log_;
};

TEST_F(RequestLogTest, AnEntryHasNoAnswerUntilItIsGiven) {
  const Call call = CallOf("1");
  EXPECT_FALSE(Find(call).has_value());
  Begin(call);
  EXPECT_EQ(Find(call)->answer_case(), Request::ANSWER_NOT_SET);
  std::vector<Mutation> steps;
  ASSERT_TRUE(log_.Answer(call.request, Image("images/a"), &steps).ok());
  Commit(steps);
  v1::Image image;
  ASSERT_TRUE(Find(call)->response().UnpackTo(&image));
  EXPECT_EQ(image.name(), "images/a");
}

TEST_F(RequestLogTest, AnEntryCanBeAnsweredFromTheBeginning) {
  Answered(CallOf("1"));
  EXPECT_TRUE(Find(CallOf("1"))->has_response());
  std::vector<Mutation> steps;
  RequestLog::BeginOperation(CallOf("2"), "operations/o", &steps);
  Commit(steps);
  EXPECT_EQ(Find(CallOf("2"))->operation(), "operations/o");
}

TEST_F(RequestLogTest, AnotherRequestUnderTheSameIdIsRefused) {
  Begin(CallOf("1", "f"));
  EXPECT_EQ(InfoOf(log_.Find(CallOf("1", "g")).status()).reason(), "REQUEST_ID_REUSED");
  EXPECT_EQ(InfoOf(log_.Find(CallOf("1", "g")).status()).metadata().at("field"), "request_id");
}

TEST_F(RequestLogTest, AnEffectThatIsTakenBackLeavesNothing) {
  const Call call = CallOf("1");
  Begin(call);
  std::vector<Mutation> steps;
  ASSERT_TRUE(log_.Forget(call.request, &steps).ok());
  Commit(steps);
  EXPECT_FALSE(Find(call).has_value());
  EXPECT_EQ(Rows("expiries"), 0u);
  Begin(call);  // and can be made again
  EXPECT_TRUE(Find(call).has_value());
}

TEST_F(RequestLogTest, AnEntryThatWasLeftWithoutAnAnswerIsReplaced) {
  Begin(CallOf("1"));
  Answered(CallOf("1"));
  EXPECT_TRUE(Find(CallOf("1"))->has_response());
  ASSERT_TRUE(log_.Expire(seconds(-10)).ok());
  EXPECT_EQ(Rows("requests") + Rows("expiries"), 0u);
}

TEST_F(RequestLogTest, ACallWithoutAnIdLeavesNothing) {
  std::vector<Mutation> steps;
  RequestLog::Begin({}, &steps);
  RequestLog::BeginOperation({}, "operations/o", &steps);
  RequestLog::BeginAnswered({}, Image("images/a"), &steps);
  EXPECT_TRUE(log_.Answer("", Image("images/a"), &steps).ok());
  EXPECT_TRUE(log_.Forget("", &steps).ok());
  EXPECT_TRUE(steps.empty());
}

TEST_F(RequestLogTest, WhatIsUnknownIsNeitherAnsweredNorForgotten) {
  std::vector<Mutation> steps;
  EXPECT_TRUE(log_.Answer("CreateImage/1", Image("images/a"), &steps).ok());
  EXPECT_TRUE(log_.Forget("CreateImage/1", &steps).ok());
  EXPECT_TRUE(steps.empty());
}

TEST_F(RequestLogTest, OldEntriesGoButNotThoseWhoseEffectIsUnderWay) {
  for (int i = 0; i < 600; ++i) Answered(CallOf(std::to_string(i)));
  Begin(CallOf("open"));
  ASSERT_TRUE(log_.Expire(seconds(3600)).ok());
  EXPECT_EQ(Rows("requests"), 601u);
  ASSERT_TRUE(log_.Expire(seconds(-10)).ok());  // as if ten seconds had passed
  EXPECT_EQ(Rows("requests"), 1u);
  EXPECT_EQ(Rows("expiries"), 1u);
  EXPECT_TRUE(Find(CallOf("open")).has_value());
}

TEST_F(RequestLogTest, TheExpiryOfAnEarlierEntryLeavesALaterOneAlone) {
  Commit({Insert("expiries", "00000000000000000005/CreateImage/1", "CreateImage/1")});
  Answered(CallOf("1"));
  ASSERT_TRUE(log_.Expire(seconds(3600)).ok());
  EXPECT_TRUE(Find(CallOf("1")).has_value());
  EXPECT_EQ(Rows("expiries"), 1u);
}

TEST_F(RequestLogTest, OneCallAtATimeHasAnId) {
  std::future<void> second;
  std::atomic<bool> first_is_done = false;
  {
    const auto guard = log_.Enter(CallOf("1"));
    Call impatient = CallOf("1");
    impatient.patience.until = Patience::Clock::time_point::min();
    EXPECT_EQ(InfoOf(log_.Enter(impatient).status()).reason(), "OPERATION_IN_PROGRESS");
    const auto other = std::async(std::launch::async, [&] { (void)log_.Enter(CallOf("2")); });
    other.wait();
    second = std::async(std::launch::async, [&] {
      const auto entered = log_.Enter(CallOf("1"));
      EXPECT_TRUE(first_is_done);
    });
    first_is_done = true;
  }
  second.get();
}

}  // namespace
}  // namespace gabion::service
