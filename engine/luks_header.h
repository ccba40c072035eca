// A copy of a LUKS header in memory, and what libcryptsetup makes of it.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/secret.h"
#include "engine/base/units.h"
#include "engine/filters/luks.h"
#include "engine/io/unique_fd.h"
#include "engine/luks_metadata.h"

struct crypt_device;

namespace gabion::engine {

// Needs no device mapper, no privileges and no kernel ciphers: only the copy is ever opened, which
// also takes the repairs that the library makes on its own.
//
// Load() and Unlock() block for long and use state that all of the process shares: one at a time.
// Otherwise any thread.
class LuksHeader {
 public:
  // A disk of `disk_size` bytes that are zero until they are put in place.
  static absl::StatusOr<std::unique_ptr<LuksHeader>> Create(ByteCount disk_size);
  ~LuksHeader();
  LuksHeader(const LuksHeader&) = delete;
  LuksHeader& operator=(const LuksHeader&) = delete;

  absl::Status Put(ByteOffset offset, Bytes bytes);

  // Reads the header, not yet the key slots, from the first kLuksFirstBytes of the disk.
  // kInvalidArgument if there is none; kDataLoss if it is damaged; else as CheckLuksMetadata().
  absl::Status Load(const LuksBounds& bounds);
  // After Load(): where the last key slot ends. Up to here everything must be put in place now.
  ByteOffset slots_end() const { return slots_end_; }

  // The volume, with its key. kPermissionDenied if no key slot opens with `passphrase`. Once.
  absl::StatusOr<filters::LuksVolume> Unlock(const Secret& passphrase);

 private:
  LuksHeader(io::UniqueFd memory, ByteCount disk_size);

  static void Log(int level, const char* message, void* header);
  absl::StatusOr<LuksMetadata> Decode();
  // What the library said last, without its name for the copy.
  std::string LastError() const;

  const io::UniqueFd memory_;
  const std::string path_;
  const ByteCount disk_size_;
  std::string last_error_;
  crypt_device* device_ = nullptr;
  ByteOffset slots_end_;
  filters::LuksVolume volume_;
};

// Both copies of the largest LUKS2 header.
inline constexpr uint64_t kLuksFirstBytes = 8 * kMiB;

}  // namespace gabion::engine
