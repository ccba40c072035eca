// Which chunks a structured reply to READ consists of. Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/base/units.h"

namespace gabion::nbd {

// A part of the reply: bytes, or a hole that reads as zeros.
struct ReadChunk {
  ByteRange range;
  bool hole = false;
  friend bool operator==(const ReadChunk&, const ReadChunk&) = default;
};

struct ReadReplyOptions {
  ByteCount granule{1};                // the export's minimum block size
  ByteCount maximum_payload{1 << 25};  // of one chunk; a multiple of the granule
  bool one_chunk = false;              // NBD_CMD_FLAG_DF
};

// Sets `chunks` to what the reply for `data`, read from `offset`, consists of: in order, without
// gaps, covering all of it. Holes are found in the bytes that were read and in nothing else, so
// that a chunk never disagrees with its content, whatever is written meanwhile (status rules S-8,
// S-19). Boundaries inside the request are multiples of the granule and of 512 (S-20). Zeros become
// a hole if they are at least max(granule, 4096) bytes, or, as the first or last run of the
// request, at least max(granule, 512) bytes (S-21); a hole chunk costs more than shorter zeros.
// With `one_chunk` the answer is one chunk of data (S-22).
void PlanReadChunks(ByteOffset offset, Bytes data, const ReadReplyOptions& options,
                    std::vector<ReadChunk>& chunks);

}  // namespace gabion::nbd
