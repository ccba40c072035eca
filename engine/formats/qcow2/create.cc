#include "engine/formats/qcow2/create.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/bytes.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"

namespace gabion::qcow2 {
namespace {

constexpr uint64_t kWord = 8;
constexpr std::size_t kMaxFormatName = 15;
// Smaller clusters are left to the backing file's name; what is known needs no names.
constexpr uint64_t kMinClusterForFeatureNames = 4096;

absl::Status Invalid(const std::string& message) { return absl::InvalidArgumentError(message); }

constexpr uint64_t DivideUp(uint64_t a, uint64_t b) { return a / b + (a % b != 0 ? 1 : 0); }

absl::Status CheckVersion(const CreateOptions& options) {
  if (options.version == 3) return absl::OkStatus();
  if (options.version != 2) {
    return Invalid(absl::StrCat("version is ", options.version, "; must be 2 or 3"));
  }
  if (options.refcount_order != 4) {
    return Invalid(absl::StrCat("refcount_bits is ", 1u << options.refcount_order,
                                "; must be 16 with version 2"));
  }
  if (options.compression != Compression::kDeflate) {
    return Invalid("compression is zstd; must be deflate with version 2");
  }
  if (options.lazy_refcounts) return Invalid("lazy_refcounts needs version 3");
  if (options.extended_l2) return Invalid("extended_l2 needs version 3");
  return absl::OkStatus();
}

absl::Status CheckBacking(const CreateOptions& options) {
  if (!options.backing_file) {
    return options.backing_format ? Invalid("backing_format needs a backing_file")
                                  : absl::OkStatus();
  }
  const std::string& name = *options.backing_file;
  if (name.empty() || name.size() > kMaxBackingNameBytes) {
    return Invalid(absl::StrCat("backing_file has ", name.size(), " bytes; must have 1 to ",
                                kMaxBackingNameBytes));
  }
  if (name.find('\0') != std::string::npos) return Invalid("backing_file has a zero byte in it");
  if (options.backing_format &&
      (options.backing_format->empty() || options.backing_format->size() > kMaxFormatName ||
       options.backing_format->find('\0') != std::string::npos)) {
    return Invalid(absl::StrCat("backing_format has ", options.backing_format->size(),
                                " bytes; must have 1 to ", kMaxFormatName, ", none of them zero"));
  }
  if (options.preallocate_metadata && !options.extended_l2) {
    return Invalid(
        "preallocate_metadata with a backing_file needs extended_l2: clusters that are "
        "allocated as a whole would hide the backing file");
  }
  return absl::OkStatus();
}

absl::Status CheckOptions(const CreateOptions& options) {
  const uint32_t bits = options.cluster_bits;
  const uint32_t least = options.extended_l2 ? kMinClusterBitsExtended : kMinClusterBits;
  if (bits < least || bits > kMaxClusterBits) {
    return Invalid(absl::StrCat(
        "cluster_bits is ", bits, "; must be ", least, " to ", kMaxClusterBits, " (clusters of ",
        options.extended_l2 ? "16 KiB with extended_l2" : "512 bytes", " to 2 MiB)"));
  }
  if (options.refcount_order > kMaxRefcountOrder) {
    return Invalid(absl::StrCat("refcount_order is ", options.refcount_order, "; must be 0 to ",
                                kMaxRefcountOrder, " (refcounts of 1 to 64 bits)"));
  }
  RETURN_IF_ERROR(CheckVersion(options));
  return CheckBacking(options);
}

Header HeaderOf(const CreateOptions& options) {
  Header header;
  header.version = options.version;
  header.cluster_bits = options.cluster_bits;
  header.size = options.size;
  header.refcount_order = options.refcount_order;
  header.compression = options.compression;
  header.backing_file = options.backing_file;
  header.backing_format = options.backing_format;
  if (options.version == 2) {
    header.header_length = kHeaderLengthV2;
    return header;
  }
  if (options.compression != Compression::kDeflate) {
    header.incompatible |= kIncompatibleCompression;
  }
  if (options.extended_l2) header.incompatible |= kIncompatibleExtendedL2;
  if (options.lazy_refcounts) header.compatible |= kCompatibleLazyRefcounts;
  if (header.cluster_size() >= kMinClusterForFeatureNames) header.feature_names = FeatureNames();
  return header;
}

// The clusters of the refcounts of a whole file: those of its table and its blocks included.
struct Refcounts {
  uint64_t table = 0;
  uint64_t blocks = 0;
};

// For a file of `others` clusters besides the refcounts, with a table of at least `table` clusters.
Refcounts RefcountsFor(uint64_t others, uint64_t table, const Geometry& geometry) {
  const uint64_t per_block = uint64_t{1} << geometry.refcount_block_bits();
  const uint64_t per_table = geometry.cluster_size() / kWord;
  Refcounts now{table, 0};
  while (true) {
    const uint64_t blocks = DivideUp(others + now.table + now.blocks, per_block);
    const Refcounts next{std::max(table, DivideUp(blocks, per_table)), blocks};
    if (next.table == now.table && next.blocks == now.blocks) return now;
    now = next;
  }
}

// The clusters of all of an image's parts but the refcounts, when all of its disk is allocated.
struct Parts {
  explicit Parts(const Geometry& geometry, uint64_t size)
      : disk(geometry.Clusters(size)),
        l2(geometry.L1Entries(size)),
        l1(geometry.Clusters(l2 * kWord)) {}
  uint64_t disk;
  uint64_t l2;
  uint64_t l1;
  uint64_t all() const { return 1 + l1 + l2 + disk; }
};

absl::Status CheckSize(uint64_t size, const Geometry& geometry) {
  constexpr uint64_t kMaxEntries = kMaxL1Bytes / kWord;
  if (geometry.L1Entries(size) <= kMaxEntries) return absl::OkStatus();
  return Invalid(absl::StrCat("size is ", size, " bytes; with clusters of ",
                              geometry.cluster_size(), " bytes must be at most ",
                              kMaxEntries * geometry.l2_coverage()));
}

}  // namespace

absl::StatusOr<NewImageLayout> NewImageLayout::Plan(const CreateOptions& options) {
  RETURN_IF_ERROR(CheckOptions(options));
  NewImageLayout layout(HeaderOf(options));
  RETURN_IF_ERROR(CheckSize(options.size, layout.geometry_));
  RETURN_IF_ERROR(layout.Place(options));
  auto bytes = SerializeHeader(layout.header_);
  if (!bytes.ok()) return Invalid(absl::StrCat("backing_file: ", bytes.status().message()));
  layout.header_bytes_ = *std::move(bytes);
  return layout;
}

absl::Status NewImageLayout::Place(const CreateOptions& options) {
  preallocated_ = options.preallocate_metadata;
  const Parts parts(geometry_, options.size);
  disk_clusters_ = parts.disk;
  const uint64_t most = kMaxRefcountTableBytes >> geometry_.cluster_bits;
  // Large enough for a full disk, if that is possible, so that the table need not move later.
  Refcounts refcounts = RefcountsFor(parts.all(), 1, geometry_);
  if (!preallocated_) {
    refcounts = RefcountsFor(1 + parts.l1, std::min(refcounts.table, most), geometry_);
  }
  if (refcounts.table > most) {
    return Invalid(absl::StrCat(
        "size is ", options.size, " bytes: with preallocate_metadata, clusters of ",
        geometry_.cluster_size(), " bytes and refcounts of ", geometry_.refcount_bits(),
        " bits the refcount table would have ", refcounts.table, " clusters; has at most ", most));
  }
  table_clusters_ = refcounts.table;
  refcount_blocks_ = refcount_table_ + refcounts.table;
  l1_ = refcount_blocks_ + refcounts.blocks;
  l2_ = l1_ + parts.l1;
  data_ = l2_ + (preallocated_ ? parts.l2 : 0);
  file_clusters_ = data_ + (preallocated_ ? parts.disk : 0);
  if (file_clusters_ >= kMaxHostOffset >> geometry_.cluster_bits) {
    return Invalid(absl::StrCat("size is ", options.size,
                                " bytes: with preallocate_metadata must be below 64 PiB"));
  }

  header_.refcount_table_offset = refcount_table_ << geometry_.cluster_bits;
  header_.refcount_table_clusters = static_cast<uint32_t>(table_clusters_);
  header_.l1_size = static_cast<uint32_t>(parts.l2);
  header_.l1_offset = parts.l1 == 0 ? 0 : l1_ << geometry_.cluster_bits;
  return absl::OkStatus();
}

void NewImageLayout::Fill(uint64_t file_offset, MutableBytes dst) const {
  CHECK(FitsWithin(Range(file_offset, dst.size()), ByteCount{metadata_bytes()}));
  while (!dst.empty()) {
    const std::size_t skip = file_offset % kWord;
    const std::size_t length = std::min<std::size_t>(kWord - skip, dst.size());
    std::byte word[kWord];
    Word(file_offset - skip, word);
    std::memcpy(dst.data(), word + skip, length);
    file_offset += length;
    dst = dst.subspan(length);
  }
}

// The eight bytes of the metadata at `file_offset`, which is a multiple of 8.
void NewImageLayout::Word(uint64_t file_offset, std::byte* to) const {
  const uint64_t cluster = geometry_.ClusterOf(file_offset);
  // Numbers of words from the start of a part.
  const auto index = [&](uint64_t part) {
    return (file_offset - (part << geometry_.cluster_bits)) / kWord;
  };
  const auto offset_of = [&](uint64_t part, uint64_t nth) {
    return (part + nth) << geometry_.cluster_bits;
  };
  uint64_t value = 0;
  if (cluster < refcount_table_) {
    if (file_offset < header_bytes_.size()) {  // which are a multiple of 8
      std::memcpy(to, header_bytes_.data() + file_offset, kWord);
      return;
    }
  } else if (cluster < refcount_blocks_) {
    const uint64_t block = index(refcount_table_);
    if (block < l1_ - refcount_blocks_) value = offset_of(refcount_blocks_, block);
  } else if (cluster < l1_) {
    return RefcountWord(index(refcount_blocks_) << (6 - geometry_.refcount_order), to);
  } else if (cluster < l2_) {
    const uint64_t table = index(l1_);
    if (preallocated_ && table < header_.l1_size) value = offset_of(l2_, table) | kCopied;
  } else {
    const uint64_t word = index(l2_);
    const uint64_t guest = geometry_.extended ? word / 2 : word;
    if (guest < disk_clusters_) {
      const bool bitmap = geometry_.extended && word % 2 == 1;
      const uint64_t allocated = header_.backing_file ? 0 : 0xffffffff;
      value = bitmap ? allocated : offset_of(data_, guest) | kCopied;
    }
  }
  StoreBe64(to, value);
}

// The word of the refcount blocks that begins with the refcount of cluster `first`.
void NewImageLayout::RefcountWord(uint64_t first, std::byte* to) const {
  const uint64_t count = kWord * 8 / geometry_.refcount_bits();
  std::memset(to, 0, kWord);
  const uint64_t used = first < file_clusters_ ? std::min(count, file_clusters_ - first) : 0;
  for (uint64_t i = 0; i < used; ++i) StoreRefcount(to, i, geometry_.refcount_order, 1);
}

absl::StatusOr<ImageBytes> Measure(const CreateOptions& options, uint64_t allocated_clusters) {
  RETURN_IF_ERROR(CheckOptions(options));
  const Geometry geometry(HeaderOf(options));
  RETURN_IF_ERROR(CheckSize(options.size, geometry));
  Parts parts(geometry, options.size);
  // What else is counted is whole clusters of tables, full or not.
  const Refcounts refcounts = RefcountsFor(parts.all(), 1, geometry);
  ImageBytes bytes;
  const uint64_t metadata = parts.all() - parts.disk + refcounts.table + refcounts.blocks;
  bytes.fully_allocated = (metadata + parts.disk) << geometry.cluster_bits;
  bytes.required = (metadata + std::min(allocated_clusters, parts.disk)) << geometry.cluster_bits;
  return bytes;
}

}  // namespace gabion::qcow2
