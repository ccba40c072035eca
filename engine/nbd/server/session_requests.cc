// The commands of a session. Every request passes the export's gate before it touches the disk, and
// holds its pass until the disk has answered.
#include <algorithm>
#include <utility>

#include "engine/base/align.h"
#include "engine/base/check.h"
#include "engine/nbd/protocol/errors.h"
#include "engine/nbd/server/session.h"
#include "engine/nbd/server/status_reply.h"

namespace gabion::nbd {
namespace {

// Extents that are asked of the disk at a time.
constexpr std::size_t kExtentsPerStep = 1024;

ByteRange RangeOf(const Request& request) { return Range(request.offset, request.length); }

bool Has(const Request& request, uint16_t flag) { return (request.flags & flag) != 0; }

}  // namespace

bool Session::RefuseWrite(const Request& request, uint64_t held) {
  if ((traits_.transmission_flags & kReadOnly) == 0) return false;
  ++stats_.rejected_requests;
  ReplyError(request, ErrorCode::kEperm, "the export has become read-only", held);
  return true;
}

Task<void> Session::ServeRead(Request request, uint64_t held) {
  if (request.length == 0) {
    ReplyDone(request, absl::OkStatus(), held);
    co_return;
  }
  runtime::Buffer data = environment_.buffers.Allocate(request.length);
  absl::Status status;
  {
    const runtime::Turnstile::Pass pass = co_await gate_.Enter();
    status = co_await root_.Read(RangeOf(request), data.bytes());
  }
  if (!status.ok()) {
    ReplyDone(request, status, held);
    co_return;
  }
  ReplyData(request, RangeOf(request), std::move(data), /*last=*/true, held);
}

// A read that is longer than the largest payload: one buffer at a time, each sent before the next
// is read. Each piece passes the gate by itself: whoever holds the gate must not wait for a client
// to take its replies. The pieces agree with their own bytes, whatever changes in between.
Task<void> Session::ServeLongRead(Request request, uint64_t held) {
  CHECK(traits_.structured);
  CHECK_GE(held, policy_.granule);  // no payload limit is below the minimum
  const uint64_t piece_bytes = held;
  const ByteRange whole = RangeOf(request);
  uint64_t done = 0;
  while (true) {
    const uint64_t begin = whole.offset.value + done;
    uint64_t end = whole.end().value;
    // Cut at units, also where the request is not aligned: chunks end where pieces do (S-20).
    if (end - begin > piece_bytes) end = RoundDown(begin + piece_bytes, policy_.granule);
    const uint64_t length = end - begin;
    const ByteRange piece = Range(begin, length);
    runtime::Buffer data = environment_.buffers.Allocate(length);
    absl::Status status;
    {
      const runtime::Turnstile::Pass pass = co_await gate_.Enter();
      status = co_await root_.Read(piece, data.bytes());
    }
    done += length;
    if (!status.ok()) {
      ReplyDone(request, status, held);
      co_return;
    }
    const bool last = done == whole.length.value;
    ReplyData(request, piece, std::move(data), last, last ? held : 0);
    if (last || broken_) break;
    co_await replies_.DrainPushed();
  }
  if (done < whole.length.value) ReplyDone(request, absl::AbortedError("connection lost"), held);
}

Task<void> Session::ServeWrite(Request request, runtime::Buffer payload, uint64_t held) {
  absl::Status status;
  {
    const runtime::Turnstile::Pass pass = co_await gate_.Enter();
    if (RefuseWrite(request, held)) co_return;
    const block::WriteOptions options{.durable = Has(request, kFlagFua)};
    status = co_await root_.Write(RangeOf(request), payload.bytes(), options);
  }
  ReplyDone(request, status, held);
}

Task<void> Session::ServeZeroes(Request request) {
  absl::Status status;
  {
    const runtime::Turnstile::Pass pass = co_await gate_.Enter();
    if (RefuseWrite(request, 0)) co_return;
    const block::ZeroOptions options{.durable = Has(request, kFlagFua),
                                     .may_unmap = !Has(request, kFlagNoHole),
                                     .fast_only = Has(request, kFlagFastZero)};
    status = co_await root_.Zero(RangeOf(request), options);
  }
  ReplyDone(request, status, 0);
}

Task<void> Session::ServeTrim(Request request) {
  absl::Status status;
  {
    const runtime::Turnstile::Pass pass = co_await gate_.Enter();
    if (RefuseWrite(request, 0)) co_return;
    status = co_await root_.Discard(RangeOf(request));
    if (status.ok() && Has(request, kFlagFua)) status = co_await root_.Flush();
  }
  ReplyDone(request, status, 0);
}

Task<void> Session::ServeFlush(Request request) {
  absl::Status status;
  {
    const runtime::Turnstile::Pass pass = co_await gate_.Enter();
    status = co_await root_.Flush();
  }
  ReplyDone(request, status, 0);
}

Task<void> Session::ServeCache(Request request) {
  absl::Status status;
  {
    const runtime::Turnstile::Pass pass = co_await gate_.Enter();
    status = co_await root_.Cache(RangeOf(request));
  }
  ReplyDone(request, status, 0);
}

Task<void> Session::ServeBlockStatus(Request request, uint64_t held) {
  const block::Limits& limits = root_.limits();
  const StatusRequest wanted{.range = RangeOf(request), .one = Has(request, kFlagReqOne)};
  const StatusOptions options{.granule = ByteCount{policy_.granule},
                              .export_size = traits_.size,
                              .content_size = std::min(traits_.size, limits.content_size()),
                              .layers = limits.layers,
                              .most_descriptors = limits_.max_descriptors};
  StatusPlan plan(wanted, options, operators_);
  {
    // One pass for the whole walk: all contexts come from one version of the disk's tree.
    const runtime::Turnstile::Pass pass = co_await gate_.Enter();
    while (!plan.done()) {
      absl::StatusOr<block::ExtentList> extents =
          co_await root_.BlockStatus(plan.wanted(), kExtentsPerStep);
      if (extents.ok()) {
        plan.Feed(*extents);
      } else {
        plan.FeedUnknown();
      }
    }
  }
  for (std::size_t i = 0; i < operators_.size(); ++i) {
    if (plan.has_answer(i)) continue;
    ReplyError(request, ErrorCode::kEio,
               negotiated_.meta_contexts[i].name + ": the status of this range is not known", held);
    co_return;
  }
  ReplyStatus(request, plan, held);
}

}  // namespace gabion::nbd
