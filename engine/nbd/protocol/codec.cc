#include "engine/nbd/protocol/codec.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "engine/base/align.h"
#include "engine/base/bytes.h"
#include "engine/base/check.h"
#include "engine/nbd/protocol/wire_string.h"

namespace gabion::nbd {
namespace {

void EncodeChunkHeader(std::byte* out, uint64_t cookie, Last last, ChunkType type,
                       uint32_t length) {
  StoreBe32(out + offsetof(WireChunkHeader, magic), kChunkMagic);
  StoreBe16(out + offsetof(WireChunkHeader, flags), last == Last::kYes ? kChunkDone : 0);
  StoreBe16(out + offsetof(WireChunkHeader, type), static_cast<uint16_t>(type));
  StoreBe64(out + offsetof(WireChunkHeader, cookie), cookie);
  StoreBe32(out + offsetof(WireChunkHeader, length), length);
}

// Both kinds of error chunk, without the offset; returns where it would go. `trailer`: bytes that
// follow the message.
size_t EncodeErrorCommon(MutableBytes out, uint64_t cookie, Last last, ChunkType type,
                         ErrorCode error, std::string_view message, size_t trailer) {
  CHECK(error != ErrorCode::kNone);
  CHECK_GE(out.size(), sizeof(WireErrorChunk) + trailer);
  const size_t room = std::min(out.size() - sizeof(WireErrorChunk) - trailer, kMaxString);
  const std::string_view text = ClipUtf8(message, room);
  const size_t length = sizeof(WireErrorChunk) - kChunkHeaderSize + text.size() + trailer;
  EncodeChunkHeader(out.data(), cookie, last, type, static_cast<uint32_t>(length));
  StoreBe32(out.data() + offsetof(WireErrorChunk, error), static_cast<uint32_t>(error));
  StoreBe16(out.data() + offsetof(WireErrorChunk, message_length),
            static_cast<uint16_t>(text.size()));
  std::copy_n(AsBytes(text).data(), text.size(), out.data() + sizeof(WireErrorChunk));
  return sizeof(WireErrorChunk) + text.size();
}

}  // namespace

std::optional<ByteRange> Request::RangeWithin(ByteCount size) const {
  const ByteRange range = Range(offset, length);
  if (!FitsWithin(range, size)) return std::nullopt;
  return range;
}

std::optional<Request> DecodeRequestHeader(FixedBytes<kRequestSize> header) {
  const std::byte* from = header.data();
  if (LoadBe32(from + offsetof(WireRequest, magic)) != kRequestMagic) return std::nullopt;
  Request request;
  request.cookie = LoadBe64(from + offsetof(WireRequest, cookie));
  request.command = LoadBe16(from + offsetof(WireRequest, command));
  request.flags = LoadBe16(from + offsetof(WireRequest, flags));
  request.offset = LoadBe64(from + offsetof(WireRequest, offset));
  request.length = LoadBe32(from + offsetof(WireRequest, length));
  return request;
}

void EncodeSimpleReply(MutableFixedBytes<kSimpleReplySize> out, uint64_t cookie, ErrorCode error) {
  StoreBe32(out.data() + offsetof(WireSimpleReply, magic), kSimpleReplyMagic);
  StoreBe32(out.data() + offsetof(WireSimpleReply, error), static_cast<uint32_t>(error));
  StoreBe64(out.data() + offsetof(WireSimpleReply, cookie), cookie);
}

void EncodeNoneChunk(MutableFixedBytes<kChunkHeaderSize> out, uint64_t cookie) {
  EncodeChunkHeader(out.data(), cookie, Last::kYes, ChunkType::kNone, 0);
}

void EncodeDataChunkHeader(MutableFixedBytes<kDataChunkHeaderSize> out, uint64_t cookie, Last last,
                           ByteOffset offset, uint32_t data_length) {
  constexpr uint32_t kFixed = kDataChunkHeaderSize - kChunkHeaderSize;
  CHECK_GE(data_length, 1u);
  CHECK_LE(data_length, std::numeric_limits<uint32_t>::max() - kFixed);
  EncodeChunkHeader(out.data(), cookie, last, ChunkType::kOffsetData, kFixed + data_length);
  StoreBe64(out.data() + offsetof(WireDataChunk, offset), offset.value);
}

void EncodeHoleChunk(MutableFixedBytes<kHoleChunkSize> out, uint64_t cookie, Last last,
                     ByteOffset offset, uint32_t hole_length) {
  CHECK_GE(hole_length, 1u);
  EncodeChunkHeader(out.data(), cookie, last, ChunkType::kOffsetHole,
                    kHoleChunkSize - kChunkHeaderSize);
  StoreBe64(out.data() + offsetof(WireHoleChunk, offset), offset.value);
  StoreBe32(out.data() + offsetof(WireHoleChunk, hole_length), hole_length);
}

size_t EncodeErrorChunk(MutableBytes out, uint64_t cookie, Last last, ErrorCode error,
                        std::string_view message) {
  return EncodeErrorCommon(out, cookie, last, ChunkType::kError, error, message, 0);
}

size_t EncodeErrorOffsetChunk(MutableBytes out, uint64_t cookie, Last last, ErrorCode error,
                              std::string_view message, ByteOffset offset) {
  const size_t end = EncodeErrorCommon(out, cookie, last, ChunkType::kErrorOffset, error, message,
                                       sizeof(uint64_t));
  StoreBe64(out.data() + end, offset.value);
  return end + sizeof(uint64_t);
}

void EncodeBlockStatusHeader(MutableFixedBytes<kBlockStatusHeaderSize> out, uint64_t cookie,
                             Last last, uint32_t context_id, uint32_t descriptors) {
  constexpr uint32_t kFixed = kBlockStatusHeaderSize - kChunkHeaderSize;
  CHECK_GE(descriptors, 1u);
  CHECK_LE(descriptors, kMaxDescriptors);
  EncodeChunkHeader(out.data(), cookie, last, ChunkType::kBlockStatus,
                    kFixed + descriptors * static_cast<uint32_t>(kDescriptorSize));
  StoreBe32(out.data() + offsetof(WireBlockStatusChunk, context_id), context_id);
}

void EncodeDescriptor(MutableFixedBytes<kDescriptorSize> out, uint32_t length, uint32_t status) {
  CHECK_GE(length, 1u);
  StoreBe32(out.data() + offsetof(WireBlockDescriptor, length), length);
  StoreBe32(out.data() + offsetof(WireBlockDescriptor, status), status);
}

void EncodeGreeting(MutableFixedBytes<kGreetingSize> out, uint16_t server_flags) {
  StoreBe64(out.data() + offsetof(WireGreeting, init_password), kInitPassword);
  StoreBe64(out.data() + offsetof(WireGreeting, option_magic), kOptionMagic);
  StoreBe16(out.data() + offsetof(WireGreeting, server_flags), server_flags);
}

std::optional<OptionRequest> DecodeOptionHeader(FixedBytes<kOptionHeaderSize> header) {
  const std::byte* from = header.data();
  if (LoadBe64(from + offsetof(WireOptionHeader, magic)) != kOptionMagic) return std::nullopt;
  return OptionRequest{LoadBe32(from + offsetof(WireOptionHeader, option)),
                       LoadBe32(from + offsetof(WireOptionHeader, length))};
}

void EncodeOptionReplyHeader(MutableFixedBytes<kOptionReplyHeaderSize> out, uint32_t option,
                             OptionReply reply, uint32_t payload_length) {
  StoreBe64(out.data() + offsetof(WireOptionReplyHeader, magic), kOptionReplyMagic);
  StoreBe32(out.data() + offsetof(WireOptionReplyHeader, option), option);
  StoreBe32(out.data() + offsetof(WireOptionReplyHeader, reply), static_cast<uint32_t>(reply));
  StoreBe32(out.data() + offsetof(WireOptionReplyHeader, length), payload_length);
}

}  // namespace gabion::nbd
