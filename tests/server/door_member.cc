#include "door_member.h"

#include "door_cases.h"

namespace holdfast::server::testing {
namespace {

KvService::Options Limits() {
  KvService::Options options;
  options.max_txn_ops = kDoorMaxTxnOps;
  options.max_answer_bytes = 40'000;
  return options;
}

}  // namespace

std::vector<DoorKind> AllDoors() { return {DoorKind::kUnary}; }

std::string NameOf(DoorKind kind) { return kind == DoorKind::kUnary ? "Unary" : "Exchange"; }

DoorMember::DoorMember(DoorKind kind) : TestMember(Limits()), kind_(kind) {}

DoorMember::~DoorMember() { door_.reset(); }

Door& DoorMember::door() {
  if (door_ == nullptr) {
    door_ = OpenUnaryDoor(server_->InProcessChannel({}));
  }
  return *door_;
}

void DoorMember::Apply(const std::string& command) {
  node_->ApplyForeign(Parse<command::v1::Command>(command).SerializeAsString());
}

raft::Claim DoorMember::ClaimOf(absl::Duration age) const {
  raft::Claim claim;
  claim.at = clock_.Sample();
  claim.extra = age;
  return claim;
}

}  // namespace holdfast::server::testing
