// What a session answers, as bytes.
#include <utility>

#include "engine/base/check.h"
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

}  // namespace gabion::nbd
