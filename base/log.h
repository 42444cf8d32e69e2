// Logging: spdlog behind four macros, so that a log line costs nothing below its level.
//
//   LOG_INFO("became leader at term {}", term.value);
//
// Threads: all may log. Lines go to stderr. fmt's format strings, checked at compile time.
#pragma once

#include <string_view>

#include <spdlog/spdlog.h>

#include "absl/status/status.h"

namespace holdfast::base {

// Sets the level and the line format; `member` (may be empty) is printed in every line.
// `level` is one of debug, info, warn, error; anything else is InvalidArgument.
absl::Status SetUpLog(std::string_view level, std::string_view member);
void FlushLog();

}  // namespace holdfast::base

#define LOG_DEBUG(...) ::spdlog::debug(__VA_ARGS__)
#define LOG_INFO(...) ::spdlog::info(__VA_ARGS__)
#define LOG_WARN(...) ::spdlog::warn(__VA_ARGS__)
#define LOG_ERROR(...) ::spdlog::error(__VA_ARGS__)
