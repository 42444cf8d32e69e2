// What clients say of themselves (Mirror.Report), kept in memory for a while: who runs with which
// data, and who refuses it.
//
// It is hearsay: nothing in this program decides by it.
// Limits: Options. What is too long in a report is cut, not refused, but for the id and the number
// of prefixes; when the table is full, whoever was heard longest ago goes.
// Threads: all methods from any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <list>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "holdfast/client.pb.h"

namespace holdfast::server {

class ClientTable {
 public:
  struct Options {
    size_t clients = 20'000;
    size_t bytes = size_t{32} << 20;  // of all reports, as encoded
    absl::Duration forget_after = absl::Minutes(2);
    const base::Clock* clock = base::RealClock::Get();
  };
  static constexpr size_t kIdBytesMax = 64;
  static constexpr size_t kTextBytesMax = 256;  // name, version, why; a link has 32
  static constexpr size_t kPrefixBytesMax = 256;
  static constexpr size_t kPrefixesMax = 64;

  explicit ClientTable(Options options) : options_(options) {}

  // InvalidArgument: no id, or one that is not printable; too many prefixes.
  absl::Status Take(v1::ReportRequest report, std::string_view peer);
  // The longest-known last.
  void Fill(v1::ClientsResponse* response);

  // The links that are told apart; everything else counts as `other`.
  static constexpr std::array<std::string_view, 7> kLinks = {
      "connecting", "live", "jeopardy", "stale", "expired", "recovering", "other"};
  // Prefixes of clients, by link, as kLinks.
  std::array<uint64_t, kLinks.size()> CountByLink();
  uint64_t clients();
  // How often a client came to refuse a revision that it had not refused before.
  uint64_t refusals() const;

 private:
  struct Client {
    v1::ReportRequest report;
    std::string peer;
    size_t bytes = 0;
    base::ClockSample heard = {};
  };
  using Clients = std::list<Client>;  // the last heard first

  void Remove(Clients::iterator client);
  void Expire();
  static uint64_t NewRefusals(const v1::ReportRequest* before, const v1::ReportRequest& now);

  const Options options_;
  mutable std::mutex mutex_;
  Clients clients_;                                            // under mutex_
  std::unordered_map<std::string, Clients::iterator> lookup_;  // under mutex_; by client id
  size_t bytes_ = 0;                                           // under mutex_
  uint64_t refusals_ = 0;                                      // under mutex_
};

}  // namespace holdfast::server
