#include "engine/nbd/server/negotiation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>

#include "tests/engine/nbd/protocol/wire_testing.h"
#include "tests/support/memory_stream.h"

namespace gabion::nbd {
namespace {

using test::MemoryConnection;
using test::RandomSource;
using testing::Be32;
using ::testing::HasSubstr;
using testing::InfoPayload;
using testing::MetaPayload;
using testing::OptionBytes;
using Result = absl::StatusOr<NegotiationResult>;

class OneExport final : public ExportDirectory {
 public:
  absl::StatusOr<ExportInfo> Find(const std::string& name) override {
    if (name != "disk") return absl::NotFoundError("no such export");
    ExportInfo info;
    info.name = name;
    info.traits.size = ByteCount{kMiB};
    info.meta_contexts = {"base:allocation"};
    return info;
  }
  std::vector<ListedExport> List(const std::string* after) override {
    if (after == nullptr) return {{"disk", "a disk"}};
    if (*after == "disk") return {{"other", ""}};
    return {};
  }
};

class NegotiationTest : public ::testing::Test {
 protected:
  // A new connection on which the client has sent `bytes` already.
  void Connect(std::string_view bytes, runtime::Duration timeout = std::chrono::hours(1)) {
    stream_.reset();  // before the connection that it is an end of
    connection_ = std::make_unique<MemoryConnection>(reactor_.ready());
    stream_ = connection_->TakeStream();
    connection_->Send(bytes);
    timeout_ = timeout;
  }
  void Start() {
    task_.emplace(Negotiate(reactor_, *stream_, HandshakeConfig{}, exports_, timeout_));
  }
  void Settle() {
    while (reactor_.RunTurn(false)) {
    }
  }
  Result Run(std::string_view bytes) {
    Connect(bytes);
    Start();
    connection_->CloseSending();
    Settle();
    return task_->Take();
  }

  runtime::Reactor reactor_{{.poll_before_sleep = std::chrono::microseconds(0)}};
  OneExport exports_;
  std::unique_ptr<MemoryConnection> connection_;
  std::unique_ptr<io::Stream> stream_;
  runtime::Duration timeout_{};
  std::optional<Task<Result>> task_;
};

const std::string kGo = OptionBytes(testing::kOptGo, InfoPayload("disk", {3}));
const std::string kWhole =
    Be32(3) + OptionBytes(testing::kOptStructured) +
    OptionBytes(testing::kOptSetMeta, MetaPayload("disk", {"base:allocation"})) + kGo;

TEST_F(NegotiationTest, EndsWithWhatWasNegotiated) {
  const Result result = Run(kWhole);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->negotiated.exported.name, "disk");
  EXPECT_TRUE(result->negotiated.structured);
  EXPECT_TRUE(result->negotiated.block_sizes_requested);
  EXPECT_EQ(result->negotiated.meta_contexts.size(), 1u);
  EXPECT_EQ(result->leftover, "");
}

TEST_F(NegotiationTest, BytesBehindTheHandshakeAreHandedOn) {
  const std::string requests(5000, 'r');
  RandomSource random;
  for (int round = 0; round < 30; ++round) {
    Connect("");
    if (round > 0) connection_->SetRandom(random);
    connection_->Send(kWhole + requests);
    Start();
    Settle();
    const Result result = task_->Take();
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_LE(result->leftover.size(), 4096u);
    EXPECT_EQ(result->leftover, requests.substr(0, result->leftover.size()));
    EXPECT_EQ(result->leftover.size() + connection_->unread(), requests.size());
  }
}

TEST_F(NegotiationTest, ExportNameGoesStraightToTransmission) {
  const Result result = Run(Be32(3) + OptionBytes(testing::kOptExportName, "disk") + "rest");
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(result->negotiated.structured);
  EXPECT_EQ(result->leftover, "rest");
  const std::string received = connection_->TakeReceived();
  EXPECT_EQ(received.size(), 18u + 10u);  // no padding: the client said so
}

TEST_F(NegotiationTest, UnknownExportByOldNameHangsUp) {
  const Result result = Run(Be32(3) + OptionBytes(testing::kOptExportName, "nothing"));
  EXPECT_EQ(result.status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(connection_->TakeReceived().size(), 18u);  // the greeting only
}

TEST_F(NegotiationTest, ListNamesEveryExportAndNegotiationGoesOn) {
  const Result result = Run(Be32(3) + OptionBytes(testing::kOptList) + kGo);
  EXPECT_TRUE(result.ok());
  const auto replies = testing::ParseReplies(connection_->TakeReceived().substr(18));
  ASSERT_GE(replies.size(), 3u);
  EXPECT_THAT(replies[0].payload, HasSubstr("disk"));
  EXPECT_THAT(replies[1].payload, HasSubstr("other"));
  EXPECT_EQ(replies[2].type, 1u);
}

TEST_F(NegotiationTest, AbortIsAcknowledged) {
  const Result result = Run(Be32(3) + OptionBytes(testing::kOptAbort));
  EXPECT_EQ(result.status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(testing::ParseReplies(connection_->TakeReceived().substr(18)).size(), 1u);
}

TEST_F(NegotiationTest, ClientThatVanishesAnywhereIsAnEnd) {
  RandomSource random;
  for (std::size_t length = 0; length < kWhole.size(); ++length) {
    Connect("");
    connection_->SetRandom(random);
    connection_->Send(kWhole.substr(0, length));
    connection_->CloseSending();
    Start();
    Settle();
    ASSERT_TRUE(task_->done()) << length;
    const Result result = task_->Take();
    EXPECT_THAT(std::string(result.status().message()), HasSubstr("left")) << length;
  }
}

TEST_F(NegotiationTest, ConnectionThatBreaksWhileAnsweringIsAnEnd) {
  Run(kWhole).IgnoreError();
  const std::size_t all = connection_->TakeReceived().size();
  for (std::size_t length = 0; length < all; ++length) {
    Connect(kWhole);
    connection_->FailWritesAfter(length);
    Start();
    Settle();
    ASSERT_TRUE(task_->done()) << length;
    EXPECT_FALSE(task_->Take().ok()) << length;
  }
}

TEST_F(NegotiationTest, SilenceEndsAtTheDeadline) {
  for (const bool blocked : {false, true}) {
    Connect(blocked ? kWhole : kWhole.substr(0, 20), std::chrono::milliseconds(2));
    if (blocked) connection_->SetWindow(3);
    Start();
    while (!task_->done()) reactor_.RunTurn(false);
    EXPECT_EQ(task_->Take().status().code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_TRUE(connection_->shut());
  }
}

TEST_F(NegotiationTest, DeadlineEndsWithTheHandshake) {
  Connect(kWhole, std::chrono::milliseconds(2));
  Start();
  Settle();
  ASSERT_TRUE(task_->done());
  EXPECT_TRUE(task_->Take().ok());
  runtime::Clock& clock = reactor_.clock();
  const runtime::Instant later = clock.Now() + std::chrono::milliseconds(5);
  while (clock.Now() < later) reactor_.RunTurn(false);
  EXPECT_FALSE(connection_->shut());
}

}  // namespace
}  // namespace gabion::nbd
