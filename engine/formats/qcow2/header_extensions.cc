#include "engine/formats/qcow2/header_extensions.h"

#include <algorithm>
#include <optional>
#include <set>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/base/align.h"
#include "engine/base/bytes.h"
#include "engine/base/status_macros.h"
#include "engine/base/text.h"

namespace gabion::qcow2 {
namespace {

constexpr std::size_t kExtensionHeader = 8;  // type and length
constexpr std::size_t kFeatureName = 48;     // an entry of the table of feature names
constexpr std::size_t kBitmapsLength = 24;
constexpr uint32_t kMaxBitmaps = 65535;
constexpr uint64_t kMaxBitmapDirectory = uint64_t{1024} * kMaxBitmaps;
constexpr uint64_t kMinBitmapEntry = 32;  // 24 bytes and a name, padded to 8
constexpr std::size_t kMaxFormatName = 15;
constexpr std::size_t kMaxQuoted = 64;

absl::Status Refuse(const std::string& message) { return absl::FailedPreconditionError(message); }

struct Extension {
  uint32_t type;
  Bytes data;
};

// Walks the extensions of an area.
class Walk {
 public:
  explicit Walk(Bytes area) : rest_(area) {}

  // The next extension; nullopt at the end. Where the length is larger than the area there is no
  // next one either, and broken_length() tells it.
  std::optional<Extension> Next() {
    if (rest_.size() < kExtensionHeader) return std::nullopt;
    const uint32_t type = LoadBe32(rest_.data());
    const uint64_t length = LoadBe32(rest_.data() + 4);
    if (type == kExtensionEnd) return std::nullopt;
    rest_ = rest_.subspan(kExtensionHeader);
    if (length > rest_.size()) {
      broken_type_ = type;
      broken_length_ = length;
      return std::nullopt;
    }
    const Extension found{type, rest_.first(length)};
    rest_ = rest_.subspan(std::min<uint64_t>(RoundUp(length, 8), rest_.size()));
    return found;
  }

  absl::Status status() const {
    if (!broken_length_) return absl::OkStatus();
    return Refuse(absl::StrCat("header extension 0x", absl::Hex(broken_type_, absl::kZeroPad8),
                               " has ", *broken_length_,
                               " bytes, which is more than there is room for"));
  }

 private:
  Bytes rest_;
  uint32_t broken_type_ = 0;
  std::optional<uint64_t> broken_length_;
};

absl::Status CheckBitmaps(const BitmapsExtension& bitmaps, uint32_t reserved, ByteCount file_size,
                          uint64_t cluster_size) {
  if (bitmaps.count == 0 || bitmaps.count > kMaxBitmaps) {
    return Refuse(absl::StrCat("bitmaps extension: nb_bitmaps is ", bitmaps.count,
                               "; must be 1 to ", kMaxBitmaps));
  }
  if (reserved != 0) return Refuse("bitmaps extension: the reserved field is not zero");
  const uint64_t size = bitmaps.directory_size;
  if (size > kMaxBitmapDirectory) {
    return Refuse(absl::StrCat("bitmaps extension: bitmap_directory_size is ", size,
                               "; must be at most ", kMaxBitmapDirectory));
  }
  if (size < bitmaps.count * kMinBitmapEntry) {
    return Refuse(absl::StrCat("bitmaps extension: bitmap_directory_size is ", size,
                               ", too small for ", bitmaps.count, " bitmaps"));
  }
  const uint64_t offset = bitmaps.directory_offset;
  if (offset == 0 || !IsMultiple(offset, cluster_size)) {
    return Refuse(absl::StrCat("bitmaps extension: bitmap_directory_offset is ", offset,
                               "; must be a multiple of the cluster size, and not 0"));
  }
  if (!FitsWithin(Range(offset, size), file_size)) {
    return Refuse(absl::StrCat("bitmaps extension: the bitmap directory at ", offset,
                               " lies beyond the end of the file"));
  }
  return absl::OkStatus();
}

absl::Status ReadBitmaps(Bytes data, ByteCount file_size, Header& header,
                         std::vector<std::string>& warnings) {
  if (data.size() != kBitmapsLength) {
    return Refuse(
        absl::StrCat("bitmaps extension has ", data.size(), " bytes; must have ", kBitmapsLength));
  }
  const BitmapsExtension bitmaps{LoadBe32(data.data()), LoadBe64(data.data() + 8),
                                 LoadBe64(data.data() + 16)};
  absl::Status status =
      CheckBitmaps(bitmaps, LoadBe32(data.data() + 4), file_size, header.cluster_size());
  if ((header.autoclear & kAutoclearBitmaps) == 0) {
    // Whoever wrote last did not know of bitmaps; what they are now concerns nobody's data.
    warnings.push_back("all bitmaps are inconsistent: autoclear_features does not vouch for them");
    if (!status.ok()) {
      warnings.push_back(absl::StrCat("the bitmaps cannot be listed: ", status.message()));
      return absl::OkStatus();
    }
  }
  RETURN_IF_ERROR(status);
  header.bitmaps = bitmaps;
  return absl::OkStatus();
}

// The text of an extension that is one string.
absl::StatusOr<std::string> ReadText(std::string_view what, Bytes data, std::size_t limit) {
  const std::string_view text = AsText(data);
  if (text.size() > limit) {
    return Refuse(
        absl::StrCat(AsAbsl(what), " has ", text.size(), " bytes; must have at most ", limit));
  }
  if (text.find('\0') != std::string_view::npos) {
    return Refuse(absl::StrCat(AsAbsl(what), " '", Quoted(text), "' has a zero byte in it"));
  }
  return std::string(text);
}

absl::Status ReadExtension(const Extension& extension, ByteCount file_size, Header& header,
                           std::vector<std::string>& warnings) {
  const Bytes data = extension.data;
  switch (extension.type) {
    case kExtensionBackingFormat: {
      ASSIGN_OR_RETURN(header.backing_format,
                       ReadText("backing file format extension", data, kMaxFormatName));
      return absl::OkStatus();
    }
    case kExtensionDataFile: {
      ASSIGN_OR_RETURN(header.data_file,
                       ReadText("external data file extension", data, kMaxBackingNameBytes));
      return absl::OkStatus();
    }
    case kExtensionFeatureNames:
      header.feature_names.assign(data.begin(), data.end());
      return absl::OkStatus();
    case kExtensionBitmaps:
      return ReadBitmaps(data, file_size, header, warnings);
    case kExtensionCrypto:
      return absl::UnimplementedError(
          "the image has a full disk encryption header (LUKS), which Gabion does not have");
    default:
      header.unknown_extensions.push_back({extension.type, {data.begin(), data.end()}});
      return absl::OkStatus();
  }
}

// Takes the names of incompatible features out of `names`: bit -> name.
std::string FeatureName(Bytes names, uint32_t bit) {
  for (; names.size() >= kFeatureName; names = names.subspan(kFeatureName)) {
    if (names[0] != std::byte{0} || std::to_integer<uint32_t>(names[1]) != bit) continue;
    const std::string_view text = AsText(names.subspan(2, kFeatureName - 2));
    return std::string(text.substr(0, text.find('\0')));
  }
  return {};
}

}  // namespace

absl::Status ReadExtensions(Bytes area, ByteCount file_size, Header& header,
                            std::vector<std::string>& warnings) {
  std::set<uint32_t> seen;
  Walk walk(area);
  while (const auto extension = walk.Next()) {
    if (!seen.insert(extension->type).second) {
      return Refuse(absl::StrCat("header extension 0x", absl::Hex(extension->type, absl::kZeroPad8),
                                 " occurs twice"));
    }
    RETURN_IF_ERROR(ReadExtension(*extension, file_size, header, warnings));
  }
  return walk.status();
}

std::string DescribeFeatures(uint64_t incompatible, Bytes area) {
  Bytes names;
  Walk walk(area);
  while (const auto extension = walk.Next()) {
    if (extension->type == kExtensionFeatureNames) names = extension->data;
  }
  std::vector<std::string> found;
  for (uint32_t bit = 0; bit < 64; ++bit) {
    if ((incompatible >> bit & 1) == 0) continue;
    const std::string name = FeatureName(names, bit);
    found.push_back(name.empty() ? absl::StrCat("bit ", bit)
                                 : absl::StrCat("'", Quoted(name), "' (bit ", bit, ")"));
  }
  return absl::StrJoin(found, ", ");
}

std::string Quoted(std::string_view text) {
  const bool whole = text.size() <= kMaxQuoted;
  return absl::StrCat(absl::CHexEscape(AsAbsl(text.substr(0, kMaxQuoted))), whole ? "" : "...");
}

}  // namespace gabion::qcow2
