#include "engine/nbd/protocol/handshake.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/engine/nbd/protocol/handshake_testing.h"

namespace gabion::nbd {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using namespace testing;  // NOLINT: the client's half of the wire

constexpr uint32_t kAck = 1, kServer = 2, kInfo = 3, kMeta = 4;
constexpr uint32_t kError = 0x80000000;
constexpr uint32_t kUnsup = kError + 1, kPolicy = kError + 2, kInvalid = kError + 3,
                   kUnknown = kError + 6, kShutdown = kError + 7, kBlockSizeReqd = kError + 8,
                   kTooBig = kError + 9;

MATCHER_P2(ReplyIs, option, type, "") { return arg.option == option && arg.type == type; }
MATCHER_P3(ReplyIs, option, type, payload, "") {
  return arg.option == option && arg.type == type && arg.payload == payload;
}

// A runner that has been told the client's flags.
class HandshakeTest : public ::testing::Test {
 protected:
  HandshakeTest() { EXPECT_EQ(runner_.Feed(ClientFlags()), Step::kContinue); }

  // The replies to one option that does not end the handshake.
  std::vector<Reply> Ask(uint32_t option, std::string_view payload = "") {
    EXPECT_EQ(runner_.Feed(OptionBytes(option, payload)), Step::kContinue);
    return runner_.TakeReplies();
  }
  // Sends an option that gets one error, and shows that negotiation goes on.
  void ExpectRefused(uint32_t option, std::string_view payload, uint32_t error,
                     std::string_view message = "") {
    const std::vector<Reply> replies = Ask(option, payload);
    ASSERT_THAT(replies, ElementsAre(ReplyIs(option, error)));
    EXPECT_THAT(replies[0].payload, HasSubstr(std::string(message)));
    EXPECT_THAT(Ask(0x7654321), ElementsAre(ReplyIs(0x7654321u, kUnsup)));
  }
  void NegotiateStructured() {
    EXPECT_THAT(Ask(kOptStructured), ElementsAre(ReplyIs(kOptStructured, kAck, "")));
  }
  Negotiated Go(std::string_view payload) {
    EXPECT_EQ(runner_.Feed(OptionBytes(kOptGo, payload)), Step::kTransmission);
    return runner_.handshake().TakeNegotiated();
  }

  HandshakeRunner runner_;
};

// What NBD_INFO_EXPORT says of the disk: 1,000,300 bytes.
std::string DiskExportInfo(bool structured) {
  return FromHex("0000 00000000000f436c") + Be16(structured ? 0x0ded : 0x0d6d);
}
const std::string kDiskBlockSize = FromHex("0003 00000001 00001000 02000000");

TEST(HandshakeStartTest, GreetsAsFixedNewstyleWithNoZeroes) {
  EXPECT_EQ(HandshakeRunner().greeting(), std::string("NBDMAGICIHAVEOPT\0\3", 18));
}

TEST(HandshakeStartTest, UnknownClientFlagsDropTheConnection) {
  for (int bit = 0; bit < 32; ++bit) {
    HandshakeRunner runner;
    const Step step = runner.Feed(ClientFlags(1u << bit));
    EXPECT_EQ(step, bit < 2 ? Step::kContinue : Step::kDrop) << bit;
    EXPECT_EQ(runner.handshake().reason().empty(), bit < 2);
    EXPECT_EQ(runner.TakeOutput(), "");
  }
}

TEST_F(HandshakeTest, NothingIsLookedUpBeforeAnExportIsNamed) {
  Ask(kOptStructured);
  Ask(kOptStartTls);
  Ask(kOptGo, "malformed");
  EXPECT_THAT(runner_.asked(), IsEmpty());
}

TEST_F(HandshakeTest, WrongOptionMagicDrops) {
  EXPECT_EQ(runner_.Feed("IHAVEOPS" + Be32(kOptList) + Be32(0)), Step::kDrop);
  EXPECT_THAT(runner_.handshake().reason(), HasSubstr("magic"));
  EXPECT_EQ(runner_.TakeOutput(), "");
}

// ---- EXPORT_NAME ----

TEST(ExportNameTest, AnswersBareValuesAndPaddingByTheClientsWish) {
  for (const uint32_t client_flags : {0u, 1u, 2u, 3u}) {
    HandshakeRunner runner;
    runner.Feed(ClientFlags(client_flags));
    EXPECT_EQ(runner.Feed(OptionBytes(kOptExportName, "disk") + "rest"), Step::kTransmission);
    const std::string zeroes(client_flags & 2 ? 0 : 124, '\0');
    EXPECT_EQ(runner.TakeOutput(), FromHex("00000000000f436c 0d6d") + zeroes);
    EXPECT_EQ(runner.used(), 4u + 16u + 4u);  // "rest" is the first request
    const Negotiated negotiated = runner.handshake().TakeNegotiated();
    EXPECT_EQ(negotiated.requested_name, "disk");
    EXPECT_EQ(negotiated.transmission_flags, 0x0d6d);
    EXPECT_FALSE(negotiated.structured || negotiated.block_sizes_requested);
  }
}

TEST(ExportNameTest, EmptyNameIsTheDefaultExport) {
  HandshakeRunner runner;
  EXPECT_EQ(runner.Feed(ClientFlags() + OptionBytes(kOptExportName)), Step::kTransmission);
  EXPECT_THAT(runner.asked(), ElementsAre(""));
}

TEST(ExportNameTest, StructuredRepliesAndContextsCountToo) {
  HandshakeRunner runner;
  runner.Feed(ClientFlags() + OptionBytes(kOptStructured) +
              OptionBytes(kOptSetMeta, MetaPayload("disk", {"base:allocation"})));
  runner.TakeOutput();
  EXPECT_EQ(runner.Feed(OptionBytes(kOptExportName, "disk")), Step::kTransmission);
  EXPECT_EQ(runner.TakeOutput(), FromHex("00000000000f436c 0ded"));
  EXPECT_THAT(runner.handshake().TakeNegotiated().meta_contexts,
              ElementsAre(MetaContext{1, "base:allocation"}));
}

TEST(ExportNameTest, WhatItCannotReportClosesWithoutAWord) {
  for (const std::string& name :
       {std::string("nobody"), std::string("strict"), std::string("draining"),
        std::string("private"), std::string("di\0k", 4), std::string("\xff"),
        std::string(4096, 'x'), std::string(4097, 'x')}) {
    HandshakeRunner runner;
    EXPECT_EQ(runner.Feed(ClientFlags() + OptionBytes(kOptExportName, name)), Step::kClose);
    EXPECT_EQ(runner.TakeOutput(), "");
    EXPECT_THAT(runner.handshake().reason(), Not(IsEmpty()));
  }
}

// ---- ABORT, LIST and options that are not offered ----

TEST_F(HandshakeTest, AbortIsAcknowledgedWhateverComesWithIt) {
  for (const size_t length : {size_t{0}, size_t{5}, size_t{2 * kMiB}}) {
    HandshakeRunner runner;
    EXPECT_EQ(runner.Feed(ClientFlags() + OptionBytes(kOptAbort, std::string(length, 'x'))),
              Step::kClose);
    EXPECT_THAT(runner.TakeReplies(), ElementsAre(ReplyIs(kOptAbort, kAck, "")));
  }
}

TEST_F(HandshakeTest, NothingIsUsedAfterTheEnd) {
  EXPECT_EQ(runner_.Feed(OptionBytes(kOptAbort) + OptionBytes(kOptList)), Step::kClose);
  EXPECT_EQ(runner_.Feed(OptionBytes(kOptList)), Step::kClose);
  EXPECT_EQ(runner_.used(), 4u + 16u);
  EXPECT_THAT(runner_.TakeReplies(), ElementsAre(ReplyIs(kOptAbort, kAck)));
}

TEST_F(HandshakeTest, ListNamesEveryVisibleExport) {
  EXPECT_THAT(Ask(kOptList), ElementsAre(ReplyIs(kOptList, kServer, Text32("") + "a disk"),
                                         ReplyIs(kOptList, kServer, Text32("disk") + "a disk"),
                                         ReplyIs(kOptList, kServer, Text32("strict") + "a disk"),
                                         ReplyIs(kOptList, kAck, "")));
}

TEST_F(HandshakeTest, ListOfNothingIsJustAcknowledged) {
  runner_.exports().clear();
  EXPECT_THAT(Ask(kOptList), ElementsAre(ReplyIs(kOptList, kAck, "")));
}

TEST_F(HandshakeTest, ListKeepsToTheLimitsForStrings) {
  runner_.exports().clear();
  const std::string longest(4096, 'n');
  runner_.exports()[longest] = HandshakeRunner::DiskInfo();
  runner_.exports()[longest]->description = std::string(5000, 'd');
  runner_.exports()[std::string(4097, 'o')] = HandshakeRunner::DiskInfo();
  EXPECT_THAT(Ask(kOptList),
              ElementsAre(ReplyIs(kOptList, kServer, Text32(longest) + std::string(4096, 'd')),
                          ReplyIs(kOptList, kAck, "")));
}

TEST_F(HandshakeTest, ListTakesNoPayload) { ExpectRefused(kOptList, "x", kInvalid, "LIST"); }

TEST(HandshakePolicyTest, ListMayBeHidden) {
  HandshakeRunner runner(HandshakeConfig{.allow_list = false});
  EXPECT_EQ(runner.Feed(ClientFlags() + OptionBytes(kOptList)), Step::kContinue);
  EXPECT_THAT(runner.TakeReplies(), ElementsAre(ReplyIs(kOptList, kPolicy)));
}

TEST_F(HandshakeTest, OptionsThatAreNotOfferedAreUnsupported) {
  for (const uint32_t option : {0u, kOptPeek, kOptStartTls, kOptExtended, 12u, 0xffffffffu}) {
    ExpectRefused(option, "", kUnsup);
    ExpectRefused(option, "some payload", kUnsup);
  }
}

// ---- INFO and GO ----

TEST_F(HandshakeTest, GoTellsSizeFlagsAndBlockSizesEvenUnasked) {
  const Negotiated negotiated = Go(InfoPayload("disk"));
  EXPECT_THAT(runner_.TakeReplies(),
              ElementsAre(ReplyIs(kOptGo, kInfo, DiskExportInfo(false)),
                          ReplyIs(kOptGo, kInfo, kDiskBlockSize), ReplyIs(kOptGo, kAck, "")));
  EXPECT_EQ(negotiated.requested_name, "disk");
  EXPECT_EQ(negotiated.exported.traits.size, ByteCount{1000300});
  EXPECT_EQ(negotiated.transmission_flags, 0x0d6d);
  EXPECT_FALSE(negotiated.structured || negotiated.block_sizes_requested);
  EXPECT_THAT(negotiated.meta_contexts, IsEmpty());
}

TEST_F(HandshakeTest, GoTellsNameAndDescriptionWhenAsked) {
  const Negotiated negotiated = Go(InfoPayload("", {3, 2, 1, 0, 99}));
  EXPECT_THAT(runner_.TakeReplies(),
              ElementsAre(ReplyIs(kOptGo, kInfo, DiskExportInfo(false)),
                          ReplyIs(kOptGo, kInfo, Be16(1) + "disk"),
                          ReplyIs(kOptGo, kInfo, Be16(2) + "a disk"),
                          ReplyIs(kOptGo, kInfo, kDiskBlockSize), ReplyIs(kOptGo, kAck, "")));
  EXPECT_EQ(negotiated.requested_name, "");
  EXPECT_EQ(negotiated.exported.name, "disk");
  EXPECT_TRUE(negotiated.block_sizes_requested);
}

TEST_F(HandshakeTest, AnExportWithoutDescriptionHasNone) {
  runner_.exports()["disk"]->description = "";
  Go(InfoPayload("disk", {2}));
  EXPECT_THAT(runner_.TakeReplies(),
              ElementsAre(ReplyIs(kOptGo, kInfo, DiskExportInfo(false)),
                          ReplyIs(kOptGo, kInfo, kDiskBlockSize), ReplyIs(kOptGo, kAck, "")));
}

TEST_F(HandshakeTest, InfoGivesWhatAFollowingGoGives) {
  NegotiateStructured();
  const std::vector<std::string> payloads = {
      InfoPayload("disk", {3, 1, 2}), InfoPayload("nobody"),         InfoPayload("strict"),
      InfoPayload("strict", {3}),     InfoPayload("draining", {3}),  InfoPayload(""),
      InfoPayload("private"),         InfoPayload("disk") + "extra",
  };
  for (const std::string& payload : payloads) {
    HandshakeRunner runner;
    runner.Feed(ClientFlags() + OptionBytes(kOptStructured));
    runner.TakeOutput();
    EXPECT_EQ(runner.Feed(OptionBytes(kOptInfo, payload)), Step::kContinue);
    const std::vector<Reply> info = runner.TakeReplies();
    runner.Feed(OptionBytes(kOptGo, payload));
    const std::vector<Reply> go = runner.TakeReplies();
    ASSERT_EQ(info.size(), go.size());
    for (size_t i = 0; i < info.size(); ++i) {
      EXPECT_EQ(info[i].option, kOptInfo);
      EXPECT_THAT(go[i], ReplyIs(kOptGo, info[i].type, info[i].payload));
    }
  }
}

TEST_F(HandshakeTest, DfIsAdvertisedOnlyAfterStructuredReplies) {
  EXPECT_EQ(Ask(kOptInfo, InfoPayload("disk"))[0].payload, DiskExportInfo(false));
  NegotiateStructured();
  EXPECT_EQ(Ask(kOptInfo, InfoPayload("disk"))[0].payload, DiskExportInfo(true));
  const Negotiated negotiated = Go(InfoPayload("disk"));
  EXPECT_EQ(negotiated.transmission_flags, 0x0ded);
  EXPECT_TRUE(negotiated.structured);
}

TEST_F(HandshakeTest, StructuredReplyMayBeRepeatedButHasNoPayload) {
  ExpectRefused(kOptStructured, "x", kInvalid, "STRUCTURED_REPLY");
  EXPECT_EQ(Ask(kOptInfo, InfoPayload("disk"))[0].payload, DiskExportInfo(false));
  NegotiateStructured();
  NegotiateStructured();
}

TEST_F(HandshakeTest, GoOnWhatCannotBeServedSaysWhy) {
  ExpectRefused(kOptGo, InfoPayload("nobody"), kUnknown, "there is no export \"nobody\"");
  ExpectRefused(kOptGo, InfoPayload("draining"), kShutdown, "shutting down");
  ExpectRefused(kOptGo, InfoPayload("private"), kPolicy, "address is not allowed");
  ExpectRefused(kOptGo, InfoPayload("full"), kPolicy, "too many connections");
  Go(InfoPayload("disk"));
}

TEST_F(HandshakeTest, InternalErrorsAreNotShownToClients) {
  const std::vector<Reply> replies = Ask(kOptGo, InfoPayload("broken"));
  ASSERT_THAT(replies, ElementsAre(ReplyIs(kOptGo, kUnknown)));
  EXPECT_THAT(replies[0].payload, Not(HasSubstr("secret")));
}

TEST_F(HandshakeTest, LongNamesDoNotMakeLongMessages) {
  const std::vector<Reply> replies = Ask(kOptGo, InfoPayload(std::string(4096, '\n')));
  ASSERT_THAT(replies, ElementsAre(ReplyIs(kOptGo, kUnknown)));
  EXPECT_LT(replies[0].payload.size(), 256u);
}

TEST_F(HandshakeTest, MalformedInfoAndGoAreInvalid) {
  for (const uint32_t option : {kOptInfo, kOptGo}) {
    ExpectRefused(option, "", kInvalid, "export name");
    ExpectRefused(option, Be32(0xffffffff), kInvalid, "export name");
    ExpectRefused(option, InfoPayload("disk") + "x", kInvalid, "longer");
    ExpectRefused(option, Text32("disk") + Be16(9) + Be16(3), kInvalid, "information requests");
    ExpectRefused(option, InfoPayload(std::string("d\0", 2)), kInvalid, "NUL");
    ExpectRefused(option, InfoPayload(std::string(4097, 'd')), kInvalid, "4097");
  }
  EXPECT_THAT(runner_.asked(), IsEmpty());
}

TEST_F(HandshakeTest, SilentClientsAreSentForTheBlockSizesFirst) {
  ExpectRefused(kOptInfo, InfoPayload("strict"), kBlockSizeReqd, "4096");
  ExpectRefused(kOptGo, InfoPayload("strict", {0, 1, 2}), kBlockSizeReqd, "NBD_INFO_BLOCK_SIZE");
  EXPECT_TRUE(Go(InfoPayload("strict", {3})).block_sizes_requested);
}

// ---- metadata contexts ----

TEST_F(HandshakeTest, ContextsNeedStructuredReplies) {
  for (const uint32_t option : {kOptListMeta, kOptSetMeta}) {
    ExpectRefused(option, MetaPayload("disk", {"base:allocation"}), kInvalid, "structured");
  }
}

TEST_F(HandshakeTest, ListedContextsHaveTheIdZero) {
  NegotiateStructured();
  EXPECT_THAT(Ask(kOptListMeta, MetaPayload("disk", {})),
              ElementsAre(ReplyIs(kOptListMeta, kMeta, Be32(0) + "base:allocation"),
                          ReplyIs(kOptListMeta, kMeta, Be32(0) + "qemu:allocation-depth"),
                          ReplyIs(kOptListMeta, kAck, "")));
  EXPECT_THAT(Ask(kOptListMeta, MetaPayload("disk", {"base:", "x-nobody:thing"})),
              ElementsAre(ReplyIs(kOptListMeta, kMeta, Be32(0) + "base:allocation"),
                          ReplyIs(kOptListMeta, kAck, "")));
  EXPECT_THAT(Go(InfoPayload("disk")).meta_contexts, IsEmpty());
}

TEST_F(HandshakeTest, SelectedContextsAreToldAndRemembered) {
  NegotiateStructured();
  EXPECT_THAT(Ask(kOptSetMeta, MetaPayload("disk", {"qemu:allocation-depth", "x:y", "base:"})),
              ElementsAre(ReplyIs(kOptSetMeta, kMeta, Be32(2) + "qemu:allocation-depth"),
                          ReplyIs(kOptSetMeta, kAck, "")));
  EXPECT_THAT(Go(InfoPayload("disk", {3})).meta_contexts,
              ElementsAre(MetaContext{2, "qemu:allocation-depth"}));
}

TEST_F(HandshakeTest, ASelectionForAnotherNameDoesNotCount) {
  NegotiateStructured();
  Ask(kOptSetMeta, MetaPayload("", {"base:allocation"}));
  EXPECT_THAT(Go(InfoPayload("disk")).meta_contexts, IsEmpty());
}

TEST_F(HandshakeTest, ListingOrAFailedGoLeavesTheSelection) {
  NegotiateStructured();
  Ask(kOptSetMeta, MetaPayload("disk", {"base:allocation"}));
  Ask(kOptListMeta, MetaPayload("strict", {}));
  Ask(kOptGo, InfoPayload("nobody"));
  EXPECT_THAT(Go(InfoPayload("disk")).meta_contexts,
              ElementsAre(MetaContext{1, "base:allocation"}));
}

TEST_F(HandshakeTest, SetReplacesTheEarlierSelectionEvenWhenItFails) {
  const std::string queries_to_no_one = MetaPayload("nobody", {"base:allocation"});
  for (const std::string& failing :
       {std::string("malformed"), queries_to_no_one, MetaPayload("disk", {}),
        MetaPayload("disk", {"x:y"}), std::string(kMaxOptionPayload + 1, 'x')}) {
    HandshakeRunner runner;
    runner.Feed(ClientFlags() + OptionBytes(kOptStructured) +
                OptionBytes(kOptSetMeta, MetaPayload("disk", {"base:allocation"})) +
                OptionBytes(kOptSetMeta, failing) + OptionBytes(kOptGo, InfoPayload("disk")));
    ASSERT_EQ(runner.step(), Step::kTransmission);
    EXPECT_THAT(runner.handshake().TakeNegotiated().meta_contexts, IsEmpty());
  }
}

TEST_F(HandshakeTest, AContextThatVanishedBeforeGoIsNotPromised) {
  NegotiateStructured();
  Ask(kOptSetMeta, MetaPayload("disk", {"base:allocation", "qemu:allocation-depth"}));
  runner_.exports()["disk"]->meta_contexts = {"base:allocation"};
  ExpectRefused(kOptGo, InfoPayload("disk"), kInvalid, "qemu:allocation-depth");
  Ask(kOptSetMeta, MetaPayload("disk", {"base:allocation"}));
  EXPECT_THAT(Go(InfoPayload("disk")).meta_contexts,
              ElementsAre(MetaContext{1, "base:allocation"}));
}

TEST_F(HandshakeTest, MalformedContextOptionsAreRefused) {
  NegotiateStructured();
  for (const uint32_t option : {kOptListMeta, kOptSetMeta}) {
    ExpectRefused(option, "", kInvalid, "export name");
    ExpectRefused(option, Text32("disk") + Be32(0xffffffff), kInvalid, "queries");
    ExpectRefused(option, MetaPayload("disk", {std::string(4097, 'q')}), kInvalid, "4097");
    ExpectRefused(option, MetaPayload("disk", {std::string("base:\0", 6)}), kInvalid, "NUL");
    ExpectRefused(option, MetaPayload("disk", {}) + "x", kInvalid, "longer");
    ExpectRefused(option, MetaPayload("nobody", {}), kUnknown, "nobody");
    const std::vector<std::string> many(1025, "x:y");
    ExpectRefused(option, MetaPayload("disk", many), kTooBig, "1025");
  }
}

// ---- limits ----

TEST_F(HandshakeTest, PayloadsAreReadUpToOneMebibyteAndSkippedBeyond) {
  ExpectRefused(kOptGo, std::string(kMaxOptionPayload, '\xff'), kInvalid, "export name");
  for (const uint32_t option : {kOptGo, kOptInfo, kOptList, kOptStructured, kOptSetMeta, 4711u}) {
    ExpectRefused(option, std::string(kMaxOptionPayload + 1, 'x'), kTooBig, "1048577");
  }
  ExpectRefused(kOptGo, std::string(kMaxSkippedPayload, 'x'), kTooBig);
  Go(InfoPayload("disk"));
}

TEST_F(HandshakeTest, AnnouncingAHugePayloadDrops) {
  for (const uint32_t option : {kOptGo, kOptAbort, kOptList, 4711u}) {
    for (const uint32_t length : {kMaxSkippedPayload + 1, 0xffffffffu}) {
      HandshakeRunner runner;
      EXPECT_EQ(runner.Feed(ClientFlags() + OptionHeader(option, length)), Step::kDrop);
      EXPECT_EQ(runner.TakeOutput(), "");
      EXPECT_THAT(runner.handshake().reason(), HasSubstr(std::to_string(length)));
    }
  }
}

TEST(HandshakeLimitTest, AFloodOfOptionsEndsTheConnection) {
  HandshakeRunner runner(HandshakeConfig{.max_options = 10});
  runner.Feed(ClientFlags());
  for (int i = 0; i < 10; ++i) EXPECT_EQ(runner.Feed(OptionBytes(kOptList)), Step::kContinue);
  EXPECT_EQ(runner.Feed(OptionBytes(kOptList)), Step::kDrop);
  EXPECT_THAT(runner.handshake().reason(), HasSubstr("more than 10 options"));
}

TEST(HandshakeLimitTest, TheLastAllowedOptionMayBeGo) {
  HandshakeRunner runner(HandshakeConfig{.max_options = 1});
  EXPECT_EQ(runner.Feed(ClientFlags() + OptionBytes(kOptGo, InfoPayload("disk"))),
            Step::kTransmission);
}

}  // namespace
}  // namespace gabion::nbd
