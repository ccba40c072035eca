#include "service/domain/domain_views.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "google/protobuf/util/message_differencer.h"
#include "tests/service/domain/fixture.h"

namespace gabion::service {
namespace {

using google::protobuf::util::MessageDifferencer;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class DomainViewsTest : public DomainFixture {
 protected:
  DomainViewsTest()
      : views_(domain_->pools(), domain_->images(), domain_->exports(), domain_->filters(),
               domain_->connections(),
               [](const std::string& name) -> absl::StatusOr<google::longrunning::Operation> {
                 if (name != "operations/o") return NotFound("gabion/Operation", name);
                 google::longrunning::Operation operation;
                 operation.set_name(name);
                 operation.set_done(true);
                 return operation;
               }) {
    EXPECT_TRUE(CreateImage("a").ok());
    EXPECT_TRUE(CreateExport("e", "images/a").ok());
    EXPECT_TRUE(CreateFilter("f", "log {}").ok());
    engine::ConnectionState connection;
    connection.id = 7;
    connection.peer = "a peer";
    engine_->AddConnection("exports/e", connection);
  }

  DomainViews views_;
};

TEST_F(DomainViewsTest, EachIsWhatGetTells) {
  const std::vector<std::string> names = {
      "exports/e/connections/7", "exports/e", "operations/o", "images/a",
      "pools/default",           "filters/f"};
  const auto views = views_.View(names);
  ASSERT_EQ(views.size(), names.size());
  for (std::size_t i = 0; i < names.size(); ++i) {
    ASSERT_TRUE(views[i].ok()) << names[i] << ": " << views[i].status();
    EXPECT_EQ(views[i]->name(), names[i]);
  }
  EXPECT_TRUE(MessageDifferencer::Equals(views[0]->connection(),
                                         *domain_->connections().Get("exports/e/connections/7")));
  EXPECT_EQ(views[0]->connection().peer_address(), "a peer");
  EXPECT_TRUE(MessageDifferencer::Equals(views[1]->export_(), GetExport("exports/e")));
  EXPECT_EQ(views[1]->export_().source(), "images/a");
  EXPECT_TRUE(views[2]->operation().done());
  EXPECT_TRUE(MessageDifferencer::Equals(views[3]->image(), *domain_->images().Get("images/a")));
  EXPECT_EQ(views[3]->image().virtual_size_bytes(), 4096u);
  EXPECT_EQ(views[4]->pool().name(), "pools/default");
  EXPECT_TRUE(MessageDifferencer::Equals(views[5]->filter(), GetFilter("filters/f")));
}

TEST_F(DomainViewsTest, ManyAreLookedAtTogether) {
  std::vector<std::string> names;
  for (int i = 0; i < 20; ++i) {
    const std::string id = "x" + std::to_string(i);
    ASSERT_TRUE(CreateImage(id, 4096 + i).ok());
    ASSERT_TRUE(CreateExport(id, "images/" + id).ok());
    names.push_back("images/" + id);
    names.push_back("exports/" + id);
    names.push_back("images/none");
  }
  const int images = engine_->calls("StatImages");
  const int exports = engine_->calls("GetExports");
  const auto views = views_.View(names);
  EXPECT_EQ(engine_->calls("StatImages"), images + 1);
  EXPECT_EQ(engine_->calls("GetExports"), exports + 1);
  ASSERT_EQ(views.size(), names.size());
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(views[3 * i]->image().virtual_size_bytes(), 4096u + i);
    EXPECT_EQ(views[3 * i + 1]->export_().name(), names[3 * i + 1]);
    EXPECT_TRUE(absl::IsNotFound(views[3 * i + 2].status()));
  }
}

TEST_F(DomainViewsTest, WhatIsNotThereIsNotFound) {
  const std::vector<std::string> names = {"exports/e/connections/8",
                                          "exports/f/connections/7",
                                          "exports/f",
                                          "operations/p",
                                          "images/b",
                                          "filters/g",
                                          "pools/other",
                                          "jobs/a",
                                          ""};
  for (const auto& view : views_.View(names)) {
    EXPECT_TRUE(absl::IsNotFound(view.status())) << view.status();
  }
}

TEST_F(DomainViewsTest, PoolsAreConfigured) {
  const auto pools = views_.Configured("pools");
  ASSERT_TRUE(pools.ok()) << pools.status();
  EXPECT_THAT(*pools, ElementsAre("pools/default"));
  const auto images = views_.Configured("images");
  ASSERT_TRUE(images.ok()) << images.status();
  EXPECT_THAT(*images, IsEmpty());
}

}  // namespace
}  // namespace gabion::service
