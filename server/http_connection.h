// One HTTP/1.1 connection on the loop of its HttpServer. Internal to http_server.
#pragma once

#include <http_parser.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "server/event_loop.h"
#include "server/http_server.h"

namespace holdfast::server {

// What exchanges and connections share. Outlives the server: an exchange may be answered late.
struct HttpExchange::Shared {
  explicit Shared(const HttpServer::Options& o) : options(o) {}

  const HttpServer::Options options;
  std::shared_ptr<EventLoop> loop;
  std::atomic<size_t> connection_count = 0;
  std::atomic<uint64_t> next_number = 1;  // of exchanges

  // Loop thread.
  std::unordered_map<uint64_t, std::unique_ptr<HttpConnection>> connections;
  size_t buffered_bytes = 0;  // of all answers
  bool stopping = false;
};

// Threads: the loop.
class HttpConnection {
 public:
  using Time = EventLoop::Clock::time_point;
  HttpConnection(std::shared_ptr<HttpExchange::Shared> shared, uint64_t id, int fd);
  ~HttpConnection();

  // False: to be closed, here and from everything below that says bool.
  bool Start();
  bool OnEvents(uint32_t events);
  bool Expired(Time now) const;
  // True: nothing is under way.
  bool Idle() const { return state_ == State::kReading && !began_ && output_.empty(); }
  bool Streaming() const { return state_ == State::kAnswering && streaming_; }
  Time idle_since() const { return since_; }

  // From the exchange numbered `number`; without effect if that is not the present one.
  void Send(uint64_t number, const HttpResponse& response);
  void Begin(uint64_t number, const HttpResponse& head);
  void Write(uint64_t number, std::string_view chunk);
  void End(uint64_t number);
  // After one of those: writes, and goes on to the next request.
  bool Proceed();

 private:
  // kReading: for a request. kAnswering: one is with the handler, or its answer is being written.
  // kClosing: the last answer is being written. kLingering: it is, and what the client still sends
  // is thrown away, for closing with unread bytes would cut the answer off.
  enum class State { kReading, kAnswering, kClosing, kLingering };

  bool Read();
  bool Parse();
  bool Flush();
  void Refuse(const HttpResponse& response);
  void UpdateEvents();
  void NextRequest();
  void Handle();
  void TellClosed();
  bool Linger();
  bool Present(uint64_t number) const;
  void Append(std::string_view bytes);
  bool KeepAlive() const { return keep_alive_ && !peer_closed_ && !shared_->stopping; }

  static HttpConnection* Of(http_parser* parser) {
    return static_cast<HttpConnection*>(parser->data);
  }
  static const http_parser_settings& Settings();
  int OnUrl(std::string_view piece);
  int OnHeaderName(std::string_view piece);
  int OnHeaderValue(std::string_view piece);
  int OnHeadComplete();
  int OnBody(std::string_view piece);
  int OnComplete();
  int CountHead(size_t bytes);
  int RefuseWith(int status);

  const std::shared_ptr<HttpExchange::Shared> shared_;
  const uint64_t id_;
  const int fd_;
  uint32_t events_ = 0;
  State state_ = State::kReading;

  // The request.
  http_parser parser_;
  std::string input_;  // read, and not yet parsed; at most one read's worth
  std::string target_;
  HttpRequest request_;
  size_t head_bytes_ = 0;
  bool value_began_ = false;
  bool began_ = false;     // its first byte is there
  bool has_head_ = false;  // the whole head is
  bool complete_ = false;  // all of it is
  bool streams_body_ = false;
  bool keep_alive_ = true;
  bool peer_closed_ = false;
  bool first_ = true;  // no request was answered yet
  int refused_ = 0;    // the status that a callback of the parser chose
  Time since_;         // the begin of the present wait: for a request, or for the client to take
                       // something of the answer

  // The answer.
  std::weak_ptr<HttpExchange> exchange_;
  uint64_t exchange_number_ = 0;
  bool told_closed_ = false;
  bool streaming_ = false;
  bool chunked_ = false;
  bool head_only_ = false;
  bool answer_complete_ = false;
  std::string output_;
  size_t written_ = 0;  // of output_
  size_t stream_unwritten_ = 0;
};

}  // namespace holdfast::server
