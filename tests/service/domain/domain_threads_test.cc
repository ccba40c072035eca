// Many clients at once, restarts and deaths: what must be true whatever the order was.
#include <gtest/gtest.h>

#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/service/domain/crash_fixture.h"
#include "tests/service/domain/watch_follower.h"
#include "tests/support/random_source.h"

namespace gabion::service {
namespace {

class DomainThreadsTest : public CrashFixture {
 protected:
  static constexpr int kThreads = 4;
  static constexpr uint64_t kRequests = 60;  // of a round, each by several clients

  DomainThreadsTest() {
    adjust_ = [](DomainOptions* options) {
      options->operations.piece_bytes = 1000;
      options->operations.first_retry = std::chrono::milliseconds(2);
      options->exports.reconciler = {std::chrono::milliseconds(2), std::chrono::milliseconds(10)};
    };
  }

  // Requests are numbered; what one asks for follows from its number and the seed.
  void PlayRound(uint64_t round, bool dies) {
    ConnectSome();
    if (dies) death_.After(static_cast<int>(random_.Below(200)), Way::kBefore);
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
      const uint64_t seed = random_.Next();
      threads.emplace_back([this, round, seed] { BeClient(round, test::RandomSource(seed)); });
    }
    for (std::thread& thread : threads) thread.join();
    if (dies) {
      Kill();
      Resurrect();
    }
    for (const std::string& name : engine_->served()) {
      for (uint64_t id = 1; id <= last_client_; ++id) engine_->RemoveConnection(name, id);
    }
    AwaitRest();
    Repeat();
    answers_.clear();
    ExpectAgreement();
  }

  void AwaitRest() {
    ASSERT_TRUE(death_.Await([this] {
      if (!IsQuiet() || Rows("connections") > 0) return false;
      const v1::ListImagesResponse all = AllImages();
      for (const v1::Image& image : all.images()) {
        if (image.has_delete_time() && image.dependents().empty()) return false;
      }
      return true;
    })) << "It never comes to rest.";
  }

  // Everything that a watch from the beginning and one that went on have been told.
  void ExpectFollowed(WatchFollower* follower) {
    WatchFollower::Known expected;
    const v1::ListImagesResponse images = AllImages();
    for (const v1::Image& image : images.images()) expected[image.name()] = ContentOf(image);
    const auto exports = domain_->exports().List({});
    ASSERT_TRUE(exports.ok()) << exports.status();
    for (const v1::Export& one : exports->exports()) expected[one.name()] = ContentOf(one);
    const auto filters = domain_->filters().List({});
    ASSERT_TRUE(filters.ok()) << filters.status();
    for (const v1::Filter& one : filters->filters()) expected[one.name()] = ContentOf(one);
    follower->Stop();
    if (follower->moments() == 0) {
      follower->Begin(*domain_);
    } else {
      follower->GoOn(*domain_, random_.Below(follower->moments()));
    }
    EXPECT_EQ(follower->Read(), expected);
  }

  test::RandomSource random_;

 private:
  void ConnectSome() {
    const std::vector<std::string> served = engine_->served();
    for (const std::string& name : served) {
      if (random_.OneIn(2)) Connect(name, ++last_client_);
    }
  }

  void BeClient(uint64_t round, test::RandomSource random) {
    for (uint64_t i = 0; i < kRequests / 2; ++i) {
      const uint64_t number = round * kRequests + random.Below(kRequests);
      Judge(number, SendNumber(number));
      if (random.OneIn(4)) {
        engine_->RemoveConnection(absl::StrCat("exports/", Id(&random)),
                                  random.Between(1, last_client_ + 1));
      }
    }
  }
  // What has been answered is answered so for good.
  void Repeat() {
    const std::map<uint64_t, std::string> answers = answers_;
    for (const auto& [number, text] : answers) {
      const absl::StatusOr<Told> again = SendNumber(number);
      EXPECT_TRUE(again.ok()) << again.status();
      Judge(number, again);
    }
  }

  // One request has one answer, whoever sends it; and no error is the daemon's fault.
  void Judge(uint64_t number, const absl::StatusOr<Told>& told) {
    const std::lock_guard lock(mutex_);
    if (told.ok()) {
      EXPECT_EQ(answers_.emplace(number, told->text).first->second, told->text);
      return;
    }
    EXPECT_FALSE(absl::IsInternal(told.status()) || absl::IsUnknown(told.status()) ||
                 absl::IsDataLoss(told.status()))
        << told.status();
    EXPECT_NE(ReasonIn(told.status()), "REQUEST_ID_REUSED") << told.status();
    EXPECT_TRUE(death_.dead() || !absl::IsUnavailable(told.status())) << told.status();
  }

  static std::string Id(test::RandomSource* random) {
    return std::string(1, static_cast<char>('a' + random->Below(3)));
  }

  absl::StatusOr<Told> SendNumber(uint64_t number) {
    return SendOne(test::RandomSource(test::ProcessSeed() + number),
                   absl::StrFormat("00000000-0000-4000-8000-%012x", number + 1));
  }
  absl::StatusOr<Told> SendOne(test::RandomSource random, const std::string& id) {
    if (random.OneIn(2)) return SendOneOfFilters(std::move(random), id);
    switch (random.Below(6)) {
      case 0: {
        v1::CreateImageRequest request = CreateImageRequest(Id(&random), random.Between(1, 3000));
        return SendAs(id, request);
      }
      case 1:
        return SendAs(id, CreateExportRequest(Id(&random), absl::StrCat("images/", Id(&random))));
      case 2: {
        v1::UpdateImageRequest request;
        request.mutable_image()->set_name(absl::StrCat("images/", Id(&random)));
        request.mutable_image()->set_virtual_size_bytes(random.Between(1, 6000));
        return SendAs(id, request);
      }
      case 3: {
        v1::UpdateExportRequest request;
        request.mutable_export_()->set_name(absl::StrCat("exports/", Id(&random)));
        request.mutable_export_()->set_source(absl::StrCat("images/", Id(&random)));
        request.mutable_export_()->set_description(absl::StrCat(random.Below(100)));
        request.mutable_update_mask()->add_paths("description");
        request.set_allow_missing(random.OneIn(2));
        return SendAs(id, request);
      }
      case 4: {
        v1::DeleteImageRequest request;
        request.set_name(absl::StrCat("images/", Id(&random)));
        if (random.OneIn(2)) request.set_mode(v1::DeleteImageRequest::MODE_TOMBSTONE);
        return SendAs(id, request);
      }
      default: {
        v1::DeleteExportRequest request;
        request.set_name(absl::StrCat("exports/", Id(&random)));
        request.set_mode(static_cast<v1::DeleteExportRequest::Mode>(random.Between(1, 4)));
        return SendAs(id, request);
      }
    }
  }
  absl::StatusOr<Told> SendOneOfFilters(test::RandomSource random, const std::string& id) {
    const std::string filter = absl::StrCat("filters/", Id(&random));
    const std::string exported = absl::StrCat("exports/", Id(&random));
    const std::string delay = absl::StrCat("delay { read { nanos: ", random.Between(1, 50), " } }");
    switch (random.Below(6)) {
      case 0: {
        v1::CreateFilterRequest request;
        request.set_filter_id(Id(&random));
        *request.mutable_filter()->mutable_spec() = FilterSpecOf(delay);
        return SendAs(id, request);
      }
      case 1: {
        v1::UpdateFilterRequest request;
        request.mutable_filter()->set_name(filter);
        *request.mutable_filter()->mutable_spec() = FilterSpecOf(delay);
        return SendAs(id, request);
      }
      case 2: {
        v1::DeleteFilterRequest request;
        request.set_name(filter);
        return SendAs(id, request);
      }
      case 3: {
        v1::DetachFilterRequest request;
        request.set_name(exported);
        request.set_entry_id(Id(&random));
        request.set_allow_missing(random.OneIn(2));
        return SendAs(id, request);
      }
      case 4: {
        v1::UpdateExportRequest request;
        request.mutable_export_()->set_name(exported);
        for (uint64_t i = random.Below(3); i > 0; --i) {
          AddEntry(request.mutable_export_(), absl::StrCat("filter: 'filters/", Id(&random), "'"));
        }
        request.mutable_update_mask()->add_paths("filter_stack");
        return SendAs(id, request);
      }
      default: {
        v1::AttachFilterRequest request;
        request.set_name(exported);
        request.mutable_entry()->set_filter(filter);
        return SendAs(id, request);
      }
    }
  }
  template <typename Request>
  absl::StatusOr<Told> SendAs(const std::string& id, Request request) {
    request.set_request_id(id);
    ASSIGN_OR_RETURN(const auto response, Send(request));
    return TellOf(response);
  }

  std::mutex mutex_;
  std::map<uint64_t, std::string> answers_;  // of this round, by the requests' numbers
  uint64_t last_client_ = 0;
};

TEST_F(DomainThreadsTest, WhateverTheOrderEverythingAgreesInTheEnd) {
  SCOPED_TRACE(testing::Message() << "GABION_SEED=" << test::ProcessSeed());
  constexpr uint64_t kRounds = 30;
  NewWorld();
  WatchFollower follower;
  for (uint64_t round = 0; round < kRounds && !HasFailure(); ++round) {
    PlayRound(round, random_.OneIn(2));
    ExpectFollowed(&follower);
  }
}

}  // namespace
}  // namespace gabion::service
