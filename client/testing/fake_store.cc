#include "holdfast/testing/fake_store.h"

#include <algorithm>
#include <mutex>

#include "base/check.h"
#include "client/testing/fake_watch.h"
#include "client/testing/fake_world.h"
#include "holdfast/types.h"

namespace holdfast::testing {
namespace {

using holdfast::v1::LoadHead;
using internal::Hold;
using internal::Member;
using internal::World;

Entry ToEntry(const mvccpb::KeyValue& kv) {
  return {.key = kv.key(),
          .value = kv.value(),
          .create_revision = static_cast<uint64_t>(kv.create_revision()),
          .mod_revision = static_cast<uint64_t>(kv.mod_revision()),
          .version = static_cast<uint64_t>(kv.version()),
          .lease = kv.lease()};
}

PrefixReport ToReport(const holdfast::v1::PrefixReport& from) {
  return {.prefix = from.prefix(),
          .link = from.link(),
          .source = from.source(),
          .revision = from.revision(),
          .refused_revision = from.refused_revision(),
          .refused_why = from.refused_why(),
          .records = from.records(),
          .bytes = from.bytes()};
}

ClientReport ToReport(const holdfast::v1::ReportRequest& from) {
  ClientReport report = {.client_id = from.client_id(),
                         .name = from.name(),
                         .version = from.version(),
                         .leaving = from.leaving()};
  for (const auto& prefix : from.prefixes()) report.prefixes.push_back(ToReport(prefix));
  return report;
}

// The cluster is another one now: whoever was connected has to begin anew. REQUIRES: mutex.
void StartAnew(World& world) {
  ++world.incarnation;
  for (const auto& member : world.members) {
    member->cut.reset();
    world.EndWatches(member.get(), {grpc::StatusCode::UNAVAILABLE, "etcdserver: server stopped"});
  }
  world.Happened();
}

}  // namespace

FakeStore::FakeStore(Options options)
    : world_(std::make_unique<World>(options)), faults_(new FaultInjector(&world_->faults)) {}

FakeStore::~FakeStore() = default;

const std::vector<std::string>& FakeStore::endpoints() const { return world_->endpoints; }
FaultInjector& FakeStore::faults() { return *faults_; }

// --- the data ---

uint64_t FakeStore::Put(std::string_view key, std::string_view value) {
  return Put({{std::string(key), std::string(value)}});
}

uint64_t FakeStore::Put(const std::vector<std::pair<std::string, std::string>>& records) {
  std::lock_guard lock(world_->mutex);
  world_->data.PutAll(records);
  world_->Feed();
  return static_cast<uint64_t>(world_->data.newest().revision);
}

uint64_t FakeStore::Delete(std::string_view key) {
  etcdserverpb::DeleteRangeRequest request;
  request.set_key(std::string(key));
  etcdserverpb::DeleteRangeResponse response;
  std::lock_guard lock(world_->mutex);
  const grpc::Status status = world_->data.DeleteRange(request, &response);
  CHECK_MSG(status.ok(), status.error_message());
  world_->Feed();
  return static_cast<uint64_t>(world_->data.newest().revision);
}

uint64_t FakeStore::DeletePrefix(std::string_view prefix) {
  etcdserverpb::DeleteRangeRequest request;
  request.set_key(prefix.empty() ? std::string(1, '\0') : std::string(prefix));
  request.set_range_end(PrefixEnd(prefix));
  etcdserverpb::DeleteRangeResponse response;
  std::lock_guard lock(world_->mutex);
  const grpc::Status status = world_->data.DeleteRange(request, &response);
  CHECK_MSG(status.ok(), status.error_message());
  world_->Feed();
  return static_cast<uint64_t>(world_->data.newest().revision);
}

void FakeStore::Compact(uint64_t revision) {
  std::lock_guard lock(world_->mutex);
  const int64_t at =
      revision == 0 ? world_->data.newest().revision : static_cast<int64_t>(revision);
  const grpc::Status status = world_->data.Compact(at);
  CHECK_MSG(status.ok(), status.error_message());
  world_->Feed();
}

std::optional<Entry> FakeStore::Get(std::string_view key) const {
  for (Entry& entry : Scan(key)) {
    if (entry.key == key) return std::move(entry);
  }
  return std::nullopt;
}

std::vector<Entry> FakeStore::Scan(std::string_view prefix) const {
  std::lock_guard lock(world_->mutex);
  std::vector<Entry> entries;
  for (const auto& kv : world_->data.Records(prefix, world_->data.newest().revision)) {
    entries.push_back(ToEntry(kv));
  }
  return entries;
}

uint64_t FakeStore::revision() const {
  std::lock_guard lock(world_->mutex);
  return static_cast<uint64_t>(world_->data.newest().revision);
}

uint64_t FakeStore::incarnation() const {
  std::lock_guard lock(world_->mutex);
  return world_->incarnation;
}

// --- outages ---

void FakeStore::LoseQuorum() { CutOff(kAll); }
void FakeStore::RestoreQuorum() { Rejoin(kAll); }

void FakeStore::CutOff(int member) {
  std::lock_guard lock(world_->mutex);
  for (Member* one : world_->MembersOf(member)) world_->CutOff(one);
  world_->Happened();
}

void FakeStore::Rejoin(int member) {
  std::lock_guard lock(world_->mutex);
  for (Member* one : world_->MembersOf(member)) one->cut.reset();
  world_->Feed();
}

void FakeStore::StopServing(int member) {
  for (Member* one : world_->MembersOf(member)) world_->Stop(one);
}

void FakeStore::ResumeServing(int member) {
  for (Member* one : world_->MembersOf(member)) world_->Start(one);
}

void FakeStore::Hang(int member) {
  std::lock_guard lock(world_->mutex);
  for (Member* one : world_->MembersOf(member)) one->hanging = true;
}

void FakeStore::Unhang(int member) {
  for (Member* one : world_->MembersOf(member)) {
    {
      std::lock_guard lock(world_->mutex);
      one->hanging = false;
    }
    world_->Release(Hold::kUnhang, one);
  }
  std::lock_guard lock(world_->mutex);
  world_->Feed();
}

void FakeStore::PauseWatch(int member) {
  std::lock_guard lock(world_->mutex);
  for (Member* one : world_->MembersOf(member)) one->watch_paused = true;
}

void FakeStore::ResumeWatch(int member) {
  std::lock_guard lock(world_->mutex);
  for (Member* one : world_->MembersOf(member)) one->watch_paused = false;
  world_->Feed();
}

void FakeStore::BreakWatches(int member) {
  std::lock_guard lock(world_->mutex);
  for (Member* one : world_->MembersOf(member)) {
    world_->EndWatches(one, {grpc::StatusCode::UNAVAILABLE, "etcdserver: server stopped"});
  }
}

void FakeStore::SetAge(absl::Duration age, int member) {
  CHECK(age >= absl::ZeroDuration());
  std::lock_guard lock(world_->mutex);
  for (Member* one : world_->MembersOf(member)) one->base_age = age;
}

// --- operators ---

void FakeStore::NewIncarnation() {
  std::lock_guard lock(world_->mutex);
  StartAnew(*world_);
}

void FakeStore::RestoreTo(uint64_t revision) {
  std::lock_guard lock(world_->mutex);
  world_->data.RestoreTo(static_cast<int64_t>(revision));
  StartAnew(*world_);
}

void FakeStore::ForgetSessions() {
  std::lock_guard lock(world_->mutex);
  world_->sessions.clear();
}

// --- what it saw ---

int FakeStore::calls(std::string_view method, int member) const {
  std::lock_guard lock(world_->mutex);
  int sum = 0;
  for (const Member* one : world_->MembersOf(member)) {
    for (const auto& [name, count] : one->calls) {
      if (method.empty() || name == method) sum += count;
    }
  }
  return sum;
}

int FakeStore::connections(int member) const {
  std::lock_guard lock(world_->mutex);
  size_t sum = 0;
  for (const Member* one : world_->MembersOf(member)) sum += one->peers.size();
  return static_cast<int>(sum);
}

int FakeStore::watches(int member) const {
  std::lock_guard lock(world_->mutex);
  size_t sum = 0;
  for (const Member* one : world_->MembersOf(member)) {
    for (const internal::WatchCall* watch : one->watches) sum += watch->size();
  }
  return static_cast<int>(sum);
}

int FakeStore::marks() const {
  std::lock_guard lock(world_->mutex);
  return world_->marks;
}

int FakeStore::loads_resumed() const {
  std::lock_guard lock(world_->mutex);
  return world_->loads[LoadHead::RESUME];
}

int FakeStore::loads_unchanged() const {
  std::lock_guard lock(world_->mutex);
  return world_->loads[LoadHead::UNCHANGED];
}

int FakeStore::loads_whole() const {
  std::lock_guard lock(world_->mutex);
  return world_->loads[LoadHead::SNAPSHOT];
}

int FakeStore::deduplicated() const {
  std::lock_guard lock(world_->mutex);
  return world_->deduplicated;
}

std::vector<ClientReport> FakeStore::reports() const {
  std::lock_guard lock(world_->mutex);
  std::vector<ClientReport> reports;
  for (const auto& report : world_->reports) reports.push_back(ToReport(report));
  return reports;
}

std::optional<PrefixReport> FakeStore::report(std::string_view prefix) const {
  std::lock_guard lock(world_->mutex);
  for (auto id = world_->report_order.rbegin(); id != world_->report_order.rend(); ++id) {
    for (const auto& report : world_->reports) {
      if (report.client_id() != *id) continue;
      for (const auto& one : report.prefixes()) {
        if (one.prefix() == prefix) return ToReport(one);
      }
    }
  }
  return std::nullopt;
}

bool FakeStore::WaitUntil(const std::function<bool()>& condition, absl::Duration at_most) const {
  return world_->WaitUntil(condition, at_most);
}

bool FakeStore::WaitForCalls(std::string_view method, int count) const {
  return WaitUntil([&] { return calls(method) >= count; });
}

bool FakeStore::WaitForWatches(int count) const {
  return WaitUntil([&] { return watches() == count; });
}

}  // namespace holdfast::testing
