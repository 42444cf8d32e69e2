// The commands about sessions, and writes that carry a stamp (api/holdfast/command.proto), applied.
// Part of ApplyCommand; the errors are its.
//
// The one rule: what a stamp was answered at apply is its answer for good. That is why refusals are
// kept as answers are, an alarm's too: were a write that an alarm refused executed by a late copy,
// the caller would have been told a lie. Who wants it done after all sends it as a new write.
#pragma once

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "holdfast/command.pb.h"
#include "server/apply_command.h"
#include "storage/mvcc_store.h"

namespace holdfast::server {

// `execute` applies the command without its stamp, and gives the answer whether or not anybody
// waits for it: every member must keep the same. Not called if the stamp says that the write is not
// to be executed (again).
absl::StatusOr<ApplyResult> ApplyStamped(const command::v1::Command& command,
                                         storage::MvccStore::Writer& writer,
                                         absl::FunctionRef<absl::StatusOr<ApplyResult>()> execute);

absl::StatusOr<ApplyResult> ApplySessionOpen(const command::v1::SessionOpen& request,
                                             storage::MvccStore::Writer& writer);
absl::StatusOr<ApplyResult> ApplySessionClose(const command::v1::SessionClose& request,
                                              storage::MvccStore::Writer& writer);
absl::StatusOr<ApplyResult> ApplySessionTime(const command::v1::SessionTime& request,
                                             const ApplyContext& context,
                                             storage::MvccStore::Writer& writer);

// Another incarnation took the place of one: no session of before is known from now on. Their
// records go with the next SessionTimes, a bounded number at a time.
absl::Status ForgetSessions(storage::MvccStore::Writer& writer);

}  // namespace holdfast::server
