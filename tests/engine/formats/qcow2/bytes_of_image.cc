#include "tests/engine/formats/qcow2/bytes_of_image.h"

#include <algorithm>
#include <fstream>
#include <iterator>

#include "engine/base/align.h"
#include "engine/base/bytes.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"

namespace gabion::qcow2::testing {
namespace {

constexpr std::size_t kCluster = 65536;

}  // namespace

ImageFile NewImage(const NewImageLayout& layout) {
  ImageFile file(layout.file_bytes());
  layout.Fill(0, MutableBytes(file).first(layout.metadata_bytes()));
  return file;
}

ImageFile ImageForVerdicts() {
  CreateOptions options;
  options.size = kMiB;
  const auto layout = NewImageLayout::Plan(options);
  CHECK(layout.ok());
  ImageFile file = NewImage(*layout);
  const std::size_t snapshots = file.size();
  file.resize(snapshots + 2 * kCluster);

  Header header = layout->header();
  header.snapshot_count = 1;
  header.snapshots_offset = snapshots;
  header.bitmaps = BitmapsExtension{1, 32, snapshots + kCluster};
  header.autoclear = kAutoclearBitmaps;
  const auto bytes = SerializeHeader(header);
  CHECK(bytes.ok());
  std::ranges::copy(*bytes, file.begin());
  return file;
}

void Put32(ImageFile& file, std::size_t at, uint32_t value) { StoreBe32(&file.at(at), value); }
void Put64(ImageFile& file, std::size_t at, uint64_t value) { StoreBe64(&file.at(at), value); }

std::size_t FindExtension(const ImageFile& file, uint32_t type) {
  std::size_t at = LoadBe32(&file.at(kHeaderLengthField));
  while (true) {
    const uint32_t found = LoadBe32(&file.at(at));
    if (found == type) return at + 8;
    if (found == kExtensionEnd) return 0;
    at += 8 + RoundUp(LoadBe32(&file.at(at + 4)), 8);
  }
}

void AddExtension(ImageFile& file, uint32_t type, const std::string& data) {
  ImageFile added(8 + RoundUp(data.size(), 8));
  Put32(added, 0, type);
  Put32(added, 4, static_cast<uint32_t>(data.size()));
  std::ranges::copy(AsBytes(data), added.begin() + 8);
  const auto first = file.begin() + LoadBe32(&file.at(kHeaderLengthField));
  const auto end = file.begin() + (int64_t{1} << LoadBe32(&file.at(kClusterBitsField)));
  std::move_backward(first, end - static_cast<std::ptrdiff_t>(added.size()), end);
  std::ranges::copy(added, first);
}

void AddBackingFile(ImageFile& file, std::size_t at, const std::string& name) {
  Put64(file, kBackingOffsetField, at);
  Put32(file, kBackingSizeField, static_cast<uint32_t>(name.size()));
  std::ranges::copy(AsBytes(name), file.begin() + static_cast<std::ptrdiff_t>(at));
}

ImageFile ReadWhole(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  const Bytes bytes = AsBytes(text);
  return {bytes.begin(), bytes.end()};
}

void WriteWhole(const std::string& path, const ImageFile& file) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << AsText(file);
  out.close();
  CHECK(out.good());
}

absl::StatusOr<ParsedHeader> Parse(const ImageFile& file, Access access) {
  const Bytes all(file);
  ASSIGN_OR_RETURN(const std::size_t wanted,
                   HeaderBytesWanted(all.first(std::min<std::size_t>(all.size(), 24))));
  return ParseHeader(all.first(std::min(all.size(), wanted)), ByteCount{file.size()}, access);
}

}  // namespace gabion::qcow2::testing
