// Calls that change exports, cut off at each of their steps.
#include <gtest/gtest.h>

#include <string>

#include "tests/service/domain/crash_fixture.h"

namespace gabion::service {
namespace {

using Mode = v1::DeleteExportRequest::Mode;

class CrashExportTest : public CrashFixture {
 protected:
  static constexpr const char* kName = "exports/e";

  v1::UpdateExportRequest ChangeRequest() {
    v1::UpdateExportRequest request;
    request.mutable_export_()->set_name(kName);
    return request;
  }
  absl::StatusOr<Told> Describe(const std::string& description) {
    v1::UpdateExportRequest request = ChangeRequest();
    request.mutable_export_()->set_description(description);
    return Ask(request);
  }
  v1::DeleteExportRequest DeleteRequest(Mode mode) {
    v1::DeleteExportRequest request;
    request.set_name(kName);
    request.set_mode(mode);
    return request;
  }
  void MakeServed() {
    MakeImage("a");
    MakeExport("e", "images/a");
  }
  // The export is STATE_FAILED: another process has the image.
  void MakeFailed() {
    MakeServed();
    files_.SetLocked("a.raw", true);
    Restart();
    ASSERT_EQ(GetExport(kName).state(), v1::Export::STATE_FAILED);
  }
  void DeletionIsCut(Mode mode, int clients) {
    Scenario scenario;
    scenario.prepare = [=, this] {
      MakeServed();
      for (int i = 1; i <= clients; ++i) Connect(kName, static_cast<uint64_t>(i));
    };
    scenario.call = [=, this](bool other) {
      v1::DeleteExportRequest request = DeleteRequest(mode);
      request.set_allow_missing(other);
      return Ask(request);
    };
    scenario.meanwhile = [=, this] {
      for (int i = 1; i <= clients; ++i) {
        engine_->RemoveConnection(kName, static_cast<uint64_t>(i));
      }
    };
    scenario.done = [this](bool) {
      ExpectNoExport(kName);
      EXPECT_TRUE(GetImage("images/a").dependents().empty());
    };
    ForEveryCut(scenario);
  }
};

TEST_F(CrashExportTest, Creation) {
  Scenario scenario;
  scenario.prepare = [this] { MakeImage("a"); };
  scenario.call = [this](bool other) {
    v1::CreateExportRequest request = CreateExportRequest("e", "images/a");
    request.mutable_export_()->set_read_only(other);
    return Ask(request);
  };
  scenario.done = [this](bool) {
    EXPECT_EQ(GetExport(kName).state(), v1::Export::STATE_ACTIVE);
    EXPECT_EQ(GetExport(kName).generation(), 1u);
  };
  ForEveryCut(scenario);
}

TEST_F(CrashExportTest, Change) {
  Scenario scenario;
  scenario.prepare = [this] { MakeServed(); };
  scenario.call = [this](bool other) {
    v1::UpdateExportRequest request = ChangeRequest();
    request.mutable_export_()->set_read_only(true);
    if (other) request.mutable_export_()->set_description("other");
    return Ask(request);
  };
  scenario.done = [this](bool) {
    EXPECT_TRUE(GetExport(kName).read_only());
    EXPECT_EQ(GetExport(kName).generation(), 2u);
  };
  ForEveryCut(scenario);
}

TEST_F(CrashExportTest, ChangeThatChangesNothing) {
  Scenario scenario;
  scenario.prepare = [this] { MakeServed(); };
  scenario.call = [this](bool other) { return Describe(other ? "other" : ""); };
  scenario.done = [this](bool) { EXPECT_EQ(GetExport(kName).generation(), 1u); };
  ForEveryCut(scenario);
}

TEST_F(CrashExportTest, ChangeThatCreates) {
  Scenario scenario;
  scenario.prepare = [this] { MakeImage("a"); };
  scenario.call = [this](bool other) {
    v1::UpdateExportRequest request = ChangeRequest();
    request.mutable_export_()->set_source("images/a");
    request.mutable_export_()->set_description(other ? "other" : "new");
    request.set_allow_missing(true);
    return Ask(request);
  };
  scenario.done = [this](bool) {
    EXPECT_EQ(GetExport(kName).description(), "new");
    EXPECT_EQ(GetExport(kName).generation(), 1u);
  };
  ForEveryCut(scenario);
}

TEST_F(CrashExportTest, ChangeOfOneThatStaysFailed) {
  Scenario scenario;
  scenario.prepare = [this] { MakeFailed(); };
  scenario.call = [this](bool other) { return Describe(other ? "other" : "new"); };
  scenario.done = [this](bool) {
    EXPECT_EQ(GetExport(kName).description(), "new");
    EXPECT_EQ(GetExport(kName).generation(), 2u);
    EXPECT_EQ(GetExport(kName).state(), v1::Export::STATE_FAILED);
  };
  ForEveryCut(scenario);
}

TEST_F(CrashExportTest, ChangeOfOneThatCanBeServedAgain) {
  Scenario scenario;
  scenario.prepare = [this] {
    MakeFailed();
    files_.SetLocked("a.raw", false);
  };
  scenario.call = [this](bool other) { return Describe(other ? "other" : "new"); };
  scenario.done = [this](bool) {
    EXPECT_EQ(GetExport(kName).description(), "new");
    EXPECT_EQ(GetExport(kName).generation(), 2u);
    EXPECT_EQ(GetExport(kName).state(), v1::Export::STATE_ACTIVE);
  };
  ForEveryCut(scenario);
}

TEST_F(CrashExportTest, SafeDeletion) { DeletionIsCut(v1::DeleteExportRequest::MODE_SAFE, 0); }
TEST_F(CrashExportTest, HidingDeletion) { DeletionIsCut(v1::DeleteExportRequest::MODE_HIDE, 0); }
TEST_F(CrashExportTest, SoftDeletion) { DeletionIsCut(v1::DeleteExportRequest::MODE_SOFT, 0); }
TEST_F(CrashExportTest, HardDeletion) { DeletionIsCut(v1::DeleteExportRequest::MODE_HARD, 0); }
TEST_F(CrashExportTest, HidingDeletionWhileClientsAreConnected) {
  DeletionIsCut(v1::DeleteExportRequest::MODE_HIDE, 2);
}
TEST_F(CrashExportTest, SoftDeletionWhileClientsAreConnected) {
  DeletionIsCut(v1::DeleteExportRequest::MODE_SOFT, 2);
}
TEST_F(CrashExportTest, HardDeletionWhileClientsAreConnected) {
  DeletionIsCut(v1::DeleteExportRequest::MODE_HARD, 2);
}

TEST_F(CrashExportTest, SoftDeletionThatIsLate) {
  Scenario scenario;
  scenario.prepare = [this] {
    MakeServed();
    Connect(kName, 1);
  };
  scenario.call = [this](bool other) {
    v1::DeleteExportRequest request = DeleteRequest(v1::DeleteExportRequest::MODE_SOFT);
    request.mutable_drain_timeout()->set_seconds(other ? 1 : 0);
    return Ask(request);
  };
  scenario.done = [this](bool) { ExpectNoExport(kName); };
  ForEveryCut(scenario);
}

TEST_F(CrashExportTest, DeletionOfWhatIsNotThere) {
  Scenario scenario;
  scenario.call = [this](bool other) {
    v1::DeleteExportRequest request = DeleteRequest(other ? v1::DeleteExportRequest::MODE_HARD
                                                          : v1::DeleteExportRequest::MODE_SAFE);
    request.set_allow_missing(true);
    return Ask(request);
  };
  scenario.done = [this](bool) { ExpectNoExport(kName); };
  ForEveryCut(scenario);
}

TEST_F(CrashExportTest, DeletionOfAFailedOne) {
  Scenario scenario;
  scenario.prepare = [this] { MakeFailed(); };
  scenario.call = [this](bool other) {
    v1::DeleteExportRequest request = DeleteRequest(v1::DeleteExportRequest::MODE_SAFE);
    request.set_allow_missing(other);
    return Ask(request);
  };
  scenario.done = [this](bool) { ExpectNoExport(kName); };
  ForEveryCut(scenario);
}

TEST_F(CrashExportTest, HardDeletionOfOneThatIsBeingDeleted) {
  Scenario scenario;
  scenario.prepare = [this] {
    MakeServed();
    Connect(kName, 1);
    const auto hiding = Send(DeleteRequest(v1::DeleteExportRequest::MODE_HIDE));
    ASSERT_TRUE(hiding.ok() && !hiding->done());
  };
  scenario.call = [this](bool other) {
    v1::DeleteExportRequest request = DeleteRequest(v1::DeleteExportRequest::MODE_HARD);
    request.set_allow_missing(!other);  // the restart has seen its client off
    return Ask(request);
  };
  scenario.done = [this](bool) { ExpectNoExport(kName); };
  ForEveryCut(scenario);
}

TEST_F(CrashExportTest, CancellingOfADeletion) {
  std::string operation;
  Scenario scenario;
  scenario.has_request_id = false;
  scenario.prepare = [&, this] {
    MakeServed();
    Connect(kName, 1);
    const auto hiding = Send(DeleteRequest(v1::DeleteExportRequest::MODE_HIDE));
    ASSERT_TRUE(hiding.ok() && !hiding->done());
    operation = hiding->name();
  };
  scenario.call = [&, this](bool) -> absl::StatusOr<Told> {
    google::longrunning::CancelOperationRequest request;
    request.set_name(operation);
    RETURN_IF_ERROR(Send(request).status());
    return Told();
  };
  scenario.done = [&, this](bool answered) {
    const auto ended = domain_->operations().Get(operation);
    ASSERT_TRUE(ended.ok() && ended->done());
    if (answered) {
      EXPECT_EQ(ReasonIn(FromRpcStatus(ended->error())), "OPERATION_CANCELLED");
    }
    if (ended->has_error()) {
      EXPECT_EQ(GetExport(kName).state(), v1::Export::STATE_ACTIVE);
    } else {
      ExpectNoExport(kName);
    }
  };
  ForEveryCut(scenario);
}

TEST_F(CrashExportTest, ClosingOfAConnection) {
  bool answered = false;
  Scenario scenario;
  scenario.prepare = [&, this] {
    MakeServed();
    Connect(kName, 1);
    answered = false;
  };
  scenario.call = [&, this](bool) -> absl::StatusOr<Told> {
    v1::CloseConnectionRequest request;
    request.set_name("exports/e/connections/1");
    const absl::StatusOr<Told> told = Ask(request);
    answered = answered || told.ok();
    // A restart closes it, too.
    const bool gone = ReasonIn(told.status()) == "RESOURCE_NOT_FOUND";
    return gone && !answered ? Told() : told;
  };
  scenario.has_request_id = false;
  scenario.done = [this](bool) { EXPECT_EQ(GetExport(kName).connection_count(), 0u); };
  ForEveryCut(scenario);
}

}  // namespace
}  // namespace gabion::service
