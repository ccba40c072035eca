// Shows what is in a LUKS volume.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "engine/base/secret.h"
#include "engine/base/units.h"
#include "engine/block/node.h"
#include "engine/filters/filter.h"

namespace gabion::runtime {
class Workers;
}

namespace gabion::filters {

// What an entry of a stack says.
struct LuksOptions {
  // Name of a file in the directory of secrets: no '/', no link. All of its content is the
  // passphrase, a newline at its end included.
  std::string key_file;
  // Discards reach the disk below. What was discarded then reads as anything, and whoever sees the
  // disk below sees which parts are in use.
  bool allow_discards = false;
  friend bool operator==(const LuksOptions&, const LuksOptions&) = default;
};

// By cryptsetup's names.
enum class LuksCipher : uint8_t {
  kAesXtsPlain64,      // aes-xts-plain64, keys of 32 and 64 bytes
  kAesCbcPlain64,      // aes-cbc-plain64, keys of 16, 24 and 32 bytes
  kAesCbcEssivSha256,  // aes-cbc-essiv:sha256, likewise
};

// Where the data of a volume lies and how it is encrypted: what an opened header says.
struct LuksVolume {
  ByteOffset data_offset;
  std::optional<ByteCount> size;  // nothing: to the end of the disk below
  // The unit of encryption: a power of two, 512 to 4096.
  uint32_t sector_bytes = 512;
  LuksCipher cipher = LuksCipher::kAesXtsPlain64;
  // Initialization vectors count units of 512 bytes, also where sectors are larger (LUKS2 On-Disk
  // Format, section 3.3, "iv_tweak"; LUKS knows no other way). This is the first sector's.
  uint64_t iv_offset = 0;
  Secret key;
};

// Tells volumes apart: alike only if the same bytes below decrypt to the same bytes, at places with
// the same vector. A digest, from which nobody learns the key; not to be shown or kept.
std::string LuksIdentity(const LuksVolume& volume);

// Byte n of the volume is byte data_offset + n of the child, decrypted; a disk of whole sectors.
// Requests above a few tens of KiB are en- and decrypted by `workers`, several pieces at a time.
//
// - All is data, also what is a hole below, which does not decrypt to zeros. Its layer and place
//   are those of what is below; what is in no layer there counts as of the last one.
// - Zero() writes encrypted zeros; no fast zeros. Discard() does nothing, unless LuksOptions allow.
// - Requests on one sector, of which one changes it, wait for each other: half of an old and half
//   of a new sector decrypt to neither.
// - Cannot be resized from above: what is added below does not decrypt to zeros. Where `size` is
//   not set, the disk grows with the child.
//
// kInvalidArgument for keys that do not fit the cipher. REQUIRES: data_offset is a multiple of 512;
// the volume begins before the child's end; the child's alignment divides data_offset and
// sector_bytes (an AlignedNode below if need be). `workers` outlives the filter. `entry_id` is
// where the alignment, that of sectors, comes from.
absl::StatusOr<std::unique_ptr<Filter>> NewLuks(block::Node& child, Environment environment,
                                                std::string entry_id, LuksVolume volume,
                                                bool allow_discards, runtime::Workers& workers);

}  // namespace gabion::filters
