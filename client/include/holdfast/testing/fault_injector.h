// Faults for single calls: lost answers, refusals, silence, delays.
//
//   store.faults().LoseAnswer({.method = "Put"});   // the write takes effect, its answer is lost
//   auto put = client->Put("/config/a", "1");       // what does the service make of that?
//
// They happen behind the socket, in the FakeStore: the client under test is the one that production
// links, without a branch for tests.
#pragma once

#include <limits>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace holdfast::testing {

namespace internal {
struct Fault;
class FaultList;
}  // namespace internal

// Faults meet the calls that arrive from now on, each call the oldest fault that it matches, each
// fault so many calls as it was given for.
// Threads: all methods from any thread. Owned by a FakeStore.
class FaultInjector {
 public:
  static constexpr int kForever = std::numeric_limits<int>::max();

  struct Match {
    std::string method = {};    // as FakeStore::calls() names them; empty: all
    std::string endpoint = {};  // one of FakeStore::endpoints(); empty: all
  };

  // Answered with this error, without effect.
  void Fail(const Match& match, absl::Status error, int times = 1);
  // As an overloaded server answers: not now, and not before `retry_after`.
  void PushBack(const Match& match, absl::Duration retry_after, int times = 1);
  // It takes effect, and the connection seems to break before the answer.
  void LoseAnswer(const Match& match, int times = 1);
  // No effect and no answer, until the caller gives up.
  void Drop(const Match& match, int times = 1);
  // Waits for Release(), then goes on as usual.
  void Hold(const Match& match, int times = 1);
  // Goes on as usual after so long, in real time. Where a test can, it should Hold() instead.
  void Delay(const Match& match, absl::Duration delay, int times = 1);

  // Lets go what is held now.
  void Release();
  // Forgets the faults that have met no call yet.
  void Clear();
  // Calls that met a fault, ever.
  int injected() const;
  // Calls that are held now.
  int held() const;

 private:
  friend class FakeStore;
  explicit FaultInjector(internal::FaultList* list) : list_(list) {}
  internal::FaultList* const list_;
};

}  // namespace holdfast::testing
