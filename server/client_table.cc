#include "server/client_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/strings.h"

namespace holdfast::server {
namespace {

constexpr size_t kLinkBytesMax = 32;
// What an entry takes beside its report.
constexpr size_t kEntryBytes = 256;

bool IsPrintable(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return c > ' ' && c < '\x7f'; });
}

void Cut(std::string* text, size_t max) {
  if (text->size() > max) text->resize(max);
}

// A protobuf string must stay UTF-8, also where it was cut.
void CutText(std::string* text, size_t max) {
  for (char& c : *text) {
    if (c < ' ' || c > '~') c = '?';
  }
  Cut(text, max);
}

size_t LinkIndex(std::string_view link) {
  const auto& links = ClientTable::kLinks;
  const auto found = std::find(links.begin(), links.end() - 1, link);
  return static_cast<size_t>(found - links.begin());
}

}  // namespace

absl::Status ClientTable::Take(v1::ReportRequest report, std::string_view peer) {
  const std::string id = report.client_id();
  if (id.empty() || id.size() > kIdBytesMax || !IsPrintable(id)) {
    return absl::InvalidArgumentError(
        fmt::format("holdfast: client_id is '{}': use 1 to {} printable characters",
                    base::Printable(id), kIdBytesMax));
  }
  if (report.prefixes_size() > static_cast<int>(kPrefixesMax)) {
    return absl::InvalidArgumentError(
        fmt::format("holdfast: a report of {} prefixes: tell of {} at most", report.prefixes_size(),
                    kPrefixesMax));
  }
  CutText(report.mutable_name(), kTextBytesMax);
  CutText(report.mutable_version(), kTextBytesMax);
  for (v1::PrefixReport& prefix : *report.mutable_prefixes()) {
    Cut(prefix.mutable_prefix(), kPrefixBytesMax);
    CutText(prefix.mutable_link(), kLinkBytesMax);
    CutText(prefix.mutable_source(), kLinkBytesMax);
    CutText(prefix.mutable_refused_why(), kTextBytesMax);
  }
  report.DiscardUnknownFields();

  std::lock_guard lock(mutex_);
  Expire();
  const auto known = lookup_.find(id);
  const bool is_known = known != lookup_.end();
  refusals_ += NewRefusals(is_known ? &known->second->report : nullptr, report);
  if (is_known) Remove(known->second);
  if (report.leaving()) return absl::OkStatus();
  Client& client = clients_.emplace_front();
  client.bytes = report.ByteSizeLong() + peer.size() + kEntryBytes;
  client.report = std::move(report);
  client.peer = peer;
  client.heard = options_.clock->Sample();
  lookup_[id] = clients_.begin();
  bytes_ += client.bytes;
  while (clients_.size() > options_.clients || bytes_ > options_.bytes) {
    Remove(std::prev(clients_.end()));
  }
  return absl::OkStatus();
}

void ClientTable::Remove(Clients::iterator client) {
  bytes_ -= client->bytes;
  lookup_.erase(client->report.client_id());
  clients_.erase(client);
}

void ClientTable::Expire() {
  const base::ClockSample now = options_.clock->Sample();
  while (!clients_.empty() && base::Elapsed(clients_.back().heard, now) > options_.forget_after) {
    Remove(std::prev(clients_.end()));
  }
}

uint64_t ClientTable::NewRefusals(const v1::ReportRequest* before, const v1::ReportRequest& now) {
  uint64_t count = 0;
  for (const v1::PrefixReport& prefix : now.prefixes()) {
    if (prefix.refused_revision() == 0) continue;
    const bool known =
        before != nullptr && std::ranges::any_of(before->prefixes(), [&](const auto& old) {
          return old.prefix() == prefix.prefix() &&
                 old.refused_revision() == prefix.refused_revision();
        });
    if (!known) ++count;
  }
  return count;
}

void ClientTable::Fill(v1::ClientsResponse* response) {
  std::lock_guard lock(mutex_);
  Expire();
  const base::ClockSample now = options_.clock->Sample();
  for (const Client& client : clients_) {
    v1::ClientsResponse::Client* out = response->add_clients();
    *out->mutable_report() = client.report;
    out->set_peer(client.peer);
    out->set_heard_ms_ago(
        static_cast<uint64_t>(absl::ToInt64Milliseconds(base::Elapsed(client.heard, now))));
  }
}

std::array<uint64_t, ClientTable::kLinks.size()> ClientTable::CountByLink() {
  std::lock_guard lock(mutex_);
  Expire();
  std::array<uint64_t, kLinks.size()> counts{};
  for (const Client& client : clients_) {
    for (const v1::PrefixReport& prefix : client.report.prefixes()) {
      ++counts[LinkIndex(prefix.link())];
    }
  }
  return counts;
}

uint64_t ClientTable::clients() {
  std::lock_guard lock(mutex_);
  Expire();
  return clients_.size();
}

uint64_t ClientTable::refusals() const {
  std::lock_guard lock(mutex_);
  return refusals_;
}

}  // namespace holdfast::server
