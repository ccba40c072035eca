// Checks what is read against checksums that are known beforehand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/units.h"
#include "engine/block/node.h"
#include "engine/filters/filter.h"
#include "engine/runtime/task.h"

namespace gabion::filters {

// Computes checksums, here or on another thread. Used on the shard of the filters; outlives them.
class BlockHash {
 public:
  virtual ~BlockHash() = default;
  // Length of each, 4 for CRC32C, 32 for SHA-256; at most kLongestDigest.
  virtual std::size_t digest_bytes() const = 0;
  // Puts the checksum of `block` into `digest`, of that length. Both stay valid until it is done.
  virtual Task<void> Hash(Bytes block, MutableBytes digest) = 0;

  static constexpr std::size_t kLongestDigest = 64;

 protected:
  BlockHash() = default;
};

// The checksums of all blocks of a disk, in order; the last block may be short.
struct Manifest {
  ByteCount size;           // of the disk
  uint32_t block_size = 0;  // bytes; a power of two, 512 to 1 MiB
  std::vector<std::byte> digests;
};

struct ManifestOptions {
  // The log says so, at most every 10 seconds, and the read gives what was there; else it fails.
  bool report_only = false;
  friend bool operator==(const ManifestOptions&, const ManifestOptions&) = default;
};

// Reads read whole blocks, and give no byte of a block whose checksum is another: that is
// kDataLoss, with the block named. limits().writable is false, the size that of the manifest if the
// child's is larger; preferred is at least the block size, from `entry_id`. Status: the child's.
// Statistics: checked_bytes, mismatches.
//
// REQUIRES: the child's alignment is 1, its size not below the manifest's, and the manifest has one
// digest of `hash` for each block. `manifest` and `hash` outlive the filter.
std::unique_ptr<LiveFilter<ManifestOptions>> NewManifestCheck(
    block::Node& child, Environment environment, const std::string& entry_id,
    const Manifest& manifest, BlockHash& hash, const ManifestOptions& options);

}  // namespace gabion::filters
