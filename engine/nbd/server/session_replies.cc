// What a session answers, as bytes.
#include <utility>

#include "engine/base/text.h"
#include "engine/nbd/protocol/codec.h"
#include "engine/nbd/protocol/errors.h"
#include "engine/nbd/server/read_reply.h"
#include "engine/nbd/server/session.h"

namespace gabion::nbd {
namespace {

Bytes HeadOf(const Reply& reply, std::size_t length) { return Bytes(reply.head).first(length); }

template <std::size_t N>
MutableFixedBytes<N> Take(MutableBytes& room) {
  const MutableFixedBytes<N> taken = room.first<N>();
  room = room.subspan(N);
  return taken;
}

}  // namespace

void Session::ReplyDone(const Request& request, const absl::Status& status, uint64_t held) {
  if (!status.ok()) {
    const bool fast_zero =
        request.Is(Command::kWriteZeroes) && (request.flags & kFlagFastZero) != 0;
    const ErrorCode error = ErrorCodeOf(status, FastZero{fast_zero});
    ReplyError(request, error, AsStd(status.message()), held);
    return;
  }
  Reply& reply = replies_.New();
  if (traits_.structured && request.Is(Command::kRead)) {
    EncodeNoneChunk(MutableBytes(reply.head).first<kChunkHeaderSize>(), request.cookie);
    reply.pieces.push_back(HeadOf(reply, kChunkHeaderSize));
  } else {
    EncodeSimpleReply(MutableBytes(reply.head).first<kSimpleReplySize>(), request.cookie,
                      ErrorCode::kNone);
    reply.pieces.push_back(HeadOf(reply, kSimpleReplySize));
  }
  reply.held_bytes = held;
  reply.completes = true;
  replies_.Push(reply);
}

void Session::ReplyError(const Request& request, ErrorCode error, std::string_view message,
                         uint64_t held) {
  Reply& reply = replies_.New();
  if (traits_.structured) {
    constexpr std::size_t kRoom = 512;  // of a longer message, the beginning
    reply.heads = environment_.buffers.Allocate(kRoom);
    const std::size_t length =
        EncodeErrorChunk(reply.heads.bytes(), request.cookie, Last::kYes, error, message);
    reply.pieces.push_back(reply.heads.bytes().first(length));
  } else {
    EncodeSimpleReply(MutableBytes(reply.head).first<kSimpleReplySize>(), request.cookie, error);
    reply.pieces.push_back(HeadOf(reply, kSimpleReplySize));
  }
  reply.held_bytes = held;
  reply.completes = true;
  replies_.Push(reply);
}

// `data` holds the bytes of `range`, which is not empty.
void Session::ReplyData(const Request& request, ByteRange range, runtime::Buffer data, bool last,
                        uint64_t held) {
  Reply& reply = replies_.New();
  reply.payload = std::move(data);
  reply.held_bytes = held;
  reply.completes = last;
  const Bytes content = reply.payload.bytes();
  if (!traits_.structured) {
    EncodeSimpleReply(MutableBytes(reply.head).first<kSimpleReplySize>(), request.cookie,
                      ErrorCode::kNone);
    reply.pieces.push_back(HeadOf(reply, kSimpleReplySize));
    reply.pieces.push_back(content);
    replies_.Push(reply);
    return;
  }
  AppendReadChunks(reply, request, range, last);
  replies_.Push(reply);
}

void Session::AppendReadChunks(Reply& reply, const Request& request, ByteRange range, bool last) {
  const ReadReplyOptions options{
      .granule = ByteCount{policy_.granule},
      .maximum_payload = ByteCount{traits_.maximum_payload},
      .one_chunk = (request.flags & kFlagDf) != 0 || !negotiated_.exported.traits.shows_holes};
  PlanReadChunks(range.offset, reply.payload.bytes(), options, chunks_);
  MutableBytes room = reply.head;
  const std::size_t needed = chunks_.size() * kHoleChunkSize;  // the larger of the two headers
  if (needed > room.size()) {
    reply.heads = environment_.buffers.Allocate(needed);
    room = reply.heads.bytes();
  }
  for (const ReadChunk& chunk : chunks_) {
    const Last final_chunk{last && &chunk == &chunks_.back()};
    const auto length = static_cast<uint32_t>(chunk.range.length.value);
    if (chunk.hole) {
      const auto head = Take<kHoleChunkSize>(room);
      EncodeHoleChunk(head, request.cookie, final_chunk, chunk.range.offset, length);
      reply.pieces.push_back(head);
    } else {
      const auto head = Take<kDataChunkHeaderSize>(room);
      EncodeDataChunkHeader(head, request.cookie, final_chunk, chunk.range.offset, length);
      const uint64_t begin = (chunk.range.offset - range.offset).value;
      reply.pieces.push_back(head);
      reply.pieces.push_back(Bytes(reply.payload.bytes()).subspan(begin, length));
    }
  }
}

// One chunk per selected context, in the order of the negotiation.
void Session::ReplyStatus(const Request& request, const StatusPlan& plan, uint64_t held) {
  const std::size_t contexts = negotiated_.meta_contexts.size();
  for (std::size_t i = 0; i < contexts; ++i) {
    descriptors_.clear();
    plan.AppendDescriptors(i, descriptors_);
    const std::size_t length = kBlockStatusHeaderSize + descriptors_.size() * kDescriptorSize;
    const bool last = i + 1 == contexts;
    Reply& reply = replies_.New();
    reply.payload = environment_.buffers.Allocate(length);
    MutableBytes room = reply.payload.bytes();
    EncodeBlockStatusHeader(Take<kBlockStatusHeaderSize>(room), request.cookie, Last{last},
                            negotiated_.meta_contexts[i].id,
                            static_cast<uint32_t>(descriptors_.size()));
    for (const StatusDescriptor& descriptor : descriptors_) {
      EncodeDescriptor(Take<kDescriptorSize>(room), static_cast<uint32_t>(descriptor.length),
                       static_cast<uint32_t>(descriptor.status));
    }
    reply.pieces.push_back(Bytes(reply.payload.bytes()));
    reply.held_bytes = last ? held : 0;
    reply.completes = last;
    replies_.Push(reply);
  }
}

}  // namespace gabion::nbd
