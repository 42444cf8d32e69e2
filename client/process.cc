#include "client/process.h"

#include <cstdlib>
#include <fstream>
#include <string_view>

namespace holdfast::internal {
namespace {

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

std::string ProgramName() {
  std::ifstream file("/proc/self/comm");
  std::string name;
  std::getline(file, name);
  return name;
}

std::string DefaultCacheDir() {
  if (std::string own = Variable("HOLDFAST_CACHE_DIR"); !own.empty()) return own;
  // systemd gives several, separated by colons; the first is the service's own.
  if (std::string state = Variable("STATE_DIRECTORY"); !state.empty()) {
    return state.substr(0, state.find(':')) + "/holdfast";
  }
  if (std::string state = Variable("XDG_STATE_HOME"); !state.empty()) return state + "/holdfast";
  if (std::string home = Variable("HOME"); !home.empty()) return home + "/.local/state/holdfast";
  return "";
}

}  // namespace holdfast::internal
