#include "engine/nbd/server/reply_queue.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "engine/base/bytes.h"
#include "tests/support/memory_stream.h"

namespace gabion::nbd {
namespace {

class ReplyQueueTest : public ::testing::Test, private ReplyQueue::Owner {
 protected:
  void TearDown() override {
    connection_.OpenWindow();
    Settle();
  }

  void Push(std::string_view text, uint64_t held = 0) {
    Reply& reply = queue_.New();
    reply.payload = buffers_.Allocate(text.size());
    std::memcpy(reply.payload.bytes().data(), text.data(), text.size());
    reply.pieces.push_back(reply.payload.bytes());
    reply.held_bytes = held;
    reply.completes = true;
    queue_.Push(reply);
  }
  void Settle() {
    while (reactor_.RunTurn(false)) {
    }
  }

  uint64_t released_ = 0;
  int completed_ = 0;
  int failures_ = 0;
  runtime::Reactor reactor_{{.poll_before_sleep = std::chrono::microseconds(0)}};
  runtime::BufferPool buffers_{ByteCount{kMiB}};
  test::MemoryConnection connection_{reactor_.ready()};
  std::unique_ptr<io::Stream> stream_ = connection_.TakeStream();
  ReplyQueue queue_{reactor_, *stream_, *this};

 private:
  void OnReplySent(uint64_t held_bytes, bool completes) override {
    released_ += held_bytes;
    completed_ += completes ? 1 : 0;
  }
  void OnSendFailed(const absl::Status&) override { ++failures_; }
};

TEST_F(ReplyQueueTest, RepliesOfATurnLeaveInOneSendInTheirOrder) {
  Push("one ");
  Push("two ", 10);
  Push("three");
  EXPECT_FALSE(queue_.idle());
  Settle();
  EXPECT_TRUE(queue_.idle());
  EXPECT_EQ(connection_.TakeReceived(), "one two three");
  EXPECT_EQ(connection_.write_calls(), 1u);
  EXPECT_EQ(released_, 10u);
  EXPECT_EQ(completed_, 3);
}

TEST_F(ReplyQueueTest, RepliesThatComeWhileItSendsLeaveTogetherNext) {
  connection_.SetWindow(2);
  Push("first ");
  Settle();
  Push("second ");
  Push("third");
  Settle();
  EXPECT_EQ(completed_, 0);
  connection_.OpenWindow();
  Settle();
  EXPECT_EQ(connection_.TakeReceived(), "first second third");
  EXPECT_EQ(connection_.write_calls(), 2u);
}

TEST_F(ReplyQueueTest, FailureIsToldOnceAndLaterRepliesAreDroppedButGivenBack) {
  connection_.FailWritesAfter(3);
  Push("first", 1);
  Settle();
  Push("second", 10);
  Settle();
  Push("third", 100);
  Settle();
  EXPECT_EQ(connection_.TakeReceived(), "fir");
  EXPECT_EQ(failures_, 1);
  EXPECT_EQ(released_, 111u);
  EXPECT_EQ(completed_, 3);
  EXPECT_EQ(connection_.write_calls(), 1u);
}

TEST_F(ReplyQueueTest, DrainPushedDoesNotWaitForWhatComesLater) {
  connection_.SetWindow(5);
  Push("first");
  const Task<void> first = queue_.DrainPushed();
  Settle();
  Push("second");
  const Task<void> all = queue_.Drain();
  Settle();
  EXPECT_TRUE(first.done());
  EXPECT_FALSE(all.done());
  connection_.OpenWindow();
  Settle();
  EXPECT_TRUE(all.done());
}

TEST_F(ReplyQueueTest, DrainOfAnIdleQueueIsDone) {
  EXPECT_TRUE(queue_.Drain().done());
  EXPECT_TRUE(queue_.DrainPushed().done());
}

}  // namespace
}  // namespace gabion::nbd
