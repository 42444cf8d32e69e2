#include "base/check.h"

#include <cstdio>
#include <cstdlib>

#include "base/log.h"

namespace holdfast::base {

void CheckFailed(const char* file, int line, const char* text, const std::string& message) {
  FlushLog();
  std::fprintf(stderr, "%s:%d: CHECK failed: %s%s%s\n", file, line, text,
               message.empty() ? "" : ": ", message.c_str());
  std::fflush(stderr);
  std::abort();
}

}  // namespace holdfast::base
