// Fuzz target: partition tables. The input is a disk without its zeros:
//   0      bits 0..1: the disk's alignment, 1, 512 or 4096 bytes; bit 2: the checksums of GPT
//          headers are made to match, bit 3: those of their entries, too
//   1..2   length of the disk in sectors of 512 bytes, modulo 2048
//   3      and bytes behind these
//   4..5   a partition that is looked for, besides the usual ones
//   then pieces: 0..2 where on the disk, modulo its length; 3 length; the bytes
// All little-endian.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "engine/base/align.h"
#include "engine/base/bytes.h"
#include "engine/base/check.h"
#include "engine/base/little_endian.h"
#include "engine/block/aligned_node.h"
#include "engine/filters/partitions/crc32.h"
#include "engine/filters/partitions/mbr.h"
#include "engine/filters/slice.h"
#include "engine/runtime/ready_queue.h"

namespace gabion::filters {
namespace {

using partitions::Crc32;

constexpr uint64_t kMostSectors = 2048;
constexpr std::size_t kHeadBytes = 6;
constexpr std::size_t kPieceBytes = 4;

// What partitions/search.h promises (4).
constexpr uint64_t kMostReads = 1 + 1024;
constexpr uint64_t kMostBytes = 512 + 6 * (4096 + 4 * kMiB);

// A disk that can only be read, and not without end.
class FuzzDisk final : public block::Node {
 public:
  FuzzDisk(Bytes bytes, uint64_t alignment) : Node(LimitsOf(bytes, alignment)), bytes_(bytes) {}

 private:
  static block::Limits LimitsOf(Bytes bytes, uint64_t alignment) {
    block::Limits limits;
    limits.size.value = bytes.size();
    limits.alignment.value = alignment;
    limits.writable = false;
    return limits;
  }

  Task<absl::Status> DoRead(ByteRange range, MutableBytes dst) override {
    ++reads_;
    bytes_read_ += dst.size();
    // Above one that needs alignment a read becomes up to three, of more bytes.
    CHECK(reads_ <= kMostReads * (limits().alignment.value > 1 ? 3 : 1));
    CHECK(bytes_read_ <= kMostBytes || limits().alignment.value > 1);
    const Bytes from = bytes_.subspan(range.offset.value, dst.size());
    std::copy(from.begin(), from.end(), dst.begin());
    return absl::OkStatus();
  }
  Task<absl::Status> DoWrite(ByteRange, Bytes, block::WriteOptions) override { return Never(); }
  Task<absl::Status> DoZero(ByteRange, block::ZeroOptions) override { return Never(); }
  Task<absl::Status> DoDiscard(ByteRange) override { return Never(); }
  Task<absl::Status> DoFlush() override { return Never(); }
  Task<absl::Status> DoCache(ByteRange) override { return Never(); }
  Task<absl::StatusOr<block::ExtentList>> DoBlockStatus(ByteRange, std::size_t) override {
    return absl::StatusOr<block::ExtentList>(Never());
  }
  Task<absl::Status> DoClose() override { return Never(); }

  static absl::Status Never() {
    CHECK(!"a search only reads");
    return absl::OkStatus();
  }

  const Bytes bytes_;
  uint64_t reads_ = 0;
  uint64_t bytes_read_ = 0;
};

// The checksums that a header at `at`, in a sector of `sector` bytes, should have. Without them the
// fuzzer would not get behind them.
void Seal(std::vector<std::byte>& disk, uint64_t at, uint64_t sector, bool entries_too) {
  if (disk.size() < sector || at > disk.size() - sector) return;
  const MutableBytes header = MutableBytes(disk).subspan(at, sector);
  if (AsText(header.first(8)) != "EFI PART") return;
  const auto put = [&header](std::size_t field, uint32_t value) {
    std::memcpy(header.subspan(field, sizeof(value)).data(), &value, sizeof(value));
  };
  const uint64_t first_entry = LoadLe64(header, 72);
  const uint64_t entry_bytes = uint64_t{LoadLe32(header, 80)} * LoadLe32(header, 84);
  const bool is_there = first_entry < disk.size() / sector &&
                        FitsWithin(Range(first_entry * sector, entry_bytes), {disk.size()});
  if (entries_too && is_there) {
    put(88, Crc32(Bytes(disk).subspan(first_entry * sector, entry_bytes)));
  }
  const uint32_t header_bytes = LoadLe32(header, 12);
  if (header_bytes < 92 || header_bytes > sector) return;
  put(16, 0);
  put(16, Crc32(header.first(header_bytes)));
}

void SealAll(std::vector<std::byte>& disk, bool entries_too) {
  for (const uint64_t sector : {512, 4096}) {
    const uint64_t sectors = disk.size() / sector;
    if (sectors < 2) continue;
    Seal(disk, sector, sector, entries_too);
    Seal(disk, (sectors - 1) * sector, sector, entries_too);
    // Where the first one says that the other one is.
    const uint64_t other = LoadLe64(disk, sector + 32);
    if (other < sectors) Seal(disk, other * sector, sector, entries_too);
  }
}

std::vector<std::byte> MakeDisk(Bytes input) {
  const uint64_t sectors = LoadLe32(input, 1) % 65536 % kMostSectors;
  std::vector<std::byte> disk(sectors * 512 + static_cast<uint8_t>(input[3]));
  input = input.subspan(kHeadBytes);
  while (input.size() > kPieceBytes && !disk.empty()) {
    const uint32_t word = LoadLe32(input, 0);
    input = input.subspan(kPieceBytes);
    const std::size_t at = (word & 0xffffff) % disk.size();
    const std::size_t length = std::min<std::size_t>({word >> 24, input.size(), disk.size() - at});
    std::copy_n(input.begin(), length, disk.begin() + static_cast<std::ptrdiff_t>(at));
    input = input.subspan(length);
  }
  return disk;
}

absl::StatusOr<ByteRange> Find(const std::vector<std::byte>& bytes, uint32_t number) {
  FuzzDisk disk(bytes, 1);
  return FindPartition(disk, number).Take();
}

absl::StatusOr<ByteRange> FindAligned(const std::vector<std::byte>& bytes, uint64_t alignment,
                                      uint32_t number) {
  runtime::ReadyQueue ready;
  FuzzDisk disk(bytes, alignment);
  block::AlignedNode aligned(disk, ready);
  Task<absl::StatusOr<ByteRange>> task = FindPartition(aligned, number);
  ready.RunUntilIdle();
  return task.Take();
}

bool IsMbr(const std::vector<std::byte>& disk) {
  if (disk.size() < partitions::kMbrSectorBytes) return false;
  const auto record = partitions::DecodeBootRecord(disk);
  return record.has_value() && !partitions::IsProtective(*record);
}

void TryDisk(const std::vector<std::byte>& disk, uint64_t alignment, uint32_t number) {
  const absl::StatusOr<ByteRange> found = Find(disk, number);
  if (found.ok()) {
    CHECK(!found->empty());
    CHECK(FitsWithin(*found, {disk.size()}));
    CHECK(IsMultiple(found->offset.value, 512) && IsMultiple(found->length.value, 512));
    // The logical partitions of an MBR are numbered without a gap.
    if (number > 5 && IsMbr(disk)) CHECK(!absl::IsNotFound(Find(disk, number - 1).status()));
  } else {
    CHECK(absl::IsNotFound(found.status()) || absl::IsDataLoss(found.status()));
  }
  if (alignment == 1) return;
  const absl::StatusOr<ByteRange> aligned = FindAligned(disk, alignment, number);
  CHECK(aligned.status() == found.status());
  if (found.ok()) CHECK(*aligned == *found);
}

}  // namespace
}  // namespace gabion::filters

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gabion;           // NOLINT: the entry point is outside of the namespace
  using namespace gabion::filters;  // NOLINT
  if (size < kHeadBytes) return 0;
  const Bytes input = std::as_bytes(std::span(data, size));
  constexpr uint64_t kAlignments[] = {1, 512, 4096, 1};
  std::vector<std::byte> disk = MakeDisk(input);
  if ((data[0] & 4) != 0) SealAll(disk, (data[0] & 8) != 0);
  const uint32_t numbers[] = {1, 2, 3, 4, 5, 6, 7, 128, ~0U, 1 + LoadLe32(input, 2) / 65536};
  for (const uint32_t number : numbers) TryDisk(disk, kAlignments[data[0] & 3], number);
  return 0;
}
