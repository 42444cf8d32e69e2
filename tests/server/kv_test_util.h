// Shared by the tests of the KV path.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include <fmt/format.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include "base/check.h"
#include "base/rng.h"
#include "server/apply_command.h"
#include "storage/mvcc_store.h"

namespace holdfast::server::testing {

// A fresh directory below testing::TempDir(), removed at the end.
class TempDir {
 public:
  TempDir() {
    path_ = fmt::format("{}holdfast-kv-{:016x}", ::testing::TempDir(), base::RandomSeed());
    std::filesystem::create_directories(path_);
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// A message from protobuf's text format.
template <class T>
T Parse(const std::string& text) {
  T message;
  CHECK_MSG(google::protobuf::TextFormat::ParseFromString(text, &message), text);
  return message;
}

inline std::string Text(const google::protobuf::Message& message) {
  google::protobuf::TextFormat::Printer printer;
  printer.SetSingleLineMode(true);
  std::string text;
  CHECK(printer.PrintToString(message, &text));
  if (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

// One command as an entry of term 1 behind everything applied, with no alarm in force; `effects`,
// if not null, is added to.
inline absl::StatusOr<ApplyResult> ApplyAlone(const command::v1::Command& command, bool want_answer,
                                              storage::MvccStore::Writer& writer,
                                              ApplyEffects* effects = nullptr) {
  AlarmSet alarms;
  ApplyEffects ignored;
  return ApplyCommand(command, want_answer,
                      {.index = Index(1),
                       .term = Term(1),
                       .alarms = &alarms,
                       .effects = effects ? effects : &ignored},
                      writer);
}

inline std::unique_ptr<storage::MvccStore> OpenStore(const std::string& dir) {
  storage::MvccStore::Options options;
  options.dir = dir;
  auto store = storage::MvccStore::Open(options);
  CHECK_MSG(store.ok(), store.status().ToString());
  return *std::move(store);
}

}  // namespace holdfast::server::testing
