#include "http_call.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"

namespace holdfast::compat {

HttpCall::HttpCall(int port, const std::string& method, const std::string& path,
                   const std::string& headers, const std::string& body) {
  fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(uint16_t(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) return;
  std::string request =
      fmt::format("{} {} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n{}", method, path, port, headers);
  if (!body.empty()) request += fmt::format("Content-Length: {}\r\n", body.size());
  request += "\r\n" + body;
  size_t done = 0;
  while (done < request.size()) {
    const ssize_t n = send(fd_, request.data() + done, request.size() - done, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    done += size_t(n);
  }
}

HttpCall::~HttpCall() {
  if (fd_ >= 0) close(fd_);
}

bool HttpCall::Fill(absl::Time deadline) {
  while (true) {
    const int64_t left_ms = absl::ToInt64Milliseconds(deadline - absl::Now());
    pollfd wanted = {.fd = fd_, .events = POLLIN, .revents = 0};
    const int ready = poll(&wanted, 1, int(std::clamp<int64_t>(left_ms, 0, 60'000)));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return false;
    char bytes[16384];
    const ssize_t n = recv(fd_, bytes, sizeof(bytes), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    raw_.append(bytes, size_t(n));
    return true;
  }
}

bool HttpCall::ReadHead(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  size_t end = 0;
  while ((end = raw_.find("\r\n\r\n")) == std::string::npos) {
    if (!Fill(deadline)) return false;
  }
  head_ = raw_.substr(0, end);
  raw_.erase(0, end + 4);
  if (!head_.starts_with("HTTP/1.1 ")) return false;
  code_ = atoi(head_.c_str() + 9);
  content_type_ = Header("content-type");
  chunked_ = Header("transfer-encoding") == "chunked";
  if (const std::string length = Header("content-length"); !length.empty()) {
    left_ = atoll(length.c_str());
  }
  Decode();
  return true;
}

std::string HttpCall::Header(const std::string& name) const {
  for (const absl::string_view line : absl::StrSplit(head_, absl::string_view("\r\n"))) {
    const size_t colon = line.find(": ");
    if (colon != absl::string_view::npos && absl::AsciiStrToLower(line.substr(0, colon)) == name) {
      return std::string(line.substr(colon + 2));
    }
  }
  return "";
}

void HttpCall::Decode() {
  if (!chunked_) {
    const size_t taken = left_ < 0 ? raw_.size() : std::min<size_t>(raw_.size(), size_t(left_));
    body_ += raw_.substr(0, taken);
    raw_.erase(0, taken);
    if (left_ >= 0) left_ -= static_cast<long long>(taken);
    whole_ = left_ == 0;
    return;
  }
  while (!whole_) {
    const size_t end = raw_.find("\r\n");
    if (end == std::string::npos) return;
    const size_t size = strtoul(raw_.c_str(), nullptr, 16);
    if (raw_.size() < end + 2 + size + 2) return;
    body_ += raw_.substr(end + 2, size);
    raw_.erase(0, end + 2 + size + 2);
    whole_ = size == 0;
  }
}

std::string HttpCall::ReadBody(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (!whole_ && Fill(deadline)) Decode();
  return std::exchange(body_, "");
}

bool HttpCall::ReadLine(absl::Duration timeout, std::string* line) {
  const absl::Time deadline = absl::Now() + timeout;
  size_t end = 0;
  while ((end = body_.find('\n')) == std::string::npos) {
    if (whole_ || !Fill(deadline)) return false;
    Decode();
  }
  *line = body_.substr(0, end);
  body_.erase(0, end + 1);
  return true;
}

}  // namespace holdfast::compat
