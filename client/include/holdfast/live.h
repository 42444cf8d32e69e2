// A typed value that is always there: parsed once per change, read without waiting.
//
// Open live values right after Client::Open: with a copy on disk, nothing newer is served in the
// first second, so that a parser has its say first. (A Policy's validators have theirs from the
// beginning.)
//
//   auto limits = *client->Open<Limits>("/config/edge/limits", ParseLimits);
//   if ((*limits)->max_rps < rps) Shed();   // store up or down: the same line, the same cost
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "holdfast/freshness.h"

namespace holdfast {

namespace internal {

// Live<T> without its type.
// Threads: all methods from any thread.
class LiveCore {
 public:
  using Any = std::shared_ptr<const void>;
  virtual ~LiveCore() = default;
  // Wait-free; never null.
  virtual Any Current() const = 0;
  virtual absl::StatusOr<Any> Get() const = 0;
  virtual Freshness fresh() const = 0;
  virtual void OnChange(absl::AnyInvocable<void(Any)> changed) = 0;
};

}  // namespace internal

// Threads: all methods from any thread. Cheap to copy. Must not outlive the Client.
template <class T>
class Live {
 public:
  // The newest value that was taken. No lock, no wait, never null; for a prefix whose policy is
  // FailStatic. It does not apply a policy: use Get() where the age decides.
  std::shared_ptr<const T> operator*() const {
    return std::static_pointer_cast<const T>(core_->Current());
  }
  // Applies the prefix's policy to the age that the value has now; errors as Mirror::Get, and
  // NOT_FOUND once the key is gone (`*live` keeps its last value).
  absl::StatusOr<std::shared_ptr<const T>> Get() const {
    absl::StatusOr<internal::LiveCore::Any> value = core_->Get();
    if (!value.ok()) return value.status();
    return std::static_pointer_cast<const T>(*std::move(value));
  }
  Freshness fresh() const { return core_->fresh(); }
  // `changed` runs after each new value, on the client's own thread, and must not block.
  void OnChange(absl::AnyInvocable<void(std::shared_ptr<const T>)> changed) {
    core_->OnChange([changed = std::move(changed)](internal::LiveCore::Any value) mutable {
      changed(std::static_pointer_cast<const T>(std::move(value)));
    });
  }

 private:
  friend class Client;
  explicit Live(std::shared_ptr<internal::LiveCore> core) : core_(std::move(core)) {}
  std::shared_ptr<internal::LiveCore> core_;
};

}  // namespace holdfast
