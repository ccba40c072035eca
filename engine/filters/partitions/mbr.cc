#include "engine/filters/partitions/mbr.h"

#include <algorithm>

#include "engine/base/check.h"
#include "engine/base/little_endian.h"

namespace gabion::partitions {
namespace {

constexpr std::size_t kFirstEntry = 446;
constexpr std::size_t kEntryBytes = 16;
constexpr std::size_t kSignature = 510;
constexpr uint8_t kActive = 0x80;
constexpr uint8_t kProtective = 0xee;

}  // namespace

std::optional<BootRecord> DecodeBootRecord(Bytes sector) {
  CHECK_GE(sector.size(), kMbrSectorBytes);
  if (sector[kSignature] != std::byte{0x55} || sector[kSignature + 1] != std::byte{0xaa}) {
    return std::nullopt;
  }
  BootRecord record;
  for (std::size_t i = 0; i < record.size(); ++i) {
    const Bytes entry = sector.subspan(kFirstEntry + i * kEntryBytes, kEntryBytes);
    record[i].status = static_cast<uint8_t>(entry[0]);
    record[i].type = static_cast<uint8_t>(entry[4]);
    record[i].first_sector = LoadLe32(entry, 8);
    record[i].sectors = LoadLe32(entry, 12);
  }
  return record;
}

bool IsPartitionTable(const BootRecord& record) {
  return std::all_of(record.begin(), record.end(), [](const MbrEntry& entry) {
    return entry.status == 0 || entry.status == kActive;
  });
}

bool IsProtective(const BootRecord& record) {
  return std::any_of(record.begin(), record.end(), [](const MbrEntry& entry) {
    return entry.type == kProtective && entry.first_sector == 1;
  });
}

}  // namespace gabion::partitions
