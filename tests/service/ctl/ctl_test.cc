// gabionctl without a server: the command line, the catalogue, the JSON.
#include <gmock/gmock.h>
#include <google/rpc/error_details.pb.h>
#include <google/rpc/status.pb.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "gabion/v1/export.pb.h"
#include "service/ctl/catalog.h"
#include "service/ctl/command.h"
#include "service/ctl/render.h"
#include "service/ctl/run.h"
#include "tests/service/temp_dir.h"

namespace gabion::service::ctl {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

struct Outcome {
  int status;
  std::string out, err;
};

Outcome RunWith(const std::vector<std::string>& arguments, const std::string& input = "",
                const std::map<std::string, std::string>& environment = {}) {
  std::istringstream in(input);
  std::ostringstream out, err;
  const int status = Run(arguments, environment, in, out, err);
  return {status, out.str(), err.str()};
}

TEST(CatalogTest, MethodsAreFoundByShortAndFullNames) {
  for (const char* name :
       {"ExportService/GetExport", "gabion.v1.ExportService/GetExport", "ExportService.GetExport",
        "gabion.v1.ExportService.GetExport", "/gabion.v1.ExportService/GetExport"}) {
    ASSERT_NE(FindMethod(name), nullptr) << name;
    EXPECT_EQ(PathOf(*FindMethod(name)), "/gabion.v1.ExportService/GetExport");
  }
  for (const char* name : {"", "/", "GetExport", "ExportService", "ExportService/", "a/b/c"}) {
    EXPECT_EQ(FindMethod(name), nullptr) << name;
  }
}

TEST(CatalogTest, TheListHasOurServicesAndHealthButNotReflection) {
  const std::string text = RunWith({"list"}).out;
  EXPECT_THAT(text, AllOf(HasSubstr("gabion.v1.ImageService/CreateImage\n"),
                          HasSubstr("gabion.v1.InspectService/Map\n"),
                          HasSubstr("grpc.health.v1.Health/Check\n")));
  EXPECT_THAT(text, testing::Not(HasSubstr("reflection")));
}

TEST(DescribeTest, EveryKindOfThingCanBeDescribed) {
  EXPECT_THAT(RunWith({"describe", "ExportService"}).out, HasSubstr("rpc GetExport"));
  EXPECT_THAT(RunWith({"describe", "InspectService/Map"}).out,
              AllOf(StartsWith("rpc Map(gabion.v1.MapRequest) returns (stream"),
                    HasSubstr("message MapRequest"), HasSubstr("message MapResponse")));
  EXPECT_THAT(RunWith({"describe", "Export"}).out, HasSubstr("string source = 10"));
  EXPECT_THAT(RunWith({"describe", "gabion.v1.BlockSizePolicy.Tail"}).out,
              HasSubstr("TAIL_PAD_ZERO = 2"));
  EXPECT_THAT(RunWith({"describe", "google.rpc.ErrorInfo"}).out, HasSubstr("reason"));
  const Outcome none = RunWith({"describe", "Walrus"});
  EXPECT_EQ(none.status, kUsage);
  EXPECT_THAT(none.err, HasSubstr("Walrus"));
}

TEST(CommandTest, TheServerComesFromFlagThenVariableThenDefault) {
  std::string problem;
  EXPECT_EQ(ParseCommand({"list"}, {}, &problem)->server, "unix:./gabiond.sock");
  EXPECT_EQ(ParseCommand({"list"}, {{"GABION_SERVER", "h:1"}}, &problem)->server, "h:1");
  EXPECT_EQ(ParseCommand({"list", "--server=h:2"}, {{"GABION_SERVER", "h:1"}}, &problem)->server,
            "h:2");
  EXPECT_EQ(ParseCommand({"--server", "unix:/s", "list"}, {}, &problem)->server, "unix:/s");
}

TEST(CommandTest, WrongCommandLinesAreRefusedWithASentence) {
  const std::vector<std::string> wrong[] = {
      {},
      {"walk"},
      {"call"},
      {"call", "a", "b", "c"},
      {"health", "a", "b"},
      {"list", "x"},
      {"--walrus"},
      {"describe"},
      {"--server"},
      {"--server=", "list"},
      {"--timeout=x", "list"},
      {"call", "NoService/NoMethod"},
      {"call", "ExportService/GetExport", "@/no/such/file"},
      {"call", "grpc.reflection.v1.ServerReflection/ServerReflectionInfo"}};
  for (const auto& arguments : wrong) {
    const Outcome outcome = RunWith(arguments);
    EXPECT_EQ(outcome.status, kUsage) << testing::PrintToString(arguments);
    EXPECT_THAT(outcome.err, StartsWith("gabionctl: "));
    EXPECT_THAT(outcome.out, IsEmpty());
  }
}

TEST(CommandTest, HelpNamesEveryFlagAndTheExitStatus) {
  const Outcome help = RunWith({"--help"});
  EXPECT_EQ(help.status, 0);
  for (const char* word : {"--server", "--timeout", "--print-grpcurl", "--version", "GABION_SERVER",
                           "Exit status", "describe", "health", "list", "call"}) {
    EXPECT_THAT(help.out, HasSubstr(word));
  }
  EXPECT_THAT(RunWith({"--version"}).out, StartsWith("gabionctl 0."));
}

TEST(RequestTest, FieldsThatDoNotExistAreNamed) {
  const Outcome outcome =
      RunWith({"call", "ExportService/CreateExport",
               R"({"export": {"source": "images/a", "blockSizes": {"min": 1}}})"});
  EXPECT_EQ(outcome.status, kUsage);
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("min"), HasSubstr("gabion.v1.CreateExportRequest")));
  EXPECT_THAT(outcome.err, HasSubstr("Cannot find field"));
}

TEST(RequestTest, TextThatIsNoJsonIsRefused) {
  for (const char* text : {"", "{", "[]", "7", "{\"name\": }", "\xFF"}) {
    EXPECT_EQ(RunWith({"call", "ExportService/GetExport", text}).status, kUsage) << text;
  }
}

TEST(GrpcurlTest, TheCallIsPrintedAsAShellWouldTakeIt) {
  EXPECT_EQ(RunWith({"--print-grpcurl", "--server=unix:/run/it's/s.sock", "call",
                     "ExportService/GetExport", R"({"name": "exports/e"})"})
                .out,
            "grpcurl -plaintext -d '{\"name\": \"exports/e\"}' -unix '/run/it'\\''s/s.sock' "
            "gabion.v1.ExportService/GetExport\n");
  EXPECT_EQ(RunWith({"--print-grpcurl", "--server=127.0.0.1:7443", "--timeout=5", "call",
                     "PoolService/ListPools"})
                .out,
            "grpcurl -plaintext -max-time 5 127.0.0.1:7443 gabion.v1.PoolService/ListPools\n");
}

TEST(GrpcurlTest, HealthIsACallToo) {
  EXPECT_EQ(RunWith({"--print-grpcurl", "--server=127.0.0.1:1", "health", "readiness"}).out,
            "grpcurl -plaintext -d '{\"service\":\"readiness\"}' 127.0.0.1:1 "
            "grpc.health.v1.Health/Check\n");
}

TEST(GrpcurlTest, RequestsFromFilesAndStandardInputAreWrittenOut) {
  const TempDir dir;
  std::ofstream(dir / "r.json") << R"({"name":"exports/f"})";
  EXPECT_THAT(
      RunWith({"--print-grpcurl", "call", "ExportService/GetExport", "@" + dir / "r.json"}).out,
      HasSubstr("exports/f"));
  EXPECT_THAT(RunWith({"--print-grpcurl", "call", "ExportService/GetExport", "-"},
                      R"({"name":"exports/g"})")
                  .out,
              HasSubstr("exports/g"));
}

TEST(RenderTest, DefaultsAreLeftOutAndEnumsHaveNames) {
  v1::Export message;
  message.set_name("exports/e");
  message.mutable_block_sizes()->set_tail(v1::BlockSizePolicy::TAIL_EXACT);
  EXPECT_EQ(ToJson(message, false),
            "{\"name\":\"exports/e\",\"blockSizes\":{\"tail\":\"TAIL_EXACT\"}}\n");
}

TEST(RenderTest, BothSpellingsOfAFieldAreRead) {
  v1::Export message;
  EXPECT_EQ(FromJson(R"({"nbdName": "a", "read_only": true})", &message), "");
  EXPECT_EQ(message.nbd_name(), "a");
  EXPECT_TRUE(message.read_only());
}

TEST(RenderTest, ErrorsShowTheirDetailsDecodedAndUnknownOnesInBase64) {
  google::rpc::Status wire;
  google::rpc::ErrorInfo info;
  info.set_reason("NAME_INVALID");
  wire.add_details()->PackFrom(info);
  wire.add_details()->set_type_url("type.googleapis.com/no.Such");
  wire.mutable_details(1)->set_value("abc");
  const grpc::Status status(grpc::INVALID_ARGUMENT, "say \"no\"", wire.SerializeAsString());
  EXPECT_EQ(ErrorJson(status),
            "{\n  \"code\": \"INVALID_ARGUMENT\",\n  \"message\": \"say \\\"no\\\"\",\n"
            "  \"details\": [\n"
            "    {\"@type\":\"type.googleapis.com/google.rpc.ErrorInfo\","
            "\"reason\":\"NAME_INVALID\"},\n"
            "    {\"@type\":\"type.googleapis.com/no.Such\",\"value\":\"YWJj\"}\n  ]\n}\n");
}

TEST(RenderTest, MessagesThatAreNoUtf8StillMakeJson) {
  const std::string json = ErrorJson(grpc::Status(grpc::UNKNOWN, "a\xFFz"));
  EXPECT_THAT(json, HasSubstr("\"code\": \"UNKNOWN\""));
  EXPECT_EQ(json.find('\xFF'), std::string::npos) << json;
}

TEST(RenderTest, WordsForTheShell) {
  EXPECT_EQ(ShellQuote("plain-word_1.0"), "plain-word_1.0");
  EXPECT_EQ(ShellQuote(""), "''");
  EXPECT_EQ(ShellQuote("a b$(c)"), "'a b$(c)'");
  EXPECT_EQ(ShellQuote("it's"), "'it'\\''s'");
}

}  // namespace
}  // namespace gabion::service::ctl
