// A TCP proxy on loopback that can cut connections, or freeze: connections stand and nothing moves,
// as when a cable is pulled.
#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <string>
#include <thread>

namespace holdfast::server::test {

class TcpProxy {
 public:
  explicit TcpProxy(int target_port);
  ~TcpProxy();
  std::string url() const;
  // Resets every connection that stands now.
  void Cut() { cut_ = true; }
  // While frozen nothing is forwarded, and new connections are accepted but lead nowhere.
  void Freeze(bool frozen) { frozen_ = frozen; }
  // Reads that brought bytes from the dialing end so far.
  uint64_t reads_from_client() const { return reads_from_client_; }
  uint64_t bytes_from_client() const { return bytes_from_client_; }

 private:
  struct Pair {
    int client;
    int server;
  };
  void Loop();
  void AcceptOne();
  // False if the connection is over.
  bool Forward(int from, int to, bool from_client);
  void Close(const Pair& pair);

  const int target_port_;
  int listener_;
  int port_;
  std::atomic<bool> cut_{false};
  std::atomic<bool> frozen_{false};
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> reads_from_client_{0};
  std::atomic<uint64_t> bytes_from_client_{0};
  std::list<Pair> pairs_;  // the proxy's thread only
  std::thread thread_;
};

}  // namespace holdfast::server::test
