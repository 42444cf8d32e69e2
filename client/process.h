// What the process that a client runs in is called, which one it is, and where it may keep files.
#pragma once

#include <sys/types.h>

#include <string>

namespace holdfast::internal {

// Of the executable, as the kernel has it.
std::string ProgramName();

// getpid(), without a system call each time: asked with every call of a client. Right in a child
// too, however it was made, as long as its memory is a copy of its own.
pid_t ProcessId();

// ClientOptions::disk_dir says from which variables; empty: none of them is set.
std::string DefaultCacheDir();

}  // namespace holdfast::internal
