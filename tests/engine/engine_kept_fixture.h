// What tests of filters that keep something have in common.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <future>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/engine/engine_filters_fixture.h"
#include "tests/support/random_source.h"

namespace gabion::engine {

class EngineKeptFiltersTest : public EngineFiltersTest {
 protected:
  std::string FileOf(const ImageSpec& image) const {
    std::ifstream file(directory_ / "images" / image.file_name, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::string PartOfFile(const ImageSpec& image, uint64_t offset, std::size_t length) const {
    return FileOf(image).substr(offset, length);
  }
  void WriteFile(const ImageSpec& image, uint64_t offset, const std::string& bytes) const {
    std::fstream file(directory_ / "images" / image.file_name,
                      std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(offset));
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }
  std::string RandomBytes(std::size_t length) {
    std::string bytes(length, 0);
    random_.FillNonZero({reinterpret_cast<std::byte*>(bytes.data()), bytes.size()});
    return bytes;
  }

  // A qcow2 image on top of image a.
  ImageSpec Overlay(const std::string& id) {
    ImageSpec spec = Image(id);
    spec.format = ImageFormat::kQcow2;
    spec.backing = {Image("a")};
    const auto made = Wait<absl::StatusOr<ImageInfo>>(
        [&](auto done) { engine_->CreateImage(spec, ByteCount{kBytes}, std::move(done)); });
    EXPECT_TRUE(made.ok()) << made.status();
    return spec;
  }
  // A qcow2 image with nothing in it.
  ImageSpec Empty(const std::string& id, uint64_t size = kBytes) {
    ImageSpec spec = Image(id);
    spec.format = ImageFormat::kQcow2;
    const auto made = Wait<absl::StatusOr<ImageInfo>>(
        [&](auto done) { engine_->CreateImage(spec, ByteCount{size}, std::move(done)); });
    EXPECT_TRUE(made.ok()) << made.status();
    return spec;
  }
  absl::StatusOr<ExportState> Serve(const std::string& id, ImageSpec image, bool read_only = false,
                                    std::vector<FilterEntry> entries = {}) {
    return CreateExport(SpecOf(id, std::move(image), read_only, std::move(entries)));
  }
  static ExportSpec SpecOf(const std::string& id, ImageSpec image, bool read_only,
                           std::vector<FilterEntry> entries) {
    ExportSpec spec = Export(id, "a");
    spec.image = std::move(image);
    spec.read_only = read_only;
    spec.filters = std::move(entries);
    return spec;
  }
  absl::StatusOr<block::ExtentList> Map(const std::string& name) {
    using Opened = absl::StatusOr<std::unique_ptr<Target>>;
    const Opened target =
        Wait<Opened>([&](auto done) { engine_->OpenExportTarget(name, std::move(done)); });
    if (!target.ok()) return target.status();
    return Wait<absl::StatusOr<block::ExtentList>>(
        [&](auto done) { (*target)->Map(Range(0, kBytes), 1000, std::move(done)); });
  }

  static std::string Read(const Nbd& nbd, uint64_t offset, std::size_t length) {
    std::string bytes(length, 'r');
    if (nbd_pread(nbd.get(), bytes.data(), length, offset, 0) != 0) return nbd_get_error();
    return bytes;
  }
  static void Write(const Nbd& nbd, uint64_t offset, const std::string& bytes) {
    ASSERT_EQ(nbd_pwrite(nbd.get(), bytes.data(), bytes.size(), offset, 0), 0) << nbd_get_error();
  }
  // A change that is refused until the end of the last client is noticed.
  absl::StatusOr<ExportState> ChangeAlone(const std::vector<FilterEntry>& entries) {
    absl::StatusOr<ExportState> changed = Change(entries);
    while (ReasonIn(changed.status()) == "STACK_INCOMPATIBLE_WITH_CONNECTIONS") {
      changed = Change(entries);
    }
    return changed;
  }

  std::future<absl::StatusOr<ExportState>> BeginChange(std::vector<FilterEntry> entries) {
    ExportSpec spec = Export("e", "a");
    spec.filters = std::move(entries);
    auto promise = std::make_unique<std::promise<absl::StatusOr<ExportState>>>();
    std::future<absl::StatusOr<ExportState>> future = promise->get_future();
    engine_->UpdateExport(std::move(spec), [promise = std::move(promise)](auto state) mutable {
      promise->set_value(std::move(state));
    });
    return future;
  }

  test::RandomSource random_;
};

inline FilterEntry CopyOnRead() { return Entry("fill", filters::CopyOnReadOptions{}); }
inline FilterEntry Cow(bool in_file = false) { return Entry("cow", CowEntry{.in_file = in_file}); }
inline FilterEntry CowIn(const ImageSpec& image, const std::string& id = "cow") {
  return Entry(id, CowEntry{.image = image});
}
inline FilterEntry Stats(const std::string& id) { return Entry(id, filters::StatsOptions{}); }
inline FilterEntry Cache(filters::CacheOptions::Mode mode = filters::CacheOptions::Mode::kWriteback,
                         bool in_file = false) {
  CacheEntry cache{.in_file = in_file};
  cache.options.mode = mode;
  cache.options.size = kMiB;
  return Entry("cache", cache);
}

}  // namespace gabion::engine
