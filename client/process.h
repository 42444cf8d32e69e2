// What the process that a client runs in is called, and where it may keep files.
#pragma once

#include <string>

namespace holdfast::internal {

// Of the executable, as the kernel has it.
std::string ProgramName();

// ClientOptions::disk_dir says from which variables; empty: none of them is set.
std::string DefaultCacheDir();

}  // namespace holdfast::internal
