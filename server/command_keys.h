// The keys that an encoded Command is about to look up, found without decoding it: a hint for
// MvccStore::Writer::Prefetch.
//
// Threads: any (pure function).
#pragma once

#include <string_view>
#include <vector>

namespace holdfast::server {

// Adds the key of a put or of a delete of one key, and of the compares, puts and deletes at the top
// of a transaction. They point into `command`. Bytes that are no Command give some keys, or none.
void AppendCommandKeys(std::string_view command, std::vector<std::string_view>* keys);

}  // namespace holdfast::server
