// The header of a qcow2 file with its extensions: bytes in, decisions out; no I/O.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/units.h"
#include "engine/formats/qcow2/layout.h"

namespace gabion::qcow2 {

enum class Compression : uint8_t {
  kDeflate = 0,  // raw RFC 1951, without a zlib header
  kZstd = 1,
};

// An extension that Gabion does not interpret; it is kept as it is.
struct UnknownExtension {
  uint32_t type = 0;
  std::vector<std::byte> data;
  friend bool operator==(const UnknownExtension&, const UnknownExtension&) = default;
};

// Where the bitmap directory is.
struct BitmapsExtension {
  uint32_t count = 0;
  uint64_t directory_size = 0;    // bytes
  uint64_t directory_offset = 0;  // bytes from the start of the file
  friend bool operator==(const BitmapsExtension&, const BitmapsExtension&) = default;
};

// A plain value. What ParseHeader() gives has passed every check that needs only the header and the
// length of the file.
struct Header {
  uint32_t version = 3;  // 2 or 3
  uint32_t cluster_bits = 16;
  uint64_t size = 0;     // of the disk, in bytes; a multiple of nothing in particular
  uint32_t l1_size = 0;  // entries
  uint64_t l1_offset = 0;
  uint64_t refcount_table_offset = 0;
  uint32_t refcount_table_clusters = 0;
  uint32_t snapshot_count = 0;
  uint64_t snapshots_offset = 0;
  uint64_t incompatible = 0;
  uint64_t compatible = 0;
  uint64_t autoclear = 0;
  uint32_t refcount_order = 4;  // a refcount has 1 << order bits
  uint32_t header_length = kHeaderLengthV3;
  Compression compression = Compression::kDeflate;

  std::optional<std::string> backing_file;    // as it is written in the file
  std::optional<std::string> backing_format;  // the extension's text
  std::optional<std::string> data_file;       // the extension's text
  std::optional<BitmapsExtension> bitmaps;
  std::vector<UnknownExtension> unknown_extensions;  // each type once
  std::vector<std::byte> feature_names;  // the extension as it is; empty if there is none
  // Version 3: the header's bytes from 105 to header_length, as they are, without zeros at their
  // end.
  std::vector<std::byte> tail;

  uint64_t cluster_size() const { return uint64_t{1} << cluster_bits; }
  bool extended_l2() const { return (incompatible & kIncompatibleExtendedL2) != 0; }
  bool dirty() const { return (incompatible & kIncompatibleDirty) != 0; }
  bool corrupt() const { return (incompatible & kIncompatibleCorrupt) != 0; }
  bool external_data() const { return (incompatible & kIncompatibleDataFile) != 0; }
  bool lazy_refcounts() const { return (compatible & kCompatibleLazyRefcounts) != 0; }
  // The bitmaps match the disk. Otherwise those that `bitmaps` leads to are inconsistent.
  bool bitmaps_valid() const { return bitmaps && (autoclear & kAutoclearBitmaps) != 0; }

  friend bool operator==(const Header&, const Header&) = default;
};

// How the file is to be used; some damage matters only for writing.
enum class Access : uint8_t { kRead, kReadWrite };

struct ParsedHeader {
  Header header;
  std::vector<std::string> warnings;  // what was let pass, for people
};

// Bytes of the start of a file that ParseHeader() wants, given its first 24 bytes (or all of a
// shorter file): the header's cluster. kFailedPrecondition if these bytes are no qcow2 header.
absl::StatusOr<std::size_t> HeaderBytesWanted(Bytes start);

// Parses and checks the header in `start`, the first HeaderBytesWanted() bytes of a file of
// `file_size` bytes, or all bytes of a shorter one. Verdicts: gabion's table of open-time checks.
// kFailedPrecondition names the field that is wrong; kUnimplemented: a feature that Gabion does not
// have, with its name from the file's table of feature names where it has one. Names from the file
// are escaped in messages, but not in the Header: they need not be UTF-8.
// For kRead, a snapshot table that the file does not hold becomes one without snapshots.
absl::StatusOr<ParsedHeader> ParseHeader(Bytes start, ByteCount file_size, Access access);

// The bytes of the header with all its extensions and the backing file's name: what stands at the
// start of the file, padded with zeros to a multiple of 8. kInvalidArgument if it does not fit into
// one cluster or has a field that its version or header_length has no room for. Keeps unknown
// extensions, feature names, unknown feature bits and the tail as they are; parsing the result
// gives `header` again.
absl::StatusOr<std::vector<std::byte>> SerializeHeader(const Header& header);

// The table of names of the features that Gabion knows, as it writes it into new images.
std::vector<std::byte> FeatureNames();

}  // namespace gabion::qcow2
