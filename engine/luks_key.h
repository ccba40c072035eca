// Opens LUKS volumes: from a header on a disk and a passphrase to the key of the data.
#pragma once

#include <atomic>

#include "absl/status/statusor.h"
#include "engine/base/secret.h"
#include "engine/block/node.h"
#include "engine/filters/luks.h"
#include "engine/luks_metadata.h"
#include "engine/runtime/task.h"
#include "engine/runtime/worker_pool.h"

namespace gabion::engine {

// The volume that begins where `disk` does, LUKS1 or LUKS2. Reads the header and the key slots into
// memory, bounds.header at most, and changes nothing.
//
// Takes seconds and much memory, as whoever made the key slots wanted it; no more than `bounds`.
// `workers` belong to a pool of one thread: the library has state that all of the process shares,
// and derivations together must not take more memory than one.
//
// kInvalidArgument: no LUKS header; kDataLoss: a damaged one; kPermissionDenied: the wrong
// passphrase; kUnimplemented: a cipher, integrity protection, a detached header, unfinished
// reencryption, with its name; kResourceExhausted: beyond `bounds`; and whatever reading fails
// with. No message has the passphrase or a key.
// kUnavailable once `closing`: a derivation that has begun is finished, and no other one is begun.
// REQUIRES: the disk's alignment and memory_alignment are 1.
Task<absl::StatusOr<filters::LuksVolume>> OpenLuks(block::Node& disk, Secret passphrase,
                                                   runtime::Workers& workers, LuksBounds bounds,
                                                   const std::atomic<bool>& closing);

}  // namespace gabion::engine
