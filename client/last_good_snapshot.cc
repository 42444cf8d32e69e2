// Of its own, so that what needs no mirror (holdfastctl) does not link one.
#include "client/last_good.h"

namespace holdfast::internal {

absl::Status LastGood::Write(const MirrorSnapshot& records, const GenerationInfo& info,
                             bool on_trial) {
  return WriteRecords([&](RecordVisitor visit) { records.Scan("", visit); }, info, on_trial);
}

}  // namespace holdfast::internal
