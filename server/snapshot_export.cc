#include "server/snapshot_export.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/backup_rules.h"
#include "base/check.h"
#include "base/frames.h"
#include "holdfast/backup.pb.h"
#include "server/lease_record.h"

namespace holdfast::server {
namespace {

using backup::v1::Frame;

// Leases of one frame; some 20 bytes each.
constexpr int kLeasesPerFrame = 8192;

class SnapshotExportImpl : public SnapshotExport {
 public:
  SnapshotExportImpl(std::shared_ptr<storage::MvccStore> store,
                     std::unique_ptr<storage::MvccStore::View> view, const Origin& origin)
      : store_(std::move(store)),
        view_(std::move(view)),
        origin_(origin),
        guess_(store_->in_use_bytes()),
        writer_([this](std::string_view bytes) {
          ready_.append(bytes);
          return absl::OkStatus();
        }) {}

  ~SnapshotExportImpl() override { view_.reset(); }

  absl::StatusOr<std::string> Next(size_t max_bytes) override;
  bool done() const override { return step_ == Step::kDone && ready_.size() == taken_; }
  int64_t revision() const override { return view_->applied().revision; }
  uint64_t remaining_bytes_estimate() const override {
    if (done()) return 0;
    return guess_ > handed_out_ ? guess_ - handed_out_ : 1;
  }

 private:
  enum class Step { kHeader, kRecords, kLeases, kEnd, kDone };

  // Adds at least one frame to ready_, or comes to kDone.
  absl::Status MakeFrame();
  absl::Status AddHeader();
  absl::Status AddRecords();
  absl::Status AddLeases();
  absl::Status AddEnd();
  absl::Status Add(const Frame& frame);

  const std::shared_ptr<storage::MvccStore> store_;
  std::unique_ptr<storage::MvccStore::View> view_;  // of store_: goes first
  const Origin origin_;
  const uint64_t guess_;
  Step step_ = Step::kHeader;
  std::string next_key_;    // the first record that is still to come
  std::string next_lease_;  // likewise, as a key of the meta records
  backup::v1::End counts_;
  std::string ready_;
  size_t taken_ = 0;  // of ready_
  uint64_t handed_out_ = 0;
  base::FrameWriter writer_;
};

absl::StatusOr<std::string> SnapshotExportImpl::Next(size_t max_bytes) {
  CHECK(max_bytes > 0);
  while (ready_.size() - taken_ < max_bytes && step_ != Step::kDone) {
    if (absl::Status status = MakeFrame(); !status.ok()) return status;
  }
  std::string piece = ready_.substr(taken_, max_bytes);
  taken_ += piece.size();
  handed_out_ += piece.size();
  // Moving what is left is worth it only once it is the smaller part.
  if (taken_ >= ready_.size() - taken_) {
    ready_.erase(0, taken_);
    taken_ = 0;
  }
  return piece;
}

absl::Status SnapshotExportImpl::MakeFrame() {
  switch (step_) {
    case Step::kHeader:
      return AddHeader();
    case Step::kRecords:
      return AddRecords();
    case Step::kLeases:
      return AddLeases();
    case Step::kEnd:
      return AddEnd();
    case Step::kDone:
      break;
  }
  return absl::OkStatus();
}

absl::Status SnapshotExportImpl::AddHeader() {
  Frame frame;
  backup::v1::Header& header = *frame.mutable_header();
  header.set_format(base::kBackupFormat);
  header.set_cluster_id(origin_.cluster_id);
  header.set_incarnation(origin_.incarnation);
  header.set_revision(view_->applied().revision);
  header.set_compact_revision(view_->applied().compact_revision);
  header.set_version(origin_.version);
  header.set_wall_time_unix_ms(origin_.wall_time_unix_ms);
  step_ = Step::kRecords;
  return Add(frame);
}

absl::Status SnapshotExportImpl::AddRecords() {
  Frame frame;
  size_t bytes = 0;
  bool more = false;
  const absl::Status scanned =
      view_->ScanRecords(next_key_, [&](const storage::KeyValueView& record) {
        if (bytes >= kExportFrameBytes) {
          more = true;
          next_key_.assign(record.key);
          return false;
        }
        mvccpb::KeyValue& kv = *frame.mutable_records()->add_kvs();
        kv.set_key(record.key.data(), record.key.size());
        kv.set_value(record.value.data(), record.value.size());
        kv.set_create_revision(record.create_revision);
        kv.set_mod_revision(record.mod_revision);
        kv.set_version(record.version);
        kv.set_lease(record.lease);
        bytes += record.key.size() + record.value.size();
        return true;
      });
  if (!scanned.ok()) return scanned;
  if (!more) step_ = Step::kLeases;
  counts_.set_records(counts_.records() + static_cast<uint64_t>(frame.records().kvs_size()));
  return frame.has_records() ? Add(frame) : absl::OkStatus();
}

absl::Status SnapshotExportImpl::AddLeases() {
  Frame frame;
  absl::Status bad;
  bool more = false;
  if (next_lease_.empty()) next_lease_ = kMetaLeasePrefix;
  const absl::Status scanned = view_->ScanMeta(
      kMetaLeasePrefix, next_lease_, [&](std::string_view key, std::string_view value) {
        if (frame.leases().leases_size() >= kLeasesPerFrame) {
          more = true;
          next_lease_.assign(key);
          return false;
        }
        int64_t id = 0;
        LeaseRecord record;
        if (!ParseLeaseMetaKey(key, &id) || !DecodeLeaseRecord(value, &record)) {
          bad = absl::DataLossError("the record of a lease is not in a form this program wrote");
          return false;
        }
        backup::v1::Leases::Lease& lease = *frame.mutable_leases()->add_leases();
        lease.set_id(id);
        lease.set_granted_ttl_s(record.ttl_s);
        return true;
      });
  if (!scanned.ok()) return scanned;
  if (!bad.ok()) return bad;
  if (!more) step_ = Step::kEnd;
  counts_.set_leases(counts_.leases() + static_cast<uint64_t>(frame.leases().leases_size()));
  return frame.has_leases() ? Add(frame) : absl::OkStatus();
}

absl::Status SnapshotExportImpl::AddEnd() {
  Frame frame;
  *frame.mutable_end() = counts_;
  step_ = Step::kDone;
  if (absl::Status status = Add(frame); !status.ok()) return status;
  const uint64_t padding = base::BackupPadding(writer_.bytes());
  if (padding == base::kNoPadding) return absl::OkStatus();
  frame.set_padding(std::string(padding, '\0'));
  return Add(frame);
}

absl::Status SnapshotExportImpl::Add(const Frame& frame) {
  return writer_.Write(frame.SerializeAsString());
}

}  // namespace

std::unique_ptr<SnapshotExport> SnapshotExport::Create(
    std::shared_ptr<storage::MvccStore> store, std::unique_ptr<storage::MvccStore::View> view,
    const Origin& origin) {
  return std::make_unique<SnapshotExportImpl>(std::move(store), std::move(view), origin);
}

}  // namespace holdfast::server
