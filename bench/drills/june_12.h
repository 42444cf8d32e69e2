// The products that fell on 12 June 2025, and what each needs of a store.
#pragma once

#include <string>
#include <vector>

namespace holdfast::bench {

enum class Need {
  kConfig,        // configuration and routing: the last good is good
  kIdentity,      // who may do what: served up to a bound, marked after a while
  kSession,       // sessions that began before: as identity, with a shorter bound
  kToken,         // usable once: never from a copy
  kRegistration,  // a write
};

struct Product {
  const char* name;
  Need need;
};
// One row each for the products of the incident's report.
const std::vector<Product>& ProductsOfJune12();
std::string NeedText(Need need);

}  // namespace holdfast::bench
