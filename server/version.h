// What this program calls itself, and the etcd it speaks like.
#pragma once

#include <string_view>

namespace holdfast::server {

inline constexpr std::string_view kVersion = HOLDFAST_VERSION;
// The level of the etcd API that is answered; clients decide by it which features to use.
inline constexpr std::string_view kEtcdApiVersion = "3.5.17";
inline constexpr std::string_view kEtcdClusterVersion = "3.5";

}  // namespace holdfast::server
