#include "tests/process/process_util.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <utility>

#include "absl/time/clock.h"
#include "base/rng.h"
#include "bench/monotonic.h"

namespace holdfast {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(10);

std::unique_ptr<bench::LocalCluster> Start(bench::LocalClusterOptions options,
                                           const std::vector<std::string>& extra_args) {
  options.binary = bench::BinaryBesideOwn("holdfastd");
  options.root = testing::TempDir();
  options.extra_args = extra_args;
  auto cluster = bench::LocalCluster::Start(options);
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  return cluster.ok() ? *std::move(cluster) : nullptr;
}

}  // namespace

std::unique_ptr<bench::LocalCluster> StartCluster(const std::vector<std::string>& extra_args) {
  return Start({}, extra_args);
}

std::unique_ptr<bench::LocalCluster> StartProxiedCluster(
    int members, const std::vector<std::string>& extra_args) {
  bench::LocalClusterOptions options;
  options.members = members;
  options.proxied_peers = true;
  return Start(options, extra_args);
}

std::unique_ptr<Client> OpenClient(const std::vector<std::string>& endpoints) {
  ClientOptions options;
  options.endpoints = endpoints;
  auto client = Client::Open(options);
  EXPECT_TRUE(client.ok()) << client.status();
  return client.ok() ? *std::move(client) : nullptr;
}

std::vector<Entry> DumpAt(bench::LocalCluster& cluster, int member, uint64_t revision) {
  auto client = OpenClient({cluster.endpoint(member)});
  const auto any_age = ReadOptions::Bounded(absl::InfiniteDuration()).Deadline(kGiveUp);
  std::vector<Entry> all;
  RangeQuery query = RangeQuery::Prefix("");
  query.limit = 10000;
  query.revision = revision;
  for (bool more = true; more;) {
    auto page = client->Range(query, any_age);
    if (!page.ok()) {
      ADD_FAILURE() << "member " << member << ": " << page.status();
      return all;
    }
    more = page->value.more;
    for (Entry& entry : page->value.entries) all.push_back(std::move(entry));
    if (!all.empty()) query.key = all.back().key + std::string(1, '\0');
  }
  return all;
}

int FromEnvironment(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoi(text);
}

uint64_t SeedFromEnvironment() {
  const char* text = std::getenv("HOLDFAST_SEED");
  return text == nullptr ? base::RandomSeed() : std::strtoull(text, nullptr, 10);
}

bool Eventually(const std::function<bool()>& condition, absl::Duration give_up) {
  const int64_t deadline_ns = bench::MonotonicNs() + absl::ToInt64Nanoseconds(give_up);
  while (!condition()) {
    if (bench::MonotonicNs() > deadline_ns) return false;
    absl::SleepFor(kPoll);
  }
  return true;
}

SmallDisk::SmallDisk(std::string dir) : dir_(std::move(dir)) { mkdir(dir_.c_str(), 0700); }

SmallDisk::~SmallDisk() {
  if (mounted_) umount2(dir_.c_str(), MNT_DETACH);
  rmdir(dir_.c_str());
}

bool SmallDisk::Mount(int mib) {
  const std::string size = fmt::format("size={}m", mib);
  mounted_ = mount("tmpfs", dir_.c_str(), "tmpfs", 0, size.c_str()) == 0;
  return mounted_;
}

bool SmallDisk::Grow(int mib) {
  return mount("tmpfs", dir_.c_str(), "tmpfs", MS_REMOUNT, fmt::format("size={}m", mib).c_str()) ==
         0;
}

void SmallDisk::Fill() {
  const int fd = open((dir_ + "/ballast").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_GE(fd, 0);
  for (const size_t piece : {size_t{1} << 20, size_t{1} << 12}) {
    const std::string zeros(piece, '\0');
    while (write(fd, zeros.data(), zeros.size()) == ssize_t(zeros.size())) {
    }
  }
  close(fd);
}

void SmallDisk::Free() { unlink((dir_ + "/ballast").c_str()); }

ProgramEnd RunToEnd(const std::vector<std::string>& argv, absl::Duration timeout) {
  int fds[2];
  if (pipe(fds) != 0) return {};
  std::vector<char*> args;
  for (const std::string& arg : argv) args.push_back(const_cast<char*>(arg.c_str()));
  args.push_back(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(fds[1], STDOUT_FILENO);
    dup2(fds[1], STDERR_FILENO);
    close(fds[0]);
    execv(args[0], args.data());
    _exit(127);
  }
  close(fds[1]);
  ProgramEnd end;
  const absl::Time give_up = absl::Now() + timeout;
  char buffer[4096];
  while (true) {
    pollfd wait{fds[0], POLLIN, 0};
    const absl::Duration left = give_up - absl::Now();
    if (left <= absl::ZeroDuration() ||
        poll(&wait, 1, static_cast<int>(absl::ToInt64Milliseconds(left)) + 1) <= 0) {
      end.output += "\n(still running when the test gave up)";
      kill(pid, SIGKILL);
      break;
    }
    const ssize_t n = read(fds[0], buffer, sizeof(buffer));
    if (n <= 0) break;
    end.output.append(buffer, static_cast<size_t>(n));
  }
  close(fds[0]);
  int status = 0;
  waitpid(pid, &status, 0);
  if (WIFEXITED(status)) end.exit_code = WEXITSTATUS(status);
  return end;
}

}  // namespace holdfast
