#include "client/ctl/migrate.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "absl/time/clock.h"
#include "base/strings.h"
#include "client/ctl/ordered_writer.h"
#include "client/ctl/remote.h"

namespace holdfast::ctl {
namespace {

using etcdserverpb::RequestOp;
using nlohmann::json;

// Keys of one page; fewer if the page before was large.
constexpr int64_t kPageKeysMax = 1000;
constexpr int64_t kPageKeysMin = 10;
constexpr size_t kPageBytes = size_t{1} << 20;
// Of one transaction: below etcd's and our request limit of 1.5 MiB with room for its own.
constexpr size_t kTxnBytesMax = size_t{1} << 20;
constexpr absl::Duration kReportEvery = absl::Seconds(1);
constexpr absl::Duration kKeepAliveEvery = absl::Milliseconds(500);
constexpr absl::Duration kSourceGiveUp = absl::Seconds(60);
// Revisions that were received and not yet written. The watch waits beyond it, and the source keeps
// what it has not sent.
constexpr size_t kAheadBytesMax = size_t{32} << 20;

volatile std::sig_atomic_t g_interrupted = 0;
void OnSignal(int) { g_interrupted = 1; }

ExitCode Fail(const absl::Status& status, Io io) {
  io.err << "holdfastctl: " << absl::StatusCodeToString(status.code()) << ": "
         << base::Message(status) << "\n";
  return ExitCodeOf(status);
}

std::string MarkerKey() { return std::string(kMarkerKey, kMarkerKeyBytes); }

// What the marker in the target says.
struct Marker {
  uint64_t source_cluster = 0;
  std::string prefix;
  int64_t revision = 0;  // copied, or to be copied, at this one; then applied up to it
  bool copying = false;
  std::string next_key;  // while copying: what is below is there
  int part = 0;          // of `revision`, if that had to be split: so many are there
  int mends = 0;         // steps that brought back what expired while nobody kept it alive

  std::string Encode() const {
    json out = {{"format", 1},
                {"source", fmt::format("{:x}", source_cluster)},
                {"prefix", absl::Base64Escape(prefix)},
                {"revision", revision}};
    if (copying) out["copying_from"] = absl::Base64Escape(next_key);
    if (part != 0) out["part"] = part;
    if (mends != 0) out["mends"] = mends;
    return out.dump();
  }
  static std::optional<Marker> Decode(const std::string& text) {
    const json in = json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!in.is_object()) return std::nullopt;
    Marker marker;
    try {
      if (in.at("format").get<int>() != 1) return std::nullopt;
      marker.source_cluster = std::stoull(in.at("source").get<std::string>(), nullptr, 16);
      marker.revision = in.at("revision").get<int64_t>();
      marker.copying = in.contains("copying_from");
      marker.part = in.value("part", 0);
      marker.mends = in.value("mends", 0);
      if (!absl::Base64Unescape(in.at("prefix").get<std::string>(), &marker.prefix)) {
        return std::nullopt;
      }
      if (marker.copying &&
          !absl::Base64Unescape(in.at("copying_from").get<std::string>(), &marker.next_key)) {
        return std::nullopt;
      }
    } catch (const std::exception&) {
      return std::nullopt;
    }
    return marker;
  }
};

// etcd's end of the range of all keys with a prefix.
std::string EndOf(std::string prefix) {
  while (!prefix.empty()) {
    if (static_cast<unsigned char>(prefix.back()) != 0xff) {
      ++prefix.back();
      return prefix;
    }
    prefix.pop_back();
  }
  return AllKeys();
}

size_t BytesOf(const mvccpb::KeyValue& kv) { return kv.key().size() + kv.value().size() + 32; }

// All keys of a range at one revision, one after the other, by pages.
class Scan {
 public:
  // `revision` 0: the newest, and of all pages the same.
  Scan(Remote* remote, std::string from, std::string end, int64_t revision)
      : remote_(*remote), from_(std::move(from)), end_(std::move(end)), revision_(revision) {}

  // False: no more. The marker is passed over.
  absl::StatusOr<bool> Next(mvccpb::KeyValue* kv) {
    while (true) {
      if (at_ == page_.kvs_size()) {
        if (last_page_) return false;
        if (absl::Status status = Fetch(); !status.ok()) return status;
        continue;
      }
      *kv = std::move(*page_.mutable_kvs(at_++));
      if (kv->key() != MarkerKey()) return true;
    }
  }
  int64_t revision() const { return revision_; }

 private:
  absl::Status Fetch() {
    etcdserverpb::RangeRequest request;
    request.set_key(from_);
    request.set_range_end(end_);
    request.set_revision(revision_);
    request.set_limit(limit_);
    at_ = 0;
    const absl::Time begin = absl::Now();
    absl::Status status = remote_.Range(request, &page_);
    while (absl::IsUnavailable(status) && absl::Now() - begin < kSourceGiveUp) {
      std::this_thread::sleep_for(absl::ToChronoMilliseconds(kKeepAliveEvery));
      status = remote_.Range(request, &page_);
    }
    if (!status.ok()) return status;
    if (revision_ == 0) revision_ = page_.header().revision();
    last_page_ = !page_.more() || page_.kvs().empty();
    size_t bytes = 0;
    for (const mvccpb::KeyValue& kv : page_.kvs()) bytes += BytesOf(kv);
    if (!page_.kvs().empty()) {
      from_ = page_.kvs(page_.kvs_size() - 1).key() + '\0';
      const int64_t fit = static_cast<int64_t>(kPageBytes / (bytes / page_.kvs_size() + 1));
      limit_ = std::clamp(fit, kPageKeysMin, kPageKeysMax);
    }
    return absl::OkStatus();
  }

  Remote& remote_;
  std::string from_;
  const std::string end_;
  int64_t revision_;
  int64_t limit_ = kPageKeysMin;
  etcdserverpb::RangeResponse page_;
  int at_ = 0;
  bool last_page_ = false;
};

// The leases of the target that come from the source: granted before a key needs them, kept alive
// as long as the source has them.
//
// Threads: Ensure from one, the rest on a thread of its own.
class LeaseCopier {
 public:
  LeaseCopier(Remote* source, Remote* target) : source_(*source), target_(*target) {}
  ~LeaseCopier() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_one();
    if (thread_.joinable()) thread_.join();
  }

  // Of a key that is about to be written; false: the source has no such lease any more. Then a
  // deletion of the key is on its way.
  absl::StatusOr<bool> Ensure(int64_t lease) {
    {
      std::lock_guard lock(mutex_);
      if (known_.contains(lease)) return true;
    }
    const auto told = source_.TimeToLive(lease);
    if (!told.ok()) return told.status();
    if (told->ttl() <= 0) return false;
    if (absl::Status status = target_.Grant(lease, told->grantedttl()); !status.ok()) return status;
    Adopt(lease, told->grantedttl());
    return true;
  }
  // One that the target has.
  void Adopt(int64_t lease, int64_t ttl_s) {
    std::lock_guard lock(mutex_);
    // It may be about to expire: its turn comes at once.
    known_[lease] = {ttl_s, absl::InfinitePast()};
    if (!thread_.joinable()) thread_ = std::thread([this] { Run(); });
  }
  size_t size() {
    std::lock_guard lock(mutex_);
    return known_.size();
  }

 private:
  struct Known {
    int64_t ttl_s = 0;
    absl::Time renewed;
  };

  void Run() {
    std::unique_lock lock(mutex_);
    do {
      std::vector<int64_t> due;
      const absl::Time now = absl::Now();
      for (const auto& [id, lease] : known_) {
        if (now - lease.renewed > absl::Seconds(lease.ttl_s) / 3) due.push_back(id);
      }
      lock.unlock();
      std::vector<int64_t> alive, gone;
      // One question for all of them; a member that lags may not list the newest.
      const absl::StatusOr<std::vector<int64_t>> listed =
          due.empty() ? std::vector<int64_t>() : source_.Leases();
      const std::set<int64_t> there =
          listed.ok() ? std::set<int64_t>(listed->begin(), listed->end()) : std::set<int64_t>();
      for (const int64_t id : due) {
        if (!listed.ok() || there.contains(id)) {
          alive.push_back(id);
          continue;
        }
        const auto told = source_.TimeToLive(id);
        // Not told: rather too long than too short.
        (told.ok() && told->ttl() <= 0 ? gone : alive).push_back(id);
      }
      const bool renewed = target_.KeepAlive(alive).ok();
      lock.lock();
      for (const int64_t id : gone) known_.erase(id);
      for (const int64_t id : alive) {
        if (renewed) known_[id].renewed = now;
      }
    } while (!changed_.wait_for(lock, absl::ToChronoMilliseconds(kKeepAliveEvery),
                                [this] { return stopping_; }));
  }

  Remote& source_;
  Remote& target_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::map<int64_t, Known> known_;
  std::thread thread_;
};

// Revisions on their way from the watch to the writer.
class Inbox {
 public:
  // Blocks while it is full; false: nobody wants more.
  bool Put(WatchedRevision revision) {
    size_t bytes = 0;
    for (const mvccpb::Event& event : revision.events) bytes += BytesOf(event.kv());
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return closed_ || bytes_ < kAheadBytesMax; });
    if (closed_) return false;
    bytes_ += bytes;
    revisions_.emplace_back(std::move(revision), bytes);
    changed_.notify_all();
    return true;
  }
  // nullopt: nothing came in `wait`.
  std::optional<WatchedRevision> Take(absl::Duration wait) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, absl::ToChronoMilliseconds(wait),
                      [this] { return !revisions_.empty() || !end_.ok(); });
    if (revisions_.empty()) return std::nullopt;
    std::optional<WatchedRevision> revision = std::move(revisions_.front().first);
    bytes_ -= revisions_.front().second;
    revisions_.pop_front();
    changed_.notify_all();
    return revision;
  }
  void Close() {
    std::lock_guard lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }
  void SetEnd(absl::Status status) {
    std::lock_guard lock(mutex_);
    end_ = std::move(status);
    changed_.notify_all();
  }
  // Of the watch, once it has ended; what it brought before is taken first.
  absl::Status end() {
    std::lock_guard lock(mutex_);
    return revisions_.empty() ? end_ : absl::OkStatus();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::pair<WatchedRevision, size_t>> revisions_;
  size_t bytes_ = 0;
  bool closed_ = false;
  absl::Status end_;
};

class Migration {
 public:
  Migration(const MigrateArgs& args, Remote* source, Remote* target, Io io)
      : args_(args), source_(*source), target_(*target), io_(io), leases_(source, target) {}

  absl::Status Run();

 private:
  absl::Status Begin();
  // Of an earlier run: keeps its leases alive from here on, and brings back what has expired in
  // the target since, and not in the source.
  absl::Status TakeUpLeases();
  absl::Status Mend(const std::string& key, OrderedWriter::Step* step);
  absl::Status Copy();
  absl::Status Follow();
  absl::Status Apply(const WatchedRevision& revision);
  absl::Status AddOp(const mvccpb::Event& event, OrderedWriter::Step* step);
  absl::Status Flush(OrderedWriter::Step* step);
  absl::Status Verify();
  absl::Status Finish();
  absl::Status PutMarker(const std::string& before, bool create);
  bool Wanted(const std::string& key) const {
    return key != MarkerKey() && key.starts_with(marker_.prefix);
  }
  bool Full(const OrderedWriter::Step& step, size_t more) const {
    return static_cast<int>(step.ops.size()) + 2 > args_.max_txn_ops ||
           (!step.ops.empty() && step.bytes + more > kTxnBytesMax);
  }
  void Report(int64_t lag, bool always = false);

  const MigrateArgs& args_;
  Remote& source_;
  Remote& target_;
  Io io_;
  Marker marker_;  // after the youngest step
  std::unique_ptr<OrderedWriter> writer_;
  LeaseCopier leases_;
  uint64_t keys_ = 0;
  uint64_t events_ = 0;
  absl::Time reported_ = absl::InfinitePast();
};

absl::Status Migration::PutMarker(const std::string& before, bool create) {
  etcdserverpb::TxnRequest request;
  etcdserverpb::Compare& compare = *request.add_compare();
  compare.set_result(etcdserverpb::Compare::EQUAL);
  compare.set_key(MarkerKey());
  if (create) {
    compare.set_target(etcdserverpb::Compare::VERSION);
    compare.set_version(0);
  } else {
    compare.set_target(etcdserverpb::Compare::VALUE);
    compare.set_value(before);
  }
  auto& put = *request.add_success()->mutable_request_put();
  put.set_key(MarkerKey());
  put.set_value(marker_.Encode());
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       absl::ToChronoMilliseconds(target_.timeout()));
  etcdserverpb::TxnResponse response;
  const auto stub = etcdserverpb::KV::NewStub(target_.channels().front());
  if (absl::Status status = FromGrpc(stub->Txn(&context, request, &response)); !status.ok()) {
    return status;
  }
  if (response.succeeded()) return absl::OkStatus();
  return absl::FailedPreconditionError("another migration into this store has begun just now");
}

absl::Status Migration::Begin() {
  const auto source = source_.State();
  if (!source.ok()) {
    return absl::Status(
        source.status().code(),
        base::ToAbsl(fmt::format("the source: {}", base::Message(source.status()))));
  }
  const auto target = target_.State();
  if (!target.ok()) return target.status();
  if (source->cluster_id == target->cluster_id) {
    return absl::InvalidArgumentError("--from and --endpoints are the same cluster");
  }
  etcdserverpb::RangeRequest request;
  request.set_key(MarkerKey());
  etcdserverpb::RangeResponse found;
  if (absl::Status status = target_.Range(request, &found); !status.ok()) return status;
  std::string before;
  if (!found.kvs().empty()) {
    before = found.kvs(0).value();
    const std::optional<Marker> marker = Marker::Decode(before);
    const bool same = marker.has_value() && marker->source_cluster == source->cluster_id &&
                      marker->prefix == args_.prefix;
    if (same && !args_.force) {
      marker_ = *marker;
      io_.err << fmt::format("holdfastctl: going on with the migration that is at revision {}{}\n",
                             marker_.revision, marker_.copying ? ", not yet all copied" : "");
      writer_ = std::make_unique<OrderedWriter>(&target_, MarkerKey(), before);
      return TakeUpLeases();
    }
    if (!args_.force) {
      return absl::FailedPreconditionError(
          "the target holds the marker of another migration (other source or other --prefix): "
          "--force begins anew");
    }
  } else if (!args_.force) {
    request.set_key(args_.prefix.empty() ? AllKeys() : args_.prefix);
    request.set_range_end(EndOf(args_.prefix));
    request.set_count_only(true);
    if (absl::Status status = target_.Range(request, &found); !status.ok()) return status;
    if (found.count() != 0) {
      return absl::FailedPreconditionError(base::ToAbsl(fmt::format(
          "the target holds {} keys{} already: use an empty one, or --force, which overwrites keys "
          "of the same name and leaves others alone",
          found.count(), args_.prefix.empty() ? "" : " with that prefix")));
    }
  }
  marker_ = {.source_cluster = source->cluster_id,
             .prefix = args_.prefix,
             .revision = source->revision,
             .copying = true,
             .next_key = args_.prefix.empty() ? AllKeys() : args_.prefix,
             .part = 0};
  if (absl::Status status = PutMarker(before, found.kvs().empty() && before.empty());
      !status.ok()) {
    return status;
  }
  writer_ = std::make_unique<OrderedWriter>(&target_, MarkerKey(), marker_.Encode());
  return absl::OkStatus();
}

absl::Status Migration::Flush(OrderedWriter::Step* step) {
  step->marker = marker_.Encode();
  absl::Status status = writer_->Push(std::move(*step));
  *step = {};
  return status;
}

absl::Status Migration::AddOp(const mvccpb::Event& event, OrderedWriter::Step* step) {
  RequestOp op;
  if (event.type() == mvccpb::Event::DELETE) {
    op.mutable_request_delete_range()->set_key(event.kv().key());
  } else {
    auto& put = *op.mutable_request_put();
    put.set_key(event.kv().key());
    put.set_value(event.kv().value());
    if (event.kv().lease() != 0) {
      const auto alive = leases_.Ensure(event.kv().lease());
      if (!alive.ok()) return alive.status();
      if (*alive) put.set_lease(event.kv().lease());
    }
  }
  step->bytes += BytesOf(event.kv());
  step->ops.push_back(std::move(op));
  return absl::OkStatus();
}

// The key as of the revision that the target is at.
absl::Status Migration::Mend(const std::string& key, OrderedWriter::Step* step) {
  etcdserverpb::RangeRequest request;
  request.set_key(key);
  request.set_revision(marker_.revision);
  etcdserverpb::RangeResponse found;
  const absl::Status status = source_.Range(request, &found);
  if (absl::IsOutOfRange(status)) {
    return absl::OutOfRangeError(
        "keys of a lease expired in the target while no migration ran, and the source has "
        "compacted "
        "the revision that could tell them: begin anew with --force and an empty target");
  }
  if (!status.ok() || found.kvs().empty()) return status;
  if (Full(*step, BytesOf(found.kvs(0)))) {
    ++marker_.mends;
    if (absl::Status flushed = Flush(step); !flushed.ok()) return flushed;
  }
  mvccpb::Event event;  // a PUT
  *event.mutable_kv() = std::move(*found.mutable_kvs(0));
  return AddOp(event, step);
}

absl::Status Migration::TakeUpLeases() {
  const auto ids = source_.Leases();
  if (!ids.ok()) return ids.status();
  OrderedWriter::Step step;
  for (const int64_t id : *ids) {
    const auto ours = target_.TimeToLive(id);
    if (!ours.ok()) return ours.status();
    if (ours->ttl() > 0) {
      leases_.Adopt(id, ours->grantedttl());
      continue;
    }
    const auto theirs = source_.TimeToLive(id, /*keys=*/true);
    if (!theirs.ok()) return theirs.status();
    for (const std::string& key : theirs->keys()) {
      if (theirs->ttl() <= 0 || !Wanted(key)) continue;
      if (absl::Status status = Mend(key, &step); !status.ok()) return status;
    }
  }
  if (step.ops.empty()) return absl::OkStatus();
  ++marker_.mends;
  if (absl::Status status = Flush(&step); !status.ok()) return status;
  return writer_->Drain();
}

absl::Status Migration::Copy() {
  Scan scan(&source_, marker_.next_key, EndOf(marker_.prefix), marker_.revision);
  OrderedWriter::Step step;
  mvccpb::Event event;  // a PUT
  while (!g_interrupted) {
    const auto more = scan.Next(event.mutable_kv());
    if (absl::IsOutOfRange(more.status())) {
      return absl::OutOfRangeError(
          "the source compacted its history while it was copied: begin anew with --force, and turn "
          "its auto-compaction off meanwhile");
    }
    if (!more.ok()) return more.status();
    if (*more && Wanted(event.kv().key())) {
      if (Full(step, BytesOf(event.kv()))) {
        marker_.next_key = event.kv().key();
        if (absl::Status status = Flush(&step); !status.ok()) return status;
      }
      if (absl::Status status = AddOp(event, &step); !status.ok()) return status;
      ++keys_;
      Report(0);
    }
    if (*more) continue;
    marker_.copying = false;
    marker_.next_key.clear();
    if (absl::Status status = Flush(&step); !status.ok()) return status;
    if (absl::Status status = writer_->Drain(); !status.ok()) return status;
    io_.err << fmt::format("holdfastctl: copied {} keys of revision {}, {} leases\n", keys_,
                           marker_.revision, leases_.size());
    return absl::OkStatus();
  }
  return writer_->Drain();
}

absl::Status Migration::Apply(const WatchedRevision& revision) {
  OrderedWriter::Step step;
  // After an earlier run that ended between two parts all are written again: that changes nothing.
  int part = 0;
  for (const mvccpb::Event& event : revision.events) {
    if (!Wanted(event.kv().key())) continue;
    if (Full(step, BytesOf(event.kv()))) {
      ++part;
      if (part == 1) {
        io_.err << fmt::format(
            "holdfastctl: WARNING: revision {} has {} events, more than fit into one transaction "
            "of "
            "--max-txn-ops={}: it becomes several, and readers of the target may see a part of "
            "it\n",
            revision.revision, revision.events.size(), args_.max_txn_ops);
      }
      marker_.revision = revision.revision;
      marker_.part = part;
      if (absl::Status status = Flush(&step); !status.ok()) {
        return status;
      }
    }
    if (absl::Status status = AddOp(event, &step); !status.ok()) return status;
    ++events_;
  }
  const bool any = !step.ops.empty();
  marker_.revision = revision.revision;
  marker_.part = 0;
  // Without one, a revision of other prefixes is not worth a transaction: it is seen again.
  return any ? Flush(&step) : absl::OkStatus();
}

absl::Status Migration::Follow() {
  Inbox inbox;
  RevisionWatch watch(&source_);
  const int64_t from = marker_.part != 0 ? marker_.revision : marker_.revision + 1;
  std::thread receiver([&] {
    inbox.SetEnd(watch.Run(from, kSourceGiveUp, [&inbox](WatchedRevision revision) {
      return inbox.Put(std::move(revision));
    }));
  });
  absl::Status status;
  int64_t source_revision = INT64_MAX;
  absl::Time asked = absl::InfinitePast();
  while (status.ok() && !g_interrupted) {
    std::optional<WatchedRevision> revision = inbox.Take(absl::Milliseconds(100));
    if (revision.has_value()) {
      status = Apply(*revision);
    } else {
      status = writer_->Drain();
      if (status.ok()) status = inbox.end();
    }
    // Busy: once a second. Idle: at once, for it may be the end.
    if (status.ok() && (!revision.has_value() || absl::Now() - asked > kReportEvery)) {
      const auto now = source_.State();
      if (now.ok()) source_revision = now->revision;
      asked = absl::Now();
      Report(source_revision == INT64_MAX ? -1 : source_revision - marker_.revision);
      if (args_.until_caught_up && marker_.revision >= source_revision) {
        status = writer_->Drain();
        break;
      }
    }
  }
  inbox.Close();
  watch.Stop();
  receiver.join();
  if (status.ok()) status = writer_->Drain();
  return status;
}

void Migration::Report(int64_t lag, bool always) {
  if (!always && absl::Now() - reported_ < kReportEvery) return;
  reported_ = absl::Now();
  if (marker_.copying) {
    io_.err << fmt::format("copying: {} keys so far\n", keys_);
  } else {
    io_.err << fmt::format("at revision {} of the source, lag {}, {} events applied\n",
                           marker_.revision, lag < 0 ? "unknown" : fmt::format("{}", lag), events_);
  }
}

absl::Status Migration::Verify() {
  const std::string from = marker_.prefix.empty() ? AllKeys() : marker_.prefix;
  Scan source(&source_, from, EndOf(marker_.prefix), marker_.revision);
  Scan target(&target_, from, EndOf(marker_.prefix), 0);
  mvccpb::KeyValue ours, theirs;
  uint64_t same = 0, missing = 0, extra = 0, different = 0, shown = 0;
  auto more_theirs = source.Next(&theirs);
  auto more_ours = target.Next(&ours);
  const auto show = [&](std::string_view what, const std::string& key) {
    if (++shown <= 20) io_.err << fmt::format("{}: {}\n", what, base::Printable(key));
  };
  while (true) {
    if (!more_theirs.ok()) return more_theirs.status();
    if (!more_ours.ok()) return more_ours.status();
    if (!*more_theirs && !*more_ours) break;
    const bool only_theirs = !*more_ours || (*more_theirs && theirs.key() < ours.key());
    const bool only_ours = !*more_theirs || (*more_ours && ours.key() < theirs.key());
    if (only_theirs) {
      ++missing;
      show("missing in the target", theirs.key());
    } else if (only_ours) {
      ++extra;
      show("only in the target", ours.key());
    } else if (ours.value() != theirs.value() || ours.lease() != theirs.lease()) {
      ++different;
      show("different", ours.key());
    } else {
      ++same;
    }
    if (!only_ours) more_theirs = source.Next(&theirs);
    if (!only_theirs) more_ours = target.Next(&ours);
  }
  io_.err << fmt::format(
      "holdfastctl: verified at revision {} of the source: {} keys equal, {} missing, {} "
      "different, "
      "{} only in the target\n",
      marker_.revision, same, missing, different, extra);
  if (missing + different + (args_.force ? 0 : extra) == 0) return absl::OkStatus();
  return absl::DataLossError("source and target differ");
}

absl::Status Migration::Finish() {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       absl::ToChronoMilliseconds(target_.timeout()));
  etcdserverpb::DeleteRangeRequest request;
  request.set_key(MarkerKey());
  etcdserverpb::DeleteRangeResponse response;
  return FromGrpc(etcdserverpb::KV::NewStub(target_.channels().front())
                      ->DeleteRange(&context, request, &response));
}

absl::Status Migration::Run() {
  if (absl::Status status = Begin(); !status.ok()) return status;
  if (marker_.copying) {
    if (absl::Status status = Copy(); !status.ok()) return status;
  }
  if (marker_.copying) return absl::CancelledError("interrupted while copying: start it again");
  if (absl::Status status = Follow(); !status.ok()) return status;
  Report(0, /*always=*/true);
  if (args_.verify) {
    if (absl::Status status = Verify(); !status.ok()) return status;
  }
  if (args_.finish) {
    if (absl::Status status = Finish(); !status.ok()) return status;
  }
  const auto now = target_.State();
  io_.out << fmt::format("migrated up to revision {} of the source; the target is at {}\n",
                         marker_.revision, now.ok() ? now->revision : 0);
  return absl::OkStatus();
}

}  // namespace

ExitCode Migrate(const Common& common, const MigrateArgs& args, Io io) {
  const auto source = Remote::Open(args.from, common.timeout);
  if (!source.ok()) return Fail(source.status(), io);
  const auto target = Remote::Open(common.endpoints, common.timeout);
  if (!target.ok()) return Fail(target.status(), io);
  std::signal(SIGINT, &OnSignal);
  std::signal(SIGTERM, &OnSignal);
  const absl::Status status = Migration(args, source->get(), target->get(), io).Run();
  return status.ok() ? kOk : Fail(status, io);
}

}  // namespace holdfast::ctl
