// holdfastctl cache: what services left on this machine's disk, and the operator's override. Works
// with everything else down: no server is asked.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "client/ctl/commands.h"
#include "client/last_good.h"

namespace holdfast::ctl {

struct CacheArgs {
  std::string dir = {};
  std::optional<std::string> prefix = {};  // for show, verify and export: nullopt: all there is
  // override:
  std::vector<std::string> put = {};  // KEY=VALUE
  std::vector<std::string> del = {};
  bool clear = false;
  std::string note = {};
};

// Every generation, newest first, and the overrides in force.
ExitCode CacheShow(const Common& common, const CacheArgs& args,
                   const internal::Surroundings& surroundings, Io io);
// Reads everything. kOk: all sound; kNotFound: nothing is there; kRefused: something is damaged, or
// an override that cannot be used.
ExitCode CacheVerify(const Common& common, const CacheArgs& args,
                     const internal::Surroundings& surroundings, Io io);
// The records of the generation that a service would begin with: a line of JSON each, or with
// common.json one document. Its age goes to io.err.
ExitCode CacheExport(const Common& common, const CacheArgs& args,
                     const internal::Surroundings& surroundings, Io io);
// Adds to the override of one prefix, removes it, or (without put, del, clear) prints it. The
// services that use the directory take it within a second.
ExitCode CacheOverride(const Common& common, const CacheArgs& args, Io io);

}  // namespace holdfast::ctl
