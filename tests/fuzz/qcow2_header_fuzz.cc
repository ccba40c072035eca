// Fuzz target: the header of a qcow2 file. The input is the start of the file; the file ends with
// it, and once more it is the start of a large one.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "engine/base/align.h"
#include "engine/base/check.h"
#include "engine/formats/qcow2/geometry.h"
#include "engine/formats/qcow2/header.h"

namespace gabion::qcow2 {
namespace {

constexpr ByteCount kLargeFile{uint64_t{1} << 57};

// What whoever opens the image relies on.
void CheckPromises(const Header& header, ByteCount file_size) {
  const Geometry geometry(header);
  CHECK(geometry.L1Entries(header.size) <= header.l1_size);
  CHECK(header.l1_size * uint64_t{8} <= kMaxL1Bytes);
  CHECK(FitsWithin(Range(header.l1_offset, header.l1_size * uint64_t{8}), file_size) ||
        header.l1_size == 0);
  CHECK(header.refcount_table_clusters * header.cluster_size() <= kMaxRefcountTableBytes);
  CHECK(header.snapshot_count <= kMaxSnapshots);
  CHECK(!header.backing_file || !header.backing_file->empty());
}

void Try(Bytes start, ByteCount file_size, Access access) {
  const auto parsed = ParseHeader(start, file_size, access);
  if (!parsed.ok()) {
    CHECK(absl::IsFailedPrecondition(parsed.status()) || absl::IsUnimplemented(parsed.status()));
    return;
  }
  CheckPromises(parsed->header, file_size);
  const auto bytes = SerializeHeader(parsed->header);
  if (!bytes.ok()) {
    // Its extensions had no end mark or padding, for which there was no room.
    CHECK(absl::IsInvalidArgument(bytes.status()));
    return;
  }
  const auto again = ParseHeader(*bytes, kLargeFile, access);
  CHECK(again.ok() && again->header == parsed->header);
}

}  // namespace
}  // namespace gabion::qcow2

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gabion;         // NOLINT: the entry point is outside of the namespace
  using namespace gabion::qcow2;  // NOLINT
  const Bytes start = std::as_bytes(std::span(data, size));
  for (const Access access : {Access::kRead, Access::kReadWrite}) {
    Try(start, ByteCount{size}, access);
    Try(start, kLargeFile, access);
  }
  return 0;
}
