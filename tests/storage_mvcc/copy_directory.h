// The files of a store at work, as a crash would leave them.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <system_error>

#include <gtest/gtest.h>

namespace holdfast::storage {

// Copies a flat directory that its owner goes on tidying up: RocksDB deletes obsolete files in the
// background, also after a flush has returned. A copy counts only if the directory held the same
// files before it and after it; otherwise it begins again. Fails the test if it never does.
inline void CopyDirectoryInUse(const std::string& from, const std::string& to) {
  namespace fs = std::filesystem;
  constexpr int kTriesMax = 1000;
  const auto list = [&from] {
    std::set<fs::path> files;
    for (const fs::directory_entry& entry : fs::directory_iterator(from))
      files.insert(entry.path());
    return files;
  };
  std::error_code error;
  for (int i = 0; i < kTriesMax; ++i) {
    fs::remove_all(to);
    fs::create_directories(to);
    const std::set<fs::path> before = list();
    error.clear();
    for (const fs::path& file : before) {
      if (error) break;
      fs::copy_file(file, fs::path(to) / file.filename(), error);
    }
    if (!error && list() == before) return;
    // A file that has gone: which error that is depends on when it went.
  }
  FAIL() << from << " never stood still for a copy: " << error.message();
}

}  // namespace holdfast::storage
