#include "bench/local_cluster.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <grpcpp/grpcpp.h>
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
#include <chrono>
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
#include "etcd/rpc.grpc.pb.h"

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

void CreateDataDir(const std::string& path) {
  std::error_code ignored;
  fs::create_directory(path, ignored);
  // etcd warns about directories that others may read.
  fs::permissions(path, fs::perms::owner_all, ignored);
}

absl::Status AddVoter(const std::string& endpoint, const std::string& peer_url,
                      absl::Duration timeout) {
  auto stub = etcdserverpb::Cluster::NewStub(
      grpc::CreateChannel(endpoint, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoNanoseconds(timeout));
  etcdserverpb::MemberAddRequest request;
  request.add_peerurls(peer_url);
  etcdserverpb::MemberAddResponse reply;
  const grpc::Status status = stub->MemberAdd(&context, request, &reply);
  if (status.ok()) return absl::OkStatus();
  return absl::UnavailableError(
      fmt::format("MemberAdd of {} at {}: {}", peer_url, endpoint, status.error_message()));
}

// Without those that `overriding` gives anew.
void RemoveFlags(const std::vector<std::string>& overriding, std::vector<std::string>& args) {
  for (const std::string& other : overriding) {
    const std::string flag = other.substr(0, other.find('=')) + "=";
    std::erase_if(args, [&](const std::string& arg) { return arg.starts_with(flag); });
  }
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
  absl::Status status = cluster->CreateDirectory();
  for (int i = 0; status.ok() && i < options.members; ++i) {
    status = cluster->NewMember().status();
    if (status.ok()) cluster->At(i).joins = false;
  }
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

absl::Status LocalCluster::CreateDirectory() {
  std::error_code error;
  const fs::path root =
      options_.root.empty() ? fs::temp_directory_path(error) : fs::path(options_.root);
  fs::create_directories(root, error);
  std::string pattern = (root / "holdfast-cluster-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) {
    return absl::InvalidArgumentError(ErrnoText(fmt::format("data directory {}", pattern)));
  }
  dir_ = pattern;
  if (!options_.proxied_peers) return absl::OkStatus();
  absl::StatusOr<std::unique_ptr<TcpProxy>> links = TcpProxy::Start();
  if (links.ok()) links_ = *std::move(links);
  return links.status();
}

absl::StatusOr<int> LocalCluster::NewMember() {
  if (size() == kMaxLocalMembers) {
    return absl::FailedPreconditionError(fmt::format(
        "a local cluster has at most {} members, past ones included", kMaxLocalMembers));
  }
  const absl::StatusOr<int> client_port = ReservePort();
  const absl::StatusOr<int> peer_port = ReservePort();
  const absl::StatusOr<int> inner_port = links_ == nullptr ? peer_port : ReservePort();
  if (!client_port.ok() || !peer_port.ok() || !inner_port.ok()) {
    return absl::UnavailableError("no free loopback port found");
  }
  const int i = size();
  Member member;
  member.name = fmt::format("m{}", i);
  member.client_port = *client_port;
  member.peer_port = *peer_port;
  member.listen_peer_port = *inner_port;
  member.endpoint = fmt::format("127.0.0.1:{}", *client_port);
  member.data_dir = fmt::format("{}/{}", dir_, member.name);
  member.log_file = fmt::format("{}/{}.log", dir_, member.name);
  member.joins = true;
  if (links_ != nullptr) {
    const absl::Status status = links_->Listen(i, member.peer_port, member.listen_peer_port);
    if (!status.ok()) return status;
  }
  CreateDataDir(member.data_dir);
  members_.push_back(std::move(member));
  return i;
}

absl::StatusOr<int> LocalCluster::AddMember(absl::Duration timeout) {
  const absl::StatusOr<int> leader = Leader();
  if (!leader.ok()) return leader.status();
  const absl::StatusOr<int> i = NewMember();
  if (!i.ok()) return i;
  absl::Status status = AddVoter(endpoint(*leader), peer_url(*i), timeout);
  if (status.ok()) status = Restart(*i);
  if (status.ok()) return i;
  At(*i).retired = true;
  return status;
}

void LocalCluster::Retire(int i) {
  if (Running(i)) CHECK(Kill(i).ok());
  At(i).retired = true;
}

absl::Status LocalCluster::Wipe(int i) {
  if (Running(i)) {
    return absl::FailedPreconditionError(fmt::format("member {} is running", At(i).name));
  }
  std::error_code error;
  fs::remove_all(At(i).data_dir, error);
  if (error) {
    return absl::UnavailableError(fmt::format("{}: {}", At(i).data_dir, error.message()));
  }
  CreateDataDir(At(i).data_dir);
  At(i).joins = true;
  return absl::OkStatus();
}

TcpProxy& LocalCluster::links() {
  CHECK(links_ != nullptr);
  return *links_;
}

std::string LocalCluster::peer_url(int i) const {
  return fmt::format("http://127.0.0.1:{}", peer_port(i));
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
    // One that was created only is no member yet.
    const bool is_member = !peer.retired && (peer.started || !peer.joins);
    if (!is_member && &peer != &member) continue;
    peers.push_back(fmt::format("{}=http://127.0.0.1:{}", peer.name, peer.peer_port));
  }
  const std::string client_url = fmt::format("http://127.0.0.1:{}", member.client_port);
  const std::string peer_url = fmt::format("http://127.0.0.1:{}", member.peer_port);
  const std::string inner_url = fmt::format("http://127.0.0.1:{}", member.listen_peer_port);
  std::vector<std::string> args = {
      "--name=" + member.name,
      "--data-dir=" + member.data_dir,
      "--listen-client-urls=" + client_url,
      "--advertise-client-urls=" + client_url,
      "--listen-peer-urls=" + inner_url,
      "--initial-advertise-peer-urls=" + peer_url,
      "--initial-cluster=" + absl::StrJoin(peers, ","),
      fmt::format("--initial-cluster-state={}", member.joins ? "existing" : "new"),
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
  for (const Member& member : members_) {
    if (!member.retired) endpoints.push_back(member.endpoint);
  }
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
  RemoveFlags(more_args, args);
  args.insert(args.end(), more_args.begin(), more_args.end());
  absl::StatusOr<pid_t> pid = 0;
  const auto spawn = [&] {
    pid = Spawn(options_.binary, std::move(args), member.log_file);
    return pid.value_or(0);
  };
  if (links_ == nullptr) {
    spawn();
  } else {
    links_->SetProcess(i, spawn);
  }
  member.pid = pid.value_or(0);
  member.started = true;
  return pid.status();
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
