#include "engine/nbd/server/negotiation.h"

#include <array>
#include <cstddef>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/bytes.h"
#include "engine/base/status_macros.h"

namespace gabion::nbd {
namespace {

using Step = Handshake::Step;

// A LIST with 10,000 exports still leaves in a few sends, and a flood of options never piles up.
constexpr std::size_t kReceive = 4096;

class Deadline final : public runtime::Clock::Timer {
 public:
  Deadline(runtime::Clock& clock, io::Stream& stream, runtime::Duration timeout)
      : clock_(clock), stream_(stream) {
    clock_.Schedule(*this, clock_.Now() + timeout);
  }
  ~Deadline() { clock_.Cancel(*this); }
  void Fire() override {
    passed_ = true;
    stream_.Shutdown();
  }
  bool passed() const { return passed_; }

 private:
  runtime::Clock& clock_;
  io::Stream& stream_;
  bool passed_ = false;
};

absl::Status EndReason(const Deadline& deadline, const absl::Status& otherwise) {
  if (deadline.passed()) return absl::DeadlineExceededError("the handshake took too long");
  return otherwise;
}

Task<absl::Status> Send(io::Stream& stream, std::string& out) {
  if (out.empty()) co_return absl::OkStatus();
  const std::array<Bytes, 1> pieces = {AsBytes(out)};
  const absl::Status status = co_await stream.WriteAll(pieces);
  out.clear();
  co_return status;
}

// Part by part: a client that does not take its answer holds one part, however many exports there
// are.
Task<absl::StatusOr<Step>> SendList(Handshake& handshake, ExportDirectory& directory,
                                    io::Stream& stream, std::string& out) {
  std::vector<ListedExport> part = directory.List(nullptr);
  while (!part.empty()) {
    handshake.ProvideListPart(part, &out);
    CO_RETURN_IF_ERROR(co_await Send(stream, out));
    const std::string last = std::move(part.back().name);
    part = directory.List(&last);
  }
  co_return handshake.ProvideList({}, &out);
}

}  // namespace

Task<absl::StatusOr<NegotiationResult>> Negotiate(runtime::Reactor& reactor, io::Stream& stream,
                                                  HandshakeConfig config,
                                                  ExportDirectory& directory,
                                                  runtime::Duration timeout) {
  const Deadline deadline(reactor.clock(), stream, timeout);
  Handshake handshake(config);
  std::string out;
  handshake.Start(&out);
  std::array<std::byte, kReceive> buffer;
  Bytes input;
  Step step = Step::kContinue;
  while (true) {
    const absl::Status sent = co_await Send(stream, out);
    if (!sent.ok()) co_return EndReason(deadline, sent);
    if (step == Step::kTransmission) break;
    if (step == Step::kClose || step == Step::kDrop) {
      co_return absl::AbortedError(handshake.reason());
    }
    if (input.empty()) {
      const absl::StatusOr<std::size_t> got = co_await stream.ReadSome(buffer);
      if (!got.ok()) co_return EndReason(deadline, got.status());
      if (*got == 0) {
        co_return EndReason(deadline, absl::AbortedError("the client left during the handshake"));
      }
      input = Bytes(buffer).first(*got);
    }
    std::size_t used = 0;
    step = handshake.Consume(input, &used, &out);
    input = input.subspan(used);
    while (step == Step::kNeedExport) {
      step = handshake.ProvideExport(directory.Find(handshake.wanted_export()), &out);
    }
    if (step == Step::kNeedList) {
      const absl::StatusOr<Step> listed = co_await SendList(handshake, directory, stream, out);
      if (!listed.ok()) co_return EndReason(deadline, listed.status());
      step = *listed;
    }
    if (step == Step::kDrop) out.clear();
  }
  co_return NegotiationResult{handshake.TakeNegotiated(), std::string(AsText(input))};
}

}  // namespace gabion::nbd
