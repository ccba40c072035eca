// Headers of the NBD protocol from and to bytes. Decoders are total: every input has an answer.
// Encoders write into buffers of exactly the size that the header has, so that a session can put
// headers in front of data without a copy. Pure functions: any thread.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "engine/base/units.h"
#include "engine/nbd/protocol/wire.h"

namespace gabion::nbd {

inline constexpr size_t kRequestSize = sizeof(WireRequest);
inline constexpr size_t kSimpleReplySize = sizeof(WireSimpleReply);
inline constexpr size_t kChunkHeaderSize = sizeof(WireChunkHeader);
inline constexpr size_t kDataChunkHeaderSize = sizeof(WireDataChunk);
inline constexpr size_t kHoleChunkSize = sizeof(WireHoleChunk);
inline constexpr size_t kBlockStatusHeaderSize = sizeof(WireBlockStatusChunk);
inline constexpr size_t kDescriptorSize = sizeof(WireBlockDescriptor);
// With room for the longest message; with the offset that kErrorOffset adds.
inline constexpr size_t kMaxErrorChunkSize = sizeof(WireErrorChunk) + kMaxString;
inline constexpr size_t kMaxErrorOffsetChunkSize = kMaxErrorChunkSize + sizeof(uint64_t);

inline constexpr size_t kGreetingSize = sizeof(WireGreeting);
inline constexpr size_t kOptionHeaderSize = sizeof(WireOptionHeader);
inline constexpr size_t kOptionReplyHeaderSize = sizeof(WireOptionReplyHeader);

template <size_t N>
using FixedBytes = std::span<const std::byte, N>;
template <size_t N>
using MutableFixedBytes = std::span<std::byte, N>;

// ---- transmission

// One request as the client sent it; nothing about it has been validated (request.h does). `cookie`
// identifies it in the reply and has no other meaning.
struct Request {
  uint64_t cookie = 0;
  uint16_t command = 0;  // a Command, or any other number
  uint16_t flags = 0;
  uint64_t offset = 0;  // bytes
  uint32_t length = 0;  // bytes; offset + length may overflow

  // The bytes that the request is about, or nullopt if they are not all within [0, size).
  std::optional<ByteRange> RangeWithin(ByteCount size) const;

  bool Is(Command which) const { return command == static_cast<uint16_t>(which); }
  friend bool operator==(const Request&, const Request&) = default;
};

// nullopt if the magic is wrong: the stream is out of step and the connection is lost.
std::optional<Request> DecodeRequestHeader(FixedBytes<kRequestSize> header);

void EncodeSimpleReply(MutableFixedBytes<kSimpleReplySize> out, uint64_t cookie, ErrorCode error);

// Whether a chunk is the last one of its reply.
enum class Last : bool { kNo = false, kYes = true };

// The reply that has nothing to say but success, or that nothing follows.
void EncodeNoneChunk(MutableFixedBytes<kChunkHeaderSize> out, uint64_t cookie);

// The header in front of `data_length` bytes of data that come from `offset` of the export.
// REQUIRES: 1 <= data_length <= 2^32 - 9.
void EncodeDataChunkHeader(MutableFixedBytes<kDataChunkHeaderSize> out, uint64_t cookie, Last last,
                           ByteOffset offset, uint32_t data_length);

// REQUIRES: hole_length >= 1.
void EncodeHoleChunk(MutableFixedBytes<kHoleChunkSize> out, uint64_t cookie, Last last,
                     ByteOffset offset, uint32_t hole_length);

// Returns how many bytes of `out` the chunk takes. A message that does not fit (into `out`, or into
// the 4096 bytes that the protocol allows) is cut between characters. REQUIRES: error is not kNone;
// out has at least 26 bytes (34 with an offset).
size_t EncodeErrorChunk(MutableBytes out, uint64_t cookie, Last last, ErrorCode error,
                        std::string_view message);
size_t EncodeErrorOffsetChunk(MutableBytes out, uint64_t cookie, Last last, ErrorCode error,
                              std::string_view message, ByteOffset offset);

// The header in front of `descriptors` descriptors. REQUIRES: 1 <= descriptors <= kMaxDescriptors.
void EncodeBlockStatusHeader(MutableFixedBytes<kBlockStatusHeaderSize> out, uint64_t cookie,
                             Last last, uint32_t context_id, uint32_t descriptors);

// REQUIRES: length >= 1 (bytes).
void EncodeDescriptor(MutableFixedBytes<kDescriptorSize> out, uint32_t length, uint32_t status);

// ---- handshake

void EncodeGreeting(MutableFixedBytes<kGreetingSize> out, uint16_t server_flags);

struct OptionRequest {
  uint32_t option = 0;  // an Option, or any other number
  uint32_t length = 0;  // bytes of payload that follow
};

// nullopt if the magic is wrong.
std::optional<OptionRequest> DecodeOptionHeader(FixedBytes<kOptionHeaderSize> header);

void EncodeOptionReplyHeader(MutableFixedBytes<kOptionReplyHeaderSize> out, uint32_t option,
                             OptionReply reply, uint32_t payload_length);

}  // namespace gabion::nbd
