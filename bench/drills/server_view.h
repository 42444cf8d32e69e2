// What the store's members know of the clients that hold copies (Mirror.Clients).
#pragma once

#include <string>
#include <vector>

#include "holdfast/client.pb.h"

namespace holdfast::bench {

// Of all members that answer; the newest report of each client.
std::vector<v1::ClientsResponse::Client> ClientsOf(const std::vector<std::string>& endpoints);
// How many clients of that name hold something back under the prefix; and why the first of them
// does.
struct Refusals {
  int clients = 0;
  std::string why;
};
Refusals RefusalsSeen(const std::vector<std::string>& endpoints, const std::string& name,
                      const std::string& prefix);

}  // namespace holdfast::bench
