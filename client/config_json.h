// A client's configuration as text, for the C interface.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "holdfast/options.h"

namespace holdfast::internal {

// The fields are listed in docs/c-api.md. InvalidArgument names the field that is unknown, of the
// wrong type, or makes no sense; no field is passed over in silence.
absl::StatusOr<ClientOptions> ParseClientConfig(std::string_view json);

}  // namespace holdfast::internal
