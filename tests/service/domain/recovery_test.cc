// What a restart finds, whatever the last run was doing when it ended.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>

#include "service/domain/image_file.h"
#include "tests/service/domain/fixture.h"

namespace gabion::service {
namespace {

class RecoveryTest : public DomainFixture {
 protected:
  // The daemon dies after `steps` more commits and effects: nothing it tries then has any effect.
  void DieAfter(int steps) {
    const auto left = std::make_shared<std::atomic<int>>(steps);
    const auto gate = [left] {
      return left->fetch_sub(1) > 0 ? absl::OkStatus() : absl::UnavailableError("dead");
    };
    store_.SetGate(gate);
    engine_->SetGate(gate);
  }
  void RestartAlive() {
    store_.SetGate(nullptr);
    Restart();
    AwaitOperations();
  }

  // The image is there, in full, or it is not there at all; nothing else is in the pool.
  bool ImageIsThere(const std::string& id) {
    const auto image = domain_->images().Get("images/" + id);
    const bool has_file = files_.Has(id + ".raw");
    EXPECT_EQ(image.ok(), has_file);
    if (image.ok()) {
      EXPECT_EQ(image->state(), v1::Image::STATE_ACTIVE);
      EXPECT_EQ(files_.Get(id + ".raw").uid, image->uid());
    } else {
      EXPECT_EQ(ReasonIn(image.status()), "RESOURCE_NOT_FOUND");
    }
    return image.ok();
  }
};

constexpr int kMoreThanAnyCallTakes = 12;

TEST_F(RecoveryTest, EverythingIsServedAgainWithoutACall) {
  ASSERT_TRUE(CreateImage("a").ok());
  ASSERT_TRUE(CreateExport("e", "images/a", [](v1::Export* e) { e->set_read_only(true); }).ok());
  const std::string before = GetExport("exports/e").DebugString();
  Restart();
  EXPECT_TRUE(engine_->Serves("exports/e"));
  EXPECT_TRUE(engine_->Spec("exports/e").read_only);
  EXPECT_EQ(GetExport("exports/e").DebugString(), before);
}

TEST_F(RecoveryTest, CreationOfAnImageIsAllOrNothingWhereverItIsCutOff) {
  for (int steps = 0; steps < kMoreThanAnyCallTakes; ++steps) {
    SCOPED_TRACE(steps);
    DieAfter(steps);
    const bool acknowledged = CreateImage("a").ok();
    RestartAlive();
    const bool there = ImageIsThere("a");
    if (acknowledged) {
      EXPECT_TRUE(there);
    }
    if (there) {
      ASSERT_TRUE(DeleteImage("images/a").ok());
    }
    ASSERT_EQ(files_.count(), 0u);
  }
}

TEST_F(RecoveryTest, ImportByMoveNeverLosesTheFile) {
  for (int steps = 0; steps < kMoreThanAnyCallTakes; ++steps) {
    SCOPED_TRACE(steps);
    files_.Put("disk.img", {"", "content", false});
    DieAfter(steps);
    const bool acknowledged = Import("a", "disk.img", true).ok();
    RestartAlive();
    const bool there = ImageIsThere("a");
    if (acknowledged) {
      EXPECT_TRUE(there);
    }
    EXPECT_EQ(files_.count(), 1u);
    EXPECT_EQ(files_.Get(there ? "a.raw" : "disk.img").bytes, "content");
    if (there) {
      ASSERT_TRUE(DeleteImage("images/a").ok());
    }
  }
}

TEST_F(RecoveryTest, DeletionOfAnImageIsAllOrNothingWhereverItIsCutOff) {
  for (int steps = 0; steps < kMoreThanAnyCallTakes; ++steps) {
    SCOPED_TRACE(steps);
    if (!files_.Has("a.raw")) {
      ASSERT_TRUE(CreateImage("a").ok());
    }
    DieAfter(steps);
    const bool acknowledged = DeleteImage("images/a").ok();
    RestartAlive();
    EXPECT_TRUE(!ImageIsThere("a") || !acknowledged);
  }
}

TEST_F(RecoveryTest, GrowthIsAllOrNothingWhereverItIsCutOff) {
  for (int steps = 0; steps < kMoreThanAnyCallTakes; ++steps) {
    SCOPED_TRACE(steps);
    auto image = CreateImage("a", 4096);
    ASSERT_TRUE(image.ok());
    image->set_virtual_size_bytes(8192);
    DieAfter(steps);
    const bool acknowledged = UpdateImage(*image, "virtual_size_bytes").ok();
    RestartAlive();
    const auto after = domain_->images().Get("images/a");
    ASSERT_TRUE(after.ok());
    EXPECT_EQ(after->virtual_size_bytes(), after->generation() == 2 ? 8192u : 4096u);
    EXPECT_EQ(files_.Get("a.raw").bytes.size(), after->virtual_size_bytes());
    if (acknowledged) {
      EXPECT_EQ(after->virtual_size_bytes(), 8192u);
    }
    ASSERT_TRUE(DeleteImage("images/a").ok());
  }
}

TEST_F(RecoveryTest, CreationOfAnExportIsAllOrNothingWhereverItIsCutOff) {
  ASSERT_TRUE(CreateImage("a").ok());
  for (int steps = 0; steps < kMoreThanAnyCallTakes; ++steps) {
    SCOPED_TRACE(steps);
    DieAfter(steps);
    const bool acknowledged = CreateExport("e", "images/a").ok();
    RestartAlive();
    const auto exported = domain_->exports().Get("exports/e");
    EXPECT_EQ(exported.ok(), engine_->Serves("exports/e"));
    if (acknowledged) {
      EXPECT_TRUE(exported.ok());
    }
    if (exported.ok()) {
      EXPECT_EQ(exported->state(), v1::Export::STATE_ACTIVE);
      ASSERT_TRUE(DeleteExport("exports/e").ok());
    }
  }
  EXPECT_TRUE(DeleteImage("images/a").ok());
}

TEST_F(RecoveryTest, UpdateAndDeletionOfAnExportAreAllOrNothingWhereverTheyAreCutOff) {
  ASSERT_TRUE(CreateImage("a").ok());
  for (int steps = 0; steps < kMoreThanAnyCallTakes; ++steps) {
    SCOPED_TRACE(steps);
    auto exported = CreateExport("e", "images/a");
    ASSERT_TRUE(exported.ok());
    exported->set_read_only(true);
    DieAfter(steps);
    const bool updated = UpdateExport(*exported, {"read_only"}).ok();
    RestartAlive();
    EXPECT_EQ(GetExport("exports/e").read_only(), engine_->Spec("exports/e").read_only);
    if (updated) {
      EXPECT_TRUE(GetExport("exports/e").read_only());
    }
    DieAfter(steps);
    const bool deleted = DeleteExport("exports/e").ok();
    RestartAlive();
    const bool there = domain_->exports().Get("exports/e").ok();
    EXPECT_EQ(there, engine_->Serves("exports/e"));
    if (deleted) {
      EXPECT_FALSE(there);
    }
    if (there) {
      ASSERT_TRUE(DeleteExport("exports/e").ok());
    }
  }
}

TEST_F(RecoveryTest, CreationWhoseNameAForeignFileHasTakenIsForgotten) {
  DieAfter(1);  // the row is written, the file is not
  EXPECT_FALSE(CreateImage("a").ok());
  files_.Put("a.raw", {"", "precious", false});
  RestartAlive();
  EXPECT_EQ(ReasonIn(domain_->images().Get("images/a").status()), "RESOURCE_NOT_FOUND");
  EXPECT_EQ(files_.Get("a.raw").bytes, "precious");
}

TEST_F(RecoveryTest, ExportOfALockedImageFailsAndIsServedOnceTheLockIsGone) {
  ASSERT_TRUE(CreateImage("a").ok());
  ASSERT_TRUE(CreateExport("e", "images/a").ok());
  files_.SetLocked("a.raw", true);
  Restart();
  const v1::Export failed = GetExport("exports/e");
  EXPECT_EQ(failed.state(), v1::Export::STATE_FAILED);
  EXPECT_EQ(ReasonIn(FromRpcStatus(failed.state_error())), "IMAGE_LOCKED");
  engine_->AwaitCalls("CreateExport", 3);  // it goes on trying
  files_.SetLocked("a.raw", false);
  v1::Export served;
  do {
    served = GetExport("exports/e");
  } while (served.state() != v1::Export::STATE_ACTIVE);  // ctest ends it if that never comes
  EXPECT_FALSE(served.has_state_error());
}

TEST_F(RecoveryTest, ExportWhoseFileIsMissingFailsAndCanStillBeChangedAndDeleted) {
  ASSERT_TRUE(CreateImage("a").ok());
  auto exported = CreateExport("e", "images/a");
  ASSERT_TRUE(exported.ok());
  const FakeFiles::File file = files_.Get("a.raw");
  files_.Remove("a.raw");
  Restart();
  EXPECT_EQ(GetExport("exports/e").state(), v1::Export::STATE_FAILED);

  exported->set_description("changed");
  const auto changed = UpdateExport(*exported, {"description"});
  ASSERT_TRUE(changed.ok()) << changed.status();
  EXPECT_EQ(changed->state(), v1::Export::STATE_FAILED);
  EXPECT_EQ(GetExport("exports/e").description(), "changed");

  EXPECT_TRUE(DeleteExport("exports/e").ok());
  EXPECT_EQ(ReasonIn(domain_->exports().Get("exports/e").status()), "RESOURCE_NOT_FOUND");
}

TEST_F(RecoveryTest, UpdateTriesAFailedExportAgainAtOnce) {
  ASSERT_TRUE(CreateImage("a").ok());
  auto exported = CreateExport("e", "images/a");
  Stop();
  const FakeFiles::File file = files_.Get("a.raw");
  files_.Remove("a.raw");
  Start();
  files_.Put("a.raw", file);
  exported->set_description("changed");
  const auto changed = UpdateExport(*exported, {"description"});
  ASSERT_TRUE(changed.ok()) << changed.status();
  EXPECT_EQ(changed->state(), v1::Export::STATE_ACTIVE);
}

}  // namespace
}  // namespace gabion::service
