#include "client/ctl/commands.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include "base/strings.h"
#include "client/ctl/admin.h"
#include "client/ctl/output.h"
#include "client/ctl/txn_script.h"

namespace holdfast::ctl {

ExitCode ExitCodeOf(const absl::Status& status) {
  if (status.ok()) return kOk;
  if (MaybeCommitted(status)) return kMaybeCommitted;
  if (BestAvailable(status).has_value() || RetryAfter(status).has_value()) return kUnavailable;
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return kUnavailable;
    default:
      return kRefused;
  }
}

namespace {

constexpr int64_t kPage = 1000;
// Far above what any server accepts; keeps a wrong pipe from filling the memory.
constexpr size_t kInputMax = 64 << 20;

ExitCode Fail(const absl::Status& status, Io io) {
  io.err << "holdfastctl: " << absl::StatusCodeToString(status.code()) << ": "
         << base::Message(status) << "\n";
  return ExitCodeOf(status);
}

ExitCode UsageError(const absl::Status& status, Io io) {
  io.err << "holdfastctl: " << base::Message(status) << "\n";
  return kUsage;
}

absl::StatusOr<std::unique_ptr<Client>> Open(const Common& common) {
  Client::Options options{.endpoints = common.endpoints};
  // One person's single command is no herd: it may try as often as its time allows.
  options.retry.budget_ratio = 1;
  options.retry.budget_per_second = 10;
  return Client::Open(std::move(options));
}

absl::StatusOr<std::string> ReadAll(std::istream& in) {
  std::string all;
  char chunk[1 << 16];
  while (in.read(chunk, sizeof(chunk)) || in.gcount() > 0) {
    all.append(chunk, static_cast<size_t>(in.gcount()));
    if (all.size() > kInputMax) {
      return absl::InvalidArgumentError(
          base::ToAbsl(fmt::format("the input is larger than {} bytes", kInputMax)));
    }
  }
  return all;
}

RangeQuery QueryOf(const GetArgs& args) {
  RangeQuery query = args.prefix ? RangeQuery::Prefix(args.key) : RangeQuery::Key(args.key);
  if (!args.prefix) query.range_end = args.range_end;
  query.revision = args.revision;
  query.keys_only = args.keys_only;
  query.count_only = args.count_only;
  return query;
}

// All pages up to args.limit, at the revision of the first; the freshness is the first page's.
Result<RangeResult> ReadPages(Client& client, const GetArgs& args, absl::Duration timeout) {
  RangeQuery query = QueryOf(args);
  ReadOptions options = args.consistency;
  options.Deadline(timeout);
  Read<RangeResult> all;
  for (bool first = true;; first = false) {
    const int64_t left = args.limit == 0 ? kPage : args.limit - std::ssize(all.value.entries);
    query.limit = std::min(left, kPage);
    auto page = client.Range(query, options);
    if (!page.ok()) return page.status();
    if (first) {
      all.fresh = page->fresh;
      all.value.count = page->value.count;
    }
    all.value.more = page->value.more;
    std::move(page->value.entries.begin(), page->value.entries.end(),
              std::back_inserter(all.value.entries));
    const bool enough = args.limit != 0 && std::ssize(all.value.entries) >= args.limit;
    if (!page->value.more || page->value.entries.empty() || enough) return all;
    query.key = all.value.entries.back().key + '\0';
    query.revision = all.fresh.revision();
    options = ReadOptions::Bounded(absl::InfiniteDuration()).Deadline(timeout);
  }
}

}  // namespace

absl::StatusOr<ReadOptions> ParseConsistency(std::string_view text) {
  constexpr std::string_view kBounded = "bounded=";
  if (text == "linearizable") return ReadOptions::Linearizable();
  if (text == "stale") return ReadOptions::Bounded(absl::InfiniteDuration());
  if (text == "stale-if-down") {
    return ReadOptions::Linearizable().OrStale(absl::InfiniteDuration());
  }
  absl::Duration bound;
  if (text.starts_with(kBounded) &&
      absl::ParseDuration(base::ToAbsl(text.substr(kBounded.size())), &bound) &&
      bound >= absl::ZeroDuration()) {
    return ReadOptions::Bounded(bound);
  }
  return absl::InvalidArgumentError(base::ToAbsl(
      fmt::format("--consistency {} is none of linearizable, bounded=DURATION (e.g. bounded=5s), "
                  "stale, stale-if-down",
                  base::Printable(text))));
}

ExitCode Get(const Common& common, const GetArgs& args, Io io) {
  const auto client = Open(common);
  if (!client.ok()) return UsageError(client.status(), io);
  const auto read = ReadPages(**client, args, common.timeout);
  if (!read.ok()) return Fail(read.status(), io);
  const GetStyle style{args.keys_only, args.print_value_only, args.count_only};
  const bool missing = read->value.count == 0 && !args.count_only;
  if (common.json && !missing) {
    io.out << GetJson(read->value, read->fresh, style) << std::flush;
  } else if (!missing) {
    io.out << EntriesText(read->value, style) << std::flush;
  }
  if (args.freshness) io.err << FreshnessText(read->fresh) << "\n";
  if (!missing) return kOk;
  io.err << "holdfastctl: no such key: " << base::Printable(args.key) << " ("
         << FreshnessText(read->fresh) << ")\n";
  return kNotFound;
}

ExitCode Put(const Common& common, const std::string& key, std::optional<std::string> value,
             Io io) {
  const auto client = Open(common);
  if (!client.ok()) return UsageError(client.status(), io);
  if (!value.has_value()) {
    auto input = ReadAll(io.in);
    if (!input.ok()) return UsageError(input.status(), io);
    value = *std::move(input);
  }
  const auto result = (*client)->Put(key, *value, {.deadline = common.timeout});
  if (!result.ok()) return Fail(result.status(), io);
  io.out << (common.json ? PutJson(*result) : "OK\n") << std::flush;
  return kOk;
}

ExitCode Delete(const Common& common, const std::string& key, bool prefix, Io io) {
  const auto client = Open(common);
  if (!client.ok()) return UsageError(client.status(), io);
  const WriteOptions options{.deadline = common.timeout};
  const auto result =
      prefix ? (*client)->DeletePrefix(key, options) : (*client)->Delete(key, options);
  if (!result.ok()) return Fail(result.status(), io);
  io.out << (common.json ? DeleteJson(*result) : fmt::format("{}\n", result->deleted))
         << std::flush;
  return kOk;
}

ExitCode RunTxn(const Common& common, Io io) {
  const auto client = Open(common);
  if (!client.ok()) return UsageError(client.status(), io);
  const auto script = ReadAll(io.in);
  if (!script.ok()) return UsageError(script.status(), io);
  const auto txn = ParseTxnScript(*script);
  if (!txn.ok()) return UsageError(txn.status(), io);
  const auto result = (*client)->Commit(*txn, {.deadline = common.timeout});
  if (!result.ok()) return Fail(result.status(), io);
  io.out << (common.json ? TxnJson(*txn, *result) : TxnText(*txn, *result)) << std::flush;
  return result->succeeded ? kOk : kNotFound;
}

ExitCode Status(const Common& common, Io io) {
  const auto client = Open(common);  // checks the endpoints, once for all
  if (!client.ok()) return UsageError(client.status(), io);
  const auto all = AskStatus(common.endpoints, common.timeout);
  io.out << (common.json ? StatusJson(all) : StatusText(all)) << std::flush;
  const bool every =
      std::all_of(all.begin(), all.end(), [](const auto& s) { return s.status.ok(); });
  return every ? kOk : kUnavailable;
}

ExitCode ListMembers(const Common& common, Io io) {
  const auto client = Open(common);  // checks the endpoints, once for all
  if (!client.ok()) return UsageError(client.status(), io);
  const auto members = AskMembers(common.endpoints, common.timeout);
  if (!members.ok()) return Fail(members.status(), io);
  const auto roles = AskRoles(common.endpoints, common.timeout);
  io.out << (common.json ? MembersJson(*members, roles) : MembersText(*members, roles))
         << std::flush;
  if (!members->linearizable) {
    io.err << "holdfastctl: no quorum answered; this is one member's own view and may be old\n";
  }
  return kOk;
}

}  // namespace holdfast::ctl
