#include "bench/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_split.h"
#include "bench/endpoint.h"

namespace holdfast::bench {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

ParseResult Parse(const std::string& line) {
  const std::vector<std::string> args = absl::StrSplit(line, ' ', absl::SkipEmpty());
  return ParseCommandLine(args);
}

struct BadLine {
  const char* line;
  const char* must_say;
};

void PrintTo(const BadLine& bad, std::ostream* out) { *out << "\"" << bad.line << "\""; }

class BadCommandLineTest : public testing::TestWithParam<BadLine> {};

TEST_P(BadCommandLineTest, IsRefusedWithItsReason) {
  const ParseResult result = Parse(GetParam().line);
  EXPECT_FALSE(result.run);
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.text, HasSubstr(GetParam().must_say)) << GetParam().line;
  EXPECT_THAT(result.text, HasSubstr("--help"));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadCommandLineTest,
    testing::Values(
        BadLine{"", "subcommand"}, BadLine{"fly", "fly"},
        BadLine{"put --endpoints a:1 --bogus 3", "--bogus"},
        BadLine{"put --endpoints a:1 extra", "extra"}, BadLine{"put", "--endpoints"},
        BadLine{"put --endpoints a:1 --local 3", "exactly one"},
        BadLine{"put --endpoints localhost", "host:port"},
        BadLine{"put --endpoints a:1,,b:2", "host:port"},
        BadLine{"put --endpoints a:0", "host:port"}, BadLine{"put --endpoints a:65536", "a:65536"},
        BadLine{"put --endpoints a:1x", "host:port"}, BadLine{"put --endpoints :99", "host:port"},
        BadLine{"put --endpoints https://a:1", "TLS"}, BadLine{"put --local 99", "--local"},
        BadLine{"put --local -1", "--local"}, BadLine{"put --local 3 --pids 1", "--pids"},
        BadLine{"put --endpoints a:1 --pids x", "pids"},
        BadLine{"put --endpoints a:1 --clients 0", "--clients"},
        BadLine{"put --endpoints a:1 --clients -5", "--clients"},
        BadLine{"put --endpoints a:1 --clients many", "--clients"},
        BadLine{"put --endpoints a:1 --threads 65", "--threads"},
        BadLine{"put --endpoints a:1 --connections 99999999", "--connections"},
        BadLine{"put --endpoints a:1 --total 5 --duration 1s", "--duration"},
        BadLine{"put --endpoints a:1 --duration 10", "--duration"},
        BadLine{"put --endpoints a:1 --duration 0s", "--duration"},
        BadLine{"put --endpoints a:1 --duration -1s", "--duration"},
        BadLine{"put --endpoints a:1 --timeout 0s", "--timeout"},
        BadLine{"put --endpoints a:1 --rate -1", "--rate"},
        BadLine{"put --endpoints a:1 --rate nan", "--rate"},
        BadLine{"put --endpoints a:1 --poisson", "--rate"},
        BadLine{"put --endpoints a:1 --runs 0", "--runs"},
        BadLine{"put --endpoints a:1 --key-space 3000000000", "--key-space"},
        BadLine{"put --endpoints a:1 --key-space 10 --load 11", "--load"},
        BadLine{"put --endpoints a:1 --key-size 7", "--key-size"},
        BadLine{"put --endpoints a:1 --value-size 2000000", "--value-size"},
        BadLine{"put --endpoints a:1 --keys upwards", "random"},
        BadLine{"put --endpoints a:1 --txn-ops 129", "--txn-ops"},
        BadLine{"put --endpoints a:1 --targets some", "leader"},
        BadLine{"put --endpoints a:1 -w xml", "json"},
        BadLine{"put --endpoints a:1 --read-ratio 0.5", "--read-ratio"},
        BadLine{"put --endpoints a:1 --consistency serializable", "--consistency"},
        BadLine{"mixed --endpoints a:1 --read-ratio 1.5", "--read-ratio"},
        BadLine{"get --endpoints a:1 --consistency maybe", "linearizable"},
        BadLine{"failover --how gently", "transfer"}, BadLine{"failover --rounds 0", "--rounds"},
        BadLine{"failover --local 2", "--local"},
        BadLine{"failover --local-etcd 1", "--local-etcd"},
        BadLine{"failover --clients 1000", "--clients"},
        BadLine{"failover --try-timeout 0s", "--try-timeout"},
        BadLine{"failover --bytes 1G", "--bytes"}, BadLine{"catchup --bytes much", "--bytes"},
        BadLine{"catchup --rounds 3", "--rounds"}, BadLine{"members --endpoints a:1", "a:1"},
        BadLine{"watch --local 3 --endpoints a:1", "--endpoints"},
        BadLine{"watch --watchers 10 --streams 3", "multiple of --streams"},
        BadLine{"watch --watchers 10 --streams 5 --fan-out 3", "multiple of --fan-out"},
        BadLine{"watch --watchers 0", "--watchers"}, BadLine{"watch --watch some", "prefix"},
        BadLine{"watch --value-size 8", "--value-size"}, BadLine{"watch --total 5", "--total"},
        BadLine{"watch --rate 1000000 --duration 1h", "--rate"},
        BadLine{"scale --keys 0", "--keys"}, BadLine{"scale --keys 5,x", "--keys"},
        BadLine{"scale --rate 5", "--rate"}, BadLine{"scale --endpoints a:1", "--endpoints"},
        BadLine{"scale --time-limit soon", "--time-limit"},
        BadLine{"compaction --revisions 0", "--revisions"},
        BadLine{"compaction --key-space 5 --txn-ops 10", "--key-space"},
        BadLine{"compaction --closed --rate 5", "--closed"},
        BadLine{"lease --leases 0", "--leases"}, BadLine{"lease --attach 2", "--attach"},
        BadLine{"lease --expire-ttl 10ms", "--expire-ttl"},
        BadLine{"lease --leases 10 --revoke 11", "--revoke"}, BadLine{"mirror --keys 0", "--keys"},
        BadLine{"mirror --mirrors 0", "--mirrors"}, BadLine{"mirror --idle-rate 0", "--idle-rate"},
        BadLine{"mirror --many-rate -1", "--many-rate"},
        BadLine{"mirror --value-size 8", "--value-size"},
        BadLine{"compare --workloads put,fly", "fly"}, BadLine{"compare --endpoints a:1", "a:1"},
        BadLine{"compare --rate 100", "--workloads"},
        BadLine{"compare --sides zookeeper", "native"},
        BadLine{"compare --native-callers 0", "--native-callers"},
        BadLine{"compare --etcd-clients 0", "--etcd-clients"},
        BadLine{"compare --key-size 12", "--memory-keys"}, BadLine{"run --local 3", "--workload"},
        BadLine{"run --local 3 --workload walk", "ycsb-a"},
        BadLine{"run --local 3 --workload get-mirror", "--api native"},
        BadLine{"run --local 3 --workload get-mirror --api native --rate 5", "--rate"},
        BadLine{"run --local 3 --workload put --exactly-once", "--api native"},
        BadLine{"run --local 3 --workload put --api smoke", "native"},
        BadLine{"run --local 3 --workload put --native-clients 65", "--native-clients"},
        BadLine{"run --local 3 --workload ycsb-d --key-size 13", "inserted"}));

TEST(CommandLineTest, HelpIsNoError) {
  for (const char* line : {"--help", "put --help", "compare -h"}) {
    const ParseResult result = Parse(line);
    EXPECT_FALSE(result.run);
    EXPECT_EQ(result.exit_code, 0);
    EXPECT_THAT(result.text, HasSubstr("--help"));
  }
}

TEST(CommandLineTest, DefaultsAreFilledIn) {
  const ParseResult result = Parse("put --endpoints 127.0.0.1:2379");
  ASSERT_TRUE(result.run) << result.text;
  EXPECT_EQ(result.options.command, Command::kPut);
  EXPECT_EQ(result.options.duration, absl::Seconds(10));
  EXPECT_EQ(result.options.total, 0u);
  EXPECT_EQ(result.options.key_space, 100'000u);
  ASSERT_EQ(result.options.workloads.size(), 1u);
  EXPECT_EQ(result.options.workloads[0].put, 1);
  EXPECT_EQ(result.options.api, Api::kUnary);
  EXPECT_NE(result.options.seed, 0u);
  EXPECT_EQ(result.options.command_line, "holdfast-bench put --endpoints 127.0.0.1:2379");
}

TEST(CommandLineTest, FlagsReachTheirOptions) {
  const ParseResult result = Parse(
      "mixed --endpoints a:1,b:2 --total 500 --rate 250 --poisson --keys zipf --read-ratio 0.25 "
      "--consistency serializable --targets leader -w json --pids 11,12 --load 5000 --seed 9 "
      "--warmup 0s --runs 3");
  ASSERT_TRUE(result.run) << result.text;
  const Options& o = result.options;
  EXPECT_EQ(o.command, Command::kMixed);
  EXPECT_EQ(o.total, 500u);
  EXPECT_EQ(o.duration, absl::ZeroDuration());
  EXPECT_EQ(o.rate, 250);
  EXPECT_TRUE(o.poisson);
  EXPECT_EQ(o.order, KeyOrder::kZipf);
  EXPECT_EQ(o.read_ratio, 0.25);
  EXPECT_TRUE(o.serializable);
  ASSERT_EQ(o.workloads.size(), 1u);
  EXPECT_EQ(o.workloads[0].get, 0.25);
  EXPECT_EQ(o.workloads[0].read, ReadLevel::kSerializable);
  EXPECT_TRUE(o.leader_only);
  EXPECT_TRUE(o.json);
  EXPECT_THAT(o.pids, ElementsAre(11, 12));
  EXPECT_EQ(o.load, 5000u);
  EXPECT_EQ(o.key_space, 5000u);
  EXPECT_EQ(o.seed, 9u);
  EXPECT_EQ(o.warmup, absl::ZeroDuration());
  EXPECT_EQ(o.runs, 3u);
}

TEST(CommandLineTest, CompareHasBothSidesByDefault) {
  const ParseResult result =
      Parse("compare --load-keys 1000000 --workloads get,mixed --etcd-arg=--quota-backend-bytes=1");
  ASSERT_TRUE(result.run) << result.text;
  EXPECT_EQ(result.options.local, 3);
  EXPECT_EQ(result.options.local_etcd, 3);
  EXPECT_EQ(result.options.load, 1'000'000u);
  EXPECT_EQ(result.options.key_space, 1'000'000u);
  ASSERT_EQ(result.options.workloads.size(), 2u);
  EXPECT_EQ(result.options.workloads[1].name, "mixed");
  EXPECT_THAT(result.options.etcd_args, ElementsAre("--quota-backend-bytes=1"));
}

TEST(CommandLineTest, CompareMeasuresTheGoalsUnlessWorkloadsAreNamed) {
  const ParseResult goals = Parse("compare");
  ASSERT_TRUE(goals.run) << goals.text;
  EXPECT_TRUE(goals.options.compare.goals);
  EXPECT_TRUE(goals.options.workloads.empty());
  EXPECT_EQ(goals.options.runs, 3u);
  EXPECT_EQ(goals.options.duration, absl::Seconds(6));
  EXPECT_EQ(goals.options.compare.memory_keys, 1'000'000u);
  EXPECT_THAT(goals.options.compare.etcd_clients, ElementsAre(100, 300, 1000));
  EXPECT_EQ(Parse("compare --no-memory").options.compare.memory_keys, 0u);
  EXPECT_THAT(Parse("compare --sides etcd,native").options.compare.targets,
              ElementsAre(Target::kEtcd, Target::kNative));
  EXPECT_EQ(Parse("compare --runs 5 --duration 2s").options.runs, 5u);
  EXPECT_EQ(Parse("compare --total 100").options.duration, absl::ZeroDuration());
}

TEST(CommandLineTest, AnyWorkloadRunsByEitherApi) {
  const ParseResult run = Parse(
      "run --workload ycsb-a,large --api native --exactly-once --clients 4000 --local 3 "
      "--native-clients 2 --html report.html");
  ASSERT_TRUE(run.run) << run.text;
  EXPECT_EQ(run.options.command, Command::kRun);
  EXPECT_EQ(run.options.workloads.size(), 3u);
  EXPECT_EQ(run.options.api, Api::kNative);
  EXPECT_TRUE(run.options.exactly_once);
  EXPECT_EQ(run.options.native_clients, 2u);
  EXPECT_EQ(run.options.html, "report.html");
}

TEST(CommandLineTest, HelpNamesTheWorkloads) {
  for (const char* line : {"--help", "run --help"}) {
    const std::string text = Parse(line).text;
    for (const char* name : {"ycsb-a", "ycsb-f", "get-mirror", "large-1m"}) {
      EXPECT_THAT(text, HasSubstr(name)) << line;
    }
  }
  for (const char* command : {"watch", "lease", "scale"}) {
    EXPECT_THAT(Parse("--help").text, HasSubstr(command));
  }
}

TEST(CommandLineTest, DrillsHaveDefaultsOfTheirOwn) {
  const ParseResult failover = Parse("failover --how transfer --local-etcd 3 --rounds 7");
  ASSERT_TRUE(failover.run) << failover.text;
  EXPECT_EQ(failover.options.command, Command::kFailover);
  EXPECT_EQ(failover.options.how, FailoverHow::kTransfer);
  EXPECT_EQ(failover.options.local, 3);
  EXPECT_EQ(failover.options.local_etcd, 3);
  EXPECT_EQ(failover.options.rounds, 7u);
  EXPECT_EQ(failover.options.clients, 12u);
  EXPECT_EQ(failover.options.value_size, 256u);

  const ParseResult catchup = Parse("catchup --bytes 3G --clients 5");
  ASSERT_TRUE(catchup.run) << catchup.text;
  EXPECT_EQ(catchup.options.bytes, uint64_t{3} << 30);
  EXPECT_EQ(catchup.options.clients, 5u);
  EXPECT_EQ(catchup.options.value_size, 16384u);
  EXPECT_EQ(catchup.options.duration, absl::Seconds(10));
  EXPECT_EQ(Parse("catchup").options.bytes, uint64_t{2} << 30);

  EXPECT_EQ(Parse("members").options.command, Command::kMembers);
}

TEST(CommandLineTest, SuitesHaveDefaultsOfTheirOwn) {
  const ParseResult watch = Parse("watch --watchers 200 --streams 10 --fan-out 4 --local-etcd 3");
  ASSERT_TRUE(watch.run) << watch.text;
  EXPECT_EQ(watch.options.command, Command::kWatch);
  EXPECT_EQ(watch.options.local, 0);
  EXPECT_EQ(watch.options.local_etcd, 3);
  EXPECT_EQ(watch.options.watch.fan_out, 4u);
  EXPECT_EQ(watch.options.rate, 1000);
  EXPECT_FALSE(watch.options.watch.whole_prefix);
  EXPECT_TRUE(Parse("watch --endpoints a:1 --watch prefix").options.watch.whole_prefix);

  const ParseResult scale = Parse("scale --keys 1000,2000 --time-limit 5m --duration 3s");
  ASSERT_TRUE(scale.run) << scale.text;
  EXPECT_EQ(scale.options.local, 3);
  EXPECT_THAT(scale.options.scale.keys, ElementsAre(1000, 2000));
  EXPECT_EQ(scale.options.scale.time_limit, absl::Minutes(5));
  EXPECT_EQ(scale.options.rate, 0);
  EXPECT_THAT(Parse("scale").options.scale.keys, ElementsAre(100'000, 1'000'000, 10'000'000));

  const ParseResult compaction = Parse("compaction --revisions 5000 --local 3 --local-etcd 3");
  ASSERT_TRUE(compaction.run) << compaction.text;
  EXPECT_EQ(compaction.options.key_space, 500u);
  EXPECT_EQ(Parse("compaction --closed").options.rate, 0);

  const ParseResult lease = Parse("lease --expire 70 --expire-ttl 3s --rate 10");
  ASSERT_TRUE(lease.run) << lease.text;
  EXPECT_EQ(lease.options.lease.leases, 1'000'000u);
  EXPECT_EQ(lease.options.lease.etcd_leases, 100'000u);
  EXPECT_EQ(lease.options.lease.expire, 70u);
  EXPECT_EQ(lease.options.rate, 10);

  const ParseResult mirror = Parse("mirror --mirrors 7 --disk-bytes 2M --large 0");
  ASSERT_TRUE(mirror.run) << mirror.text;
  EXPECT_EQ(mirror.options.mirror.mirrors, 7u);
  EXPECT_EQ(mirror.options.mirror.disk_bytes, uint64_t{2} << 20);
  EXPECT_EQ(mirror.options.mirror.large_keys, 0u);
  EXPECT_EQ(mirror.options.rate, 1000);
}

TEST(ParseEndpointsTest, TakesUrlsAndIpv6) {
  const auto endpoints = ParseEndpoints("http://a:1/,[::1]:2379,10.0.0.1:65535");
  ASSERT_TRUE(endpoints.ok()) << endpoints.status();
  EXPECT_THAT(*endpoints, ElementsAre("a:1", "[::1]:2379", "10.0.0.1:65535"));
  EXPECT_FALSE(ParseEndpoints("::1:2379").ok());
}

}  // namespace
}  // namespace holdfast::bench
