#include <algorithm>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/bytes.h"
#include "engine/base/check.h"
#include "engine/formats/qcow2/header.h"

namespace gabion::qcow2 {
namespace {

constexpr std::size_t kFeatureNameBytes = 48;

void StoreFields(const Header& header, std::byte* to) {
  StoreBe32(to + kMagicField, kMagic);
  StoreBe32(to + kVersionField, header.version);
  StoreBe32(to + kClusterBitsField, header.cluster_bits);
  StoreBe64(to + kSizeField, header.size);
  StoreBe32(to + kL1SizeField, header.l1_size);
  StoreBe64(to + kL1OffsetField, header.l1_offset);
  StoreBe64(to + kRefcountTableOffsetField, header.refcount_table_offset);
  StoreBe32(to + kRefcountTableClustersField, header.refcount_table_clusters);
  StoreBe32(to + kSnapshotCountField, header.snapshot_count);
  StoreBe64(to + kSnapshotsOffsetField, header.snapshots_offset);
  if (header.version == 2) return;
  StoreBe64(to + kIncompatibleField, header.incompatible);
  StoreBe64(to + kCompatibleField, header.compatible);
  StoreBe64(to + kAutoclearField, header.autoclear);
  StoreBe32(to + kRefcountOrderField, header.refcount_order);
  StoreBe32(to + kHeaderLengthField, header.header_length);
  if (header.header_length <= kCompressionTypeField) return;
  to[kCompressionTypeField] = static_cast<std::byte>(header.compression);
  std::copy(header.tail.begin(), header.tail.end(), to + kCompressionTypeField + 1);
}

// What the header's version and length have no room for.
absl::Status CheckRoom(const Header& header) {
  if (header.version == 2) {
    const bool plain = header.incompatible == 0 && header.compatible == 0 &&
                       header.autoclear == 0 && header.refcount_order == 4 &&
                       header.compression == Compression::kDeflate && header.tail.empty();
    if (plain && header.header_length == kHeaderLengthV2) return absl::OkStatus();
    return absl::InvalidArgumentError("a header of version 2 has no fields of version 3");
  }
  const std::size_t length = header.header_length;
  if (length < kMinHeaderLengthV3 || length % 8 != 0 || length > header.cluster_size()) {
    return absl::InvalidArgumentError(absl::StrCat("header_length ", length, " is out of range"));
  }
  const std::size_t behind = length - std::min(length, kCompressionTypeField + 1);
  if (header.tail.size() > behind || (behind == 0 && header.compression != Compression::kDeflate)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a header_length of ", length, " is too short for what the header has"));
  }
  return absl::OkStatus();
}

void Append(std::vector<std::byte>& out, Bytes data) {
  out.insert(out.end(), data.begin(), data.end());
}

void AppendExtension(std::vector<std::byte>& out, uint32_t type, Bytes data) {
  const std::size_t at = out.size();
  out.resize(at + 8);
  StoreBe32(out.data() + at, type);
  StoreBe32(out.data() + at + 4, static_cast<uint32_t>(data.size()));
  Append(out, data);
  out.resize(RoundUp(out.size(), 8));
}

void AppendExtensions(std::vector<std::byte>& out, const Header& header) {
  if (header.backing_format) {
    AppendExtension(out, kExtensionBackingFormat, AsBytes(*header.backing_format));
  }
  if (header.data_file) AppendExtension(out, kExtensionDataFile, AsBytes(*header.data_file));
  if (!header.feature_names.empty()) {
    AppendExtension(out, kExtensionFeatureNames, header.feature_names);
  }
  if (header.bitmaps) {
    std::byte data[24] = {};
    StoreBe32(data, header.bitmaps->count);
    StoreBe64(data + 8, header.bitmaps->directory_size);
    StoreBe64(data + 16, header.bitmaps->directory_offset);
    AppendExtension(out, kExtensionBitmaps, data);
  }
  for (const UnknownExtension& unknown : header.unknown_extensions) {
    AppendExtension(out, unknown.type, unknown.data);
  }
  AppendExtension(out, kExtensionEnd, {});
}

}  // namespace

absl::StatusOr<std::vector<std::byte>> SerializeHeader(const Header& header) {
  CHECK(header.version == 2 || header.version == 3);
  if (absl::Status status = CheckRoom(header); !status.ok()) return status;
  std::vector<std::byte> out(header.header_length);
  StoreFields(header, out.data());
  AppendExtensions(out, header);
  const std::string_view name = header.backing_file ? *header.backing_file : std::string_view();
  if (name.size() > kMaxBackingNameBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the backing file's name has ", name.size(),
                                                   " bytes; must have at most ",
                                                   kMaxBackingNameBytes));
  }
  const std::size_t used = out.size() + name.size();
  if (used > header.cluster_size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the header with its extensions and the backing file's name has ", used,
                     " bytes; must fit into one cluster of ", header.cluster_size()));
  }
  if (!name.empty()) {
    StoreBe64(out.data() + kBackingOffsetField, out.size());
    StoreBe32(out.data() + kBackingSizeField, static_cast<uint32_t>(name.size()));
    Append(out, AsBytes(name));
  }
  out.resize(RoundUp(out.size(), 8));
  return out;
}

std::vector<std::byte> FeatureNames() {
  struct Name {
    uint8_t kind;  // 0: incompatible, 1: compatible, 2: autoclear
    uint8_t bit;
    std::string_view text;
  };
  // The names that QEMU's images have, too, so that all tools tell of one feature in one way.
  static constexpr Name kNames[] = {
      {0, 0, "dirty bit"},        {0, 1, "corrupt bit"},         {0, 2, "external data file"},
      {0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
      {2, 0, "bitmaps"},          {2, 1, "raw external data"},
  };
  std::vector<std::byte> out(std::size(kNames) * kFeatureNameBytes);
  std::byte* to = out.data();
  for (const Name& name : kNames) {
    to[0] = static_cast<std::byte>(name.kind);
    to[1] = static_cast<std::byte>(name.bit);
    std::ranges::copy(AsBytes(name.text), to + 2);
    to += kFeatureNameBytes;
  }
  return out;
}

}  // namespace gabion::qcow2
