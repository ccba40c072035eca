#include "service/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "engine/base/text.h"
#include "service/settings.h"
#include "tests/service/temp_dir.h"

namespace gabion::service {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

using Arguments = std::vector<std::string>;
using Environment = std::map<std::string, std::string>;

Config Parse(const Arguments& arguments, const Environment& environment = {}) {
  const auto line = ParseCommandLine(arguments, environment);
  EXPECT_TRUE(line.ok()) << line.status();
  return line.ok() ? line->config : Config();
}

// The lines of the error.
std::vector<std::string> Problems(const Arguments& arguments, const Environment& environment = {}) {
  const auto line = ParseCommandLine(arguments, environment);
  EXPECT_EQ(line.status().code(), absl::StatusCode::kInvalidArgument);
  std::vector<std::string> problems;
  std::stringstream text{std::string(AsStd(line.status().message()))};
  for (std::string problem; std::getline(text, problem);) problems.push_back(problem);
  return problems;
}

TEST(ConfigTest, DataDirAloneIsEnough) {
  const Config config = Parse({"--data-dir", "D"});
  EXPECT_EQ(config.grpc_socket, "D/gabiond.sock");
  EXPECT_EQ(config.nbd_socket, "D/nbd.sock");
  EXPECT_FALSE(config.grpc_listen.has_value());
  EXPECT_FALSE(config.nbd_listen.has_value());
  EXPECT_EQ(config.handshake_timeout_s, 10u);
  EXPECT_EQ(config.poll_us, 50u);
  EXPECT_EQ(config.nbd_socket_mode, 0600u);
  EXPECT_EQ(config.io_driver, IoDriver::kAuto);
}

TEST(ConfigTest, EverySettingCanBeSet) {
  const Config config = Parse({"--data-dir=D",
                               "--grpc-socket",
                               "g",
                               "--grpc-listen=127.0.0.1:7443",
                               "--insecure-grpc",
                               "--nbd-socket=n",
                               "--nbd-listen=[::1]",
                               "--shards",
                               "3",
                               "--io-driver",
                               "threads",
                               "--direct-io",
                               "--handshake-timeout=7",
                               "--max-connections=5",
                               "--max-connections-per-export=4",
                               "--max-exports=8",
                               "--max-inflight-requests=9",
                               "--max-inflight-bytes-per-connection=40MiB",
                               "--max-inflight-bytes=2GiB",
                               "--nbd-socket-mode=0660",
                               "--log-level=debug",
                               "--allow-fault-filters",
                               "--secrets-directory=s",
                               "--poll-us=0"});
  EXPECT_EQ(config.grpc_socket, "g");
  EXPECT_EQ(config.grpc_listen, (HostPort{"127.0.0.1", 7443}));
  EXPECT_TRUE(config.insecure_grpc);
  EXPECT_EQ(config.nbd_socket, "n");
  EXPECT_EQ(config.nbd_listen, (HostPort{"::1", 10809}));
  EXPECT_EQ(config.nbd_listen->ToString(), "[::1]:10809");
  EXPECT_EQ(config.shards, 3u);
  EXPECT_EQ(config.io_driver, IoDriver::kThreads);
  EXPECT_TRUE(config.direct_io);
  EXPECT_EQ(config.handshake_timeout_s, 7u);
  EXPECT_EQ(config.max_connections, 5u);
  EXPECT_EQ(config.max_connections_per_export, 4u);
  EXPECT_EQ(config.max_exports, 8u);
  EXPECT_EQ(config.max_inflight_requests, 9u);
  EXPECT_EQ(config.max_inflight_bytes_per_connection, 40u << 20);
  EXPECT_EQ(config.max_inflight_bytes, uint64_t{2} << 30);
  EXPECT_EQ(config.nbd_socket_mode, 0660u);
  EXPECT_EQ(config.log_level, LogLevel::kDebug);
  EXPECT_EQ(config.poll_us, 0u);
  EXPECT_TRUE(config.allow_fault_filters);
  EXPECT_EQ(config.secrets_directory, "s");
  EXPECT_EQ(Parse({"--data-dir=D"}).secrets_directory, "");
  EXPECT_FALSE(Parse({"--data-dir=D"}).allow_fault_filters);
}

TEST(ConfigTest, FlagBeatsVariableBeatsFileBeatsDefault) {
  const TempDir dir;
  std::ofstream(dir / "conf") << "# a comment\n\n data-dir = from file \nshards=1\npoll-us = 1\n"
                              << "max-connections = 1\r\n";
  const Environment environment = {{"GABION_CONFIG", dir / "conf"},
                                   {"GABION_SHARDS", "2"},
                                   {"GABION_POLL_US", "2"},
                                   {"GABION_SERVICE_HOST", "10.0.0.1"}};
  const Config config = Parse({"--poll-us=3"}, environment);
  EXPECT_EQ(config.data_dir, "from file");
  EXPECT_EQ(config.max_connections, 1u);
  EXPECT_EQ(config.shards, 2u);
  EXPECT_EQ(config.poll_us, 3u);
  EXPECT_EQ(config.handshake_timeout_s, 10u);
}

TEST(ConfigTest, AllProblemsComeAtOnceWithNameAndPlace) {
  const TempDir dir;
  const std::string file = dir / "conf";
  std::ofstream(file) << "walrus = 1\njust words\npoll-us = 5000\n";
  EXPECT_THAT(
      Problems({"--config", file, "--shards=many", "--no-such-flag", "stray", "--direct-io=maybe"},
               {{"GABION_IO_DRIVER", "aio"}}),
      ElementsAre("--no-such-flag: there is no such flag; see --help",
                  "\"stray\": gabiond takes flags only; see --help",
                  file + ":1: walrus: there is no such setting",
                  file + ":2: must have the form \"setting = value\"",
                  "--shards: must be a number from 0 to 256, is \"many\"",
                  "GABION_IO_DRIVER: must be one of auto, io_uring, threads, is \"aio\"",
                  "--direct-io: must be true or false, is \"maybe\"",
                  file + ":3: poll-us: must be a number from 0 to 1000, is \"5000\"",
                  "data-dir: must be set (--data-dir DIR, or GABION_DATA_DIR)"));
}

TEST(ConfigTest, BadValuesAreRefusedByName) {
  const char* bad[] = {"--shards=",
                       "--shards=-1",
                       "--shards=257",
                       "--shards=1x",
                       "--shards=0x1",
                       "--poll-us=1001",
                       "--handshake-timeout=0",
                       "--max-connections=0",
                       "--max-inflight-bytes=1",
                       "--max-inflight-bytes=99999999999GiB",
                       "--max-inflight-bytes-per-connection=1TiB",
                       "--max-inflight-bytes=KiB",
                       "--nbd-socket-mode=8",
                       "--nbd-socket-mode=1000",
                       "--nbd-listen=",
                       "--nbd-listen=:10809",
                       "--nbd-listen=127.0.0.1:70000",
                       "--nbd-listen=127.0.0.1:",
                       "--nbd-listen=example.org",
                       "--nbd-listen=::1",
                       "--nbd-listen=[::1",
                       "--grpc-listen=127.0.0.1",
                       "--log-level=loud",
                       "--grpc-socket=",
                       "--direct-io=1"};
  for (const std::string flag : bad) {
    const std::string name = flag.substr(0, flag.find('='));
    EXPECT_THAT(Problems({"--data-dir=D", flag}), ElementsAre(StartsWith(name + ": "))) << flag;
  }
}

TEST(ConfigTest, NbdListensOnLiteralAddresses) {
  EXPECT_EQ(Parse({"--data-dir=D", "--nbd-listen=localhost"}).nbd_listen,
            (HostPort{"127.0.0.1", 10809}));
  EXPECT_EQ(Parse({"--data-dir=D", "--nbd-listen=0.0.0.0:0"}).nbd_listen, (HostPort{"0.0.0.0", 0}));
  EXPECT_EQ(Parse({"--data-dir=D", "--nbd-listen=[::]:7"}).nbd_listen, (HostPort{"::", 7}));
}

TEST(ConfigTest, GrpcOverTcpIsForLoopbackOnly) {
  for (const char* good : {"127.0.0.1:1", "localhost:0", "[::1]:65535", "127.9.8.7:1"}) {
    EXPECT_TRUE(Parse({"--data-dir=D", std::string("--grpc-listen=") + good}).grpc_listen);
  }
  for (const char* bad : {"0.0.0.0:1", "[::]:1", "example.org:1", "127.0.0.1.example.org:1",
                          "127.evil:1", "128.0.0.1:1", "127.0.0.256:1"}) {
    EXPECT_THAT(Problems({"--data-dir=D", std::string("--grpc-listen=") + bad}),
                ElementsAre(HasSubstr("loopback")))
        << bad;
  }
}

TEST(ConfigTest, GrpcOverTcpElsewhereIsAskedForByName) {
  for (const char* good : {"0.0.0.0:1", "[::]:1", "192.0.2.1:1", "127.0.0.1:1"}) {
    EXPECT_TRUE(Parse({"--data-dir=D", "--insecure-grpc", std::string("--grpc-listen=") + good})
                    .grpc_listen)
        << good;
  }
  EXPECT_THAT(Problems({"--data-dir=D", "--insecure-grpc", "--grpc-listen=example.org:1"}),
              ElementsAre(AllOf(StartsWith("grpc-listen: "), HasSubstr("IP address"))));
}

TEST(ConfigTest, SocketPathsThatTheKernelWouldCutAreRefused) {
  const std::string longest(107 - std::string("/gabiond.sock").size(), 'd');
  EXPECT_EQ(Parse({"--data-dir", longest}).grpc_socket.size(), 107u);
  EXPECT_THAT(Problems({"--data-dir", longest + "d"}),
              ElementsAre(AllOf(StartsWith("grpc-socket: "), HasSubstr("at most 107 bytes"),
                                HasSubstr("has 108"))));
}

TEST(ConfigTest, SettingsThatContradictEachOtherAreRefused) {
  EXPECT_THAT(Problems({"--data-dir=D", "--nbd-socket=x", "--grpc-socket=x"}),
              ElementsAre(StartsWith("nbd-socket: ")));
  EXPECT_THAT(Problems({"--data-dir=D", "--max-inflight-bytes=32MiB"}),
              ElementsAre(StartsWith("max-inflight-bytes: ")));
  EXPECT_THAT(Problems({"--data-dir=D", "--shards=1", "--shards=2"}),
              ElementsAre("--shards: given more than once"));
  EXPECT_THAT(Problems({"--data-dir=D", "--shards"}), ElementsAre("--shards: needs a value"));
  EXPECT_THAT(Problems({"--data-dir=D", "--config=/no/such/file"}),
              ElementsAre(HasSubstr("/no/such/file")));
}

TEST(ConfigTest, HelpTellsEverySettingFlagAndVariableInReadableLines) {
  const std::string help = HelpText();
  for (const Setting& setting : AllSettings()) {
    EXPECT_THAT(help, HasSubstr("--" + std::string(setting.name)));
    EXPECT_FALSE(setting.help.empty());
  }
  EXPECT_THAT(help, HasSubstr("GABION_MAX_INFLIGHT_BYTES_PER_CONNECTION"));
  std::stringstream text(help);
  for (std::string line; std::getline(text, line);) EXPECT_LE(line.size(), 100u) << line;
  EXPECT_EQ(ParseCommandLine({"--help"}, {})->action, CommandLine::Action::kHelp);
  EXPECT_EQ(ParseCommandLine({"--version"}, {})->action, CommandLine::Action::kVersion);
}

// Defaults that --help shows are those that hold.
TEST(ConfigTest, DefaultsInTheHelpAreTrue) {
  const Config defaults = Parse({"--data-dir=D"});
  for (const Setting& setting : AllSettings()) {
    if (setting.fallback.empty() || setting.fallback == "none" ||
        setting.fallback.starts_with("DATA-DIR")) {
      continue;
    }
    Config config = defaults;
    EXPECT_EQ(setting.set(setting.fallback, &config), "") << setting.name;
    EXPECT_EQ(config.shards, defaults.shards);
    EXPECT_EQ(config.io_driver, defaults.io_driver);
    EXPECT_EQ(config.direct_io, defaults.direct_io);
    EXPECT_EQ(config.poll_us, defaults.poll_us);
    EXPECT_EQ(config.handshake_timeout_s, defaults.handshake_timeout_s);
    EXPECT_EQ(config.max_connections, defaults.max_connections);
    EXPECT_EQ(config.max_connections_per_export, defaults.max_connections_per_export);
    EXPECT_EQ(config.max_inflight_requests, defaults.max_inflight_requests);
    EXPECT_EQ(config.max_inflight_bytes, defaults.max_inflight_bytes);
    EXPECT_EQ(config.max_inflight_bytes_per_connection, defaults.max_inflight_bytes_per_connection);
    EXPECT_EQ(config.nbd_socket_mode, defaults.nbd_socket_mode);
    EXPECT_EQ(config.log_level, defaults.log_level);
  }
}

}  // namespace
}  // namespace gabion::service
