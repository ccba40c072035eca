// Whether a request may be served: the rules of the transmission phase, before any disk is touched.
// Pure functions: any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/base/units.h"
#include "engine/nbd/protocol/codec.h"
#include "engine/nbd/protocol/wire.h"

namespace gabion::nbd {

// What is in force on one connection, as negotiated and resolved from the export's policy.
struct SessionTraits {
  ByteCount size;
  // What the client was told (TransmissionFlags()): what was not advertised is refused.
  uint16_t transmission_flags = 0;
  // The longest payload of a WRITE, and of a READ whose reply is in one piece, in bytes; see
  // PayloadLimit().
  uint32_t maximum_payload = 32 * kMiB;
  // Offset and length of every request must be multiples of this power of two; 1 where unaligned
  // requests are served by read-modify-write. It divides `size`.
  uint32_t required_alignment = 1;
  bool structured = false;        // structured replies were negotiated
  bool has_meta_context = false;  // at least one metadata context is selected
};

// The payload of a WRITE that may not be served is received and thrown away up to this many bytes;
// beyond, the connection is not worth it.
inline constexpr uint32_t kMaxDiscardedPayload = 64 * kMiB;

struct Verdict {
  enum class Action {
    kServe,   // do it (NBD_CMD_DISC too)
    kRefuse,  // answer `error` with `message`, and go on
    kHangUp,  // the stream cannot be kept in step: close; `message` is for the log
  };
  Action action = Action::kServe;
  ErrorCode error = ErrorCode::kNone;
  std::string message;  // names what is wrong, with offset and length
  uint32_t payload_bytes =
      0;  // bytes that follow the header on the wire, to be received whether served or not

  bool ok() const { return action == Action::kServe; }
};

// The limit for SessionTraits. A client that did not ask for block sizes is not bound by an
// advertised maximum below the protocol's default of 32 MiB; one that asked is.
uint32_t PayloadLimit(uint32_t advertised_maximum, bool block_sizes_requested);

// Length 0 is a success without effect, except for BLOCK_STATUS. Where several rules are broken,
// the first of these answers: read-only, not advertised, flags, size of the payload, range,
// alignment.
Verdict ValidateRequest(const Request& request, const SessionTraits& session);

// For messages: "WRITE_ZEROES"; "command 77" for a number without a name.
std::string CommandName(uint16_t command);

}  // namespace gabion::nbd
