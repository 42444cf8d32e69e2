#include "client/ctl/cache_command.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <map>
#include <set>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "absl/time/time.h"
#include "base/strings.h"
#include "client/cache_directory.h"
#include "client/claim.h"
#include "client/ctl/output.h"
#include "client/disk_file.h"
#include "client/override_file.h"

namespace holdfast::ctl {
namespace {

namespace fs = std::filesystem;
using internal::GenerationListing;
using internal::Override;
using internal::Surroundings;
using nlohmann::ordered_json;

constexpr std::string_view kOverrideSuffix = ".override.json";

ExitCode Fail(const absl::Status& status, Io io) {
  io.err << "holdfastctl: " << base::Message(status) << "\n";
  return ExitCodeOf(status);
}

ExitCode WrongUsage(std::string_view text, Io io) {
  io.err << "holdfastctl: " << text << "\n";
  return kUsage;
}

Freshness FreshnessOf(const internal::Claim& claim, const Surroundings& surroundings) {
  return internal::FreshnessAccess::Make(claim, surroundings.clock, base::kDefaultMaxClockSlow);
}

std::string AgeOf(const GenerationListing& one, const Surroundings& surroundings) {
  const absl::Duration age = FreshnessOf(one.info.claim, surroundings).MaxAge();
  if (age == absl::InfiniteDuration()) return "unknown";
  return fmt::format("{:.3f}s", absl::ToDoubleSeconds(age));
}

std::string StateOf(const GenerationListing& one) {
  if (absl::IsUnimplemented(one.health)) return "later format";
  if (!one.health.ok()) return "damaged";
  if (one.crashes > 0) return fmt::format("suspect ({})", one.crashes);
  return one.good ? "good" : "unproven";
}

std::string TimeText(absl::Time time) {
  if (time == absl::InfinitePast()) return "-";
  return absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", time, absl::UTCTimeZone());
}

// One override file; the prefix is known from the copies beside it, or was asked for.
struct FoundOverride {
  std::string path;
  std::optional<std::string> prefix;
  absl::StatusOr<Override> content;
};

struct Contents {
  std::vector<GenerationListing> generations;
  std::vector<FoundOverride> overrides;
  bool empty() const { return generations.empty() && overrides.empty(); }
};

absl::StatusOr<Contents> Examine(const CacheArgs& args, const Surroundings& surroundings) {
  auto all = internal::ListGenerations(args.dir, surroundings);
  if (!all.ok()) return all.status();
  Contents contents;
  std::map<std::string, std::string> prefixes;
  if (args.prefix.has_value()) prefixes[internal::CacheStem(*args.prefix)] = *args.prefix;
  for (GenerationListing& one : *all) {
    const std::string name = fs::path(one.file).filename();
    const std::string stem = name.substr(0, name.find('.'));
    // A damaged header names no prefix; the file's name still says which it is of.
    if (args.prefix.has_value() && stem != internal::CacheStem(*args.prefix)) continue;
    if (internal::CacheStem(one.prefix) == stem) prefixes[stem] = one.prefix;
    contents.generations.push_back(std::move(one));
  }
  std::error_code error;
  for (const auto& item : fs::directory_iterator(args.dir, error)) {
    const std::string name = item.path().filename();
    if (!name.ends_with(kOverrideSuffix)) continue;
    const std::string stem = name.substr(0, name.size() - kOverrideSuffix.size());
    const auto known = prefixes.find(stem);
    if (args.prefix.has_value() && known == prefixes.end()) continue;
    FoundOverride found{.path = item.path(), .prefix = {}, .content = Override{}};
    if (known != prefixes.end()) found.prefix = known->second;
    found.content = internal::ReadOverride(found.path, found.prefix.value_or(""));
    contents.overrides.push_back(std::move(found));
  }
  std::sort(contents.overrides.begin(), contents.overrides.end(),
            [](const auto& a, const auto& b) { return a.path < b.path; });
  return contents;
}

std::string Replaced(const ordered_json& value) {
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

ordered_json ToJson(const GenerationListing& one, const Surroundings& surroundings) {
  const Freshness fresh = FreshnessOf(one.info.claim, surroundings);
  const absl::Duration age = fresh.MaxAge();
  ordered_json out = {
      {"file", one.file},        {"prefix", one.prefix}, {"generation", one.generation},
      {"state", StateOf(one)},   {"good", one.good},     {"crashes", one.crashes},
      {"sound", one.health.ok()}};
  if (!one.health.ok()) out["problem"] = std::string(base::Message(one.health));
  out["clusterId"] = one.info.cluster_id;
  out["incarnation"] = one.info.incarnation;
  out["revision"] = one.info.revision;
  out["records"] = one.records;
  out["bytes"] = one.bytes;
  out["written"] = TimeText(one.written);
  out["proof"] = ToString(fresh.proof());
  out["ageSeconds"] = age == absl::InfiniteDuration() ? ordered_json(nullptr)
                                                      : ordered_json(absl::ToDoubleSeconds(age));
  return out;
}

ordered_json ToJson(const FoundOverride& one) {
  ordered_json out = {{"file", one.path}};
  out["prefix"] = one.prefix.has_value() ? ordered_json(*one.prefix) : ordered_json(nullptr);
  out["usable"] = one.content.ok();
  if (!one.content.ok()) {
    out["problem"] = std::string(base::Message(one.content.status()));
    return out;
  }
  out["note"] = one.content->note;
  out["puts"] = one.content->put.size();
  out["deletes"] = one.content->deleted.size();
  return out;
}

ExitCode PrintJson(const Contents& contents, const Surroundings& surroundings, Io io) {
  ordered_json generations = ordered_json::array(), overrides = ordered_json::array();
  for (const auto& one : contents.generations) generations.push_back(ToJson(one, surroundings));
  for (const auto& one : contents.overrides) overrides.push_back(ToJson(one));
  io.out << Replaced({{"generations", generations}, {"overrides", overrides}}) << "\n";
  return kOk;
}

std::string OverrideText(const FoundOverride& one) {
  if (!one.content.ok()) {
    return fmt::format("override NOT USED: {}\n", base::Message(one.content.status()));
  }
  return fmt::format("override in force for {}: {} put, {} deleted, note: {} ({})\n",
                     one.prefix.has_value() ? base::Printable(*one.prefix)
                                            : std::string("a prefix without copies here"),
                     one.content->put.size(), one.content->deleted.size(),
                     one.content->note.empty() ? "-" : base::Printable(one.content->note, 200),
                     one.path);
}

// Empty and all it says is where one looked.
ExitCode NothingThere(const CacheArgs& args, Io io) {
  io.err << "holdfastctl: no copy"
         << (args.prefix.has_value() ? " of " + base::Printable(*args.prefix) : std::string())
         << " lies in " << args.dir << "\n";
  return kNotFound;
}

// As LastGood::Load chooses, as far as that can be known without the service's validators.
const GenerationListing* ChooseForExport(const std::vector<GenerationListing>& generations) {
  for (const bool last_resort : {false, true}) {
    for (const GenerationListing& one : generations) {
      if (one.health.ok() && (last_resort || one.crashes == 0)) return &one;
    }
  }
  return nullptr;
}

// Later words about a key replace earlier ones.
absl::Status Merge(const CacheArgs& args, Override& content) {
  const auto forget = [&content](const std::string& key) {
    std::erase_if(content.put, [&](const Entry& entry) { return entry.key == key; });
    std::erase(content.deleted, key);
  };
  const auto check = [&](const std::string& key) {
    if (key.starts_with(*args.prefix)) return absl::OkStatus();
    return absl::InvalidArgumentError(base::ToAbsl(fmt::format(
        "the key {} does not begin with {}", base::Printable(key), base::Printable(*args.prefix))));
  };
  std::set<std::string> named;
  for (const std::string& put : args.put) {
    const size_t equals = put.find('=');
    if (equals == std::string::npos) {
      return absl::InvalidArgumentError(
          base::ToAbsl(fmt::format("--put {} has no '=': KEY=VALUE", base::Printable(put))));
    }
    const std::string key = put.substr(0, equals);
    if (absl::Status status = check(key); !status.ok()) return status;
    if (!named.insert(key).second) {
      return absl::InvalidArgumentError(
          base::ToAbsl(fmt::format("{} is given twice", base::Printable(key))));
    }
    forget(key);
    content.put.push_back({.key = key, .value = put.substr(equals + 1)});
  }
  for (const std::string& key : args.del) {
    if (absl::Status status = check(key); !status.ok()) return status;
    if (!named.insert(key).second) {
      return absl::InvalidArgumentError(
          base::ToAbsl(fmt::format("{} is given twice", base::Printable(key))));
    }
    forget(key);
    content.deleted.push_back(key);
  }
  content.note = args.note;
  return absl::OkStatus();
}

// Whole or not at all, and readable by whoever the directory belongs to: root may be writing for a
// service that is not.
absl::Status WriteOverride(const std::string& dir, const std::string& path,
                           const std::string& text) {
  auto file = internal::PartFile::Create(path + ".part", nullptr);
  if (!file.ok()) return file.status();
  struct stat owner;
  if (stat(dir.c_str(), &owner) != 0) return internal::DiskError("examine", dir, errno);
  if (geteuid() == 0 && fchown((*file)->fd(), owner.st_uid, owner.st_gid) != 0) {
    return internal::DiskError("give to its user", path, errno);
  }
  absl::Status status = (*file)->Append(text);
  if (status.ok()) status = (*file)->Sync();
  return status.ok() ? (*file)->Commit(path) : status;
}

ExitCode ClearOverride(const std::string& path, const CacheArgs& args, Io io) {
  if (unlink(path.c_str()) != 0 && errno != ENOENT) {
    return Fail(internal::DiskError("remove", path, errno), io);
  }
  if (absl::Status status = internal::SyncDirectory(args.dir); !status.ok()) {
    return Fail(status, io);
  }
  io.out << "OK: no override for " << base::Printable(*args.prefix) << "\n";
  return kOk;
}

ExitCode PrintOverride(const Common& common, const std::string& path, const Override& content,
                       Io io) {
  if (!content.present) {
    io.err << "holdfastctl: there is no override " << path << "\n";
    return kNotFound;
  }
  const auto text = internal::FormatOverride(content);
  if (!text.ok()) return Fail(text.status(), io);
  io.out << (common.json ? Replaced(ordered_json::parse(*text)) + "\n" : *text);
  return kOk;
}

}  // namespace

ExitCode CacheShow(const Common& common, const CacheArgs& args, const Surroundings& surroundings,
                   Io io) {
  const auto contents = Examine(args, surroundings);
  if (!contents.ok()) return Fail(contents.status(), io);
  if (common.json) return PrintJson(*contents, surroundings, io);
  if (contents->empty()) return NothingThere(args, io);
  std::vector<std::vector<std::string>> rows = {
      {"PREFIX", "GENERATION", "STATE", "REVISION", "RECORDS", "BYTES", "AGE", "PROOF", "WRITTEN"}};
  for (const GenerationListing& one : contents->generations) {
    rows.push_back({one.prefix.empty() ? "?" : base::Printable(one.prefix),
                    std::to_string(one.generation), StateOf(one), std::to_string(one.info.revision),
                    std::to_string(one.records), std::to_string(one.bytes),
                    AgeOf(one, surroundings), std::string(ToString(one.info.claim.proof)),
                    TimeText(one.written)});
  }
  if (rows.size() > 1) io.out << ColumnsText(rows);
  for (const FoundOverride& one : contents->overrides) io.out << OverrideText(one);
  return kOk;
}

ExitCode CacheVerify(const Common& common, const CacheArgs& args, const Surroundings& surroundings,
                     Io io) {
  const auto contents = Examine(args, surroundings);
  if (!contents.ok()) return Fail(contents.status(), io);
  bool sound = true;
  for (const GenerationListing& one : contents->generations) {
    // What a later version wrote is not damage; this one cannot say more.
    sound &= one.health.ok() || absl::IsUnimplemented(one.health);
    if (common.json) continue;
    io.out << one.file << ": "
           << (one.health.ok()
                   ? fmt::format("sound, {} records at revision {}", one.records, one.info.revision)
                   : std::string(base::Message(one.health)))
           << "\n";
  }
  for (const FoundOverride& one : contents->overrides) {
    sound &= one.content.ok();
    if (common.json) continue;
    io.out << one.path << ": "
           << (one.content.ok() ? "sound" : std::string(base::Message(one.content.status())))
           << "\n";
  }
  if (common.json) PrintJson(*contents, surroundings, io);
  if (contents->empty()) return NothingThere(args, io);
  return sound ? kOk : kRefused;
}

ExitCode CacheExport(const Common& common, const CacheArgs& args, const Surroundings& surroundings,
                     Io io) {
  const auto contents = Examine(args, surroundings);
  if (!contents.ok()) return Fail(contents.status(), io);
  std::set<std::string> prefixes;
  for (const GenerationListing& one : contents->generations) {
    if (one.health.ok()) prefixes.insert(one.prefix);
  }
  if (prefixes.size() > 1) {
    std::string text = "copies of several prefixes lie there; --prefix names one:";
    for (const std::string& prefix : prefixes) text += " " + base::Printable(prefix);
    return WrongUsage(text, io);
  }
  const GenerationListing* chosen = ChooseForExport(contents->generations);
  if (chosen == nullptr) {
    if (contents->generations.empty()) return NothingThere(args, io);
    return Fail(absl::DataLossError(base::ToAbsl(
                    fmt::format("no copy in {} is sound; `holdfastctl cache verify {}` says more",
                                args.dir, args.dir))),
                io);
  }
  auto loaded = internal::ReadGeneration(chosen->file, surroundings);
  if (!loaded.ok()) return Fail(loaded.status(), io);
  const Freshness fresh = FreshnessOf(chosen->info.claim, surroundings);
  io.err << chosen->file << " " << FreshnessText(fresh) << "\n";
  if (common.json) {
    RangeResult range;
    range.count = static_cast<int64_t>(loaded->entries.size());
    range.entries = std::move(loaded->entries);
    io.out << GetJson(range, fresh, {});
    return kOk;
  }
  for (const Entry& entry : loaded->entries) io.out << EntryJson(entry);
  return kOk;
}

ExitCode CacheOverride(const Common& common, const CacheArgs& args, Io io) {
  if (!args.prefix.has_value()) return WrongUsage("override needs --prefix", io);
  const bool change = !args.put.empty() || !args.del.empty();
  if (args.clear && change) {
    return WrongUsage("--clear goes without --put and --delete", io);
  }
  struct stat info;
  if (stat(args.dir.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
    return Fail(
        absl::NotFoundError(base::ToAbsl(fmt::format(
            "there is no directory {}; name the one that the service was given", args.dir))),
        io);
  }
  const std::string path = internal::OverridePath(args.dir, *args.prefix);
  if (args.clear) return ClearOverride(path, args, io);
  auto content = internal::ReadOverride(path, *args.prefix);
  if (!content.ok()) return Fail(content.status(), io);
  if (!change) return PrintOverride(common, path, *content, io);
  if (args.note.empty()) {
    return WrongUsage("--note is needed: whoever finds the override later has to know why", io);
  }
  if (absl::Status status = Merge(args, *content); !status.ok()) {
    return WrongUsage(base::Message(status), io);
  }
  const auto text = internal::FormatOverride(*content);
  if (!text.ok()) return WrongUsage(base::Message(text.status()), io);
  if (text->size() > internal::kOverrideBytesMax) {
    return WrongUsage(fmt::format("the override would be larger than {} bytes, which no service "
                                  "reads",
                                  internal::kOverrideBytesMax),
                      io);
  }
  if (absl::Status status = WriteOverride(args.dir, path, *text); !status.ok()) {
    return Fail(status, io);
  }
  const auto files = internal::ListCacheFiles(args.dir, internal::CacheStem(*args.prefix));
  if (files.ok() && files->generations.empty()) {
    io.err << "holdfastctl: warning: no copy of " << base::Printable(*args.prefix) << " lies in "
           << args.dir << "; make sure that a service mirrors exactly this prefix there\n";
  }
  io.out << "OK " << path << "\n";
  return kOk;
}

}  // namespace holdfast::ctl
