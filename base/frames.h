// A sequence of checked frames: what backup files are made of (api/holdfast/backup.proto).
//
//   "hfframes", then for each frame:
//   u32 length · u32 CRC32C of the bytes · u32 CRC32C of the 8 bytes before · the bytes
//
// Integers are big endian. The second CRC is what tells a file that was cut off from one whose
// length field was hit: without it both look like a frame that reaches beyond the end.
//
// Threads: one at a time. Memory: one frame. Ownership: sinks and sources are the caller's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace holdfast::base {

inline constexpr std::string_view kFramesMagic = "hfframes";
inline constexpr size_t kFrameHeadBytes = 12;
// Of one frame's bytes. A reader never allocates more, whatever a file says.
inline constexpr size_t kFrameBytesMax = size_t{16} << 20;

class FrameWriter {
 public:
  // Gets every byte, in order. Its error is the writer's.
  using Sink = std::function<absl::Status(std::string_view bytes)>;

  explicit FrameWriter(Sink sink) : sink_(std::move(sink)) {}

  // The magic goes out before the first frame. InvalidArgument: larger than kFrameBytesMax, and
  // nothing was written. After an error of the sink the sequence is of no use.
  absl::Status Write(std::string_view frame);
  // Written so far, magic and heads included.
  uint64_t bytes() const { return bytes_; }

 private:
  absl::Status Put(std::string_view bytes);

  const Sink sink_;
  uint64_t bytes_ = 0;
};

// Why a sequence cannot be read on.
enum class FrameFault {
  kTorn,     // it ends inside the magic or a frame; all before it is sound
  kDamaged,  // bytes are there, and are not what was written
};
// Of a status that FrameReader gave; nullopt: the source's own error.
std::optional<FrameFault> FrameFaultOf(const absl::Status& status);

class FrameReader {
 public:
  // Up to `n` bytes into `out`; returns how many, 0 only at the end.
  using Source = std::function<absl::StatusOr<size_t>(char* out, size_t n)>;

  explicit FrameReader(Source source) : source_(std::move(source)) {}

  // False: the sequence ends here, between two frames. DataLoss: torn or damaged (FrameFaultOf),
  // with the offset in the text; then every later call says the same.
  absl::StatusOr<bool> Next(std::string* frame);
  // Where the next frame begins; after an error: where the one that cannot be read does.
  uint64_t offset() const { return offset_; }

 private:
  // How many of `n` there were.
  absl::StatusOr<size_t> Fill(char* out, size_t n);
  absl::Status Fail(FrameFault fault, std::string_view what);

  const Source source_;
  uint64_t offset_ = 0;
  bool begun_ = false;
  absl::Status failure_;
};

// A source over bytes in memory, which must outlive it.
FrameReader::Source SourceOf(std::string_view bytes);
// A source over the first `limit` bytes of what `fd` reads; the caller closes it.
FrameReader::Source SourceOf(int fd, uint64_t limit);

}  // namespace holdfast::base
