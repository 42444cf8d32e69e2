#include "peer_snapshot_test_util.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/crc32c.h"
#include "base/rng.h"

namespace holdfast::server::test {

using raft::v1::SnapshotChunk;
using raft::v1::SnapshotMeta;

Files Contents(const std::string& dir) {
  Files files;
  for (const auto& item : std::filesystem::directory_iterator(dir)) {
    std::ifstream in(item.path(), std::ios::binary);
    files[item.path().filename().string()] = {std::istreambuf_iterator<char>(in), {}};
  }
  return files;
}

std::string RandomBytes(size_t n, uint64_t seed) {
  base::Rng rng(seed);
  std::string bytes(n, '\0');
  for (char& c : bytes) c = static_cast<char>(rng.Below(256));
  return bytes;
}

Checkpoint::Checkpoint(const Files& files) {
  static std::atomic<int> next{0};
  dir_ = fmt::format("{}/checkpoint-{}-{}", testing::TempDir(), ::getpid(), next.fetch_add(1));
  std::filesystem::create_directories(dir_);
  for (const auto& [name, data] : files) {
    std::ofstream(dir_ + "/" + name, std::ios::binary) << data;
  }
}

Checkpoint::~Checkpoint() { std::filesystem::remove_all(dir_); }

absl::AnyInvocable<void(absl::Status) &&> Outcome::Done() {
  return [state = state_](absl::Status status) {
    state->status = std::move(status);
    state->called.Notify();  // a second call would abort
  };
}

absl::Status Outcome::Wait() {
  EXPECT_TRUE(state_->called.WaitForNotificationWithTimeout(kDeadline));
  return state_->called.HasBeenNotified() ? state_->status : absl::UnknownError("never called");
}

Outcome Send(TestMember& from, uint64_t to, const std::string& dir, uint64_t index) {
  Outcome outcome;
  from.transport().SendSnapshot({NodeId(to), Term(7), {Index(index), Term(6), "members"}, dir},
                                outcome.Done());
  return outcome;
}

SnapshotMeta Meta(const std::vector<std::pair<std::string, uint64_t>>& files, uint64_t index,
                  uint64_t id) {
  SnapshotMeta meta;
  meta.set_cluster_id(kCluster);
  meta.set_from(1);
  meta.set_to(2);
  meta.set_term(7);
  meta.set_index(index);
  meta.set_index_term(6);
  meta.set_snapshot_id(id);
  for (const auto& [name, size] : files) {
    raft::v1::SnapshotFile* file = meta.add_files();
    file->set_name(name);
    file->set_size(size);
  }
  return meta;
}

SnapshotChunk MetaChunk(const SnapshotMeta& meta) {
  SnapshotChunk chunk;
  *chunk.mutable_meta() = meta;
  return chunk;
}

SnapshotChunk DataChunk(uint32_t file, uint64_t offset, const std::string& data) {
  SnapshotChunk chunk;
  chunk.set_file(file);
  chunk.set_offset(offset);
  chunk.set_data(data);
  chunk.set_crc32c(base::Crc32c(data));
  return chunk;
}

std::vector<SnapshotChunk> Chunks(const SnapshotMeta& meta, const Files& files, size_t bytes) {
  std::vector<SnapshotChunk> chunks;
  for (int i = 0; i < meta.files_size(); ++i) {
    const std::string& data = files.at(meta.files(i).name());
    for (size_t offset = 0; offset < data.size(); offset += bytes) {
      chunks.push_back(DataChunk(static_cast<uint32_t>(i), offset, data.substr(offset, bytes)));
    }
  }
  return chunks;
}

HandSender::HandSender(const TestMember& to) : stub_(to.Dial()) {
  context_.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(kDeadline));
  stream_ = stub_->InstallSnapshot(&context_);
}

uint64_t HandSender::Have() {
  EXPECT_TRUE(stream_->Read(&answer_)) << "the call is over";
  return answer_.have_bytes();
}

grpc::Status HandSender::Finish() {
  stream_->WritesDone();
  return Wait();
}

grpc::Status HandSender::Cancel() {
  context_.TryCancel();
  return Wait();
}

grpc::Status HandSender::Wait() {
  while (stream_->Read(&answer_)) {
  }
  return stream_->Finish();
}

}  // namespace holdfast::server::test
