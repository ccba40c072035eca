// What a group of commits does: as if each had been done alone, in their order.
#include "service/store/sqlite_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "service/store/schema.h"
#include "service/store/sqlite_reader.h"
#include "tests/service/temp_dir.h"

namespace gabion::service {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using Commits = std::vector<std::vector<Mutation>>;

class SqliteWriterTest : public testing::Test {
 protected:
  // `prepare`: SQL that makes the disk or the file behave in a way of its own.
  void Open(const std::string& prepare = "") {
    auto database = Database::Open(dir_ / "db");
    ASSERT_TRUE(database.ok()) << database.status();
    ASSERT_TRUE(database->Execute("PRAGMA journal_mode = WAL").ok());
    ASSERT_TRUE(MigrateSchema(*database).ok());
    const absl::Status prepared = database->Execute(prepare);
    ASSERT_TRUE(prepared.ok()) << prepared;
    auto writer = SqliteWriter::Make(*std::move(database));
    ASSERT_TRUE(writer.ok()) << writer.status();
    writer_ = *std::move(writer);
    auto reader = SqliteReader::Open(dir_ / "db");
    ASSERT_TRUE(reader.ok()) << reader.status();
    reader_ = *std::move(reader);
  }

  // The codes of the answers; revisions go to `revisions_`.
  std::vector<absl::StatusCode> Write(const Commits& commits) {
    std::vector<PendingCommit> pending(commits.size());
    std::vector<PendingCommit*> group;
    for (size_t i = 0; i < commits.size(); ++i) {
      pending[i].steps = &commits[i];
      group.push_back(&pending[i]);
    }
    logged_ = writer_->Write(group);
    std::vector<absl::StatusCode> codes;
    revisions_.clear();
    for (const PendingCommit& commit : pending) {
      codes.push_back(commit.answer.status().code());
      if (commit.answer.ok()) revisions_.push_back(*commit.answer);
    }
    return codes;
  }

  static constexpr auto kOk = absl::StatusCode::kOk;
  TempDir dir_;
  std::unique_ptr<SqliteWriter> writer_;
  std::unique_ptr<SqliteReader> reader_;
  std::vector<uint64_t> revisions_;
  std::optional<uint64_t> logged_;
};

TEST_F(SqliteWriterTest, CommitsSeeThoseBeforeThemAndFailAlone) {
  Open();
  const auto codes = Write({
      {Insert("images", "a", "1")},
      {Put("images", "b", "lost"), Insert("images", "a", "2")},  // undone as a whole
      {Remove("images", "b")},                                   // so there is none
      {Replace("images", "a", "3", 1), Put("images", "c", "1")},
      {Replace("images", "a", "4", 1)},
      {Replace("images", "a", "5", 2)},
  });
  EXPECT_THAT(codes, ElementsAre(kOk, absl::StatusCode::kAlreadyExists, absl::StatusCode::kNotFound,
                                 kOk, absl::StatusCode::kAborted, kOk));
  EXPECT_THAT(revisions_, ElementsAre(1, 3, 4));
  EXPECT_EQ(logged_, 4u);
  EXPECT_EQ(*reader_->Revision(), 4u);
  EXPECT_THAT(reader_->List("images", "", 10, "")->rows,
              ElementsAre(Row{"a", "5", 4}, Row{"c", "1", 3}));
  EXPECT_THAT(*reader_->Changes(0, 10),
              ElementsAre(Change{1, Mutation::Kind::kPut, "images", "a"},
                          Change{2, Mutation::Kind::kPut, "images", "a"},
                          Change{3, Mutation::Kind::kPut, "images", "c"},
                          Change{4, Mutation::Kind::kPut, "images", "a"}));
}

TEST_F(SqliteWriterTest, OnlyWhatIsLoggedIsTold) {
  Open();
  EXPECT_THAT(Write({{Put("jobs", "j", "")}, {Remove("images", "none")}}),
              ElementsAre(kOk, absl::StatusCode::kNotFound));
  EXPECT_FALSE(logged_.has_value());
  EXPECT_THAT(Write({{Touch("images", "a")}, {Put("jobs", "j", "")}}), ElementsAre(kOk, kOk));
  EXPECT_EQ(logged_, 2u);
  EXPECT_EQ(*reader_->Revision(), 3u);
}

TEST_F(SqliteWriterTest, ACommitThatDoesNotFitOnTheDiskFailsAlone) {
  Open("PRAGMA max_page_count = 64");
  const std::string huge(size_t{1} << 20, 'x');
  EXPECT_THAT(Write({{Insert("images", "a", "1")},
                     {Put("images", "b", "1"), Insert("images", "c", huge)},
                     {Insert("images", "c", "3")}}),
              ElementsAre(kOk, absl::StatusCode::kResourceExhausted, kOk));
  EXPECT_THAT(revisions_, ElementsAre(1, 2));
  EXPECT_THAT(reader_->List("images", "", 10, "")->rows,
              ElementsAre(Row{"a", "1", 1}, Row{"c", "3", 2}));
}

// A deferred foreign key fails at COMMIT, when all commits of the group have been judged.
constexpr char kBadValuesFailAtCommit[] = R"(
    PRAGMA foreign_keys = ON;
    CREATE TABLE parents (id INTEGER PRIMARY KEY);
    CREATE TABLE children (id INTEGER REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
    CREATE TRIGGER bad AFTER INSERT ON resources WHEN NEW.value = x'626164'
      BEGIN INSERT INTO children VALUES (1); END;
)";

TEST_F(SqliteWriterTest, AVerdictOnARowThatWasNotKeptDoesNotCount) {
  Open(kBadValuesFailAtCommit);
  // The second one was told first that "a" exists already.
  EXPECT_THAT(Write({{Insert("images", "a", "bad")}, {Insert("images", "a", "good")}}),
              ElementsAre(absl::StatusCode::kInternal, kOk));
  EXPECT_THAT(reader_->List("images", "", 10, "")->rows, ElementsAre(Row{"a", "good", 1}));
  EXPECT_EQ(logged_, 1u);
}

TEST_F(SqliteWriterTest, AFailureAtTheEndOfALoneCommitLeavesNothing) {
  Open(kBadValuesFailAtCommit);
  EXPECT_THAT(Write({{Insert("images", "a", "bad")}}), ElementsAre(absl::StatusCode::kInternal));
  EXPECT_FALSE(logged_.has_value());
  EXPECT_THAT(reader_->List("images", "", 10, "")->rows, IsEmpty());
  EXPECT_EQ(*reader_->Revision(), 0u);
  EXPECT_THAT(Write({{Insert("images", "a", "good")}}), ElementsAre(kOk));
}

}  // namespace
}  // namespace gabion::service
