#include "service/domain/export_manager.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "google/protobuf/util/time_util.h"
#include "service/domain/connection_manager.h"
#include "service/domain/identity.h"
#include "tests/service/domain/fixture.h"
#include "tests/service/violations_of.h"

namespace gabion::service {
namespace {

using testing::ElementsAre;

class ExportManagerTest : public DomainFixture {
 protected:
  ExportManagerTest() { EXPECT_TRUE(CreateImage("a", 1'000'300).ok()); }

  static void Refuse(v1::Export* exported) {
    exported->mutable_block_sizes()->set_minimum_bytes(4096);
    exported->mutable_block_sizes()->set_tail(v1::BlockSizePolicy::TAIL_REFUSE);
  }
};

TEST_F(ExportManagerTest, CreatedExportIsServedWithItsDefaults) {
  const auto exported = CreateExport("e", "images/a");
  ASSERT_TRUE(exported.ok()) << exported.status();
  EXPECT_EQ(exported->name(), "exports/e");
  EXPECT_EQ(exported->nbd_name(), "e");
  EXPECT_TRUE(exported->enabled());
  EXPECT_EQ(exported->state(), v1::Export::STATE_ACTIVE);
  EXPECT_EQ(exported->effective_block_sizes().minimum().bytes(), 1u);
  EXPECT_EQ(exported->effective_block_sizes().export_size_bytes(), 1'000'300u);
  EXPECT_EQ(exported->effective_block_sizes().generation(), 1u);
  EXPECT_THAT(exported->uris(), ElementsAre("nbd+unix:///e?socket=/run/gabion%20test/nbd.sock"));
  EXPECT_TRUE(engine_->Serves("exports/e"));
  EXPECT_EQ(engine_->Spec("exports/e").max_connections, 100u);
  EXPECT_EQ(GetExport("exports/e").DebugString(), exported->DebugString());
}

TEST_F(ExportManagerTest, ADryRunTellsTheExportAsItWouldBeAndLeavesNothing) {
  v1::CreateExportRequest request;
  request.set_export_id("e");
  request.mutable_export_()->set_source("images/a");
  Call call;
  call.validate_only = true;
  const auto tried = domain_->exports().Create(request, call);
  ASSERT_TRUE(tried.ok()) << tried.status();
  const auto made = CreateExport("e", "images/a");
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(tried->state(), made->state());
  EXPECT_EQ(tried->observed_generation(), made->observed_generation());
  EXPECT_EQ(tried->reconciling(), made->reconciling());
  ASSERT_EQ(tried->conditions_size(), made->conditions_size());
  for (int i = 0; i < made->conditions_size(); ++i) {
    EXPECT_EQ(tried->conditions(i).satisfied(), made->conditions(i).satisfied());
  }
}

TEST_F(ExportManagerTest, ADryRunOfARepairIsNoTransition) {
  ASSERT_TRUE(CreateExport("e", "images/a").ok());
  files_.SetLocked("a.raw", true);
  Restart();
  const v1::Export failed = GetExport("exports/e");
  ASSERT_EQ(failed.state(), v1::Export::STATE_FAILED);
  engine_->SetGate([] { return absl::UnavailableError("not yet"); });
  files_.SetLocked("a.raw", false);
  v1::UpdateExportRequest request;
  *request.mutable_export_() = failed;
  request.mutable_export_()->clear_etag();
  request.mutable_export_()->set_description("d");
  request.mutable_update_mask()->add_paths("description");
  Call call;
  call.validate_only = true;
  const auto tried = domain_->exports().Update(request, call);
  ASSERT_TRUE(tried.ok()) << tried.status();
  EXPECT_EQ(tried->state(), v1::Export::STATE_ACTIVE);
  EXPECT_EQ(GetExport("exports/e").conditions(0).last_transition_time().DebugString(),
            failed.conditions(0).last_transition_time().DebugString());
}

TEST_F(ExportManagerTest, AnEtagOfWhatIsMissingDoesNotCreateIt) {
  v1::UpdateExportRequest request;
  request.mutable_export_()->set_name("exports/e");
  request.mutable_export_()->set_source("images/a");
  request.mutable_export_()->set_etag("\"0123\"");
  request.set_allow_missing(true);
  const absl::Status refused = domain_->exports().Update(request, Call()).status();
  EXPECT_EQ(ReasonIn(refused), "ETAG_MISMATCH");
  EXPECT_EQ(ReasonIn(domain_->exports().Get("exports/e").status()), "RESOURCE_NOT_FOUND");
  request.mutable_export_()->clear_etag();
  EXPECT_TRUE(domain_->exports().Update(request, Call()).ok());
}

TEST_F(ExportManagerTest, PolicyReachesTheEngineAndItsOutcomeTheCaller) {
  const auto exported = CreateExport("e", "images/a", [](v1::Export* e) {
    e->mutable_block_sizes()->set_minimum_bytes(4096);
    e->mutable_block_sizes()->set_tail(v1::BlockSizePolicy::TAIL_PAD_ZERO);
    e->mutable_block_sizes()->set_unaligned_requests(
        v1::BlockSizePolicy::UNALIGNED_REQUESTS_REJECT);
    e->mutable_block_sizes()->set_silent_clients(v1::BlockSizePolicy::SILENT_CLIENTS_REFUSE);
    e->mutable_access()->set_transport(v1::Access::TRANSPORT_PLAINTEXT_TCP);
    e->mutable_access()->set_max_connections(3);
    e->set_nbd_name("disk/ä");
  });
  ASSERT_TRUE(exported.ok()) << exported.status();
  EXPECT_EQ(exported->effective_block_sizes().minimum().bytes(), 4096u);
  EXPECT_EQ(exported->effective_block_sizes().minimum().origin(),
            v1::EffectiveBlockSizes::ORIGIN_POLICY);
  EXPECT_EQ(exported->effective_block_sizes().minimum().determined_by(), "exports/e");
  EXPECT_EQ(exported->effective_block_sizes().export_size_bytes(), 1'003'520u);
  EXPECT_THAT(exported->uris(),
              ElementsAre("nbd+unix:///disk%2F%C3%A4?socket=/run/gabion%20test/nbd.sock",
                          "nbd://127.0.0.1:10809/disk%2F%C3%A4"));
  const engine::ExportSpec spec = engine_->Spec("exports/e");
  EXPECT_EQ(spec.block_sizes.unaligned_requests, block::UnalignedRequests::kReject);
  EXPECT_EQ(spec.block_sizes.silent_clients, block::SilentClients::kRefuse);
  EXPECT_EQ(spec.transport, engine::Transport::kPlaintextTcp);
  EXPECT_EQ(spec.max_connections, 3u);
}

TEST_F(ExportManagerTest, RefusedTailNamesSizeAndMinimumAndLeavesNothing) {
  const absl::Status refused = CreateExport("e", "images/a", Refuse).status();
  EXPECT_EQ(ReasonIn(refused), "SIZE_NOT_MULTIPLE_OF_MINIMUM");
  EXPECT_EQ(MetadataIn(refused, "size"), "1000300");
  EXPECT_EQ(MetadataIn(refused, "minimum"), "4096");
  EXPECT_EQ(ReasonIn(domain_->exports().Get("exports/e").status()), "RESOURCE_NOT_FOUND");
  EXPECT_TRUE(DeleteImage("images/a").ok());  // nothing holds it
}

TEST_F(ExportManagerTest, TlsIsNotBuilt) {
  const auto refused = CreateExport("e", "images/a", [](v1::Export* e) {
    e->mutable_access()->set_transport(v1::Access::TRANSPORT_TLS_REQUIRED);
  });
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(ViolationsOf(refused.status()),
              ElementsAre("export.access.transport FEATURE_NOT_BUILT"));
}

TEST_F(ExportManagerTest, MissingSourceNamesTheField) {
  const absl::Status status = CreateExport("e", "images/none").status();
  EXPECT_EQ(ReasonIn(status), "RESOURCE_NOT_FOUND");
  EXPECT_EQ(MetadataIn(status, "field"), "export.source");
}

TEST_F(ExportManagerTest, WireNamesAreUnique) {
  const auto as_e = [](v1::Export* exported) { exported->set_nbd_name("e"); };
  ASSERT_TRUE(CreateExport("e", "images/a").ok());
  EXPECT_THAT(ViolationsOf(CreateExport("f", "images/a", as_e).status()),
              ElementsAre("export.nbd_name RESOURCE_EXISTS"));
  ASSERT_TRUE(DeleteExport("exports/e").ok());
  EXPECT_TRUE(CreateExport("f", "images/a", as_e).ok());
}

TEST_F(ExportManagerTest, LockedImageIsNotServedAndLeavesNothing) {
  files_.SetLocked("a.raw", true);
  const absl::Status status = CreateExport("e", "images/a").status();
  EXPECT_EQ(ReasonIn(status), "IMAGE_LOCKED");
  EXPECT_EQ(MetadataIn(status, "perm-byte"), "101");
  EXPECT_EQ(ReasonIn(domain_->exports().Get("exports/e").status()), "RESOURCE_NOT_FOUND");
}

TEST_F(ExportManagerTest, StoreThatFailsAfterTheEffectUndoesIt) {
  int commits = 0;
  store_.SetGate(
      [&] { return ++commits == 2 ? absl::UnavailableError("disk") : absl::OkStatus(); });
  EXPECT_FALSE(CreateExport("e", "images/a").ok());
  EXPECT_FALSE(engine_->Serves("exports/e"));
  EXPECT_EQ(ReasonIn(domain_->exports().Get("exports/e").status()), "RESOURCE_NOT_FOUND");
  EXPECT_TRUE(CreateExport("e", "images/a").ok());
}

TEST_F(ExportManagerTest, UpdateReachesTheEngine) {
  auto exported = CreateExport("e", "images/a");
  exported->set_read_only(true);
  exported->set_description("not in the mask");
  const auto updated = UpdateExport(*exported, {"read_only"});
  ASSERT_TRUE(updated.ok()) << updated.status();
  EXPECT_TRUE(updated->read_only());
  EXPECT_EQ(updated->description(), "");
  EXPECT_EQ(updated->generation(), 2u);
  EXPECT_TRUE(engine_->Spec("exports/e").read_only);
  EXPECT_EQ(engine_->Spec("exports/e").generation, 2u);
}

TEST_F(ExportManagerTest, DisabledExportIsHidden) {
  auto exported = CreateExport("e", "images/a");
  exported->set_enabled(false);
  EXPECT_EQ(UpdateExport(*exported, {"enabled"})->state(), v1::Export::STATE_HIDDEN);
  EXPECT_FALSE(engine_->Spec("exports/e").enabled);
}

TEST_F(ExportManagerTest, UpdateThatTheEngineRefusesChangesNothing) {
  auto exported = CreateExport("e", "images/a");
  Refuse(&*exported);
  EXPECT_EQ(ReasonIn(UpdateExport(*exported, {"block_sizes"}).status()),
            "SIZE_NOT_MULTIPLE_OF_MINIMUM");
  const v1::Export after = GetExport("exports/e");
  EXPECT_EQ(after.generation(), 1u);
  EXPECT_FALSE(after.has_block_sizes());
  EXPECT_EQ(after.state(), v1::Export::STATE_ACTIVE);
}

TEST_F(ExportManagerTest, SourceAndWireNameCannotChange) {
  auto exported = CreateExport("e", "images/a");
  exported->set_source("images/b");
  exported->set_nbd_name("other");
  EXPECT_THAT(ViolationsOf(UpdateExport(*exported, {"source", "nbd_name"}).status()),
              ElementsAre("export.source FIELD_IMMUTABLE", "export.nbd_name FIELD_IMMUTABLE"));
}

TEST_F(ExportManagerTest, ExportWithConnectionsIsNotDeleted) {
  ASSERT_TRUE(CreateExport("e", "images/a").ok());
  engine_->AddConnection("exports/e", {.id = 7});
  EXPECT_EQ(ReasonIn(DeleteExport("exports/e")), "EXPORT_HAS_CONNECTIONS");
  const v1::Export exported = GetExport("exports/e");
  EXPECT_EQ(exported.state(), v1::Export::STATE_ACTIVE);
  EXPECT_EQ(exported.connection_count(), 1u);
  ASSERT_TRUE(CloseConnection("exports/e/connections/7").ok());
  EXPECT_TRUE(DeleteExport("exports/e").ok());
  EXPECT_FALSE(engine_->Serves("exports/e"));
}

TEST_F(ExportManagerTest, TimeForClientsIsRefusedWhereItMeansNothing) {
  ASSERT_TRUE(CreateExport("e", "images/a").ok());
  for (const auto mode :
       {v1::DeleteExportRequest::MODE_UNSPECIFIED, v1::DeleteExportRequest::MODE_SAFE,
        v1::DeleteExportRequest::MODE_HIDE, v1::DeleteExportRequest::MODE_HARD}) {
    v1::DeleteExportRequest request;
    request.set_name("exports/e");
    request.set_mode(mode);
    request.mutable_drain_timeout()->set_seconds(1);
    EXPECT_THAT(ViolationsOf(domain_->exports().Delete(request, Call()).status()),
                ElementsAre("drain_timeout FIELD_INVALID"));
  }
  EXPECT_TRUE(engine_->Serves("exports/e"));
}

TEST_F(ExportManagerTest, DeletionUnderWayIsTightenedAndNeverLoosened) {
  ASSERT_TRUE(CreateExport("e", "images/a").ok());
  engine_->AddConnection("exports/e", {.id = 7});
  const auto ask = [&](v1::DeleteExportRequest::Mode mode, int64_t seconds, bool validate_only) {
    v1::DeleteExportRequest request;
    request.set_name("exports/e");
    request.set_mode(mode);
    if (seconds > 0) request.mutable_drain_timeout()->set_seconds(seconds);
    Call call;
    call.validate_only = validate_only;
    return domain_->exports().Delete(request, call);
  };
  const auto first = ask(v1::DeleteExportRequest::MODE_HIDE, 0, false);
  ASSERT_TRUE(first.ok()) << first.status();
  const auto work = [&] { return domain_->operations().Work(first->name())->drain(); };
  EXPECT_EQ(ReasonIn(ask(v1::DeleteExportRequest::MODE_SAFE, 0, false).status()),
            "OPERATION_IN_PROGRESS");
  EXPECT_EQ(ask(v1::DeleteExportRequest::MODE_HIDE, 0, false)->name(), first->name());
  EXPECT_EQ(ask(v1::DeleteExportRequest::MODE_SOFT, 3600, true)->name(), "");
  EXPECT_EQ(work().mode(), v1::DeleteExportRequest::MODE_HIDE) << "a dry run changes nothing";

  EXPECT_EQ(ask(v1::DeleteExportRequest::MODE_SOFT, 3600, false)->name(), first->name());
  EXPECT_EQ(work().mode(), v1::DeleteExportRequest::MODE_SOFT);
  const auto deadline = work().deadline();
  EXPECT_TRUE(ask(v1::DeleteExportRequest::MODE_SOFT, 7200, false).ok());
  EXPECT_EQ(work().deadline(), deadline) << "the earlier one counts";
  EXPECT_EQ(ReasonIn(ask(v1::DeleteExportRequest::MODE_HIDE, 0, false).status()),
            "OPERATION_IN_PROGRESS");
  EXPECT_TRUE(engine_->Serves("exports/e"));

  v1::DeleteExportRequest now;  // without a time left, clients are asked to leave
  now.set_name("exports/e");
  now.set_mode(v1::DeleteExportRequest::MODE_SOFT);
  now.mutable_drain_timeout();
  ASSERT_TRUE(domain_->exports().Delete(now, Call()).ok());
  AwaitOperations();
  EXPECT_FALSE(engine_->Serves("exports/e"));
  EXPECT_EQ(ReasonIn(domain_->exports().Get("exports/e").status()), "RESOURCE_NOT_FOUND");
}

TEST_F(ExportManagerTest, ConditionsSayWhatIsSoAndSinceWhen) {
  ASSERT_TRUE(CreateExport("e", "images/a").ok());
  const auto ready = [&] {
    const v1::Export exported = GetExport("exports/e");
    EXPECT_EQ(exported.conditions(0).type(), "Ready");
    return exported.conditions(0);
  };
  EXPECT_TRUE(ready().satisfied());
  EXPECT_EQ(ready().last_transition_time(), GetExport("exports/e").create_time());
  v1::Export change = GetExport("exports/e");
  change.set_enabled(false);
  ASSERT_TRUE(UpdateExport(change, {"enabled"}).ok());
  Restart();  // the first who looks does so later
  const v1::Condition hidden = ready();
  EXPECT_FALSE(hidden.satisfied()) << "nobody can connect";
  EXPECT_EQ(hidden.reason(), "STATE_HIDDEN");
  EXPECT_FALSE(hidden.message().empty());
  EXPECT_LE(GetExport("exports/e").update_time(), hidden.last_transition_time());
  EXPECT_EQ(ready().last_transition_time(), hidden.last_transition_time());
  change.set_description("hidden all the same");
  ASSERT_TRUE(UpdateExport(change, {"description"}).ok());
  EXPECT_EQ(ready().last_transition_time(), hidden.last_transition_time());
  change.set_enabled(true);
  ASSERT_TRUE(UpdateExport(change, {"enabled"}).ok());
  const v1::Condition back = ready();
  EXPECT_TRUE(back.satisfied());
  EXPECT_LT(hidden.last_transition_time(), back.last_transition_time());
  Restart();
  EXPECT_EQ(ready().last_transition_time(), back.last_transition_time());
}

TEST_F(ExportManagerTest, ConditionThatClientsKeepUpEndsWhenTheLastOfThemLeaves) {
  ASSERT_TRUE(CreateExport("e", "images/a").ok());
  const auto propagated = [&] {
    const v1::Export exported = GetExport("exports/e");
    EXPECT_EQ(exported.conditions(1).type(), "BlockSizesPropagated");
    return exported.conditions(1);
  };
  EXPECT_TRUE(propagated().satisfied());
  engine_->AddConnection("exports/e", {.id = 7, .minimum_bytes = 512});
  EXPECT_FALSE(propagated().satisfied());
  EXPECT_EQ(propagated().reason(), "OldConnections");
  const int looks = engine_->calls("GetExports");
  engine_->RemoveConnection("exports/e", 7);
  engine_->AwaitCalls("GetExports", looks + 1);  // somebody looks without being asked
  domain_->Stop();                               // and has seen it
  const google::protobuf::Timestamp before_the_call = Now();
  EXPECT_TRUE(propagated().satisfied());
  EXPECT_LE(propagated().last_transition_time(), before_the_call);
}

TEST_F(ExportManagerTest, UpdateWhoseEndCouldNotBeWrittenLeavesNothingBehind) {
  for (const bool deleted : {false, true}) {
    auto exported = CreateExport("e", "images/a");
    ASSERT_TRUE(exported.ok()) << exported.status();
    int commits = 0;
    store_.SetGate([&commits] {
      return ++commits > 1 ? absl::UnavailableError("The disk is full.") : absl::OkStatus();
    });
    exported->set_description("changed");
    EXPECT_FALSE(UpdateExport(*exported, {"description"}).ok());
    EXPECT_TRUE(domain_->exports().Get("exports/e").ok());
    store_.SetGate({});
    if (!deleted) {
      exported->set_description("changed again");
      EXPECT_TRUE(UpdateExport(*exported, {"description"}).ok());
      EXPECT_EQ(GetExport("exports/e").description(), "changed again");
    }
    EXPECT_TRUE(DeleteExport("exports/e").ok());
    const auto intents = store_.List("intents", "", 10, "");
    ASSERT_TRUE(intents.ok());
    EXPECT_TRUE(intents->rows.empty()) << deleted;
  }
}

TEST_F(ExportManagerTest, IntentsOfExportsThatAreNoMoreAreCleared) {
  ASSERT_TRUE(CreateExport("e", "images/a").ok());
  ASSERT_TRUE(kept_->Commit({Put("intents", "exports/gone", "")}).ok());
  Restart();
  EXPECT_TRUE(store_.List("intents", "", 10, "")->rows.empty());
  EXPECT_TRUE(engine_->Serves("exports/e"));
}

class FewExportsTest : public DomainFixture {
 protected:
  FewExportsTest()
      : DomainFixture([](DomainOptions* options) { options->exports.max_exports = 2; }) {
    EXPECT_TRUE(CreateImage("a").ok());
  }
};

TEST_F(FewExportsTest, OneTooManyIsRefused) {
  ASSERT_TRUE(CreateExport("e1", "images/a").ok());
  ASSERT_TRUE(CreateExport("e2", "images/a").ok());
  v1::CreateExportRequest third;
  third.set_export_id("e3");
  third.mutable_export_()->set_source("images/a");
  for (const bool validate_only : {true, false}) {
    Call call;
    call.validate_only = validate_only;
    const absl::Status refused = domain_->exports().Create(third, call).status();
    EXPECT_EQ(ReasonIn(refused), "TOO_MANY_EXPORTS");
    EXPECT_EQ(MetadataIn(refused, "limit"), "2");
  }
  Restart();
  EXPECT_EQ(ReasonIn(CreateExport("e3", "images/a").status()), "TOO_MANY_EXPORTS");
  ASSERT_TRUE(DeleteExport("exports/e1").ok());
  EXPECT_TRUE(CreateExport("e3", "images/a").ok());
}

// Of what has just been deleted, the row goes first.
TEST_F(FewExportsTest, OneWhoseRowIsGoneDoesNotCount) {
  ASSERT_TRUE(CreateExport("e1", "images/a").ok());
  ASSERT_TRUE(CreateExport("e2", "images/a").ok());
  std::atomic<bool> tried = false;
  store_.SetAnswerGate([&] {
    const auto gone = domain_->exports().Get("exports/e1");
    if (!gone.ok() && !tried.exchange(true)) {
      EXPECT_TRUE(CreateExport("e3", "images/a").ok());
    }
    return absl::OkStatus();
  });
  ASSERT_TRUE(DeleteExport("exports/e1").ok());
  EXPECT_TRUE(tried);
}

TEST_F(FewExportsTest, ManyAtOnceDoNotExceedTheLimit) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back(
        [&, i] { CreateExport("e" + std::to_string(i), "images/a").status().IgnoreError(); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(engine_->served().size(), 2u);
}

TEST_F(ExportManagerTest, ConnectionsAreListedOldestFirstAndPageByPage) {
  ASSERT_TRUE(CreateExport("e", "images/a").ok());
  for (const uint64_t id : {12, 3, 7}) {
    engine_->AddConnection("exports/e", {.id = id, .peer = "unix", .connect_time_us = 1'500'000});
  }
  v1::ListConnectionsRequest request;
  request.set_parent("exports/e");
  request.set_page_size(2);
  auto page = domain_->connections().List(request);
  ASSERT_TRUE(page.ok());
  ASSERT_EQ(page->connections_size(), 2);
  EXPECT_EQ(page->connections(0).name(), "exports/e/connections/3");
  EXPECT_EQ(page->connections(0).connect_time().seconds(), 1);
  EXPECT_EQ(page->connections(0).connect_time().nanos(), 500'000'000);
  EXPECT_EQ(page->connections(1).name(), "exports/e/connections/7");
  request.set_page_token(page->next_page_token());
  page = domain_->connections().List(request);
  ASSERT_EQ(page->connections_size(), 1);
  EXPECT_EQ(page->connections(0).name(), "exports/e/connections/12");
  EXPECT_EQ(page->next_page_token(), "");
  EXPECT_EQ(domain_->connections().Get("exports/e/connections/7")->peer_address(), "unix");
}

TEST_F(ExportManagerTest, ConnectionThatHasGoneIsNotFound) {
  ASSERT_TRUE(CreateExport("e", "images/a").ok());
  for (const char* name : {"exports/e/connections/1", "exports/none/connections/1"}) {
    EXPECT_EQ(ReasonIn(domain_->connections().Get(name).status()), "RESOURCE_NOT_FOUND") << name;
    EXPECT_EQ(ReasonIn(CloseConnection(name)), "RESOURCE_NOT_FOUND") << name;
  }
}

TEST_F(ExportManagerTest, ImageIsNotDeletedWhileItsExportIsBeingCreated) {
  engine_->Hold("CreateExport");
  std::thread creator([&] { EXPECT_TRUE(CreateExport("e", "images/a").ok()); });
  engine_->AwaitCalls("CreateExport", 1);
  EXPECT_EQ(GetExport("exports/e").state(), v1::Export::STATE_CREATING);
  absl::Status deleted;
  std::thread deleter([&] { deleted = DeleteImage("images/a"); });
  engine_->Release("CreateExport");
  creator.join();
  deleter.join();
  EXPECT_EQ(ReasonIn(deleted), "IMAGE_IN_USE");
  EXPECT_TRUE(files_.Has("a.raw"));
}

TEST_F(ExportManagerTest, ManyCallersLeaveOneConsistentState) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      const std::string id = "e" + std::to_string(i % 3);
      for (int round = 0; round < 20; ++round) {
        auto created = CreateExport(id, "images/a");
        if (created.ok()) {
          created->set_read_only(round % 2 == 0);
          UpdateExport(*created, {"read_only"}).status().IgnoreError();
        }
        DeleteExport("exports/" + id).IgnoreError();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const auto listed = domain_->exports().List(v1::ListExportsRequest());
  ASSERT_TRUE(listed.ok());
  for (const v1::Export& exported : listed->exports()) {
    EXPECT_EQ(exported.state(), v1::Export::STATE_ACTIVE);
    EXPECT_TRUE(DeleteExport(exported.name()).ok());
  }
  EXPECT_TRUE(DeleteImage("images/a").ok());
}

}  // namespace
}  // namespace gabion::service
