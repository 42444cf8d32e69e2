// A member without Raft (kv_test_member.h), and one of the doors to it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "door.h"
#include "kv_test_member.h"

namespace holdfast::server::testing {

enum class DoorKind { kUnary, kExchange };
std::vector<DoorKind> AllDoors();
std::string NameOf(DoorKind kind);

class DoorMember : public TestMember {
 public:
  explicit DoorMember(DoorKind kind);
  ~DoorMember();

  // Opened with the first use.
  Door& door();
  // A command as another member's proposal would come, in text.
  void Apply(const std::string& command);
  // A claim that is `age` old now (Elapsed adds its margin of 1 ms and 0.2 %).
  raft::Claim ClaimOf(absl::Duration age) const;

 private:
  const DoorKind kind_;
  std::unique_ptr<Door> door_;
};

}  // namespace holdfast::server::testing
