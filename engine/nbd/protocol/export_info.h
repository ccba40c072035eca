// What the protocol has to know of an export. Plain values, owned by whoever holds them: any
// thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/base/units.h"

namespace gabion::nbd {

// The three sizes that NBD_INFO_BLOCK_SIZE tells, in bytes.
// INVARIANT (of whoever makes them): minimum and preferred are powers of two, 1 <= minimum <=
// 65,536, max(512, minimum) <= preferred <= maximum_payload, and maximum_payload is a multiple of
// minimum or 2^32 - 1.
struct BlockSizes {
  uint32_t minimum = 1;
  uint32_t preferred = 4096;
  uint32_t maximum_payload = 32 * kMiB;  // 2^32 - 1: no limit
  friend bool operator==(const BlockSizes&, const BlockSizes&) = default;
};

// What an export can do.
struct ExportTraits {
  ByteCount size;  // a multiple of the advertised minimum
  bool read_only = false;
  bool rotational = false;  // a hint for the client's scheduler
  bool multi_conn = true;   // FLUSH and FUA hold across connections
  bool can_trim = true;     // these three: told to clients of a writable export only
  bool can_zero = true;
  bool can_fast_zero = true;  // only together with can_zero
  bool can_cache = true;
  bool can_fua = true;
  bool shows_holes = true;  // false: replies to READ have no holes
};

// An export as the handshake tells it to a client.
struct ExportInfo {
  // Canonical name and human text, UTF-8 without NUL, at most 4096 bytes each; longer ones are cut.
  std::string name;
  std::string description;
  ExportTraits traits;
  BlockSizes block_sizes;
  // Names of the metadata contexts that a client may select, such as "base:allocation"; no
  // duplicates.
  std::vector<std::string> meta_contexts;
  // Clients that do not ask for NBD_INFO_BLOCK_SIZE are turned away.
  bool refuse_silent_clients = false;
};

// An entry of the answer to NBD_OPT_LIST; strings as in ExportInfo, but an entry whose name is too
// long is left out.
struct ListedExport {
  std::string name;
  std::string description;
};

// The transmission flags to advertise. `structured`: structured replies were negotiated, which DF
// needs.
uint16_t TransmissionFlags(const ExportTraits& traits, bool structured);

}  // namespace gabion::nbd
