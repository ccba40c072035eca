// How failures get onto the wire: the one place where an absl::Status becomes an NBD error. Pure
// functions: any thread.
#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "engine/nbd/protocol/wire.h"

namespace gabion::nbd {

// Whether the request that failed carried FAST_ZERO.
enum class FastZero : bool { kNo = false, kYes = true };

// kNone for an OK status. ENOTSUP promises a client that a plain WRITE would have been as good, so
// only a FAST_ZERO request may get it; elsewhere UNIMPLEMENTED is EINVAL. ENOMEM is never sent: the
// protocol discourages it.
ErrorCode ErrorCodeOf(const absl::Status& status, FastZero fast_zero = FastZero::kNo);

// For messages: "NBD_EINVAL"; "NBD error" for a number without a name.
std::string_view ErrorName(ErrorCode error);

}  // namespace gabion::nbd
