#include "server/http_connection.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

namespace holdfast::server {
namespace {

constexpr size_t kReadBytes = 16 * 1024;
// How long what a client still sends is thrown away after the last answer.
constexpr std::chrono::milliseconds kLingerMax{2'000};
constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";

}  // namespace

HttpConnection::HttpConnection(std::shared_ptr<HttpExchange::Shared> shared, uint64_t id, int fd)
    : shared_(std::move(shared)), id_(id), fd_(fd), since_(shared_->loop->now()) {
  http_parser_init(&parser_, HTTP_REQUEST);
  parser_.data = this;
}

HttpConnection::~HttpConnection() {
  shared_->loop->Forget(fd_);
  close(fd_);
  shared_->buffered_bytes -= output_.size();
  TellClosed();
}

bool HttpConnection::Start() {
  events_ = EPOLLIN | EPOLLRDHUP;
  return shared_->loop->Watch(fd_, events_, [shared = shared_, id = id_](uint32_t events) {
    const auto it = shared->connections.find(id);
    if (it != shared->connections.end() && !it->second->OnEvents(events)) {
      shared->connections.erase(it);
      shared->connection_count = shared->connections.size();
    }
  });
}

bool HttpConnection::OnEvents(uint32_t events) {
  if ((events & (EPOLLHUP | EPOLLERR)) != 0) return false;
  if (state_ == State::kLingering) return Linger();
  if ((events & EPOLLIN) != 0 && !Read()) return false;
  if ((events & EPOLLRDHUP) != 0 && state_ != State::kReading) {
    // As Go's server, which etcd's is: whoever stops listening for more has left.
    peer_closed_ = true;
    TellClosed();
    if (streaming_) return false;
  }
  return Proceed();
}

bool HttpConnection::Expired(Time now) const {
  const HttpServer::Options& limits = shared_->options;
  const auto waited = now - since_;
  switch (state_) {
    case State::kLingering:
      return waited > kLingerMax;
    case State::kClosing:
      return waited > limits.stall_max;
    case State::kAnswering:
      if (!output_.empty()) return waited > limits.stall_max;
      return !complete_ && !streams_body_ && waited > limits.request_max;
    case State::kReading:
      if (!began_) return waited > (first_ ? limits.head_max : limits.idle_max);
      return waited > (has_head_ ? limits.request_max : limits.head_max);
  }
  return true;
}

bool HttpConnection::Read() {
  const bool wanted =
      state_ == State::kReading || (state_ == State::kAnswering && streams_body_ && !complete_);
  if (!wanted || !input_.empty()) return true;
  std::array<char, kReadBytes> bytes;
  const ssize_t n = recv(fd_, bytes.data(), bytes.size(), 0);
  if (n < 0) return errno == EAGAIN || errno == EINTR;
  // In the middle of a request, or between two of them.
  if (n == 0) return state_ == State::kAnswering;
  input_.assign(bytes.data(), static_cast<size_t>(n));
  return Parse();
}

bool HttpConnection::Parse() {
  if (input_.empty()) return true;
  if (!began_) {
    began_ = true;
    since_ = shared_->loop->now();
  }
  http_parser_pause(&parser_, 0);
  const size_t n = http_parser_execute(&parser_, &Settings(), input_.data(), input_.size());
  const http_errno error = HTTP_PARSER_ERRNO(&parser_);
  if (error == HPE_PAUSED) {
    input_.erase(0, n);
  } else {
    input_.clear();
  }
  if (error != HPE_OK && error != HPE_PAUSED) {
    if (state_ == State::kAnswering) return false;  // in the middle of a streamed body
    const int status = refused_ != 0 ? refused_ : 400;
    Refuse(PlainError(status, fmt::format("{} {}", status, ReasonPhrase(status))));
    return true;
  }
  if (complete_ && state_ == State::kReading) Handle();
  return true;
}

void HttpConnection::Refuse(const HttpResponse& response) {
  keep_alive_ = false;
  state_ = State::kClosing;
  since_ = shared_->loop->now();
  Append(EncodeHead(response, static_cast<int64_t>(response.body.size()), false, false));
  Append(response.body);
}

void HttpConnection::Handle() {
  state_ = State::kAnswering;
  first_ = false;
  told_closed_ = false;
  exchange_number_ = shared_->next_number++;
  head_only_ = request_.method == "HEAD";
  std::shared_ptr<HttpExchange> exchange(new HttpExchange(shared_, id_, exchange_number_));
  exchange_ = exchange;
  shared_->options.handler(std::move(request_), std::move(exchange));
}

void HttpConnection::TellClosed() {
  if (state_ != State::kAnswering || answer_complete_ || std::exchange(told_closed_, true)) return;
  const std::shared_ptr<HttpExchange> exchange = exchange_.lock();
  if (exchange != nullptr && exchange->callbacks.on_closed) exchange->callbacks.on_closed();
}

bool HttpConnection::Present(uint64_t number) const {
  return state_ == State::kAnswering && number == exchange_number_ && !answer_complete_;
}

void HttpConnection::Append(std::string_view bytes) {
  if (output_.empty()) since_ = shared_->loop->now();
  output_ += bytes;
  shared_->buffered_bytes += bytes.size();
}

void HttpConnection::Send(uint64_t number, const HttpResponse& response) {
  if (!Present(number) || streaming_) return;
  if (shared_->buffered_bytes + response.body.size() > shared_->options.max_buffered_bytes) {
    return Send(number, PlainError(503, "too many answers wait for slow clients"));
  }
  answer_complete_ = true;
  // What is left of a streamed body is not waited for.
  if (!complete_) keep_alive_ = false;
  Append(EncodeHead(response, static_cast<int64_t>(response.body.size()), false, KeepAlive()));
  if (!head_only_) Append(response.body);
}

void HttpConnection::Begin(uint64_t number, const HttpResponse& head) {
  if (!Present(number) || streaming_) return;
  streaming_ = true;
  // HTTP/1.0 knows no chunks: the answer ends with the connection.
  chunked_ = parser_.http_major == 1 && parser_.http_minor >= 1;
  if (!chunked_) keep_alive_ = false;
  Append(EncodeHead(head, -1, chunked_, KeepAlive()));
}

void HttpConnection::Write(uint64_t number, std::string_view chunk) {
  if (!Present(number) || !streaming_ || chunk.empty()) return;
  stream_unwritten_ += chunk.size();
  if (chunked_) Append(fmt::format("{:x}\r\n", chunk.size()));
  Append(chunk);
  if (chunked_) Append("\r\n");
}

void HttpConnection::End(uint64_t number) {
  if (!Present(number) || !streaming_) return;
  if (!complete_) keep_alive_ = false;
  if (chunked_) Append("0\r\n\r\n");
  answer_complete_ = true;
}

bool HttpConnection::Proceed() {
  // A client that sends ahead is served from what was read.
  do {
    if (!Flush()) return false;
    if (!output_.empty()) break;
    if (state_ == State::kAnswering && answer_complete_) {
      if (!KeepAlive()) {
        state_ = State::kClosing;
      } else {
        NextRequest();
        if (!Parse()) return false;
      }
    }
    if (state_ == State::kClosing && output_.empty()) {
      shutdown(fd_, SHUT_WR);
      state_ = State::kLingering;
      since_ = shared_->loop->now();
      if (!Linger()) return false;
    }
  } while (!output_.empty());
  UpdateEvents();
  return true;
}

bool HttpConnection::Flush() {
  while (written_ < output_.size()) {
    const ssize_t n = send(fd_, output_.data() + written_, output_.size() - written_, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK;
    written_ += static_cast<size_t>(n);
    since_ = shared_->loop->now();
  }
  shared_->buffered_bytes -= output_.size();
  output_.clear();
  // A large answer's memory is not kept for the small ones that follow.
  if (output_.capacity() > kReadBytes) output_.shrink_to_fit();
  written_ = 0;
  if (const size_t done = std::exchange(stream_unwritten_, 0); done > 0) {
    const std::shared_ptr<HttpExchange> exchange = exchange_.lock();
    if (exchange == nullptr) return true;
    exchange->buffered_ -= done;
    if (exchange->wants_drain_.exchange(false) && exchange->callbacks.on_drained) {
      exchange->callbacks.on_drained();
    }
  }
  return true;
}

bool HttpConnection::Linger() {
  std::array<char, kReadBytes> thrown_away;
  while (true) {
    const ssize_t n = recv(fd_, thrown_away.data(), thrown_away.size(), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK;
    if (n == 0) return false;
  }
}

void HttpConnection::UpdateEvents() {
  uint32_t wanted = 0;
  const bool reads = state_ == State::kReading || state_ == State::kLingering ||
                     (state_ == State::kAnswering && streams_body_ && !complete_);
  if (!peer_closed_) wanted |= EPOLLRDHUP;
  if (reads && !(peer_closed_ && state_ == State::kAnswering)) wanted |= EPOLLIN;
  if (!output_.empty()) wanted |= EPOLLOUT;
  if (wanted == events_) return;
  events_ = wanted;
  shared_->loop->Change(fd_, wanted);
}

void HttpConnection::NextRequest() {
  state_ = State::kReading;
  request_ = HttpRequest();
  target_.clear();
  head_bytes_ = 0;
  value_began_ = began_ = has_head_ = complete_ = streams_body_ = false;
  streaming_ = chunked_ = head_only_ = answer_complete_ = false;
  exchange_.reset();
  exchange_number_ = 0;
  since_ = shared_->loop->now();
}

const http_parser_settings& HttpConnection::Settings() {
  static const http_parser_settings settings = [] {
    http_parser_settings s;
    http_parser_settings_init(&s);
    s.on_url = [](http_parser* p, const char* at, size_t n) { return Of(p)->OnUrl({at, n}); };
    s.on_header_field = [](http_parser* p, const char* at, size_t n) {
      return Of(p)->OnHeaderName({at, n});
    };
    s.on_header_value = [](http_parser* p, const char* at, size_t n) {
      return Of(p)->OnHeaderValue({at, n});
    };
    s.on_headers_complete = [](http_parser* p) { return Of(p)->OnHeadComplete(); };
    s.on_body = [](http_parser* p, const char* at, size_t n) { return Of(p)->OnBody({at, n}); };
    s.on_message_complete = [](http_parser* p) { return Of(p)->OnComplete(); };
    return s;
  }();
  return settings;
}

int HttpConnection::RefuseWith(int status) {
  refused_ = status;
  return -1;
}

int HttpConnection::CountHead(size_t bytes) {
  head_bytes_ += bytes;
  return head_bytes_ > shared_->options.max_head_bytes ? RefuseWith(431) : 0;
}

int HttpConnection::OnUrl(std::string_view piece) {
  target_ += piece;
  return CountHead(piece.size());
}

int HttpConnection::OnHeaderName(std::string_view piece) {
  if (complete_ || has_head_) return 0;  // a trailer: not kept
  auto& headers = request_.headers;
  if (headers.empty() || value_began_) {
    if (headers.size() == shared_->options.max_headers) return RefuseWith(431);
    headers.emplace_back();
    value_began_ = false;
  }
  headers.back().first += piece;
  return CountHead(piece.size());
}

int HttpConnection::OnHeaderValue(std::string_view piece) {
  if (has_head_) return CountHead(piece.size());
  value_began_ = true;
  request_.headers.back().second += piece;
  return CountHead(piece.size());
}

int HttpConnection::OnHeadComplete() {
  has_head_ = true;
  // Nobody here changes the protocol: an offer to is passed over, as the standard allows.
  parser_.upgrade = 0;
  keep_alive_ = http_should_keep_alive(&parser_) != 0;
  request_.method = http_method_str(static_cast<http_method>(parser_.method));
  if (!ParseTarget(target_, &request_)) return RefuseWith(400);
  const bool has_length = parser_.content_length != UINT64_MAX;
  streams_body_ = shared_->options.streams_body && shared_->options.streams_body(request_);
  if (!streams_body_ && has_length && parser_.content_length > shared_->options.max_body_bytes) {
    return RefuseWith(413);
  }
  if (EqualsIgnoringCase(request_.Header("Expect"), "100-continue")) Append(kContinue);
  if (streams_body_) Handle();
  return 0;
}

int HttpConnection::OnBody(std::string_view piece) {
  if (!streams_body_) {
    if (request_.body.size() + piece.size() > shared_->options.max_body_bytes) {
      return RefuseWith(413);
    }
    request_.body += piece;
    return 0;
  }
  const std::shared_ptr<HttpExchange> exchange = exchange_.lock();
  // Whoever takes no more of it has answered, or is about to.
  if (exchange == nullptr || !exchange->callbacks.on_body) return 0;
  if (!exchange->callbacks.on_body(piece, false)) exchange->callbacks.on_body = nullptr;
  return 0;
}

int HttpConnection::OnComplete() {
  complete_ = true;
  if (streams_body_) {
    const std::shared_ptr<HttpExchange> exchange = exchange_.lock();
    if (exchange != nullptr && exchange->callbacks.on_body) exchange->callbacks.on_body({}, true);
  }
  // The next request stays unread until this one is answered.
  http_parser_pause(&parser_, 1);
  return 0;
}

}  // namespace holdfast::server
