// What a restart does with what it finds. What it makes of calls that were cut off:
// crash_*_test.cc.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>

#include "gabion/store/v1/records.pb.h"
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
  // The dead one has no effect to its very end, whatever it still tries in the background.
  void RestartAlive() {
    Stop();
    store_.SetGate(nullptr);
    Start();
    AwaitOperations();
  }
};

TEST_F(RecoveryTest, EverythingIsServedAgainWithoutACall) {
  ASSERT_TRUE(CreateImage("a").ok());
  ASSERT_TRUE(CreateExport("e", "images/a", [](v1::Export* e) { e->set_read_only(true); }).ok());
  const std::string before = GetExport("exports/e").DebugString();
  Restart();
  EXPECT_TRUE(engine_->Serves("exports/e"));
  EXPECT_TRUE(engine_->Spec("exports/e").read_only);
  EXPECT_EQ(GetExport("exports/e").DebugString(), before);
}

TEST_F(RecoveryTest, CreationWhoseNameAForeignFileHasTakenIsForgotten) {
  DieAfter(1);  // the row is written, the file is not
  EXPECT_FALSE(CreateImage("a").ok());
  files_.Put("a.raw", {"", "precious", false});
  RestartAlive();
  EXPECT_EQ(ReasonIn(domain_->images().Get("images/a").status()), "RESOURCE_NOT_FOUND");
  EXPECT_EQ(files_.Get("a.raw").bytes, "precious");
}

TEST_F(RecoveryTest, GrowthThatWasCutOffIsAnsweredWithTheImageAsGetTellsIt) {
  auto image = CreateImage("a");
  ASSERT_TRUE(CreateExport("e", "images/a").ok());
  DieAfter(2);  // the row is written and the file has grown, nobody is told
  v1::UpdateImageRequest growth;
  growth.mutable_image()->set_name("images/a");
  growth.mutable_image()->set_virtual_size_bytes(8192);
  Call call;
  call.request = "Update/of-the-test";
  EXPECT_FALSE(domain_->images().Update(growth, call).ok());
  RestartAlive();
  const absl::StatusOr<Row> row = kept_->Get("requests", call.request);
  ASSERT_TRUE(row.ok()) << row.status();
  store::v1::Request request;
  ASSERT_TRUE(request.ParseFromString(row->value));
  v1::Image told;
  ASSERT_TRUE(request.response().UnpackTo(&told));
  EXPECT_EQ(told.DebugString(), domain_->images().Get("images/a")->DebugString());
  EXPECT_THAT(told.dependents(), testing::ElementsAre("exports/e"));
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
