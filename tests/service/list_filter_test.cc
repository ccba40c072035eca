#include "service/list_filter.h"

#include <gmock/gmock.h>
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gabion/v1/export.pb.h"
#include "gabion/v1/image.pb.h"
#include "google/longrunning/operations.pb.h"
#include "tests/service/violations_of.h"

namespace gabion::service {
namespace {

using google::longrunning::Operation;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

template <typename Resource>
Resource FromText(const std::string& text) {
  Resource resource;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &resource)) << text;
  return resource;
}

v1::Export AnExport() {
  return FromText<v1::Export>(R"(
      name: "exports/web-1" uid: "u" generation: 18446744073709551615
      create_time { seconds: 1767225600 nanos: 500 }
      labels { key: "tier" value: "gold" } labels { key: "gabion.dev/a b" value: "x*y" }
      labels { key: "empty" value: "" }
      source: "images/web-1" description: "Backup of the WEB server"
      access { max_connections: 7 transport: TRANSPORT_PLAINTEXT_TCP }
      state: STATE_ACTIVE
      effective_block_sizes { minimum { bytes: 512 } }
      uris: "nbd://h/web-1" uris: "nbd+unix:///web-1?socket=s")");
}

Operation AnOperation() {
  Operation operation = FromText<Operation>("name: 'operations/1'");
  auto image = FromText<v1::Image>("name: 'images/a' state: STATE_ACTIVE");
  (*image.mutable_labels())["k"] = "v";
  operation.mutable_response()->PackFrom(image);
  return operation;
}

bool Matches(const google::protobuf::Message& resource, const std::string& expression) {
  const auto filter = ParseListFilter(resource.GetDescriptor(), expression);
  EXPECT_TRUE(filter.ok()) << expression << ": " << filter.status();
  return filter.ok() && filter->Matches(resource);
}

void ExpectMatches(const google::protobuf::Message& resource,
                   const std::vector<std::string>& expressions) {
  for (const std::string& expression : expressions) {
    EXPECT_TRUE(Matches(resource, expression)) << expression;
    EXPECT_FALSE(Matches(resource, "NOT (" + expression + ")")) << expression;
  }
}

void ExpectNone(const google::protobuf::Message& resource,
                const std::vector<std::string>& expressions) {
  for (const std::string& expression : expressions) {
    EXPECT_FALSE(Matches(resource, expression)) << expression;
    EXPECT_TRUE(Matches(resource, "NOT (" + expression + ")")) << expression;
  }
}

// The error's description of the field `filter`.
std::string ErrorOf(const std::string& expression,
                    const google::protobuf::Descriptor* type = v1::Export::descriptor()) {
  const auto filter = ParseListFilter(type, expression);
  EXPECT_FALSE(filter.ok()) << expression;
  if (filter.ok()) return "";
  EXPECT_EQ(filter.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(ViolationsOf(filter.status()), ElementsAre("filter FILTER_EXPRESSION_INVALID"));
  const google::rpc::Status wire = ToRpcStatus(filter.status());
  for (const auto& any : wire.details()) {
    google::rpc::BadRequest bad;
    if (any.UnpackTo(&bad)) return bad.field_violations(0).description();
  }
  return "";
}

TEST(ListFilterTest, NothingMatchesEverything) {
  for (const std::string text : {"", " ", "\t\r\n "}) {
    const auto filter = ParseListFilter(v1::Image::descriptor(), text);
    ASSERT_TRUE(filter.ok());
    EXPECT_TRUE(filter->matches_all());
    EXPECT_TRUE(filter->Matches(v1::Image()));
  }
  EXPECT_FALSE(ParseListFilter(v1::Image::descriptor(), "name=x")->matches_all());
}

TEST(ListFilterTest, OrBindsTighterThanAndAndSequence) {
  const v1::Export exported = AnExport();
  const std::string yes = "uid=u";
  const std::string no = "uid=n";
  ExpectMatches(exported, {yes, yes + " AND " + yes, yes + " " + yes, no + " OR " + yes,
                           yes + " AND " + no + " OR " + yes, yes + " " + no + " OR " + yes,
                           "(" + no + " AND " + no + ") OR " + yes, "((" + yes + "))", "-" + no,
                           "NOT " + no, "-(" + no + ")", "NOT(" + no + ")", " " + yes + " ",
                           yes + "\n AND\t" + yes, no + " OR NOT " + no + " OR " + no});
  // If AND bound tighter these would match.
  ExpectNone(exported, {no + " AND " + yes + " OR " + yes, yes + " OR " + no + " AND " + no,
                        yes + " OR " + yes + " " + no, yes + " -" + yes, no, "-" + yes});
}

TEST(ListFilterTest, Strings) {
  ExpectMatches(AnExport(), {R"(name = "exports/web-1")",
                             "name=exports/web-1",
                             "name = 'exports/web-1'",
                             "name = exports/*",
                             "name = *web*",
                             "name = \"exports/web-*\"",
                             "name = *",
                             "name = e*x*1",
                             "name != exports/web-*2",
                             "name > exports/a",
                             "name >= exports/web-1",
                             "name < exports/web-10",
                             "name <= exports/web-1",
                             "description:web",
                             "description:\"OF THE\"",
                             "description:\"backup*server\"",
                             "description:*",
                             "nbd_name = \"\"",
                             "uid != *x",
                             "description = \"Backup of*\"",
                             R"(labels."gabion.dev/a b" = "x\*y")"});
  ExpectNone(AnExport(), {"name = web-1", "name = exports/web", "name = exports/web-1*1",
                          "name = *web", "name = Exports/*", "name != *", "name > exports/web-1",
                          "description:webs", "nbd_name:*", "nbd_name:x", "description = backup*",
                          "description:\"server*backup\"", R"(labels."gabion.dev/a b" = "x\*z")"});
}

TEST(ListFilterTest, WildcardsMayNotOverlap) {
  const auto image = FromText<v1::Image>("name: 'aba'");
  ExpectMatches(image, {"name = a*a", "name = ab*a", "name = a*b*a", "name = **a**"});
  ExpectNone(image, {"name = ab*ba", "name = aba*a", "name = a*b*b*a"});
}

TEST(ListFilterTest, NumbersBoolsAndEnums) {
  ExpectMatches(
      AnExport(),
      {"generation = 18446744073709551615", "generation > 18446744073709551614", "generation > -5",
       "generation < 99999999999999999999", "access.max_connections = 7",
       "access.max_connections : 7", "access.max_connections >= 07", "access.max_connections != 8",
       "connection_count = 0", "read_only = false", "read_only != true", "read_only:false",
       "state = STATE_ACTIVE", "state = \"STATE_ACTIVE\"", "state != STATE_FAILED",
       "state : STATE_ACTIVE", "state:*", "access.transport = TRANSPORT_PLAINTEXT_TCP"});
  ExpectNone(AnExport(),
             {"generation = 18446744073709551614", "generation < -1", "generation <= 0",
              "access.max_connections > 7", "access.max_connections < 7", "connection_count:*",
              "read_only = true", "read_only:*", "state = STATE_FAILED"});
}

TEST(ListFilterTest, TimestampsAndDurations) {
  ExpectMatches(AnExport(), {"create_time > 2026-01-01T00:00:00Z",
                             "create_time = \"2026-01-01T00:00:00.000000500Z\"",
                             "create_time < \"2026-01-01T01:00:01+01:00\"",
                             "create_time != 2026-01-01T00:00:00Z", "create_time:*"});
  ExpectNone(
      AnExport(),
      {"create_time < 2026-01-01T00:00:00Z", "update_time:*", "update_time < 2026-01-01T00:00:00Z",
       "update_time != 2026-01-01T00:00:00Z", "create_time > 9999-12-31T23:59:59Z"});
  const auto retry =
      FromText<google::rpc::RetryInfo>("retry_delay { seconds: 1 nanos: 500000000 }");
  ExpectMatches(retry, {"retry_delay = 1.5s", "retry_delay > 1s", "retry_delay <= \"1.500s\"",
                        "retry_delay > -3s", "retry_delay:1.5s"});
  ExpectNone(retry, {"retry_delay = 1s", "retry_delay > 1.500000001s"});
}

TEST(ListFilterTest, ListsMatchByAnyElement) {
  ExpectMatches(AnExport(), {"uris:\"nbd://h/web-1\"", "uris = nbd+unix*", "uris:nbd*h*", "uris:*",
                             "uris != nbd://h/web-1"});
  ExpectNone(AnExport(), {"uris:nbd", "uris:NBD*", "uris = nbds*"});
  ExpectNone(v1::Export(), {"uris:*", "uris = *", "uris != x"});
  const auto bad = FromText<google::rpc::BadRequest>(
      "field_violations { field: 'a' reason: 'X' } field_violations { field: 'b' reason: 'Y' }");
  ExpectMatches(bad, {"field_violations.field:b", "field_violations.reason = X",
                      "field_violations.field = a field_violations.reason = Y"});
  ExpectNone(bad, {"field_violations.field:c", "field_violations.field:A"});
}

TEST(ListFilterTest, Maps) {
  ExpectMatches(AnExport(),
                {"labels:tier", "labels:'gabion.dev/a b'", "labels.tier = gold", "labels.tier = g*",
                 "labels.tier:gold", "labels.tier:*", "labels.\"tier\" != silver", "labels:*",
                 "labels.empty = \"\"", "labels.empty:*", "labels:empty", "-labels:none",
                 "NOT labels.none = x"});
  ExpectNone(AnExport(),
             {"labels:Tier", "labels:none", "labels.tier = Gold", "labels.tier:gol",
              "labels.none = x", "labels.none != x", "labels.none:*", "labels.none = \"\""});
}

TEST(ListFilterTest, UnsetMessagesAndOptionalFieldsMakeAnyComparisonFalse) {
  ExpectMatches(AnExport(), {"access:*", "access:max_connections", "access:transport",
                             "effective_block_sizes.minimum:bytes", "-block_sizes:*",
                             "effective_block_sizes.minimum.bytes = 512"});
  ExpectNone(AnExport(),
             {"block_sizes:*", "block_sizes.minimum_bytes = 0", "block_sizes.minimum_bytes != 0",
              "block_sizes:minimum_bytes", "enabled = false", "enabled != true", "enabled:*",
              "effective_block_sizes.preferred.bytes = 0", "effective_block_sizes.minimum:origin",
              "state_error.code = 0"});
  v1::Export hidden;
  hidden.set_enabled(false);
  ExpectMatches(hidden, {"enabled = false", "enabled:*", "enabled != true"});
}

TEST(ListFilterTest, FieldsOfWhatAnAnyHolds) {
  ExpectMatches(AnOperation(),
                {"response:*", "response.name = images/a", "response.state = \"STATE_ACTIVE\"",
                 "response.state = STATE_ACTIVE", "response.labels.k = v", "response.labels:k",
                 "response:name", "done = false AND response.name:IMAGES"});
  ExpectNone(AnOperation(),
             {"response.state = STATE_FAILED", "response.nbd_name = x", "response.nbd_name != x",
              "response.state = STATE_HIDDEN", "response:uid", "response.labels.none = x",
              "metadata.target = x", "metadata:*"});
  Operation unknown;
  unknown.mutable_response()->set_type_url("type.googleapis.com/no.such.Type");
  ExpectNone(unknown, {"response.name = x", "response.name != x", "response:name"});
  unknown.mutable_response()->set_type_url("no slash");
  ExpectNone(unknown, {"response.name = x"});
  unknown.mutable_response()->set_type_url("type.googleapis.com/gabion.v1.Image");
  unknown.mutable_response()->set_value("\xff\xff\xff");
  ExpectNone(unknown, {"response.name = \"\"", "response:name"});
}

TEST(ListFilterTest, ListsOfAnyAndAnyInAny) {
  v1::Image failed;
  failed.mutable_state_error()->set_code(5);
  google::rpc::ErrorInfo info;
  info.set_reason("POOL_FULL");
  failed.mutable_state_error()->add_details()->PackFrom(google::rpc::RetryInfo());
  failed.mutable_state_error()->add_details()->PackFrom(info);
  ExpectMatches(failed, {"state_error.details.reason = POOL_FULL", "state_error.code = 5"});
  ExpectNone(failed, {"state_error.details.reason = OTHER"});
  Operation operation;
  operation.mutable_response()->PackFrom(failed);
  ExpectMatches(operation, {"response.state_error.details.reason = POOL_FULL"});
}

TEST(ListFilterTest, MapsOfMessagesAndNumbers) {
  const auto tree = FromText<google::protobuf::Struct>(
      "fields { key: 'x' value { number_value: 0.5 } } fields { key: 'y' value { list_value { "
      "values { string_value: 'deep' } } } }");
  ExpectMatches(tree, {"fields.x.number_value = 0.5", "fields.x.number_value < 5.1e-1",
                       "fields.x:number_value", "fields:y", "fields.x.number_value != 1",
                       "fields.y.list_value.values.string_value = deep"});
  ExpectNone(tree, {"fields.x.string_value = \"\"", "fields.y.number_value = 0", "fields:z",
                    "fields.x.number_value > 1E+300"});
}

TEST(ListFilterErrorTest, SyntaxNamesColumnAndCause) {
  const std::vector<std::pair<std::string, std::string>> table = {
      {"name",
       "column 1: a word alone is not searched for: compare a field with it, as in name = "
       "\"name\""},
      {"uid=u web", "column 7: a word alone"},
      {"\"web\"", "column 1: a word alone"},
      {"name = ", "column 8: a value is missing here"},
      {"name = )", "column 8: a value is missing here"},
      {"name == x", "column 7: a value is missing here"},
      {"name = (a OR b)", "column 8: groups of values"},
      {"name = a=b", "column 9: a space or the end must follow here"},
      {"name = \"a\"b", "column 11: a space or the end"},
      {"name = \"a", "column 8: this string has no closing \""},
      {"name = 'a\\", "column 8: this string has no closing '"},
      {"name = \"a\\n\"", "column 10: \\ may stand before"},
      {"(name = a", "column 1: there is no ')' for this '('"},
      {"name = a)", "column 9: there is no '(' for this ')'"},
      {"()", "column 2: a field's name or '(' is missing here"},
      {"AND name = a", "column 1: a comparison is missing before AND"},
      {"name = a AND", "column 13: a comparison is missing at the end"},
      {"name = a OR OR name = b", "column 13: a comparison is missing before OR"},
      {"NOT NOT name = a", "column 5: a comparison is missing before NOT"},
      {"--name = a", "column 2: a field's name"},
      {"- name = a", "column 2: a field's name"},
      {".name = a", "column 1: a field's name"},
      {"labels. = a", "column 8: a field is missing after '.'"},
      {"labels.", "column 8: a field is missing after '.'"},
      {"labels.-x = a", "column 8: a field is missing after '.'"},
      {"regex(name, \"a\")", "column 1: functions are not supported"},
      {"name = f(x)", "column 9: functions are not supported"},
      {"(name = a)(name = b)", "column 11: functions are not supported, and groups need"},
      {"name = \"\xc3\xa4\xc3\xa4\" oops", "column 13: a word alone"},
      {std::string("name\0= a", 8), "column 1: a word alone"},
  };
  for (const auto& [expression, text] : table) {
    EXPECT_THAT(ErrorOf(expression), HasSubstr(text)) << expression;
  }
}

TEST(ListFilterErrorTest, FieldsAndValuesThatDoNotFit) {
  const std::vector<std::pair<std::string, std::string>> table = {
      {"uid=u color = red", "column 7: Export has no field \"color\""},
      {"access.color = red", "column 8: Access has no field \"color\""},
      {"name.x = 1", "column 6: name is a string and has no field \"x\""},
      {"uris.x = 1", "column 6: uris is a string and has no field \"x\""},
      {"create_time.seconds = 1", "column 13: create_time is a timestamp and has no field"},
      {"labels.a.b = 1", "column 10: value is a string and has no field"},
      {"access:color", "column 8: Access has no field \"color\""},
      {"access = x", "column 1: access is a message: name one of its fields"},
      {"labels = x", "column 1: labels is a map: name one of its keys"},
      {"labels:ti*", "column 8: * stands for a whole name only"},
      {"generation = x", "column 14: generation is an integer, not \"x\": write digits without "},
      {"generation = \"1\"", "column 14: generation is an integer"},
      {"generation = 1.5", "column 14: generation is an integer"},
      {"generation = 1*", "column 14: generation is an integer"},
      {"generation = *", "column 14: generation is an integer"},
      {"generation = -", "column 14: generation is an integer"},
      {"generation = 123456789012345678901", "column 14: generation is an integer"},
      {"read_only = TRUE", "column 13: read_only is a bool, not \"TRUE\": write true or false"},
      {"read_only = \"true\"", "column 13: read_only is a bool"},
      {"read_only > false", "which has no order: use = or !="},
      {"state = ACTIVE",
       "column 9: state is an enum, not \"ACTIVE\": write one of "
       "STATE_UNSPECIFIED, STATE_CREATING, STATE_ACTIVE"},
      {"state = 2", "column 9: state is an enum"},
      {"state >= STATE_ACTIVE", "which has no order"},
      {"create_time > yesterday",
       "column 15: create_time is a timestamp, not \"yesterday\": write "
       "RFC 3339"},
      {"create_time > 2026-02-30T00:00:00Z", "column 15: create_time is a timestamp"},
      {"create_time > 2026-01-01", "column 15: create_time is a timestamp"},
      {"name > a*", "column 8: * works with =, != and : only"},
  };
  for (const auto& [expression, text] : table) {
    EXPECT_THAT(ErrorOf(expression), HasSubstr(text)) << expression;
  }
  for (const std::string bad : {"10", "s", "-s", "1.s", ".5s", "1.1234567890s", "1e3s", "+1s",
                                "315576000001s", "1 s", "1.5.5s"}) {
    EXPECT_THAT(ErrorOf("retry_delay = \"" + bad + "\"", google::rpc::RetryInfo::descriptor()),
                HasSubstr("is a duration"))
        << bad;
  }
  for (const std::string bad : {"nan", "inf", "1.", ".5", "1e", "1e400", "0x10", "1,5", "--1"}) {
    EXPECT_THAT(ErrorOf("number_value = '" + bad + "'", google::protobuf::Value::descriptor()),
                HasSubstr("is a number"))
        << bad;
  }
  EXPECT_THAT(ErrorOf("value = x", google::protobuf::Any::descriptor()), HasSubstr("is bytes"));
  EXPECT_THAT(ErrorOf("value:*", google::protobuf::Any::descriptor()), HasSubstr("is bytes"));
  EXPECT_THAT(ErrorOf("metadata = x", Operation::descriptor()), HasSubstr("is a message"));
  EXPECT_THAT(ErrorOf("details:x", google::rpc::Status::descriptor()), HasSubstr("is a message"));
}

TEST(ListFilterErrorTest, WhatNoTypeInAnAnyHasIsRefused) {
  const auto* operation = Operation::descriptor();
  EXPECT_EQ(ErrorOf("done = true AND metadata.tarqet = x", operation),
            "column 26: metadata: JobMetadata has no field \"tarqet\"");
  for (const std::string bad :
       {"metadata:tarqet", "metadata.state = NO_SUCH_STATE", "metadata.target.more = x",
        "NOT response.tarqet = x", "response.state > STATE_ACTIVE",
        "response.state = NO_SUCH_STATE", "error.details.tarqet = x",
        "response.state_error.details.tarqet = x"}) {
    EXPECT_FALSE(ErrorOf(bad, operation).empty()) << bad;
  }
}

// What an operation is said to hold where a method is declared, and what filters know of.
TEST(ListFilterTest, EveryTypeThatAnOperationHoldsIsKnown) {
  const auto* pool = google::protobuf::DescriptorPool::generated_pool();
  int methods = 0;
  for (const char* name : {"gabion.v1.ImageService", "gabion.v1.ExportService"}) {
    const auto* service = pool->FindServiceByName(name);
    ASSERT_NE(service, nullptr) << name;
    for (int i = 0; i < service->method_count(); ++i) {
      const auto& options = service->method(i)->options();
      if (!options.HasExtension(google::longrunning::operation_info)) continue;
      const auto& info = options.GetExtension(google::longrunning::operation_info);
      for (const auto& [field, type] : {std::pair("response", info.response_type()),
                                        std::pair("metadata", info.metadata_type())}) {
        const auto* held = pool->FindMessageTypeByName(
            type.find('.') == std::string::npos ? "gabion.v1." + type : type);
        ASSERT_NE(held, nullptr) << type;
        for (int k = 0; k < held->field_count(); ++k) {
          const std::string path = std::string(field) + "." + held->field(k)->name() + ":*";
          EXPECT_TRUE(ParseListFilter(Operation::descriptor(), path).ok()) << path;
        }
      }
      ++methods;
    }
  }
  EXPECT_GT(methods, 3);
}

TEST(ListFilterErrorTest, CapsHoldExactly) {
  const auto* image = v1::Image::descriptor();
  const auto nested = [](size_t depth) {
    return std::string(depth, '(') + "uid=u" + std::string(depth, ')');
  };
  EXPECT_TRUE(ParseListFilter(image, nested(kMaxFilterDepth)).ok());
  EXPECT_EQ(ErrorOf(nested(kMaxFilterDepth + 1)),
            "column 17: parentheses are nested more than 16 deep");
  EXPECT_THAT(ErrorOf(std::string(2048, '(')), HasSubstr("more than 16 deep"));

  std::string terms = "uid=u";
  for (size_t i = 1; i < kMaxFilterTerms; ++i) terms += " uid=u";
  EXPECT_TRUE(ParseListFilter(image, terms).ok());
  EXPECT_EQ(ErrorOf(terms + " uid=u"), "column 769: there are more than 128 comparisons");

  const std::string longest = "uid=" + std::string(kMaxFilterBytes - 4, 'u');
  EXPECT_TRUE(ParseListFilter(image, longest).ok());
  EXPECT_EQ(ErrorOf(longest + "u"), "column 2049: the filter is longer than 2048 bytes");

  const auto* tree = google::protobuf::Struct::descriptor();
  std::string path = "fields";
  for (size_t i = 1; i + 3 <= kMaxFilterDepth; i += 3) path += ".k.struct_value.fields";
  EXPECT_TRUE(ParseListFilter(tree, path + ":x").ok());
  EXPECT_THAT(ErrorOf(path + ".a = x", tree), HasSubstr("a path of more than 16 fields"));
}

TEST(ListFilterErrorTest, TextOfTheCallerIsShownWithoutControlCharacters) {
  const std::string shown = ErrorOf("state = \"\x01\x1b[31m" + std::string(500, 'x') + "\"");
  EXPECT_THAT(shown, Not(HasSubstr("\x1b")));
  EXPECT_LE(shown.size(), 300u);
}

}  // namespace
}  // namespace gabion::service
