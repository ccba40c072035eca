// How a session begins, ends, and stays within its bounds.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/engine/nbd/server/session_harness.h"

namespace gabion::nbd {
namespace {

using test::NbdReply;
using test::NodeCall;
using test::RandomSource;
using testing::Connected;
using testing::kCmdDisc;
using testing::kCmdFlush;
using testing::kCmdRead;
using testing::kCmdStatus;
using testing::kCmdTrim;
using testing::kCmdWrite;
using testing::kCmdZeroes;
using testing::Loop;
using testing::SessionTest;
using testing::Terms;

constexpr auto kSoon = std::chrono::milliseconds(2);

// ---- bounds

TEST_F(SessionTest, RequestsInFlightAreBounded) {
  RandomSource random;
  Terms terms;
  terms.limits.max_requests_in_flight = 7;
  Build(terms);
  node_->SetDeferred(loop_.reactor.ready(), random);
  for (int i = 0; i < 200; ++i) c_->Send({kCmdRead, 0, 0, 512});
  c_->Settle();
  EXPECT_EQ(c_->client.replies().size(), 200u);
  EXPECT_EQ(node_->most_in_flight(), 7);
}

TEST_F(SessionTest, BytesInFlightAreBounded) {
  RandomSource random;
  Terms terms;
  terms.limits.max_bytes_in_flight = 64 * kKiB;
  Build(terms);
  node_->SetDeferred(loop_.reactor.ready(), random);
  const std::string payload(16 * kKiB, 'x');
  for (int i = 0; i < 50; ++i) {
    c_->Send({kCmdRead, 0, 0, 16 * kKiB});
    c_->Send({kCmdWrite, 0, 16 * kKiB, 16 * kKiB}, payload);
  }
  c_->Settle();
  EXPECT_EQ(c_->client.replies().size(), 100u);
  EXPECT_LE(node_->most_in_flight(), 4);
}

TEST_F(SessionTest, RequestLargerThanTheBoundIsServedAlone) {
  Terms terms;
  terms.limits.max_bytes_in_flight = 4096;
  Build(terms);
  for (int i = 0; i < 3; ++i) c_->Send({kCmdRead, 0, 0, 65536});
  c_->Settle();
  EXPECT_EQ(c_->client.replies().size(), 3u);
}

TEST_F(SessionTest, BytesOfAllSessionsAreBounded) {
  RandomSource random;
  Loop loop(32 * kKiB);
  test::MemoryNode node({.size = 64 * kKiB});
  node.SetDeferred(loop.reactor.ready(), random);
  runtime::Turnstile gate(loop.reactor.ready());
  std::vector<std::unique_ptr<Connected>> sessions;
  for (int i = 0; i < 5; ++i) {
    sessions.push_back(std::make_unique<Connected>(loop, Terms(), node, gate));
    for (int k = 0; k < 20; ++k) sessions.back()->Send({kCmdRead, 0, 0, 8192});
  }
  for (auto& session : sessions) session->Settle();
  for (auto& session : sessions) EXPECT_EQ(session->client.replies().size(), 20u);
  EXPECT_LE(node.most_in_flight(), 4);
  EXPECT_EQ(loop.budget.used(), 0u);
}

TEST(SessionsTest, OwnBytesServeAConnectionWhileOthersKeepAllSharedOnes) {
  Loop loop(32 * kKiB, 8 * kKiB);
  test::MemoryNode node({.size = 64 * kKiB});
  runtime::Turnstile gate(loop.reactor.ready());
  Connected greedy(loop, Terms(), node, gate);
  greedy.connection.SetWindow(0);
  for (int i = 0; i < 100; ++i) greedy.Send({kCmdRead, 0, 0, 8192});
  greedy.Settle();
  EXPECT_EQ(loop.budget.used(), 40 * kKiB);
  Connected modest(loop, Terms(), node, gate);
  for (int i = 0; i < 100; ++i) modest.Send({kCmdRead, 0, 0, 8192});
  modest.Settle();
  EXPECT_EQ(modest.client.replies().size(), 100u);
  greedy.connection.OpenWindow();
  greedy.Settle();
  EXPECT_EQ(greedy.client.replies().size(), 100u);
  EXPECT_EQ(loop.budget.used(), 0u);
}

TEST_F(SessionTest, ClientThatDoesNotReadStopsBeingReadAndLosesNothing) {
  Terms terms;
  terms.limits.max_bytes_in_flight = 256 * kKiB;
  Build(terms);
  c_->connection.SetWindow(1000);
  node_->Fill(Range(0, 65536), std::byte{7});
  for (int i = 0; i < 5000; ++i) c_->Send({kCmdRead, 0, 0, 8192});
  c_->Settle();
  EXPECT_TRUE(c_->connection.write_waits());
  EXPECT_LE(loop_.budget.used(), 256 * kKiB);
  EXPECT_EQ(node_->CountCalls(NodeCall::kRead), 32u);
  EXPECT_GT(c_->connection.unread(), 0u);
  c_->connection.OpenWindow();
  c_->Settle();
  EXPECT_EQ(c_->client.replies().size(), 5000u);
}

TEST_F(SessionTest, StatusRepliesCountAsBytesInFlight) {
  Terms terms;
  terms.size = kMiB;
  terms.limits.max_bytes_in_flight = kMiB;
  Build(terms);
  for (uint64_t at = 0; at < kMiB; at += 2) node_->Fill(Range(at, 1), std::byte{1});
  c_->connection.SetWindow(0);
  for (int i = 0; i < 100; ++i) c_->Send({kCmdStatus, 0, 0, 131072});
  c_->Settle();
  EXPECT_LE(node_->CountCalls(NodeCall::kBlockStatus), 131072u / 1024);  // one request
  EXPECT_LE(loop_.budget.used(), kMiB);
  EXPECT_GT(loop_.budget.used(), 0u);
}

TEST_F(SessionTest, RepliesThatAreReadyTogetherLeaveTogether) {
  Build();
  for (int i = 0; i < 100; ++i) c_->Send({kCmdRead, 0, 0, 512});
  c_->Settle();
  EXPECT_EQ(c_->client.replies().size(), 100u);
  EXPECT_EQ(c_->connection.write_calls(), 1u);
}

// ---- long reads

Terms LongReads() {
  Terms terms;
  terms.size = 8 * kMiB;
  terms.maximum_payload = kMiB;
  return terms;
}

TEST_F(SessionTest, LongReadIsOneReplyInPieces) {
  Build(LongReads());
  node_->Fill(Range(0, 8 * kMiB), std::byte{'z'});
  const NbdReply reply = c_->Call({kCmdRead, 0, 0, 8 * kMiB});
  EXPECT_EQ(reply.error, 0u);
  EXPECT_EQ(reply.data, std::string(8 * kMiB, 'z'));
  EXPECT_EQ(reply.chunks.size(), 8u);
}

TEST_F(SessionTest, LongReadThatFailsInTheMiddleSaysSo) {
  Build(LongReads());
  node_->SetFault([](NodeCall, ByteRange range) {
    return range.offset.value < 3 * kMiB ? absl::OkStatus() : absl::DataLossError("bad sector");
  });
  EXPECT_EQ(c_->Call({kCmdRead, 0, 0, 8 * kMiB}).error, 5u);
  EXPECT_EQ(node_->CountCalls(NodeCall::kRead), 4u);
}

TEST_F(SessionTest, LongReadDoesNotHoldTheGateWhileItsClientDoesNotRead) {
  Build(LongReads());
  c_->connection.SetWindow(100);
  node_->Fill(Range(0, 8 * kMiB), std::byte{'z'});
  c_->Send({kCmdRead, 0, 0, 8 * kMiB});
  c_->Settle();
  EXPECT_TRUE(c_->connection.write_waits());
  EXPECT_EQ(gate_.inside(), 0u);
  EXPECT_EQ(node_->CountCalls(NodeCall::kRead), 1u);
  EXPECT_EQ(loop_.budget.used(), kMiB);
}

TEST_F(SessionTest, LongReadIsNotStarvedByOtherRequests) {
  Terms terms = LongReads();
  terms.limits.max_requests_in_flight = 8;
  Build(terms);
  node_->Fill(Range(0, 8 * kMiB), std::byte{'z'});
  c_->Send({kCmdRead, 0, 0, 8 * kMiB});
  const uint64_t cookie = c_->client.last_cookie();
  // More is asked for in every turn than the client takes: there is always a reply on its way.
  for (int turn = 0; turn < 1000 && !c_->client.replies().contains(cookie); ++turn) {
    c_->connection.SetWindow(60 * kKiB);
    c_->Send({kCmdRead, 0, 0, 65536});
    loop_.reactor.RunTurn(false);
    c_->client.Receive(c_->connection.TakeReceived());
  }
  EXPECT_TRUE(c_->client.replies().contains(cookie));
}

// ---- endings

TEST_F(SessionTest, DisconnectFinishesWhatIsInFlight) {
  RandomSource random;
  Build();
  node_->SetDeferred(loop_.reactor.ready(), random);
  c_->connection.SetRandom(random);
  for (int i = 0; i < 20; ++i) {
    c_->Send({kCmdWrite, 0, static_cast<uint64_t>(i) * 100, 100}, std::string(100, 'x'));
    c_->Send({kCmdFlush});
  }
  c_->connection.Send(test::RequestBytes({kCmdDisc}));
  c_->connection.Send(c_->client.Request({kCmdRead, 0, 0, 512}));  // never served
  c_->Settle();
  EXPECT_TRUE(c_->done());
  EXPECT_EQ(c_->client.replies().size(), 40u);
  EXPECT_EQ(node_->content()[1999], std::byte{'x'});
}

TEST_F(SessionTest, EndOfInputAnywhereIsAnEnd) {
  RandomSource random;
  test::NbdClient client(testing::PromisesOf({}));
  const std::string bytes = client.Request({kCmdRead, 0, 0, 512}) +
                            client.Request({kCmdWrite, 0, 0, 300}, std::string(300, 'x')) +
                            client.Request({kCmdFlush});
  for (std::size_t length = 0; length <= bytes.size(); ++length) {
    Build();
    node_->SetDeferred(loop_.reactor.ready(), random);
    c_->connection.SetRandom(random);
    c_->connection.Send(bytes.substr(0, length));
    c_->connection.CloseSending();
    loop_.Settle();
    EXPECT_TRUE(c_->done());
    test::NbdClient reader = client;
    reader.Receive(c_->connection.TakeReceived());
    const std::size_t complete = (length >= 28) + (length >= 356) + (length >= 384);
    EXPECT_EQ(reader.replies().size(), complete) << length;
    EXPECT_EQ(reader.leftover(), 0u);
    EXPECT_EQ(node_->CountCalls(NodeCall::kWrite), length >= 356 ? 1u : 0u);
    EXPECT_EQ(loop_.budget.used(), 0u);
    c_.reset();
  }
}

TEST_F(SessionTest, ConnectionThatBreaksWhileWritingGivesEverythingBack) {
  RandomSource random;
  for (int round = 0; round < 300; ++round) {
    Terms terms;
    terms.size = 256 * kKiB;
    terms.maximum_payload = 64 * kKiB;
    terms.limits.max_requests_in_flight = static_cast<uint32_t>(random.Between(1, 20));
    terms.limits.max_bytes_in_flight = random.Between(1, 128 * kKiB);
    Build(terms);
    node_->SetDeferred(loop_.reactor.ready(), random);
    c_->connection.SetRandom(random);
    c_->connection.FailWritesAfter(random.Below(20000));
    for (int i = 0; i < 20; ++i) {
      c_->Send({kCmdRead, 0, 4096, static_cast<uint32_t>(random.Below(5000))});
      c_->Send({kCmdWrite, 0, 0, 3000}, std::string(3000, 'x'));
      c_->Send({kCmdStatus, 0, 0, 5000});
      if (random.OneIn(20)) c_->Send({kCmdRead, 0, 0, 256 * kKiB});
    }
    loop_.Settle();
    EXPECT_EQ(loop_.budget.used(), 0u);
    EXPECT_EQ(gate_.inside(), 0u);
    c_.reset();
    EXPECT_EQ(node_->in_flight(), 0);
  }
}

TEST_F(SessionTest, ClosingAnswersWhatIsInFlight) {
  Build();
  gate_.Hold();
  for (int i = 0; i < 10; ++i) c_->Send({kCmdRead, 0, 0, 512});
  c_->Settle();
  c_->session->Close();
  c_->Settle();
  EXPECT_FALSE(c_->done());
  EXPECT_TRUE(c_->connection.read_shut());
  gate_.Resume();
  c_->Settle();
  EXPECT_TRUE(c_->done());
  EXPECT_EQ(c_->client.replies().size(), 10u);
}

TEST_F(SessionTest, ClosingDoesNotWaitForAClientThatDoesNotRead) {
  Terms terms;
  terms.limits.close_timeout = kSoon;
  terms.limits.max_requests_in_flight = 3;
  Build(terms);
  c_->connection.SetWindow(10);
  for (int i = 0; i < 10; ++i) c_->Send({kCmdRead, 0, 0, 8192});
  c_->Settle();
  c_->session->Close();
  loop_.RunUntil([&] { return c_->done(); });
  EXPECT_TRUE(c_->connection.shut());
  EXPECT_EQ(loop_.budget.used(), 0u);
}

TEST_F(SessionTest, ClosingWaitsForASlowDisk) {
  Terms terms;
  terms.limits.close_timeout = kSoon;
  Build(terms);
  gate_.Hold();
  c_->Send({kCmdFlush});
  c_->Settle();
  c_->session->Close();
  runtime::Clock& clock = loop_.reactor.clock();
  const runtime::Instant much_later = clock.Now() + 5 * kSoon;
  loop_.RunUntil([&] { return clock.Now() > much_later; });
  EXPECT_FALSE(c_->connection.shut());
  gate_.Resume();
  c_->Settle();
  EXPECT_TRUE(c_->done());
  EXPECT_EQ(c_->client.replies().size(), 1u);
}

TEST_F(SessionTest, ClosingDoesNotWaitForBytesOfOtherConnections) {
  Loop loop(64 * kKiB);
  test::MemoryNode node({.size = 64 * kKiB});
  runtime::Turnstile gate(loop.reactor.ready());
  Connected hog(loop, {}, node, gate);
  hog.connection.SetWindow(0);
  hog.Send({kCmdRead, 0, 0, 65536});
  hog.Settle();
  {
    Connected victim(loop, {}, node, gate);
    victim.Send({kCmdWrite, 0, 0, 512}, std::string(512, 'x'));
    victim.Settle();
    EXPECT_EQ(victim.client.outstanding(), 1u);
    victim.session->Close();
    victim.Settle();
    EXPECT_TRUE(victim.done());
  }
  Connected broken(loop, {}, node, gate);
  broken.Send({kCmdTrim, 0, 0, 512});
  broken.Send({kCmdWrite, 0, 0, 512}, std::string(512, 'x'));
  broken.connection.FailWritesAfter(0);
  broken.Settle();
  EXPECT_TRUE(broken.done());
}

TEST_F(SessionTest, ShuttingDownServesWhatIsInFlightAndRefusesWhatComesLater) {
  Terms terms;
  terms.limits.shutdown_time = std::chrono::hours(1);
  Build(terms);
  gate_.Hold();
  c_->Send({kCmdWrite, 0, 0, 512}, std::string(512, 'x'));
  c_->Settle();
  c_->session->BeginShutdown();
  c_->session->BeginShutdown();
  EXPECT_EQ(c_->Call({kCmdWrite, 0, 0, 4096}, std::string(4096, 'y')).error, 108u);
  EXPECT_EQ(c_->Call({kCmdFlush}).error, 108u) << "its payload was skipped";
  gate_.Resume();
  c_->Settle();
  EXPECT_EQ(c_->client.replies().size(), 3u);
  EXPECT_EQ(c_->client.replies().begin()->second.error, 0u);
  EXPECT_EQ(node_->CountCalls(NodeCall::kWrite), 1u);
  EXPECT_FALSE(c_->done()) << "it is the client's turn";
  c_->Send({kCmdDisc});
  c_->Settle();
  EXPECT_TRUE(c_->done());
}

TEST_F(SessionTest, ShuttingDownDoesNotWaitForAClientThatAsksNothing) {
  Terms terms;
  terms.limits.shutdown_time = kSoon;
  Build(terms);
  c_->Settle();
  c_->session->BeginShutdown();
  EXPECT_FALSE(c_->connection.read_shut());
  loop_.RunUntil([&] { return c_->done(); });
  EXPECT_TRUE(c_->connection.shut());
}

TEST_F(SessionTest, BecomingReadOnlyRefusesWhatWaitsAtTheGate) {
  Build();
  gate_.Hold();
  c_->Send({kCmdWrite, 0, 0, 512}, std::string(512, 'x'));
  c_->Send({kCmdZeroes, 0, 0, 512});
  c_->Send({kCmdTrim, 0, 0, 512});
  c_->Send({kCmdRead, 0, 0, 512});
  c_->Settle();
  c_->session->SetReadOnly();
  gate_.Resume();
  c_->Settle();
  std::vector<uint32_t> errors;
  for (const auto& [cookie, reply] : c_->client.replies()) errors.push_back(reply.error);
  EXPECT_EQ(errors, (std::vector<uint32_t>{1, 1, 1, 0}));
  EXPECT_EQ(c_->Call({kCmdWrite, 0, 0, 512}, std::string(512, 'x')).error, 1u);
  EXPECT_EQ(node_->CountCalls(NodeCall::kWrite), 0u);
}

}  // namespace
}  // namespace gabion::nbd
