#include "server/apply_command.h"

#include <optional>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/strings.h"
#include "server/apply_check.h"
#include "server/apply_lease.h"
#include "server/apply_session.h"
#include "server/etcd_errors.h"
#include "server/kv_codec.h"
#include "server/kv_validate.h"
#include "server/lease_record.h"
#include "server/txn_execution.h"

namespace holdfast::server {
namespace {

using command::v1::Command;
using storage::MvccStore;

absl::StatusOr<bool> FoundLease(const absl::StatusOr<std::optional<std::string>>& record) {
  if (!record.ok()) return record.status();
  return record->has_value();
}

class WriterReader : public KvReader {
 public:
  explicit WriterReader(const MvccStore::Writer& writer) : writer_(writer) {}
  int64_t revision() const override { return writer_.revision(); }
  int64_t compact_revision() const override { return writer_.compact_revision(); }
  absl::StatusOr<std::optional<storage::KeyValue>> Get(std::string_view key) const override {
    return writer_.Get(key);
  }
  absl::Status Range(const storage::RangeOptions& options,
                     storage::RangeResult* result) const override {
    return writer_.Range(options, result);
  }
  absl::StatusOr<bool> LeaseExists(int64_t lease) const override {
    return FoundLease(writer_.GetMeta(LeaseMetaKey(lease)));
  }

 private:
  const MvccStore::Writer& writer_;
};

class ViewReader : public KvReader {
 public:
  ViewReader(const MvccStore::View& view, const std::function<bool(size_t)>& take)
      : view_(view), take_(take) {}
  int64_t revision() const override { return view_.applied().revision; }
  int64_t compact_revision() const override { return view_.applied().compact_revision; }
  absl::StatusOr<std::optional<storage::KeyValue>> Get(std::string_view key) const override {
    return view_.Get(key);
  }
  absl::Status Range(const storage::RangeOptions& options,
                     storage::RangeResult* result) const override {
    storage::RangeOptions counted = options;
    counted.take = take_;
    return view_.Range(counted, result);
  }
  absl::StatusOr<bool> LeaseExists(int64_t lease) const override {
    return FoundLease(view_.GetMeta(LeaseMetaKey(lease)));
  }

 private:
  const MvccStore::View& view_;
  const std::function<bool(size_t)>& take_;
};

ApplyResult Refused(absl::Status status) { return {std::move(status), nullptr}; }

// Prepare, then run in one revision. `prepare(execution)` and `run(execution, response)` are the
// two halves of the operation; `response` is null if nobody waits.
template <class Response, class Prepare, class Run>
absl::StatusOr<ApplyResult> Execute(bool want_answer, MvccStore::Writer& writer, Prepare prepare,
                                    Run run) {
  const WriterReader reader(writer);
  TxnExecution execution(reader, &writer, kMaxTxnAnswerBytes);
  if (absl::Status status = prepare(execution); !status.ok()) {
    if (!execution.fatal().ok()) return execution.fatal();
    return Refused(std::move(status));
  }
  auto response = want_answer ? std::make_unique<Response>() : nullptr;
  writer.BeginRevision();
  const absl::Status ran = run(execution, response.get());
  writer.EndRevision();
  if (!ran.ok()) {
    // Something may have been written by now: a refusal would leave half a command behind.
    return execution.fatal().ok() ? absl::InternalError("a checked command failed while it ran")
                                  : execution.fatal();
  }
  if (response != nullptr) response->mutable_header()->set_revision(writer.revision());
  return ApplyResult{absl::OkStatus(), std::move(response)};
}

absl::StatusOr<ApplyResult> ApplyCompaction(const etcdserverpb::CompactionRequest& request,
                                            bool want_answer, MvccStore::Writer& writer) {
  if (request.revision() <= writer.compact_revision()) return Refused(ErrCompacted());
  if (request.revision() > writer.revision()) return Refused(ErrFutureRev());
  if (absl::Status status = writer.Compact(request.revision()); !status.ok()) return status;
  auto response = want_answer ? std::make_unique<etcdserverpb::CompactionResponse>() : nullptr;
  if (response != nullptr) response->mutable_header()->set_revision(writer.revision());
  return ApplyResult{absl::OkStatus(), std::move(response)};
}

// nullopt: no alarm forbids it.
std::optional<absl::Status> RefusedByAlarm(const Command& command, const AlarmSet& alarms) {
  if (alarms.alarms().empty()) return std::nullopt;
  switch (command.op_case()) {
    case Command::kPut:
    case Command::kTxn:
    case Command::kSessionOpen:
    case Command::kLeaseGrant: {
      if (alarms.all_corrupt()) return ErrCorrupt();
      const bool grows = !command.has_txn() || Puts(command.txn());
      if (grows && alarms.no_space()) return ErrNoSpace();
      return std::nullopt;
    }
    case Command::kDeleteRange:
    case Command::kCompaction:
    case Command::kSessionClose:
    case Command::kLeaseRevoke:
      if (alarms.all_corrupt()) return ErrCorrupt();
      return std::nullopt;
    default:
      return std::nullopt;
  }
}

absl::StatusOr<ApplyResult> ApplyAlarm(const command::v1::Alarm& request,
                                       const ApplyContext& context, MvccStore::Writer& writer) {
  using Action = command::v1::Alarm;
  const auto type = static_cast<AlarmType>(request.type());
  const AlarmSet::Alarm alarm = {request.member_id(), type};
  const bool named = type == AlarmType::kNoSpace || type == AlarmType::kCorrupt;
  auto response = std::make_unique<etcdserverpb::AlarmResponse>();
  const auto answer = [&response](const AlarmSet::Alarm& one) {
    etcdserverpb::AlarmMember* out = response->add_alarms();
    out->set_memberid(one.first);
    out->set_alarm(static_cast<etcdserverpb::AlarmType>(one.second));
  };
  response->mutable_header()->set_revision(writer.revision());
  switch (request.action()) {
    case Action::GET:
      for (const AlarmSet::Alarm& one : context.alarms->alarms()) {
        const bool wanted = type == AlarmType::kNone || one.second == type;
        if (wanted && (request.member_id() == 0 || one.first == request.member_id())) answer(one);
      }
      break;
    case Action::ACTIVATE:
      // As etcd: what is in force already is answered too.
      if (!named) break;
      if (context.alarms->Raise(alarm)) {
        writer.PutMeta(AlarmMetaKey(alarm), "");
        context.effects->alarms_changed = true;
      }
      answer(alarm);
      break;
    case Action::DEACTIVATE:
      if (!named || !context.alarms->Clear(alarm)) break;
      writer.DeleteMeta(AlarmMetaKey(alarm));
      context.effects->alarms_changed = true;
      answer(alarm);
      break;
    default:
      break;
  }
  return ApplyResult{absl::OkStatus(), std::move(response)};
}

absl::StatusOr<ApplyResult> ApplyDowngrade(const command::v1::Downgrade& request,
                                           MvccStore::Writer& writer) {
  if (request.enabled()) {
    writer.PutMeta(kMetaDowngrade, request.SerializeAsString());
  } else {
    writer.DeleteMeta(kMetaDowngrade);
  }
  auto response = std::make_unique<etcdserverpb::DowngradeResponse>();
  response->mutable_header()->set_revision(writer.revision());
  return ApplyResult{absl::OkStatus(), std::move(response)};
}

absl::StatusOr<ApplyResult> ApplyMemberAttributes(const command::v1::MemberAttributes& attributes,
                                                  MvccStore::Writer& writer) {
  writer.PutMeta(MemberMetaKey(attributes.id()), attributes.SerializeAsString());
  return ApplyResult{};
}

// Of those that replace the same incarnation (none, at first) only one counts: two leaders in a row
// may both have proposed.
absl::StatusOr<ApplyResult> ApplyClusterBirth(const command::v1::ClusterBirth& birth,
                                              MvccStore::Writer& writer) {
  const auto known = writer.GetMeta(kMetaIncarnation);
  if (!known.ok()) return known.status();
  const uint64_t before = known->has_value() ? base::ReadBigEndian64(**known) : 0;
  if (birth.replaces() == before && birth.incarnation() != 0) {
    if (before != 0) {
      if (absl::Status status = ForgetSessions(writer); !status.ok()) return status;
    }
    std::string bytes;
    base::AppendBigEndian64(bytes, birth.incarnation());
    writer.PutMeta(kMetaIncarnation, bytes);
  }
  return ApplyResult{};
}

bool IsStampable(const Command& command) {
  return command.has_put() || command.has_delete_range() || command.has_txn();
}

// As ApplyCommand, without the stamp.
absl::StatusOr<ApplyResult> ApplyUnstamped(const Command& command, bool want_answer,
                                           const ApplyContext& context, MvccStore::Writer& writer) {
  if (std::optional<absl::Status> refused = RefusedByAlarm(command, *context.alarms)) {
    return Refused(*std::move(refused));
  }
  switch (command.op_case()) {
    case Command::kPut:
      return Execute<etcdserverpb::PutResponse>(
          want_answer, writer, [&](TxnExecution& e) { return e.PreparePut(command.put()); },
          [&](TxnExecution& e, auto* response) { return e.RunPut(command.put(), response); });
    case Command::kDeleteRange:
      return Execute<etcdserverpb::DeleteRangeResponse>(
          want_answer, writer,
          [&](TxnExecution& e) { return e.PrepareDelete(command.delete_range()); },
          [&](TxnExecution& e, auto* response) {
            return e.RunDelete(command.delete_range(), response);
          });
    case Command::kTxn:
      return Execute<etcdserverpb::TxnResponse>(
          want_answer, writer, [&](TxnExecution& e) { return e.Prepare(command.txn()); },
          [&](TxnExecution& e, auto* response) { return e.Run(command.txn(), response); });
    case Command::kCompaction:
      return ApplyCompaction(command.compaction(), want_answer, writer);
    case Command::kMemberAttributes:
      context.effects->members_changed = true;
      return ApplyMemberAttributes(command.member_attributes(), writer);
    case Command::kClusterBirth:
      context.effects->members_changed = true;
      return ApplyClusterBirth(command.cluster_birth(), writer);
    case Command::kLeaseGrant:
      return ApplyLeaseGrant(command.lease_grant(), context, writer);
    case Command::kLeaseRevoke:
      return ApplyLeaseRevoke(command.lease_revoke(), context, writer);
    case Command::kLeaseExpiry:
      return ApplyLeaseExpiry(command.lease_expiry(), context, writer);
    case Command::kLeaseCheckpoint:
      return ApplyLeaseCheckpoint(command.lease_checkpoint(), context, writer);
    case Command::kAlarm:
      return ApplyAlarm(command.alarm(), context, writer);
    case Command::kCheck:
      return ApplyCheck(command.check(), context, writer);
    case Command::kDowngrade:
      return ApplyDowngrade(command.downgrade(), writer);
    case Command::kSessionOpen:
      return ApplySessionOpen(command.session_open(), writer);
    case Command::kSessionClose:
      return ApplySessionClose(command.session_close(), writer);
    case Command::kSessionTime:
      return ApplySessionTime(command.session_time(), context, writer);
    case Command::OP_NOT_SET:
      break;
  }
  return absl::DataLossError(
      "the command is none that this version knows: run the version that wrote it");
}

}  // namespace

std::string MemberMetaKey(uint64_t id) {
  std::string key = kMetaMemberPrefix;
  base::AppendBigEndian64(key, id);
  return key;
}

absl::StatusOr<ApplyResult> ApplyCommand(const Command& command, bool want_answer,
                                         const ApplyContext& context, MvccStore::Writer& writer) {
  if (!command.has_session() || !IsStampable(command)) {
    return ApplyUnstamped(command, want_answer, context, writer);
  }
  return ApplyStamped(command, writer, [&] {
    return ApplyUnstamped(command, /*want_answer=*/true, context, writer);
  });
}

absl::Status EvaluateReadOnly(const etcdserverpb::TxnRequest& request, const MvccStore::View& view,
                              size_t max_bytes, const std::function<bool(size_t)>& take,
                              etcdserverpb::TxnResponse* response) {
  const ViewReader reader(view, take);
  TxnExecution execution(reader, /*writer=*/nullptr, max_bytes);
  if (absl::Status status = execution.Prepare(request); !status.ok()) return status;
  if (absl::Status status = execution.Run(request, response); !status.ok()) return status;
  response->mutable_header()->set_revision(view.applied().revision);
  return absl::OkStatus();
}

}  // namespace holdfast::server
