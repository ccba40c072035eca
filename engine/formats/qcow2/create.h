// What a new qcow2 image consists of: pure arithmetic; no I/O.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/base/units.h"
#include "engine/formats/qcow2/geometry.h"
#include "engine/formats/qcow2/header.h"

namespace gabion::qcow2 {

struct CreateOptions {
  uint64_t size = 0;  // of the disk, in bytes
  uint32_t cluster_bits = 16;
  uint32_t version = 3;
  uint32_t refcount_order = 4;  // a refcount has 1 << order bits
  bool extended_l2 = false;
  Compression compression = Compression::kDeflate;
  bool lazy_refcounts = false;
  // Allocate all clusters of the disk, as holes: writing to them does not change metadata.
  bool preallocate_metadata = false;
  std::optional<std::string> backing_file;  // as it is to be written in the file
  std::optional<std::string> backing_format;
};

// Bytes of an image file.
struct ImageBytes {
  uint64_t required = 0;         // with the given part of the disk allocated
  uint64_t fully_allocated = 0;  // with all of it
};

// A plain value; any thread may call its methods. The file, in clusters: header, refcount table,
// refcount blocks, L1 table; with preallocated metadata L2 tables, data.
class NewImageLayout {
 public:
  // kInvalidArgument names the option that is wrong, and what it may be.
  static absl::StatusOr<NewImageLayout> Plan(const CreateOptions& options);

  const Header& header() const { return header_; }
  // The metadata are the file's first bytes, a multiple of the cluster size.
  uint64_t metadata_bytes() const { return data_offset(); }
  // The whole file: with preallocated metadata the clusters of the disk are behind the metadata,
  // otherwise nothing is. What is behind the metadata is to read as zeros.
  uint64_t file_bytes() const { return file_clusters_ << geometry_.cluster_bits; }
  // Where the first cluster of the disk is, or, without preallocation, would be.
  uint64_t data_offset() const { return data_ << geometry_.cluster_bits; }

  // The bytes of the file from `file_offset` on, which is a multiple of nothing in particular.
  // REQUIRES: they are within metadata_bytes().
  void Fill(uint64_t file_offset, MutableBytes dst) const;

 private:
  explicit NewImageLayout(const Header& header) : header_(header), geometry_(header) {}

  absl::Status Place(const CreateOptions& options);
  void Word(uint64_t file_offset, std::byte* to) const;
  void RefcountWord(uint64_t first, std::byte* to) const;

  Header header_;
  Geometry geometry_;
  std::vector<std::byte> header_bytes_;
  bool preallocated_ = false;
  uint64_t table_clusters_ = 0;  // of the refcount table
  uint64_t disk_clusters_ = 0;
  uint64_t file_clusters_ = 0;  // all with a refcount of 1
  // Where each part begins, in clusters.
  uint64_t refcount_table_ = 1;
  uint64_t refcount_blocks_ = 0;
  uint64_t l1_ = 0;
  uint64_t l2_ = 0;
  uint64_t data_ = 0;
};

// The bytes that an image needs that is made by `options`, when `allocated_clusters` clusters of
// its disk have data. As an upper bound `required` has the metadata of a fully allocated image.
absl::StatusOr<ImageBytes> Measure(const CreateOptions& options, uint64_t allocated_clusters);

}  // namespace gabion::qcow2
