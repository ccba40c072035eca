// What a session answers, request by request.
#include "engine/nbd/server/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "engine/block/node.h"
#include "tests/engine/nbd/server/session_harness.h"

namespace gabion::nbd {
namespace {

using test::MemoryNode;
using test::NbdDescriptor;
using test::NbdReply;
using test::NbdRequest;
using test::NodeCall;
using testing::Connected;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::kCmdCache;
using testing::kCmdDisc;
using testing::kCmdFlush;
using testing::kCmdRead;
using testing::kCmdStatus;
using testing::kCmdTrim;
using testing::kCmdWrite;
using testing::kCmdZeroes;
using testing::kDf;
using testing::kFastZero;
using testing::kFua;
using testing::kNoHole;
using testing::kReqOne;
using testing::Loop;
using testing::SessionTest;
using testing::Terms;

Terms With(const std::function<void(Terms&)>& change) {
  Terms terms;
  change(terms);
  return terms;
}

// ---- the error table

struct ErrorCase {
  const char* name;
  NbdRequest request;
  uint32_t error;
  Terms terms;
  absl::Status fault;  // what the disk says
};

void PrintTo(const ErrorCase& c, std::ostream* out) { *out << c.name; }

const Terms kReadOnlyTerms = With([](Terms& s) { s.read_only = true; });
const Terms kNoMeta = With([](Terms& s) { s.meta = false; });
const Terms kSimple = With([](Terms& s) { s.structured = s.meta = false; });
const Terms kNoFastZero = With([](Terms& s) { s.can_fast_zero = false; });
const Terms kStrict =
    With([](Terms& s) { s.policy = {.granule = 4096, .required_alignment = 4096}; });
const Terms kSmallPayload = With([](Terms& s) {
  s.size = 4 * kMiB;
  s.maximum_payload = kMiB;
});
const absl::Status kFine;

const ErrorCase kErrors[] = {
    {"WriteReadOnly", {kCmdWrite, 0, 0, 512}, 1, kReadOnlyTerms, kFine},
    {"ZeroesReadOnly", {kCmdZeroes, 0, 0, 512}, 1, kReadOnlyTerms, kFine},
    {"TrimReadOnly", {kCmdTrim, 0, 0, 512}, 1, kReadOnlyTerms, kFine},
    {"ReadDataLoss", {kCmdRead, 0, 0, 512}, 5, {}, absl::DataLossError("bad sector")},
    {"WriteInternal", {kCmdWrite, 0, 0, 512}, 5, {}, absl::InternalError("odd")},
    {"FlushFails", {kCmdFlush, 0, 0, 0}, 5, {}, absl::DataLossError("fsync")},
    {"TrimFails", {kCmdTrim, 0, 0, 512}, 5, {}, absl::DataLossError("trim")},
    {"CacheFails", {kCmdCache, 0, 0, 512}, 5, {}, absl::DataLossError("cache")},
    {"UnknownCommand", {77, 0, 0, 0}, 22, {}, kFine},
    {"ResizeCommand", {8, 0, 4096, 0}, 22, {}, kFine},
    {"UnknownFlag", {kCmdRead, 0x4000, 0, 512}, 22, {}, kFine},
    {"DfOnWrite", {kCmdWrite, kDf, 0, 512}, 22, {}, kFine},
    {"PayloadLenFlag", {kCmdWrite, 0x20, 0, 512}, 22, {}, kFine},
    {"DfUnadvertised", {kCmdRead, kDf, 0, 512}, 22, kSimple, kFine},
    {"FastZeroUnadvertised", {kCmdZeroes, kFastZero, 0, 512}, 22, kNoFastZero, kFine},
    {"ReadPastEnd", {kCmdRead, 0, 65535, 2}, 22, {}, kFine},
    {"TrimPastEnd", {kCmdTrim, 0, 65536, 1}, 22, {}, kFine},
    {"CachePastEnd", {kCmdCache, 0, 1, 65536}, 22, {}, kFine},
    {"StatusPastEnd", {kCmdStatus, 0, 0, 65537}, 22, {}, kFine},
    {"OffsetOverflows", {kCmdRead, 0, ~uint64_t{0}, 512}, 22, {}, kFine},
    {"ZeroesOffsetOverflows", {kCmdZeroes, 0, ~uint64_t{0} - 100, 0xffffffff}, 28, {}, kFine},
    {"StatusWithoutContext", {kCmdStatus, 0, 0, 512}, 22, kNoMeta, kFine},
    {"StatusOfNothing", {kCmdStatus, 0, 0, 0}, 22, {}, kFine},
    {"FlushWithOffset", {kCmdFlush, 0, 512, 0}, 22, {}, kFine},
    {"MisalignedRead", {kCmdRead, 0, 512, 4096}, 22, kStrict, kFine},
    {"MisalignedWrite", {kCmdWrite, 0, 4096, 512}, 22, kStrict, kFine},
    {"MisalignedStatus", {kCmdStatus, 0, 0, 512}, 22, kStrict, kFine},
    {"WriteTooLarge", {kCmdWrite, 0, 0, 2 * kMiB}, 22, kSmallPayload, kFine},
    {"WritePastEnd", {kCmdWrite, 0, 65535, 2}, 28, {}, kFine},
    {"ZeroesPastEnd", {kCmdZeroes, 0, 65535, 2}, 28, {}, kFine},
    {"DiskFull", {kCmdWrite, 0, 0, 512}, 28, {}, absl::ResourceExhaustedError("full")},
    {"DfReadTooLarge", {kCmdRead, kDf, 0, 2 * kMiB}, 75, kSmallPayload, kFine},
    {"FastZeroIsSlow", {kCmdZeroes, kFastZero, 0, 512}, 95, {}, kFine},
    {"UnimplementedWithoutFastZero",
     {kCmdZeroes, 0, 0, 512},
     22,
     {},
     absl::UnimplementedError("no")},
    {"ShuttingDown", {kCmdRead, 0, 0, 512}, 108, {}, absl::UnavailableError("draining")},
};

class SessionErrorTest : public SessionTest, public ::testing::WithParamInterface<ErrorCase> {};

TEST_P(SessionErrorTest, IsToldAndTheSessionLives) {
  const ErrorCase& wanted = GetParam();
  Build(wanted.terms);
  node_->SetFault([&](NodeCall, ByteRange) { return wanted.fault; });
  const std::string payload(wanted.request.command == kCmdWrite ? wanted.request.length : 0, 'x');
  const NbdReply reply = c_->Call(wanted.request, payload);
  EXPECT_EQ(reply.error, wanted.error) << reply.message;
  EXPECT_EQ(reply.message.empty(), !wanted.terms.structured);
  if (wanted.fault.ok()) {
    EXPECT_EQ(node_->CountCalls(NodeCall::kWrite), 0u);
  }
  node_->SetFault(nullptr);
  EXPECT_EQ(c_->Call({kCmdRead, 0, 0, 4096}).data, std::string(4096, '\0'));
  EXPECT_FALSE(c_->done());
}

INSTANTIATE_TEST_SUITE_P(All, SessionErrorTest, ::testing::ValuesIn(kErrors),
                         [](const auto& c) { return std::string(c.param.name); });

// ---- what reaches the disk

TEST_F(SessionTest, ForcedUnitAccessReachesTheDisk) {
  Build();
  EXPECT_EQ(c_->Call({kCmdWrite, kFua, 0, 512}, std::string(512, 'a')).error, 0u);
  EXPECT_EQ(c_->Call({kCmdZeroes, kFua, 512, 512}).error, 0u);
  EXPECT_EQ(c_->Call({kCmdWrite, 0, 0, 512}, std::string(512, 'b')).error, 0u);
  EXPECT_EQ(c_->Call({kCmdTrim, kFua, 1024, 512}).error, 0u);
  const auto& calls = node_->calls();
  ASSERT_EQ(calls.size(), 5u);
  EXPECT_TRUE(calls[0].durable);
  EXPECT_TRUE(calls[1].durable);
  EXPECT_FALSE(calls[2].durable);
  EXPECT_EQ(calls[3].call, NodeCall::kDiscard);
  EXPECT_EQ(calls[4].call, NodeCall::kFlush);  // after the discard, which has no flag of its own
}

TEST_F(SessionTest, FailedTrimIsNotFlushed) {
  Build();
  node_->SetFault([](NodeCall call, ByteRange) {
    return call == NodeCall::kDiscard ? absl::DataLossError("no") : absl::OkStatus();
  });
  EXPECT_EQ(c_->Call({kCmdTrim, kFua, 0, 512}).error, 5u);
  EXPECT_EQ(node_->CountCalls(NodeCall::kFlush), 0u);
}

TEST_F(SessionTest, NoHoleKeepsTheSpace) {
  Build();
  node_->Fill(Range(0, 8192), std::byte{1});
  EXPECT_EQ(c_->Call({kCmdZeroes, 0, 0, 4096}).error, 0u);
  EXPECT_EQ(c_->Call({kCmdZeroes, kNoHole, 4096, 4096}).error, 0u);
  EXPECT_THAT(c_->Call({kCmdStatus, 0, 0, 8192}).status[1],
              ElementsAre(NbdDescriptor{4096, 3}, NbdDescriptor{4096, 2}));
}

TEST_F(SessionTest, EmptyRequestsSucceedWithoutEffect) {
  for (const bool structured : {true, false}) {
    Build(With([&](Terms& s) { s.structured = s.meta = structured; }));
    for (const uint16_t command : {kCmdRead, kCmdWrite, kCmdTrim, kCmdCache, kCmdZeroes}) {
      for (const uint64_t offset : {0, 777, 65536}) {
        EXPECT_EQ(c_->Call({command, 0, offset, 0}).error, 0u) << command;
      }
    }
    EXPECT_TRUE(node_->calls().empty());
    c_.reset();
  }
}

TEST_F(SessionTest, SimpleRepliesCarryTheData) {
  Build(kSimple);
  node_->Fill(Range(100, 50), std::byte{'x'});
  EXPECT_EQ(c_->Call({kCmdRead, 0, 90, 70}).data,
            std::string(10, '\0') + std::string(50, 'x') + std::string(10, '\0'));
}

TEST_F(SessionTest, ReadWithDfIsOneChunkOfData) {
  Build();
  const NbdReply reply = c_->Call({kCmdRead, kDf, 0, 65536});
  ASSERT_EQ(reply.chunks.size(), 1u);
  EXPECT_FALSE(reply.chunks[0].hole);
  EXPECT_TRUE(c_->Call({kCmdRead, 0, 0, 65536}).chunks[0].hole);
}

// A disk of 6 GiB that is one hole.
class HoleNode final : public block::Node {
 public:
  HoleNode() : Node(Sizes()) {}

 private:
  static block::Limits Sizes() {
    block::Limits limits;
    limits.size = ByteCount{6 * kGiB};
    return limits;
  }
  Task<absl::Status> DoRead(ByteRange, MutableBytes) override { return absl::OkStatus(); }
  Task<absl::Status> DoWrite(ByteRange, Bytes, block::WriteOptions) override {
    return absl::OkStatus();
  }
  Task<absl::Status> DoZero(ByteRange, block::ZeroOptions) override { return absl::OkStatus(); }
  Task<absl::Status> DoDiscard(ByteRange) override { return absl::OkStatus(); }
  Task<absl::Status> DoFlush() override { return absl::OkStatus(); }
  Task<absl::Status> DoCache(ByteRange) override { return absl::OkStatus(); }
  Task<absl::Status> DoClose() override { return absl::OkStatus(); }
  Task<absl::StatusOr<block::ExtentList>> DoBlockStatus(ByteRange range, std::size_t) override {
    block::ExtentList list = {{.range = range, .kind = block::ExtentKind::kZero}};
    return absl::StatusOr<block::ExtentList>(std::move(list));
  }
};

TEST_F(SessionTest, LongestDescriptorIsAMultipleOfEveryGranule) {
  for (const uint32_t granule : {1u, 512u, 65536u}) {
    HoleNode hole;
    Connected c(loop_, With([&](Terms& s) {
                  s.size = 6 * kGiB;
                  s.policy.granule = granule;
                }),
                hole, gate_);
    EXPECT_THAT(c.Call({kCmdStatus, 0, 0, 0xfffffe00}).status[1].front(),
                (NbdDescriptor{0xffff0000, 3}));
    EXPECT_EQ(c.Call({kCmdStatus, 0, 5, 0xffffffff}).error, 0u);
    EXPECT_EQ(c.Call({kCmdStatus, kReqOne, 0, 0xffffffff}).status[1].size(), 1u);
  }
}

TEST_F(SessionTest, StatusThatTheDiskCannotTellIsData) {
  Build();
  node_->SetFault([](NodeCall, ByteRange) { return absl::DataLossError("unreadable table"); });
  EXPECT_THAT(c_->Call({kCmdStatus, 0, 0, 8192}).status[1], ElementsAre(NbdDescriptor{8192, 0}));
}

// ---- requests that break the rules

TEST_F(SessionTest, RefusedPayloadIsConsumedInLargePieces) {
  Build(kSmallPayload);
  const NbdReply reply = c_->Call({kCmdWrite, 0, 0, 2 * kMiB}, std::string(2 * kMiB, 'x'));
  EXPECT_EQ(reply.error, 22u);
  EXPECT_THAT(reply.message, HasSubstr("maximum payload"));
  EXPECT_EQ(loop_.budget.used(), 0u);
  EXPECT_LT(c_->connection.read_calls(), 100u);
  EXPECT_EQ(c_->Call({kCmdFlush}).error, 0u);
}

TEST_F(SessionTest, PayloadBeyondAllReasonEndsTheConnection) {
  Build();
  c_->Send({kCmdRead, 0, 0, 512});
  c_->Send({kCmdWrite, 0, 0, 64 * kMiB + 1});
  c_->Settle();
  EXPECT_TRUE(c_->done());
  EXPECT_EQ(c_->client.replies().size(), 1u);  // what came before is answered
  EXPECT_TRUE(c_->connection.shut());
}

TEST_F(SessionTest, WrongMagicEndsTheConnectionAfterEarlierReplies) {
  Build();
  c_->Send({kCmdWrite, 0, 0, 512}, std::string(512, 'x'));
  c_->connection.Send(std::string(28, 'M'));
  c_->Settle();
  EXPECT_TRUE(c_->done());
  EXPECT_EQ(c_->client.replies().size(), 1u);
}

TEST_F(SessionTest, ViolationsAreForgivenUntilTheBudgetIsSpent) {
  Build(With([](Terms& s) {
    s.policy = {.granule = 4096,
                .required_alignment = 4096,
                .disconnect_violators = true,
                .violation_budget = 2};
  }));
  EXPECT_EQ(c_->Call({kCmdRead, 0, 1, 512}).error, 22u);
  EXPECT_EQ(c_->Call({kCmdRead, 0, 0, 4096}).error, 0u);
  EXPECT_EQ(c_->Call({99, 0, 0, 0}).error, 22u);  // wrong, but not misaligned
  EXPECT_EQ(c_->Call({kCmdWrite, 0, 512, 512}, std::string(512, 'x')).error, 22u);
  EXPECT_FALSE(c_->done());
  EXPECT_EQ(c_->Call({kCmdTrim, 0, 512, 512}).error, 22u);  // the last one is answered too
  EXPECT_TRUE(c_->done());
  EXPECT_EQ(c_->session->stats().unaligned_requests, 3u);
  EXPECT_EQ(c_->session->stats().rejected_requests, 4u);
}

TEST_F(SessionTest, RequestsBehindTheHandshakeAreServed) {
  Build();
  c_.reset();
  test::NbdClient client(testing::PromisesOf({}));
  const std::string requests = client.Request({kCmdRead, 0, 0, 4096}) +
                               client.Request({kCmdWrite, 0, 0, 5000}, std::string(5000, 'x'));
  for (const std::size_t cut : {0u, 1u, 28u, 40u, 5000u, 5056u}) {
    Connected c(loop_, {}, *node_, gate_, requests.substr(0, cut));
    c.connection.Send(requests.substr(cut));
    loop_.Settle();
    test::NbdClient reader = client;
    reader.Receive(c.connection.TakeReceived());
    EXPECT_EQ(reader.replies().size(), 2u) << cut;
  }
  EXPECT_EQ(node_->CountCalls(NodeCall::kWrite), 6u);
}

}  // namespace
}  // namespace gabion::nbd
