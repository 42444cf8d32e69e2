#include "storage/mvcc_database.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <rocksdb/convenience.h>
#include <rocksdb/experimental.h>
#include <rocksdb/perf_level.h>
#include <rocksdb/utilities/checkpoint.h>

#include "base/check.h"
#include "base/log.h"
#include "base/strings.h"
#include "storage/damage.h"
#include "storage/mvcc_codec.h"
#include "storage/mvcc_options.h"

namespace holdfast::storage::mvcc {
namespace {

namespace fs = std::filesystem;

constexpr size_t kWriteBufferBytesMin = size_t{64} << 10;
constexpr int kCheckpointOpenFilesMax = 16;

// RocksDB's messages into nowhere: a checkpoint must not gain a log file by being looked at.
class SilentLogger : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char* /*format*/, va_list /*args*/) override {}
};

absl::Status CheckOptions(const MvccStore::Options& options) {
  if (options.dir.empty()) {
    return absl::InvalidArgumentError("the MVCC store needs a directory: set dir");
  }
  if (options.write_buffer_bytes < kWriteBufferBytesMin) {
    return absl::InvalidArgumentError(
        fmt::format("write_buffer_bytes = {} is below the least of {}: raise it",
                    options.write_buffer_bytes, kWriteBufferBytesMin));
  }
  return absl::OkStatus();
}

// The disk, or a file that is gone: bytes that were written and do not come back.
bool IsFailedRead(const rocksdb::Status& status) {
  if (status.IsPathNotFound()) return true;
  const std::string text = status.ToString();
  return status.IsIOError() && text.find(std::strerror(EIO)) != std::string::npos &&
         (text.find("While pread") != std::string::npos ||
          text.find("While read") != std::string::npos);
}

uint64_t NumberBehind(std::string_view text, std::string_view word) {
  const size_t at = text.find(word);
  uint64_t number = 0;
  if (at == std::string_view::npos) return number;
  const std::string_view digits = text.substr(at + word.size());
  std::from_chars(digits.data(), digits.data() + digits.size(), number);
  return number;
}

// RocksDB tells the place in its text alone: "... in /dir/000012.sst offset 0 size 3993".
Damage DamageIn(std::string_view text) {
  Damage damage = {.part = Damage::Part::kData, .what = std::string(text)};
  for (const std::string_view sign : {".sst", "MANIFEST-", "CURRENT"}) {
    const size_t at = text.find(sign);
    if (at == std::string_view::npos) continue;
    const size_t space = text.find_last_of(" \"'", at);
    const size_t begin = space == std::string_view::npos ? 0 : space + 1;
    const size_t end = std::min(text.find_first_of(" :;,\"'", at), text.size());
    damage.file = text.substr(begin, end - begin);
    const std::string_view rest = text.substr(end);
    if (const uint64_t size = NumberBehind(rest, " size "); size > 0) {
      damage.first_byte = NumberBehind(rest, " offset ");
      damage.last_byte = damage.first_byte + size - 1;
    }
    break;
  }
  return damage;
}

// RocksDB takes a directory without CURRENT for a new one and would build over what is there.
absl::Status CheckNotHeadless(const std::string& dir) {
  std::error_code error;
  if (fs::exists(fs::path(dir) / "CURRENT", error)) return absl::OkStatus();
  for (fs::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    if (it->path().extension() == ".sst") {
      return DamagedData(dir, "it holds data files but no CURRENT file");
    }
  }
  if (error) {
    return absl::FailedPreconditionError(
        fmt::format("cannot list {}: {}: check its permissions", dir, error.message()));
  }
  return absl::OkStatus();
}

absl::Status NewerFormat(const std::string& dir) {
  return absl::FailedPreconditionError(fmt::format(
      "{} was written by a newer format than {}: start the newer version of this program", dir,
      kFormatVersion));
}

absl::Status CheckFamilies(const rocksdb::DBOptions& options, const std::string& dir) {
  std::error_code error;
  if (!fs::exists(fs::path(dir) / "CURRENT", error)) return absl::OkStatus();
  std::vector<std::string> names;
  const rocksdb::Status status = rocksdb::DB::ListColumnFamilies(options, dir, &names);
  if (!status.ok()) return ToStatus(status, fmt::format("cannot read {}", dir));
  for (const std::string& name : names) {
    if (name != kCurrentFamily && name != kHistoryFamily &&
        name != rocksdb::kDefaultColumnFamilyName) {
      return NewerFormat(dir);
    }
  }
  return absl::OkStatus();
}

// RocksDB has no code of its own for a held lock, only these two texts (same process, other one).
bool IsLockHeld(const rocksdb::Status& status) {
  const std::string text = status.ToString();
  return status.IsIOError() && (text.find("lock hold by current process") != std::string::npos ||
                                text.find("While lock file") != std::string::npos);
}

absl::Status ReadApplied(rocksdb::DB* db, rocksdb::ColumnFamilyHandle* meta, bool* found,
                         AppliedState* applied) {
  rocksdb::PinnableSlice bytes;
  const rocksdb::Status status =
      db->Get(rocksdb::ReadOptions(), meta, rocksdb::Slice(kAppliedKey), &bytes);
  *found = status.ok();
  if (status.IsNotFound()) {
    *applied = AppliedState{};
    return absl::OkStatus();
  }
  if (!status.ok()) return ToStatus(status, "cannot read the applied state");
  if (!DecodeAppliedState(bytes.ToStringView(), applied)) {
    return DamagedData(db->GetName(), "the applied state is not in a form this program ever wrote");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status DamagedData(const std::string& dir, std::string_view what) {
  return DamageError({.part = Damage::Part::kData, .file = dir, .what = std::string(what)});
}

absl::Status ToStatus(const rocksdb::Status& status, std::string_view what) {
  if (status.ok()) return absl::OkStatus();
  const std::string text = fmt::format("{}: {}", what, status.ToString());
  if (status.IsCorruption() || IsFailedRead(status)) {
    return Annotate(DamageError(DamageIn(status.ToString())), what);
  }
  if (status.IsNoSpace()) {
    return absl::ResourceExhaustedError(text + ": free space on the disk, then restart");
  }
  return absl::InternalError(text);
}

void ReclaimHorizon::AddView(int64_t compact_revision) {
  absl::MutexLock lock(&mu_);
  ++views_[compact_revision];
}

void ReclaimHorizon::RemoveView(int64_t compact_revision) {
  absl::MutexLock lock(&mu_);
  const auto it = views_.find(compact_revision);
  CHECK(it != views_.end());
  if (--it->second == 0) views_.erase(it);
}

void ReclaimHorizon::RaiseFlushed(int64_t compact_revision) {
  absl::MutexLock lock(&mu_);
  flushed_ = std::max(flushed_, compact_revision);
}

int64_t ReclaimHorizon::Current() const {
  absl::MutexLock lock(&mu_);
  return views_.empty() ? flushed_ : std::min(flushed_, views_.begin()->first);
}

bool ReclaimHorizon::HasViews() const {
  absl::MutexLock lock(&mu_);
  return !views_.empty();
}

void BackgroundErrors::Report(const absl::Status& status) {
  absl::MutexLock lock(&mu_);
  first_.Update(status);
  failed_.store(true, std::memory_order_release);
}

absl::Status BackgroundErrors::Check() const {
  if (!failed_.load(std::memory_order_acquire)) return absl::OkStatus();
  absl::MutexLock lock(&mu_);
  return first_;
}

absl::StatusOr<std::unique_ptr<Database>> Database::Open(const MvccStore::Options& options,
                                                         AppliedState* applied) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  std::unique_ptr<Database> database(new Database);
  database->records_ = std::make_unique<RecordCache>(options.record_cache_bytes);
  if (absl::Status status = database->OpenFiles(options); !status.ok()) return status;
  if (absl::Status status = database->CheckContents(applied); !status.ok()) return status;
  database->horizon_->RaiseFlushed(applied->compact_revision);
  return database;
}

absl::Status Database::OpenFiles(const MvccStore::Options& options) {
  dir_ = options.dir;
  std::error_code error;
  fs::create_directories(dir_, error);
  if (error) {
    return absl::FailedPreconditionError(
        fmt::format("cannot create {}: {}: check its parent's permissions", dir_, error.message()));
  }
  const RocksOptions rocks = MakeRocksOptions(options, horizon_, errors_);
  if (absl::Status status = CheckNotHeadless(dir_); !status.ok()) return status;
  if (absl::Status status = CheckFamilies(rocks.db, dir_); !status.ok()) return status;

  const std::vector<rocksdb::ColumnFamilyDescriptor> families = {
      {rocksdb::kDefaultColumnFamilyName, rocks.meta},
      {kCurrentFamily, rocks.current},
      {kHistoryFamily, rocks.history}};
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(rocks.db, dir_, families, &handles, &db);
  if (IsLockHeld(status)) {
    return absl::FailedPreconditionError(fmt::format(
        "{} is in use by another process: stop it, or give this one another directory ({})", dir_,
        status.ToString()));
  }
  if (!status.ok()) return ToStatus(status, fmt::format("cannot open {}", dir_));
  db_.reset(db);
  meta_ = handles[0];
  current_ = handles[1];
  history_ = handles[2];
  return absl::OkStatus();
}

absl::Status Database::WriteFormat() {
  std::string version;
  base::AppendBigEndian32(version, kFormatVersion);
  rocksdb::WriteBatch batch;
  batch.Put(meta_, rocksdb::Slice(kFormatKey), version);
  if (absl::Status written = Write(&batch); !written.ok()) return written;
  return Flush();
}

// A store is new if it has no format record; then it gets one, durably, before any data.
absl::Status Database::CheckContents(AppliedState* applied) {
  bool found = false;
  if (absl::Status status = ReadApplied(db_.get(), meta_, &found, applied); !status.ok()) {
    return status;
  }
  rocksdb::PinnableSlice format;
  rocksdb::Status status =
      db_->Get(rocksdb::ReadOptions(), meta_, rocksdb::Slice(kFormatKey), &format);
  if (status.IsNotFound() && !found) {
    return WriteFormat();
  }
  if (!status.ok() && !status.IsNotFound()) {
    return ToStatus(status, fmt::format("cannot read the format of {}", dir_));
  }
  if (!status.ok() || format.size() != 4) {
    return DamagedData(dir_, "it has no valid format record");
  }
  const uint32_t version = base::ReadBigEndian32(format.ToStringView());
  if (version > kFormatVersion) return NewerFormat(dir_);
  if (version < kFormatVersion) {
    // An older store is a valid newer one without leases. Said before anything new is written, so
    // that the older program refuses what it would not keep up.
    LOG_INFO("{}: format {} becomes {}", dir_, version, kFormatVersion);
    if (absl::Status raised = WriteFormat(); !raised.ok()) return raised;
  }

  // Cheap, and it would catch data that reached the disk without its applied index.
  std::unique_ptr<rocksdb::Iterator> newest(db_->NewIterator(rocksdb::ReadOptions(), history_));
  newest->SeekToLast();
  if (!newest->status().ok()) return ToStatus(newest->status(), "cannot read the history");
  ModRevision mod;
  if (newest->Valid() &&
      (!DecodeHistoryKey(newest->key().ToStringView(), &mod) || mod.main > applied->revision)) {
    return DamagedData(
        dir_, fmt::format("it holds history beyond its applied revision {}", applied->revision));
  }
  return absl::OkStatus();
}

Database::~Database() {
  if (db_ == nullptr) return;
  for (rocksdb::ColumnFamilyHandle* handle : {current_, history_, meta_}) {
    const rocksdb::Status status = db_->DestroyColumnFamilyHandle(handle);
    if (!status.ok()) LOG_WARN("closing {}: {}", dir_, status.ToString());
  }
  const rocksdb::Status status = db_->Close();
  if (!status.ok()) LOG_WARN("closing {}: {}", dir_, status.ToString());
}

absl::Status Database::Write(rocksdb::WriteBatch* batch) {
  if (absl::Status status = errors_->Check(); !status.ok()) return status;
  // Of the calling thread, which is always the same: else it counts each comparison of two keys in
  // a context that nobody reads.
  rocksdb::SetPerfLevel(rocksdb::PerfLevel::kDisable);
  rocksdb::WriteOptions options;
  options.disableWAL = true;
  return ToStatus(db_->Write(options, batch), "cannot write to the MVCC store");
}

absl::Status Database::Flush() {
  const rocksdb::Status status = db_->Flush(rocksdb::FlushOptions(), {meta_, current_, history_});
  if (!status.ok()) return ToStatus(status, "cannot flush the MVCC store");
  return errors_->Check();
}

absl::Status Database::Checkpoint(const std::string& dir, AppliedState* applied) {
  std::error_code error;
  const std::string target = fs::absolute(dir, error).lexically_normal().string();
  if (error || fs::exists(target, error) || error) {
    return absl::FailedPreconditionError(
        fmt::format("cannot make a checkpoint at {}: it must not exist yet{}{}", dir,
                    error ? ": " : "", error ? error.message() : ""));
  }
  rocksdb::Checkpoint* raw = nullptr;
  rocksdb::Status status = rocksdb::Checkpoint::Create(db_.get(), &raw);
  const std::unique_ptr<rocksdb::Checkpoint> checkpoint(raw);
  // Without a WAL the memtables must be flushed: a log size of 0 asks for that always.
  if (status.ok()) status = checkpoint->CreateCheckpoint(target, /*log_size_for_flush=*/0);
  if (!status.ok()) return ToStatus(status, fmt::format("cannot make a checkpoint at {}", dir));
  if (absl::Status background = errors_->Check(); !background.ok()) return background;

  // Commits may have run beside it, so only the copy itself knows what it holds.
  rocksdb::DBOptions options;
  options.info_log = std::make_shared<SilentLogger>();
  options.max_open_files = kCheckpointOpenFilesMax;
  options.skip_stats_update_on_db_open = true;
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* db = nullptr;
  status = rocksdb::DB::OpenForReadOnly(
      options, target,
      {{rocksdb::kDefaultColumnFamilyName, rocksdb::ColumnFamilyOptions()},
       {kCurrentFamily, rocksdb::ColumnFamilyOptions()},
       {kHistoryFamily, rocksdb::ColumnFamilyOptions()}},
      &handles, &db);
  if (!status.ok()) return ToStatus(status, fmt::format("cannot read the checkpoint {}", dir));
  const std::unique_ptr<rocksdb::DB> copy(db);
  // A copy is what other members begin with: rot must not go along. The files are links to our own,
  // so what is wrong with them is wrong with us.
  absl::Status result =
      ToStatus(copy->VerifyChecksum(), fmt::format("the checkpoint {} is damaged", dir));
  bool found = false;
  if (result.ok()) result = ReadApplied(copy.get(), handles[0], &found, applied);
  for (rocksdb::ColumnFamilyHandle* handle : handles) {
    result.Update(ToStatus(copy->DestroyColumnFamilyHandle(handle), "cannot close the checkpoint"));
  }
  return result;
}

void Database::ReclaimHistory() {
  const int64_t horizon = horizon_->Current();
  int64_t before = reclaimed_revision_.load();
  if (horizon <= before || !reclaimed_revision_.compare_exchange_strong(before, horizon)) return;
  const HistoryKey first = EncodeHistoryKey({0, 0});
  const HistoryKey last = EncodeHistoryKey({horizon - 1, UINT32_MAX});
  const rocksdb::Slice begin(AsView(first));
  const rocksdb::Slice end(AsView(last));
  rocksdb::Status status = rocksdb::DeleteFilesInRange(db_.get(), history_, &begin, &end);
  if (status.ok()) {
    status = rocksdb::experimental::SuggestCompactRange(db_.get(), history_, &begin, &end);
  }
  // Only space is lost: the range delete of the compaction itself has been committed.
  if (!status.ok()) LOG_WARN("freeing compacted history in {}: {}", dir_, status.ToString());
}

absl::Status Database::RewriteFiles(std::atomic<bool>* stop) {
  rocksdb::CompactRangeOptions options;
  // Beside the compactions that writes need, never in their place; and no write stalls for it.
  options.exclusive_manual_compaction = false;
  options.allow_write_stall = false;
  options.canceled = stop;
  const HistoryKey first = EncodeHistoryKey({0, 0});
  const HistoryKey last = EncodeHistoryKey({horizon_->Current(), UINT32_MAX});
  const rocksdb::Slice begin(AsView(first));
  const rocksdb::Slice end(AsView(last));
  // Only files that hold compacted history; what is behind it is as small as it gets.
  rocksdb::CompactRangeOptions history = options;
  history.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForceOptimized;
  rocksdb::Status status = db_->CompactRange(history, history_, &begin, &end);
  if (status.ok()) status = db_->CompactRange(options, current_, nullptr, nullptr);
  if (status.ok()) status = db_->CompactRange(options, meta_, nullptr, nullptr);
  if (status.IsIncomplete() && stop->load()) return errors_->Check();
  if (!status.ok()) return ToStatus(status, "cannot rewrite the files of the MVCC store");
  return errors_->Check();
}

uint64_t Database::SumProperty(const std::string& name) const {
  uint64_t sum = 0;
  for (rocksdb::ColumnFamilyHandle* family : {meta_, current_, history_}) {
    uint64_t value = 0;
    if (db_->GetIntProperty(family, name, &value)) sum += value;
  }
  return sum;
}

}  // namespace holdfast::storage::mvcc
