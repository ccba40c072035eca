// What a node can do, fixed when it was opened (only the size may grow).
#pragma once

#include <cstdint>
#include <string>

#include "engine/base/units.h"

namespace gabion::block {

// What an NBD server may tell its clients that it can do, as bits of a set.
enum class Feature : uint8_t { kTrim, kZero, kFastZero, kFua, kHoles, kMultiConn, kCache };
using FeatureSet = uint8_t;  // bit 1 << Feature
constexpr FeatureSet Bit(Feature feature) {
  return static_cast<FeatureSet>(1U << static_cast<unsigned>(feature));
}

struct Limits {
  // Exact size of the disk in bytes; a multiple of nothing in particular.
  ByteCount size;

  // Requests must start and end on multiples of this power of two; an end at `size` counts as one.
  // 1 to 65,536 for what may reach an export; AlignedNode lowers it to 1 by read-modify-write.
  ByteCount alignment{1};
  // Best request size, a power of two, or 0 for no opinion.
  ByteCount preferred{0};
  // Who asked for `alignment` and `preferred`: the name of an image, or the id of a stack entry;
  // empty if nobody did.
  std::string alignment_from;
  std::string preferred_from;

  // The largest alignment that an AlignedNode below has made finer, and who had asked for it: what
  // clients had better keep to, so that nobody has to read, change and write back. 1: none.
  ByteCount emulated_alignment{1};
  std::string emulated_from;

  // Buffers of Read() and Write() must start on a multiple of this power of two in memory: 1, or
  // more for files that bypass the page cache. AlignedNode lowers it to 1 by copying.
  uint32_t memory_alignment = 1;

  // How many of the last bytes of `size` are padding: in no image, read as zeros. Only TailNode
  // makes padding. Whoever merges block status asks for the bytes before content_size() only and
  // counts padding as the identity of every merge operator (status rule S-27).
  ByteCount padding{0};

  // Number of layers in the chain that can hold allocation, at least 1: `n` of the status rules.
  uint32_t layers = 1;

  bool writable = false;
  // Zero() can be done without writing the zeros, so that it beats a write of the range.
  bool fast_zero = false;
  // What clients are not to be told of. kHoles: nor of what reads as zeros without being data.
  FeatureSet hidden = 0;

  // Where the bytes of the image end and padding begins.
  ByteCount content_size() const { return size - padding; }
};

}  // namespace gabion::block
