#include "base/backup_rules.h"

#include <fmt/format.h>

#include "base/frames.h"
#include "base/strings.h"

namespace holdfast::base {
namespace {

template <class... Args>
absl::Status Broken(fmt::format_string<Args...> format, Args&&... args) {
  return absl::DataLossError(
      ToAbsl("not a sound backup: " + fmt::format(format, std::forward<Args>(args)...)));
}

absl::Status CheckRecord(const BackupRules::Record& record) {
  if (record.key.empty()) return Broken("a key is empty");
  if (record.create_revision < 1 || record.create_revision > record.mod_revision ||
      record.version < 1) {
    return Broken("the revisions of {} cannot be: created {}, changed {}, version {}",
                  Printable(record.key), record.create_revision, record.mod_revision,
                  record.version);
  }
  return absl::OkStatus();
}

}  // namespace

uint64_t BackupPadding(uint64_t bytes) {
  if (bytes % kBackupAlignment == 0) return kNoPadding;
  // Head, tag, and the size as a varint of 1 or 2 bytes.
  for (uint64_t total = kBackupAlignment - bytes % kBackupAlignment;; total += kBackupAlignment) {
    for (const uint64_t size_bytes : {1, 2}) {
      const uint64_t around = kFrameHeadBytes + 1 + size_bytes;
      if (total < around) continue;
      const uint64_t padding = total - around;
      if ((padding < 128) == (size_bytes == 1)) return padding;
    }
  }
}

absl::Status BackupRules::CheckOpen(std::string_view what) const {
  if (state_ == State::kOpen) return absl::OkStatus();
  return Broken("{} {} the {}", what, state_ == State::kEmpty ? "before" : "behind",
                state_ == State::kEmpty ? "header" : "end");
}

absl::Status BackupRules::OnHeader(const Header& header) {
  if (state_ != State::kEmpty) return Broken("a second header");
  if (header.format != kBackupFormat) {
    return absl::FailedPreconditionError(ToAbsl(
        fmt::format("the backup has format {}, and this program reads format {}: use the release "
                    "that wrote it, or a newer one",
                    header.format, kBackupFormat)));
  }
  if (header.revision < 1 || header.after_revision < 0 ||
      header.after_revision >= header.revision) {
    return Broken("it is of revision {}, after {}", header.revision, header.after_revision);
  }
  header_ = header;
  last_revision_ = header.after_revision;
  state_ = State::kOpen;
  return absl::OkStatus();
}

absl::Status BackupRules::OnRecord(const Record& record) {
  if (absl::Status status = CheckOpen("a record"); !status.ok()) return status;
  if (header_.after_revision != 0) return Broken("an increment holds a record");
  if (absl::Status status = CheckRecord(record); !status.ok()) return status;
  if (record.mod_revision > header_.revision) {
    return Broken("{} changed at {}, behind its revision {}", Printable(record.key),
                  record.mod_revision, header_.revision);
  }
  if (any_key_ && record.key <= last_key_) {
    return Broken("{} stands behind {}", Printable(record.key), Printable(last_key_));
  }
  any_key_ = true;
  last_key_.assign(record.key);
  ++counts_.records;
  return absl::OkStatus();
}

absl::Status BackupRules::OnLease(int64_t id, int64_t granted_ttl_s) {
  if (absl::Status status = CheckOpen("a lease"); !status.ok()) return status;
  if (id == 0 || granted_ttl_s < 1) return Broken("lease {:x} of {} s", id, granted_ttl_s);
  ++counts_.leases;
  return absl::OkStatus();
}

absl::Status BackupRules::OnRevision(int64_t revision, int events) {
  if (absl::Status status = CheckOpen("a revision"); !status.ok()) return status;
  if (header_.after_revision == 0) return Broken("a full backup holds events");
  if (revision <= last_revision_ || revision > header_.revision) {
    return Broken("revision {} stands behind {}, in an increment up to {}", revision,
                  last_revision_, header_.revision);
  }
  if (events < 1) return Broken("revision {} has no events", revision);
  last_revision_ = revision;
  return absl::OkStatus();
}

absl::Status BackupRules::OnEvent(const Record& record, bool deletion) {
  if (absl::Status status = CheckOpen("an event"); !status.ok()) return status;
  if (record.key.empty()) return Broken("a key is empty");
  if (!deletion) {
    if (absl::Status status = CheckRecord(record); !status.ok()) return status;
  }
  if (record.mod_revision != last_revision_) {
    return Broken("an event of revision {} among those of {}", record.mod_revision, last_revision_);
  }
  ++counts_.events;
  return absl::OkStatus();
}

absl::Status BackupRules::OnEnd(const Counts& told) {
  if (absl::Status status = CheckOpen("an end"); !status.ok()) return status;
  if (!(told == counts_)) {
    return Broken("it tells of {} records, {} leases, {} events, and holds {}, {}, {}",
                  told.records, told.leases, told.events, counts_.records, counts_.leases,
                  counts_.events);
  }
  state_ = State::kEnded;
  return absl::OkStatus();
}

absl::Status BackupRules::OnPadding() {
  if (state_ == State::kEnded) return absl::OkStatus();
  return Broken("padding before the end");
}

absl::Status BackupRules::OnFinish() const {
  if (state_ == State::kEnded) return absl::OkStatus();
  return absl::DataLossError("the backup is cut off: it has no end");
}

}  // namespace holdfast::base
