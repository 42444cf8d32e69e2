#include "base/log.h"

#include <string>

#include <spdlog/sinks/stdout_color_sinks.h>

namespace holdfast::base {

absl::Status SetUpLog(std::string_view level, std::string_view member) {
  auto parsed = spdlog::level::info;
  if (level == "debug") {
    parsed = spdlog::level::debug;
  } else if (level == "info") {
    parsed = spdlog::level::info;
  } else if (level == "warn") {
    parsed = spdlog::level::warn;
  } else if (level == "error") {
    parsed = spdlog::level::err;
  } else {
    return absl::InvalidArgumentError("unknown log level '" + std::string(level) +
                                      "': use debug, info, warn or error");
  }
  auto logger = std::make_shared<spdlog::logger>(
      std::string(member), std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  spdlog::set_default_logger(std::move(logger));
  spdlog::set_level(parsed);
  spdlog::set_pattern(member.empty() ? "%Y-%m-%dT%H:%M:%S.%e %^%L%$ %v"
                                     : "%Y-%m-%dT%H:%M:%S.%e %^%L%$ %n %v");
  spdlog::flush_on(spdlog::level::info);
  return absl::OkStatus();
}

void FlushLog() {
  if (auto* logger = spdlog::default_logger_raw()) logger->flush();
}

}  // namespace holdfast::base
