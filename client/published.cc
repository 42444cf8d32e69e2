#include "client/published.h"

#include <atomic>
#include <cstdint>
#include <deque>
#include <utility>

#include "client/pins.h"

namespace holdfast::internal {

struct Published::Impl {
  std::atomic<const Any*> value;
  // The writer's: out of sight, but maybe in some reader's hands; oldest first.
  std::deque<std::pair<uint64_t, const Any*>> retired;
};

Published::Published(Any value) : impl_(std::make_unique<Impl>()) {
  impl_->value.store(new Any(std::move(value)));
}

Published::~Published() {
  delete impl_->value.load();
  for (const auto& [epoch, value] : impl_->retired) delete value;
}

Published::Any Published::Load() const {
  const Pin pin;
  return *impl_->value.load();
}

void Published::Store(Any value) {
  const Any* before = impl_->value.exchange(new Any(std::move(value)));
  impl_->retired.emplace_back(Retire(), before);
  const uint64_t oldest_pin = OldestPin();
  while (!impl_->retired.empty() && impl_->retired.front().first <= oldest_pin) {
    delete impl_->retired.front().second;
    impl_->retired.pop_front();
  }
}

}  // namespace holdfast::internal
