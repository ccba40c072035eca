#include "engine/nbd/protocol/codec.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>

#include "tests/engine/nbd/protocol/wire_testing.h"

namespace gabion::nbd {
namespace {

using testing::Be16;
using testing::Be32;
using testing::Be64;
using testing::FromHex;
using testing::ToHex;

constexpr uint64_t kMax64 = std::numeric_limits<uint64_t>::max();
constexpr uint32_t kMax32 = std::numeric_limits<uint32_t>::max();
constexpr uint64_t kCookie = 0x0123456789abcdef;

std::optional<Request> Decode(const std::string& bytes) {
  EXPECT_EQ(bytes.size(), kRequestSize);
  return DecodeRequestHeader(AsBytes(bytes).first<kRequestSize>());
}

template <size_t N>
std::string HexOf(const std::array<std::byte, N>& bytes) {
  return ToHex(AsText(bytes));
}

TEST(DecodeRequestTest, FieldsAreBigEndianAndInOrder) {
  const auto request =
      Decode(FromHex("25609513 0102 0304 05060708090a0b0c 0d0e0f1011121314 15161718"));
  ASSERT_TRUE(request.has_value());
  EXPECT_EQ(request->flags, 0x0102);
  EXPECT_EQ(request->command, 0x0304);
  EXPECT_EQ(request->cookie, 0x05060708090a0b0cu);
  EXPECT_EQ(request->offset, 0x0d0e0f1011121314u);
  EXPECT_EQ(request->length, 0x15161718u);
}

TEST(DecodeRequestTest, EveryOtherMagicIsRefused) {
  const std::string rest(24, '\0');
  for (const uint32_t magic :
       {0u, kMax32, 0x12560953u, 0x96744668u, 0x25609514u, 0x21e41c71u, 0x67446698u, 0x13956025u}) {
    EXPECT_FALSE(Decode(Be32(magic) + rest).has_value()) << std::hex << magic;
  }
  for (int bit = 0; bit < 32; ++bit) {
    EXPECT_FALSE(Decode(Be32(0x25609513u ^ (1u << bit)) + rest).has_value()) << bit;
  }
}

TEST(DecodeRequestTest, ExtremeValuesDecode) {
  struct Case {
    uint16_t flags, command;
    uint64_t cookie, offset;
    uint32_t length;
  };
  for (const Case& c : {Case{0, 0, 0, 0, 0}, Case{0xffff, 0xffff, kMax64, kMax64, kMax32},
                        Case{0, 1, 1, kMax64, 0}, Case{0, 7, 1, 0, kMax32}}) {
    const auto request = Decode(Be32(0x25609513) + Be16(c.flags) + Be16(c.command) +
                                Be64(c.cookie) + Be64(c.offset) + Be32(c.length));
    ASSERT_TRUE(request.has_value());
    EXPECT_EQ(*request, (Request{c.cookie, c.command, c.flags, c.offset, c.length}));
  }
}

TEST(RequestTest, RangeWithinDoesNotOverflow) {
  struct Case {
    uint64_t offset;
    uint32_t length;
    uint64_t size;
    bool within;
  };
  for (const Case& c :
       {Case{0, 0, 0, true}, Case{0, 1, 0, false}, Case{0, 10, 10, true}, Case{1, 10, 10, false},
        Case{10, 0, 10, true}, Case{11, 0, 10, false}, Case{kMax64, kMax32, 10, false},
        Case{kMax64, 1, kMax64, false}, Case{kMax64, 0, kMax64, true},
        Case{kMax64 - kMax32, kMax32, kMax64, true}, Case{uint64_t{1} << 63, 512, 512, false}}) {
    const Request request{0, 0, 0, c.offset, c.length};
    const std::optional<ByteRange> range = request.RangeWithin(ByteCount{c.size});
    EXPECT_EQ(range.has_value(), c.within) << c.offset << "+" << c.length << " in " << c.size;
    if (range) {
      EXPECT_EQ(*range, Range(c.offset, c.length));
    }
  }
}

TEST(EncodeReplyTest, SimpleReply) {
  std::array<std::byte, kSimpleReplySize> out;
  EncodeSimpleReply(out, kCookie, ErrorCode::kNone);
  EXPECT_EQ(HexOf(out), "67446698000000000123456789abcdef");
  EncodeSimpleReply(out, kMax64, ErrorCode::kEshutdown);
  EXPECT_EQ(HexOf(out), "674466980000006cffffffffffffffff");
}

TEST(EncodeReplyTest, NoneChunkIsAlwaysTheLast) {
  std::array<std::byte, kChunkHeaderSize> out;
  EncodeNoneChunk(out, kCookie);
  EXPECT_EQ(HexOf(out), "668e33ef000100000123456789abcdef00000000");
}

TEST(EncodeReplyTest, DataChunkCountsItsOffsetInTheLength) {
  std::array<std::byte, kDataChunkHeaderSize> out;
  EncodeDataChunkHeader(out, kCookie, Last::kNo, ByteOffset{0x1122334455667788}, 512);
  EXPECT_EQ(HexOf(out), "668e33ef000000010123456789abcdef000002081122334455667788");
  EncodeDataChunkHeader(out, kCookie, Last::kYes, ByteOffset{0}, kMax32 - 8);
  EXPECT_EQ(HexOf(out), "668e33ef000100010123456789abcdefffffffff0000000000000000");
}

TEST(EncodeReplyDeathTest, ChunksThatTheProtocolCannotExpressAreOurBugs) {
  std::array<std::byte, kDataChunkHeaderSize> data;
  EXPECT_DEATH(EncodeDataChunkHeader(data, 0, Last::kNo, ByteOffset{0}, 0), "data_length");
  EXPECT_DEATH(EncodeDataChunkHeader(data, 0, Last::kNo, ByteOffset{0}, kMax32 - 7), "data_length");
  std::array<std::byte, kHoleChunkSize> hole;
  EXPECT_DEATH(EncodeHoleChunk(hole, 0, Last::kNo, ByteOffset{0}, 0), "hole_length");
  std::array<std::byte, kBlockStatusHeaderSize> status;
  EXPECT_DEATH(EncodeBlockStatusHeader(status, 0, Last::kNo, 1, 0), "descriptors");
  EXPECT_DEATH(EncodeBlockStatusHeader(status, 0, Last::kNo, 1, (1 << 20) + 1), "descriptors");
  std::array<std::byte, 26> error;
  EXPECT_DEATH(EncodeErrorChunk(error, 0, Last::kYes, ErrorCode::kNone, ""), "error");
}

TEST(EncodeReplyTest, HoleChunk) {
  std::array<std::byte, kHoleChunkSize> out;
  EncodeHoleChunk(out, kCookie, Last::kYes, ByteOffset{4096}, 0xffff0000);
  EXPECT_EQ(HexOf(out), "668e33ef000100020123456789abcdef0000000c0000000000001000ffff0000");
}

TEST(EncodeReplyTest, ErrorChunkCarriesItsMessage) {
  std::array<std::byte, kMaxErrorChunkSize> out;
  const size_t size = EncodeErrorChunk(out, kCookie, Last::kYes, ErrorCode::kEinval, "no");
  EXPECT_EQ(ToHex(AsText(out).substr(0, size)),
            "668e33ef000180010123456789abcdef00000008000000160002" + ToHex("no"));
}

TEST(EncodeReplyTest, ErrorChunkWithoutMessage) {
  std::array<std::byte, 26> out;
  EXPECT_EQ(EncodeErrorChunk(out, kCookie, Last::kNo, ErrorCode::kEio, "does not fit"), 26u);
  EXPECT_EQ(HexOf(out), "668e33ef000080010123456789abcdef00000006000000050000");
}

TEST(EncodeReplyTest, ErrorMessageIsCutAt4096BytesBetweenCharacters) {
  std::string message(4095, 'x');
  message += "\xc3\xa9";  // one character of two bytes, the second of which does not fit
  std::array<std::byte, kMaxErrorChunkSize + 100> out;
  EXPECT_EQ(EncodeErrorChunk(out, kCookie, Last::kYes, ErrorCode::kEio, message), 26u + 4095u);
  EXPECT_EQ(LoadBe16(out.data() + 24), 4095);
  EXPECT_EQ(LoadBe32(out.data() + 16), 6u + 4095u);
}

TEST(EncodeReplyTest, ErrorOffsetChunkEndsWithTheOffset) {
  std::array<std::byte, kMaxErrorOffsetChunkSize> out;
  const size_t size =
      EncodeErrorOffsetChunk(out, kCookie, Last::kNo, ErrorCode::kEio, "bad", ByteOffset{0x1000});
  EXPECT_EQ(
      ToHex(AsText(out).substr(0, size)),
      "668e33ef000080020123456789abcdef00000011000000050003" + ToHex("bad") + "0000000000001000");
}

TEST(EncodeReplyTest, BlockStatusCountsContextAndDescriptors) {
  std::array<std::byte, kBlockStatusHeaderSize> out;
  EncodeBlockStatusHeader(out, kCookie, Last::kNo, 7, 2);
  EXPECT_EQ(HexOf(out), "668e33ef000000050123456789abcdef0000001400000007");
  EncodeBlockStatusHeader(out, kCookie, Last::kYes, kMax32, 1 << 20);
  EXPECT_EQ(HexOf(out), "668e33ef000100050123456789abcdef00800004ffffffff");
  std::array<std::byte, kDescriptorSize> descriptor;
  EncodeDescriptor(descriptor, 0xffff0000, 3);
  EXPECT_EQ(HexOf(descriptor), "ffff000000000003");
}

TEST(OptionCodecTest, GreetingAndReplyHeader) {
  std::array<std::byte, kGreetingSize> greeting;
  EncodeGreeting(greeting, 3);
  EXPECT_EQ(AsText(greeting), std::string("NBDMAGICIHAVEOPT\0\3", 18));
  std::array<std::byte, kOptionReplyHeaderSize> reply;
  EncodeOptionReplyHeader(reply, 7, OptionReply::kErrUnknown, 9);
  EXPECT_EQ(HexOf(reply), "0003e889045565a9000000078000000600000009");
}

TEST(OptionCodecTest, HeaderNeedsItsMagic) {
  const std::string good = testing::OptionHeader(0xfffffffe, kMax32);
  const auto option = DecodeOptionHeader(AsBytes(good).first<kOptionHeaderSize>());
  ASSERT_TRUE(option.has_value());
  EXPECT_EQ(option->option, 0xfffffffeu);
  EXPECT_EQ(option->length, kMax32);
  for (size_t i = 0; i < 8; ++i) {
    std::string bad = good;
    bad[i] ^= 1;
    EXPECT_FALSE(DecodeOptionHeader(AsBytes(bad).first<kOptionHeaderSize>()).has_value()) << i;
  }
}

}  // namespace
}  // namespace gabion::nbd
