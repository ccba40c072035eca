// Filters of served exports that keep changes in an image.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/engine/engine_kept_fixture.h"

namespace gabion::engine {
namespace {

using ::testing::AnyOf;
using ::testing::Eq;
using ::testing::HasSubstr;

class EngineKeptChangesTest : public EngineKeptFiltersTest {};

TEST_P(EngineKeptChangesTest, ChangesThatAreKeptInAnImageStay) {
  const std::string content = RandomBytes(kBytes);
  WriteFile(Image("a"), 0, content);
  const ImageSpec kept = Empty("kept");
  std::string model = content;
  for (int round = 0; round < 3; ++round) {
    ASSERT_TRUE(Create({Stats("s"), CowIn(kept)}).ok());
    {
      const Nbd nbd = Connect("e");
      ASSERT_NE(nbd, nullptr);
      EXPECT_TRUE(Read(nbd, 0, kBytes) == model) << round;
      const std::string written = RandomBytes(100'000);
      const uint64_t at = random_.Below(kBytes - written.size());
      Write(nbd, at, written);
      model.replace(at, written.size(), written);
      const uint64_t zeroed = random_.Below(kBytes - 200'000);
      ASSERT_EQ(nbd_zero(nbd.get(), 200'000, zeroed, 0), 0) << nbd_get_error();
      model.replace(zeroed, 200'000, std::string(200'000, '\0'));
      ASSERT_EQ(nbd_flush(nbd.get(), 0), 0);
      // Other filters come and go, and the entry may have another name.
      ASSERT_TRUE(Change({CowIn(kept, "other"), Stats("below")}).ok());
      EXPECT_TRUE(Read(nbd, 0, kBytes) == model);
    }
    ASSERT_EQ(DeleteExport("exports/e", DeleteMode::kHard), absl::OkStatus());
    EXPECT_TRUE(FileOf(Image("a")) == content);
  }
  // Read only, it is shown and not written to.
  ASSERT_TRUE(Serve("e", Image("a"), true, {CowIn(kept)}).ok());
  {
    const Nbd nbd = Connect("e");
    ASSERT_NE(nbd, nullptr);
    EXPECT_EQ(nbd_is_read_only(nbd.get()), 1);
    EXPECT_TRUE(Read(nbd, 0, kBytes) == model);
  }
  ExportSpec writable = SpecOf("e", Image("a"), false, {CowIn(kept)});
  absl::StatusOr<ExportState> changed = UpdateExport(writable);
  while (ReasonIn(changed.status()) == "STACK_INCOMPATIBLE_WITH_CONNECTIONS") {
    changed = UpdateExport(writable);
  }
  ASSERT_TRUE(changed.ok()) << changed.status();
  {
    const Nbd nbd = Connect("e");
    ASSERT_NE(nbd, nullptr);
    Write(nbd, 5, "later");
    model.replace(5, 5, "later");
    EXPECT_TRUE(Read(nbd, 0, kBytes) == model);
  }
  EXPECT_TRUE(FileOf(Image("a")) == content);
  ASSERT_TRUE(ChangeAlone({}).ok());
  const Nbd nbd = Connect("e");
  ASSERT_NE(nbd, nullptr);
  EXPECT_TRUE(Read(nbd, 0, kBytes) == content) << "what is kept is not the image's";
}

TEST_P(EngineKeptChangesTest, AnImageThatCannotKeepChangesIsRefused) {
  ASSERT_TRUE(CreateImage("raw", kBytes).ok());
  const ImageSpec kept = Empty("kept");
  const struct {
    ImageSpec image;
    const char* message;
  } cases[] = {{Image("raw"), "no qcow2 image without a backing image"},
               {Overlay("o"), "no qcow2 image without a backing image"}};
  for (const auto& one : cases) {
    const auto refused = Create({Stats("s"), CowIn(one.image)});
    EXPECT_EQ(ReasonIn(refused.status()), "FILTER_PARAMETERS_INVALID");
    EXPECT_EQ(MetadataIn(refused.status(), "entry-id"), "cow");
    EXPECT_EQ(MetadataIn(refused.status(), "index"), "1");
    EXPECT_EQ(MetadataIn(refused.status(), "field"), "cow.image.image");
    EXPECT_THAT(std::string(refused.status().message()), HasSubstr(one.message));
  }
  // Twice in a stack, for two exports, or as the disk itself.
  EXPECT_FALSE(Create({CowIn(kept), CowIn(kept, "second")}).ok());
  EXPECT_FALSE(Serve("k", kept, false, {CowIn(kept)}).ok());
  ASSERT_TRUE(Create({CowIn(kept)}).ok());
  EXPECT_FALSE(Serve("f", Image("raw"), false, {CowIn(kept)}).ok());
  EXPECT_FALSE(Serve("k", kept).ok());
  // It stays above the same bytes.
  const FilterEntry moved = Entry("moved", filters::SliceOptions{.range = Range(512, 0)});
  for (const auto& refused : {Change({CowIn(kept), moved}), Check({CowIn(kept), moved})}) {
    EXPECT_EQ(ReasonIn(refused.status()), "FILTER_PARAMETERS_INVALID");
    EXPECT_THAT(std::string(refused.status().message()), HasSubstr("above other bytes"));
  }
  EXPECT_TRUE(Change({Stats("s"), CowIn(kept), Stats("t")}).ok());
  const auto in_use =
      Wait<absl::Status>([&](auto done) { engine_->CheckRemoval(kept, std::move(done)); });
  EXPECT_THAT(ReasonIn(in_use), AnyOf(Eq("IMAGE_IN_USE"), Eq("IMAGE_LOCKED")));
  ASSERT_EQ(DeleteExport("exports/e", DeleteMode::kHard), absl::OkStatus());
  EXPECT_TRUE(Serve("k", kept).ok());
}

TEST_P(EngineKeptChangesTest, WhatIsBelowStaysWhatItIs) {
  const ImageSpec kept = Empty("kept");
  const auto lost = Create({CowIn(kept), Cow()});
  EXPECT_EQ(ReasonIn(lost.status()), "FILTER_PARAMETERS_INVALID");
  EXPECT_THAT(std::string(lost.status().message()), HasSubstr("changes that do not stay"));
  ASSERT_TRUE(Create({CowIn(kept)}).ok());
  const auto writer = Serve("f", Image("a"));
  EXPECT_EQ(ReasonIn(writer.status()), "FILTER_PARAMETERS_INVALID");
  ASSERT_TRUE(Serve("f", Image("a"), true).ok());
  // The other way round.
  ASSERT_EQ(DeleteExport("exports/e", DeleteMode::kHard), absl::OkStatus());
  ASSERT_TRUE(UpdateExport(SpecOf("f", Image("a"), false, {})).ok());
  const auto second = Create({Stats("s"), CowIn(kept)});
  EXPECT_EQ(ReasonIn(second.status()), "FILTER_PARAMETERS_INVALID");
  EXPECT_EQ(MetadataIn(second.status(), "entry-id"), "cow");
  EXPECT_EQ(MetadataIn(second.status(), "field"), "cow.image");
}

TEST_P(EngineKeptChangesTest, OnceItIsReadOnlyOthersCanStandOnWhatIsKept) {
  const ImageSpec kept = Empty("kept");
  ASSERT_TRUE(Create({CowIn(kept)}).ok());
  ASSERT_TRUE(UpdateExport(SpecOf("e", Image("a"), true, {CowIn(kept)})).ok());
  ImageSpec above = Image("above");
  above.format = ImageFormat::kQcow2;
  above.backing = {kept};
  const auto made = Wait<absl::StatusOr<ImageInfo>>(
      [&](auto done) { engine_->CreateImage(above, ByteCount{kBytes}, std::move(done)); });
  ASSERT_TRUE(made.ok()) << made.status();
  const auto served = Serve("above", above);
  EXPECT_TRUE(served.ok()) << served.status();
}

TEST_P(EngineKeptChangesTest, AnImageThatKeepsChangesGrowsWithTheDisk) {
  const ImageSpec kept = Empty("kept", kBytes - 512);
  ASSERT_TRUE(Create({CowIn(kept)}).ok());
  {
    const Nbd nbd = Connect("e");
    ASSERT_NE(nbd, nullptr);
    EXPECT_EQ(nbd_get_size(nbd.get()), static_cast<int64_t>(kBytes));
    Write(nbd, kBytes - 5, "below");
    ASSERT_EQ(nbd_flush(nbd.get(), 0), 0);
  }
  const uint64_t size = kBytes + kMiB + 512;
  const auto grown = Wait<absl::StatusOr<ImageInfo>>(
      [&](auto done) { engine_->GrowImage(Image("a"), ByteCount{size}, std::move(done)); });
  ASSERT_TRUE(grown.ok()) << grown.status();
  {
    Nbd nbd = Connect("e");
    while (nbd_get_size(nbd.get()) != static_cast<int64_t>(size)) nbd = Connect("e");
    Write(nbd, size - 5, "grown");
    ASSERT_EQ(nbd_flush(nbd.get(), 0), 0);
  }
  ASSERT_EQ(DeleteExport("exports/e", DeleteMode::kHard), absl::OkStatus());
  ASSERT_TRUE(Create({CowIn(kept)}).ok());
  const Nbd nbd = Connect("e");
  ASSERT_NE(nbd, nullptr);
  EXPECT_EQ(nbd_get_size(nbd.get()), static_cast<int64_t>(size));
  EXPECT_EQ(Read(nbd, kBytes - 5, 10), std::string("below") + std::string(5, '\0'));
  EXPECT_EQ(Read(nbd, size - 5, 5), "grown");
}

TEST_P(EngineKeptChangesTest, ExplainTellsWhereChangesAreKept) {
  const ImageSpec kept = Empty("kept");
  ASSERT_TRUE(Create({Stats("s"), CowIn(kept), Stats("below")}).ok());
  {
    const Nbd nbd = Connect("e");
    ASSERT_NE(nbd, nullptr);
    Write(nbd, 128 * kKiB, std::string(64 * kKiB, 'x'));
  }
  const std::vector<Explanation> told = Explain("exports/e", Range(0, 192 * kKiB));
  ASSERT_EQ(told.size(), 2u);
  EXPECT_EQ(told[0].range, Range(0, 128 * kKiB));
  ASSERT_EQ(told[0].steps.size(), 3u);
  EXPECT_EQ(told[0].steps[1].effect, ExplainedStep::Effect::kNone);
  ASSERT_EQ(told[0].layers.size(), 1u);
  EXPECT_EQ(told[0].layers[0].image, Image("a").name);
  ASSERT_EQ(told[1].steps.size(), 2u);
  EXPECT_EQ(told[1].steps[1].effect, ExplainedStep::Effect::kKept);
  EXPECT_FALSE(told[1].steps[1].below.has_value());
  ASSERT_EQ(told[1].layers.size(), 1u);
  EXPECT_EQ(told[1].layers[0].image, kept.name);
  EXPECT_EQ(told[1].layers[0].state, ExplainedLayer::State::kData);
  EXPECT_TRUE(told[1].layers[0].host_offset.has_value());
  EXPECT_EQ(told[1].told->depth, 1u);
}

INSTANTIATE_TEST_SUITE_P(Shards, EngineKeptChangesTest, ::testing::Values(1u, 3u));

}  // namespace
}  // namespace gabion::engine
