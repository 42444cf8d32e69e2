#include "client/testing/fake_world.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include <fmt/format.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include "base/check.h"
#include "client/testing/fake_watch.h"

namespace holdfast::testing::internal {
namespace {

constexpr uint64_t kTerm = 2;

// A free port of the loopback that stays ours: nothing listens on it until the server does, so a
// connection is refused, and no other process is given it meanwhile.
int ReservePort(std::string* endpoint) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(fd >= 0);
  const int on = 1;
  CHECK(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) == 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  CHECK(bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0);
  CHECK(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  *endpoint = fmt::format("127.0.0.1:{}", ntohs(address.sin_port));
  return fd;
}

}  // namespace

World::World(const FakeStore::Options& o)
    : options(o),
      clock(o.clock != nullptr ? o.clock : std::make_shared<base::RealClock>()),
      incarnation(o.incarnation) {
  CHECK(options.members > 0);
  for (int i = 0; i < options.members; ++i) {
    auto member = std::make_unique<Member>(this);
    member->index = i;
    member->reserved_port = ReservePort(&member->endpoint);
    member->services = MakeServices(member.get(), options.plain_etcd);
    endpoints.push_back(member->endpoint);
    members.push_back(std::move(member));
  }
  for (const auto& member : members) Start(member.get());
}

World::~World() {
  for (const auto& member : members) {
    Stop(member.get());
    close(member->reserved_port);
  }
}

void World::Start(Member* member) {
  std::lock_guard lock(serving_);
  if (member->server != nullptr) return;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(member->endpoint, grpc::InsecureServerCredentials(), &port);
  builder.SetMaxReceiveMessageSize(-1);
  for (const auto& service : member->services) builder.RegisterService(service.get());
  member->server = builder.BuildAndStart();
  CHECK_MSG(member->server != nullptr && port != 0, "cannot listen on " + member->endpoint);
}

void World::Stop(Member* member) {
  std::lock_guard lock(serving_);
  if (member->server == nullptr) return;
  // Every call is cancelled, what is held included.
  member->server->Shutdown(std::chrono::system_clock::now());
  member->server->Wait();
  member->server = nullptr;
}

std::vector<Member*> World::MembersOf(int member) const {
  std::vector<Member*> chosen;
  if (member != FakeStore::kAll) {
    CHECK(member >= 0 && static_cast<size_t>(member) < members.size());
    return {members[static_cast<size_t>(member)].get()};
  }
  for (const auto& one : members) chosen.push_back(one.get());
  return chosen;
}

void World::Happened() {
  ++events_;
  happened_.notify_all();
}

bool World::WaitUntil(const std::function<bool()>& condition, absl::Duration at_most) {
  const auto deadline = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(at_most);
  std::unique_lock lock(mutex);
  while (true) {
    const uint64_t seen = events_;
    lock.unlock();
    if (condition()) return true;
    lock.lock();
    if (!happened_.wait_until(lock, deadline, [&] { return events_ != seen; })) return false;
  }
}

FakeData::View World::ViewOf(const Member& member) const {
  return member.cut.has_value() ? member.cut->view : data.newest();
}

uint64_t World::IncarnationOf(const Member& member) const {
  return member.cut.has_value() ? member.cut->incarnation : incarnation;
}

std::optional<absl::Duration> World::AgeOf(const Member& member) const {
  if (member.base_age == absl::InfiniteDuration()) return std::nullopt;
  if (!member.cut.has_value()) return member.base_age;
  return member.base_age + absl::Nanoseconds(clock->Sample().boot_ns - member.cut->since.boot_ns);
}

void World::Fill(const Member& member, int64_t revision,
                 etcdserverpb::ResponseHeader* header) const {
  header->set_cluster_id(options.cluster_id);
  header->set_member_id(static_cast<uint64_t>(member.index) + 1);
  header->set_revision(revision);
  header->set_raft_term(kTerm);
}

void World::AddAge(const Member& member, Trailing* trailing) const {
  if (options.plain_etcd) return;
  const std::optional<absl::Duration> age = AgeOf(member);
  if (age.has_value()) {
    trailing->emplace_back(
        "holdfast-age-ms",
        fmt::format("{}", absl::ToInt64Milliseconds(absl::Ceil(*age, absl::Milliseconds(1)))));
  }
  trailing->emplace_back("holdfast-proof", age.has_value() ? "proven" : "unknown");
  const bool leads = member.index == 0 && !member.cut.has_value();
  trailing->emplace_back("holdfast-source", leads ? "leader" : "follower");
  trailing->emplace_back("holdfast-incarnation", fmt::format("{:x}", IncarnationOf(member)));
}

Fault World::Arrive(Member* member, const char* method,
                    const grpc::CallbackServerContext& context) {
  ++member->calls[method];
  member->peers.insert(context.peer());
  Happened();
  return faults.Next(method, member->endpoint);
}

void World::Add(HeldCall* call, Member* member, Hold hold) {
  held_.push_back({call, member, hold});
  Happened();
}

bool World::Remove(HeldCall* call) {
  Happened();
  return std::erase_if(held_, [call](const Held& held) { return held.call == call; }) > 0;
}

void World::Release(Hold hold, const Member* member) {
  std::vector<HeldCall*> released;
  {
    std::lock_guard lock(mutex);
    std::erase_if(held_, [&](const Held& held) {
      if (held.hold != hold || (member != nullptr && held.member != member)) return false;
      released.push_back(held.call);
      return true;
    });
  }
  // Whoever took a call out of the list ends it: none of them goes away before.
  for (HeldCall* call : released) call->GoOn();
}

int World::HeldByFault() const {
  std::lock_guard lock(mutex);
  return static_cast<int>(std::count_if(
      held_.begin(), held_.end(), [](const Held& held) { return held.hold == Hold::kRelease; }));
}

void World::CutOff(Member* member) {
  if (member->cut.has_value()) return;
  member->cut = {.view = data.newest(), .incarnation = incarnation, .since = clock->Sample()};
  for (WatchCall* watch : member->watches) watch->LoseLeader();
}

void World::Feed() {
  for (const auto& member : members) {
    for (WatchCall* watch : member->watches) watch->Feed();
  }
  Happened();
}

void World::EndWatches(Member* member, const grpc::Status& status) {
  for (WatchCall* watch : member->watches) watch->End(status);
}

}  // namespace holdfast::testing::internal
