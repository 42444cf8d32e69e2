// What an HTTP/1.1 request and its answer are made of.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace holdfast::server {

struct HttpRequest {
  std::string method;                                        // in capitals
  std::string path;                                          // percent-decoded, without the query
  std::vector<std::pair<std::string, std::string>> query;    // decoded, in order
  std::vector<std::pair<std::string, std::string>> headers;  // as written, in order
  std::string body;  // of a request whose body is streamed: empty

  // The first with that name; empty if there is none.
  std::string_view Header(std::string_view name) const;
  std::string_view Query(std::string_view name) const;
  bool HasQuery(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers = {};
};

// As Go's http.Error writes it, for etcd's clients match such texts.
HttpResponse PlainError(int status, std::string_view text);

// The method and path of a request line, and what its query says. False: not a path.
bool ParseTarget(std::string_view target, HttpRequest* request);

bool EqualsIgnoringCase(std::string_view a, std::string_view b);
std::string_view ReasonPhrase(int status);

// The head of an answer. `length` < 0: none is told (chunked, or until the end).
std::string EncodeHead(const HttpResponse& response, int64_t length, bool chunked, bool keep_alive);

}  // namespace holdfast::server
