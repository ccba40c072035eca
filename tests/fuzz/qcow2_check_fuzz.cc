// Fuzz target: what an image may hold. The first byte of the input says how it is checked, the rest
// is the file.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/base/check.h"
#include "engine/formats/qcow2/check.h"
#include "engine/formats/qcow2/snapshots.h"
#include "tests/support_io/memory_file.h"

namespace gabion::qcow2 {
namespace {

constexpr std::size_t kMaxFindings = 20;

uint64_t BytesOf(test::MemoryFile& file) { return file.bytes().size(); }

absl::StatusOr<ParsedHeader> Parse(Bytes file) {
  const auto wanted = HeaderBytesWanted(file.first(std::min<std::size_t>(24, file.size())));
  if (!wanted.ok()) return wanted.status();
  return ParseHeader(file.first(std::min(*wanted, file.size())), ByteCount{file.size()},
                     Access::kRead);
}

void CheckSanity(const CheckResult& result) {
  CHECK(result.findings.size() <= kMaxFindings);
  CHECK_EQ(result.findings.size() + result.findings_left_out,
           result.corruptions + result.leaks + result.check_errors);
  CHECK(result.compressed_clusters <= result.fragmented_clusters);
  CHECK(result.fragmented_clusters <= result.allocated_clusters);
}

void TryFile(uint8_t how, Bytes bytes) {
  const auto parsed = Parse(bytes);
  if (!parsed.ok()) return;
  test::MemoryFile file(bytes.size());
  std::ranges::copy(bytes, file.bytes().begin());
  file.unit = how & 1 ? 512 : 1;
  for (const Access access : {Access::kRead, Access::kReadWrite}) {
    (void)LoadSnapshots(file, parsed->header, access).Take();
  }
  CheckOptions options;
  options.max_findings = kMaxFindings;
  options.window_clusters = how & 2 ? 64 : RefcountMap::kDefaultWindow;
  options.batch_tables = how & 4 ? 1 : 100;
  const auto before = CheckImage(file, parsed->header, options, nullptr).Take();
  CHECK_EQ(file.count("write"), 0u);
  if (!before.ok()) return;
  CheckSanity(*before);
  options.repair = how & 8 ? Repair::kLeaks : Repair::kAll;
  const auto repaired = CheckImage(file, parsed->header, options, nullptr).Take();
  if (!repaired.ok()) return;
  CheckSanity(*repaired);
  CHECK(file.synced());
  CHECK(repaired->leaks <= before->leaks || repaired->corruptions > 0);
  CHECK(BytesOf(file) <= bytes.size() + 4 * kMiB);
  // What it says is left is what the next look finds.
  options.repair = Repair::kNone;
  const auto after = CheckImage(file, repaired->header, options, nullptr).Take();
  CHECK(after.ok());
  CHECK_EQ(after->corruptions, repaired->corruptions);
  CHECK_EQ(after->leaks, repaired->leaks);
}

}  // namespace
}  // namespace gabion::qcow2

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  gabion::qcow2::TryFile(data[0], std::as_bytes(std::span(data + 1, size - 1)));
  return 0;
}
