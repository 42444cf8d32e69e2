#include "client/generation_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <optional>
#include <utility>

#include <fmt/format.h>

#include "base/crc32c.h"
#include "base/frames.h"
#include "base/strings.h"

namespace holdfast::internal {
namespace {

// Every frame begins with what it is.
constexpr std::string_view kHeader = "last-good";  // then u32 format
constexpr uint8_t kRecords = 'R';
constexpr uint8_t kEnd = 'E';

std::string EncodeHeader(const GenerationHeader& header) {
  ByteEncoder out;
  out.Raw(kHeader);
  out.U32(kGenerationFormat);
  out.U64(header.number);
  out.U64(header.cluster_id);
  out.U64(header.incarnation);
  out.U64(header.revision);
  out.Text(header.prefix);
  Encode(header.claim, out);
  return out.Take();
}

absl::Status Damaged(std::string_view what) {
  return absl::DataLossError(base::ToAbsl(fmt::format("damaged: {}", what)));
}

absl::StatusOr<GenerationHeader> DecodeHeader(std::string_view frame) {
  ByteDecoder in(frame);
  if (in.Raw(kHeader.size()) != kHeader) {
    return absl::DataLossError("it does not begin as a last-known-good copy does");
  }
  if (const uint32_t format = in.U32(); format != kGenerationFormat) {
    return absl::UnimplementedError(base::ToAbsl(fmt::format(
        "it is of format {}, and this program reads format {}: a {} version wrote it", format,
        kGenerationFormat, format > kGenerationFormat ? "later" : "damaged or unknown")));
  }
  GenerationHeader header;
  header.number = in.U64();
  header.cluster_id = in.U64();
  header.incarnation = in.U64();
  header.revision = in.U64();
  header.prefix = in.Text();
  header.claim = DecodeStoredClaim(in);
  if (!in.ok()) return Damaged("its header is too short");
  // What follows is a later version's addition that changes nothing for this one.
  return header;
}

// Adds records to a content, and says what is wrong with their order.
class Tally {
 public:
  Tally(std::string_view prefix, GenerationContent* content) : prefix_(prefix), content_(content) {}

  absl::Status Add(const EntryView& entry) {
    if (!entry.key.starts_with(prefix_)) {
      return absl::InvalidArgumentError(
          base::ToAbsl(fmt::format("the key {} is not of the prefix {}", base::Printable(entry.key),
                                   base::Printable(prefix_))));
    }
    if (content_->records > 0 && entry.key <= last_key_) {
      return absl::InvalidArgumentError(
          base::ToAbsl(fmt::format("the keys are out of order at {}", base::Printable(entry.key))));
    }
    last_key_ = entry.key;
    const base::RecordDigest content = base::DigestOfContent(entry.key, entry.value);
    content_->content.Add(content);
    content_->digest.Add(base::DigestOfRecord(content, entry.create_revision, entry.mod_revision,
                                              entry.version, entry.lease));
    content_->bytes += entry.key.size() + entry.value.size();
    ++content_->records;
    return absl::OkStatus();
  }

 private:
  const std::string_view prefix_;
  GenerationContent* const content_;
  std::string last_key_;
};

void EncodeEntry(const EntryView& entry, ByteEncoder& out) {
  out.Text(entry.key);
  out.Text(entry.value);
  out.U64(entry.create_revision);
  out.U64(entry.mod_revision);
  out.U64(entry.version);
  out.I64(entry.lease);
}

EntryView DecodeEntry(ByteDecoder& in) {
  EntryView entry;
  entry.key = in.Text();
  entry.value = in.Text();
  entry.create_revision = in.U64();
  entry.mod_revision = in.U64();
  entry.version = in.U64();
  entry.lease = in.I64();
  return entry;
}

// The end names the header too: header and records are of one writing.
std::string EncodeEnd(const GenerationContent& content, uint32_t header_crc) {
  ByteEncoder out;
  out.U8(kEnd);
  out.U64(content.records);
  out.U64(content.bytes);
  out.Digest(content.digest);
  out.Digest(content.content);
  out.U32(header_crc);
  return out.Take();
}

absl::Status ReadRecords(std::string_view block, bool keep, Tally& tally,
                         std::vector<Entry>& entries) {
  ByteDecoder in(block);
  while (!in.at_end()) {
    const EntryView entry = DecodeEntry(in);
    if (!in.ok()) return Damaged("a record reaches beyond its block");
    if (absl::Status status = tally.Add(entry); !status.ok()) return Damaged(base::Message(status));
    if (keep) entries.push_back(entry.ToEntry());
  }
  return absl::OkStatus();
}

absl::StatusOr<GenerationContent> ReadFrames(base::FrameReader& reader, bool with_entries) {
  std::string frame;
  auto more = reader.Next(&frame);
  if (!more.ok()) return more.status();
  if (!*more) return absl::DataLossError("cut off: it is empty");
  auto header = DecodeHeader(frame);
  if (!header.ok()) return header.status();
  GenerationContent content;
  content.header = *std::move(header);
  const uint32_t header_crc = base::Crc32c(frame);
  Tally tally(content.header.prefix, &content);
  for (;;) {
    more = reader.Next(&frame);
    if (!more.ok()) return more.status();
    if (!*more) return absl::DataLossError("cut off: its end is missing");
    const std::string_view body = frame;
    if (!body.empty() && static_cast<uint8_t>(body[0]) == kEnd) break;
    if (body.empty() || static_cast<uint8_t>(body[0]) != kRecords) {
      return Damaged("a block of an unknown kind");
    }
    absl::Status status = ReadRecords(body.substr(1), with_entries, tally, content.entries);
    if (!status.ok()) return status;
  }
  if (frame != EncodeEnd(content, header_crc)) {
    return Damaged("its records are not those that its digest is of");
  }
  more = reader.Next(&frame);
  if (!more.ok()) return more.status();
  if (*more) return Damaged("something follows its end");
  content.file_bytes = reader.offset();
  return content;
}

struct OpenedFile {
  Fd fd;
  uint64_t bytes = 0;
};

absl::StatusOr<OpenedFile> OpenGeneration(const std::string& path) {
  // Not blocked by a pipe that somebody made there.
  auto fd = OpenFile(path, O_RDONLY | O_NONBLOCK);
  if (!fd.ok()) return fd.status();
  struct stat info;
  if (fstat(fd->get(), &info) != 0) return DiskError("examine", path, errno);
  if (!S_ISREG(info.st_mode)) return absl::DataLossError("it is not a plain file");
  posix_fadvise(fd->get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  return OpenedFile{*std::move(fd), static_cast<uint64_t>(info.st_size)};
}

}  // namespace

absl::StatusOr<GenerationContent> WriteGeneration(const GenerationHeader& header,
                                                  RecordScan records, PartFile& file) {
  base::FrameWriter writer([&](std::string_view bytes) { return file.Append(bytes); });
  const std::string head = EncodeHeader(header);
  absl::Status status = writer.Write(head);
  if (!status.ok()) return status;
  GenerationContent content;
  content.header = header;
  Tally tally(header.prefix, &content);
  ByteEncoder block;
  const auto write_block = [&] {
    if (block.size() == 0) return;
    status = writer.Write(block.bytes());
    block.Clear();
  };
  records([&](const EntryView& entry) {
    status = tally.Add(entry);
    if (!status.ok()) return false;
    if (block.size() == 0) block.U8(kRecords);
    EncodeEntry(entry, block);
    if (block.size() >= kGenerationBlockBytes) write_block();
    return status.ok();
  });
  if (status.ok()) write_block();
  if (status.ok()) status = writer.Write(EncodeEnd(content, base::Crc32c(head)));
  if (!status.ok()) return status;
  content.file_bytes = writer.bytes();
  return content;
}

absl::StatusOr<GenerationHeader> ReadGenerationHeader(const std::string& path) {
  const auto file = OpenGeneration(path);
  if (!file.ok()) return file.status();
  base::FrameReader reader(base::SourceOf(file->fd.get(), file->bytes));
  std::string frame;
  const auto more = reader.Next(&frame);
  if (!more.ok()) return more.status();
  if (!*more) return absl::DataLossError("cut off: it is empty");
  return DecodeHeader(frame);
}

absl::StatusOr<GenerationContent> ReadGenerationContent(const std::string& path,
                                                        bool with_entries) {
  const auto file = OpenGeneration(path);
  if (!file.ok()) return file.status();
  base::FrameReader reader(base::SourceOf(file->fd.get(), file->bytes));
  return ReadFrames(reader, with_entries);
}

}  // namespace holdfast::internal
