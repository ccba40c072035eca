// The images that filters name: who may write to them, and how long they are in use.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <string>
#include <thread>

#include "tests/service/domain/fixture.h"

namespace gabion::service {
namespace {

constexpr const char* kCow = "entry_id: 'cow' spec { cow { image { image: 'images/s' } } }";

class FilterImagesTest : public DomainFixture {
 protected:
  FilterImagesTest() {
    EXPECT_TRUE(CreateImage("a").ok());
    EXPECT_TRUE(CreateQcow2("s").ok());
  }

  // exports/e of images/a, read only, whose changes are kept in images/s.
  void MakeReadOnly() {
    const auto made = CreateExport("e", "images/a", [](v1::Export* e) {
      e->set_read_only(true);
      AddEntry(e, kCow);
    });
    ASSERT_TRUE(made.ok()) << made.status();
  }
  absl::StatusOr<v1::Export> SetReadOnly(bool read_only) {
    v1::Export exported;
    exported.set_name("exports/e");
    exported.set_read_only(read_only);
    return UpdateExport(exported, {"read_only"});
  }
};

TEST_F(FilterImagesTest, NobodyDecidesAboutAnImageWhileAnExportBecomesOneThatWritesToIt) {
  MakeReadOnly();
  std::promise<void> begun;
  std::promise<void> go_on;
  std::atomic<bool> first = true;
  store_.SetGate([&]() -> absl::Status {
    if (first.exchange(false)) {
      begun.set_value();
      go_on.get_future().wait();
    }
    return absl::OkStatus();
  });
  std::thread changer([&] { EXPECT_TRUE(SetReadOnly(false).ok()); });
  begun.get_future().wait();
  v1::CloneImageRequest clone;
  clone.set_image_id("c");
  clone.set_source("images/s");
  Call call;
  call.patience.until = Patience::Clock::now() + std::chrono::milliseconds(10);
  const absl::Status meanwhile = domain_->images().Clone(clone, call).status();
  EXPECT_EQ(ReasonIn(meanwhile), "OPERATION_IN_PROGRESS") << meanwhile;
  go_on.set_value();
  changer.join();
  EXPECT_EQ(ReasonIn(Clone("c", "images/s").status()), "IMAGE_IN_USE");
}

}  // namespace
}  // namespace gabion::service
