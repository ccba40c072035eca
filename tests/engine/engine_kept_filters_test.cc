// Filters of served exports that keep something, or need more than the export's image: copy on
// read, copy on write, caches, comparison.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <fstream>
#include <future>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/engine/engine_kept_fixture.h"

namespace gabion::engine {
namespace {

using ::testing::AnyOf;
using ::testing::Eq;
using ::testing::HasSubstr;

constexpr uint64_t kMiddle = kBytes / 2;

TEST_P(EngineKeptFiltersTest, WhatIsReadFillsTheImageAlsoThroughAReadOnlyExport) {
  const std::string content = RandomBytes(kBytes);
  WriteFile(Image("a"), 0, content);
  const ImageSpec overlay = Overlay("o");
  ASSERT_TRUE(Serve("e", overlay, true, {CopyOnRead()}).ok());
  {
    const Nbd nbd = Connect("e");
    ASSERT_NE(nbd, nullptr);
    EXPECT_EQ(nbd_is_read_only(nbd.get()), 1);
    EXPECT_TRUE(Read(nbd, 0, kBytes) == content);
  }
  const auto extents = Map("exports/e");
  ASSERT_TRUE(extents.ok()) << extents.status();
  for (const block::Extent& extent : *extents) EXPECT_EQ(extent.layer, 1u);
  EXPECT_EQ(Counter("fill", "bytes_filled"), kBytes);
  ASSERT_EQ(DeleteExport("exports/e", DeleteMode::kHard), absl::OkStatus());
  ASSERT_TRUE(Serve("e", overlay).ok());
  const Nbd nbd = Connect("e");
  ASSERT_NE(nbd, nullptr);
  EXPECT_TRUE(Read(nbd, 0, kBytes) == content);
  const auto kept = Map("exports/e");
  ASSERT_TRUE(kept.ok());
  for (const block::Extent& extent : *kept) EXPECT_EQ(extent.layer, 1u);
}

TEST_P(EngineKeptFiltersTest, NobodyElseWritesToAnImageThatIsFilledOrCached) {
  for (const FilterEntry& entry : {CopyOnRead(), Cache()}) {
    const std::string field = entry.id == "fill" ? "copy_on_read" : "cache";
    ASSERT_TRUE(Create({entry}).ok());
    const auto second = Serve("f", Image("a"));
    EXPECT_EQ(ReasonIn(second.status()), "FILTER_PARAMETERS_INVALID");
    EXPECT_THAT(std::string(second.status().message()), HasSubstr("would not see"));
    ASSERT_TRUE(Serve("f", Image("a"), true).ok());
    EXPECT_EQ(ReasonIn(UpdateExport(Export("f", "a")).status()), "FILTER_PARAMETERS_INVALID");
    EXPECT_TRUE(Check({entry, Stats("s")}).ok()) << "its own use is not in its way";
    // The other way round.
    ASSERT_TRUE(Change({}).ok());
    ASSERT_TRUE(UpdateExport(Export("f", "a")).ok());
    for (const auto& refused : {Change({Stats("s"), entry}), Check({Stats("s"), entry})}) {
      EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
      EXPECT_EQ(ReasonIn(refused.status()), "FILTER_PARAMETERS_INVALID");
      EXPECT_EQ(MetadataIn(refused.status(), "entry-id"), entry.id);
      EXPECT_EQ(MetadataIn(refused.status(), "index"), "1");
      EXPECT_EQ(MetadataIn(refused.status(), "field"), field);
    }
    ASSERT_EQ(DeleteExport("exports/f", DeleteMode::kHard), absl::OkStatus());
    EXPECT_TRUE(Change({Stats("s"), entry}).ok());
    ASSERT_EQ(DeleteExport("exports/e", DeleteMode::kHard), absl::OkStatus());
  }
}

TEST_P(EngineKeptFiltersTest, AnImageThatOthersStandOnIsNotFilled) {
  ASSERT_TRUE(Serve("o", Overlay("o")).ok());
  const ExportSpec spec = SpecOf("e", Image("a"), true, {CopyOnRead()});
  // Where it is open for both, the image knows; elsewhere its file's lock does.
  EXPECT_THAT(ReasonIn(CreateExport(spec).status()),
              AnyOf(Eq("IMAGE_HAS_DEPENDENTS"), Eq("IMAGE_LOCKED")));
}

TEST_P(EngineKeptFiltersTest, ChangesAreKeptApartAsLongAsTheCowStays) {
  for (const bool in_file : {false, true}) {
    const std::string content = RandomBytes(kBytes);
    WriteFile(Image("a"), 0, content);
    ASSERT_TRUE(Create({Cow(in_file)}).ok());
    Nbd nbd = Connect("e");
    ASSERT_NE(nbd, nullptr);
    std::string model = content;
    const std::string written = RandomBytes(100'000);
    Write(nbd, 12'345, written);
    model.replace(12'345, written.size(), written);
    ASSERT_EQ(nbd_flush(nbd.get(), 0), 0);
    EXPECT_TRUE(Read(nbd, 0, kBytes) == model);
    // Others come and go around it.
    for (const auto& entries : {std::vector{Stats("s"), Cow(in_file)},
                                std::vector{Stats("s"), Cow(in_file), Stats("below")},
                                std::vector{Cow(in_file), Stats("below")}}) {
      const auto changed = Change(entries);
      ASSERT_TRUE(changed.ok()) << changed.status();
      EXPECT_TRUE(Read(nbd, 0, kBytes) == model);
    }
    EXPECT_EQ(Counter("cow", "bytes_written"), written.size());
    FilterEntry bypassed = Cow(in_file);
    bypassed.bypassed = true;
    FilterEntry renamed = Cow(in_file);
    renamed.id = "other";
    const FilterEntry part = Entry("part", filters::ResizeOptions{.bytes = kBytes});
    const FilterEntry moved = Entry("moved", filters::SliceOptions{.range = Range(512, 0)});
    for (const auto& entries :
         {std::vector<FilterEntry>{}, std::vector{bypassed}, std::vector{renamed},
          std::vector{Cow(in_file), Cow(in_file), Stats("t")},
          std::vector{Cow(in_file), part, moved}}) {
      std::vector<FilterEntry> with_ids = entries;
      if (with_ids.size() > 1 && with_ids[1].id == "cow") with_ids[1].id = "second";
      for (const auto& refused : {Change(with_ids), Check(with_ids)}) {
        EXPECT_EQ(ReasonIn(refused.status()), "STACK_INCOMPATIBLE_WITH_CONNECTIONS");
        EXPECT_THAT(std::string(refused.status().message()), HasSubstr("other bytes"));
      }
    }
    EXPECT_TRUE(Read(nbd, 0, kBytes) == model);
    EXPECT_TRUE(FileOf(Image("a")) == content);
    nbd.reset();
    ASSERT_TRUE(ChangeAlone({}).ok());
    nbd = Connect("e");
    ASSERT_NE(nbd, nullptr);
    EXPECT_TRUE(Read(nbd, 0, kBytes) == content);
    nbd.reset();
    ASSERT_EQ(DeleteExport("exports/e", DeleteMode::kHard), absl::OkStatus());
  }
}

TEST_P(EngineKeptFiltersTest, AnImageThatOthersStandOnCanBeWrittenToThroughACow) {
  ASSERT_TRUE(Serve("o", Overlay("o")).ok());
  EXPECT_THAT(ReasonIn(Serve("e", Image("a")).status()),
              AnyOf(Eq("IMAGE_HAS_DEPENDENTS"), Eq("IMAGE_LOCKED")));
  ASSERT_TRUE(Serve("e", Image("a"), false, {Cow()}).ok());
  const Nbd nbd = Connect("e");
  ASSERT_NE(nbd, nullptr);
  Write(nbd, 0, "changed");
  EXPECT_EQ(Read(nbd, 0, 7), "changed");
  const Nbd other = Connect("o");
  ASSERT_NE(other, nullptr);
  EXPECT_EQ(Read(other, 0, 7), std::string(7, '\0'));
  // Without it the image would be written to.
  EXPECT_THAT(ReasonIn(Change({}).status()), AnyOf(Eq("IMAGE_HAS_DEPENDENTS"), Eq("IMAGE_LOCKED")));
  EXPECT_EQ(Read(nbd, 0, 7), "changed");
}

TEST_P(EngineKeptFiltersTest, ACowThatIsFullFailsWritesAndGrowsWithItsImage) {
  const FilterEntry small =
      Entry("cow", CowEntry{.options = {.block_size = 4096}, .max_memory = 8192});
  ASSERT_TRUE(Create({small}).ok());
  {
    const Nbd nbd = Connect("e");
    ASSERT_NE(nbd, nullptr);
    Write(nbd, 0, std::string(8192, 'x'));
    EXPECT_EQ(nbd_pwrite(nbd.get(), "y", 1, 8192, 0), -1);
    EXPECT_EQ(nbd_get_errno(), ENOSPC);
  }
  for (const bool in_file : {false, true}) {
    const uint64_t size = kBytes + (in_file ? 2 * kMiB : kMiB);
    ASSERT_TRUE(ChangeAlone({Cow(in_file)}).ok());
    const auto grown = Wait<absl::StatusOr<ImageInfo>>(
        [&](auto done) { engine_->GrowImage(Image("a"), ByteCount{size}, std::move(done)); });
    ASSERT_TRUE(grown.ok()) << grown.status();
    Nbd nbd = Connect("e");
    while (nbd_get_size(nbd.get()) != static_cast<int64_t>(size)) nbd = Connect("e");
    Write(nbd, size - 5, "ended");
    EXPECT_EQ(Read(nbd, size - 5, 5), "ended");
  }
}

TEST_P(EngineKeptFiltersTest, WhatWasFlushedAndWhatTheExportLeavesBehindIsInTheImage) {
  for (const bool in_file : {false, true}) {
    for (const DeleteMode mode : {DeleteMode::kHard, DeleteMode::kShutdown}) {
      ASSERT_TRUE(Create({Cache(filters::CacheOptions::Mode::kWriteback, in_file)}).ok());
      const Nbd nbd = Connect("e");
      ASSERT_NE(nbd, nullptr);
      const std::string flushed = RandomBytes(5000);
      const std::string left = RandomBytes(5000);
      Write(nbd, 1000, flushed);
      EXPECT_GT(Counter("cache", "dirty_bytes"), 0u);
      EXPECT_NE(PartOfFile(Image("a"), 1000, flushed.size()), flushed);
      ASSERT_EQ(nbd_flush(nbd.get(), 0), 0) << nbd_get_error();
      EXPECT_EQ(PartOfFile(Image("a"), 1000, flushed.size()), flushed);
      Write(nbd, kMiddle, left);
      EXPECT_NE(PartOfFile(Image("a"), kMiddle, left.size()), left);
      EXPECT_EQ(Read(nbd, kMiddle, left.size()), left);
      ASSERT_EQ(DeleteExport("exports/e", mode), absl::OkStatus());
      EXPECT_EQ(PartOfFile(Image("a"), kMiddle, left.size()), left);
    }
  }
  ASSERT_TRUE(Create({Cache()}).ok());
  const std::string left = RandomBytes(5000);
  {
    const Nbd nbd = Connect("e");
    ASSERT_NE(nbd, nullptr);
    Write(nbd, 77, left);
  }
  Stop();
  EXPECT_EQ(PartOfFile(Image("a"), 77, left.size()), left);
}

TEST_P(EngineKeptFiltersTest, AnExportThatBecomesReadOnlyLeavesNothingInItsCache) {
  ASSERT_TRUE(Create({Cache()}).ok());
  const Nbd nbd = Connect("e");
  ASSERT_NE(nbd, nullptr);
  const std::string written = RandomBytes(5000);
  Write(nbd, 1000, written);
  ASSERT_TRUE(UpdateExport(SpecOf("e", Image("a"), true, {Cache()})).ok());
  EXPECT_EQ(Counter("cache", "dirty_bytes"), 0u);
  EXPECT_EQ(PartOfFile(Image("a"), 1000, written.size()), written);
  EXPECT_EQ(Read(nbd, 1000, written.size()), written);
}

TEST_P(EngineKeptFiltersTest, ACacheThatCannotBeWrittenBackStays) {
  const filters::FaultRule rule{.operations = Bit(filters::Operation::kWrite)};
  const FilterEntry broken = Entry("fault", filters::FaultOptions{.rules = {rule}});
  const FilterEntry whole = Entry("fault", filters::FaultOptions{});
  ASSERT_TRUE(Create({Cache(), broken}).ok());
  const Nbd nbd = Connect("e");
  ASSERT_NE(nbd, nullptr);
  const std::string written = RandomBytes(5000);
  Write(nbd, 1000, written);
  EXPECT_FALSE(Change({broken}).ok());
  EXPECT_FALSE(UpdateExport(SpecOf("e", Image("a"), true, {Cache(), broken})).ok());
  EXPECT_GT(Counter("cache", "dirty_bytes"), 0u);
  Write(nbd, kMiddle, written);  // it still takes writes without the disk below
  EXPECT_EQ(Read(nbd, 1000, written.size()), written);
  ASSERT_TRUE(Change({Cache(), whole}).ok());
  const auto changed = Change({whole});
  ASSERT_TRUE(changed.ok()) << changed.status();
  EXPECT_EQ(Read(nbd, 1000, written.size()), written);
  EXPECT_EQ(PartOfFile(Image("a"), kMiddle, written.size()), written);
}

TEST_P(EngineKeptFiltersTest, NotAByteIsLostWhileStacksWithCachesAreExchanged) {
  ASSERT_TRUE(Create({Cache()}).ok());
  Nbd nbd = Connect("e");
  ASSERT_NE(nbd, nullptr);
  std::string model(kBytes, 0);
  using Mode = filters::CacheOptions::Mode;
  for (int round = 0; round < 60; ++round) {
    std::vector<FilterEntry> entries;
    for (const char* id : {"above", "below"}) {
      if (random_.OneIn(2)) entries.push_back(Stats(id));
      if (id[0] == 'b' || random_.OneIn(4)) continue;
      entries.push_back(
          Cache(random_.Pick({Mode::kWritethrough, Mode::kWriteback}), random_.OneIn(3)));
      entries.back().bypassed = random_.OneIn(6);
    }
    // What is written back is on its way for a while.
    entries.push_back(Entry("slow", filters::DelayOptions{.write = std::chrono::milliseconds(1)}));
    std::array<std::string, 8> buffers;
    std::vector<int64_t> cookies;
    for (std::string& buffer : buffers) {
      const ByteRange range = random_.RangeWithin(kBytes / buffers.size() / 4);
      const uint64_t at =
          static_cast<uint64_t>(&buffer - buffers.data()) * (kBytes / 8) + range.offset.value;
      buffer = RandomBytes(range.length.value);
      model.replace(at, buffer.size(), buffer);
      cookies.push_back(
          nbd_aio_pwrite(nbd.get(), buffer.data(), buffer.size(), at, NBD_NULL_COMPLETION, 0));
      ASSERT_GE(cookies.back(), 0) << nbd_get_error();
    }
    const auto finish = [&] {
      while (nbd_aio_in_flight(nbd.get()) > 0) ASSERT_GE(nbd_poll(nbd.get(), -1), 0);
      for (const int64_t cookie : cookies) {
        ASSERT_EQ(nbd_aio_command_completed(nbd.get(), static_cast<uint64_t>(cookie)), 1)
            << nbd_get_error();
      }
    };
    // Either writes are under way meanwhile, or reads of what only the cache has.
    const bool reading = random_.OneIn(2);
    if (reading) {
      ASSERT_NO_FATAL_FAILURE(finish());
    }
    std::future<absl::StatusOr<ExportState>> change = BeginChange(entries);
    while (reading && change.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
      const ByteRange range = random_.RangeWithin(kBytes / 8);
      ASSERT_TRUE(Read(nbd, range.offset.value, range.length.value) ==
                  model.substr(range.offset.value, range.length.value));
    }
    const absl::StatusOr<ExportState> changed = change.get();
    ASSERT_TRUE(changed.ok()) << changed.status();
    if (!reading) {
      ASSERT_NO_FATAL_FAILURE(finish());
    }
    if (round % 4 == 0) {
      ASSERT_TRUE(Read(nbd, 0, kBytes) == model);
    }
  }
  EXPECT_TRUE(Read(nbd, 0, kBytes) == model);
  nbd.reset();
  ASSERT_EQ(DeleteExport("exports/e", DeleteMode::kHard), absl::OkStatus());
  EXPECT_TRUE(FileOf(Image("a")) == model);
}

FilterEntry Verify(ImageSpec reference, filters::VerifyOptions::OnMismatch on_mismatch) {
  return Entry("same", VerifyEntry{.reference = std::move(reference), .options = {on_mismatch}});
}

TEST_P(EngineKeptFiltersTest, ADifferenceBetweenTwoImagesIsFound) {
  using OnMismatch = filters::VerifyOptions::OnMismatch;
  ASSERT_TRUE(CreateImage("b", kBytes).ok());
  const std::string content = RandomBytes(kBytes);
  WriteFile(Image("a"), 0, content);
  WriteFile(Image("b"), 0, content);
  WriteFile(Image("b"), kMiddle, std::string(1, static_cast<char>(content[kMiddle] ^ 1)));
  ASSERT_TRUE(Create({Verify(Image("b"), OnMismatch::kFail)}).ok());
  const Nbd nbd = Connect("e");
  ASSERT_NE(nbd, nullptr);
  EXPECT_EQ(Read(nbd, 0, kMiddle), content.substr(0, kMiddle));
  std::string one(1, 0);
  EXPECT_EQ(nbd_pread(nbd.get(), one.data(), 1, kMiddle, 0), -1);
  EXPECT_EQ(nbd_get_errno(), EIO);
  EXPECT_EQ(Counter("same", "mismatches"), 1u);
  ASSERT_TRUE(Change({Verify(Image("b"), OnMismatch::kReport)}).ok());
  EXPECT_TRUE(Read(nbd, 0, kBytes) == content);
  // Both are written to, and the one that is compared with stays open in the next stack.
  Write(nbd, kMiddle, "healed");
  ASSERT_TRUE(Change({Stats("s"), Verify(Image("b"), OnMismatch::kFail)}).ok());
  EXPECT_EQ(Read(nbd, kMiddle, 6), "healed");
  EXPECT_EQ(PartOfFile(Image("b"), kMiddle, 6), "healed");
}

TEST_P(EngineKeptFiltersTest, AnImageThatIsComparedWithIsInUse) {
  using OnMismatch = filters::VerifyOptions::OnMismatch;
  ASSERT_TRUE(CreateImage("b", kBytes).ok());
  const auto remove = [&] {
    return Wait<absl::Status>(
        [&](auto done) { engine_->DeleteImage(Image("b"), std::move(done)); });
  };
  const FilterEntry verify = Verify(Image("b"), OnMismatch::kFail);
  ASSERT_TRUE(Serve("e", Image("a"), true, {verify}).ok());
  EXPECT_THAT(ReasonIn(remove()), AnyOf(Eq("IMAGE_IN_USE"), Eq("IMAGE_LOCKED")));
  EXPECT_FALSE(Serve("b", Image("b")).ok());
  ASSERT_TRUE(Serve("b", Image("b"), true).ok());
  // An export that begins to write writes to both.
  ASSERT_TRUE(DeleteExport("exports/b", DeleteMode::kHard).ok());
  ASSERT_TRUE(UpdateExport(SpecOf("e", Image("a"), false, {verify})).ok());
  {
    const Nbd nbd = Connect("e");
    ASSERT_NE(nbd, nullptr);
    Write(nbd, 5, "both");
    EXPECT_EQ(PartOfFile(Image("b"), 5, 4), "both");
  }
  EXPECT_THAT(ReasonIn(remove()), AnyOf(Eq("IMAGE_IN_USE"), Eq("IMAGE_LOCKED")));
  FilterEntry bypassed = verify;
  bypassed.bypassed = true;
  ASSERT_TRUE(ChangeAlone({bypassed}).ok());
  EXPECT_EQ(remove(), absl::OkStatus());
  EXPECT_FALSE(Change({verify}).ok());
  EXPECT_FALSE(Check({verify}).ok());
}

INSTANTIATE_TEST_SUITE_P(Shards, EngineKeptFiltersTest, ::testing::Values(1u, 3u));

}  // namespace
}  // namespace gabion::engine
