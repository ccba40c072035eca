#include "engine/luks_header.h"

#include <libcryptsetup.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "engine/base/bytes.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/io/errno_status.h"

namespace gabion::engine {
namespace {

constexpr std::string_view kLuks("LUKS\xba\xbe", 6);

void DropLog(int, const char*, void*) {}

absl::Status LibraryError(int error, const std::string& what, const std::string& message) {
  const std::string text =
      message.empty() ? what : absl::StrCat(what, ": ", absl::StripAsciiWhitespace(message));
  if (error == -ENOMEM) return absl::ResourceExhaustedError(text);
  return absl::DataLossError(text);
}

}  // namespace

LuksHeader::LuksHeader(io::UniqueFd memory, ByteCount disk_size)
    : memory_(std::move(memory)),
      path_(absl::StrCat("/proc/self/fd/", memory_.get())),
      disk_size_(disk_size) {}

LuksHeader::~LuksHeader() { crypt_free(device_); }

absl::StatusOr<std::unique_ptr<LuksHeader>> LuksHeader::Create(ByteCount disk_size) {
  io::UniqueFd memory(memfd_create("luks-header", MFD_CLOEXEC));
  if (!memory.valid()) return io::ErrnoStatus(errno, "memfd_create");
  if (ftruncate(memory.get(), static_cast<off_t>(disk_size.value)) != 0) {
    return io::ErrnoStatus(errno, "ftruncate");
  }
  return std::unique_ptr<LuksHeader>(new LuksHeader(std::move(memory), disk_size));
}

absl::Status LuksHeader::Put(ByteOffset offset, Bytes bytes) {
  const ssize_t written =
      pwrite(memory_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset.value));
  if (written < 0) return io::ErrnoStatus(errno, "pwrite");
  CHECK_EQ(static_cast<std::size_t>(written), bytes.size());  // it is memory
  return absl::OkStatus();
}

void LuksHeader::Log(int level, const char* message, void* header) {
  if (level == CRYPT_LOG_ERROR) static_cast<LuksHeader*>(header)->last_error_ = message;
}

std::string LuksHeader::LastError() const {
  return absl::StrReplaceAll(last_error_, {{path_, "the disk"}});
}

absl::StatusOr<LuksMetadata> LuksHeader::Decode() {
  LuksMetadata metadata;
  if (absl::string_view(crypt_get_type(device_)) == CRYPT_LUKS1) {
    std::array<std::byte, kLuks1HeaderBytes> bytes{};
    if (pread(memory_.get(), bytes.data(), bytes.size(), 0) < 0) {
      return io::ErrnoStatus(errno, "pread");
    }
    ASSIGN_OR_RETURN(metadata, DecodeLuks1(bytes));
  } else {
    const char* json = nullptr;
    const int result = crypt_dump_json(device_, &json, 0);
    if (result < 0) return LibraryError(result, "the LUKS header cannot be read", LastError());
    ASSIGN_OR_RETURN(metadata, DecodeLuks2(json));
    metadata.key_bytes = static_cast<uint64_t>(std::max(0, crypt_get_volume_key_size(device_)));
  }
  return metadata;
}

absl::Status LuksHeader::Load(const LuksBounds& bounds) {
  CHECK(device_ == nullptr);
  std::array<std::byte, kLuks.size()> magic{};
  if (pread(memory_.get(), magic.data(), magic.size(), 0) < 0) {
    return io::ErrnoStatus(errno, "pread");
  }
  crypt_set_log_callback(nullptr, &DropLog, nullptr);
  crypt_token_external_disable();  // they are programs that a header names
  int result = crypt_init(&device_, path_.c_str());
  if (result < 0) return LibraryError(result, "libcryptsetup does not start", "");
  crypt_set_log_callback(device_, &LuksHeader::Log, this);
  result = crypt_load(device_, CRYPT_LUKS, nullptr);
  if (result < 0) {
    // Where the first copy of a LUKS2 header is gone, the second one has been tried, too.
    if (AsText(magic) != kLuks) return absl::InvalidArgumentError("the disk has no LUKS header");
    return LibraryError(result, "the LUKS header is damaged", LastError());
  }
  ASSIGN_OR_RETURN(const LuksMetadata metadata, Decode());
  ASSIGN_OR_RETURN(volume_, CheckLuksMetadata(metadata, disk_size_, bounds));
  for (const LuksKeySlot& slot : metadata.slots) {
    slots_end_ = std::max(slots_end_, slot.area.end());
  }
  return absl::OkStatus();
}

absl::StatusOr<filters::LuksVolume> LuksHeader::Unlock(const Secret& passphrase) {
  CHECK(device_ != nullptr);
  std::size_t size = static_cast<std::size_t>(std::max(0, crypt_get_volume_key_size(device_)));
  Secret key(size);
  const Bytes secret = passphrase.bytes();
  const int result =
      crypt_volume_key_get(device_, CRYPT_ANY_SLOT, reinterpret_cast<char*>(key.bytes().data()),
                           &size, reinterpret_cast<const char*>(secret.data()), secret.size());
  if (result == -EPERM || result == -ENOENT) {
    return absl::PermissionDeniedError("no key slot of the LUKS volume opens with this passphrase");
  }
  if (result < 0) return LibraryError(result, "the LUKS volume does not open", LastError());
  if (size != key.size()) return absl::DataLossError("the LUKS volume's key is cut off");
  volume_.key = std::move(key);
  return std::move(volume_);
}

}  // namespace gabion::engine
