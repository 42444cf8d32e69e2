// A socket that says exactly what the test says.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <string>
#include <string_view>

namespace holdfast::server {

class RawClient {
 public:
  explicit RawClient(uint16_t port) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    // Nothing here waits longer: a test that would is broken.
    const timeval deadline = {.tv_sec = 20, .tv_usec = 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof(deadline));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  ~RawClient() { close(fd_); }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  void Say(std::string_view text) {
    EXPECT_EQ(send(fd_, text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }
  // Up to and including `mark`; everything there was if the server closes before.
  std::string ReadUntil(std::string_view mark) {
    while (read_.find(mark) == std::string::npos && Fill()) {
    }
    const size_t at = read_.find(mark);
    const size_t n = at == std::string::npos ? read_.size() : at + mark.size();
    std::string result = read_.substr(0, n);
    read_.erase(0, n);
    return result;
  }
  std::string ReadAll() {
    while (Fill()) {
    }
    return std::exchange(read_, {});
  }

 private:
  bool Fill() {
    char bytes[4096];
    const ssize_t n = recv(fd_, bytes, sizeof(bytes), 0);
    EXPECT_TRUE(n >= 0 || errno == ECONNRESET) << "nothing came in time";
    if (n > 0) read_.append(bytes, static_cast<size_t>(n));
    return n > 0;
  }

  const int fd_;
  std::string read_;
};

inline std::string Post(std::string_view path, std::string_view body,
                        std::string_view headers = "") {
  return "POST " + std::string(path) + " HTTP/1.1\r\nHost: x\r\n" + std::string(headers) +
         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + std::string(body);
}

}  // namespace holdfast::server
