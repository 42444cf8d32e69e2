#include "holdfast/observer.h"

namespace holdfast {

std::string_view ToString(Link link) {
  switch (link) {
    case Link::kConnecting:
      return "connecting";
    case Link::kLive:
      return "live";
    case Link::kJeopardy:
      return "jeopardy";
    case Link::kStale:
      return "stale";
    case Link::kExpired:
      return "expired";
    case Link::kRecovering:
      break;
  }
  return "recovering";
}

}  // namespace holdfast
