#include "engine/filters/partitions/gpt.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/bytes.h"
#include "engine/base/check.h"
#include "engine/base/little_endian.h"
#include "engine/base/text.h"
#include "engine/filters/partitions/crc32.h"

namespace gabion::partitions {
namespace {

constexpr std::string_view kSignature = "EFI PART";
constexpr uint32_t kRevisionMajor = 1;
constexpr std::size_t kSmallestHeader = 92;
constexpr std::size_t kSmallestSector = 512;
constexpr uint32_t kSmallestEntry = 128;

absl::Status Damaged(std::string_view what) {
  return absl::DataLossError(absl::StrCat("the GPT header ", AsAbsl(what)));
}

// The CRC of the header, as if its own field were zeros.
uint32_t HeaderCrc(Bytes header) {
  constexpr std::array<std::byte, 4> kZeros{};
  uint32_t crc = Crc32(header.first(16));
  crc = Crc32(kZeros, crc);
  return Crc32(header.subspan(20), crc);
}

// What the fields say about places on a disk of `sectors` sectors.
absl::Status CheckPlaces(const GptHeader& header, uint64_t first_entry_sector, uint64_t sectors) {
  if (header.first_usable > header.last_usable || header.last_usable >= sectors) {
    return Damaged(absl::StrCat("lets partitions use the sectors ", header.first_usable, " to ",
                                header.last_usable, " of ", sectors));
  }
  const uint64_t entry_sectors =
      RoundUp(header.entries.length.value, header.sector_bytes) / header.sector_bytes;
  if (first_entry_sector < 2 || first_entry_sector >= sectors ||
      entry_sectors > sectors - first_entry_sector) {
    return Damaged(absl::StrCat("has its entries at sector ", first_entry_sector, " of ", sectors));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<GptHeader> DecodeGptHeader(Bytes sector, uint64_t at, ByteCount disk) {
  CHECK_GE(sector.size(), kSmallestSector);
  if (AsText(sector.first(kSignature.size())) != kSignature) {
    return absl::NotFoundError(absl::StrCat("no GPT header in sector ", at));
  }
  const uint32_t header_bytes = LoadLe32(sector, 12);
  if (LoadLe32(sector, 8) >> 16 != kRevisionMajor) return Damaged("has an unknown revision");
  if (header_bytes < kSmallestHeader || header_bytes > sector.size()) {
    return Damaged(absl::StrCat("is said to have ", header_bytes, " bytes"));
  }
  if (HeaderCrc(sector.first(header_bytes)) != LoadLe32(sector, 16)) {
    return Damaged("does not match its checksum");
  }
  if (LoadLe64(sector, 24) != at) {
    return Damaged(absl::StrCat("in sector ", at, " is that of sector ", LoadLe64(sector, 24)));
  }
  GptHeader header;
  header.sector_bytes = sector.size();
  header.other_sector = LoadLe64(sector, 32);
  header.first_usable = LoadLe64(sector, 40);
  header.last_usable = LoadLe64(sector, 48);
  const uint64_t first_entry_sector = LoadLe64(sector, 72);
  header.entry_count = LoadLe32(sector, 80);
  header.entry_bytes = LoadLe32(sector, 84);
  header.entries_crc = LoadLe32(sector, 88);
  if (header.entry_count == 0 || header.entry_count > kMostGptEntries) {
    return Damaged(absl::StrCat("tells of ", header.entry_count, " entries"));
  }
  if (!IsPowerOfTwo(header.entry_bytes) || header.entry_bytes < kSmallestEntry ||
      header.entry_bytes > kLargestGptEntry) {
    return Damaged(absl::StrCat("tells of entries of ", header.entry_bytes, " bytes"));
  }
  header.entries.length = ByteCount{uint64_t{header.entry_count} * header.entry_bytes};
  const absl::Status places =
      CheckPlaces(header, first_entry_sector, disk.value / header.sector_bytes);
  if (!places.ok()) return places;
  header.entries.offset = ByteOffset{first_entry_sector * header.sector_bytes};
  return header;
}

absl::Status CheckGptEntries(const GptHeader& header, Bytes entries) {
  CHECK_EQ(entries.size(), header.entries.length.value);
  if (Crc32(entries) == header.entries_crc) return absl::OkStatus();
  return absl::DataLossError("the GPT's entries do not match their checksum");
}

absl::StatusOr<ByteRange> FindGptPartition(const GptHeader& header, Bytes entries,
                                           uint32_t number) {
  CHECK_GE(number, 1u);
  if (number > header.entry_count) {
    return absl::NotFoundError(
        absl::StrCat("no partition ", number, ": the GPT has ", header.entry_count, " entries"));
  }
  const Bytes entry =
      entries.subspan(uint64_t{number - 1} * header.entry_bytes, header.entry_bytes);
  const Bytes type = entry.first(16);
  if (std::all_of(type.begin(), type.end(), [](std::byte byte) { return byte == std::byte{0}; })) {
    return absl::NotFoundError(absl::StrCat("the GPT has no partition ", number));
  }
  const uint64_t first = LoadLe64(entry, 32);
  const uint64_t last = LoadLe64(entry, 40);
  if (first > last || first < header.first_usable || last > header.last_usable) {
    return absl::DataLossError(absl::StrCat("partition ", number, " has the sectors ", first,
                                            " to ", last, ", not within ", header.first_usable,
                                            " to ", header.last_usable));
  }
  return Range(first * header.sector_bytes, (last - first + 1) * header.sector_bytes);
}

}  // namespace gabion::partitions
