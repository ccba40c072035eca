#include "engine/nbd/server/export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/block/tail_node.h"
#include "tests/engine/nbd/server/session_harness.h"

namespace gabion::nbd {
namespace {

using block::SilentClients;
using block::TailMode;
using block::UnalignedRequests;
using test::MemoryConnection;
using test::NbdClient;
using test::NbdReply;
using test::NodeCall;
using test::RandomSource;
using ::testing::ElementsAre;
using testing::kCmdRead;
using testing::kCmdWrite;
using testing::kCmdZeroes;
using testing::Loop;
using testing::Terms;

// One client of the export.
struct Guest {
  Guest(Loop& on, const Terms& terms)
      : loop(on), connection(on.reactor.ready()), client(testing::PromisesOf(terms)) {}

  NbdReply Call(test::NbdRequest request, std::string_view payload = "") {
    connection.Send(client.Request(request, payload));
    const uint64_t cookie = client.last_cookie();
    Settle();
    EXPECT_TRUE(client.replies().contains(cookie));
    return client.replies()[cookie];
  }
  void Settle() {
    loop.Settle();
    client.Receive(connection.TakeReceived());
  }

  Loop& loop;
  MemoryConnection connection;
  NbdClient client;
};

class ExportTest : public ::testing::Test, private Export::Observer {
 protected:
  void SetUp() override {
    node_ = std::make_unique<test::MemoryNode>(test::MemoryNodeOptions{.size = 65536});
    export_ = std::make_unique<Export>(loop_.environment, SessionLimits());
    export_->SetObserver(this);
    Publish(Terms());
  }
  void TearDown() override {
    for (const auto& guest : guests_) guest->connection.OpenWindow();
    const Task<void> closed = export_->Close();
    while (!closed.done()) loop_.reactor.RunTurn(false);
    export_.reset();
    EXPECT_EQ(loop_.budget.used(), 0u);
  }

  void Publish(const Terms& terms, UnalignedRequests unaligned = UnalignedRequests::kEmulate,
               SilentClients silent = SilentClients::kAssume512, bool tail = false) {
    auto version = std::make_unique<ExportVersion>();
    version->id = ++last_version_;
    version->generation = last_version_ * 10;
    version->info = testing::NegotiatedOf(terms).exported;
    version->effective.unaligned_requests = unaligned;
    version->effective.silent_clients = silent;
    version->root = node_.get();
    if (tail) {
      version->tail = std::make_unique<block::TailNode>(
          *node_, TailMode::kPadZero, ByteCount{terms.policy.granule}, loop_.reactor.ready());
      version->root = version->tail.get();
    }
    export_->Publish(std::move(version));
    terms_ = terms;
  }

  absl::Status Admit(uint64_t version, const Terms& terms) {
    guests_.push_back(std::make_unique<Guest>(loop_, terms));
    return export_->Admit(version, ++last_connection_, 0, testing::NegotiatedOf(terms), "",
                          guests_.back()->connection.TakeStream());
  }
  Guest& Join() { return Join(terms_); }
  Guest& Join(const Terms& terms) {
    EXPECT_TRUE(Admit(last_version_, terms).ok());
    return *guests_.back();
  }

  Loop loop_;
  std::unique_ptr<test::MemoryNode> node_;
  std::vector<std::unique_ptr<Guest>> guests_;
  std::vector<uint64_t> begun_;
  std::vector<uint64_t> ended_;
  std::unique_ptr<Export> export_;
  Terms terms_;
  uint64_t last_version_ = 0;
  uint64_t last_connection_ = 0;

 private:
  void OnConnectionBegun(const SessionReport& report) override { begun_.push_back(report.id); }
  void OnConnectionEnded(uint64_t id) override { ended_.push_back(id); }
};

TEST_F(ExportTest, ConnectionsAreCountedAndTheirEndIsTold) {
  Guest& a = Join();
  Guest& b = Join();
  EXPECT_EQ(export_->sessions(), 2u);
  a.connection.CloseSending();
  a.Settle();
  EXPECT_EQ(export_->sessions(), 1u);
  EXPECT_THAT(begun_, ElementsAre(1u, 2u));
  EXPECT_THAT(ended_, ElementsAre(1u));
  EXPECT_TRUE(a.connection.destroyed());
  EXPECT_EQ(b.Call({kCmdRead, 0, 0, 512}).error, 0u);
  EXPECT_TRUE(export_->CloseSession(2));
  EXPECT_FALSE(export_->CloseSession(3));
  b.Settle();
  EXPECT_THAT(ended_, ElementsAre(1u, 2u));
}

TEST_F(ExportTest, ConnectionWhoseRequestsAreGarbageFromTheStartEndsToo) {
  guests_.push_back(std::make_unique<Guest>(loop_, terms_));
  EXPECT_TRUE(export_
                  ->Admit(last_version_, 7, 0, testing::NegotiatedOf(terms_), std::string(28, 'M'),
                          guests_.back()->connection.TakeStream())
                  .ok());
  loop_.Settle();
  EXPECT_EQ(export_->sessions(), 0u);
  EXPECT_THAT(begun_, ElementsAre(7u));
  EXPECT_THAT(ended_, ElementsAre(7u));
}

TEST_F(ExportTest, ClientOnItsWayGetsTheVersionThatItWasTold) {
  const Terms told = terms_;
  Terms coarse;
  coarse.policy.granule = 4096;
  Publish(coarse, UnalignedRequests::kReject, SilentClients::kEnforce);
  ASSERT_TRUE(Admit(last_version_ - 1, told).ok());
  EXPECT_EQ(guests_.back()->Call({kCmdRead, 0, 1, 5}).error, 0u);
}

TEST_F(ExportTest, ClientThatWasToldAWritableExportDoesNotWriteToOneThatIsReadOnlyByNow) {
  const Terms told = terms_;
  Terms read_only;
  read_only.read_only = true;
  Publish(read_only);
  ASSERT_TRUE(Admit(last_version_ - 1, told).ok());
  EXPECT_EQ(guests_.back()->Call({kCmdWrite, 0, 0, 4}, "data").error, 1u);
  EXPECT_EQ(guests_.back()->Call({kCmdRead, 0, 0, 4}).error, 0u);
}

TEST_F(ExportTest, UnknownVersionAdmitsNobody) {
  EXPECT_EQ(Admit(last_version_ + 1, terms_).code(), absl::StatusCode::kAborted);
  EXPECT_TRUE(guests_.back()->connection.shut());
  for (int i = 0; i < 20; ++i) Publish(terms_);
  EXPECT_EQ(Admit(1, terms_).code(), absl::StatusCode::kAborted);
  EXPECT_EQ(export_->sessions(), 0u);
  EXPECT_TRUE(ended_.empty());  // whoever asked gives the slot back
}

TEST_F(ExportTest, ConnectionsKeepTheVersionThatTheyWereTold) {
  Guest& old = Join();
  Terms coarse;
  coarse.policy.granule = 4096;
  Publish(coarse, UnalignedRequests::kReject, SilentClients::kEnforce);
  Guest& young = Join();
  EXPECT_EQ(old.Call({kCmdRead, 0, 1, 5}).error, 0u);
  EXPECT_EQ(young.Call({kCmdRead, 0, 1, 5}).error, 22u);
  const std::vector<SessionReport> reports = export_->Sessions();
  ASSERT_EQ(reports.size(), 2u);
  EXPECT_EQ(reports[0].generation, 10u);
  EXPECT_EQ(reports[1].generation, 20u);
  EXPECT_EQ(reports[0].session->policy().granule, 1u);
  EXPECT_EQ(reports[1].session->policy().granule, 4096u);
}

TEST_F(ExportTest, SilentClientsAreHeldTo512OrToTheMinimum) {
  Terms bound, silent;
  bound.policy.granule = silent.policy.granule = 4096;
  silent.sizes_requested = false;
  Publish(bound, UnalignedRequests::kReject, SilentClients::kAssume512);
  EXPECT_EQ(Join(bound).Call({kCmdRead, 0, 512, 512}).error, 22u);
  EXPECT_EQ(Join(silent).Call({kCmdRead, 0, 512, 512}).error, 0u);
  EXPECT_EQ(Join(silent).Call({kCmdRead, 0, 100, 512}).error, 22u);
  Publish(bound, UnalignedRequests::kReject, SilentClients::kEnforce);
  EXPECT_EQ(Join(silent).Call({kCmdRead, 0, 512, 512}).error, 22u);
  Publish(bound, UnalignedRequests::kEmulate, SilentClients::kEnforce);
  EXPECT_EQ(Join(bound).Call({kCmdRead, 0, 100, 5}).error, 0u);
}

TEST_F(ExportTest, GrowthIsSeenThroughOldPadding) {
  node_ = std::make_unique<test::MemoryNode>(test::MemoryNodeOptions{.size = 1000});
  Terms terms;
  terms.size = 4096;
  terms.policy.granule = 4096;
  Publish(terms, UnalignedRequests::kEmulate, SilentClients::kAssume512, /*tail=*/true);
  Guest& guest = Join();
  EXPECT_EQ(guest.Call({kCmdWrite, 0, 1000, 8}, "12345678").error, 28u);
  Task<absl::Status> grown = node_->Resize(ByteCount{8192});
  loop_.Settle();
  EXPECT_TRUE(grown.Take().ok());
  export_->RefreshVersions();
  EXPECT_EQ(guest.Call({kCmdWrite, 0, 1000, 8}, "12345678").error, 0u);
  EXPECT_EQ(guest.Call({kCmdRead, 0, 998, 12}).data,
            std::string("\0\0", 2) + "12345678" + std::string(2, '\0'));
  EXPECT_EQ(guest.Call({kCmdRead, 0, 4096, 1}).error, 22u);  // its size is what it was told
}

TEST_F(ExportTest, MakingItReadOnlyFinishesWritesInFlightAndRefusesLaterOnes) {
  RandomSource random;
  for (int round = 0; round < 50; ++round) {
    node_->SetDeferred(loop_.reactor.ready(), random);
    node_->ClearCalls();
    Guest& guest = Join();
    for (int i = 0; i < 10; ++i) {
      guest.connection.Send(guest.client.Request({kCmdWrite, 0, static_cast<uint64_t>(i) * 64, 64},
                                                 std::string(64, 'x')));
    }
    for (uint64_t turns = random.Below(6); turns > 0; --turns) loop_.reactor.RunTurn(false);
    const std::size_t reached = node_->CountCalls(NodeCall::kWrite);
    const Task<void> done = export_->MakeReadOnly();
    guest.connection.Send(guest.client.Request({kCmdZeroes, 0, 0, 64}));
    while (!done.done()) {
      loop_.reactor.RunTurn(false);
    }
    EXPECT_EQ(node_->in_flight(), 0);
    guest.Settle();
    std::size_t written = 0, refused = 0;
    for (const auto& [cookie, reply] : guest.client.replies()) {
      written += reply.error == 0 ? 1 : 0;
      refused += reply.error == 1 ? 1 : 0;
    }
    EXPECT_EQ(written, reached);
    EXPECT_EQ(written + refused, 11u);
    EXPECT_EQ(node_->CountCalls(NodeCall::kWrite), reached);
    EXPECT_EQ(node_->CountCalls(NodeCall::kZero), 0u);
    EXPECT_EQ(guest.Call({kCmdRead, 0, 0, 64}).error, 0u);
  }
}

TEST_F(ExportTest, MakingItReadOnlyDoesNotWaitForAClientThatDoesNotRead) {
  Terms terms;
  terms.maximum_payload = 4096;
  Guest& guest = Join(terms);
  node_->Fill(Range(0, 65536), std::byte{1});
  guest.connection.SetWindow(10);
  guest.connection.Send(guest.client.Request({kCmdRead, 0, 0, 65536}));
  loop_.Settle();
  const Task<void> done = export_->MakeReadOnly();
  loop_.Settle();
  EXPECT_TRUE(done.done());
}

TEST_F(ExportTest, ClosingAnswersEverybodyAndAdmitsNobody) {
  RandomSource random;
  node_->SetDeferred(loop_.reactor.ready(), random);
  for (int i = 0; i < 3; ++i) {
    Guest& guest = Join();
    for (int k = 0; k < 5; ++k) guest.connection.Send(guest.client.Request({kCmdRead, 0, 0, 512}));
  }
  loop_.reactor.RunTurn(false);
  const Task<void> closed = export_->Close();
  EXPECT_EQ(Admit(last_version_, terms_).code(), absl::StatusCode::kAborted);
  while (!closed.done()) loop_.reactor.RunTurn(false);
  EXPECT_EQ(export_->sessions(), 0u);
  EXPECT_EQ(ended_.size(), 3u);
  EXPECT_EQ(node_->in_flight(), 0);
  for (int i = 0; i < 3; ++i) {
    guests_[i]->Settle();
    EXPECT_EQ(guests_[i]->client.outstanding() + guests_[i]->client.replies().size(), 5u);
    EXPECT_EQ(guests_[i]->client.leftover(), 0u);
  }
}

}  // namespace
}  // namespace gabion::nbd
