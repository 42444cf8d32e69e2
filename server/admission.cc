#include "server/admission.h"

#include "server/etcd_errors.h"
#include "server/read_terms.h"

namespace holdfast::server {

absl::Status Admission::Admit(const grpc::CallbackServerContext& context, Call call) const {
  return Admit(WantsLeader(context), call);
}

absl::Status Admission::Admit(bool wants_leader, Call call) const {
  if (call != Call::kLocal && fenced()) return ErrCorrupt();
  // An administrator must be able to look at the alarm, and to clear it.
  if (call == Call::kRead || call == Call::kWrite) {
    if (absl::Status status = CheckTrust(); !status.ok()) return status;
  }
  if (wants_leader && !node_.load(std::memory_order_acquire)->status().leader) {
    return ErrNoLeader();
  }
  return absl::OkStatus();
}

absl::Status Admission::CheckTrust() const {
  if (fenced() || (alarms_ != nullptr && alarms_->corrupt())) return ErrCorrupt();
  return absl::OkStatus();
}

absl::Status Admission::CheckSpace() const {
  return short_of_space_.load(std::memory_order_acquire) ? ErrNoSpace() : absl::OkStatus();
}

}  // namespace holdfast::server
