#include "engine/nbd/protocol/request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "engine/nbd/protocol/errors.h"
#include "engine/nbd/protocol/export_info.h"
#include "tests/engine/nbd/protocol/wire_testing.h"

namespace gabion::nbd {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kSize = 64 * kMiB;
constexpr uint32_t kMaxPayload = 32 * kMiB;
constexpr uint32_t kMax32 = std::numeric_limits<uint32_t>::max();
constexpr uint64_t kMax64 = std::numeric_limits<uint64_t>::max();

constexpr Command kRead = Command::kRead, kWrite = Command::kWrite, kFlush = Command::kFlush,
                  kTrim = Command::kTrim, kCache = Command::kCache, kZero = Command::kWriteZeroes,
                  kStatus = Command::kBlockStatus;

constexpr ErrorCode kOk = ErrorCode::kNone, kEperm = ErrorCode::kEperm,
                    kEinval = ErrorCode::kEinval, kEnospc = ErrorCode::kEnospc,
                    kEoverflow = ErrorCode::kEoverflow;

SessionTraits TraitsOf(const ExportTraits& exported, bool structured = true) {
  SessionTraits session;
  session.size = exported.size;
  session.transmission_flags = TransmissionFlags(exported, structured);
  session.structured = structured;
  session.has_meta_context = structured;
  return session;
}

SessionTraits Writable() { return TraitsOf(ExportTraits{.size = ByteCount{kSize}}); }
SessionTraits ReadOnlyTraits() {
  return TraitsOf(ExportTraits{.size = ByteCount{kSize}, .read_only = true});
}
SessionTraits Simple() { return TraitsOf(ExportTraits{.size = ByteCount{kSize}}, false); }

Request Make(Command command, uint64_t offset, uint32_t length, uint16_t flags = 0) {
  return Request{0x77, static_cast<uint16_t>(command), flags, offset, length};
}

struct Case {
  Command command;
  uint64_t offset;
  uint32_t length;
  uint16_t flags;
  ErrorCode want;
};

void ExpectVerdicts(const SessionTraits& session, std::initializer_list<Case> cases) {
  for (const Case& c : cases) {
    const Request request = Make(c.command, c.offset, c.length, c.flags);
    const Verdict verdict = ValidateRequest(request, session);
    EXPECT_EQ(ErrorName(verdict.error), ErrorName(c.want))
        << CommandName(request.command) << " " << c.offset << "+" << c.length << " flags "
        << c.flags << ": " << verdict.message;
    EXPECT_EQ(verdict.action, c.want == kOk ? Verdict::Action::kServe : Verdict::Action::kRefuse);
    EXPECT_EQ(verdict.message.empty(), c.want == kOk);
    EXPECT_EQ(verdict.payload_bytes, c.command == kWrite ? c.length : 0u);
  }
}

// The table that clients are tested against: one row per case of the conformance script.
TEST(ValidateRequestTest, ConformanceTableOnAWritableExport) {
  ExpectVerdicts(Writable(), {
                                 {kWrite, 0, 512, 0, kOk},
                                 {kRead, kSize - 512, 1024, 0, kEinval},
                                 {kRead, kSize + 4096, 512, 0, kEinval},
                                 {kRead, (uint64_t{1} << 63) - 512, 512, 0, kEinval},
                                 {kWrite, kSize - 512, 1024, 0, kEnospc},
                                 {kZero, kSize - 512, 1024, 0, kEnospc},
                                 {kTrim, kSize - 512, 1024, 0, kEinval},
                                 {kCache, kSize - 512, 1024, 0, kEinval},
                                 {kStatus, kSize - 512, 1024, 0, kEinval},
                                 {kRead, 0, 0, 0, kOk},
                                 {kWrite, 0, 0, 0, kOk},
                                 {kZero, 0, 0, 0, kOk},
                                 {kTrim, 0, 0, 0, kOk},
                                 {kCache, 0, 0, 0, kOk},
                                 {kStatus, 0, 0, 0, kEinval},
                                 {kRead, 0, 33 * kMiB + 512, 0, kOk},
                                 {kWrite, 0, 33 * kMiB, 0, kEinval},
                                 {kRead, 0, 512, kFlagNoHole, kEinval},
                                 {kWrite, 0, 512, kFlagDf, kEinval},
                                 {kFlush, 0, 0, kFlagFua, kOk},
                                 {kZero, 0, 4096, kFlagFastZero, kOk},
                                 {kStatus, 0, kMax32, 0, kEinval},
                             });
}

TEST(ValidateRequestTest, ConformanceTableOnAReadOnlyExport) {
  ExpectVerdicts(ReadOnlyTraits(), {
                                       {kWrite, 0, 512, 0, kEperm},
                                       {kWrite, kSize - 512, 1024, 0, kEperm},
                                       {kZero, kSize - 512, 1024, 0, kEperm},
                                       {kTrim, kSize - 512, 1024, 0, kEperm},
                                       {kWrite, 0, 0, 0, kEperm},
                                       {kZero, 0, 0, 0, kEperm},
                                       {kTrim, 0, 0, 0, kEperm},
                                       {kWrite, 0, 33 * kMiB, 0, kEperm},
                                       {kWrite, 0, 512, kFlagDf, kEperm},
                                       {kZero, 0, 4096, kFlagFastZero, kEperm},
                                       {kRead, 0, 512, 0, kOk},
                                       {kCache, 0, 512, 0, kOk},
                                       {kStatus, 0, 512, 0, kOk},
                                       {kFlush, 0, 0, 0, kOk},
                                       {kRead, kSize - 512, 1024, 0, kEinval},
                                       {kStatus, 0, 0, 0, kEinval},
                                   });
}

TEST(ValidateRequestTest, EveryCommandTakesExactlyItsFlags) {
  const std::pair<Command, uint16_t> valid[] = {
      {kRead, kFlagFua | kFlagDf},
      {kWrite, kFlagFua},
      {kFlush, kFlagFua},
      {kTrim, kFlagFua},
      {kCache, kFlagFua},
      {kZero, kFlagFua | kFlagNoHole | kFlagFastZero},
      {kStatus, kFlagFua | kFlagReqOne},
  };
  for (const auto& [command, flags] : valid) {
    for (int bit = 0; bit < 16; ++bit) {
      const uint16_t flag = static_cast<uint16_t>(1 << bit);
      const uint32_t length = command == kFlush ? 0 : 512;
      ExpectVerdicts(Writable(), {{command, 0, length, flag, flags & flag ? kOk : kEinval}});
    }
    ExpectVerdicts(Writable(), {{command, 0, command == kFlush ? 0u : 512u, flags, kOk}});
  }
}

TEST(ValidateRequestTest, WhatWasNotAdvertisedIsRefused) {
  ExportTraits traits{.size = ByteCount{kSize}};
  traits.can_fast_zero = false;
  ExpectVerdicts(TraitsOf(traits),
                 {{kZero, 0, 4096, kFlagFastZero, kEinval}, {kZero, 0, 4096, kFlagNoHole, kOk}});
  traits.can_trim = traits.can_zero = traits.can_cache = false;
  ExpectVerdicts(TraitsOf(traits), {{kTrim, 0, 4096, 0, kEinval},
                                    {kZero, 0, 4096, 0, kEinval},
                                    {kCache, 0, 4096, 0, kEinval},
                                    {kWrite, 0, 4096, 0, kOk}});
}

TEST(ValidateRequestTest, WithoutStructuredRepliesThereIsNoDfAndNoStatus) {
  ExpectVerdicts(Simple(), {{kRead, 0, 512, kFlagDf, kEinval},
                            {kStatus, 0, 512, 0, kEinval},
                            {kRead, 0, kMaxPayload, 0, kOk},
                            {kRead, 0, kMaxPayload + 1, 0, kEinval},
                            {kRead, 0, 33 * kMiB + 512, 0, kEinval}});
}

TEST(ValidateRequestTest, StatusNeedsASelectedContext) {
  SessionTraits session = Writable();
  session.has_meta_context = false;
  ExpectVerdicts(session, {{kStatus, 0, 512, 0, kEinval}, {kRead, 0, 512, 0, kOk}});
}

TEST(ValidateRequestTest, DfReadsAreBoundByTheMaximumPayload) {
  SessionTraits session = Writable();
  session.maximum_payload = 1 * kMiB;
  ExpectVerdicts(session, {{kRead, 0, 65536, kFlagDf, kOk},
                           {kRead, 0, 1 * kMiB, kFlagDf, kOk},
                           {kRead, 0, 1 * kMiB + 1, kFlagDf, kEoverflow},
                           {kRead, 0, 1 * kMiB + 1, 0, kOk}});
}

TEST(ValidateRequestTest, FlushHasNoRange) {
  ExpectVerdicts(Writable(), {{kFlush, 0, 0, 0, kOk},
                              {kFlush, 512, 0, 0, kEinval},
                              {kFlush, 0, 512, 0, kEinval},
                              {kFlush, kMax64, kMax32, 0, kEinval}});
}

TEST(ValidateRequestTest, RangesNeverOverflow) {
  for (Command command : {kRead, kTrim, kCache, kStatus}) {
    ExpectVerdicts(Writable(), {{command, kMax64, 1, 0, kEinval},
                                {command, kMax64 - 511, 512, 0, kEinval},
                                {command, kMax64 - kMax32 + 1, kMax32, 0, kEinval},
                                {command, kSize - 1, 1, 0, kOk},
                                {command, kSize, 1, 0, kEinval}});
  }
  ExpectVerdicts(Writable(), {{kZero, kMax64 - 511, 512, 0, kEnospc},
                              {kWrite, kMax64 - 511, 512, 0, kEnospc},
                              {kZero, 0, kMax32, 0, kEnospc},
                              {kRead, kSize, 0, 0, kOk},
                              {kRead, kSize + 1, 0, 0, kEinval},
                              {kWrite, kSize + 1, 0, 0, kEnospc}});
  SessionTraits huge = Writable();
  huge.size = ByteCount{(uint64_t{1} << 63) - 512};
  ExpectVerdicts(huge, {{kRead, (uint64_t{1} << 63) - 1024, 512, 0, kOk},
                        {kRead, (uint64_t{1} << 63) - 1024, 513, 0, kEinval},
                        {kStatus, 0, kMax32, 0, kOk},
                        {kTrim, 0, kMax32, 0, kOk},
                        {kZero, 0, kMax32, 0, kOk}});
}

TEST(ValidateRequestTest, AnEmptyExportServesOnlyNothing) {
  ExpectVerdicts(TraitsOf(ExportTraits{}), {{kRead, 0, 0, 0, kOk},
                                            {kRead, 0, 1, 0, kEinval},
                                            {kWrite, 0, 1, 0, kEnospc},
                                            {kFlush, 0, 0, 0, kOk}});
}

TEST(ValidateRequestTest, AlignmentIsEnforcedOnlyWhereRequired) {
  SessionTraits session = Writable();
  ExpectVerdicts(session, {{kRead, 1, 1, 0, kOk}, {kWrite, 511, 3, 0, kOk}});
  session.required_alignment = 4096;
  for (Command command : {kRead, kWrite, kTrim, kZero, kCache, kStatus}) {
    ExpectVerdicts(session, {{command, 0, 4096, 0, kOk},
                             {command, kSize - 4096, 4096, 0, kOk},
                             {command, 4096, 512, 0, kEinval},
                             {command, 512, 4096, 0, kEinval},
                             {command, kSize - 512, 512, 0, kEinval},
                             {command, 0, 1, 0, kEinval}});
  }
  ExpectVerdicts(session, {{kFlush, 0, 0, 0, kOk}, {kRead, 4096, 0, 0, kOk}});
}

TEST(ValidateRequestTest, UnknownCommandsAreRefusedAndHaveNoPayload) {
  for (const uint16_t command : {8, 9, 255, 0xffff}) {
    const Verdict verdict = ValidateRequest(Request{1, command, 0, 0, kMax32}, ReadOnlyTraits());
    EXPECT_EQ(verdict.action, Verdict::Action::kRefuse);
    EXPECT_EQ(verdict.error, kEinval);
    EXPECT_EQ(verdict.payload_bytes, 0u);
    EXPECT_THAT(verdict.message, HasSubstr("command " + std::to_string(command)));
  }
}

TEST(ValidateRequestTest, DisconnectIsNeverRefused) {
  const uint16_t disconnect = static_cast<uint16_t>(Command::kDisconnect);
  for (const Request& request :
       {Request{1, disconnect, 0, 0, 0}, Request{1, disconnect, 0xffff, kMax64, kMax32}}) {
    EXPECT_TRUE(ValidateRequest(request, ReadOnlyTraits()).ok());
  }
}

TEST(ValidateRequestTest, OversizeWritesAreConsumedUpToALimit) {
  for (const SessionTraits& session : {Writable(), ReadOnlyTraits()}) {
    const ErrorCode error = session.transmission_flags & 2 ? kEperm : kEinval;
    ExpectVerdicts(session, {{kWrite, 0, kMaxPayload + 1, 0, error},
                             {kWrite, 0, 64 * kMiB, 0, error},
                             {kWrite, kMax64, 64 * kMiB, 0, error}});
    for (const uint32_t length : {uint32_t{64 * kMiB + 1}, kMax32}) {
      const Verdict verdict = ValidateRequest(Make(kWrite, 0, length), session);
      EXPECT_EQ(verdict.action, Verdict::Action::kHangUp);
      EXPECT_EQ(verdict.payload_bytes, 0u);
      EXPECT_THAT(verdict.message, HasSubstr(std::to_string(length)));
    }
  }
}

TEST(ValidateRequestTest, AHigherMaximumAllowsLongerWrites) {
  SessionTraits session = Writable();
  session.size = ByteCount{1 * kGiB};
  session.maximum_payload = kMax32;
  ExpectVerdicts(session, {{kWrite, 0, 33 * kMiB, 0, kOk},
                           {kWrite, 0, 65 * kMiB, 0, kOk},
                           {kWrite, 1, 1 * kGiB, 0, kEnospc}});
}

TEST(ValidateRequestTest, MessagesNameWhatIsWrong) {
  struct Row {
    Request request;
    std::vector<const char*> parts;
  };
  SessionTraits strict = Writable();
  strict.required_alignment = 512;
  for (const Row& row : {
           Row{Make(kRead, kSize - 512, 1024), {"READ", "1024", "67108352", "67108864"}},
           Row{Make(kZero, 100, 512), {"WRITE_ZEROES", "offset 100", "512"}},
           Row{Make(kTrim, 0, 512, kFlagReqOne), {"TRIM", "flags 0x8"}},
           Row{Make(kWrite, 0, 33 * kMiB), {"WRITE", "34603008", "33554432"}},
       }) {
    const Verdict verdict = ValidateRequest(row.request, strict);
    for (const char* part : row.parts) EXPECT_THAT(verdict.message, HasSubstr(part));
  }
}

// Whatever the 28 bytes say: what is served is safe to serve, and what is not has a code and a
// reason.
TEST(ValidateRequestTest, RandomRequestsAreServedOnlyWithinTheContract) {
  const uint64_t seed = testing::TestSeed(28);
  std::mt19937_64 rng(seed);
  const uint64_t edges[] = {0, 1, 511, 512, 4096, kSize - 4096, kSize, kMaxPayload, kMax32, kMax64};
  int served = 0;
  for (int round = 0; round < 200000; ++round) {
    SessionTraits session = rng() % 4 ? Writable() : ReadOnlyTraits();
    if (rng() % 4 == 0) session = Simple();
    session.required_alignment = rng() % 2 ? 1 : 4096;
    const uint64_t shift = rng() % 3 - 1;  // -1, 0 or 1 around an edge
    const Request request{rng(), static_cast<uint16_t>(rng() % 9),
                          static_cast<uint16_t>(rng() % 2 ? 0 : rng() % 32),
                          edges[rng() % std::size(edges)] + (rng() % 4 ? 0 : shift),
                          static_cast<uint32_t>(edges[rng() % std::size(edges)] + shift)};
    const Verdict verdict = ValidateRequest(request, session);
    ASSERT_EQ(verdict.ok(), verdict.error == kOk) << "seed " << seed << " round " << round;
    ASSERT_EQ(verdict.ok(), verdict.message.empty()) << "seed " << seed << " round " << round;
    if (!verdict.ok() || request.Is(Command::kDisconnect)) continue;
    ++served;
    const auto end = request.offset + uint64_t{request.length};
    ASSERT_TRUE(end >= request.offset && end <= kSize) << "seed " << seed << " round " << round;
    ASSERT_EQ((request.offset | request.length) % session.required_alignment, 0u);
    if (session.transmission_flags & 2) {
      ASSERT_FALSE(request.Is(kWrite) || request.Is(kTrim) || request.Is(kZero));
    }
    ASSERT_TRUE(!request.Is(kWrite) || request.length <= session.maximum_payload);
  }
  EXPECT_GT(served, 2000);
}

TEST(PayloadLimitTest, OnlyClientsThatAskedAreBoundByASmallMaximum) {
  EXPECT_EQ(PayloadLimit(1 * kMiB, true), 1 * kMiB);
  EXPECT_EQ(PayloadLimit(1 * kMiB, false), 32 * kMiB);
  EXPECT_EQ(PayloadLimit(48 * kMiB, true), 48 * kMiB);
  EXPECT_EQ(PayloadLimit(48 * kMiB, false), 48 * kMiB);
  EXPECT_EQ(PayloadLimit(kMax32, false), kMax32);
}

}  // namespace
}  // namespace gabion::nbd
