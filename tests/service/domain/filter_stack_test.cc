#include "service/domain/filter_stack.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "google/protobuf/text_format.h"
#include "service/errors.h"

namespace gabion::service {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

v1::Export WithStack(const std::string& stack) {
  v1::Export exported;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(stack, &exported)) << stack;
  return exported;
}

std::vector<std::string> IdsAfterCompleting(const std::string& stack) {
  v1::Export exported = WithStack(stack);
  const absl::Status completed = CompleteStack(&exported);
  EXPECT_TRUE(completed.ok()) << completed;
  std::vector<std::string> ids;
  for (const v1::FilterStackEntry& entry : exported.filter_stack()) ids.push_back(entry.entry_id());
  return ids;
}

StackSource Filters() {
  StackSource source;
  source.find = [](const std::string& name,
                   const std::string& field) -> absl::StatusOr<v1::Filter> {
    v1::Filter filter;
    filter.set_name(name);
    filter.set_uid("uid");
    if (name == "filters/none") return NotFound("gabion/Filter", name, field);
    if (name == "filters/throttle") {
      filter.mutable_spec()->mutable_throttle();
    } else {
      filter.mutable_spec()->mutable_delay();
    }
    return filter;
  };
  return source;
}

TEST(FilterStackTest, EntriesAreCalledAsTheirFilterOrKindWithANumberIfThatIsTaken) {
  EXPECT_THAT(IdsAfterCompleting("filter_stack { filter: 'filters/gold' } "
                                 "filter_stack { spec { write_protect {} } } "
                                 "filter_stack { filter: 'filters/gold' } "
                                 "filter_stack { spec { write_protect {} } }"),
              ElementsAre("gold", "write-protect", "gold-2", "write-protect-2"));
}

TEST(FilterStackTest, WhatTheCallerGivesIsNotTakenBySomethingBeforeIt) {
  EXPECT_THAT(IdsAfterCompleting("filter_stack { spec { delay {} } } "
                                 "filter_stack { entry_id: 'delay' spec { log {} } } "
                                 "filter_stack { entry_id: 'delay-2' spec { log {} } }"),
              ElementsAre("delay-3", "delay", "delay-2"));
}

TEST(FilterStackTest, TheNumberFitsBehindTheLongestId) {
  const std::string longest = std::string(60, 'a') + "-bc";
  const std::string entry = "filter_stack { filter: 'filters/" + longest + "' } ";
  EXPECT_THAT(IdsAfterCompleting(entry + entry), ElementsAre(longest, std::string(60, 'a') + "-2"));
}

TEST(FilterStackTest, TwoEntriesOfOneNameAreRefused) {
  v1::Export exported = WithStack(
      "filter_stack { entry_id: 'x' spec { log {} } } filter_stack { entry_id: 'x' spec { log {} } "
      "}");
  const google::rpc::ErrorInfo info = InfoOf(CompleteStack(&exported));
  EXPECT_EQ(info.reason(), "STACK_ENTRY_DUPLICATE");
  EXPECT_EQ(info.metadata().at("field"), "export.filter_stack[1].entry_id");
  EXPECT_EQ(info.metadata().at("entry-id"), "x");
  EXPECT_EQ(info.metadata().at("index"), "1");
}

TEST(FilterStackTest, OnlyNamedFiltersShareTheirState) {
  const auto stack = ResolveStack(
      WithStack("filter_stack { entry_id: 'a' filter: 'filters/throttle' bypassed: true } "
                "filter_stack { entry_id: 'b' spec { throttle {} } } "
                "filter_stack { entry_id: 'c' filter: 'filters/delay' }"),
      Filters());
  ASSERT_TRUE(stack.ok()) << stack.status();
  ASSERT_EQ(stack->size(), 3u);
  EXPECT_EQ((*stack)[0].id, "a");
  EXPECT_TRUE((*stack)[0].bypassed);
  EXPECT_EQ((*stack)[0].shared_as, "filters/throttle/uid");
  EXPECT_EQ((*stack)[1].shared_as, "");
  EXPECT_EQ((*stack)[2].shared_as, "");
  EXPECT_TRUE(std::holds_alternative<filters::DelayOptions>((*stack)[2].options));
}

TEST(FilterStackTest, OneThatSharesItsStateStandsThereOnceAndOthersAsOftenAsTheyLike) {
  const std::string delay = "filter_stack { entry_id: 'a' filter: 'filters/delay' } ";
  EXPECT_TRUE(ResolveStack(WithStack(delay + delay), Filters()).ok());
  const std::string throttle = "filter_stack { entry_id: 'a' filter: 'filters/throttle' } ";
  const absl::Status refused = ResolveStack(WithStack(throttle + throttle), Filters()).status();
  EXPECT_EQ(InfoOf(refused).reason(), "STACK_ENTRY_DUPLICATE");
  EXPECT_EQ(InfoOf(refused).metadata().at("field"), "export.filter_stack[1].filter");
}

TEST(FilterStackTest, ErrorsNameTheEntryAndWhereTheRequestSaysIt) {
  const v1::Export exported = WithStack(
      "filter_stack { entry_id: 'a' filter: 'filters/delay' } "
      "filter_stack { entry_id: 'b' spec { slice { range { offset_bytes: 2 length_bytes: "
      "18446744073709551615 } } } }");
  StackSource source = Filters();
  google::rpc::ErrorInfo info = InfoOf(ResolveStack(exported, source).status());
  EXPECT_EQ(info.reason(), "FILTER_PARAMETERS_INVALID");
  EXPECT_EQ(info.metadata().at("field"), "export.filter_stack[1].spec.slice.range.length_bytes");
  EXPECT_EQ(info.metadata().at("entry-id"), "b");
  EXPECT_EQ(info.metadata().at("index"), "1");
  source.fields["b"] = "entry.spec";
  info = InfoOf(ResolveStack(exported, source).status());
  EXPECT_EQ(info.metadata().at("field"), "entry.spec.slice.range.length_bytes");

  info = InfoOf(
      ResolveStack(WithStack("filter_stack { entry_id: 'n' filter: 'filters/none' }"), Filters())
          .status());
  EXPECT_EQ(info.reason(), "RESOURCE_NOT_FOUND");
  EXPECT_EQ(info.metadata().at("field"), "export.filter_stack[0].filter");
  EXPECT_EQ(info.metadata().at("entry-id"), "n");
}

TEST(FilterStackTest, FiltersAreToldOnceEach) {
  EXPECT_THAT(FiltersOf(WithStack("filter_stack { filter: 'filters/b' } "
                                  "filter_stack { spec { log {} } } "
                                  "filter_stack { filter: 'filters/a' } "
                                  "filter_stack { filter: 'filters/b' }")),
              ElementsAre("filters/a", "filters/b"));
}

constexpr const char* kFill = "filter_stack { spec { copy_on_read {} } } ";
constexpr const char* kCow = "filter_stack { spec { cow { image { image: 'images/s' } } } } ";
constexpr const char* kVerify = "filter_stack { spec { verify { reference_image: 'images/r' } } } ";
constexpr const char* kTree =
    "filter_stack { spec { verify { hash_tree { image: 'images/t' } } } } ";

std::set<std::string> Written(const std::string& stack, bool read_only) {
  v1::Export exported = WithStack("source: 'images/a' " + stack);
  exported.set_read_only(read_only);
  return ImagesWrittenBy(exported, [](const std::string& name) {
    std::optional<v1::FilterSpec> spec;
    if (name == "filters/cow") spec.emplace().mutable_cow()->mutable_image()->set_image("images/n");
    return spec;
  });
}

TEST(FilterStackTest, WhatClientsWriteReachesAllThatIsNotBelowACow) {
  EXPECT_THAT(Written("", false), ElementsAre("images/a"));
  EXPECT_THAT(Written("", true), IsEmpty());
  EXPECT_THAT(Written(kVerify, false), ElementsAre("images/a", "images/r"));
  EXPECT_THAT(Written(kTree, false), ElementsAre("images/a"));
  EXPECT_THAT(Written(std::string(kCow) + kVerify, false), ElementsAre("images/s"));
  EXPECT_THAT(Written(std::string(kVerify) + kCow, false), ElementsAre("images/r", "images/s"));
  EXPECT_THAT(Written(std::string(kCow) + kVerify, true), IsEmpty());
  EXPECT_THAT(Written("filter_stack { filter: 'filters/cow' }", false), ElementsAre("images/n"));
  EXPECT_THAT(Written("filter_stack { filter: 'filters/none' }", false), ElementsAre("images/a"));
}

TEST(FilterStackTest, WhatReadsFillInReachesAllBelowDownToACow) {
  const std::string fill = kFill;
  EXPECT_THAT(Written(fill, true), ElementsAre("images/a"));
  EXPECT_THAT(Written(fill + kVerify, true), ElementsAre("images/a", "images/r"));
  EXPECT_THAT(Written(kVerify + fill, true), ElementsAre("images/a"));
  EXPECT_THAT(Written(fill + kCow, true), ElementsAre("images/s"));
  EXPECT_THAT(Written(kCow + fill, false), ElementsAre("images/a", "images/s"));
  EXPECT_THAT(Written(kCow + fill, true), ElementsAre("images/a"));
}

TEST(FilterStackTest, WhatIsBypassedWritesNothingAndIsNeeded) {
  EXPECT_THAT(Written("filter_stack { bypassed: true spec { copy_on_read {} } }", true), IsEmpty());
  const std::string cow =
      "filter_stack { bypassed: true spec { cow { image { image: 'images/s' } } } }";
  EXPECT_THAT(Written(cow, false), ElementsAre("images/a"));
  EXPECT_THAT(ImagesNeededBy(WithStack("source: 'images/a' " + cow),
                             [](const std::string&) { return std::nullopt; }),
              ElementsAre("images/a", "images/s"));
}

}  // namespace
}  // namespace gabion::service
