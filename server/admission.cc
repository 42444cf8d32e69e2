#include "server/admission.h"

#include "server/etcd_errors.h"
#include "server/read_terms.h"

namespace holdfast::server {

absl::Status Admission::Admit(const grpc::CallbackServerContext& context, Call call) const {
  if (call != Call::kLocal && fenced()) return ErrCorrupt();
  if (WantsLeader(context) && !node_->status().leader) return ErrNoLeader();
  return absl::OkStatus();
}

}  // namespace holdfast::server
