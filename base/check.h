// CHECK: a broken promise of logic or of the disk stops the process, in release builds too.
//
// Debian 12's Abseil (20220623) has no absl/log, so this is ours. Expected failures are
// absl::Status, never a CHECK (docs: CONTRIBUTING.md, "Three classes of error").
#pragma once

#include <string>

#include "absl/status/status.h"

namespace holdfast::base {

// Prints "file:line: CHECK failed: text message" to stderr, flushes the log, and aborts.
[[noreturn]] void CheckFailed(const char* file, int line, const char* text,
                              const std::string& message = {});

}  // namespace holdfast::base

#define CHECK(cond)                                             \
  do {                                                          \
    if (__builtin_expect(!(cond), 0)) {                         \
      ::holdfast::base::CheckFailed(__FILE__, __LINE__, #cond); \
    }                                                           \
  } while (0)

#define CHECK_MSG(cond, message)                                           \
  do {                                                                     \
    if (__builtin_expect(!(cond), 0)) {                                    \
      ::holdfast::base::CheckFailed(__FILE__, __LINE__, #cond, (message)); \
    }                                                                      \
  } while (0)

#define CHECK_OK(expr)                                                                      \
  do {                                                                                      \
    const absl::Status check_ok_status = (expr);                                            \
    if (__builtin_expect(!check_ok_status.ok(), 0)) {                                       \
      ::holdfast::base::CheckFailed(__FILE__, __LINE__, #expr, check_ok_status.ToString()); \
    }                                                                                       \
  } while (0)
