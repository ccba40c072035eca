// GUID partition tables (UEFI 2.10, section 5.3). Pure.
//
// The header, at sector 1 and, as a backup, in the last sector (little-endian):
//   0..7     "EFI PART"
//   8..11    revision, 0x00010000
//   12..15   bytes of the header, 92 to a sector
//   16..19   CRC-32 of the header, with zeros in its own place
//   24..31   the sector that this header is in
//   32..39   the sector of the other one
//   40..47   first sector that partitions may use
//   48..55   last one
//   72..79   first sector of the entries
//   80..83   number of entries
//   84..87   bytes of an entry: 128 times a power of two
//   88..91   CRC-32 of all entries
// An entry:
//   0..15    type; zeros: the entry is unused
//   32..39   first sector
//   40..47   last sector, included
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "engine/base/units.h"

namespace gabion::partitions {

// More entries, or larger ones, are taken for damage.
inline constexpr uint32_t kMostGptEntries = 1024;
inline constexpr uint32_t kLargestGptEntry = 4096;

struct GptHeader {
  uint64_t sector_bytes = 0;
  uint64_t other_sector = 0;
  uint64_t first_usable = 0;
  uint64_t last_usable = 0;
  ByteRange entries;  // on the disk
  uint32_t entry_count = 0;
  uint32_t entry_bytes = 0;
  uint32_t entries_crc = 0;
};

// Decodes the header in `sector`, which is number `at` of a disk of `disk` bytes. kNotFound: no
// header; kDataLoss: a damaged one, or one of a longer disk. REQUIRES: a whole sector of at least
// 512 bytes.
absl::StatusOr<GptHeader> DecodeGptHeader(Bytes sector, uint64_t at, ByteCount disk);

// kDataLoss if the entries are not those that the header tells of. REQUIRES: header.entries.length
// bytes.
absl::Status CheckGptEntries(const GptHeader& header, Bytes entries);

// Where partition `number` (1 and up) is. kNotFound: unused, or there are fewer; kDataLoss: not
// within what partitions may use.
absl::StatusOr<ByteRange> FindGptPartition(const GptHeader& header, Bytes entries, uint32_t number);

}  // namespace gabion::partitions
