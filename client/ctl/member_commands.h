// holdfastctl's commands that change the members of the cluster.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "client/ctl/commands.h"

namespace holdfast::ctl {

// A member's id, in hexadecimal as every list shows it.
absl::StatusOr<uint64_t> ParseMemberId(std::string_view text);

// `name`: of the new member; only printed.
ExitCode AddMember(const Common& common, const std::string& name,
                   const std::vector<std::string>& peer_urls, bool learner, Io io);
ExitCode RemoveMember(const Common& common, const std::string& id, Io io);
ExitCode PromoteMember(const Common& common, const std::string& id, Io io);
ExitCode UpdateMember(const Common& common, const std::string& id,
                      const std::vector<std::string>& peer_urls, Io io);
// `peer_urls` empty: those of the old member.
ExitCode ReplaceMember(const Common& common, const std::string& id,
                       const std::vector<std::string>& peer_urls, Io io);
ExitCode DemoteMember(const Common& common, const std::string& id, Io io);
ExitCode MoveLeaderTo(const Common& common, const std::string& id, Io io);

}  // namespace holdfast::ctl
