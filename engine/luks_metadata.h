// What the header of a LUKS volume says, before anybody tries a passphrase. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/units.h"
#include "engine/filters/luks.h"

namespace gabion::engine {

// Bounds on what a header may ask for: they come from outside.
struct LuksBounds {
  ByteCount memory{2 * kGiB};  // of one derivation
  ByteCount header{64 * kMiB};
  // Work of trying one passphrase with all key slots. Unit: one iteration of PBKDF2, or one pass of
  // Argon2 over 1 KiB. At the default a modern CPU is busy for two minutes at most.
  uint64_t work = uint64_t{1} << 27;
};

// A key slot in use: how the volume's key is hidden in it.
struct LuksKeySlot {
  ByteRange area;
  std::string encryption;  // by cryptsetup's names
  uint64_t iterations = 0;
  ByteCount memory;  // 0: PBKDF2
  uint64_t threads = 1;
};

// By what a key is known to be the right one: PBKDF2 of it.
struct LuksDigest {
  std::string hash;  // by cryptsetup's names
  std::string salt;
  std::string value;
  uint64_t iterations = 0;
};

// Everything as the header has it, nothing of it checked.
struct LuksMetadata {
  int version = 0;
  ByteOffset data_offset;
  std::optional<ByteCount> data_size;  // nothing: to the end of the disk
  uint64_t sector_bytes = 512;
  uint64_t iv_offset = 0;
  std::string encryption;
  uint64_t key_bytes = 0;  // of the volume's key
  LuksDigest digest;
  ByteOffset header_end;  // behind all metadata and key slots
  std::vector<LuksKeySlot> slots;
  // What Gabion does not do, for people; the rest may then be missing. Empty: nothing.
  std::string unsupported;
};

// LUKS1 On-Disk Format Specification 1.2.3, section 2.2: the first 592 bytes of the disk.
// REQUIRES: so many bytes. kInvalidArgument if it is not LUKS1.
inline constexpr std::size_t kLuks1HeaderBytes = 592;
absl::StatusOr<LuksMetadata> DecodeLuks1(Bytes header);

// LUKS2 On-Disk Format Specification 1.1.1, chapter 3: the JSON area. Leaves `key_bytes` open,
// which follows from which key slots belong to the data. kDataLoss if it makes no sense.
absl::StatusOr<LuksMetadata> DecodeLuks2(const std::string& json);

// All of the volume but its key. kUnimplemented, with a name, for what Gabion cannot do;
// kResourceExhausted for what is beyond `bounds`; kDataLoss for what contradicts itself or a disk
// of `disk_size`.
absl::StatusOr<filters::LuksVolume> CheckLuksMetadata(const LuksMetadata& metadata,
                                                      ByteCount disk_size,
                                                      const LuksBounds& bounds);

}  // namespace gabion::engine
