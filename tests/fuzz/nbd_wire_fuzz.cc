// Fuzz target: what an NBD client can send. The input is a client's side of a whole connection: the
// handshake, cut into pieces whose size is the first byte, then requests.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engine/base/bytes.h"
#include "engine/base/check.h"
#include "engine/nbd/protocol/request.h"
#include "tests/engine/nbd/protocol/handshake_testing.h"

namespace gabion::nbd {
namespace {

using testing::HandshakeRunner;
using Step = Handshake::Step;

constexpr size_t kLargestAnswer = 64 * kKiB;  // to one option, with the few exports that there are

// Requests up to the first that ends the connection.
void TryRequests(std::string_view bytes, const SessionTraits& session) {
  while (bytes.size() >= kRequestSize) {
    const auto header = AsBytes(bytes).first<kRequestSize>();
    const auto request = DecodeRequestHeader(header);
    if (!request) return;
    bytes.remove_prefix(kRequestSize);
    const Verdict verdict = ValidateRequest(*request, session);
    if (verdict.action == Verdict::Action::kHangUp) return;
    CHECK(verdict.payload_bytes <= kMaxDiscardedPayload);
    CHECK(verdict.ok() == verdict.message.empty());
    if (verdict.ok() && !request->Is(Command::kDisconnect)) {
      CHECK(request->RangeWithin(session.size).has_value());
    }
    bytes.remove_prefix(std::min<size_t>(bytes.size(), verdict.payload_bytes));
  }
}

void TryConnection(std::string_view bytes) {
  const size_t piece = bytes.empty() ? 1 : 1 + static_cast<unsigned char>(bytes[0]);
  if (!bytes.empty()) bytes.remove_prefix(1);
  HandshakeRunner runner;
  for (size_t at = 0; at < bytes.size() && runner.step() == Step::kContinue; at += piece) {
    runner.Feed(bytes.substr(at, piece));
  }
  CHECK(runner.used() <= bytes.size());
  CHECK(runner.peak() <= kLargestAnswer);
  if (runner.step() != Step::kTransmission) return;
  const Negotiated negotiated = runner.handshake().TakeNegotiated();
  SessionTraits session;
  session.size = negotiated.exported.traits.size;
  session.transmission_flags = negotiated.transmission_flags;
  session.structured = negotiated.structured;
  session.has_meta_context = !negotiated.meta_contexts.empty();
  TryRequests(bytes.substr(runner.used()), session);
}

}  // namespace
}  // namespace gabion::nbd

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  gabion::nbd::TryConnection({reinterpret_cast<const char*>(data), size});
  return 0;
}
