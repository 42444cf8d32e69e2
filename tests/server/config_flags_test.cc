// Flags, environment, file and defaults become a Config; wrong ones become a text that helps.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cctype>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "base/strings.h"
#include "server/flags.h"

namespace holdfast::server {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Args = std::vector<std::string>;

Config Parsed(const Args& args, const Args& environment = {}) {
  absl::StatusOr<CommandLine> line = ParseCommandLine(args, environment);
  EXPECT_TRUE(line.ok()) << line.status();
  return line.ok() ? line->config : Config();
}

std::string ErrorOf(const Args& args, const Args& environment = {}) {
  absl::StatusOr<CommandLine> line = ParseCommandLine(args, environment);
  EXPECT_FALSE(line.ok());
  EXPECT_EQ(line.status().code(), absl::StatusCode::kInvalidArgument) << line.status();
  return std::string(base::Message(line.status()));
}

class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& text)
      : path_(testing::TempDir() + "config_flags_" + std::to_string(getpid()) + ".toml") {
    std::ofstream(path_) << text;
  }
  ~TemporaryFile() { unlink(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  const std::string path_;
};

TEST(ConfigDefaults, AreThoseOfEtcd) {
  const Config config = Parsed({});
  EXPECT_EQ(config.name, "default");
  EXPECT_EQ(config.data_dir, "default.holdfast");
  EXPECT_THAT(ToStrings(config.listen_client_urls), ElementsAre("http://localhost:2379"));
  EXPECT_THAT(ToStrings(config.advertise_client_urls), ElementsAre("http://localhost:2379"));
  EXPECT_THAT(ToStrings(config.listen_peer_urls), ElementsAre("http://localhost:2380"));
  EXPECT_THAT(ToStrings(config.initial_advertise_peer_urls), ElementsAre("http://localhost:2380"));
  ASSERT_EQ(config.initial_cluster.size(), 1u);
  EXPECT_EQ(config.initial_cluster[0].name, "default");
  EXPECT_EQ(config.initial_cluster_token, "etcd-cluster");
  EXPECT_EQ(config.heartbeat_interval, absl::Milliseconds(100));
  EXPECT_EQ(config.election_timeout, absl::Seconds(1));
  EXPECT_EQ(config.max_request_bytes, 1536u * 1024);
  EXPECT_EQ(config.max_txn_ops, 128u);
}

TEST(ConfigMaintenance, SpaceIsABytesCountThatMayBeNegative) {
  EXPECT_EQ(Parsed({}).quota_backend_bytes, 0);
  EXPECT_EQ(Parsed({}).disk_reserve_bytes, std::nullopt);
  EXPECT_EQ(Parsed({"--quota-backend-bytes=8589934592"}).quota_backend_bytes, 8589934592);
  EXPECT_EQ(Parsed({"--quota-backend-bytes", "-1"}).quota_backend_bytes, -1);
  EXPECT_EQ(Parsed({"--disk-reserve-bytes=-1"}).disk_reserve_bytes, -1);
  EXPECT_EQ(Parsed({}, {"HOLDFAST_DISK_RESERVE_BYTES=0"}).disk_reserve_bytes, 0);
  EXPECT_THAT(ErrorOf({"--quota-backend-bytes=2GB"}), HasSubstr("'2GB' is not a whole number"));
  EXPECT_THAT(ErrorOf({"--disk-reserve-bytes=x"}), HasSubstr("--disk-reserve-bytes=x"));
}

TEST(ConfigMaintenance, CompactionIsReadAsEtcdReadsIt) {
  using Mode = CompactionPolicy::Mode;
  const auto policy = [](const Args& args) { return Parsed(args).compaction; };
  EXPECT_EQ(policy({}), CompactionPolicy());
  EXPECT_EQ(policy({"--auto-compaction-retention=0"}).mode, Mode::kOff);
  EXPECT_EQ(policy({"--auto-compaction-mode=revision", "--auto-compaction-retention=0"}).mode,
            Mode::kOff);
  EXPECT_EQ(policy({"--auto-compaction-retention=3"}),
            (CompactionPolicy{.mode = Mode::kPeriodic, .period = absl::Hours(3)}));
  EXPECT_EQ(policy({"--auto-compaction-mode=periodic", "--auto-compaction-retention=1h30m"}),
            (CompactionPolicy{.mode = Mode::kPeriodic, .period = absl::Minutes(90)}));
  EXPECT_EQ(policy({"--auto-compaction-mode", "revision", "--auto-compaction-retention", "1000"}),
            (CompactionPolicy{.mode = Mode::kRevision, .revisions = 1000}));
  EXPECT_THAT(ErrorOf({"--auto-compaction-mode=always", "--auto-compaction-retention=1"}),
              HasSubstr("write periodic or revision"));
  EXPECT_EQ(policy({"--auto-compaction-mode=revision"}), CompactionPolicy());
  EXPECT_THAT(ErrorOf({"--auto-compaction-mode=revision", "--auto-compaction-retention=1h"}),
              HasSubstr("no number of revisions"));
  for (const char* wrong : {"-1", "often", "10ms", "-3h", "99999999"}) {
    EXPECT_THAT(ErrorOf({std::string("--auto-compaction-retention=") + wrong}),
                HasSubstr("--auto-compaction-retention="))
        << wrong;
  }
}

TEST(ConfigDefaults, FollowFromWhatIsGiven) {
  const Config config = Parsed(
      {"--name=b", "--listen-peer-urls=http://0.0.0.0:2380",
       "--listen-client-urls=http://10.0.0.2:2379",
       "--initial-cluster=a=http://10.0.0.1:2380,b=http://10.0.0.2:2380,b=http://10.1.0.2:2380"});
  EXPECT_EQ(config.data_dir, "b.holdfast");
  EXPECT_THAT(ToStrings(config.advertise_client_urls), ElementsAre("http://10.0.0.2:2379"));
  EXPECT_THAT(ToStrings(config.initial_advertise_peer_urls),
              ElementsAre("http://10.0.0.2:2380", "http://10.1.0.2:2380"));
  EXPECT_EQ(config.initial_cluster.size(), 2u);
}

TEST(ConfigFlags, EveryFormOfGoIsTaken) {
  for (const Args& args : {Args{"--name=n1"}, Args{"--name", "n1"}, Args{"-name=n1"},
                           Args{"-name", "n1"}, Args{"--name=x", "--name", "n1"}}) {
    EXPECT_EQ(Parsed(args).name, "n1") << args[0];
  }
}

TEST(ConfigFlags, RepairAndForceNewCluster) {
  EXPECT_EQ(Parsed({}).repair, RepairMode::kAuto);
  EXPECT_EQ(Parsed({"--repair=manual"}).repair, RepairMode::kManual);
  EXPECT_TRUE(Parsed({}).batch_scheduling);
  EXPECT_FALSE(Parsed({"--cpu-scheduling=normal"}).batch_scheduling);
  EXPECT_FALSE(Parsed({}).force_new_cluster);
  // Bare, as etcd takes it; what follows is not its value.
  const Config bare = Parsed({"--force-new-cluster", "--name", "a"});
  EXPECT_TRUE(bare.force_new_cluster);
  EXPECT_EQ(bare.name, "a");
  EXPECT_TRUE(Parsed({"--force-new-cluster=true"}).force_new_cluster);
  EXPECT_FALSE(Parsed({"--force-new-cluster=false"}).force_new_cluster);
}

TEST(ConfigFlags, EveryFlagSetsItsField) {
  const Config config = Parsed({"--name=a",
                                "--data-dir=/d",
                                "--listen-client-urls=http://127.0.0.1:1,http://[::1]:2",
                                "--advertise-client-urls=http://h:3",
                                "--listen-peer-urls=http://127.0.0.1:4",
                                "--initial-advertise-peer-urls=http://h:5",
                                "--initial-cluster=a=http://h:5",
                                "--initial-cluster-state=existing",
                                "--initial-cluster-token=t",
                                "--heartbeat-interval=20",
                                "--election-timeout=300",
                                "--snapshot-count=7",
                                "--log-bytes=2000000",
                                "--snapshot-rate-bytes=70000",
                                "--cache-bytes=3000000",
                                "--mirror-rate-bytes=80000",
                                "--mirror-loads=5",
                                "--max-request-bytes=4096",
                                "--max-txn-ops=9",
                                "--log-level=debug"});
  EXPECT_EQ(config.data_dir, "/d");
  EXPECT_THAT(ToStrings(config.listen_client_urls),
              ElementsAre("http://127.0.0.1:1", "http://[::1]:2"));
  EXPECT_EQ(config.listen_client_urls[1].Address(), "[::1]:2");
  EXPECT_THAT(ToStrings(config.advertise_client_urls), ElementsAre("http://h:3"));
  EXPECT_THAT(ToStrings(config.listen_peer_urls), ElementsAre("http://127.0.0.1:4"));
  EXPECT_THAT(ToStrings(config.initial_advertise_peer_urls), ElementsAre("http://h:5"));
  EXPECT_EQ(config.initial_cluster_state, ClusterState::kExisting);
  EXPECT_EQ(config.initial_cluster_token, "t");
  EXPECT_EQ(config.heartbeat_interval, absl::Milliseconds(20));
  EXPECT_EQ(config.election_timeout, absl::Milliseconds(300));
  EXPECT_EQ(config.snapshot_count, 7u);
  EXPECT_EQ(config.log_bytes, 2000000u);
  EXPECT_EQ(config.snapshot_rate_bytes, 70000u);
  EXPECT_EQ(config.cache_bytes, 3000000u);
  EXPECT_EQ(config.mirror_rate_bytes, 80000u);
  EXPECT_EQ(config.mirror_loads, 5u);
  EXPECT_EQ(config.max_request_bytes, 4096u);
  EXPECT_EQ(config.max_txn_ops, 9u);
  EXPECT_EQ(config.log_level, "debug");
}

TEST(ConfigFlags, HelpNamesEveryFlagAndVersionHasBothNumbers) {
  absl::StatusOr<CommandLine> help = ParseCommandLine({"--help"}, {});
  ASSERT_TRUE(help.ok());
  for (const std::string_view flag : FlagNames()) {
    EXPECT_THAT(help->print, HasSubstr("--" + std::string(flag)));
  }
  absl::StatusOr<CommandLine> version = ParseCommandLine({"--version"}, {});
  ASSERT_TRUE(version.ok());
  EXPECT_EQ(version->print, "holdfastd 0.5.0\netcd Version: 3.5.17\n");
}

TEST(ConfigFlags, TheDocumentationNamesEveryFlagAndVariable) {
  std::ifstream file(HOLDFAST_DOCS_DIR "/configuration.md");
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  for (const std::string_view flag : FlagNames()) {
    std::string variable = "HOLDFAST_";
    for (const char c : flag) variable += c == '-' ? '_' : static_cast<char>(std::toupper(c));
    EXPECT_THAT(text, HasSubstr("| `" + std::string(flag) + "`"));
    EXPECT_THAT(text, HasSubstr("| `" + variable + "` |"));
  }
}

TEST(ConfigFlags, EtcdsHarmlessFlagsAreWarnedAbout) {
  absl::StatusOr<CommandLine> line = ParseCommandLine(
      {"--logger=zap", "--auth-token", "simple", "--pre-vote", "--experimental-peer-skip-x", "true",
       "--grpc-keepalive-min-time=5s", "--client-cert-auth", "--name", "a"},
      {"HOLDFAST_ENABLE_V2=true"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->config.name, "a");
  EXPECT_EQ(line->warnings.size(), 7u);
  EXPECT_THAT(line->warnings[0], HasSubstr("--logger"));
  EXPECT_THAT(line->warnings[6], HasSubstr("HOLDFAST_ENABLE_V2"));
}

TEST(ConfigFlags, AnEvenClusterIsWarnedAbout) {
  absl::StatusOr<CommandLine> line =
      ParseCommandLine({"--name=a", "--initial-cluster=a=http://localhost:2380,b=http://h:1"}, {});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_THAT(line->warnings, ElementsAre(HasSubstr("a cluster of 2 members")));
}

TEST(ConfigPrecedence, FlagOverEnvironmentOverFileOverDefault) {
  TemporaryFile file(
      "name = \"file\"\nmax-txn-ops = 5\nheartbeat-interval = 30\n"
      "listen-client-urls = [\"http://h:1\", \"http://h:2\"]\n");
  const Args environment = {"HOLDFAST_NAME=environment", "HOLDFAST_MAX_TXN_OPS=6", "PATH=/bin"};
  const Config config = Parsed({"--config-file", file.path(), "--name=flag"}, environment);
  EXPECT_EQ(config.name, "flag");
  EXPECT_EQ(config.max_txn_ops, 6u);
  EXPECT_EQ(config.heartbeat_interval, absl::Milliseconds(30));
  EXPECT_EQ(config.election_timeout, absl::Seconds(1));
  EXPECT_THAT(ToStrings(config.listen_client_urls), ElementsAre("http://h:1", "http://h:2"));
}

TEST(ConfigPrecedence, TheFileMayBeNamedInTheEnvironment) {
  TemporaryFile file("name = \"file\"\n");
  EXPECT_EQ(Parsed({}, {"HOLDFAST_CONFIG_FILE=" + file.path()}).name, "file");
  EXPECT_THAT(ErrorOf({}, {"HOLDFAST_CONFIG_FILE=/nowhere"}), HasSubstr("/nowhere"));
}

TEST(ConfigEnvironment, WhatOthersSetIsLeftAlone) {
  EXPECT_EQ(Parsed({}, {"HOLDFAST_SERVICE_HOST=10.0.0.1", "HOLDFAST_PORT_2379_TCP=tcp://10.0.0.1",
                        "HOLDFAST_BUILD_DIR=build", "HOLDFAST_ENDPOINTS=a:2379",
                        "HOLDFAST_NAME=", "NAME=x"})
                .name,
            "default");
}

struct ErrorCase {
  std::string what;
  Args args;
  std::vector<std::string> parts;  // all in the text
};

class ConfigErrors : public testing::TestWithParam<ErrorCase> {};

TEST_P(ConfigErrors, SayWhatIsWrongAndWhatToDo) {
  const std::string text = ErrorOf(GetParam().args);
  for (const std::string& part : GetParam().parts) EXPECT_THAT(text, HasSubstr(part));
}

const std::vector<ErrorCase> kErrorCases = {
    {"UnknownFlag", {"--nmae=x"}, {"--nmae", "did you mean --name?"}},
    {"UnknownSingleDash", {"-data_dir", "x"}, {"--data_dir", "did you mean --data-dir?"}},
    {"UnknownFarOff", {"--zzzzzzzzzzzzz"}, {"unknown flag", "--help"}},
    {"NeitherYesNorNo", {"--force-new-cluster=maybe"}, {"'maybe' is unknown", "true or false"}},
    {"SchedulingUnknown", {"--cpu-scheduling=fast"}, {"'fast' is unknown", "auto or normal"}},
    {"RepairUnknown", {"--repair=perhaps"}, {"'perhaps' is unknown", "auto or manual"}},
    {"Positional", {"a.toml"}, {"'a.toml' is not a flag"}},
    {"NoValue", {"--name"}, {"--name needs a value: --name=NAME"}},
    {"NoValueBeforeFlag", {"--name", "--data-dir=x"}, {"--name needs a value"}},
    {"EmptyValue", {"--name="}, {"--name=: the value is empty"}},
    {"NotANumber", {"--max-txn-ops=many"}, {"--max-txn-ops=many", "not a whole number"}},
    {"Negative", {"--max-txn-ops=-1"}, {"not a whole number"}},
    {"WithUnit", {"--heartbeat-interval=100ms"}, {"'100ms'", "milliseconds, without a unit"}},
    {"Https", {"--listen-client-urls=https://h:1"}, {"TLS", "later release", "http://"}},
    {"OtherScheme", {"--listen-client-urls=unix://h:1"}, {"unix", "only http://"}},
    {"NoScheme", {"--listen-client-urls=h:1"}, {"not a URL", "http://10.0.0.1:2379"}},
    {"NoPort", {"--listen-client-urls=http://h"}, {"no port"}},
    {"NoPortV6", {"--listen-client-urls=http://[::1]"}, {"no port"}},
    {"BadPort", {"--listen-client-urls=http://h:99999"}, {"99999", "65535"}},
    {"Path", {"--listen-client-urls=http://h:1/x"}, {"nothing behind"}},
    {"NoHost", {"--listen-client-urls=http://:1"}, {"no valid host"}},
    {"BareV6", {"--listen-client-urls=http://::1:80"}, {"brackets"}},
    {"Twice", {"--listen-client-urls=http://h:1,http://h:1"}, {"http://h:1", "twice"}},
    {"TrailingComma", {"--listen-client-urls=http://h:1,"}, {"not a URL"}},
    {"AdvertiseWildcard",
     {"--advertise-client-urls=http://0.0.0.0:2379"},
     {"--advertise-client-urls", "http://0.0.0.0:2379", "address of this machine"}},
    {"AdvertiseWildcardV6", {"--advertise-client-urls=http://[::]:2379"}, {"cannot reach"}},
    {"AdvertiseMissing",
     {"--listen-client-urls=http://0.0.0.0:2379"},
     {"--advertise-client-urls is missing", "http://10.0.0.1:2379"}},
    {"PeerAdvertiseMissing",
     {"--listen-peer-urls=http://[::]:2380"},
     {"--initial-advertise-peer-urls is missing"}},
    {"AdvertisePortZero", {"--advertise-client-urls=http://h:0"}, {"port 0", "write the port"}},
    {"PeerPortZero",
     {"--name=a", "--initial-cluster=a=http://h:0,b=http://g:1"},
     {"a=http://h:0", "port 0"}},
    {"SamePort",
     {"--listen-client-urls=http://h:1", "--listen-peer-urls=http://h:1"},
     {"http://h:1", "a port each"}},
    {"ClusterNotAList", {"--initial-cluster=http://h:1"}, {"not NAME=URL", "a=http://"}},
    {"ClusterWithoutName", {"--initial-cluster==http://h:1"}, {"not NAME=URL"}},
    {"ClusterUrlTwice",
     {"--name=a", "--initial-cluster=a=http://h:1,b=http://h:1"},
     {"http://h:1 stands twice"}},
    {"ClusterWithoutMe",
     {"--name=c", "--initial-cluster=a=http://h:1,b=http://g:1"},
     {"--name=c is not in --initial-cluster", "a, b", "c=http://localhost:2380"}},
    {"ClusterOtherUrl",
     {"--name=a", "--initial-cluster=a=http://h:1", "--initial-advertise-peer-urls=http://h:2"},
     {"a is at http://h:1", "says http://h:2", "make them equal"}},
    {"ClusterWildcard", {"--name=a", "--initial-cluster=a=http://0.0.0.0:1"}, {"http://0.0.0.0:1"}},
    {"State", {"--initial-cluster-state=old"}, {"'old'", "new or existing"}},
    {"ElectionTooShort",
     {"--heartbeat-interval=100", "--election-timeout=499"},
     {"--election-timeout=499", "at least 500"}},
    {"ElectionTooLong", {"--election-timeout=50001"}, {"at most 50000"}},
    {"HeartbeatTooShort", {"--heartbeat-interval=9"}, {"at least 10"}},
    {"RequestTooSmall", {"--max-request-bytes=1"}, {"1024 to 8388608"}},
    {"RequestTooLarge", {"--max-request-bytes=8388609"}, {"1024 to 8388608"}},
    {"TxnOps", {"--max-txn-ops=0"}, {"1 to 100000"}},
    {"LogLevel", {"--log-level=loud"}, {"debug, info, warn or error"}},
    {"NameWithSlash", {"--name=a/b"}, {"'/'"}},
    {"NameTooLong", {"--name=" + std::string(129, 'n')}, {"1 to 128 bytes"}},
    {"Token", {"--initial-cluster-token=" + std::string(129, 't')}, {"at most 128"}},
    {"FileMissing", {"--config-file=/nowhere/x.toml"}, {"/nowhere/x.toml", "No such file"}},
};

INSTANTIATE_TEST_SUITE_P(Table, ConfigErrors, testing::ValuesIn(kErrorCases),
                         [](const auto& info) { return info.param.what; });

TEST(ConfigErrors, TooManyMembersAreRefused) {
  std::string cluster = "a=http://localhost:2380";
  for (int i = 0; i < 9; ++i)
    cluster += ",m" + std::to_string(i) + "=http://h:" + std::to_string(i + 1);
  EXPECT_THAT(ErrorOf({"--name=a", "--initial-cluster=" + cluster}), HasSubstr("10 members"));
}

TEST(ConfigErrors, OfTheEnvironmentNameTheVariable) {
  EXPECT_THAT(ErrorOf({}, {"HOLDFAST_MAX_TXN_OPS=x"}),
              AllOf(HasSubstr("HOLDFAST_MAX_TXN_OPS=x"), HasSubstr("not a whole number")));
  EXPECT_THAT(ErrorOf({}, {"HOLDFAST_DATADIR=/x"}),
              AllOf(HasSubstr("HOLDFAST_DATADIR"), HasSubstr("did you mean --data-dir?")));
}

TEST(ConfigErrors, OfTheFileNameTheLine) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"name = \"a\"\ndatadir = \"x\"\n",
       "line 2: the key 'datadir' is unknown: did you mean data-dir?"},
      {"name = \"a\"\n\nmax-txn-ops = \"x\"\n", "line 3: max-txn-ops = x: 'x' is not"},
      {"name = \n", "line 1 is not TOML"},
      {"name = \"a\"\nname = \"b\"\n", "line 2 is not TOML"},
      {"[listen]\nclient = 1\n", "'listen' must be"},
      {"heartbeat-interval = 1.5\n", "line 1: 'heartbeat-interval' must be"},
      {"config-file = \"other.toml\"\n", "'config-file' is unknown"},
  };
  for (const auto& [text, part] : cases) {
    TemporaryFile file(text);
    EXPECT_THAT(ErrorOf({"--config-file=" + file.path()}), HasSubstr(part)) << text;
  }
}

TEST(ConfigFlagsTest, MetricsHavePortsOfTheirOwnIfWished) {
  EXPECT_THAT(Parsed({}).listen_metrics_urls, IsEmpty());
  const Config config =
      Parsed({"--listen-metrics-urls", "http://127.0.0.1:9100", "--metrics=extensive"});
  EXPECT_THAT(ToStrings(config.listen_metrics_urls), ElementsAre("http://127.0.0.1:9100"));
  EXPECT_THAT(ErrorOf({"--metrics=all"}), HasSubstr("basic or extensive"));
  EXPECT_THAT(ErrorOf({"--listen-metrics-urls=http://localhost:2379"}),
              HasSubstr("serves clients or peers already"));
}

}  // namespace
}  // namespace holdfast::server
