#include "engine/filters/partitions/search.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/check.h"

namespace gabion::partitions {
namespace {

constexpr uint64_t kSectorSizes[] = {512, 4096};
constexpr uint64_t kPrimaryHeader = 1;
constexpr std::size_t kMostRecords = 1024;

// The first used entry that leads on, or that does not; null if there is none.
const MbrEntry* FirstUsed(const BootRecord& record, bool extended) {
  const auto entry = std::find_if(record.begin(), record.end(), [extended](const MbrEntry& e) {
    return e.used() && e.extended() == extended;
  });
  return entry == record.end() ? nullptr : &*entry;
}

absl::Status NoPartition(uint32_t number) {
  return absl::NotFoundError(absl::StrCat("the MBR has no partition ", number));
}

}  // namespace

Search::Search(ByteCount disk, uint32_t number) : disk_(disk), number_(number) {
  CHECK_GE(number, 1u);
  if (disk_.value < kMbrSectorBytes) {
    Finish(absl::NotFoundError("the disk is too small for a partition table"));
    return;
  }
  Want(Step::kBootRecord, Range(0, kMbrSectorBytes));
}

const absl::StatusOr<ByteRange>& Search::result() const {
  CHECK(!wanted_.has_value() && result_.has_value());
  return *result_;
}

void Search::Feed(Bytes bytes) {
  CHECK(wanted_.has_value());
  CHECK_EQ(bytes.size(), wanted_->length.value);
  wanted_.reset();
  switch (step_) {
    case Step::kBootRecord:
      return TakeBootRecord(bytes);
    case Step::kGptHeader:
      return TakeGptHeader(bytes);
    case Step::kGptEntries:
      return TakeGptEntries(bytes);
    case Step::kExtended:
      return TakeExtended(bytes);
  }
}

void Search::Want(Step step, ByteRange range) {
  CHECK(FitsWithin(range, disk_));
  step_ = step;
  wanted_ = range;
}

void Search::TakeBootRecord(Bytes bytes) {
  const std::optional<BootRecord> record = DecodeBootRecord(bytes);
  if (record.has_value() && IsProtective(*record)) {
    for (const uint64_t size : kSectorSizes) places_.push_back({size, kPrimaryHeader});
    for (const uint64_t size : kSectorSizes) places_.push_back({size, disk_.value / size - 1});
    return WantNextHeader();
  }
  if (!record.has_value() || !IsPartitionTable(*record)) {
    return Finish(absl::NotFoundError("the disk has no partition table"));
  }
  if (number_ <= record->size()) return FindPrimary(*record);
  const MbrEntry* extended = FirstUsed(*record, true);
  if (extended == nullptr) return Finish(NoPartition(number_));
  extended_first_ = extended->first_sector;
  WantExtended(extended_first_);
}

void Search::WantNextHeader() {
  while (next_place_ < places_.size()) {
    const Place place = places_[next_place_++];
    if (place.sector < kPrimaryHeader || place.sector >= disk_.value / place.sector_bytes) continue;
    return Want(Step::kGptHeader, Range(place.sector * place.sector_bytes, place.sector_bytes));
  }
  if (damage_.ok()) damage_ = absl::DataLossError("the MBR tells of a GPT, and there is none");
  Finish(damage_);
}

void Search::TakeGptHeader(Bytes bytes) {
  const absl::StatusOr<GptHeader> header =
      DecodeGptHeader(bytes, places_[next_place_ - 1].sector, disk_);
  if (header.ok()) {
    header_ = *header;
    return Want(Step::kGptEntries, header_.entries);
  }
  if (header.status().code() == absl::StatusCode::kDataLoss) damage_.Update(header.status());
  WantNextHeader();
}

void Search::TakeGptEntries(Bytes bytes) {
  const absl::Status status = CheckGptEntries(header_, bytes);
  if (status.ok()) return Finish(FindGptPartition(header_, bytes, number_));
  damage_.Update(status);
  // One that names itself would be looked at again without end.
  const bool is_first = places_[next_place_ - 1].sector == kPrimaryHeader;
  if (is_first && header_.other_sector != kPrimaryHeader) {
    const auto next = places_.begin() + static_cast<std::ptrdiff_t>(next_place_);
    places_.insert(next, {header_.sector_bytes, header_.other_sector});
  }
  WantNextHeader();
}

void Search::FindPrimary(const BootRecord& record) {
  const MbrEntry& entry = record[number_ - 1];
  if (!entry.used()) return Finish(NoPartition(number_));
  if (entry.extended()) {
    return Finish(absl::NotFoundError(
        absl::StrCat("partition ", number_, " is an extended one: what it holds is 5 and up")));
  }
  FinishMbr(entry.first_sector, entry.sectors);
}

void Search::WantExtended(uint64_t sector) {
  if (sector >= disk_.value / kMbrSectorBytes) {
    return Finish(absl::DataLossError(
        absl::StrCat("an extended boot record in sector ", sector, " is behind the disk's end")));
  }
  if (std::find(records_.begin(), records_.end(), sector) != records_.end()) {
    return Finish(absl::DataLossError("the chain of extended boot records loops"));
  }
  if (records_.size() == kMostRecords) {
    return Finish(absl::DataLossError(
        absl::StrCat("the chain has more than ", kMostRecords, " extended boot records")));
  }
  records_.push_back(sector);
  Want(Step::kExtended, Range(sector * kMbrSectorBytes, kMbrSectorBytes));
}

void Search::TakeExtended(Bytes bytes) {
  const std::optional<BootRecord> record = DecodeBootRecord(bytes);
  if (!record.has_value()) {
    return Finish(absl::DataLossError(
        absl::StrCat("sector ", records_.back(), " is no extended boot record")));
  }
  const MbrEntry* logical = FirstUsed(*record, false);
  if (logical != nullptr && next_logical_++ == number_) {
    return FinishMbr(records_.back() + logical->first_sector, logical->sectors);
  }
  const MbrEntry* link = FirstUsed(*record, true);
  if (link == nullptr) return Finish(NoPartition(number_));
  WantExtended(extended_first_ + link->first_sector);
}

void Search::FinishMbr(uint64_t first_sector, uint64_t sectors) {
  const uint64_t disk_sectors = disk_.value / kMbrSectorBytes;
  if (first_sector >= disk_sectors || sectors > disk_sectors - first_sector) {
    return Finish(
        absl::DataLossError(absl::StrCat("partition ", number_, " has ", sectors, " sectors from ",
                                         first_sector, " on; the disk has ", disk_sectors)));
  }
  Finish(Range(first_sector * kMbrSectorBytes, sectors * kMbrSectorBytes));
}

}  // namespace gabion::partitions
