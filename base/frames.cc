#include "base/frames.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/strings/cord.h"
#include "base/crc32c.h"
#include "base/strings.h"

namespace holdfast::base {
namespace {

constexpr char kFaultUrl[] = "holdfast/frame-fault";

std::string HeadOf(std::string_view frame) {
  std::string head;
  AppendBigEndian32(head, static_cast<uint32_t>(frame.size()));
  AppendBigEndian32(head, Crc32c(frame));
  AppendBigEndian32(head, Crc32c(head));
  return head;
}

}  // namespace

absl::Status FrameWriter::Put(std::string_view bytes) {
  bytes_ += bytes.size();
  return sink_(bytes);
}

absl::Status FrameWriter::Write(std::string_view frame) {
  if (frame.size() > kFrameBytesMax) {
    return absl::InvalidArgumentError(ToAbsl(fmt::format(
        "a frame of {} bytes is larger than the limit of {}", frame.size(), kFrameBytesMax)));
  }
  if (bytes_ == 0) {
    if (absl::Status status = Put(kFramesMagic); !status.ok()) return status;
  }
  if (absl::Status status = Put(HeadOf(frame)); !status.ok()) return status;
  return Put(frame);
}

std::optional<FrameFault> FrameFaultOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kFaultUrl);
  if (!payload.has_value()) return std::nullopt;
  return *payload == "torn" ? FrameFault::kTorn : FrameFault::kDamaged;
}

absl::StatusOr<size_t> FrameReader::Fill(char* out, size_t n) {
  size_t have = 0;
  while (have < n) {
    const absl::StatusOr<size_t> got = source_(out + have, n - have);
    if (!got.ok()) return got.status();
    if (*got == 0) break;
    have += *got;
  }
  return have;
}

absl::Status FrameReader::Fail(FrameFault fault, std::string_view what) {
  const bool torn = fault == FrameFault::kTorn;
  failure_ = absl::DataLossError(
      ToAbsl(fmt::format("{} at byte {}: {}", torn ? "cut off" : "damaged", offset_, what)));
  failure_.SetPayload(kFaultUrl, absl::Cord(torn ? "torn" : "damaged"));
  return failure_;
}

absl::StatusOr<bool> FrameReader::Next(std::string* frame) {
  if (!failure_.ok()) return failure_;
  if (!begun_) {
    std::array<char, kFramesMagic.size()> magic;
    const absl::StatusOr<size_t> got = Fill(magic.data(), magic.size());
    if (!got.ok()) return got.status();
    const std::string_view begin(magic.data(), *got);
    if (begin != kFramesMagic.substr(0, *got)) {
      return Fail(FrameFault::kDamaged, "it does not begin as a backup does");
    }
    if (*got < magic.size()) return Fail(FrameFault::kTorn, "it ends before the first frame");
    begun_ = true;
    offset_ = magic.size();
  }
  std::array<char, kFrameHeadBytes> bytes;
  const absl::StatusOr<size_t> got = Fill(bytes.data(), bytes.size());
  if (!got.ok()) return got.status();
  if (*got == 0) return false;
  if (*got < bytes.size()) return Fail(FrameFault::kTorn, "it ends inside the head of a frame");
  const std::string_view head(bytes.data(), bytes.size());
  if (ReadBigEndian32(head.substr(8)) != Crc32c(head.substr(0, 8))) {
    return Fail(FrameFault::kDamaged, "the head of a frame is not what was written");
  }
  const size_t size = ReadBigEndian32(head);
  if (size > kFrameBytesMax) return Fail(FrameFault::kDamaged, "a frame is larger than the limit");
  frame->resize(size);
  const absl::StatusOr<size_t> body = Fill(frame->data(), size);
  if (!body.ok()) return body.status();
  if (*body < size) return Fail(FrameFault::kTorn, "it ends inside a frame");
  if (ReadBigEndian32(head.substr(4)) != Crc32c(*frame)) {
    return Fail(FrameFault::kDamaged, "a frame is not what was written");
  }
  offset_ += bytes.size() + size;
  return true;
}

FrameReader::Source SourceOf(std::string_view bytes) {
  auto rest = std::make_shared<std::string_view>(bytes);
  return [rest](char* out, size_t n) -> absl::StatusOr<size_t> {
    n = std::min(n, rest->size());
    std::memcpy(out, rest->data(), n);
    rest->remove_prefix(n);
    return n;
  };
}

FrameReader::Source SourceOf(int fd, uint64_t limit) {
  auto left = std::make_shared<uint64_t>(limit);
  return [fd, left](char* out, size_t n) -> absl::StatusOr<size_t> {
    n = static_cast<size_t>(std::min<uint64_t>(n, *left));
    while (n > 0) {
      const ssize_t got = ::read(fd, out, n);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) {
        return absl::InternalError(ToAbsl(fmt::format("cannot read: {}", std::strerror(errno))));
      }
      *left -= static_cast<uint64_t>(got);
      return static_cast<size_t>(got);
    }
    return size_t{0};
  };
}

}  // namespace holdfast::base
