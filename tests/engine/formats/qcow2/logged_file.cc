#include "tests/engine/formats/qcow2/logged_file.h"

#include <algorithm>

#include "engine/base/align.h"
#include "engine/base/check.h"

namespace gabion::qcow2::testing {
namespace {

constexpr uint64_t kSector = 512;

void Put(ImageFile& image, uint64_t offset, Bytes bytes) {
  if (image.size() < offset + bytes.size()) image.resize(offset + bytes.size());
  std::ranges::copy(bytes, image.begin() + static_cast<std::ptrdiff_t>(offset));
}

}  // namespace

LoggedFile::LoggedFile(const ImageFile& image, uint32_t alignment)
    : before_(image), alignment_(alignment), memory_(image.size()) {
  memory_.bytes() = image;
}

void LoggedFile::CheckAligned(ByteOffset offset, Bytes buffer) const {
  const ByteRange range{offset, ByteCount{buffer.size()}};
  CHECK(IsAligned(range, {alignment_}) || IsAlignedWithin(range, {alignment_}, size()));
  CHECK(IsMultiple(reinterpret_cast<uintptr_t>(buffer.data()), alignment_));
}

Task<absl::Status> LoggedFile::Read(ByteOffset offset, MutableBytes dst) {
  CheckAligned(offset, dst);
  return memory_.Read(offset, dst);
}

Task<absl::Status> LoggedFile::Write(ByteOffset offset, Bytes src, bool durable) {
  CheckAligned(offset, src);
  CHECK(!durable);
  steps_.push_back({false, offset.value, {src.begin(), src.end()}});
  return memory_.Write(offset, src, durable);
}

Task<absl::Status> LoggedFile::Sync() {
  steps_.push_back({.sync = true});
  return memory_.Sync();
}

Task<absl::Status> LoggedFile::Zero(ByteRange, io::ZeroMode) {
  return absl::Status(absl::UnimplementedError("zero"));
}

Task<absl::Status> LoggedFile::Resize(ByteCount) {
  return absl::Status(absl::UnimplementedError("resize"));
}

ImageFile LoggedFile::AfterCrash(std::size_t steps, test::RandomSource& random) const {
  ImageFile image = before_;
  const auto end = steps_.begin() + static_cast<std::ptrdiff_t>(steps);
  auto synced = end;
  while (synced != steps_.begin() && !std::prev(synced)->sync) --synced;
  for (auto step = steps_.begin(); step != synced; ++step) Put(image, step->offset, step->bytes);
  for (auto step = synced; step != end; ++step) {
    const Bytes bytes(step->bytes);
    for (uint64_t at = 0; at < bytes.size();) {
      const uint64_t in_sector = (step->offset + at) % kSector;
      const uint64_t length = std::min<uint64_t>(kSector - in_sector, bytes.size() - at);
      if (random.OneIn(2)) Put(image, step->offset + at, bytes.subspan(at, length));
      at += length;
    }
  }
  return image;
}

}  // namespace gabion::qcow2::testing
