#include "service/list_order.h"

#include <gmock/gmock.h>
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "gabion/v1/export.pb.h"
#include "tests/service/violations_of.h"

namespace gabion::service {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

v1::Export Make(const std::string& name, const std::string& text) {
  v1::Export exported;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &exported)) << text;
  exported.set_name(name);
  return exported;
}

// The names in the order asked for.
std::vector<std::string> Sorted(std::vector<v1::Export> exports, const std::string& order_by) {
  const auto order = ParseOrderBy(v1::Export::descriptor(), order_by);
  EXPECT_TRUE(order.ok()) << order.status();
  std::vector<std::string> names;
  if (!order.ok()) return names;
  std::sort(exports.begin(), exports.end(), *order);
  for (const v1::Export& exported : exports) names.push_back(exported.name());
  return names;
}

const std::vector<v1::Export> kExports = {
    Make("c", "create_time { seconds: 2 } generation: 1 state: STATE_FAILED"),
    Make("a",
         "create_time { seconds: 1 nanos: 5 } generation: 18446744073709551615 "
         "access { max_connections: 3 }"),
    Make("d", "create_time { seconds: 1 nanos: 6 } generation: 1 access { }"),
    Make("b", "generation: 2 enabled: false state: STATE_ACTIVE"),
};

TEST(ListOrderTest, EmptyIsByName) {
  for (const std::string by_name : {"", "  ", "name", "name asc", " name\tasc ", "name,uid desc"}) {
    EXPECT_THAT(Sorted(kExports, by_name), ElementsAre("a", "b", "c", "d")) << by_name;
    EXPECT_TRUE(ParseOrderBy(v1::Export::descriptor(), by_name)->is_by_name()) << by_name;
  }
  for (const std::string other : {"name desc", "uid", "uid, name"}) {
    EXPECT_FALSE(ParseOrderBy(v1::Export::descriptor(), other)->is_by_name()) << other;
  }
  EXPECT_THAT(Sorted(kExports, "name desc"), ElementsAre("d", "c", "b", "a"));
}

TEST(ListOrderTest, FieldsOfAllKindsWithTheNameAsTheLastOne) {
  EXPECT_THAT(Sorted(kExports, "create_time"), ElementsAre("b", "a", "d", "c"));
  EXPECT_THAT(Sorted(kExports, "create_time desc"), ElementsAre("c", "d", "a", "b"));
  EXPECT_THAT(Sorted(kExports, "generation"), ElementsAre("c", "d", "b", "a"));
  EXPECT_THAT(Sorted(kExports, "generation desc, name desc"), ElementsAre("a", "b", "d", "c"));
  EXPECT_THAT(Sorted(kExports, "state"), ElementsAre("a", "d", "b", "c"));
  EXPECT_THAT(Sorted(kExports, "read_only,generation"), ElementsAre("c", "d", "b", "a"));
}

TEST(ListOrderTest, WhatIsNotSetComesBeforeWhatHasItsDefault) {
  EXPECT_THAT(Sorted(kExports, "access.max_connections"), ElementsAre("b", "c", "d", "a"));
  EXPECT_THAT(Sorted(kExports, "access.max_connections desc"), ElementsAre("a", "d", "b", "c"));
  EXPECT_THAT(Sorted(kExports, "enabled"), ElementsAre("a", "c", "d", "b"));
}

TEST(ListOrderTest, NanHasAPlaceToo) {
  google::protobuf::Value nan;
  google::protobuf::Value one;
  nan.set_number_value(std::numeric_limits<double>::quiet_NaN());
  one.set_number_value(1);
  const auto order = ParseOrderBy(google::protobuf::Value::descriptor(), "number_value");
  ASSERT_TRUE(order.ok());
  EXPECT_LT(order->Compare(nan, one), 0);
  EXPECT_GT(order->Compare(one, nan), 0);
  EXPECT_EQ(order->Compare(nan, nan), 0);
  EXPECT_FALSE(order->is_by_name());
}

TEST(ListOrderTest, ErrorsNameWhatIsWrong) {
  const std::vector<std::pair<std::string, std::string>> table = {
      {"color", "Export has no field \"color\""},
      {"access.color", "Access has no field \"color\""},
      {"name.x", "goes on behind a field without fields"},
      {"create_time.seconds", "goes on behind a field without fields"},
      {"access", "\"access\" is a message, which has no order"},
      {"uris", "uris is a list, which has no order"},
      {"labels", "labels is a map, which has no order"},
      {"labels.tier", "labels is a map, which has no order"},
      {"name up", "is not a field with asc, desc or nothing behind it"},
      {"name DESC", "is not a field with asc, desc or nothing behind it"},
      {"name desc desc", "is not a field with asc, desc or nothing behind it"},
      {"name,", "a field's name is missing beside a comma"},
      {",", "a field's name is missing beside a comma"},
      {".", "has no field \"\""},
      {"uid, uid desc", "names \"uid\" twice"},
      {"a,b,c,d,e,f,g,h,i", "names more than 8 fields"},
      {std::string(kMaxOrderBytes + 1, 'x'), "is longer than 1024 bytes"},
  };
  for (const auto& [order_by, text] : table) {
    const auto order = ParseOrderBy(v1::Export::descriptor(), order_by);
    ASSERT_FALSE(order.ok()) << order_by;
    EXPECT_THAT(ViolationsOf(order.status()), ElementsAre("order_by FIELD_INVALID"));
    EXPECT_THAT(std::string(order.status().message()), HasSubstr(text)) << order_by;
  }
  EXPECT_TRUE(ParseOrderBy(v1::Export::descriptor(),
                           "uid,generation,create_time,update_time,source,nbd_name,state,name")
                  .ok());
}

}  // namespace
}  // namespace gabion::service
