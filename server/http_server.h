// A small HTTP/1.1 server: one loop thread for all connections.
//
// It reads requests (http-parser does the syntax), gives each to the handler, and writes the
// answer when it comes, from whichever thread: whole, or streamed in chunks. A connection has one
// request at a time; what a client sends ahead waits in its socket.
//
// Why nothing here can grow: connections are limited in number, a request in bytes and in time, an
// answer that a client does not take in time (`stall_max`), all answers together in bytes
// (`max_buffered_bytes`); who streams is told when to wait (HttpExchange::Write).
// Threads: the handler is called on the loop and must not block; HttpExchange from any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/event_loop.h"
#include "server/http_message.h"

namespace holdfast::server {

class HttpConnection;
class HttpServer;

// One request under way. Its answer is either Send, or Begin, any number of Writes, and End.
// Forgotten unanswered, it is answered 500. What is done after the client has gone has no effect.
class HttpExchange {
 public:
  ~HttpExchange();

  void Send(HttpResponse response);

  // A chunk at a time. False: so much waits for the client already that the caller should pause
  // until on_drained is called.
  void Begin(HttpResponse head);
  bool Write(std::string chunk);
  void End();

  // Set in the handler, not later. Called on the loop, never after `on_closed` was.
  struct Callbacks {
    std::function<void()> on_drained;
    // The client is gone, or the server stops: once, and only before the answer is complete.
    std::function<void()> on_closed;
    // Only if HttpServer::Options::streams_body chose the request: the body as it comes, then once
    // with `last`. False: it is refused, and not read any further.
    std::function<bool(std::string_view piece, bool last)> on_body;
  };
  Callbacks callbacks;

 private:
  friend class HttpConnection;
  friend class HttpServer;
  struct Shared;  // what it needs of the server
  HttpExchange(std::shared_ptr<Shared> shared, uint64_t connection, uint64_t number)
      : shared_(std::move(shared)), connection_(connection), number_(number) {}
  void Post(absl::AnyInvocable<void(HttpConnection*) &&> task);

  const std::shared_ptr<Shared> shared_;
  const uint64_t connection_;
  const uint64_t number_;
  std::atomic<bool> answered_ = false;
  std::atomic<size_t> buffered_ = 0;       // streamed, and not yet taken by the client
  std::atomic<bool> wants_drain_ = false;  // somebody waits for on_drained
};

class HttpServer {
 public:
  using Handler = std::function<void(HttpRequest, std::shared_ptr<HttpExchange>)>;
  struct Options {
    Handler handler;
    // Requests that are handled as soon as their head is there; null: none.
    std::function<bool(const HttpRequest&)> streams_body;
    size_t max_connections = 512;
    size_t max_head_bytes = 64 * 1024;
    size_t max_headers = 128;
    size_t max_body_bytes = 2 * 1024 * 1024;
    size_t max_buffered_bytes = size_t{256} << 20;
    // A stream's writer is asked to pause above it.
    size_t stream_buffer_bytes = 1024 * 1024;
    std::chrono::milliseconds head_max{10'000};     // from its first byte, or from the connect
    std::chrono::milliseconds request_max{60'000};  // the whole of it
    std::chrono::milliseconds idle_max{75'000};     // between two requests
    std::chrono::milliseconds stall_max{60'000};    // the client takes nothing of an answer
  };
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const Options& options);
  ~HttpServer();

  // Any thread. The connection has been accepted; its bytes are unread. Takes `fd`.
  void Take(int fd);

  // No new requests; what is under way gets `grace` to be answered, streams are ended at once.
  // Then everything is closed. Idempotent.
  void Stop(std::chrono::milliseconds grace);

  size_t connections() const;  // any thread

 private:
  explicit HttpServer(const Options& options);
  std::shared_ptr<HttpExchange::Shared> shared_;
};

}  // namespace holdfast::server
