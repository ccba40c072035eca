#include "engine/luks_metadata.h"

#include <json-c/json.h>

#include <algorithm>
#include <array>
#include <memory>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/bytes.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"

namespace gabion::engine {
namespace {

constexpr uint64_t kSector = 512;
constexpr uint64_t kStripes = 4000;  // of every key slot there is
constexpr uint64_t kMostThreads = 64;

// LUKS1, all big-endian:
//   0 magic "LUKS" ba be, 6 version, 8 cipher name, 40 cipher mode, 72 hash, 104 data offset in
//   sectors, 108 bytes of a key, 112 digest, 132 its salt, 164 its iterations, 168 UUID,
//   208 eight key slots of 48 bytes: 0 state, 4 iterations, 8 salt, 40 offset in sectors,
//   44 stripes
constexpr std::string_view kMagic("LUKS\xba\xbe\0\1", 8);
constexpr std::size_t kNameBytes = 32;
constexpr std::size_t kDigestBytes = 20;
constexpr std::size_t kSaltBytes = 32;
constexpr std::size_t kSlots = 8;
constexpr std::size_t kSlotsAt = 208;
constexpr std::size_t kSlotBytes = 48;
constexpr uint32_t kSlotInUse = 0x00ac71f3;

std::string NameAt(Bytes header, std::size_t offset) {
  const std::string_view field = AsText(header.subspan(offset, kNameBytes));
  return std::string(field.substr(0, field.find('\0')));
}

// For people: names come from outside.
std::string Quoted(const std::string& name) {
  return absl::StrCat("'", absl::CHexEscape(name.substr(0, 64)), "'");
}

absl::Status Senseless(std::string_view what) {
  return absl::DataLossError(absl::StrCat("the LUKS header is damaged: ", std::string(what)));
}

// A value of a JSON text, or nothing where there is none. Borrows the text's tree.
class Json {
 public:
  explicit Json(json_object* value) : value_(value) {}

  Json operator[](const char* key) const {
    json_object* member = nullptr;
    json_object_object_get_ex(IsObject() ? value_ : nullptr, key, &member);
    return Json(member);
  }
  bool IsObject() const { return json_object_is_type(value_, json_type_object) != 0; }
  bool Exists() const { return value_ != nullptr; }
  // True of arrays and objects that have something in them.
  bool HasMembers() const {
    if (IsObject()) return json_object_object_length(value_) > 0;
    return json_object_is_type(value_, json_type_array) != 0 &&
           json_object_array_length(value_) > 0;
  }

  std::string Text() const {
    if (json_object_is_type(value_, json_type_string) == 0) return "";
    return {json_object_get_string(value_),
            static_cast<std::size_t>(json_object_get_string_len(value_))};
  }
  // Numbers are written as such, and large ones as text.
  std::optional<uint64_t> Number() const {
    if (json_object_is_type(value_, json_type_int) != 0) {
      const int64_t number = json_object_get_int64(value_);
      if (number < 0) return std::nullopt;
      return static_cast<uint64_t>(number);
    }
    const std::string text = Text();
    uint64_t number = 0;
    const bool digits = !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
    if (!digits || !absl::SimpleAtoi(text, &number)) return std::nullopt;
    return number;
  }

  // True of arrays that have the text `wanted` in them.
  bool HasText(const std::string& wanted) const {
    if (json_object_is_type(value_, json_type_array) == 0) return false;
    for (std::size_t i = 0; i < json_object_array_length(value_); ++i) {
      if (Json(json_object_array_get_idx(value_, i)).Text() == wanted) return true;
    }
    return false;
  }

  template <typename F>
  absl::Status ForEachMember(F visit) const {
    if (!IsObject()) return Senseless("a part is missing");
    json_object_object_foreach(value_, key, member) {
      RETURN_IF_ERROR(visit(std::string_view(key), Json(member)));
    }
    return absl::OkStatus();
  }

 private:
  json_object* value_;
};

absl::Status Read(Json from, uint64_t& to) {
  const std::optional<uint64_t> number = from.Number();
  if (!number.has_value()) return Senseless("a number is missing");
  to = *number;
  return absl::OkStatus();
}

absl::Status DecodeKdf(Json kdf, LuksKeySlot& slot, std::string& unsupported) {
  const std::string type = kdf["type"].Text();
  if (type == "pbkdf2") return Read(kdf["iterations"], slot.iterations);
  if (type == "argon2i" || type == "argon2id") {
    uint64_t kib = 0;
    RETURN_IF_ERROR(Read(kdf["memory"], kib));
    if (kib == 0 || kib > UINT64_MAX / kKiB) return Senseless("a key slot needs no memory");
    slot.memory.value = kib * kKiB;
    RETURN_IF_ERROR(Read(kdf["cpus"], slot.threads));
    return Read(kdf["time"], slot.iterations);
  }
  unsupported = absl::StrCat("key derivation by ", Quoted(type));
  return absl::OkStatus();
}

absl::Status DecodeSlot(Json from, LuksMetadata& metadata) {
  const std::string type = from["type"].Text();
  if (type != "luks2") {
    metadata.unsupported = type == "reencrypt" ? "reencryption that is not finished"
                                               : absl::StrCat("key slots of type ", Quoted(type));
    return absl::OkStatus();
  }
  LuksKeySlot slot;
  const Json area = from["area"];
  if (area["type"].Text() != "raw" || from["af"]["type"].Text() != "luks1") {
    metadata.unsupported = "the kind of a key slot";
    return absl::OkStatus();
  }
  uint64_t stripes = 0;
  RETURN_IF_ERROR(Read(from["af"]["stripes"], stripes));
  if (stripes != kStripes) return Senseless("the stripes of a key slot");
  RETURN_IF_ERROR(Read(area["offset"], slot.area.offset.value));
  RETURN_IF_ERROR(Read(area["size"], slot.area.length.value));
  slot.encryption = area["encryption"].Text();
  RETURN_IF_ERROR(DecodeKdf(from["kdf"], slot, metadata.unsupported));
  metadata.slots.push_back(std::move(slot));
  return absl::OkStatus();
}

absl::Status DecodeSegment(Json segment, LuksMetadata& metadata) {
  if (segment["type"].Text() != "crypt") {
    metadata.unsupported = absl::StrCat("data of type ", Quoted(segment["type"].Text()));
    return absl::OkStatus();  // has other members
  }
  if (segment["integrity"].Exists()) {
    metadata.unsupported =
        absl::StrCat("integrity protection by ", Quoted(segment["integrity"]["type"].Text()));
  } else if (segment["flags"].HasMembers()) {
    metadata.unsupported = "reencryption that is not finished";
  }
  metadata.encryption = segment["encryption"].Text();
  RETURN_IF_ERROR(Read(segment["offset"], metadata.data_offset.value));
  RETURN_IF_ERROR(Read(segment["iv_tweak"], metadata.iv_offset));
  RETURN_IF_ERROR(Read(segment["sector_size"], metadata.sector_bytes));
  if (segment["size"].Text() != "dynamic") {
    metadata.data_size.emplace();
    RETURN_IF_ERROR(Read(segment["size"], metadata.data_size->value));
  }
  return absl::OkStatus();
}

// Of all digests, that of the data in `segment` is the one that counts.
absl::Status DecodeDigests(Json digests, const std::string& segment, LuksMetadata& metadata) {
  std::size_t found = 0;
  RETURN_IF_ERROR(digests.ForEachMember([&](std::string_view, Json from) -> absl::Status {
    if (!from["segments"].HasText(segment)) return absl::OkStatus();
    ++found;
    if (from["type"].Text() != "pbkdf2") {
      metadata.unsupported = absl::StrCat("digests of type ", Quoted(from["type"].Text()));
    }
    LuksDigest& digest = metadata.digest;
    digest.hash = from["hash"].Text();
    if (!absl::Base64Unescape(from["salt"].Text(), &digest.salt) ||
        !absl::Base64Unescape(from["digest"].Text(), &digest.value) || digest.value.empty()) {
      return Senseless("the digest of the key");
    }
    return Read(from["iterations"], digest.iterations);
  }));
  if (found != 1) return Senseless("the data has no digest of its key, or several");
  return absl::OkStatus();
}

absl::StatusOr<filters::LuksCipher> CipherOf(const std::string& name) {
  if (name == "aes-xts-plain64") return filters::LuksCipher::kAesXtsPlain64;
  if (name == "aes-cbc-plain64") return filters::LuksCipher::kAesCbcPlain64;
  if (name == "aes-cbc-essiv:sha256") return filters::LuksCipher::kAesCbcEssivSha256;
  return absl::UnimplementedError(
      absl::StrCat("the LUKS volume is encrypted with ", Quoted(name), "; Gabion knows ",
                   "aes-xts-plain64, aes-cbc-plain64 and aes-cbc-essiv:sha256"));
}

bool KeyFits(filters::LuksCipher cipher, uint64_t key_bytes) {
  if (cipher == filters::LuksCipher::kAesXtsPlain64) return key_bytes == 32 || key_bytes == 64;
  return key_bytes == 16 || key_bytes == 24 || key_bytes == 32;
}

absl::Status CheckWork(const LuksMetadata& metadata, const LuksBounds& bounds) {
  uint64_t left = bounds.work;
  // Takes `times` times `each` from what is left; false if it is not enough.
  const auto take = [&left](uint64_t times, uint64_t each) {
    if (each != 0 && times > left / each) return false;
    left -= times * each;
    return true;
  };
  for (const LuksKeySlot& slot : metadata.slots) {
    if (slot.memory > bounds.memory) {
      return absl::ResourceExhaustedError(
          absl::StrCat("a key slot asks for ", slot.memory.value / kMiB, " MiB of memory; at most ",
                       bounds.memory.value / kMiB, " MiB are given"));
    }
    const uint64_t each = slot.memory.value == 0 ? 1 : slot.memory.value / kKiB;
    if (!take(slot.iterations, each) || !take(metadata.digest.iterations, 1) ||
        slot.threads > kMostThreads) {
      return absl::ResourceExhaustedError("the key slots ask for too much work");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckPlaces(const LuksMetadata& metadata, ByteCount disk_size,
                         const LuksBounds& bounds) {
  const uint64_t data = metadata.data_offset.value;
  if (data < metadata.header_end.value) {
    return absl::UnimplementedError("the LUKS header is detached from its data");
  }
  for (const LuksKeySlot& slot : metadata.slots) {
    if (!FitsWithin(slot.area, ByteCount{data})) return Senseless("a key slot lies in the data");
    if (!FitsWithin(slot.area, bounds.header)) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the LUKS header is longer than ", bounds.header.value / kMiB, " MiB"));
    }
  }
  const uint64_t sector = metadata.sector_bytes;
  if (sector < kSector || sector > 4096 || !IsPowerOfTwo(sector)) {
    return Senseless("the size of a sector");
  }
  if (!IsMultiple(data, kSector) || !IsMultiple(metadata.iv_offset, sector / kSector)) {
    return Senseless("the place of the data");
  }
  const bool fits = data < disk_size.value && disk_size.value - data >= sector;
  if (!fits) {
    return absl::DataLossError(
        absl::StrCat("the disk ends before the LUKS volume's data, at ", disk_size.value));
  }
  if (metadata.data_size.has_value()) {
    const ByteCount size = *metadata.data_size;
    if (size.value == 0 || !IsMultiple(size.value, sector) ||
        !FitsWithin(ByteRange{metadata.data_offset, size}, disk_size)) {
      return Senseless("the length of the data");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LuksMetadata> DecodeLuks1(Bytes header) {
  CHECK_GE(header.size(), kLuks1HeaderBytes);
  if (AsText(header.first(kMagic.size())) != kMagic) {
    return absl::InvalidArgumentError("the disk has no LUKS header");
  }
  const std::byte* const at = header.data();
  LuksMetadata metadata;
  metadata.version = 1;
  metadata.encryption = absl::StrCat(NameAt(header, 8), "-", NameAt(header, 40));
  metadata.data_offset.value = LoadBe32(at + 104) * kSector;
  metadata.key_bytes = LoadBe32(at + 108);
  metadata.digest = {NameAt(header, 72), std::string(AsText(header.subspan(132, kSaltBytes))),
                     std::string(AsText(header.subspan(112, kDigestBytes))), LoadBe32(at + 164)};
  const uint64_t area_bytes = RoundUp(metadata.key_bytes * kStripes, kSector);
  metadata.header_end.value = kSector * 2;
  for (std::size_t i = 0; i < kSlots; ++i) {
    const std::byte* const from = at + kSlotsAt + i * kSlotBytes;
    if (LoadBe32(from) != kSlotInUse) continue;
    LuksKeySlot slot;
    slot.area = Range(LoadBe32(from + 40) * kSector, area_bytes);
    slot.encryption = metadata.encryption;
    slot.iterations = LoadBe32(from + 4);
    if (LoadBe32(from + 44) != kStripes) return Senseless("the stripes of a key slot");
    metadata.header_end = std::max(metadata.header_end, slot.area.end());
    metadata.slots.push_back(std::move(slot));
  }
  return metadata;
}

absl::StatusOr<LuksMetadata> DecodeLuks2(const std::string& json) {
  const std::unique_ptr<json_object, int (*)(json_object*)> tree(json_tokener_parse(json.c_str()),
                                                                 &json_object_put);
  const Json root(tree.get());
  LuksMetadata metadata;
  metadata.version = 2;
  RETURN_IF_ERROR(root["keyslots"].ForEachMember(
      [&](std::string_view, Json slot) { return DecodeSlot(slot, metadata); }));
  std::size_t segments = 0;
  std::string name;
  RETURN_IF_ERROR(root["segments"].ForEachMember([&](std::string_view key, Json segment) {
    ++segments;
    name = std::string(key);
    return DecodeSegment(segment, metadata);
  }));
  if (segments == 0) return Senseless("there is no data");
  if (root["config"]["requirements"].HasMembers()) {
    metadata.unsupported = "reencryption that is not finished, or another requirement";
  }
  if (segments > 1 && metadata.unsupported.empty()) {
    metadata.unsupported = "data in several segments";
  }
  if (!metadata.unsupported.empty()) return metadata;
  RETURN_IF_ERROR(DecodeDigests(root["digests"], name, metadata));
  uint64_t json_bytes = 0;
  uint64_t slots_bytes = 0;
  RETURN_IF_ERROR(Read(root["config"]["json_size"], json_bytes));
  RETURN_IF_ERROR(Read(root["config"]["keyslots_size"], slots_bytes));
  if (json_bytes > kGiB || slots_bytes > kGiB) return Senseless("the size of its parts");
  metadata.header_end.value = 2 * (4096 + json_bytes) + slots_bytes;
  return metadata;
}

absl::StatusOr<filters::LuksVolume> CheckLuksMetadata(const LuksMetadata& metadata,
                                                      ByteCount disk_size,
                                                      const LuksBounds& bounds) {
  if (!metadata.unsupported.empty()) {
    return absl::UnimplementedError(absl::StrCat("the LUKS volume has ", metadata.unsupported));
  }
  filters::LuksVolume volume;
  ASSIGN_OR_RETURN(volume.cipher, CipherOf(metadata.encryption));
  // The library would ask the kernel for ciphers that it has not got itself.
  for (const LuksKeySlot& slot : metadata.slots) {
    RETURN_IF_ERROR(CipherOf(slot.encryption).status());
  }
  if (metadata.slots.empty()) {
    return absl::FailedPreconditionError("the LUKS volume has no key slot in use");
  }
  if (!KeyFits(volume.cipher, metadata.key_bytes)) {
    return absl::UnimplementedError(absl::StrCat("the LUKS volume is encrypted with ",
                                                 metadata.encryption, " and a key of ",
                                                 metadata.key_bytes, " bytes"));
  }
  RETURN_IF_ERROR(CheckPlaces(metadata, disk_size, bounds));
  RETURN_IF_ERROR(CheckWork(metadata, bounds));
  volume.data_offset = metadata.data_offset;
  volume.size = metadata.data_size;
  volume.sector_bytes = static_cast<uint32_t>(metadata.sector_bytes);
  volume.iv_offset = metadata.iv_offset;
  return volume;
}

}  // namespace gabion::engine
