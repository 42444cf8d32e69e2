// A member without Raft (kv_test_member.h), and one of the doors to it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "door.h"
#include "kv_test_member.h"
#include "server/exchange_service.h"

namespace holdfast::server::testing {

enum class DoorKind { kUnary, kExchange };
std::vector<DoorKind> AllDoors();
std::string NameOf(DoorKind kind);

class DoorMember : public TestMember {
 public:
  explicit DoorMember(DoorKind kind, ExchangeService::Options options = {});
  ~DoorMember();

  // Ends as a server does: who does not read is cut off after `grace`. Idempotent.
  void Stop(absl::Duration grace = absl::Seconds(5));

  // Opened with the first use.
  Door& door();
  // To the batch door, over TCP: only there is flow control. A new connection each.
  std::shared_ptr<grpc::Channel> Connect() const;
  ExchangeService& exchange() { return *exchange_; }
  // A command as another member's proposal would come, in text.
  void Apply(const std::string& command);
  // A claim that is `age` old now (Elapsed adds its margin of 1 ms and 0.2 %).
  raft::Claim ClaimOf(absl::Duration age) const;

 private:
  const DoorKind kind_;
  std::unique_ptr<ExchangeService> exchange_;
  std::unique_ptr<grpc::Server> exchange_server_;
  int port_ = 0;
  std::unique_ptr<Door> door_;
};

}  // namespace holdfast::server::testing
