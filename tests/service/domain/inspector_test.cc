#include "service/domain/inspector.h"

#include <gtest/gtest.h>

#include <sstream>

#include "engine/base/status_macros.h"
#include "tests/service/domain/fixture.h"
#include "tests/service/violations_of.h"

namespace gabion::service {
namespace {

using testing::ElementsAre;

class InspectorTest : public DomainFixture {
 protected:
  InspectorTest() {
    EXPECT_TRUE(CreateImage("a", 1000).ok());
    Fill("a.raw", 100, std::string(50, 'x'));
    Fill("a.raw", 900, std::string(100, 'y'));
    EXPECT_TRUE(CreateExport("e", "images/a", [](v1::Export* e) {
                  e->mutable_block_sizes()->set_minimum_bytes(512);
                }).ok());
  }

  // "offset+length:dz depth" of every extent, over all pieces.
  std::vector<std::string> Map(const v1::MapRequest& request) {
    auto cursor = domain_->inspector().Map(request);
    EXPECT_TRUE(cursor.ok()) << cursor.status();
    std::vector<std::string> extents;
    pieces_ = 0;
    while (!(*cursor)->ended()) {
      auto piece = (*cursor)->Next();
      EXPECT_TRUE(piece.ok()) << piece.status();
      if (!piece.ok()) break;
      if (!piece->has_value()) continue;
      ++pieces_;
      EXPECT_LE((*piece)->extents_size(), 1024);
      for (const auto& extent : (*piece)->extents()) {
        std::ostringstream text;
        text << extent.offset() << "+" << extent.length() << ":" << (extent.data() ? "d" : "")
             << (extent.zero() ? "z" : "") << (extent.allocated() ? "a" : "") << extent.depth();
        extents.push_back(text.str());
      }
    }
    return extents;
  }
  static v1::MapRequest MapOf(const std::string& name, uint32_t granularity = 0) {
    v1::MapRequest request;
    request.set_name(name);
    request.set_granularity_bytes(granularity);
    return request;
  }
  absl::StatusOr<v1::WriteResponse> Write(const std::string& name, uint64_t offset,
                                          const std::string& data) {
    v1::WriteRequest request;
    request.set_name(name);
    request.set_offset(offset);
    request.set_data(data);
    return domain_->inspector().Write(request, Call());
  }

  int pieces_ = 0;
};

TEST_F(InspectorTest, MapOfAnImageIsByteExact) {
  EXPECT_THAT(Map(MapOf("images/a")),
              ElementsAre("0+100:z1", "100+50:da1", "150+750:z1", "900+100:da1"));
  EXPECT_EQ(engine_->open_targets(), 0);
}

TEST_F(InspectorTest, MapMergesTowardsData) {
  EXPECT_THAT(Map(MapOf("images/a", 128)), ElementsAre("0+256:da1", "256+640:z1", "896+104:da1"));
}

TEST_F(InspectorTest, MapOfAnExportAsAdvertisedCoversItsPadding) {
  v1::MapRequest request = MapOf("exports/e");
  request.set_as_advertised(true);
  EXPECT_THAT(Map(request), ElementsAre("0+1024:da1"));
}

TEST_F(InspectorTest, ByteExactMapOfAnExportShowsThePaddingInNoLayer) {
  EXPECT_THAT(Map(MapOf("exports/e")),
              ElementsAre("0+100:z1", "100+50:da1", "150+750:z1", "900+100:da1", "1000+24:z0"));
}

TEST_F(InspectorTest, MapTellsTheImageAndTheHostOffset) {
  auto cursor = domain_->inspector().Map(MapOf("exports/e"));
  const auto piece = (*cursor)->Next();
  ASSERT_TRUE(piece.ok() && piece->has_value());
  EXPECT_EQ((*piece)->virtual_size_bytes(), 1024u);
  EXPECT_EQ((*piece)->extents(1).image(), "images/a");
  EXPECT_EQ((*piece)->extents(1).host_offset(), 100u);
  EXPECT_FALSE((*piece)->extents(0).has_host_offset());
  EXPECT_EQ((*piece)->extents(4).image(), "");
}

TEST_F(InspectorTest, RangeIsRoundedToTheGranularityAndCutAtTheEnd) {
  v1::MapRequest request = MapOf("images/a", 128);
  request.set_starting_offset(300);
  request.set_length(1);
  EXPECT_THAT(Map(request), ElementsAre("256+128:z1"));
  request.set_starting_offset(999);
  request.set_length(uint64_t{1} << 63);
  EXPECT_THAT(Map(request), ElementsAre("896+104:da1"));
}

TEST_F(InspectorTest, ResultsCanBeLimitedAndContinued) {
  v1::MapRequest request = MapOf("images/a");
  request.set_max_results(2);
  EXPECT_THAT(Map(request), ElementsAre("0+100:z1", "100+50:da1"));
  request.set_starting_offset(150);
  EXPECT_THAT(Map(request), ElementsAre("150+750:z1", "900+100:da1"));
}

TEST_F(InspectorTest, MapAtTheEndIsOneEmptyPiece) {
  v1::MapRequest request = MapOf("images/a");
  request.set_starting_offset(1000);
  EXPECT_THAT(Map(request), ElementsAre());
  EXPECT_EQ(pieces_, 1);
}

TEST_F(InspectorTest, MapBeyondTheEndIsRefused) {
  v1::MapRequest request = MapOf("images/a");
  request.set_starting_offset(1001);
  EXPECT_THAT(ViolationsOf(domain_->inspector().Map(request).status()),
              ElementsAre("starting_offset OFFSET_BEYOND_END"));
}

TEST_F(InspectorTest, LongMapComesInPieces) {
  ASSERT_TRUE(CreateImage("long", 20'000).ok());
  std::string stripes;
  for (int i = 0; i < 10'000; ++i) stripes += std::string("x\0", 2);
  Fill("long.raw", 0, stripes);
  const std::vector<std::string> extents = Map(MapOf("images/long"));
  EXPECT_EQ(extents.size(), 20'000u);
  EXPECT_EQ(extents.back(), "19999+1:z1");
  EXPECT_GE(pieces_, 19);
  EXPECT_THAT(Map(MapOf("images/long", 2)), ElementsAre("0+20000:da1"));
  EXPECT_EQ(pieces_, 1);
}

class LongMapTest : public InspectorTest {
 protected:
  LongMapTest() {
    Make();
    auto cursor = domain_->inspector().Map(MapOf("images/long"));
    EXPECT_TRUE(cursor.ok()) << cursor.status();
    cursor_ = *std::move(cursor);
    const auto first = cursor_->Next();
    EXPECT_TRUE(first.ok() && first->has_value());
  }

  void Make() {
    EXPECT_TRUE(CreateImage("long", 20'000).ok());
    std::string stripes;
    for (int i = 0; i < 10'000; ++i) stripes += std::string("x\0", 2);
    Fill("long.raw", 0, stripes);
  }
  // The end of what the rest of the map tells; the error, if it ends with one.
  absl::StatusOr<uint64_t> TakeRest() {
    uint64_t end = 0;
    while (!cursor_->ended()) {
      ASSIGN_OR_RETURN(const std::optional<v1::MapResponse> piece, cursor_->Next());
      if (!piece.has_value() || piece->extents().empty()) continue;
      end = piece->extents().rbegin()->offset() + piece->extents().rbegin()->length();
    }
    return end;
  }

  std::unique_ptr<MapCursor> cursor_;
};

TEST_F(LongMapTest, NothingIsOpenBetweenItsPieces) {
  EXPECT_EQ(engine_->open_targets(), 0);
  EXPECT_EQ(TakeRest().value_or(0), 20'000u);
  EXPECT_EQ(engine_->open_targets(), 0);
}

TEST_F(LongMapTest, EndsWhenItsImageIsGone) {
  ASSERT_TRUE(DeleteImage("images/long").ok());
  EXPECT_EQ(ReasonIn(TakeRest().status()), "RESOURCE_NOT_FOUND");
}

TEST_F(LongMapTest, DoesNotGoOnInAnotherImageOfThatName) {
  ASSERT_TRUE(DeleteImage("images/long").ok());
  Make();
  EXPECT_EQ(ReasonIn(TakeRest().status()), "CONCURRENT_UPDATE");
  EXPECT_EQ(engine_->open_targets(), 0);
}

TEST_F(LongMapTest, TellsAnImageThatGrowsAsItWasAtItsBegin) {
  auto image = domain_->images().Get("images/long");
  ASSERT_TRUE(image.ok());
  image->set_virtual_size_bytes(30'000);
  ASSERT_TRUE(UpdateImage(*image, "virtual_size_bytes").ok());
  EXPECT_EQ(TakeRest().value_or(0), 20'000u);
}

TEST_F(InspectorTest, AsAdvertisedIsForExportsAndExcludesAGranularity) {
  v1::MapRequest request = MapOf("images/a");
  request.set_as_advertised(true);
  EXPECT_THAT(ViolationsOf(domain_->inspector().Map(request).status()),
              ElementsAre("as_advertised FIELD_INVALID"));
  request = MapOf("exports/e", 512);
  request.set_as_advertised(true);
  EXPECT_THAT(ViolationsOf(domain_->inspector().Map(request).status()),
              ElementsAre("as_advertised FIELD_INVALID"));
}

TEST_F(InspectorTest, ReadGivesTheBytesWithPaddingForAnExport) {
  v1::ReadRequest request;
  request.set_name("exports/e");
  request.set_offset(998);
  request.set_length(4);
  EXPECT_EQ(domain_->inspector().Read(request)->data(), std::string("yy\0\0", 4));
  request.set_name("images/a");
  EXPECT_EQ(ReasonIn(domain_->inspector().Read(request).status()), "OFFSET_BEYOND_END");
  request.set_offset(~uint64_t{0});
  EXPECT_EQ(ReasonIn(domain_->inspector().Read(request).status()), "OFFSET_BEYOND_END");
}

TEST_F(InspectorTest, WrittenPatternRepeatsAndVerifies) {
  v1::WriteRequest write;
  write.set_name("images/a");
  write.set_offset(10);
  write.set_length(7);
  write.set_pattern("abc");
  ASSERT_TRUE(domain_->inspector().Write(write, Call()).ok());
  EXPECT_EQ(files_.Get("a.raw").bytes.substr(9, 9), std::string("\0abcabca\0", 9));
  v1::VerifyRequest verify;
  verify.set_name("images/a");
  verify.set_offset(10);
  verify.set_length(7);
  verify.set_pattern("abc");
  EXPECT_TRUE(domain_->inspector().Verify(verify)->matches());
  verify.set_length(9);
  const auto differs = domain_->inspector().Verify(verify);
  ASSERT_TRUE(differs.ok());
  EXPECT_FALSE(differs->matches());
  EXPECT_EQ(differs->first_mismatch_offset(), 17u);
  EXPECT_EQ(differs->expected_byte(), 'b' + 0u);
  EXPECT_EQ(differs->actual_byte(), 0u);
}

TEST_F(InspectorTest, LengthMustFitTheContent) {
  v1::WriteRequest write;
  write.set_name("images/a");
  write.set_pattern("abc");
  EXPECT_THAT(ViolationsOf(domain_->inspector().Write(write, Call()).status()),
              ElementsAre("length FIELD_REQUIRED"));
  write.set_data("abc");
  write.set_length(4);
  EXPECT_THAT(ViolationsOf(domain_->inspector().Write(write, Call()).status()),
              ElementsAre("length FIELD_INVALID"));
}

TEST_F(InspectorTest, ReadOnlyExportIsNotWritten) {
  auto exported = GetExport("exports/e");
  exported.set_read_only(true);
  ASSERT_TRUE(UpdateExport(exported, {"read_only"}).ok());
  EXPECT_EQ(ReasonIn(Write("exports/e", 0, "z").status()), "EXPORT_READ_ONLY");
  EXPECT_TRUE(Write("images/a", 0, "z").ok());
  EXPECT_EQ(files_.Get("a.raw").bytes[0], 'z');
}

TEST_F(InspectorTest, WhatIsMissingIsNotFound) {
  EXPECT_EQ(ReasonIn(domain_->inspector().Map(MapOf("images/none")).status()),
            "RESOURCE_NOT_FOUND");
  EXPECT_EQ(ReasonIn(domain_->inspector().Map(MapOf("exports/none")).status()),
            "RESOURCE_NOT_FOUND");
}

TEST_F(InspectorTest, ExportThatIsNotServedSaysWhy) {
  files_.SetLocked("a.raw", true);
  Restart();
  EXPECT_EQ(ReasonIn(domain_->inspector().Map(MapOf("exports/e")).status()), "IMAGE_LOCKED");
}

}  // namespace
}  // namespace gabion::service
