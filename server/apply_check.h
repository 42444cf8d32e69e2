// The digest that a Check asks for (api/holdfast/command.proto): a hash over a part of the state,
// as it is at that point of the log. Equal states give equal digests, whatever lies on the disks:
// tombstones and history do not count, for members compact at their own pace.
#pragma once

#include "absl/status/statusor.h"
#include "holdfast/command.pb.h"
#include "server/apply_command.h"
#include "storage/mvcc_store.h"

namespace holdfast::server {

absl::StatusOr<ApplyResult> ApplyCheck(const command::v1::Check& request,
                                       const ApplyContext& context,
                                       const storage::MvccStore::Writer& writer);

}  // namespace holdfast::server
