// The master boot record, and the extended boot records that continue it. Pure.
//
// A sector of 512 bytes (little-endian):
//   446..509   four entries of 16 bytes:
//     0        0x80 active, or 0x00
//     4        type; 0x05, 0x0f, 0x85: an extended partition, 0xee: the whole disk is a GPT's
//     8..11    first sector
//     12..15   number of sectors; 0: the entry is unused
//   510..511   0x55 0xaa
//
// In an extended boot record one entry is a logical partition, whose first sector counts from this
// record, and one of an extended type leads to the next record, which counts from the beginning of
// the extended partition. An MBR does not say how long its sectors are: 512 bytes.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "engine/base/units.h"

namespace gabion::partitions {

inline constexpr uint64_t kMbrSectorBytes = 512;

struct MbrEntry {
  uint8_t status = 0;
  uint8_t type = 0;
  uint32_t first_sector = 0;
  uint32_t sectors = 0;

  bool used() const { return sectors > 0; }
  bool extended() const { return type == 0x05 || type == 0x0f || type == 0x85; }
  friend bool operator==(const MbrEntry&, const MbrEntry&) = default;
};
using BootRecord = std::array<MbrEntry, 4>;

// Nothing if the sector does not end with the signature. REQUIRES: at least 512 bytes.
std::optional<BootRecord> DecodeBootRecord(Bytes sector);

// False for what has the signature and is no table, such as the first sector of a file system.
bool IsPartitionTable(const BootRecord& record);

// True if the record says that the disk has a GPT.
bool IsProtective(const BootRecord& record);

}  // namespace gabion::partitions
