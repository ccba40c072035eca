// Calls that change images, cut off at each of their steps.
#include <gtest/gtest.h>

#include <string>

#include "tests/service/domain/crash_fixture.h"

namespace gabion::service {
namespace {

class CrashImageTest : public CrashFixture {
 protected:
  static constexpr const char* kName = "images/a";

  void CreateIsCutWith(v1::CreateImageRequest::Preallocation preallocation) {
    Scenario scenario;
    scenario.call = [=, this](bool other) {
      v1::CreateImageRequest request = CreateImageRequest("a", other ? kSize + 1 : kSize);
      request.set_preallocation(preallocation);
      return Ask(request);
    };
    scenario.done = [this](bool) { EXPECT_EQ(GetImage(kName).virtual_size_bytes(), kSize); };
    ForEveryCut(scenario);
  }

  void ImportIsCutWith(bool move) {
    const std::string content(kSize, 'x');
    Scenario scenario;
    scenario.prepare = [=, this] {
      files_.Put("disk.img", {"", content, false});
      if (!move) foreign_files_.insert("disk.img");
    };
    scenario.call = [=, this](bool other) {
      v1::ImportImageRequest request;
      request.set_image_id("a");
      request.mutable_image()->mutable_raw();
      request.set_source_file(other ? "other.img" : "disk.img");
      request.set_move(move);
      return Ask(request);
    };
    scenario.done = [=, this](bool) {
      EXPECT_EQ(GetImage(kName).virtual_size_bytes(), kSize);
      EXPECT_EQ(files_.Get("a.raw").bytes, content);
      EXPECT_EQ(files_.Has("disk.img"), !move);
    };
    ForEveryCut(scenario);
  }

  absl::StatusOr<Told> Delete(v1::DeleteImageRequest::Mode mode, int64_t retention, bool other) {
    v1::DeleteImageRequest request;
    request.set_name(kName);
    request.set_mode(mode);
    if (retention > 0) request.mutable_retention()->set_seconds(retention);
    request.set_allow_missing(other);
    return Ask(request);
  }
  void Bury() {
    v1::DeleteImageRequest request;
    request.set_name(kName);
    request.set_mode(v1::DeleteImageRequest::MODE_TOMBSTONE);
    request.mutable_retention()->set_seconds(kDay);
    ASSERT_TRUE(Send(request).ok());
  }

  static constexpr int64_t kDay = 24 * 3600;
};

TEST_F(CrashImageTest, CreationWithoutPreallocation) {
  CreateIsCutWith(v1::CreateImageRequest::PREALLOCATION_OFF);
}
TEST_F(CrashImageTest, CreationWithReservedBlocks) {
  CreateIsCutWith(v1::CreateImageRequest::PREALLOCATION_FALLOC);
}
TEST_F(CrashImageTest, CreationWithZeroes) {
  CreateIsCutWith(v1::CreateImageRequest::PREALLOCATION_FULL);
}

TEST_F(CrashImageTest, ImportByCopy) { ImportIsCutWith(false); }
TEST_F(CrashImageTest, ImportByMove) { ImportIsCutWith(true); }

TEST_F(CrashImageTest, ChangeOfLabels) {
  Scenario scenario;
  scenario.prepare = [this] { MakeImage("a"); };
  scenario.call = [this](bool other) {
    v1::UpdateImageRequest request;
    request.mutable_image()->set_name(kName);
    (*request.mutable_image()->mutable_labels())["k"] = other ? "other" : "v";
    return Ask(request);
  };
  scenario.done = [this](bool) {
    EXPECT_EQ(GetImage(kName).labels().at("k"), "v");
    EXPECT_EQ(GetImage(kName).generation(), 2u);
  };
  ForEveryCut(scenario);
}

TEST_F(CrashImageTest, GrowthWhileItIsServed) {
  Scenario scenario;
  scenario.prepare = [this] {
    MakeImage("a");
    MakeExport("e", kName);
  };
  scenario.call = [this](bool other) {
    v1::UpdateImageRequest request;
    request.mutable_image()->set_name(kName);
    request.mutable_image()->set_virtual_size_bytes(other ? 9000 : 8000);
    return Ask(request);
  };
  scenario.done = [this](bool) {
    EXPECT_EQ(GetImage(kName).virtual_size_bytes(), 8000u);
    EXPECT_EQ(GetImage(kName).generation(), 2u);
  };
  ForEveryCut(scenario);
}

TEST_F(CrashImageTest, Removal) {
  Scenario scenario;
  scenario.prepare = [this] { MakeImage("a"); };
  scenario.call = [this](bool other) {
    return Delete(v1::DeleteImageRequest::MODE_PURGE, 0, other);
  };
  scenario.done = [this](bool) { ExpectNoImage(kName); };
  ForEveryCut(scenario);
}

TEST_F(CrashImageTest, RemovalOfWhatIsNotThere) {
  Scenario scenario;
  scenario.call = [this](bool other) {
    v1::DeleteImageRequest request;
    request.set_name(other ? "images/other" : kName);
    request.set_allow_missing(true);
    return Ask(request);
  };
  scenario.done = [this](bool) { ExpectNoImage(kName); };
  ForEveryCut(scenario);
}

TEST_F(CrashImageTest, Tombstone) {
  Scenario scenario;
  scenario.prepare = [this] { MakeImage("a"); };
  scenario.call = [this](bool other) {
    return Delete(v1::DeleteImageRequest::MODE_TOMBSTONE, kDay, other);
  };
  scenario.done = [this](bool) { EXPECT_TRUE(GetImage(kName).has_delete_time()); };
  ForEveryCut(scenario);
}

TEST_F(CrashImageTest, TombstoneThatIsDueAtOnce) {
  Scenario scenario;
  scenario.prepare = [this] { MakeImage("a"); };
  scenario.call = [this](bool other) {
    return Delete(v1::DeleteImageRequest::MODE_TOMBSTONE, 0, other);
  };
  scenario.done = [this](bool) { ExpectNoImage(kName); };
  ForEveryCut(scenario);
}

TEST_F(CrashImageTest, TombstoneThatIsDueWhenItsExportGoes) {
  Scenario scenario;
  scenario.prepare = [this] {
    MakeImage("a");
    MakeExport("e", kName);
    v1::DeleteImageRequest request;
    request.set_name(kName);
    request.set_mode(v1::DeleteImageRequest::MODE_TOMBSTONE);
    ASSERT_TRUE(Send(request).ok());
  };
  scenario.call = [this](bool other) {
    v1::DeleteExportRequest request;
    request.set_name("exports/e");
    request.set_allow_missing(other);
    return Ask(request);
  };
  scenario.done = [this](bool) {
    ExpectNoExport("exports/e");
    ExpectNoImage(kName);
  };
  ForEveryCut(scenario);
}

TEST_F(CrashImageTest, Undeletion) {
  Scenario scenario;
  scenario.prepare = [this] {
    MakeImage("a");
    MakeImage("b");
    Bury();
  };
  scenario.call = [this](bool other) {
    v1::UndeleteImageRequest request;
    request.set_name(other ? "images/b" : kName);
    return Ask(request);
  };
  scenario.done = [this](bool) { EXPECT_FALSE(GetImage(kName).has_delete_time()); };
  ForEveryCut(scenario);
}

}  // namespace
}  // namespace gabion::service
