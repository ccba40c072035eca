// Finds a partition by the table on its disk. Pure: says what to read, is given it, and decides.
//
// (1) A boot record with a protective entry means a GPT; all other tables are MBRs, also where an
//     old GPT header is left. No boot record: no table.
// (2) GPT: the first of these that is undamaged counts: the header in sector 1, by sectors of 512
//     and then of 4096 bytes; where the first names another place for the backup and only its
//     entries are damaged, that place; the header in the last sector, by sectors of 512 and 4096.
// (3) MBR: partitions 1 to 4 are the entries of the boot record; 5 and up are the logical ones, in
//     the order of the chain. An extended partition is none. What counts as a record with or
//     without a partition is what Linux and sfdisk take for one.
// (4) No more is read than six GPT headers with their entries, of at most 4 MiB each, or 1024
//     extended boot records.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/units.h"
#include "engine/filters/partitions/gpt.h"
#include "engine/filters/partitions/mbr.h"

namespace gabion::partitions {

// Usage: while wanted(), read that and Feed() it; then result().
//
// Owned by whoever searches; touches nothing outside.
class Search {
 public:
  // For partition `number` (1 and up) of a disk of `disk` bytes.
  Search(ByteCount disk, uint32_t number);

  // What to read next, within the disk; nothing when the search is over.
  const std::optional<ByteRange>& wanted() const { return wanted_; }

  // REQUIRES: `bytes` are those of wanted().
  void Feed(Bytes bytes);

  // kNotFound: no table or no such partition; kDataLoss: the table contradicts itself, reaches
  // beyond the end of the disk, or loops. REQUIRES: nothing is wanted.
  const absl::StatusOr<ByteRange>& result() const;

 private:
  enum class Step { kBootRecord, kGptHeader, kGptEntries, kExtended };

  // Where a GPT header may be.
  struct Place {
    uint64_t sector_bytes = 0;
    uint64_t sector = 0;
  };

  void TakeBootRecord(Bytes bytes);
  void TakeGptHeader(Bytes bytes);
  void TakeGptEntries(Bytes bytes);
  void TakeExtended(Bytes bytes);

  void WantNextHeader();
  void FindPrimary(const BootRecord& record);
  void WantExtended(uint64_t sector);
  void Want(Step step, ByteRange range);
  void Finish(absl::StatusOr<ByteRange> result) { result_ = std::move(result); }
  void FinishMbr(uint64_t first_sector, uint64_t sectors);

  const ByteCount disk_;
  const uint32_t number_;
  Step step_ = Step::kBootRecord;
  std::optional<ByteRange> wanted_;
  std::optional<absl::StatusOr<ByteRange>> result_;

  std::vector<Place> places_;
  std::size_t next_place_ = 0;
  GptHeader header_;
  absl::Status damage_;  // the first that was met

  uint64_t extended_first_ = 0;
  std::vector<uint64_t> records_;  // sectors of the chain so far
  uint32_t next_logical_ = 5;
};

}  // namespace gabion::partitions
