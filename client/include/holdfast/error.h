// What the library's errors mean, and how to read the details that some of them carry.
//
//   UNAVAILABLE          no quorum, or no endpoint could be reached. A write had no effect.
//   FAILED_PRECONDITION  too old for the bound that was asked for; see BestAvailable(). Also what
//   the
//                        server itself refuses with this code.
//   DEADLINE_EXCEEDED    the deadline passed before anything was sent. No effect.
//   UNKNOWN              a write was sent and got no definite answer; MaybeCommitted() is true.
//                        Client::Resolve() asks again.
//   ABORTED              another process writes in this client's session (fork(), a copied
//   machine),
//                        or the store was restored meanwhile. The write had no effect.
//   ALREADY_EXISTS       a transaction took effect once, and what it read is too large to be told
//                        again: read it anew.
//   RESOURCE_EXHAUSTED   held back: by this client's retry budget or by the server; see
//   RetryAfter().
//                        A write had no effect. Also a Scan larger than its limit.
//   CANCELLED            the Client was destroyed before anything was sent.
//   any other code       the server refused the request: a retry gives the same answer.
//
// Every text names the endpoints that were tried, what each of them said, and what to do.
#pragma once

#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "holdfast/freshness.h"

namespace holdfast {

// True for a write whose outcome is unknown: it may have taken effect, now or within the next
// seconds. Never issue it again blindly: ask with Client::Resolve(), read the key back, or write
// with a compare (Txn).
bool MaybeCommitted(const absl::Status& status);

// When a retry has a chance, if the error says so. Add jitter if many processes do the same.
std::optional<absl::Duration> RetryAfter(const absl::Status& status);

// For FAILED_PRECONDITION of a bounded read: the freshest answer that was refused, i.e. what a
// looser bound would have been given. Its age goes on growing. Meaningful only in the process that
// made the status: elsewhere it gives nullopt.
std::optional<Freshness> BestAvailable(const absl::Status& status);

}  // namespace holdfast
