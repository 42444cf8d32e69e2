#include "server/backup_reader.h"

#include "base/strings.h"

namespace holdfast::server {
namespace {

using backup::v1::Frame;
using base::BackupRules;

BackupRules::Record RecordOf(const mvccpb::KeyValue& kv) {
  return {kv.key(), kv.create_revision(), kv.mod_revision(), kv.version(), kv.lease()};
}

absl::Status CheckRevisions(const backup::v1::Revisions& revisions, BackupRules& rules) {
  for (const backup::v1::Revisions::Revision& revision : revisions.revisions()) {
    absl::Status status = rules.OnRevision(revision.revision(), revision.events_size());
    for (const mvccpb::Event& event : revision.events()) {
      if (status.ok()) {
        status = rules.OnEvent(RecordOf(event.kv()), event.type() == mvccpb::Event::DELETE);
      }
    }
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<bool> BackupReader::Next(Frame* frame) {
  while (true) {
    const absl::StatusOr<bool> more = frames_.Next(&bytes_);
    if (!more.ok()) return more.status();
    if (!*more) {
      if (absl::Status status = rules_.OnFinish(); !status.ok()) return status;
      return false;
    }
    if (!frame->ParseFromString(bytes_)) {
      return absl::DataLossError("not a sound backup: a frame is no message");
    }
    if (absl::Status status = Check(*frame); !status.ok()) return status;
    if (!frame->has_padding()) return true;
  }
}

absl::Status BackupReader::Check(const Frame& frame) {
  switch (frame.part_case()) {
    case Frame::kHeader: {
      const backup::v1::Header& header = frame.header();
      return rules_.OnHeader({header.format(), header.revision(), header.after_revision()});
    }
    case Frame::kRecords:
      for (const mvccpb::KeyValue& kv : frame.records().kvs()) {
        if (absl::Status status = rules_.OnRecord(RecordOf(kv)); !status.ok()) return status;
      }
      return absl::OkStatus();
    case Frame::kLeases:
      for (const backup::v1::Leases::Lease& lease : frame.leases().leases()) {
        if (absl::Status status = rules_.OnLease(lease.id(), lease.granted_ttl_s()); !status.ok()) {
          return status;
        }
      }
      return absl::OkStatus();
    case Frame::kRevisions:
      return CheckRevisions(frame.revisions(), rules_);
    case Frame::kEnd:
      return rules_.OnEnd({frame.end().records(), frame.end().leases(), frame.end().events()});
    case Frame::kPadding:
      return rules_.OnPadding();
    case Frame::PART_NOT_SET:
      break;
  }
  return absl::DataLossError("not a sound backup: a frame of no kind that this program knows");
}

}  // namespace holdfast::server
