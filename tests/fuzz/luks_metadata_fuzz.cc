// Fuzz target: what the header of a LUKS volume says. The input:
//   0      bit 0: LUKS1 or LUKS2; bits 1..2: bytes of a LUKS2 key; bits 3..4: length of the disk;
//          bit 5: bounds that are narrower
//   then   the header of LUKS1, or the JSON text of LUKS2
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/ascii.h"
#include "engine/base/align.h"
#include "engine/base/bytes.h"
#include "engine/base/check.h"
#include "engine/luks_metadata.h"

namespace gabion::engine {
namespace {

constexpr uint64_t kKeyBytes[] = {0, 16, 32, 64};
constexpr ByteCount kDisks[] = {{0}, {17 * kMiB + 511}, {64 * kMiB}, {uint64_t{1} << 60}};
constexpr LuksBounds kNarrow{.memory = {64 * kMiB}, .header = {300'000}, .work = 100'000};
constexpr std::size_t kLongestMessage = 600;

// What is said to people fits a line, whatever the header has for names.
void CheckError(const absl::Status& status) {
  CHECK(absl::IsInvalidArgument(status) || absl::IsDataLoss(status) ||
        absl::IsUnimplemented(status) || absl::IsResourceExhausted(status) ||
        absl::IsFailedPrecondition(status));
  CHECK(!status.message().empty());
  CHECK_LE(status.message().size(), kLongestMessage);
  CHECK(std::all_of(status.message().begin(), status.message().end(), absl::ascii_isprint));
}

// Who derives the keys relies on it.
void CheckWork(const LuksMetadata& metadata, const LuksBounds& bounds) {
  CHECK(!metadata.slots.empty());
  CHECK(!metadata.digest.value.empty());
  CHECK_LE(metadata.digest.iterations, bounds.work);
  long double work = 0;  // does not overflow
  for (const LuksKeySlot& slot : metadata.slots) {
    CHECK(FitsWithin(slot.area, ByteCount{metadata.data_offset.value}));
    CHECK(FitsWithin(slot.area, bounds.header));
    CHECK(slot.memory <= bounds.memory);
    const uint64_t each = std::max<uint64_t>(1, slot.memory.value / kKiB);
    work += static_cast<long double>(slot.iterations) * static_cast<long double>(each);
    work += static_cast<long double>(metadata.digest.iterations);
  }
  CHECK(work <= static_cast<long double>(bounds.work));
}

// So does NewLuks().
void CheckVolume(const LuksMetadata& metadata, const filters::LuksVolume& volume, ByteCount disk) {
  CHECK(volume.sector_bytes >= 512 && volume.sector_bytes <= 4096);
  CHECK(IsPowerOfTwo(volume.sector_bytes));
  CHECK(IsMultiple(volume.data_offset.value, 512));
  CHECK(IsMultiple(volume.iv_offset, volume.sector_bytes / 512));
  const ByteCount size = volume.size.value_or(ByteCount{volume.sector_bytes});
  CHECK(size.value > 0 && IsMultiple(size.value, volume.sector_bytes));
  CHECK(FitsWithin(ByteRange{volume.data_offset, size}, disk));
  CHECK(volume.data_offset >= metadata.header_end);
  CHECK_EQ(volume.key.size(), 0u);
  const bool is_xts = volume.cipher == filters::LuksCipher::kAesXtsPlain64;
  const uint64_t of_one_key = is_xts ? metadata.key_bytes / 2 : metadata.key_bytes;
  CHECK(of_one_key == 16 || of_one_key == 24 || of_one_key == 32);
}

absl::StatusOr<LuksMetadata> Decode(uint8_t how, Bytes header) {
  if ((how & 1) == 0) {
    std::vector<std::byte> bytes(kLuks1HeaderBytes);
    std::copy_n(header.begin(), std::min(header.size(), bytes.size()), bytes.begin());
    return DecodeLuks1(bytes);
  }
  absl::StatusOr<LuksMetadata> metadata = DecodeLuks2(std::string(AsText(header)));
  if (metadata.ok()) metadata->key_bytes = kKeyBytes[how >> 1 & 3];
  return metadata;
}

void Try(uint8_t how, Bytes header) {
  const absl::StatusOr<LuksMetadata> metadata = Decode(how, header);
  if (!metadata.ok()) return CheckError(metadata.status());
  const ByteCount disk = kDisks[how >> 3 & 3];
  const LuksBounds bounds = (how & 32) != 0 ? kNarrow : LuksBounds{};
  const auto volume = CheckLuksMetadata(*metadata, disk, bounds);
  if (!volume.ok()) return CheckError(volume.status());
  CheckWork(*metadata, bounds);
  CheckVolume(*metadata, *volume, disk);
}

}  // namespace
}  // namespace gabion::engine

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  gabion::engine::Try(data[0], std::as_bytes(std::span(data + 1, size - 1)));
  return 0;
}
