#include "watch_test_world.h"

#include <utility>

namespace holdfast::server::testing {
namespace {

void Fill(const storage::KeyValueView& kv, mvccpb::KeyValue* out) {
  out->set_key(std::string(kv.key));
  out->set_value(std::string(kv.value));
  out->set_create_revision(kv.create_revision);
  out->set_mod_revision(kv.mod_revision);
  out->set_version(kv.version);
  out->set_lease(kv.lease);
}

std::string All(const WatchMessage& message) {
  std::string bytes = message.head;
  for (const SharedBytes& event : message.events) bytes += *event;
  return bytes;
}

}  // namespace

command::v1::Command PutCommand(const std::string& key, const std::string& value) {
  command::v1::Command command;
  command.mutable_put()->set_key(key);
  command.mutable_put()->set_value(value);
  return command;
}

void Recorder::OnEvent(const storage::EventView& event) {
  mvccpb::Event& proto = events.emplace_back();
  if (event.is_delete) proto.set_type(mvccpb::Event::DELETE);
  Fill(event.kv, proto.mutable_kv());
  if (event.previous.has_value()) Fill(*event.previous, proto.mutable_prev_kv());
}

TestStream::TestStream(WatchWorld& world, bool needs_leader) : sink_(std::make_shared<Sink>()) {
  auto stream = world.hub().Open(sink_, needs_leader);
  CHECK_OK(stream.status());
  stream_ = *std::move(stream);
}

void TestStream::Send(const std::string& request) {
  stream_->Handle(Parse<etcdserverpb::WatchRequest>(request));
}

std::optional<etcdserverpb::WatchResponse> TestStream::Take() {
  WatchMessage message;
  if (!stream_->Next(&message)) return std::nullopt;
  etcdserverpb::WatchResponse response;
  CHECK(response.ParseFromString(All(message)));
  return response;
}

std::vector<etcdserverpb::WatchResponse> TestStream::TakeAll() {
  std::vector<etcdserverpb::WatchResponse> all;
  while (auto response = Take()) all.push_back(*std::move(response));
  return all;
}

WatchWorld::WatchWorld(WatchHub::Options options)
    : hub_(WatchHub::Create(std::move(options))),
      machine_(OpenMachine(dir_ / "member")),
      node_(std::make_unique<ClaimingNode>(machine_.get(), &clock_)) {
  machine_->AddListener(&recorder_);
  machine_->AddListener(hub_.get());
  hub_->Start({.cluster_id = kCluster,
               .self = NodeId(kMember),
               .node = node_.get(),
               .machine = machine_.get(),
               .pipeline = nullptr,
               .clock = &clock_},
              /*threads=*/false);
}

std::unique_ptr<KvStateMachine> WatchWorld::OpenMachine(const std::string& dir) {
  KvStateMachine::Options options;
  options.dir = dir;
  options.cluster_id = kCluster;
  auto machine = KvStateMachine::Open(options);
  CHECK_OK(machine.status());
  return *std::move(machine);
}

std::vector<raft::EntryRef> WatchWorld::Entries(const std::vector<command::v1::Command>& commands) {
  std::vector<raft::EntryRef> entries;
  for (const command::v1::Command& command : commands) {
    auto entry = std::make_shared<storage::Entry>();
    entry->term = Term(3);
    entry->index = last_ + 1;
    entry->payload = command.SerializeAsString();
    last_ = entry->index;
    entries.push_back(entry);
    entries_.push_back(std::move(entry));
  }
  return entries;
}

int64_t WatchWorld::Apply(const std::vector<command::v1::Command>& commands) {
  const std::vector<raft::EntryRef> entries = Entries(commands);
  if (leader_ != nullptr) CHECK_OK(leader_->Apply(entries));
  CHECK_OK(machine_->Apply(entries));
  return revision();
}

void WatchWorld::ApplyAtLeader(const std::vector<command::v1::Command>& commands) {
  if (leader_ == nullptr) {
    leader_ = OpenMachine(dir_ / "leader");
    leader_->AddListener(&leader_recorder_);
    if (!entries_.empty()) CHECK_OK(leader_->Apply(entries_));
    leader_recorder_.revision_at = recorder_.revision_at;
  }
  CHECK_OK(leader_->Apply(Entries(commands)));
}

void WatchWorld::InstallSnapshot() {
  const auto checkpoint = leader_->TakeCheckpoint();
  CHECK_OK(checkpoint.status());
  const std::string dir = dir_ / ("snapshot-" + std::to_string(++snapshots_));
  std::filesystem::rename(checkpoint->dir, dir);
  CHECK_OK(machine_->InstallCheckpoint(dir, {checkpoint->index, checkpoint->term, "m"}));
}

int64_t WatchWorld::Put(const std::string& key, const std::string& value) {
  return Apply({PutCommand(key, value)});
}

int64_t WatchWorld::Delete(const std::string& key, const std::string& range_end) {
  command::v1::Command command;
  command.mutable_delete_range()->set_key(key);
  command.mutable_delete_range()->set_range_end(range_end);
  return Apply({command});
}

int64_t WatchWorld::Compact(int64_t to) {
  command::v1::Command command;
  command.mutable_compaction()->set_revision(to);
  return Apply({command});
}

int64_t WatchWorld::Txn(const std::vector<std::string>& keys, const std::string& value) {
  command::v1::Command command;
  for (const std::string& key : keys) {
    auto* put = command.mutable_txn()->add_success()->mutable_request_put();
    put->set_key(key);
    put->set_value(value);
  }
  return Apply({command});
}

std::unique_ptr<TestStream> WatchWorld::Open(bool needs_leader) {
  return std::make_unique<TestStream>(*this, needs_leader);
}

void WatchWorld::Settle() {
  // Far more turns than there can be work: who needs them all turns in vain.
  constexpr int kTurnsMax = 200'000;
  int turns = 0;
  while (hub_->StepDispatch() || hub_->StepCatchUp()) CHECK(++turns < kTurnsMax);
  hub_->CheckInvariants();
}

std::vector<mvccpb::Event> WatchWorld::Expected(const etcdserverpb::WatchCreateRequest& create,
                                                int64_t start_revision) const {
  const WatchRange range = WatchRange::Of(create.key(), create.range_end());
  bool puts = true, deletes = true;
  for (const int filter : create.filters()) {
    if (filter == etcdserverpb::WatchCreateRequest::NOPUT) puts = false;
    if (filter == etcdserverpb::WatchCreateRequest::NODELETE) deletes = false;
  }
  std::vector<mvccpb::Event> expected;
  for (const mvccpb::Event& event : recorder().events) {
    if (event.kv().mod_revision() < start_revision) continue;
    if (!range.Contains(event.kv().key())) continue;
    if (!(event.type() == mvccpb::Event::PUT ? puts : deletes)) continue;
    mvccpb::Event& copy = expected.emplace_back(event);
    if (!create.prev_kv()) copy.clear_prev_kv();
  }
  return expected;
}

}  // namespace holdfast::server::testing
