#include "server/peer_snapshot_sender.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/crc32c.h"
#include "base/log.h"
#include "base/strings.h"
#include "holdfast/raft.grpc.pb.h"
#include "server/peer_snapshot_assembler.h"
#include "storage/file.h"

namespace holdfast::server {
namespace {

using raft::v1::SnapshotChunk;
using raft::v1::SnapshotMeta;
using Writer = grpc::ClientWriter<SnapshotChunk>;

constexpr std::chrono::milliseconds kConnectPoll(50);

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
  if (absl::Status status = ListFiles(snapshot.dir, &meta); !status.ok()) return status;
  if (absl::Status status = CheckSnapshotMeta(meta); !status.ok()) return status;
  return meta;
}

// False, with `*error` still OK, when the receiver has ended the call: its status says why.
bool WriteFile(const std::string& path, uint32_t number, uint64_t size, size_t chunk_bytes,
               Writer* writer, std::atomic<SteadyTime>* progress, absl::Status* error) {
  auto file = storage::PosixFileSystem()->Open(path, storage::OpenMode::kExisting);
  if (!file.ok()) {
    *error = file.status();
    return false;
  }
  SnapshotChunk chunk;
  for (uint64_t offset = 0; offset < size; offset += chunk.data().size()) {
    absl::StatusOr<std::string> data =
        (*file)->ReadAt(offset, std::min<uint64_t>(chunk_bytes, size - offset));
    if (!data.ok() || data->empty()) {
      *error = data.ok() ? absl::DataLossError(base::ToAbsl(path + " became shorter meanwhile"))
                         : data.status();
      return false;
    }
    chunk.set_file(number);
    chunk.set_offset(offset);
    chunk.set_crc32c(base::Crc32c(*data));
    chunk.set_data(*std::move(data));
    if (!writer->Write(chunk)) return false;
    progress->store(SteadyNow());
  }
  return true;
}

}  // namespace

void SnapshotSender::Send(raft::Transport::SnapshotToSend snapshot, std::vector<std::string> urls,
                          Done done) {
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
      job->urls = std::move(urls);
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
  LOG_INFO("sending a snapshot at index {} to member {}", index.value, to.value);
  const absl::Status status = SendToAnyUrl(job);
  if (status.ok()) {
    LOG_INFO("member {} has installed the snapshot at index {}", to.value, index.value);
  } else {
    LOG_WARN("snapshot at index {} to member {} failed: {}", index.value, to.value,
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

absl::Status SnapshotSender::SendToAnyUrl(Job* job) {
  absl::StatusOr<std::shared_ptr<grpc::Channel>> channel = Connect(*job);
  if (!channel.ok()) return channel.status();
  return SendOver(*channel, job);
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> SnapshotSender::Connect(const Job& job) {
  absl::Status status = absl::NotFoundError("this member is not in the membership");
  for (const std::string& url : job.urls) {
    auto channel = CreatePeerChannel(options_, url);
    if (!channel.ok()) {
      status = channel.status();
      continue;
    }
    const SteadyTime give_up = SteadyNow() + ToSteady(kConnectTimeout);
    while (SteadyNow() < give_up) {
      if (stopping()) return absl::UnavailableError("this member is stopping");
      if ((*channel)->WaitForConnected(std::chrono::system_clock::now() + kConnectPoll)) {
        return *channel;
      }
    }
    status = absl::UnavailableError(base::ToAbsl("cannot connect to " + url));
  }
  return status;
}

absl::Status SnapshotSender::SendOver(const std::shared_ptr<grpc::Channel>& channel, Job* job) {
  absl::StatusOr<SnapshotMeta> meta = MakeMeta(options_, job->snapshot);
  if (!meta.ok()) return meta.status();

  grpc::ClientContext context;
  context.set_deadline(gpr_time_add(
      gpr_now(GPR_CLOCK_MONOTONIC),
      gpr_time_from_millis(absl::ToInt64Milliseconds(options_.snapshot_timeout), GPR_TIMESPAN)));
  if (!SetContext(job, &context)) return absl::UnavailableError("this member is stopping");
  auto stub = raft::v1::Peer::NewStub(channel);
  raft::v1::SnapshotReceipt receipt;
  std::unique_ptr<Writer> writer = stub->InstallSnapshot(&context, &receipt);

  SnapshotChunk first;
  *first.mutable_meta() = *meta;
  absl::Status error;
  job->progress.store(SteadyNow());
  job->sending.store(true);
  bool more = writer->Write(first);
  for (int i = 0; more && i < meta->files_size(); ++i) {
    more = WriteFile(job->snapshot.dir + "/" + meta->files(i).name(), static_cast<uint32_t>(i),
                     meta->files(i).size(), options_.snapshot_chunk_bytes, writer.get(),
                     &job->progress, &error);
  }
  job->sending.store(false);
  if (!error.ok()) context.TryCancel();
  if (more) writer->WritesDone();
  const absl::Status answer = FromGrpc(writer->Finish());
  SetContext(job, nullptr);
  if (!error.ok()) return error;
  if (job->stalled.load()) {
    return absl::DeadlineExceededError(
        base::ToAbsl(fmt::format("the receiver took nothing for {}",
                                 absl::FormatDuration(options_.snapshot_stall_timeout))));
  }
  if (answer.ok() && receipt.index() != job->snapshot.mark.index.value) {
    return absl::InternalError(
        base::ToAbsl(fmt::format("the receipt is for index {}", receipt.index())));
  }
  return answer;
}

bool SnapshotSender::SetContext(Job* job, grpc::ClientContext* context) {
  std::lock_guard lock(mutex_);
  if (context != nullptr && stopping_) return false;
  job->context = context;
  return true;
}

bool SnapshotSender::stopping() const {
  std::lock_guard lock(mutex_);
  return stopping_;
}

void SnapshotSender::Tend(SteadyTime now) {
  std::list<std::unique_ptr<Job>> exited;
  {
    std::lock_guard lock(mutex_);
    for (auto it = jobs_.begin(); it != jobs_.end();) {
      Job& job = **it;
      if (job.context != nullptr && job.sending.load() &&
          now - job.progress.load() > ToSteady(options_.snapshot_stall_timeout)) {
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
      if (job->context != nullptr) job->context->TryCancel();
    }
    jobs.swap(jobs_);
  }
  for (const std::unique_ptr<Job>& job : jobs) job->thread.join();
}

}  // namespace holdfast::server
