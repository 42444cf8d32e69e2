#include "server/http_server.h"

#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <utility>
#include <vector>

#include "base/log.h"
#include "server/http_connection.h"

namespace holdfast::server {

HttpExchange::~HttpExchange() {
  if (!answered_.exchange(true)) {
    LOG_ERROR("an HTTP request was forgotten by its handler");
    Post([number = number_](HttpConnection* connection) {
      connection->Send(number, PlainError(500, "500 Internal Server Error"));
      connection->End(number);
    });
  }
}

void HttpExchange::Post(absl::AnyInvocable<void(HttpConnection*) &&> task) {
  shared_->loop->Post([shared = shared_, id = connection_, task = std::move(task)]() mutable {
    const auto it = shared->connections.find(id);
    if (it == shared->connections.end()) return;
    std::move(task)(it->second.get());
    if (it->second->Proceed()) return;
    shared->connections.erase(it);
    shared->connection_count = shared->connections.size();
  });
}

void HttpExchange::Send(HttpResponse response) {
  answered_ = true;
  Post([number = number_, response = std::move(response)](HttpConnection* connection) {
    connection->Send(number, response);
  });
}

void HttpExchange::Begin(HttpResponse head) {
  Post([number = number_, head = std::move(head)](HttpConnection* connection) {
    connection->Begin(number, head);
  });
}

bool HttpExchange::Write(std::string chunk) {
  const size_t before = buffered_.fetch_add(chunk.size());
  const bool full = before + chunk.size() > shared_->options.stream_buffer_bytes;
  // Before the chunk is posted: its writing is what drains.
  if (full) wants_drain_ = true;
  Post([number = number_, chunk = std::move(chunk)](HttpConnection* connection) {
    connection->Write(number, chunk);
  });
  return !full;
}

void HttpExchange::End() {
  answered_ = true;
  Post([number = number_](HttpConnection* connection) { connection->End(number); });
}

HttpServer::HttpServer(const Options& options)
    : shared_(std::make_shared<HttpExchange::Shared>(options)) {}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const Options& options) {
  std::unique_ptr<HttpServer> server(new HttpServer(options));
  // Raw: the loop is a member of what it would keep alive.
  HttpExchange::Shared* shared = server->shared_.get();
  auto sweep = [shared] {
    const EventLoop::Clock::time_point now = shared->loop->now();
    std::erase_if(shared->connections,
                  [now](const auto& entry) { return entry.second->Expired(now); });
    shared->connection_count = shared->connections.size();
  };
  server->shared_->loop = EventLoop::Start("http", std::move(sweep));
  if (server->shared_->loop == nullptr) {
    return absl::ResourceExhaustedError("no descriptors are left");
  }
  return server;
}

HttpServer::~HttpServer() { Stop(std::chrono::milliseconds(0)); }

void HttpServer::Take(int fd) {
  const bool posted = shared_->loop->Post([shared = shared_, fd] {
    auto& connections = shared->connections;
    if (connections.size() >= shared->options.max_connections) {
      // The one that has waited longest between two requests makes room; else the new one goes.
      auto idlest = connections.end();
      for (auto it = connections.begin(); it != connections.end(); ++it) {
        if (!it->second->Idle()) continue;
        if (idlest == connections.end() ||
            it->second->idle_since() < idlest->second->idle_since()) {
          idlest = it;
        }
      }
      if (idlest == connections.end()) {
        close(fd);
        return;
      }
      connections.erase(idlest);
    }
    const uint64_t id = shared->next_number++;
    auto connection = std::make_unique<HttpConnection>(shared, id, fd);
    if (shared->stopping || !connection->Start()) return;
    connections.emplace(id, std::move(connection));
    shared->connection_count = connections.size();
  });
  if (!posted) close(fd);
}

size_t HttpServer::connections() const { return shared_->connection_count.load(); }

void HttpServer::Stop(std::chrono::milliseconds grace) {
  struct Wait {
    std::mutex mutex;
    std::condition_variable changed;
    bool closed = false;
  };
  const auto deadline = EventLoop::Clock::now() + grace;
  const auto poll =
      std::min<std::chrono::milliseconds>(EventLoop::kSweepInterval / 10, std::max(grace, {}));
  shared_->loop->Post([shared = shared_] {
    shared->stopping = true;
    std::erase_if(shared->connections, [](const auto& entry) {
      return entry.second->Idle() || entry.second->Streaming();
    });
    shared->connection_count = shared->connections.size();
  });
  auto wait = std::make_shared<Wait>();
  while (EventLoop::Clock::now() < deadline) {
    const bool posted = shared_->loop->Post([shared = shared_, wait] {
      std::lock_guard lock(wait->mutex);
      wait->closed = shared->connections.empty();
      wait->changed.notify_one();
    });
    std::unique_lock lock(wait->mutex);
    if (!posted || wait->closed) break;
    wait->changed.wait_for(lock, poll, [&wait] { return wait->closed; });
  }
  shared_->loop->Post([shared = shared_] {
    shared->connections.clear();
    shared->connection_count = 0;
  });
  shared_->loop->Stop();
}

}  // namespace holdfast::server
