#include "engine/nbd/server/session.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/bytes.h"
#include "engine/base/check.h"
#include "engine/nbd/protocol/codec.h"
#include "engine/nbd/protocol/errors.h"

namespace gabion::nbd {
namespace {

// Holds a burst of small requests, and what a socket delivers in one call.
constexpr std::size_t kReceiveBuffer = 64 * kKiB;

// A write with more payload than this is likely to be followed by another: then only a little is
// received together with the header, so that the payload goes straight into its buffer instead of
// through this one.
constexpr uint32_t kLongPayload = 16 * kKiB;
constexpr std::size_t kShortReceive = 512;

block::MergeOperator OperatorOf(const MetaContext& context) {
  if (context.name == kAllocationDepth) return block::MergeOperator::kDepthMin;
  if (context.name == kAllocationDepthMax) return block::MergeOperator::kDepthMax;
  CHECK(context.name == kBaseAllocation);  // exports offer no other
  return block::MergeOperator::kAllocation;
}

SessionTraits TraitsOf(const Negotiated& negotiated, const SessionPolicy& policy) {
  // A limit of "none" is still bounded by what a connection may hold.
  const uint32_t payload = PayloadLimit(negotiated.exported.block_sizes.maximum_payload,
                                        negotiated.block_sizes_requested);
  return SessionTraits{.size = negotiated.exported.traits.size,
                       .transmission_flags = negotiated.transmission_flags,
                       .maximum_payload = std::min(payload, kMaxDiscardedPayload),
                       .required_alignment = policy.required_alignment,
                       .structured = negotiated.structured,
                       .has_meta_context = !negotiated.meta_contexts.empty()};
}

}  // namespace

// Ends a closing connection whose client does not take its last replies. A disk that is slow to
// answer is not the client's fault: only time in which replies wait to be taken counts.
class Session::CloseTimer final : public runtime::Clock::Timer {
 public:
  explicit CloseTimer(Session& session)
      : session_(session), clock_(session.environment_.reactor.clock()) {
    Arm();
  }
  ~CloseTimer() { clock_.Cancel(*this); }

  void Fire() override {
    if (!session_.replies_.idle() && session_.replies_sent_ == replies_sent_) {
      session_.stream_->Shutdown();
    } else {
      Arm();
    }
  }

 private:
  void Arm() {
    replies_sent_ = session_.replies_sent_;
    clock_.Schedule(*this, clock_.Now() + session_.limits_.close_timeout);
  }

  Session& session_;
  runtime::Clock& clock_;
  uint64_t replies_sent_ = 0;
};

// Closes a connection that is being shut down.
class Session::ShutdownTimer final : public runtime::Clock::Timer {
 public:
  explicit ShutdownTimer(Session& session)
      : session_(session), clock_(session.environment_.reactor.clock()) {
    clock_.Schedule(*this, clock_.Now() + session_.limits_.shutdown_time);
  }
  ~ShutdownTimer() { clock_.Cancel(*this); }

  void Fire() override { session_.Close(); }

 private:
  Session& session_;
  runtime::Clock& clock_;
};

Session::Session(const SessionEnvironment& environment, const SessionLimits& limits,
                 const SessionPolicy& policy, Negotiated negotiated, block::Node& root,
                 runtime::Turnstile& gate, std::unique_ptr<io::Stream> stream)
    : environment_(environment),
      limits_(limits),
      policy_(policy),
      negotiated_(std::move(negotiated)),
      traits_(TraitsOf(negotiated_, policy)),
      root_(root),
      gate_(gate),
      stream_(std::move(stream)),
      received_(kReceiveBuffer),
      replies_(environment.reactor, *stream_, *this),
      requests_(environment.reactor.ready()),
      freed_(environment.reactor.ready()) {
  CHECK(IsMultiple(traits_.size.value, policy.granule));  // invariant I2 of the block sizes
  for (const MetaContext& context : negotiated_.meta_contexts) {
    operators_.push_back(OperatorOf(context));
  }
}

Session::~Session() = default;

Task<void> Session::Run(std::string leftover) {
  while (received_.size() < leftover.size()) received_.resize(received_.size() * 2);
  std::memcpy(received_.data(), leftover.data(), leftover.size());
  end_ = leftover.size();
  while (!closing_) {
    const bool in_step = co_await StartReceivedRequests();
    if (!in_step) break;
    // Lets this turn end, and so its replies leave, before more is taken in.
    co_await environment_.reactor.ready().Yield();
    if (closing_) break;
    const bool received = co_await Receive();
    if (!received) break;
  }
  Close();
  co_await requests_.Drain();
  co_await replies_.Drain();
  stream_->Shutdown();
  close_timer_.reset();
  shutdown_timer_.reset();
}

void Session::BeginShutdown() {
  if (closing_ || shutdown_timer_ != nullptr) return;
  shutdown_timer_ = std::make_unique<ShutdownTimer>(*this);
}

void Session::Close() {
  if (closing_) return;
  closing_ = true;
  stream_->ShutdownRead();
  close_timer_ = std::make_unique<CloseTimer>(*this);
  freed_.WakeAll();
  environment_.budget.Nudge();
}

void Session::SetReadOnly() { traits_.transmission_flags |= kReadOnly; }

void Session::OnReplySent(uint64_t held_bytes, bool completes) {
  if (held_bytes > 0) {
    bytes_in_flight_ -= held_bytes;
    environment_.budget.Give(held_bytes, bytes_in_flight_);
  }
  if (completes) --in_flight_;
  ++replies_sent_;
  freed_.WakeAll();
}

void Session::OnSendFailed(const absl::Status& status) {
  environment_.logger.Log(LogLevel::kDebug, "nbd",
                          absl::StrCat(peer(), ": connection lost: ", status.message()));
  broken_ = true;
  stream_->Shutdown();
  environment_.budget.Nudge();
}

Task<bool> Session::Receive() {
  if (begin_ > 0) {
    std::memmove(received_.data(), received_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  MutableBytes room = MutableBytes(received_).subspan(end_);
  CHECK(!room.empty());  // less than one header is left over
  if (expect_long_payload_) room = room.first(std::min(room.size(), kShortReceive));
  const absl::StatusOr<std::size_t> got = co_await stream_->ReadSome(room);
  if (!got.ok() || *got == 0) co_return false;
  end_ += *got;
  co_return true;
}

Task<bool> Session::StartReceivedRequests() {
  while (end_ - begin_ >= kRequestSize && !closing_) {
    const Bytes header = Bytes(received_).subspan(begin_, kRequestSize);
    const std::optional<Request> request = DecodeRequestHeader(header.first<kRequestSize>());
    if (!request.has_value()) {
      environment_.logger.Log(LogLevel::kWarning, "nbd",
                              absl::StrCat(peer(), ": wrong request magic, hanging up"));
      co_return false;
    }
    begin_ += kRequestSize;
    if (request->Is(Command::kDisconnect)) co_return false;
    const Verdict verdict = Judge(*request);
    Count(*request, verdict);
    if (verdict.action == Verdict::Action::kHangUp) {
      environment_.logger.Log(LogLevel::kWarning, "nbd",
                              absl::StrCat(peer(), ": ", verdict.message, ", hanging up"));
      co_return false;
    }
    if (StartAtOnce(*request, verdict)) continue;
    const bool alive = co_await StartWhenPossible(*request, verdict);
    if (!alive) co_return false;
  }
  co_return true;
}

Verdict Session::Judge(const Request& request) const {
  Verdict verdict = ValidateRequest(request, traits_);
  if (shutdown_timer_ != nullptr && verdict.action != Verdict::Action::kHangUp) {
    verdict.action = Verdict::Action::kRefuse;  // its payload is still to be skipped
    verdict.error = ErrorCode::kEshutdown;
    verdict.message = "the export is being shut down";
  }
  return verdict;
}

void Session::Count(const Request& request, const Verdict& verdict) {
  if (!request.Is(Command::kFlush) &&
      !IsMultiple(request.offset | request.length, policy_.granule)) {
    ++stats_.unaligned_requests;
  }
  if (!verdict.ok()) ++stats_.rejected_requests;
  expect_long_payload_ = verdict.payload_bytes >= kLongPayload;
}

// How many bytes of payload a request makes us hold at a time.
uint64_t Session::HeldBytes(const Request& request, const Verdict& verdict) const {
  if (request.Is(Command::kBlockStatus)) {
    const uint64_t units = request.length / uint64_t{policy_.granule} + 2;
    const uint64_t most = (request.flags & kFlagReqOne) != 0 ? 1 : limits_.max_descriptors;
    return std::min(units, most) * kDescriptorSize * operators_.size();
  }
  if (!request.Is(Command::kRead)) return verdict.payload_bytes;
  return std::min<uint64_t>(request.length, traits_.maximum_payload);
}

bool Session::HasRoom(uint64_t bytes) const {
  return in_flight_ < limits_.max_requests_in_flight &&
         (bytes_in_flight_ == 0 || bytes_in_flight_ + bytes <= limits_.max_bytes_in_flight);
}

// The common case without a coroutine of its own: nothing to wait for.
bool Session::StartAtOnce(const Request& request, const Verdict& verdict) {
  if (!verdict.ok() || verdict.payload_bytes > end_ - begin_) return false;
  const uint64_t held = HeldBytes(request, verdict);
  if (!HasRoom(held) || !environment_.budget.TryTake(held, bytes_in_flight_)) return false;
  ++in_flight_;
  bytes_in_flight_ += held;
  runtime::Buffer payload;
  if (verdict.payload_bytes > 0) {
    payload = environment_.buffers.Allocate(verdict.payload_bytes);
    std::memcpy(payload.bytes().data(), received_.data() + begin_, payload.size());
    begin_ += payload.size();
  }
  Start(request, std::move(payload), held);
  return true;
}

// Takes `held` bytes of the budget when they, and a slot, are there. False if the connection ends
// first: the bytes may be held by other connections, for as long as their clients like.
Task<bool> Session::WaitForRoom(uint64_t held) {
  while (!broken_ && !closing_) {
    if (!HasRoom(held)) {
      co_await freed_.Wait();
    } else if (environment_.budget.TryTake(held, bytes_in_flight_)) {
      co_return true;
    } else {
      co_await environment_.budget.Changed();
    }
  }
  co_return false;
}

Task<bool> Session::StartWhenPossible(Request request, Verdict verdict) {
  const uint64_t held = verdict.ok() ? HeldBytes(request, verdict) : 0;
  const bool has_room = co_await WaitForRoom(held);
  if (!has_room) co_return false;
  ++in_flight_;
  bytes_in_flight_ += held;
  bool received = false;
  if (!verdict.ok()) {
    received = co_await DiscardPayload(verdict.payload_bytes);
    if (received) co_return Refuse(request, verdict);
  }
  runtime::Buffer payload;
  if (verdict.ok()) {
    payload = environment_.buffers.Allocate(verdict.payload_bytes);
    received = co_await ReceivePayload(payload.bytes());
  }
  if (!received) {
    OnReplySent(held, true);
    co_return false;
  }
  Start(request, std::move(payload), held);
  co_return true;
}

Task<bool> Session::ReceivePayload(MutableBytes into) {
  const std::size_t at_hand = std::min(into.size(), end_ - begin_);
  std::memcpy(into.data(), received_.data() + begin_, at_hand);
  begin_ += at_hand;
  into = into.subspan(at_hand);
  while (!into.empty()) {
    const absl::StatusOr<std::size_t> got = co_await stream_->ReadSome(into);
    if (!got.ok() || *got == 0) co_return false;
    into = into.subspan(*got);
  }
  co_return true;
}

Task<bool> Session::DiscardPayload(uint64_t length) {
  expect_long_payload_ = false;  // it goes nowhere: take as much as fits at a time
  while (length > 0) {
    if (begin_ == end_) {
      const bool received = co_await Receive();
      if (!received) co_return false;
    }
    const std::size_t at_hand = std::min<uint64_t>(length, end_ - begin_);
    begin_ += at_hand;
    length -= at_hand;
  }
  co_return true;
}

// False if the connection's budget of violations is spent.
bool Session::Refuse(const Request& request, const Verdict& verdict) {
  ReplyError(request, verdict.error, verdict.message, 0);
  if (verdict.error == ErrorCode::kEshutdown) return true;
  const bool misaligned = !request.Is(Command::kFlush) &&
                          !IsMultiple(request.offset | request.length, policy_.required_alignment);
  if (!misaligned || !policy_.disconnect_violators) return true;
  if (++violations_ <= policy_.violation_budget) return true;
  environment_.logger.Log(LogLevel::kWarning, "nbd",
                          absl::StrCat(peer(), ": more than ", policy_.violation_budget,
                                       " misaligned requests, hanging up: ", verdict.message));
  return false;
}

void Session::Start(const Request& request, runtime::Buffer payload, uint64_t held) {
  switch (static_cast<Command>(request.command)) {
    case Command::kRead:
      if (request.length <= held) return requests_.Add(ServeRead(request, held));
      return requests_.Add(ServeLongRead(request, held));
    case Command::kWrite:
      return requests_.Add(ServeWrite(request, std::move(payload), held));
    case Command::kFlush:
      return requests_.Add(ServeFlush(request));
    case Command::kTrim:
      return requests_.Add(ServeTrim(request));
    case Command::kCache:
      return requests_.Add(ServeCache(request));
    case Command::kWriteZeroes:
      return requests_.Add(ServeZeroes(request));
    case Command::kBlockStatus:
      return requests_.Add(ServeBlockStatus(request, held));
    case Command::kDisconnect:
      break;
  }
  CHECK(false);  // ValidateRequest() lets no other command through
}

}  // namespace gabion::nbd
