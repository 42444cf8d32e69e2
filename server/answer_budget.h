// The memory that answers under way may take together: no number of large ranges at once can
// exhaust the server.
//
// An answer's bytes are held from the read until gRPC is done with the call (Reservation), because
// as long the response lives. They are counted once although a message exists up to twice (as an
// object and encoded): the limit is chosen with that in mind. Threads: AnswerBudget any; a
// Reservation one at a time.
#pragma once

#include <atomic>
#include <cstddef>

namespace holdfast::server {

class AnswerBudget {
 public:
  explicit AnswerBudget(size_t bytes) : left_(bytes) {}

  bool Take(size_t bytes) {
    size_t left = left_.load(std::memory_order_relaxed);
    do {
      if (left < bytes) return false;
    } while (!left_.compare_exchange_weak(left, left - bytes, std::memory_order_relaxed));
    return true;
  }
  void Give(size_t bytes) { left_.fetch_add(bytes, std::memory_order_relaxed); }

  class Reservation {
   public:
    explicit Reservation(AnswerBudget* budget) : budget_(budget) {}
    ~Reservation() { budget_->Give(bytes_); }
    Reservation(const Reservation&) = delete;
    Reservation& operator=(const Reservation&) = delete;

    bool Grow(size_t bytes) {
      if (!budget_->Take(bytes)) return !(refused_ = true);
      bytes_ += bytes;
      return true;
    }
    bool refused() const { return refused_; }

   private:
    AnswerBudget* const budget_;
    size_t bytes_ = 0;
    bool refused_ = false;
  };

 private:
  std::atomic<size_t> left_;
};

}  // namespace holdfast::server
