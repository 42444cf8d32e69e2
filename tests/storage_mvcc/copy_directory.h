// The files of a store at work, as a crash would leave them.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <system_error>

#include <gtest/gtest.h>

namespace holdfast::storage {

// Copies a directory that its owner goes on tidying up: RocksDB deletes obsolete files in the
// background, also after a flush has returned. A copy counts only if the directory held the same
// files before it and after it; otherwise it begins again. Fails the test if it never does.
inline void CopyDirectoryInUse(const std::string& from, const std::string& to) {
  namespace fs = std::filesystem;
  constexpr int kTriesMax = 1000;
  const auto list = [&from](std::error_code& error) {
    std::set<fs::path> files;
    for (fs::recursive_directory_iterator it(from, error), end; !error && it != end;
         it.increment(error)) {
      files.insert(it->path());
    }
    return files;
  };
  std::error_code error;
  for (int i = 0; i < kTriesMax; ++i) {
    error.clear();
    fs::remove_all(to);
    const std::set<fs::path> before = list(error);
    // A file that goes meanwhile is an error of the copy: which one depends on when.
    if (!error) fs::copy(from, to, fs::copy_options::recursive, error);
    if (!error && list(error) == before && !error) return;
  }
  FAIL() << from << " never stood still for a copy: " << error.message();
}

}  // namespace holdfast::storage
