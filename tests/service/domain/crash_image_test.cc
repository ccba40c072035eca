// Calls that change images, cut off at each of their steps.
#include <gtest/gtest.h>

#include <string>
#include <vector>

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
    scenario.failed = [=, this] {  // but the content is where it was, or where it was to go
      const bool there = files_.Has("disk.img");
      EXPECT_EQ(files_.Get(there ? "disk.img" : "a.raw").bytes, content);
      if (there) foreign_files_.insert("disk.img");
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

  std::vector<std::string> DependentsOf(const std::string& name) {
    const v1::Image image = GetImage(name);
    return {image.dependents().begin(), image.dependents().end()};
  }
  void ResizeIsCutFrom(uint64_t before, uint64_t after) {
    Scenario scenario;
    scenario.prepare = [=, this] {
      ASSERT_TRUE(Send(CreateImageRequest("a", before)).ok());
      AwaitQuiet();
    };
    scenario.call = [=, this](bool other) {
      v1::ResizeImageRequest request;
      request.set_name(kName);
      request.set_virtual_size_bytes(other ? after + 1 : after);
      request.set_allow_shrink(true);
      return Ask(request);
    };
    scenario.done = [=, this](bool) {
      EXPECT_EQ(GetImage(kName).virtual_size_bytes(), after);
      EXPECT_LE(GetImage(kName).generation(), 2u);
    };
    ForEveryCut(scenario);
  }
  void CheckIsCutWith(v1::CheckImageRequest::Repair repair) {
    Scenario scenario;
    scenario.prepare = [this] {
      MakeImage("base");
      MakeClone("a", kBase);
    };
    scenario.call = [=, this](bool other) {
      v1::CheckImageRequest request;
      request.set_name(kName);
      request.set_repair(other ? v1::CheckImageRequest::REPAIR_LEAKS : repair);
      return Ask(request);
    };
    scenario.done = [this](bool) { EXPECT_EQ(GetImage(kName).generation(), 1u); };
    ForEveryCut(scenario);
  }

  static constexpr const char* kBase = "images/base";
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
    // A file that has grown though the engine said that it could not has its size already.
    EXPECT_LE(GetImage(kName).generation(), 2u);
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

TEST_F(CrashImageTest, Clone) {
  Scenario scenario;
  scenario.prepare = [this] { MakeImage("base"); };
  scenario.call = [this](bool other) {
    v1::CloneImageRequest request = CloneImageRequest("a", kBase);
    if (other) request.set_virtual_size_bytes(kSize + 1);
    return Ask(request);
  };
  scenario.failed = [this] { EXPECT_TRUE(DependentsOf(kBase).empty()); };
  scenario.done = [this](bool) {
    EXPECT_EQ(GetImage(kName).backing_image(), kBase);
    EXPECT_EQ(DependentsOf(kBase), std::vector<std::string>{kName});
  };
  ForEveryCut(scenario);
}

TEST_F(CrashImageTest, RemovalOfAClone) {
  Scenario scenario;
  scenario.prepare = [this] {
    MakeImage("base");
    MakeClone("a", kBase);
  };
  scenario.call = [this](bool other) {
    return Delete(v1::DeleteImageRequest::MODE_PURGE, 0, other);
  };
  scenario.done = [this](bool) {
    ExpectNoImage(kName);
    EXPECT_TRUE(DependentsOf(kBase).empty());
  };
  ForEveryCut(scenario);
}

TEST_F(CrashImageTest, RemovalOfACloneOfATombstone) {
  Scenario scenario;
  scenario.prepare = [this] {
    MakeImage("base");
    MakeClone("a", kBase);
    v1::DeleteImageRequest request;
    request.set_name(kBase);
    request.set_mode(v1::DeleteImageRequest::MODE_TOMBSTONE);
    ASSERT_TRUE(Send(request).ok());
  };
  scenario.call = [this](bool other) {
    return Delete(v1::DeleteImageRequest::MODE_PURGE, 0, other);
  };
  scenario.done = [this](bool) {
    ExpectNoImage(kName);
    ExpectNoImage(kBase);
  };
  ForEveryCut(scenario);
}

TEST_F(CrashImageTest, ResizeToMore) { ResizeIsCutFrom(kSize, 2 * kSize); }
TEST_F(CrashImageTest, ResizeToLess) { ResizeIsCutFrom(2 * kSize, kSize); }

TEST_F(CrashImageTest, Check) { CheckIsCutWith(v1::CheckImageRequest::REPAIR_NONE); }
TEST_F(CrashImageTest, Repair) { CheckIsCutWith(v1::CheckImageRequest::REPAIR_ALL); }

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

TEST_F(CrashImageTest, TombstoneThatIsDueAndServedIsKeptByARestart) {
  NewWorld();
  MakeImage("a");
  for (const char* id : {"p", "q", "r", "s", "t", "u", "v", "w"}) MakeExport(id, kName);
  v1::DeleteImageRequest request;
  request.set_name(kName);
  request.set_mode(v1::DeleteImageRequest::MODE_TOMBSTONE);
  ASSERT_TRUE(Send(request).ok());
  for (int i = 0; i < 20; ++i) Reopen();
  EXPECT_EQ(GetImage(kName).dependents_size(), 8);
  ExpectAgreement();
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
