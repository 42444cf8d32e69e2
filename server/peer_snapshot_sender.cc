#include "server/peer_snapshot_sender.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/crc32c.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/strings.h"
#include "server/peer_snapshot_assembler.h"
#include "storage/file.h"

namespace holdfast::server {
namespace {

using raft::v1::SnapshotAnswer;
using raft::v1::SnapshotChunk;
using raft::v1::SnapshotMeta;

constexpr std::chrono::milliseconds kConnectPoll(50);
constexpr std::chrono::seconds kReportInterval(10);
constexpr std::chrono::milliseconds kRetryMin(100);
constexpr std::chrono::seconds kRetryMax(5);
// What any disk reads: a receiver that verifies what it has must answer within its bytes at this
// rate, and no transfer's time is less than this allows for.
constexpr double kVerifyBytesPerSecond = 64 << 20;
constexpr double kLeastBytesPerSecond = 4 << 20;
constexpr double kMebibyte = 1 << 20;

SteadyTime::duration TimeFor(uint64_t bytes, double bytes_per_second) {
  return std::chrono::duration_cast<SteadyTime::duration>(
      std::chrono::duration<double>(double(bytes) / bytes_per_second));
}

// Of all tries together: grows with the size, so that no state is too large to be sent.
SteadyTime::duration Budget(const PeerTransport::Options& options, uint64_t bytes) {
  double rate = kLeastBytesPerSecond;
  if (options.snapshot_bytes_per_second > 0) {
    rate = std::min(rate, double(options.snapshot_bytes_per_second) / 2);
  }
  return ToSteady(options.snapshot_timeout) + TimeFor(bytes, rate);
}

absl::Status ListFiles(const std::string& dir, SnapshotMeta* meta) {
  std::error_code error;
  std::vector<std::pair<std::string, uint64_t>> files;
  for (std::filesystem::directory_iterator it(dir, error), end; !error && it != end;
       it.increment(error)) {
    if (!it->is_regular_file()) {
      return absl::InvalidArgumentError(
          base::ToAbsl("a snapshot holds files only, not " + it->path().string()));
    }
    files.emplace_back(it->path().filename().string(), it->file_size(error));
    if (error) break;
  }
  if (error) {
    return absl::InternalError(base::ToAbsl(
        fmt::format("cannot read the snapshot directory {}: {}", dir, error.message())));
  }
  std::sort(files.begin(), files.end());
  for (auto& [name, size] : files) {
    raft::v1::SnapshotFile* file = meta->add_files();
    file->set_name(std::move(name));
    file->set_size(size);
  }
  return absl::OkStatus();
}

absl::StatusOr<SnapshotMeta> MakeMeta(const PeerTransport::Options& options,
                                      const raft::Transport::SnapshotToSend& snapshot) {
  SnapshotMeta meta;
  meta.set_cluster_id(options.cluster_id);
  meta.set_from(options.self.value);
  meta.set_to(snapshot.to.value);
  meta.set_term(snapshot.term.value);
  meta.set_index(snapshot.mark.index.value);
  meta.set_index_term(snapshot.mark.term.value);
  meta.set_membership(snapshot.mark.membership);
  meta.set_snapshot_id(std::max<uint64_t>(1, base::RandomSeed()));
  if (absl::Status status = ListFiles(snapshot.dir, &meta); !status.ok()) return status;
  if (absl::Status status = CheckSnapshotMeta(meta); !status.ok()) return status;
  return meta;
}

// A broken connection, a damaged chunk and a full disk may pass; a refusal will not.
bool WorthAnotherTry(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kDataLoss:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
      return true;
    default:
      return false;
  }
}

}  // namespace

void SnapshotSender::Send(raft::Transport::SnapshotToSend snapshot, Done done) {
  absl::Status refused;
  {
    std::lock_guard lock(mutex_);
    size_t running = 0;
    for (const std::unique_ptr<Job>& job : jobs_) {
      if (job->finished) continue;
      ++running;
      if (job->snapshot.to == snapshot.to) {
        refused = absl::AlreadyExistsError("a snapshot is on its way to this member already");
      }
    }
    if (running >= kMaxOutgoingSnapshots) {
      refused = absl::ResourceExhaustedError(
          base::ToAbsl(fmt::format("{} snapshots are being sent already", running)));
    }
    if (stopping_) refused = absl::UnavailableError("this member is stopping");
    if (refused.ok()) {
      auto job = std::make_unique<Job>();
      job->snapshot = std::move(snapshot);
      job->done = std::move(done);
      // Under the lock: Run cannot report `exited` before `thread` is set.
      job->thread = std::thread([this, raw = job.get()] { Run(raw); });
      jobs_.push_back(std::move(job));
      return;
    }
  }
  std::move(done)(refused);
}

void SnapshotSender::Run(Job* job) {
  const NodeId to = job->snapshot.to;
  const Index index = job->snapshot.mark.index;
  const SteadyTime start = SteadyNow();
  LOG_INFO("sending a snapshot at index {} to member {}", index.value, to.value);
  const absl::Status status = SendWithRetries(job);
  if (status.ok()) {
    const std::chrono::duration<double> took = SteadyNow() - start;
    LOG_INFO("member {} has installed the snapshot at index {}: {:.1f} MiB sent in {:.1f} s",
             to.value, index.value, double(job->sent) / kMebibyte, took.count());
  } else {
    LOG_WARN("snapshot at index {} to member {} given up: {}", index.value, to.value,
             base::Message(status));
  }
  {
    std::lock_guard lock(mutex_);
    job->finished = true;  // before `done`, which may ask for the next one
  }
  std::move(job->done)(status);
  std::lock_guard lock(mutex_);
  job->exited = true;
}

absl::Status SnapshotSender::SendWithRetries(Job* job) {
  absl::StatusOr<SnapshotMeta> meta = MakeMeta(options_, job->snapshot);
  if (!meta.ok()) return meta.status();
  job->meta = *std::move(meta);
  job->bytes = SnapshotBytes(job->meta);
  SteadyTime progress = SteadyNow();
  job->deadline = progress + Budget(options_, job->bytes);
  job->next_report = progress + kReportInterval;
  SteadyTime next_warning = progress;
  SteadyTime::duration pause = kRetryMin;
  while (true) {
    const uint64_t furthest = job->furthest;
    absl::Status status = Try(job);
    if (status.ok() || !WorthAnotherTry(status)) return status;
    const SteadyTime now = SteadyNow();
    if (job->furthest > furthest) {
      progress = now;
      pause = kRetryMin;
    }
    if (absl::Status over = WaitUntil(job, now); !over.ok()) return over;
    if (now - progress >= ToSteady(options_.snapshot_retry_for) || now >= job->deadline) {
      return status;
    }
    if (now >= next_warning) {
      LOG_WARN("snapshot to member {} broke at {:.1f} of {:.1f} MiB and will go on: {}",
               job->snapshot.to.value, double(job->furthest) / kMebibyte,
               double(job->bytes) / kMebibyte, base::Message(status));
      next_warning = now + kReportInterval;
    }
    if (absl::Status over = WaitUntil(job, now + pause); !over.ok()) return over;
    pause = std::min<SteadyTime::duration>(2 * pause, kRetryMax);
  }
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> SnapshotSender::Connect(Job* job) {
  absl::Status status = absl::NotFoundError("this member is not in the membership");
  for (const std::string& url : world_.urls(job->snapshot.to)) {
    auto channel = CreatePeerChannel(options_, url);
    if (!channel.ok()) {
      status = channel.status();
      continue;
    }
    const SteadyTime give_up = SteadyNow() + ToSteady(kConnectTimeout);
    while (SteadyNow() < give_up) {
      if (absl::Status over = WaitUntil(job, SteadyTime()); !over.ok()) return over;
      if ((*channel)->WaitForConnected(std::chrono::system_clock::now() + kConnectPoll)) {
        return *channel;
      }
    }
    status = absl::UnavailableError(base::ToAbsl("cannot connect to " + url));
  }
  return status;
}

absl::Status SnapshotSender::Try(Job* job) {
  const absl::StatusOr<std::shared_ptr<grpc::Channel>> channel = Connect(job);
  if (!channel.ok()) return channel.status();
  grpc::ClientContext context;
  const auto left =
      std::chrono::duration_cast<std::chrono::milliseconds>(job->deadline - SteadyNow());
  context.set_deadline(
      gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                   gpr_time_from_millis(std::max<int64_t>(1, left.count()), GPR_TIMESPAN)));
  if (absl::Status over = SetContext(job, &context); !over.ok()) return over;
  auto stub = raft::v1::Peer::NewStub(*channel);
  std::unique_ptr<Stream> stream = stub->InstallSnapshot(&context);

  uint64_t installed = 0;
  const absl::Status error = Push(job, stream.get(), &installed);
  if (!error.ok()) context.TryCancel();
  const absl::Status answer = FromGrpc(stream->Finish());
  job->stall_at.store(SteadyTime::max());
  if (absl::Status over = SetContext(job, nullptr); !over.ok()) return over;
  if (!error.ok()) return error;
  if (job->stalled.exchange(false)) {
    return absl::DeadlineExceededError(
        base::ToAbsl(fmt::format("the receiver took nothing for {}",
                                 absl::FormatDuration(options_.snapshot_stall_timeout))));
  }
  if (answer.ok() && installed != job->snapshot.mark.index.value) {
    return absl::InternalError(base::ToAbsl(fmt::format("the receipt is for index {}", installed)));
  }
  return answer;
}

absl::Status SnapshotSender::Push(Job* job, Stream* stream, uint64_t* installed) {
  const SteadyTime::duration stall = ToSteady(options_.snapshot_stall_timeout);
  SnapshotChunk first;
  *first.mutable_meta() = job->meta;
  SnapshotAnswer answer;
  // The receiver may have to read what it has of an earlier life.
  job->stall_at.store(SteadyNow() + stall + TimeFor(job->bytes, kVerifyBytesPerSecond));
  if (!stream->Write(first) || !stream->Read(&answer)) return absl::OkStatus();
  if (answer.have_bytes() > job->bytes) {
    return absl::InvalidArgumentError(base::ToAbsl(
        fmt::format("the receiver says it has {} of {} bytes", answer.have_bytes(), job->bytes)));
  }
  if (answer.have_bytes() > 0) {
    LOG_INFO("member {} has {:.1f} of {:.1f} MiB of this snapshot already", job->snapshot.to.value,
             double(answer.have_bytes()) / kMebibyte, double(job->bytes) / kMebibyte);
  }
  absl::Status error;
  if (!SendFiles(job, answer.have_bytes(), stream, &error)) return error;
  job->stall_at.store(SteadyTime::max());  // installing takes what it takes
  stream->WritesDone();
  while (stream->Read(&answer)) *installed = answer.installed_index();
  return absl::OkStatus();
}

bool SnapshotSender::SendFiles(Job* job, uint64_t have_bytes, Stream* stream, absl::Status* error) {
  uint64_t before = 0;
  for (int i = 0; i < job->meta.files_size(); ++i) {
    const uint64_t size = job->meta.files(i).size();
    const uint64_t skip = std::min(size, have_bytes - std::min(have_bytes, before));
    if (skip < size && !SendFile(job, i, skip, before, stream, error)) return false;
    before += size;
  }
  return true;
}

bool SnapshotSender::SendFile(Job* job, int number, uint64_t skip, uint64_t before, Stream* stream,
                              absl::Status* error) {
  const raft::v1::SnapshotFile& due = job->meta.files(number);
  const std::string path = job->snapshot.dir + "/" + due.name();
  auto file = storage::PosixFileSystem()->Open(path, storage::OpenMode::kExisting);
  if (!file.ok()) {
    *error = absl::FailedPreconditionError(file.status().message());
    return false;
  }
  const size_t chunk_bytes = rate_.ChunkBytes(options_.snapshot_chunk_bytes);
  SnapshotChunk chunk;
  for (uint64_t offset = skip; offset < due.size(); offset += chunk.data().size()) {
    absl::StatusOr<std::string> data =
        (*file)->ReadAt(offset, std::min<uint64_t>(chunk_bytes, due.size() - offset));
    if (!data.ok() || data->empty()) {
      // Of our own disk: another try would read the same.
      *error = absl::FailedPreconditionError(
          data.ok() ? base::ToAbsl(path + " became shorter meanwhile") : data.status().message());
      return false;
    }
    chunk.set_file(static_cast<uint32_t>(number));
    chunk.set_offset(offset);
    chunk.set_crc32c(base::Crc32c(*data));
    chunk.set_data(*std::move(data));
    const SteadyTime moment = rate_.Reserve(chunk.data().size(), SteadyNow());
    job->stall_at.store(SteadyTime::max());
    if (*error = WaitUntil(job, moment); !error->ok()) return false;
    const SteadyTime now = SteadyNow();
    job->stall_at.store(now + ToSteady(options_.snapshot_stall_timeout));
    if (!stream->Write(chunk)) return false;
    const uint64_t at = before + offset + chunk.data().size();
    job->furthest = std::max(job->furthest, at);
    job->sent += chunk.data().size();
    if (now >= job->next_report) Report(job, at, now);
  }
  return true;
}

void SnapshotSender::Report(Job* job, uint64_t at, SteadyTime now) const {
  LOG_INFO("snapshot at index {} to member {}: {:.1f} of {:.1f} MiB ({:.0f} %)",
           job->snapshot.mark.index.value, job->snapshot.to.value, double(at) / kMebibyte,
           double(job->bytes) / kMebibyte, 100.0 * double(at) / double(job->bytes));
  job->next_report = now + kReportInterval;
}

absl::Status SnapshotSender::WaitUntil(Job* job, SteadyTime moment) {
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, moment, [job] { return !job->over.ok(); });
  return job->over;
}

absl::Status SnapshotSender::SetContext(Job* job, grpc::ClientContext* context) {
  std::lock_guard lock(mutex_);
  if (context != nullptr && !job->over.ok()) return job->over;
  job->context = context;
  return job->over;
}

void SnapshotSender::GiveUp(Job* job, absl::Status why) {
  if (!job->over.ok() || job->finished) return;
  job->over = std::move(why);
  if (job->context != nullptr) job->context->TryCancel();
  changed_.notify_all();
}

void SnapshotSender::Tend(SteadyTime now) {
  // By (peer, term): asked without the lock, and told by it afterwards.
  std::vector<std::pair<NodeId, Term>> senseless;
  {
    std::lock_guard lock(mutex_);
    for (const std::unique_ptr<Job>& job : jobs_) {
      if (!job->finished) senseless.emplace_back(job->snapshot.to, job->snapshot.term);
    }
  }
  std::erase_if(senseless, [this](const auto& item) {
    return world_.leads_in(item.second) && !world_.urls(item.first).empty();
  });
  std::list<std::unique_ptr<Job>> exited;
  {
    std::lock_guard lock(mutex_);
    for (auto it = jobs_.begin(); it != jobs_.end();) {
      Job& job = **it;
      if (std::count(senseless.begin(), senseless.end(),
                     std::pair(job.snapshot.to, job.snapshot.term)) > 0) {
        GiveUp(&job, absl::AbortedError("this member no longer leads in the snapshot's term, or "
                                        "the receiver is no longer a member"));
      }
      if (job.context != nullptr && now > job.stall_at.load()) {
        job.stalled.store(true);
        job.context->TryCancel();
      }
      auto next = std::next(it);
      if (job.exited) exited.splice(exited.end(), jobs_, it);
      it = next;
    }
  }
  for (const std::unique_ptr<Job>& job : exited) job->thread.join();
}

void SnapshotSender::Stop() {
  std::list<std::unique_ptr<Job>> jobs;
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    for (const std::unique_ptr<Job>& job : jobs_) {
      GiveUp(job.get(), absl::UnavailableError("this member is stopping"));
    }
    jobs.swap(jobs_);
  }
  for (const std::unique_ptr<Job>& job : jobs) job->thread.join();
}

}  // namespace holdfast::server
