#include "engine/formats/qcow2/header.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/bytes.h"
#include "engine/base/status_macros.h"
#include "engine/base/text.h"
#include "engine/formats/qcow2/geometry.h"
#include "engine/formats/qcow2/header_extensions.h"

namespace gabion::qcow2 {
namespace {

constexpr std::size_t kFirstFields = 24;    // up to cluster_bits
constexpr uint64_t kMinSnapshotEntry = 40;  // bytes of a snapshot without names
constexpr uint32_t kCryptAes = 1;
constexpr uint32_t kCryptLuks = 2;

absl::Status Refuse(const std::string& message) { return absl::FailedPreconditionError(message); }

// Parses one header, which must have the bytes of HeaderBytesWanted(): field by field, each checked
// before anything is read or counted by it.
class Parser {
 public:
  Parser(Bytes start, ByteCount file_size, Access access)
      : start_(start), file_size_(file_size), access_(access) {}

  absl::StatusOr<ParsedHeader> Parse() {
    RETURN_IF_ERROR(ReadFields());
    RETURN_IF_ERROR(ReadVersion3());
    RETURN_IF_ERROR(ReadBackingFile());
    RETURN_IF_ERROR(CheckFeatures());
    RETURN_IF_ERROR(ReadCompression());
    RETURN_IF_ERROR(CheckCrypt());
    RETURN_IF_ERROR(CheckRefcountTable());
    RETURN_IF_ERROR(CheckL1());
    RETURN_IF_ERROR(CheckSnapshots());
    RETURN_IF_ERROR(ReadExtensions(ExtensionArea(), file_size_, header_, parsed_.warnings));
    RETURN_IF_ERROR(CheckDataFile());
    RETURN_IF_ERROR(CheckApart());
    if (!IsMultiple(header_.size, 512)) {
      Warn(absl::StrCat("size is ", header_.size, ", no multiple of 512; QEMU sees only ",
                        RoundDown(header_.size, 512), " bytes"));
    }
    return std::move(parsed_);
  }

 private:
  uint32_t Field32(std::size_t at) const { return LoadBe32(start_.data() + at); }
  uint64_t Field64(std::size_t at) const { return LoadBe64(start_.data() + at); }

  void Warn(std::string message) { parsed_.warnings.push_back(std::move(message)); }
  // For damage that only writing would make worse.
  absl::Status RefuseWriting(std::string message) {
    if (access_ == Access::kReadWrite) {
      return Refuse(absl::StrCat(message, "; the image can only be opened read-only"));
    }
    Warn(std::move(message));
    return absl::OkStatus();
  }

  absl::Status ReadFields() {
    header_.version = Field32(kVersionField);
    header_.cluster_bits = Field32(kClusterBitsField);
    header_.header_length = kHeaderLengthV2;
    const std::size_t fields = header_.version == 2 ? kHeaderLengthV2 : kMinHeaderLengthV3;
    if (start_.size() < fields) {
      return Refuse(
          absl::StrCat("the file ends within the qcow2 header, after ", start_.size(), " bytes"));
    }
    header_.size = Field64(kSizeField);
    header_.l1_size = Field32(kL1SizeField);
    header_.l1_offset = Field64(kL1OffsetField);
    header_.refcount_table_offset = Field64(kRefcountTableOffsetField);
    header_.refcount_table_clusters = Field32(kRefcountTableClustersField);
    header_.snapshot_count = Field32(kSnapshotCountField);
    header_.snapshots_offset = Field64(kSnapshotsOffsetField);
    return absl::OkStatus();
  }

  absl::Status ReadVersion3() {
    if (header_.version == 2) return absl::OkStatus();
    header_.incompatible = Field64(kIncompatibleField);
    header_.compatible = Field64(kCompatibleField);
    header_.autoclear = Field64(kAutoclearField);
    header_.refcount_order = Field32(kRefcountOrderField);
    header_.header_length = Field32(kHeaderLengthField);
    const uint32_t length = header_.header_length;
    if (length < kMinHeaderLengthV3 || length % 8 != 0) {
      return Refuse(absl::StrCat("header_length is ", length, "; must be a multiple of 8 from ",
                                 kMinHeaderLengthV3));
    }
    if (length > header_.cluster_size()) {
      return Refuse(absl::StrCat("header_length is ", length, ", more than a cluster of ",
                                 header_.cluster_size(), " bytes"));
    }
    if (length > start_.size()) {
      return Refuse(absl::StrCat("header_length is ", length, ", more than the file's ",
                                 start_.size(), " bytes"));
    }
    if (header_.refcount_order > kMaxRefcountOrder) {
      return Refuse(absl::StrCat("refcount_order is ", header_.refcount_order, "; must be at most ",
                                 kMaxRefcountOrder));
    }
    return absl::OkStatus();
  }

  absl::Status ReadBackingFile() {
    const uint64_t offset = Field64(kBackingOffsetField);
    const uint64_t length = Field32(kBackingSizeField);
    extensions_end_ = start_.size();
    if (offset == 0) return absl::OkStatus();
    if (offset < header_.header_length || offset > header_.cluster_size()) {
      return Refuse(absl::StrCat("backing_file_offset is ", offset,
                                 "; must be in the first cluster, behind the header"));
    }
    if (length > kMaxBackingNameBytes || length > header_.cluster_size() - offset) {
      return Refuse(absl::StrCat("backing_file_size is ", length, "; a name has at most ",
                                 kMaxBackingNameBytes, " bytes and ends in the first cluster"));
    }
    if (!FitsWithin(Range(offset, length), ByteCount{start_.size()})) {
      return Refuse(
          absl::StrCat("the backing file's name at ", offset, " lies beyond the end of the file"));
    }
    extensions_end_ = offset;
    const std::string_view name = AsText(start_.subspan(offset, length));
    if (name.find('\0') != std::string_view::npos) {
      return Refuse(
          absl::StrCat("the backing file's name '", Quoted(name), "' has a zero byte in it"));
    }
    if (name.empty()) {
      Warn("the backing file's name is empty; the image is opened without a backing file");
    } else {
      header_.backing_file = std::string(name);
    }
    return absl::OkStatus();
  }

  Bytes ExtensionArea() const {
    return start_.subspan(header_.header_length, extensions_end_ - header_.header_length);
  }

  absl::Status CheckFeatures() {
    const uint64_t unknown = header_.incompatible & ~kIncompatibleKnown;
    if (unknown != 0) {
      return absl::UnimplementedError(
          absl::StrCat("incompatible_features has what Gabion does not know: ",
                       DescribeFeatures(unknown, ExtensionArea())));
    }
    if (header_.extended_l2() && header_.cluster_bits < kMinClusterBitsExtended) {
      return Refuse(absl::StrCat("cluster_bits is ", header_.cluster_bits,
                                 "; with extended L2 entries must be at least ",
                                 kMinClusterBitsExtended));
    }
    if (header_.dirty()) Warn("the dirty bit is set: refcounts may be wrong");
    if (header_.corrupt()) {
      return RefuseWriting("incompatible_features: the image is marked as corrupt");
    }
    return absl::OkStatus();
  }

  absl::Status ReadCompression() {
    if (header_.header_length <= kCompressionTypeField) return CheckCompression(0);
    const auto type = std::to_integer<uint32_t>(start_[kCompressionTypeField]);
    const Bytes tail = start_.first(header_.header_length).subspan(kCompressionTypeField + 1);
    header_.tail.assign(tail.begin(), tail.end());
    while (!header_.tail.empty() && header_.tail.back() == std::byte{0}) header_.tail.pop_back();
    return CheckCompression(type);
  }

  absl::Status CheckCompression(uint32_t type) {
    const bool bit = (header_.incompatible & kIncompatibleCompression) != 0;
    if (bit != (type != 0)) {
      return Refuse(absl::StrCat("compression_type is ", type,
                                 ", and its bit in "
                                 "incompatible_features is ",
                                 bit ? "set" : "not set"));
    }
    if (type > static_cast<uint32_t>(Compression::kZstd)) {
      return absl::UnimplementedError(
          absl::StrCat("compression_type is ", type, ", which Gabion does not know"));
    }
    header_.compression = static_cast<Compression>(type);
    return absl::OkStatus();
  }

  absl::Status CheckCrypt() const {
    const uint32_t method = Field32(kCryptMethodField);
    if (method == 0) return absl::OkStatus();
    if (method == kCryptAes || method == kCryptLuks) {
      return absl::UnimplementedError(absl::StrCat("crypt_method is ", method, " (",
                                                   method == kCryptAes ? "AES" : "LUKS",
                                                   "): Gabion does not open encrypted images"));
    }
    return Refuse(absl::StrCat("crypt_method is ", method, "; must be 0 to 2"));
  }

  absl::Status CheckOffset(std::string_view field, uint64_t offset) const {
    if (IsMultiple(offset, header_.cluster_size()) && offset < kMaxHostOffset) {
      return absl::OkStatus();
    }
    return Refuse(absl::StrCat(AsAbsl(field), " is ", offset,
                               "; must be a multiple of the cluster size below 2^56"));
  }

  absl::Status CheckRefcountTable() {
    const uint64_t clusters = header_.refcount_table_clusters;
    const uint64_t offset = header_.refcount_table_offset;
    const uint64_t limit = kMaxRefcountTableBytes >> header_.cluster_bits;
    if (clusters == 0 || clusters > limit) {
      return Refuse(
          absl::StrCat("refcount_table_clusters is ", clusters, "; must be 1 to ", limit));
    }
    RETURN_IF_ERROR(CheckOffset("refcount_table_offset", offset));
    if (offset == 0) return Refuse("refcount_table_offset is 0, which is where the header is");
    const uint64_t bytes = clusters << header_.cluster_bits;
    Table("refcount_table_offset", offset, bytes);
    if (FitsWithin(Range(offset, bytes), file_size_)) return absl::OkStatus();
    return RefuseWriting(absl::StrCat("refcount_table_offset is ", offset,
                                      ": the table lies beyond the end of the file"));
  }

  absl::Status CheckL1() {
    const uint64_t entries = header_.l1_size;
    const uint64_t offset = header_.l1_offset;
    constexpr uint64_t kMaxEntries = kMaxL1Bytes / 8;
    if (entries > kMaxEntries) {
      return Refuse(absl::StrCat("l1_size is ", entries, "; must be at most ", kMaxEntries));
    }
    const Geometry geometry(header_);
    const uint64_t needed = geometry.L1Entries(header_.size);
    if (needed > kMaxEntries) {
      return Refuse(absl::StrCat("size is ", header_.size, "; with clusters of ",
                                 header_.cluster_size(), " bytes must be at most ",
                                 kMaxEntries * geometry.l2_coverage()));
    }
    if (entries < needed) {
      return Refuse(absl::StrCat("l1_size is ", entries, "; a disk of ", header_.size,
                                 " bytes needs ", needed));
    }
    RETURN_IF_ERROR(CheckOffset("l1_table_offset", offset));
    if (entries == 0) return absl::OkStatus();
    if (offset == 0) return Refuse("l1_table_offset is 0, which is where the header is");
    if (!FitsWithin(Range(offset, entries * 8), file_size_)) {
      return Refuse(absl::StrCat("l1_table_offset is ", offset,
                                 ": the table lies beyond the end of the file"));
    }
    Table("l1_table_offset", offset, entries * 8);
    return absl::OkStatus();
  }

  absl::Status CheckSnapshots() {
    const uint64_t count = header_.snapshot_count;
    const uint64_t offset = header_.snapshots_offset;
    if (count > kMaxSnapshots) {
      return Refuse(absl::StrCat("nb_snapshots is ", count, "; must be at most ", kMaxSnapshots));
    }
    RETURN_IF_ERROR(CheckOffset("snapshots_offset", offset));
    if (count == 0) return absl::OkStatus();
    if (offset == 0) return Refuse("snapshots_offset is 0, which is where the header is");
    if (FitsWithin(Range(offset, count * kMinSnapshotEntry), file_size_)) {
      Table("snapshots_offset", offset, count * kMinSnapshotEntry);
      return absl::OkStatus();
    }
    header_.snapshot_count = 0;
    header_.snapshots_offset = 0;
    return RefuseWriting(absl::StrCat("snapshots_offset is ", offset, ": the table of ", count,
                                      " snapshots lies beyond the end of the file"));
  }

  absl::Status CheckDataFile() {
    if (header_.external_data() && !header_.data_file) {
      return Refuse(
          "incompatible_features: the image has an external data file, but no name of it");
    }
    if (!header_.external_data() && header_.data_file) {
      Warn("the name of an external data file is ignored: the image does not use one");
    }
    if ((header_.autoclear & kAutoclearRawDataFile) != 0 &&
        (!header_.external_data() || header_.backing_file)) {
      return Refuse(
          "autoclear_features: raw external data needs an external data file, and no "
          "backing file");
    }
    if ((header_.autoclear & kAutoclearBitmaps) != 0 && !header_.bitmaps) {
      Warn("autoclear_features vouches for bitmaps, but the image has none");
    }
    return absl::OkStatus();
  }

  void Table(std::string_view field, uint64_t offset, uint64_t bytes) {
    tables_[table_count_++] = {field, Range(offset, bytes)};
  }

  // Two tables in one place: a write to one would be a write to the other.
  absl::Status CheckApart() {
    if (header_.bitmaps) {
      Table("bitmap_directory_offset", header_.bitmaps->directory_offset,
            header_.bitmaps->directory_size);
    }
    for (std::size_t i = 0; i < table_count_; ++i) {
      for (std::size_t j = 0; j < i; ++j) {
        if (!Overlaps(tables_[i].second, tables_[j].second)) continue;
        RETURN_IF_ERROR(RefuseWriting(
            absl::StrCat(AsAbsl(tables_[i].first), " is ", tables_[i].second.offset.value,
                         ": the table overlaps with that of ", AsAbsl(tables_[j].first))));
      }
    }
    return absl::OkStatus();
  }

  const Bytes start_;
  const ByteCount file_size_;
  const Access access_;
  ParsedHeader parsed_;
  Header& header_ = parsed_.header;
  std::size_t extensions_end_ = 0;
  std::array<std::pair<std::string_view, ByteRange>, 4> tables_;
  std::size_t table_count_ = 0;
};

}  // namespace

absl::StatusOr<std::size_t> HeaderBytesWanted(Bytes start) {
  if (start.size() < kFirstFields) {
    return Refuse(absl::StrCat("no qcow2 image: the file has only ", start.size(), " bytes"));
  }
  if (LoadBe32(start.data() + kMagicField) != kMagic) {
    return Refuse("no qcow2 image: the file does not begin with the magic number of qcow2");
  }
  const uint32_t version = LoadBe32(start.data() + kVersionField);
  if (version != 2 && version != 3) {
    return Refuse(absl::StrCat("version is ", version, "; must be 2 or 3"));
  }
  const uint32_t bits = LoadBe32(start.data() + kClusterBitsField);
  if (bits < kMinClusterBits || bits > kMaxClusterBits) {
    return Refuse(absl::StrCat("cluster_bits is ", bits, "; must be ", kMinClusterBits, " to ",
                               kMaxClusterBits));
  }
  return std::size_t{1} << bits;
}

absl::StatusOr<ParsedHeader> ParseHeader(Bytes start, ByteCount file_size, Access access) {
  ASSIGN_OR_RETURN(const std::size_t wanted, HeaderBytesWanted(start));
  return Parser(start.first(std::min(wanted, start.size())), file_size, access).Parse();
}

}  // namespace gabion::qcow2
