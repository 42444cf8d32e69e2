// holdfastctl migrate: copies a live etcd (3.4 or later), or another Holdfast, into this store, and
// follows it until the cut over.
//
// 1. Copy: all keys at one revision of the source, page by page, with their leases (same id, same
//    granted time). 2. Follow: the source's watch, one transaction for each of its revisions, in
//    order. 3. Cut over: stop the writers of the source, wait until the lag is zero, move the
//    clients.
//
// The marker kMarkerKey in the target says how far it is; it moves within each transaction
// (ordered_writer.h), so that nothing is lost or done twice, whatever breaks, and a migration that
// is started again goes on where it was. --finish removes it.
//
// Revisions are not carried over: the target counts its own. Leases are kept alive in the target
// as long as the source has them; their time left begins anew at the cut over, as it does with any
// new leader of etcd. Old values are not copied.
//
// While it runs, nobody else may write the keys it copies in the target.
#pragma once

#include <string>
#include <vector>

#include "client/ctl/commands.h"

namespace holdfast::ctl {

inline constexpr char kMarkerKey[] = "\0holdfast/migrate";
inline constexpr size_t kMarkerKeyBytes = sizeof(kMarkerKey) - 1;

struct MigrateArgs {
  std::vector<std::string> from;
  std::string prefix;            // of the keys to copy; empty: all
  bool until_caught_up = false;  // ends once nothing is missing; else follows until SIGINT
  bool verify = false;           // compares everything at the end
  bool finish = false;           // removes the marker at the end
  bool force = false;            // even if there are keys in the target; a marker of another
                                 // migration is replaced
  int max_txn_ops = 128;         // of the target, marker included
};

ExitCode Migrate(const Common& common, const MigrateArgs& args, Io io);

}  // namespace holdfast::ctl
