#include "bench/local_cluster.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/rng.h"
#include "bench/endpoint.h"
#include "bench/monotonic.h"

namespace holdfast::bench {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kFirstPort = 10000;
constexpr int kPortTries = 1000;
constexpr absl::Duration kLeaderPoll = absl::Milliseconds(20);
constexpr absl::Duration kStatusTimeout = absl::Milliseconds(500);
constexpr size_t kLogTailBytes = 2000;

std::string ErrnoText(std::string_view what) {
  return fmt::format("{}: {}", what, std::generic_category().message(errno));
}

absl::StatusOr<std::string> FindBinary(const std::string& binary) {
  if (binary.empty()) return absl::InvalidArgumentError("no server binary given");
  if (binary.find('/') != std::string::npos) {
    if (access(binary.c_str(), X_OK) == 0) return fs::absolute(binary).string();
    return absl::InvalidArgumentError(ErrnoText(fmt::format("server binary {}", binary)));
  }
  const char* path = getenv("PATH");
  for (absl::string_view dir : absl::StrSplit(path == nullptr ? "" : path, ':')) {
    const std::string candidate = std::string(dir) + "/" + binary;
    if (access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return absl::InvalidArgumentError(
      fmt::format("server binary {}: not found in $PATH; is its package installed?", binary));
}

uint64_t FirstEphemeralPort() {
  uint64_t first = 32768;
  std::ifstream("/proc/sys/net/ipv4/ip_local_port_range") >> first;
  return first;
}

bool PortIsFree(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(uint16_t(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const bool free = bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  close(fd);
  return free;
}

// Only async-signal-safe calls between fork and exec: other threads may hold any lock.
[[noreturn]] void RunChild(pid_t parent, const char* binary, char* const* argv,
                           char* const* environment, int log_fd) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);  // the parent died before the line above
  setpgid(0, 0);                        // Ctrl-C is for the bench, which then ends its servers
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  const int null_fd = open("/dev/null", O_RDONLY);
  dup2(null_fd, STDIN_FILENO);
  dup2(log_fd, STDOUT_FILENO);
  dup2(log_fd, STDERR_FILENO);
  execve(binary, argv, environment);
  _exit(127);
}

absl::StatusOr<pid_t> Spawn(const std::string& binary, std::vector<std::string> args,
                            const std::string& log_file) {
  const int log_fd = open(log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (log_fd < 0) return absl::UnavailableError(ErrnoText(log_file));
  std::vector<char*> argv = {const_cast<char*>(binary.c_str())};
  for (std::string& arg : args) argv.push_back(arg.data());
  argv.push_back(nullptr);
  // Members are configured by their flags alone: what the environment says (for this process's own
  // tests, say) is not meant for them.
  std::vector<char*> environment;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (!std::string_view(*variable).starts_with("HOLDFAST_")) environment.push_back(*variable);
  }
  environment.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) RunChild(parent, binary.c_str(), argv.data(), environment.data(), log_fd);
  close(log_fd);
  if (pid < 0) return absl::UnavailableError(ErrnoText("fork"));
  return pid;
}

// False if the process still runs after `timeout`.
bool WaitForEnd(pid_t pid, absl::Duration timeout) {
  // By number: the header of glibc 2.36 declares the function without C linkage.
  const int fd = int(syscall(SYS_pidfd_open, pid, 0));
  if (fd < 0) return true;
  const int64_t deadline_ns = MonotonicNs() + absl::ToInt64Nanoseconds(timeout);
  bool ended = false;
  while (!ended) {
    const int64_t left_ns = deadline_ns - MonotonicNs();
    pollfd poll_fd = {.fd = fd, .events = POLLIN, .revents = 0};
    ended = poll(&poll_fd, 1, int(std::max<int64_t>(0, left_ns / 1'000'000))) > 0;
    if (left_ns <= 0) break;
  }
  close(fd);
  return ended;
}

absl::Status NotRunning(const std::string& name) {
  return absl::FailedPreconditionError(fmt::format("member {} is not running", name));
}

}  // namespace

std::string BinaryBesideOwn(const std::string& name) {
  std::error_code ignored;
  return (fs::read_symlink("/proc/self/exe", ignored).parent_path() / name).string();
}

absl::StatusOr<std::unique_ptr<LocalCluster>> LocalCluster::Start(
    const LocalClusterOptions& options) {
  if (options.members < 1 || options.members > kMaxLocalMembers) {
    return absl::InvalidArgumentError(
        fmt::format("{} members: a local cluster has 1 to {}", options.members, kMaxLocalMembers));
  }
  absl::StatusOr<std::string> binary = FindBinary(options.binary);
  if (!binary.ok()) return binary.status();
  std::unique_ptr<LocalCluster> cluster(new LocalCluster(options));
  cluster->options_.binary = *binary;
  absl::Status status = cluster->CreateMembers();
  for (int i = 0; status.ok() && i < cluster->size(); ++i) status = cluster->Restart(i);
  if (status.ok()) status = cluster->WaitForLeader(options.start_timeout);
  if (!status.ok()) return status;
  return cluster;
}

LocalCluster::~LocalCluster() {
  for (Member& member : members_) {
    if (member.pid != 0) kill(member.pid, SIGKILL);
  }
  for (Member& member : members_) Reap(member);
  for (const int fd : reservations_) close(fd);
  std::error_code ignored;
  if (!options_.keep_files && !dir_.empty()) fs::remove_all(dir_, ignored);
}

absl::Status LocalCluster::CreateMembers() {
  std::error_code error;
  const fs::path root =
      options_.root.empty() ? fs::temp_directory_path(error) : fs::path(options_.root);
  fs::create_directories(root, error);
  std::string pattern = (root / "holdfast-cluster-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) {
    return absl::InvalidArgumentError(ErrnoText(fmt::format("data directory {}", pattern)));
  }
  dir_ = pattern;
  for (int i = 0; i < options_.members; ++i) {
    const absl::StatusOr<int> client_port = ReservePort();
    const absl::StatusOr<int> peer_port = ReservePort();
    if (!client_port.ok() || !peer_port.ok()) {
      return absl::UnavailableError("no free loopback port found");
    }
    Member member;
    member.name = fmt::format("m{}", i);
    member.client_port = *client_port;
    member.peer_port = *peer_port;
    member.endpoint = fmt::format("127.0.0.1:{}", *client_port);
    member.data_dir = fmt::format("{}/{}", dir_, member.name);
    member.log_file = fmt::format("{}/{}.log", dir_, member.name);
    // etcd warns about directories that others may read.
    fs::create_directory(member.data_dir, error);
    fs::permissions(member.data_dir, fs::perms::owner_all, error);
    members_.push_back(std::move(member));
  }
  return absl::OkStatus();
}

// A socket in the abstract Unix namespace, named after the port, keeps other LocalClusters from
// drawing it: it also covers the times when the member is down and its port is not bound.
absl::StatusOr<int> LocalCluster::ReservePort() {
  base::Rng rng(base::RandomSeed());
  const uint64_t end = std::max(FirstEphemeralPort(), kFirstPort + 1000);
  for (int i = 0; i < kPortTries; ++i) {
    const int port = int(kFirstPort + rng.Below(end - kFirstPort));
    const std::string name = fmt::format("holdfast-port-{}", port);
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::copy(name.begin(), name.end(), address.sun_path + 1);  // a leading NUL: abstract
    const socklen_t length = socklen_t(offsetof(sockaddr_un, sun_path) + 1 + name.size());
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && bind(fd, reinterpret_cast<sockaddr*>(&address), length) == 0 &&
        PortIsFree(port)) {
      reservations_.push_back(fd);
      return port;
    }
    if (fd >= 0) close(fd);
  }
  return absl::UnavailableError("no free loopback port found");
}

std::vector<std::string> LocalCluster::CommandLine(const Member& member) const {
  std::vector<std::string> peers;
  for (const Member& peer : members_) {
    peers.push_back(fmt::format("{}=http://127.0.0.1:{}", peer.name, peer.peer_port));
  }
  const std::string client_url = fmt::format("http://127.0.0.1:{}", member.client_port);
  const std::string peer_url = fmt::format("http://127.0.0.1:{}", member.peer_port);
  std::vector<std::string> args = {"--name=" + member.name,
                                   "--data-dir=" + member.data_dir,
                                   "--listen-client-urls=" + client_url,
                                   "--advertise-client-urls=" + client_url,
                                   "--listen-peer-urls=" + peer_url,
                                   "--initial-advertise-peer-urls=" + peer_url,
                                   "--initial-cluster=" + absl::StrJoin(peers, ","),
                                   "--initial-cluster-state=new",
                                   "--initial-cluster-token=" + fs::path(dir_).filename().string(),
                                   "--log-level=" + options_.log_level};
  args.insert(args.end(), options_.extra_args.begin(), options_.extra_args.end());
  return args;
}

const LocalCluster::Member& LocalCluster::At(int i) const {
  CHECK(i >= 0);
  CHECK(i < size());
  return members_[size_t(i)];
}

LocalCluster::Member& LocalCluster::At(int i) {
  return const_cast<Member&>(std::as_const(*this).At(i));
}

void LocalCluster::Reap(Member& member) {
  if (member.pid == 0) return;
  int wait_status = 0;
  pid_t reaped = 0;
  do {
    reaped = waitpid(member.pid, &wait_status, 0);
  } while (reaped < 0 && errno == EINTR);
  member.pid = 0;
  member.paused = false;
  member.wait_status = wait_status;
}

bool LocalCluster::Running(int i) {
  Member& member = At(i);
  if (member.pid == 0) return false;
  siginfo_t info = {};
  // WNOWAIT leaves the status for Reap().
  if (waitid(P_PID, id_t(member.pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
      info.si_pid == 0) {
    return true;
  }
  Reap(member);
  return false;
}

std::vector<std::string> LocalCluster::Endpoints() const {
  std::vector<std::string> endpoints;
  for (const Member& member : members_) endpoints.push_back(member.endpoint);
  return endpoints;
}

std::vector<pid_t> LocalCluster::Pids() const {
  std::vector<pid_t> pids;
  for (const Member& member : members_) {
    if (member.pid != 0) pids.push_back(member.pid);
  }
  return pids;
}

absl::Status LocalCluster::Kill(int i) {
  if (!Running(i)) return NotRunning(At(i).name);
  kill(At(i).pid, SIGKILL);
  Reap(At(i));
  return absl::OkStatus();
}

absl::Status LocalCluster::Stop(int i, absl::Duration timeout) {
  if (!Running(i)) return NotRunning(At(i).name);
  kill(At(i).pid, SIGTERM);
  if (!WaitForEnd(At(i).pid, timeout)) {
    return absl::DeadlineExceededError(
        fmt::format("member {} still runs {} after SIGTERM; its log ends:\n{}", At(i).name,
                    absl::FormatDuration(timeout), LogTail(i)));
  }
  Reap(At(i));
  return absl::OkStatus();
}

absl::Status LocalCluster::Pause(int i) {
  if (!Running(i)) return NotRunning(At(i).name);
  kill(At(i).pid, SIGSTOP);
  At(i).paused = true;
  return absl::OkStatus();
}

absl::Status LocalCluster::Resume(int i) {
  if (!Running(i)) return NotRunning(At(i).name);
  kill(At(i).pid, SIGCONT);
  At(i).paused = false;
  return absl::OkStatus();
}

absl::Status LocalCluster::Restart(int i, const std::vector<std::string>& more_args) {
  if (Running(i)) {
    return absl::FailedPreconditionError(fmt::format("member {} is running", At(i).name));
  }
  Member& member = At(i);
  std::vector<std::string> args = CommandLine(member);
  args.insert(args.end(), more_args.begin(), more_args.end());
  const absl::StatusOr<pid_t> pid = Spawn(options_.binary, std::move(args), member.log_file);
  if (!pid.ok()) return pid.status();
  member.pid = *pid;
  return absl::OkStatus();
}

std::optional<int> LocalCluster::AgreedLeader() {
  std::optional<int> leader;
  uint64_t leader_id = 0;
  for (int i = 0; i < size(); ++i) {
    if (At(i).pid == 0 || At(i).paused) continue;
    const absl::StatusOr<EndpointStatus> status = GetEndpointStatus(endpoint(i), kStatusTimeout);
    if (!status.ok() || status->leader == 0) return std::nullopt;
    if (leader_id != 0 && status->leader != leader_id) return std::nullopt;
    leader_id = status->leader;
    if (status->member_id == leader_id) leader = i;
  }
  // Nothing while they still name one that is down or paused: they have not noticed yet.
  return leader;
}

absl::Status LocalCluster::WaitForLeader(absl::Duration timeout) {
  const int64_t deadline_ns = MonotonicNs() + absl::ToInt64Nanoseconds(timeout);
  while (!AgreedLeader().has_value()) {
    if (options_.cancelled != nullptr && *options_.cancelled) {
      return absl::CancelledError("interrupted");
    }
    for (int i = 0; i < size(); ++i) {
      if (At(i).pid != 0 && !Running(i)) {
        return absl::UnavailableError(fmt::format("member {} ({}) has ended; its log ends:\n{}",
                                                  At(i).name, options_.binary, LogTail(i)));
      }
    }
    if (MonotonicNs() >= deadline_ns) {
      return absl::UnavailableError(
          fmt::format("the members of {} agreed on no leader within {}; the log of {} ends:\n{}",
                      options_.binary, absl::FormatDuration(timeout), At(0).name, LogTail(0)));
    }
    absl::SleepFor(kLeaderPoll);
  }
  return absl::OkStatus();
}

absl::StatusOr<int> LocalCluster::Leader() {
  const std::optional<int> leader = AgreedLeader();
  if (leader.has_value()) return *leader;
  return absl::NotFoundError("the running members do not name one of them as leader");
}

uint64_t LocalCluster::DiskBytes() const {
  uint64_t blocks = 0;
  for (const Member& member : members_) {
    std::error_code error;
    for (fs::recursive_directory_iterator it(member.data_dir, error), end; it != end;
         it.increment(error)) {
      struct stat info = {};
      if (stat(it->path().c_str(), &info) == 0) blocks += uint64_t(info.st_blocks);
    }
  }
  return blocks * 512;  // st_blocks counts such units, see stat(2)
}

std::string LocalCluster::LogTail(int i) const {
  std::ifstream in(log_file(i), std::ios::binary);
  in.seekg(0, std::ios::end);
  const std::streamoff length = in.tellg();
  in.seekg(std::max<std::streamoff>(0, length - std::streamoff(kLogTailBytes)));
  std::string tail(std::istreambuf_iterator<char>(in), {});
  return tail;
}

}  // namespace holdfast::bench
