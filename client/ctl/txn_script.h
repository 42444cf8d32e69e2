// The text form of a transaction, the same as etcdctl's: three sections with a blank line between.
//
//   value("/config/a") = "old"          compares: version | create | mod | value | lease
//   mod("/config/b") > "0"              relations: = != > <
//
//   put /config/a new                   if all hold: put KEY VALUE | get KEY [--prefix]
//   del /config/old/ --prefix                        | del KEY [--prefix]
//
//   get /config/a                       otherwise
//
// A word may stand in double quotes, with \n \t \\ \" and \xHH inside.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "holdfast/txn.h"

namespace holdfast::ctl {

// InvalidArgument names the line and what is wrong with it.
absl::StatusOr<Txn> ParseTxnScript(std::string_view text);

}  // namespace holdfast::ctl
