// Partition tables as bytes, written from the specifications and not with the code under test.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace gabion::test {

using Disk = std::vector<std::byte>;

template <typename T>
void PutLe(Disk& disk, uint64_t at, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    disk.at(at + i) = static_cast<std::byte>(value >> (8 * i));
  }
}

// The bit-wise definition of CRC-32.
inline uint32_t SlowCrc32(const Disk& disk, uint64_t at, uint64_t length) {
  uint32_t crc = 0xffffffff;
  for (uint64_t i = 0; i < length; ++i) {
    crc ^= static_cast<uint32_t>(disk.at(at + i));
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1) != 0 ? (crc >> 1) ^ 0xedb88320 : crc >> 1;
  }
  return ~crc;
}

// ---- MBR. `sector` counts in 512 bytes.

inline void SignRecord(Disk& disk, uint64_t sector) {
  PutLe<uint16_t>(disk, sector * 512 + 510, 0xaa55);
}
inline void PutMbrEntry(Disk& disk, uint64_t sector, int index, uint8_t type, uint32_t first,
                        uint32_t sectors) {
  const uint64_t at = sector * 512 + 446 + 16 * static_cast<uint64_t>(index);
  PutLe<uint8_t>(disk, at + 4, type);
  PutLe<uint32_t>(disk, at + 8, first);
  PutLe<uint32_t>(disk, at + 12, sectors);
  SignRecord(disk, sector);
}

// ---- GPT

struct GptLayout {
  uint64_t sector_bytes = 512;
  uint64_t entries = 128;
  uint64_t entry_bytes = 128;

  uint64_t EntrySectors() const {
    return (entries * entry_bytes + sector_bytes - 1) / sector_bytes;
  }
};

inline void SealGptHeader(Disk& disk, const GptLayout& layout, uint64_t sector) {
  const uint64_t at = sector * layout.sector_bytes;
  PutLe<uint32_t>(disk, at + 16, 0);
  PutLe<uint32_t>(disk, at + 16, SlowCrc32(disk, at, 92));
}

// One header and its entries: those have been put at `entries_sector` before.
inline void PutGptHeader(Disk& disk, const GptLayout& layout, uint64_t sector, uint64_t other,
                         uint64_t entries_sector, uint64_t backup) {
  const uint64_t at = sector * layout.sector_bytes;
  std::memcpy(disk.data() + at, "EFI PART", 8);
  PutLe<uint32_t>(disk, at + 8, 0x00010000);
  PutLe<uint32_t>(disk, at + 12, 92);
  PutLe<uint64_t>(disk, at + 24, sector);
  PutLe<uint64_t>(disk, at + 32, other);
  PutLe<uint64_t>(disk, at + 40, 2 + layout.EntrySectors());
  PutLe<uint64_t>(disk, at + 48, backup - layout.EntrySectors() - 1);
  PutLe<uint64_t>(disk, at + 72, entries_sector);
  PutLe<uint32_t>(disk, at + 80, static_cast<uint32_t>(layout.entries));
  PutLe<uint32_t>(disk, at + 84, static_cast<uint32_t>(layout.entry_bytes));
  PutLe<uint32_t>(
      disk, at + 88,
      SlowCrc32(disk, entries_sector * layout.sector_bytes, layout.entries * layout.entry_bytes));
  SealGptHeader(disk, layout, sector);
}

struct GptPartition {
  uint64_t number = 1;
  uint64_t first = 0;  // sectors; `last` included
  uint64_t last = 0;
};

// A whole disk with both tables, and a protective MBR; the backup is in sector `backup`.
inline void PutGpt(Disk& disk, const GptLayout& layout, uint64_t backup,
                   const std::vector<GptPartition>& partitions) {
  PutMbrEntry(disk, 0, 0, 0xee, 1, 0xffffffff);
  const uint64_t tables[] = {2, backup - layout.EntrySectors()};
  for (const uint64_t table : tables) {
    for (const GptPartition& partition : partitions) {
      const uint64_t at = table * layout.sector_bytes + (partition.number - 1) * layout.entry_bytes;
      disk.at(at) = std::byte{0xaf};  // some type
      PutLe<uint64_t>(disk, at + 32, partition.first);
      PutLe<uint64_t>(disk, at + 40, partition.last);
    }
  }
  PutGptHeader(disk, layout, 1, backup, tables[0], backup);
  PutGptHeader(disk, layout, backup, 1, tables[1], backup);
}

}  // namespace gabion::test
