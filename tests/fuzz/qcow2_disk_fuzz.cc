// A qcow2 file of any bytes, opened, mapped, read, written, zeroed, grown and closed: whatever its
// tables say, nothing reads or writes out of bounds, hangs, or takes memory that the file does not
// account for; and an image that was opened reads back what was written to it.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/check.h"
#include "engine/formats/qcow2/qcow2_node.h"
#include "engine/runtime/ready_queue.h"
#include "tests/support_io/memory_file.h"

namespace gabion::qcow2 {
namespace {

constexpr uint64_t kMostBytes = 1 * kMiB;  // that one request covers
constexpr std::size_t kExtents = 64;

template <typename T>
T Run(runtime::ReadyQueue& ready, Task<T> task) {
  while (!task.done()) CHECK_GT(ready.RunOnce(), 0u);
  return task.Take();
}

// Where the disk is looked at: its start, its middle, its end.
std::vector<ByteRange> Places(uint64_t size) {
  std::vector<ByteRange> places;
  const uint64_t length = std::min<uint64_t>(size, 3 * kKiB + 7);
  for (const uint64_t at : {uint64_t{0}, size / 2, size - length}) {
    places.push_back(Range(at, std::min(length, size - at)));
  }
  return places;
}

void Look(runtime::ReadyQueue& ready, Qcow2Node& node) {
  const uint64_t size = node.limits().size.value;
  std::vector<std::byte> buffer;
  for (const ByteRange place : Places(size)) {
    buffer.resize(place.length.value);
    Run(ready, node.Read(place, buffer)).IgnoreError();
    const ByteRange rest = {place.offset, ByteOffset{size} - place.offset};
    const auto extents = Run(ready, node.BlockStatus(rest, kExtents));
    if (!extents.ok()) continue;
    CHECK(!extents->empty());
    CHECK_LE(extents->size(), kExtents);
    CHECK_EQ(extents->front().range.offset.value, place.offset.value);
    CHECK_LE(extents->back().range.end().value, size);
  }
}

void Change(runtime::ReadyQueue& ready, Qcow2Node& node) {
  const uint64_t size = node.limits().size.value;
  std::vector<std::byte> buffer;
  for (const ByteRange place : Places(size)) {
    const std::vector<std::byte> content(place.length.value, std::byte{0x5a});
    const absl::Status written = Run(ready, node.Write(place, content, {}));
    buffer.resize(content.size());
    if (written.ok() && Run(ready, node.Read(place, buffer)).ok()) CHECK(buffer == content);
    Run(ready, node.Discard(place)).IgnoreError();
    const bool keeps = place.offset.value % 2 != 0;
    const absl::Status zeroed = Run(ready, node.Zero(place, {.may_unmap = !keeps}));
    if (!zeroed.ok() || !Run(ready, node.Read(place, buffer)).ok()) continue;
    CHECK(std::all_of(buffer.begin(), buffer.end(), [](std::byte b) { return b == std::byte{0}; }));
  }
  Run(ready, node.Flush()).IgnoreError();
  if (size <= kMostBytes) Run(ready, node.Resize(ByteCount{size + 70000})).IgnoreError();
}

void Play(const uint8_t* data, std::size_t size) {
  runtime::ReadyQueue ready;
  auto file = std::make_unique<test::MemoryFile>(size);
  std::memcpy(file->bytes().data(), data, size);
  auto opened = Run(ready, OpenQcow2(std::move(file), {.name = "images/a"}, ready));
  if (!opened.ok()) return;
  Qcow2Node& node = **opened;
  if (node.limits().size.value > 0) {
    Look(ready, node);
    const bool may_change = node.limits().writable && Run(ready, node.BeginWriting()).ok();
    if (may_change) Change(ready, node);
    Look(ready, node);
  }
  Run(ready, node.Close()).IgnoreError();
}

}  // namespace
}  // namespace gabion::qcow2

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  if (size > 0) gabion::qcow2::Play(data, size);
  return 0;
}
