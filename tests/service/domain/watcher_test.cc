#include "service/domain/watcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "service/store/memory_store.h"
#include "service/store/sqlite_store.h"
#include "tests/service/domain/watch_fixture.h"
#include "tests/service/temp_dir.h"
#include "tests/support/random_source.h"

namespace gabion::service {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;

v1::WatchRequest After(uint64_t revision) {
  v1::WatchRequest request;
  request.set_after_revision(revision);
  return request;
}

v1::WatchRequest Initial() {
  v1::WatchRequest request;
  request.set_send_initial(true);
  return request;
}

std::string MetadataOf(const absl::Status& status, const std::string& key) {
  const google::rpc::ErrorInfo info = InfoOf(status);
  const auto found = info.metadata().find(key);
  return found == info.metadata().end() ? "(none)" : found->second;
}

class WatchTest : public testing::Test {
 protected:
  uint64_t Commit(const std::vector<Mutation>& steps) {
    const absl::StatusOr<uint64_t> revision = store_->Commit(steps);
    EXPECT_TRUE(revision.ok()) << revision.status();
    return revision.value_or(0);
  }
  uint64_t PutImage(const std::string& name, const std::string& value) {
    return Commit({Put("images", name, value)});
  }
  std::unique_ptr<Watch> Start(const v1::WatchRequest& request) {
    auto watch = Watch::Start(*store_, views_, request);
    EXPECT_TRUE(watch.ok()) << watch.status();
    return watch.ok() ? *std::move(watch) : nullptr;
  }
  absl::Status StartError(const v1::WatchRequest& request) {
    return Watch::Start(*store_, views_, request).status();
  }
  // All messages until nothing more is there.
  static std::vector<v1::WatchResponse> All(Watch& watch) {
    std::vector<v1::WatchResponse> messages;
    do {
      auto message = watch.Next();
      EXPECT_TRUE(message.ok()) << message.status();
      if (!message.ok()) break;
      if (message->has_value()) messages.push_back(std::move(**message));
    } while (!watch.caught_up());
    return messages;
  }
  static std::vector<std::string> Texts(Watch& watch) {
    std::vector<std::string> texts;
    for (const v1::WatchResponse& message : All(watch)) texts.push_back(TextOf(message));
    return texts;
  }
  // The next error; messages before it are dropped.
  static absl::Status ErrorOf(Watch& watch) {
    do {
      auto message = watch.Next();
      if (!message.ok()) return message.status();
    } while (!watch.caught_up());
    return absl::OkStatus();
  }

  const std::unique_ptr<MetadataStore> store_ = NewMemoryStore();
  StoredViews views_{*store_};
};

TEST_F(WatchTest, TellsChangesInTheirOrderWithTheirRevisions) {
  PutImage("images/before", "x");
  const auto watch = Start({});
  EXPECT_THAT(Texts(*watch), IsEmpty());
  PutImage("images/a", "1");
  Commit({Put("exports", "exports/e", "2"), Put("operations", "operations/o", "3")});
  Commit({Remove("images", "images/before")});
  EXPECT_THAT(Texts(*watch), ElementsAre("PUT 2 images/a=1", "PUT 3 exports/e=2",
                                         "PUT 4 operations/o=3", "DELETED 5 images/before"));
  EXPECT_THAT(Texts(*watch), IsEmpty());
}

TEST_F(WatchTest, ATouchedResourceIsToldAsItIs) {
  const uint64_t at = Commit({Put("exports", "exports/e", "1")});
  Commit({Touch("exports", "exports/e")});
  EXPECT_THAT(Texts(*Start(After(at))), ElementsAre("PUT 2 exports/e=1"));
}

TEST_F(WatchTest, ChangesOfOneResourceBecomeOneByTheFirstRevisionAndTheLastState) {
  const uint64_t at = PutImage("images/a", "0");
  PutImage("images/a", "1");
  PutImage("images/b", "1");
  PutImage("images/a", "2");
  Commit({Remove("images", "images/b")});
  EXPECT_THAT(Texts(*Start(After(at))), ElementsAre("PUT 2 images/a=2", "DELETED 3 images/b"));
}

TEST_F(WatchTest, ATouchAfterTheDeletionDoesNotHideIt) {
  const uint64_t at = Commit({Put("exports", "exports/e", "1")});
  Commit({Touch("exports", "exports/e"), Remove("exports", "exports/e"),
          Touch("exports", "exports/e")});
  EXPECT_THAT(Texts(*Start(After(at))), ElementsAre("DELETED 2 exports/e"));
}

TEST_F(WatchTest, WhatIsGoneWhenItIsReadIsOnlyToldAsDeleted) {
  const auto watch = Start({});
  PutImage("images/a", "1");
  PutImage("images/b", "1");
  views_.SetBeforeRead([this](const std::string& name) {
    if (name == "images/a") Commit({Remove("images", "images/a")});
  });
  EXPECT_THAT(Texts(*watch), ElementsAre("PUT 2 images/b=1", "DELETED 3 images/a"));
}

TEST_F(WatchTest, InitialStateIsToldWithoutRevisionsThenWhereChangesGoOn) {
  PutImage("images/b", "2");
  PutImage("images/a", "1");
  Commit({Put("connections", "exports/e/connections/1", "3")});
  const auto watch = Start(Initial());
  EXPECT_THAT(Texts(*watch),
              ElementsAre("PUT 0 pools/default=", "PUT 0 pools/other=", "PUT 0 images/a=1",
                          "PUT 0 images/b=2", "PUT 0 exports/e/connections/1=3", "INITIAL_DONE 3"));
  PutImage("images/c", "4");
  EXPECT_THAT(Texts(*watch), ElementsAre("PUT 4 images/c=4"));
}

TEST_F(WatchTest, InitialStateOfMoreThanAPageIsComplete) {
  for (int i = 0; i < 600; ++i) PutImage(absl::StrCat("images/i", i), absl::StrCat(i));
  Mirror mirror;
  for (const auto& message : All(*Start(Initial()))) {
    if (!message.has_pool()) mirror.Apply(message);
  }
  EXPECT_EQ(mirror.known(), RowsOf(*store_, "images"));
}

TEST_F(WatchTest, OnlyTheCollectionsThatAreAskedFor) {
  v1::WatchRequest request = Initial();
  request.add_collections("exports");
  request.add_collections("images");
  request.add_collections("exports");
  Commit({Put("images", "images/a", "1"), Put("operations", "operations/o", "2"),
          Put("exports", "exports/e", "3")});
  const auto watch = Start(request);
  EXPECT_THAT(Texts(*watch),
              ElementsAre("PUT 0 images/a=1", "PUT 0 exports/e=3", "INITIAL_DONE 3"));
  Commit({Put("operations", "operations/o", "4"), Put("exports", "exports/e", "5")});
  EXPECT_THAT(Texts(*watch), ElementsAre("PUT 5 exports/e=5"));
}

TEST_F(WatchTest, AParentIsItAndWhatIsBelowIt) {
  const std::vector<Mutation> puts = {
      Put("exports", "exports/a", "1"), Put("exports", "exports/ab", "2"),
      Put("connections", "exports/a/connections/1", "3"),
      Put("connections", "exports/ab/connections/1", "4"), Put("images", "images/a", "5")};
  Commit(puts);
  v1::WatchRequest request = Initial();
  request.set_parent("exports/a");
  const auto watch = Start(request);
  EXPECT_THAT(Texts(*watch), ElementsAre("PUT 0 exports/a=1", "PUT 0 exports/a/connections/1=3",
                                         "INITIAL_DONE 5"));
  Commit(puts);
  EXPECT_THAT(Texts(*watch), ElementsAre("PUT 6 exports/a=1", "PUT 8 exports/a/connections/1=3"));
  request.set_parent("exports/none");
  EXPECT_THAT(Texts(*Start(request)), ElementsAre("INITIAL_DONE 10"));
}

TEST_F(WatchTest, AnUnknownCollectionIsAnInvalidField) {
  v1::WatchRequest request;
  request.add_collections("images");
  request.add_collections("disks");
  const absl::Status status = StartError(request);
  EXPECT_EQ(InfoOf(status).reason(), "FIELD_INVALID");
  EXPECT_EQ(MetadataOf(status, "field"), "collections[1]");
  EXPECT_EQ(MetadataOf(status, "value"), "disks");
}

TEST_F(WatchTest, ARevisionTogetherWithTheInitialStateIsAnInvalidField) {
  PutImage("images/a", "1");
  v1::WatchRequest request = Initial();
  request.set_after_revision(1);
  const absl::Status status = StartError(request);
  EXPECT_EQ(InfoOf(status).reason(), "FIELD_INVALID");
  EXPECT_EQ(MetadataOf(status, "field"), "after_revision");
}

TEST_F(WatchTest, AStartBeforeTheLogSaysWhereTheLogBegins) {
  for (int i = 0; i < 5; ++i) PutImage("images/a", absl::StrCat(i));
  ASSERT_TRUE(store_->TrimChanges(3).ok());
  const absl::Status status = StartError(After(2));
  EXPECT_TRUE(absl::IsOutOfRange(status)) << status;
  EXPECT_EQ(InfoOf(status).reason(), "REVISION_COMPACTED");
  EXPECT_EQ(MetadataOf(status, "oldest-revision"), "3");
  EXPECT_THAT(Texts(*Start(After(3))), ElementsAre("PUT 4 images/a=4"));
}

TEST_F(WatchTest, AStartInTheFutureIsRefusedTheSameWay) {
  PutImage("images/a", "1");
  const absl::Status status = StartError(After(2));
  EXPECT_TRUE(absl::IsOutOfRange(status)) << status;
  EXPECT_EQ(InfoOf(status).reason(), "REVISION_COMPACTED");
  EXPECT_EQ(MetadataOf(status, "oldest-revision"), "0");
}

TEST_F(WatchTest, AWatchThatTheLogHasOvertakenEndsWithTheLastRevisionThatItTold) {
  PutImage("images/a", "1");
  const auto watch = Start(After(1));
  PutImage("images/b", "2");
  EXPECT_THAT(Texts(*watch), ElementsAre("PUT 2 images/b=2"));
  for (int i = 0; i < 5; ++i) PutImage("images/c", absl::StrCat(i));
  ASSERT_TRUE(store_->TrimChanges(4).ok());
  const absl::Status status = ErrorOf(*watch);
  EXPECT_TRUE(absl::IsAborted(status)) << status;
  EXPECT_EQ(InfoOf(status).reason(), "WATCH_LAGGED");
  EXPECT_EQ(MetadataOf(status, "revision"), "2");
}

TEST_F(WatchTest, ATrimmedLogDoesNotMatterToThoseWhoHaveReadIt) {
  const auto watch = Start({});
  PutImage("images/a", "1");
  EXPECT_THAT(Texts(*watch), Not(IsEmpty()));
  ASSERT_TRUE(store_->TrimChanges(1).ok());
  PutImage("images/a", "2");
  EXPECT_THAT(Texts(*watch), ElementsAre("PUT 2 images/a=2"));
}

TEST_F(WatchTest, BookmarksPassWhatIsNotForThisWatch) {
  v1::WatchRequest request;
  request.add_collections("exports");
  const auto watch = Start(request);
  PutImage("images/a", "1");
  Commit({Put("jobs", "operations/o", "bookkeeping")});
  EXPECT_THAT(Texts(*watch), IsEmpty());
  EXPECT_EQ(TextOf(watch->Bookmark()), "BOOKMARK 2");
  ASSERT_TRUE(store_->TrimChanges(2).ok());
  Commit({Put("exports", "exports/e", "1")});
  EXPECT_THAT(Texts(*watch), ElementsAre("PUT 3 exports/e=1"));
  EXPECT_EQ(TextOf(watch->Bookmark()), "BOOKMARK 3");
}

TEST_F(WatchTest, ReadsNoFurtherAheadThanABatch) {
  const auto watch = Start({});
  for (int i = 0; i < 1000; ++i) PutImage(absl::StrCat("images/i", i), "x");
  auto first = watch->Next();
  ASSERT_TRUE(first.ok() && first->has_value());
  EXPECT_LE(views_.reads("images"), 64);
  EXPECT_EQ(All(*watch).size(), 999u);
}

// Commits random changes of a few resources.
class Writer {
 public:
  Writer(MetadataStore& store, uint64_t seed, uint64_t names = 8)
      : store_(store), random_(seed), names_(names) {}

  void Write() {
    const std::string name = absl::StrCat("images/i", random_.Below(names_));
    const std::string value = absl::StrCat(++count_);
    // A row to be deleted need not be there: then nothing is committed.
    (void)store_.Commit({random_.OneIn(3) ? Remove("images", name) : Put("images", name, value)});
  }

 private:
  MetadataStore& store_;
  test::RandomSource random_;
  const uint64_t names_;
  int count_ = 0;
};

TEST_F(WatchTest, GoesOnWithoutAGapFromEveryRevision) {
  test::RandomSource random;
  Writer writer(*store_, random.Next());
  std::vector<std::map<std::string, std::string>> states = {{}};  // by revision
  while (states.size() <= 600) {
    writer.Write();
    const uint64_t revision = *store_->Revision();
    if (revision == states.size()) states.push_back(RowsOf(*store_, "images"));
  }
  for (uint64_t start = 1; start < states.size(); ++start) {
    std::map<std::string, std::string> known = states[start];
    uint64_t last = start;
    for (const v1::WatchResponse& message : All(*Start(After(start)))) {
      EXPECT_GT(message.revision(), last);
      last = message.revision();
      known.erase(message.name());
      if (message.kind() == v1::WatchResponse::KIND_PUT) known[message.name()] = ContentOf(message);
    }
    ASSERT_EQ(known, states.back()) << "after revision " << start;
  }
}

TEST_F(WatchTest, GoesOnWithoutAGapBehindEveryMessage) {
  test::RandomSource random;
  PutImage("images/first", "x");
  const auto watch = Start(After(1));
  Writer writer(*store_, random.Next(), /*names=*/100);
  for (int i = 0; i < 1500; ++i) writer.Write();
  const std::vector<v1::WatchResponse> messages = All(*watch);
  EXPECT_GT(messages.size(), 100u);
  Mirror told;
  for (const v1::WatchResponse& message : messages) {
    told.Apply(message);
    Mirror goes_on = told;
    for (const v1::WatchResponse& later : All(*Start(After(message.revision())))) {
      goes_on.Apply(later);
    }
    auto rows = RowsOf(*store_, "images");
    rows.erase("images/first");
    ASSERT_EQ(goes_on.known(), rows) << "behind " << TextOf(message);
  }
}

// Whatever is written at whatever moment, also between a row's name and its content: who applies
// all messages ends with what is there.
TEST_F(WatchTest, InitialStateAndChangesHaveNoGapUnderAWriterInBetween) {
  test::RandomSource random;
  for (int round = 0; round < 50; ++round) {
    const std::unique_ptr<MetadataStore> store = NewMemoryStore();
    StoredViews views(*store);
    Writer writer(*store, random.Next());
    for (uint64_t i = random.Below(30); i > 0; --i) writer.Write();
    int left = 200;
    const auto write_some = [&] {
      for (uint64_t i = random.Below(4); i > 0 && left > 0; --i, --left) writer.Write();
    };
    views.SetBeforeRead([&](const std::string&) { write_some(); });
    v1::WatchRequest request = Initial();
    request.add_collections("images");
    auto watch = Watch::Start(*store, views, request);
    ASSERT_TRUE(watch.ok());
    Mirror mirror;
    do {
      write_some();
      auto message = (*watch)->Next();
      ASSERT_TRUE(message.ok()) << message.status();
      if (message->has_value()) mirror.Apply(**message);
    } while (left > 0 || !(*watch)->caught_up());
    ASSERT_EQ(mirror.known(), RowsOf(*store, "images")) << "round " << round;
  }
}

TEST(WatchOfSqliteTest, InitialStateAndChangesHaveNoGapUnderAWriterOnAnotherThread) {
  const TempDir dir;
  auto store = OpenSqliteStore(dir / "store.db");
  ASSERT_TRUE(store.ok()) << store.status();
  StoredViews views(**store);
  test::RandomSource random;
  const uint64_t seed = random.Next();
  std::atomic<bool> written = false;
  std::thread thread([&] {
    Writer writer(**store, seed);
    for (int i = 0; i < 200; ++i) writer.Write();
    written = true;
  });
  v1::WatchRequest request = Initial();
  request.add_collections("images");
  auto watch = Watch::Start(**store, views, request);
  EXPECT_TRUE(watch.ok()) << watch.status();
  Mirror mirror;
  for (bool last = false; watch.ok();) {
    auto message = (*watch)->Next();
    EXPECT_TRUE(message.ok()) << message.status();
    if (!message.ok()) break;
    if (message->has_value()) mirror.Apply(**message);
    if (!(*watch)->caught_up()) continue;
    if (last) break;
    last = written;  // whatever is read from now on is all there is
  }
  thread.join();
  EXPECT_EQ(mirror.known(), RowsOf(**store, "images"));
}

}  // namespace
}  // namespace gabion::service
