#include "engine/io/directory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "engine/base/text.h"
#include "tests/support_io/temp_dir.h"

namespace gabion::io {
namespace {

using test::TempDir;

class DirectoryTest : public testing::Test {
 protected:
  DirectoryTest() {
    EXPECT_EQ(mkdir(pool_path_.c_str(), 0700), 0);
    EXPECT_EQ(mkdir((pool_path_ + "/sub").c_str(), 0700), 0);
    Put(outside_.File("secret"), "secret");
    auto pool = Directory::Open(pool_path_);
    EXPECT_TRUE(pool.ok()) << pool.status();
    pool_.emplace(std::move(pool).value());
  }

  static void Put(const std::string& path, const std::string& text) { std::ofstream(path) << text; }
  static std::string TextOf(const UniqueFd& fd) {
    char text[64];
    const ssize_t length = pread(fd.get(), text, sizeof(text), 0);
    return std::string(text, length < 0 ? 0 : static_cast<std::size_t>(length));
  }
  std::string InPool(const std::string& name) { return pool_path_ + "/" + name; }

  void ExpectOutside(const absl::Status& status, const std::string& what) {
    EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << what << ": " << status;
    EXPECT_EQ(std::string(status.message()), "the name leads outside the pool") << what;
  }
  // No call lets the name through.
  void ExpectRefusedEverywhere(const std::string& name) {
    ExpectOutside(pool_->Open(name, {}).status(), "open " + name);
    ExpectOutside(pool_->Stat(name).status(), "stat " + name);
    ExpectOutside(pool_->Unlink(name), "unlink " + name);
    ExpectOutside(pool_->Rename(name, "target"), "rename " + name);
  }

  TempDir home_;
  TempDir outside_;
  const std::string pool_path_ = home_.File("pool");
  std::optional<Directory> pool_;
};

TEST_F(DirectoryTest, CreatesOpensRenamesAndUnlinks) {
  const auto created = pool_->Create("a.img");
  ASSERT_TRUE(created.ok()) << created.status();
  ASSERT_EQ(pwrite(created->get(), "hello", 5, 0), 5);
  const auto opened = pool_->Open("a.img", {});
  ASSERT_TRUE(opened.ok());
  EXPECT_EQ(TextOf(*opened), "hello");
  EXPECT_EQ(pwrite(opened->get(), "x", 1, 0), -1) << "opened for reading only";
  const auto writable = pool_->Open("a.img", {.writable = true});
  ASSERT_TRUE(writable.ok());
  EXPECT_EQ(pwrite(writable->get(), "j", 1, 0), 1);
  EXPECT_EQ(fcntl(writable->get(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_NE(fcntl(writable->get(), F_GETFD) & FD_CLOEXEC, 0);
  ASSERT_TRUE(pool_->Rename("a.img", "sub/b.img").ok());
  EXPECT_EQ(pool_->Open("a.img", {}).status().code(), absl::StatusCode::kNotFound);
  const auto entry = pool_->Stat("sub/b.img");
  ASSERT_TRUE(entry.ok());
  EXPECT_EQ(entry->size.value, 5u);
  ASSERT_TRUE(pool_->Unlink("sub/b.img").ok());
  EXPECT_EQ(pool_->Unlink("sub/b.img").code(), absl::StatusCode::kNotFound);
}

TEST_F(DirectoryTest, NothingIsReplaced) {
  Put(InPool("a"), "a");
  Put(InPool("b"), "b");
  EXPECT_EQ(pool_->Create("a").status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(pool_->Rename("a", "b").code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(symlink("nowhere", InPool("dangling").c_str()), 0);
  EXPECT_EQ(pool_->Create("dangling").status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(access(InPool("nowhere").c_str(), F_OK), -1);
}

TEST_F(DirectoryTest, NamesThatLeadOutsideAreRefused) {
  for (const std::string name : {"../pool/a", "..", "sub/../../x", "sub/..", "/etc/passwd"}) {
    ExpectRefusedEverywhere(name);
    ExpectOutside(pool_->Create(name).status(), "create " + name);
  }
  ExpectRefusedEverywhere(outside_.File("secret"));
}

TEST_F(DirectoryTest, SymbolicLinksAreRefusedWhereverTheyPoint) {
  Put(InPool("inside"), "inside");
  ASSERT_EQ(symlink(outside_.File("secret").c_str(), InPool("absolute").c_str()), 0);
  ASSERT_EQ(symlink("inside", InPool("relative").c_str()), 0);
  ASSERT_EQ(symlink(outside_.path().c_str(), InPool("dir").c_str()), 0);
  ASSERT_EQ(symlink("/proc/self/fd/0", InPool("magic").c_str()), 0);
  for (const std::string name : {"absolute", "relative", "dir/secret", "magic"}) {
    ExpectRefusedEverywhere(name);
  }
  ExpectOutside(pool_->Create("dir/new").status(), "create through a link");
  EXPECT_EQ(access(outside_.File("new").c_str(), F_OK), -1);
  EXPECT_EQ(access(outside_.File("secret").c_str(), F_OK), 0);
}

TEST_F(DirectoryTest, ADirectoryThatBecomesALinkIsRefused) {
  Put(InPool("sub/secret"), "inside");
  ASSERT_TRUE(pool_->Open("sub/secret", {}).ok());
  ASSERT_EQ(rename(InPool("sub").c_str(), InPool("moved").c_str()), 0);
  ASSERT_EQ(symlink(outside_.path().c_str(), InPool("sub").c_str()), 0);
  ExpectRefusedEverywhere("sub/secret");
}

TEST_F(DirectoryTest, ThePoolStaysWhereItWasOpened) {
  Put(InPool("secret"), "inside");
  ASSERT_EQ(rename(pool_path_.c_str(), home_.File("moved").c_str()), 0);
  ASSERT_EQ(symlink(outside_.path().c_str(), pool_path_.c_str()), 0);
  const auto opened = pool_->Open("secret", {});
  ASSERT_TRUE(opened.ok());
  EXPECT_EQ(TextOf(*opened), "inside");
}

TEST_F(DirectoryTest, PipesSocketsDevicesAndDirectoriesAreRefusedAtOnce) {
  ASSERT_EQ(mkfifo(InPool("fifo").c_str(), 0600), 0);
  std::vector<std::string> names = {"fifo", "sub"};
  if (mknod(InPool("null").c_str(), S_IFCHR | 0600, makedev(1, 3)) == 0) names.push_back("null");
  for (const std::string& name : names) {
    for (const bool writable : {false, true}) {
      const absl::Status status = pool_->Open(name, {.writable = writable}).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name << ": " << status;
    }
    EXPECT_EQ(pool_->Unlink(name).code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_EQ(pool_->Rename(name, "x").code(), absl::StatusCode::kInvalidArgument) << name;
  }
}

TEST_F(DirectoryTest, WhatIsNoNameIsInvalid) {
  const std::string with_nul("a\0b", 3);
  for (const std::string& name :
       {std::string(), with_nul, std::string("a//b"), std::string("a/"), std::string("."),
        std::string("./a"), std::string(256, 'n'), std::string(5000, 'n'),
        std::string(3000, 'n') + "/" + std::string(3000, 'n')}) {
    EXPECT_EQ(pool_->Open(name, {}).status().code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_EQ(pool_->Create(name).status().code(), absl::StatusCode::kInvalidArgument) << name;
  }
  EXPECT_TRUE(pool_->Create(std::string(255, 'n')).ok());
}

TEST_F(DirectoryTest, MessagesContainNoPath) {
  const absl::Status status = pool_->Open("sub/missing", {}).status();
  EXPECT_EQ(std::string(status.message()), "open: No such file or directory");
}

TEST_F(DirectoryTest, ListsFilesOfTheDirectoryItself) {
  Put(InPool("b"), "12345");
  Put(InPool("a"), "");
  Put(InPool("sub/c"), "c");
  ASSERT_EQ(symlink("b", InPool("link").c_str()), 0);
  ASSERT_EQ(mkfifo(InPool("fifo").c_str(), 0600), 0);
  const auto entries = pool_->List();
  ASSERT_TRUE(entries.ok()) << entries.status();
  ASSERT_EQ(entries->size(), 2u);
  EXPECT_EQ((*entries)[0].name, "a");
  EXPECT_EQ((*entries)[1].name, "b");
  EXPECT_EQ((*entries)[1].size.value, 5u);
  EXPECT_EQ(pool_->List()->size(), 2u) << "listing again starts from the beginning";
}

TEST_F(DirectoryTest, AFileKeepsItsUid) {
  const auto file = pool_->Create("a");
  ASSERT_TRUE(file.ok());
  const absl::Status set = SetFileUid(file->get(), "0194-ab");
  if (absl::IsUnimplemented(set)) GTEST_SKIP() << "no extended attributes here";
  ASSERT_TRUE(set.ok()) << set;
  EXPECT_EQ(*GetFileUid(pool_->Open("a", {})->get()), "0194-ab");
  EXPECT_EQ(*GetFileUid(pool_->Create("b")->get()), std::nullopt);
  EXPECT_EQ(SetFileUid(file->get(), "").code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(DirectoryTest, AFileKeepsWhatItIsMadeOfBesideItsUid) {
  const auto file = pool_->Create("a");
  ASSERT_TRUE(file.ok());
  const absl::Status set = SetFileSource(file->get(), "copy 1:2:3");
  if (absl::IsUnimplemented(set)) GTEST_SKIP() << "no extended attributes here";
  ASSERT_TRUE(set.ok()) << set;
  EXPECT_EQ(*GetFileSource(pool_->Open("a", {})->get()), "copy 1:2:3");
  EXPECT_EQ(*GetFileUid(file->get()), std::nullopt);
  ClearFileSource(file->get());
  EXPECT_EQ(*GetFileSource(file->get()), std::nullopt);
}

TEST_F(DirectoryTest, AFileWithoutANameIsNowhere) {
  const auto file = pool_->CreateUnnamed();
  if (absl::IsUnimplemented(file.status())) GTEST_SKIP() << "no such files here";
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(write(file->get(), "x", 1), 1);
  EXPECT_TRUE(pool_->List()->empty());
}

TEST_F(DirectoryTest, AMissingDirectoryIsNotFound) {
  EXPECT_EQ(Directory::Open(pool_path_ + "/none").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(pool_->Open("none/a", {}).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace gabion::io
