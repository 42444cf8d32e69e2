// One HTTP/1.1 request over a socket of its own, its answer whole or, of a stream, line by line.
// Understands Content-Length, chunked bodies and bodies that end with the connection: as much as a
// curl would need here. Threads: one at a time.
#pragma once

#include <string>

#include "absl/time/time.h"

namespace holdfast::compat {

class HttpCall {
 public:
  // `headers`: whole lines, each with its "\r\n".
  HttpCall(int port, const std::string& method, const std::string& path, const std::string& headers,
           const std::string& body);
  ~HttpCall();
  HttpCall(const HttpCall&) = delete;
  HttpCall& operator=(const HttpCall&) = delete;

  // False: no answer, or no HTTP. Everything below needs it first.
  bool ReadHead(absl::Duration timeout);
  int code() const { return code_; }
  const std::string& content_type() const { return content_type_; }
  // The value of a header by its lower-case name, "" if there is none.
  std::string Header(const std::string& name) const;
  std::string ReadBody(absl::Duration timeout);
  // One line of the body without its end; false: none in time.
  bool ReadLine(absl::Duration timeout, std::string* line);

 private:
  bool Fill(absl::Time deadline);
  void Decode();  // moves what is whole from raw_ to body_

  int fd_ = -1;
  int code_ = 0;
  std::string head_;
  std::string content_type_;
  std::string raw_;
  std::string body_;
  bool chunked_ = false;
  bool whole_ = false;
  long long left_ = -1;  // of Content-Length; -1: up to the end of the connection
};

}  // namespace holdfast::compat
