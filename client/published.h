// One shared pointer that one thread replaces and any thread reads without waiting.
// std::atomic<std::shared_ptr> takes a lock; this takes the reader's slot of the same pins that
// protect the versions of a mirror (client/version_store.h).
#pragma once

#include <memory>

namespace holdfast::internal {

class Published {
 public:
  using Any = std::shared_ptr<const void>;

  explicit Published(Any value);
  ~Published();
  Published(const Published&) = delete;
  Published& operator=(const Published&) = delete;

  Any Load() const;       // any thread; wait-free
  void Store(Any value);  // one thread at a time

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace holdfast::internal
