#include "server/apply_lease.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "etcd/rpc.pb.h"
#include "server/etcd_errors.h"
#include "server/lease_record.h"
#include "storage/damage.h"

namespace holdfast::server {
namespace {

using storage::MvccStore;

absl::StatusOr<std::optional<LeaseRecord>> FindLease(int64_t id, const MvccStore::Writer& writer) {
  const auto bytes = writer.GetMeta(LeaseMetaKey(id));
  if (!bytes.ok()) return bytes.status();
  if (!bytes->has_value()) return std::optional<LeaseRecord>();
  LeaseRecord record;
  if (!DecodeLeaseRecord(**bytes, &record)) {
    return storage::DamageError({.part = storage::Damage::Part::kData,
                                 .what = "a lease is not in a form this program ever wrote"});
  }
  return std::optional<LeaseRecord>(record);
}

// False: there is no such lease.
absl::StatusOr<bool> RemoveLease(int64_t id, const ApplyContext& context,
                                 MvccStore::Writer& writer) {
  const auto found = FindLease(id, writer);
  if (!found.ok()) return found.status();
  if (!found->has_value()) return false;
  std::vector<std::string> keys;
  if (absl::Status status = writer.ScanLeaseKeys(id,
                                                 [&keys](std::string_view key) {
                                                   keys.emplace_back(key);
                                                   return true;
                                                 });
      !status.ok()) {
    return status;
  }
  writer.BeginRevision();
  for (const std::string& key : keys) {
    const absl::StatusOr<int64_t> deleted = writer.DeleteRange(key, {}, nullptr);
    if (!deleted.ok()) return deleted.status();
  }
  writer.EndRevision();
  writer.DeleteMeta(LeaseMetaKey(id));
  context.effects->leases.push_back(
      {.index = context.index, .id = id, .kind = LeaseChange::Kind::kGone});
  return true;
}

}  // namespace

absl::StatusOr<ApplyResult> ApplyLeaseGrant(const command::v1::LeaseGrant& request,
                                            const ApplyContext& context,
                                            MvccStore::Writer& writer) {
  const auto found = FindLease(request.id(), writer);
  if (!found.ok()) return found.status();
  if (found->has_value()) return ApplyResult{ErrLeaseExist(), nullptr};
  writer.PutMeta(LeaseMetaKey(request.id()), EncodeLeaseRecord({.ttl_s = request.ttl_s()}));
  context.effects->leases.push_back({.index = context.index,
                                     .id = request.id(),
                                     .kind = LeaseChange::Kind::kGranted,
                                     .ttl_s = request.ttl_s()});
  auto response = std::make_unique<etcdserverpb::LeaseGrantResponse>();
  response->mutable_header()->set_revision(writer.revision());
  response->set_id(request.id());
  response->set_ttl(request.ttl_s());
  return ApplyResult{absl::OkStatus(), std::move(response)};
}

absl::StatusOr<ApplyResult> ApplyLeaseRevoke(const command::v1::LeaseRevoke& request,
                                             const ApplyContext& context,
                                             MvccStore::Writer& writer) {
  const absl::StatusOr<bool> removed = RemoveLease(request.id(), context, writer);
  if (!removed.ok()) return removed.status();
  if (!*removed) return ApplyResult{ErrLeaseNotFound(), nullptr};
  auto response = std::make_unique<etcdserverpb::LeaseRevokeResponse>();
  response->mutable_header()->set_revision(writer.revision());
  return ApplyResult{absl::OkStatus(), std::move(response)};
}

absl::StatusOr<ApplyResult> ApplyLeaseExpiry(const command::v1::LeaseExpiry& request,
                                             const ApplyContext& context,
                                             MvccStore::Writer& writer) {
  if (request.term() != context.term.value) return ApplyResult{};
  for (const int64_t id : request.ids()) {
    if (absl::Status status = RemoveLease(id, context, writer).status(); !status.ok()) {
      return status;
    }
  }
  return ApplyResult{};
}

absl::StatusOr<ApplyResult> ApplyLeaseCheckpoint(const command::v1::LeaseCheckpoint& request,
                                                 const ApplyContext& context,
                                                 MvccStore::Writer& writer) {
  if (request.term() != context.term.value) return ApplyResult{};
  for (const auto& lease : request.leases()) {
    auto found = FindLease(lease.id(), writer);
    if (!found.ok()) return found.status();
    if (!found->has_value()) continue;
    (*found)->remaining_ms = lease.ms();
    writer.PutMeta(LeaseMetaKey(lease.id()), EncodeLeaseRecord(**found));
    context.effects->leases.push_back({.index = context.index,
                                       .id = lease.id(),
                                       .kind = LeaseChange::Kind::kCheckpoint,
                                       .remaining_ms = lease.ms()});
  }
  return ApplyResult{};
}

}  // namespace holdfast::server
