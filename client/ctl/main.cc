// holdfastctl: keys and members of a Holdfast (or etcd v3) store from the command line.
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "base/strings.h"
#include "client/ctl/backup_directory.h"
#include "client/ctl/cache_command.h"
#include "client/ctl/clients_command.h"
#include "client/ctl/commands.h"
#include "client/ctl/member_commands.h"
#include "client/ctl/migrate.h"
#include "client/ctl/snapshot_commands.h"
#include "client/ctl/watch_command.h"

namespace holdfast::ctl {
namespace {

constexpr char kFooter[] =
    "Exit codes:\n"
    "  0  done\n"
    "  1  get: no such key; txn: the compares did not hold\n"
    "  2  wrong usage, nothing was sent\n"
    "  3  unavailable: no quorum, no endpoint reachable, or too old for the bound; a write or a "
    "change of members had no effect\n"
    "  4  outcome unknown: the write or the change was sent and may have taken effect\n"
    "  5  refused by the server, or another error";

// What the command line gave; the subcommands' callbacks read it.
struct CommandLine {
  Common common;
  std::string output = "simple";
  std::string timeout = "5s";
  std::string consistency = "linearizable";
  GetArgs get;
  std::string key;
  std::optional<std::string> value;
  bool prefix = false;
  std::string member_id;
  std::string member_name;
  std::vector<std::string> peer_urls;
  bool learner = false;
  std::string path;
  RestoreArgs restore;
  BackupArgs backup;
  std::string every;
  MigrateArgs migrate;
  WatchArgs watch;
  CacheArgs cache;
};

Io Console() { return {std::cin, std::cout, std::cerr}; }

// A bad value of an option is reported like a bad option.
void FinishCommon(CommandLine& line) {
  line.common.json = line.output == "json";
  if (!absl::ParseDuration(line.timeout, &line.common.timeout) ||
      line.common.timeout <= absl::ZeroDuration()) {
    throw CLI::ValidationError(
        "--timeout", "'" + line.timeout + "' is not a duration above zero, such as 500ms or 5s");
  }
  const auto consistency = ParseConsistency(line.consistency);
  if (!consistency.ok()) {
    throw CLI::ValidationError(std::string(base::Message(consistency.status())));
  }
  line.get.consistency = *consistency;
  if (!line.every.empty() && (!absl::ParseDuration(line.every, &line.backup.every) ||
                              line.backup.every <= absl::ZeroDuration())) {
    throw CLI::ValidationError("--every",
                               "'" + line.every + "' is not a duration above zero, such as 1m");
  }
}

void AddCommonOptions(CLI::App& app, CommandLine& line) {
  line.common.endpoints = {"127.0.0.1:2379"};
  app.add_option("--endpoints", line.common.endpoints,
                 "The servers: host:port[,host:port...], or the environment's HOLDFAST_ENDPOINTS")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->envname("HOLDFAST_ENDPOINTS")
      ->capture_default_str();
  app.add_option("-w,--write-out", line.output,
                 "Output: simple or json; for `snapshot status` also table")
      ->check(CLI::IsMember({"simple", "json", "table"}))
      ->capture_default_str();
  app.add_option("--timeout", line.timeout, "For one request, such as 500ms or 5s")
      ->capture_default_str();
}

void AddGet(CLI::App& app, CommandLine& line) {
  CLI::App* get = app.add_subcommand("get", "Print a key, or a range of keys");
  get->add_option("KEY", line.get.key, "The key, or the first key of the range")->required();
  CLI::Option* prefix = get->add_flag("--prefix", line.get.prefix, "All keys that begin with KEY");
  get->add_option("--range-end", line.get.range_end, "All keys from KEY to before this one")
      ->excludes(prefix);
  get->add_option("--consistency", line.consistency,
                  "linearizable; bounded=5s: any member's answer proven to be at most so old; "
                  "stale: any answer; stale-if-down: linearizable, else stale")
      ->capture_default_str();
  get->add_option("--rev", line.get.revision, "As of this revision of the store");
  get->add_option("--limit", line.get.limit, "At most so many keys; 0: all")
      ->check(CLI::NonNegativeNumber);
  CLI::Option* keys = get->add_flag("--keys-only", line.get.keys_only, "Print no values");
  get->add_flag("--count-only", line.get.count_only, "Print the number of keys only");
  get->add_flag("--print-value-only", line.get.print_value_only, "Print no keys")->excludes(keys);
  get->add_flag("--freshness", line.get.freshness,
                "Also print revision, age, proof and source, to standard error");
  get->footer(kFooter);
}

void AddWrites(CLI::App& app, CommandLine& line) {
  CLI::App* put = app.add_subcommand("put", "Write a key");
  put->add_option("KEY", line.key, "The key")->required();
  put->add_option("VALUE", line.value,
                  "The value; '-' or nothing: read from standard input, byte for byte");
  put->footer(kFooter);
  CLI::App* del = app.add_subcommand("del", "Delete keys; prints how many there were");
  del->add_option("KEY", line.key, "The key")->required();
  del->add_flag("--prefix", line.prefix, "All keys that begin with KEY");
  del->footer(kFooter);
  CLI::App* txn = app.add_subcommand(
      "txn",
      "Run a transaction from standard input: compares, a blank line, what to do if all "
      "hold, a blank line, what to do otherwise");
  txn->footer(
      std::string("Example:\n"
                  "  mod(\"/config/a\") = \"7\"\n\n"
                  "  put /config/a \"new value\"\n\n"
                  "  get /config/a\n\n"
                  "Compares: version, create, mod, value, lease of (\"KEY\") with = != > <.\n"
                  "Operations: put KEY VALUE, get KEY [--prefix], del KEY [--prefix].\n\n") +
      kFooter);
}

void AddWatch(CLI::App& app, CommandLine& line) {
  CLI::App* watch = app.add_subcommand("watch", "Print changes as they happen, until interrupted");
  watch->add_option("KEY", line.watch.key, "The key, or the first key of the range")->required();
  CLI::Option* prefix =
      watch->add_flag("--prefix", line.watch.prefix, "All keys that begin with KEY");
  watch->add_option("--range-end", line.watch.range_end, "All keys from KEY to before this one")
      ->excludes(prefix);
  watch->add_option("--rev", line.watch.revision, "From this revision on; 0: from now on")
      ->check(CLI::NonNegativeNumber);
  watch->add_flag("--prev-kv", line.watch.prev_kv, "Also print what was there before");
  watch->add_flag("--age", line.watch.age,
                  "Each second, to standard error: up to which revision everything was shown, and "
                  "how long ago a change could have happened that was not");
  watch->footer(kFooter);
}

void AddId(CLI::App* command, CommandLine& line) {
  command->add_option("ID", line.member_id, "The member's id, as `member list` shows it")
      ->required();
  command->footer(kFooter);
}

CLI::Option* AddPeerUrls(CLI::App* command, CommandLine& line, const std::string& help) {
  return command->add_option("--peer-urls", line.peer_urls, help)
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("URL,...");
}

void AddMemberCommands(CLI::App& app, CommandLine& line) {
  CLI::App* member = app.add_subcommand("member", "Show and change the members of the cluster");
  member->require_subcommand(1);
  member->footer(kFooter);
  member
      ->add_subcommand(
          "list",
          "Print id, state, name, peer and client addresses, learner, and role: voter, "
          "learner, or joining (a learner that votes as soon as it keeps up)")
      ->footer(kFooter);
  CLI::App* add = member->add_subcommand(
      "add", "Make room for a new member, and print how to start it; it gets its vote by itself");
  add->add_option("NAME", line.member_name, "The new member's name")->required();
  AddPeerUrls(add, line, "Where the others reach it: http://HOST:PORT")->required();
  add->add_flag("--learner", line.learner, "A non-voting standby: it stays a learner");
  add->footer(kFooter);
  CLI::App* replace = member->add_subcommand(
      "replace",
      "Put a new member in the place of one whose machine or data is lost, in one step; print how "
      "to start it");
  AddPeerUrls(replace, line, "Of the new member; without it: those of the old one");
  AddId(replace, line);
  AddId(member->add_subcommand("remove", "Remove a member; its process stops by itself"), line);
  AddId(member->add_subcommand("promote", "Give a learner that keeps up a vote"), line);
  AddId(member->add_subcommand("demote", "Make a voter a learner"), line);
  CLI::App* update = member->add_subcommand("update", "Change where the others reach a member");
  AddPeerUrls(update, line, "The new addresses: http://HOST:PORT")->required();
  AddId(update, line);
  AddId(app.add_subcommand("move-leader", "Have the leader hand over to another voter"), line);
}

void AddSnapshotCommands(CLI::App& app, CommandLine& line) {
  CLI::App* snapshot =
      app.add_subcommand("snapshot", "Save, examine and restore a backup of everything");
  snapshot->require_subcommand(1);
  snapshot->footer(kFooter);
  CLI::App* save = snapshot->add_subcommand(
      "save", "Write all keys and leases of one revision to a file, whole or not at all");
  save->add_option("FILE", line.path, "The file")->required();
  save->footer(kFooter);
  CLI::App* status = snapshot->add_subcommand("status", "Verify a backup, and say what it holds");
  status->add_option("FILE", line.path, "The file")->required();
  status->footer(kFooter);
  CLI::App* restore = snapshot->add_subcommand(
      "restore",
      "Lay down a data directory with which a member of a new cluster starts; once per member");
  RestoreArgs& args = line.restore;
  restore->add_option("SOURCE", args.source, "A backup, or a directory of `backup`")->required();
  restore->add_option("--data-dir", args.data_dir, "Of the member: new or empty")->required();
  restore->add_option("--name", args.name, "Of the member")->capture_default_str();
  restore
      ->add_option("--initial-cluster", args.initial_cluster,
                   "The members of the new cluster: NAME=URL[,NAME=URL...]")
      ->capture_default_str();
  restore
      ->add_option("--initial-cluster-token", args.initial_cluster_token,
                   "Another than that of the old cluster")
      ->capture_default_str();
  restore
      ->add_option("--initial-advertise-peer-urls", args.initial_advertise_peer_urls,
                   "Where the others reach this member")
      ->capture_default_str();
  restore->add_option("--revision", args.revision, "As of this revision; 0: the newest there is")
      ->check(CLI::NonNegativeNumber);
  restore
      ->add_option("--bump-revision", args.bump_revision,
                   "Go on so many revisions further, with everything before marked compacted, so "
                   "that no client takes the new cluster for the old one; 0: go on where it was")
      ->capture_default_str();
  restore->add_flag("--mark-compacted", args.mark_compacted,
                    "What --bump-revision does anyway; for etcdutl's users");
  restore->footer(kFooter);
}

void AddBackupCommands(CLI::App& app, CommandLine& line) {
  CLI::App* backup = app.add_subcommand(
      "backup", "Add what is new to a directory of backups: increments behind a full one");
  BackupArgs& args = line.backup;
  backup->add_option("DIR", args.dir, "The directory; made if it is missing");
  backup->add_flag("--full", args.full, "Begin with a full backup in any case");
  backup->add_option("--every", line.every, "Go on for ever, each so often, such as 1m");
  backup
      ->add_option("--keep", args.keep,
                   "So many generations, each a full backup with its increments; 0: all")
      ->check(CLI::NonNegativeNumber);
  backup
      ->add_option("--increments", args.increments_max,
                   "Begin a new generation after so many increments")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  backup->require_subcommand(0, 1);
  backup->footer(kFooter);
  for (const auto& [name, help] :
       {std::pair("verify", "Read everything in a directory of backups, and say what is unsound"),
        std::pair("list", "Show which revisions a directory of backups holds")}) {
    CLI::App* command = backup->add_subcommand(name, help);
    command->add_option("DIR", args.dir, "The directory")->required();
    command->footer(kFooter);
  }
}

void AddCacheCommands(CLI::App& app, CommandLine& line) {
  CLI::App* cache = app.add_subcommand(
      "cache", "Services' copies on this machine's disk, and overrides; no server is asked");
  cache->require_subcommand(1);
  cache->footer(kFooter);
  CacheArgs& args = line.cache;
  const auto add = [&](const std::string& name, const std::string& help) {
    CLI::App* command = cache->add_subcommand(name, help);
    command->add_option("DIR", args.dir, "The services' disk directory")->required();
    command->add_option("--prefix", args.prefix, "Of this mirrored prefix, exactly");
    command->footer(kFooter);
    return command;
  };
  add("show", "Show each copy: state, revision, size, age, and what that rests on");
  add("verify", "Read every byte; exit code 5 if something is damaged, 1 if nothing is there");
  add("export", "Print the records a service would begin with, a line of JSON each");
  CLI::App* override_command =
      add("override", "Serve other values than the store's, at once, whatever is down");
  override_command
      ->add_option("--put", args.put, "Serve this value; later ones add to earlier ones")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  override_command->add_option("--delete", args.del, "Serve as if this key were not there")
      ->type_name("KEY")
      ->allow_extra_args(false);
  override_command->add_flag("--clear", args.clear, "Serve what the store has again");
  override_command->add_option("--note", args.note, "Why; shown to whoever looks");
}

void AddMigrate(CLI::App& app, CommandLine& line) {
  CLI::App* migrate = app.add_subcommand(
      "migrate", "Copy a live etcd (3.4 or later) or Holdfast into this store, and follow it");
  MigrateArgs& args = line.migrate;
  migrate->add_option("--from", args.from, "The source: host:port[,host:port...]")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->required();
  migrate->add_option("--prefix", args.prefix, "Only keys that begin so");
  migrate->add_flag("--until-caught-up", args.until_caught_up,
                    "End once nothing is missing; otherwise follow until interrupted");
  migrate->add_flag("--verify", args.verify, "At the end compare all keys, values and leases");
  migrate->add_flag("--finish", args.finish,
                    "At the end remove the marker: this migration cannot be gone on with");
  migrate->add_flag("--force", args.force,
                    "Begin anew, even if the target is not empty: keys of the same name are "
                    "overwritten, others are left alone");
  migrate->add_option("--max-txn-ops", args.max_txn_ops, "As the target has it")
      ->check(CLI::Range(2, 100'000))
      ->capture_default_str();
  migrate->footer(kFooter);
}

ExitCode RunSnapshot(const CLI::App& snapshot, const CommandLine& line) {
  const Common& common = line.common;
  if (snapshot.got_subcommand("save")) return SnapshotSave(common, line.path, Console());
  if (snapshot.got_subcommand("restore")) return SnapshotRestore(common, line.restore, Console());
  const TableStyle style = line.output == "table" ? TableStyle::kTable : TableStyle::kSimple;
  return SnapshotStatus(common, line.path, style, Console());
}

ExitCode RunBackup(const CLI::App& backup, const CommandLine& line) {
  if (backup.got_subcommand("verify")) {
    return BackupVerify(line.common, line.backup.dir, Console());
  }
  if (backup.got_subcommand("list")) return BackupList(line.common, line.backup.dir, Console());
  if (line.backup.dir.empty()) {
    std::cerr << "holdfastctl: backup needs a DIR, or verify or list\n";
    return kUsage;
  }
  return Backup(line.common, line.backup, Console());
}

ExitCode RunCache(const CLI::App& cache, const CommandLine& line) {
  if (cache.got_subcommand("override")) {
    return CacheOverride(line.common, line.cache, Console());
  }
  const auto machine = internal::Surroundings::OfThisMachine();
  if (cache.got_subcommand("verify")) {
    return CacheVerify(line.common, line.cache, machine, Console());
  }
  if (cache.got_subcommand("export")) {
    return CacheExport(line.common, line.cache, machine, Console());
  }
  return CacheShow(line.common, line.cache, machine, Console());
}

ExitCode RunMember(const CLI::App& member, const CommandLine& line) {
  const Common& common = line.common;
  const std::string& id = line.member_id;
  if (member.got_subcommand("add")) {
    return AddMember(common, line.member_name, line.peer_urls, line.learner, Console());
  }
  if (member.got_subcommand("replace")) {
    return ReplaceMember(common, id, line.peer_urls, Console());
  }
  if (member.got_subcommand("remove")) return RemoveMember(common, id, Console());
  if (member.got_subcommand("promote")) return PromoteMember(common, id, Console());
  if (member.got_subcommand("demote")) return DemoteMember(common, id, Console());
  if (member.got_subcommand("update")) return UpdateMember(common, id, line.peer_urls, Console());
  return ListMembers(common, Console());
}

ExitCode RunChosen(const CLI::App& app, CommandLine& line) {
  if (app.got_subcommand("get")) return Get(line.common, line.get, Console());
  if (app.got_subcommand("put")) {
    if (line.value == "-") line.value.reset();
    return Put(line.common, line.key, line.value, Console());
  }
  if (app.got_subcommand("del")) return Delete(line.common, line.key, line.prefix, Console());
  if (app.got_subcommand("txn")) return RunTxn(line.common, Console());
  if (app.got_subcommand("watch")) return Watch(line.common, line.watch, Console());
  if (app.got_subcommand("clients")) return Clients(line.common, Console());
  if (app.got_subcommand("status")) return Status(line.common, Console());
  if (app.got_subcommand("move-leader")) {
    return MoveLeaderTo(line.common, line.member_id, Console());
  }
  if (app.got_subcommand("snapshot")) return RunSnapshot(*app.get_subcommand("snapshot"), line);
  if (app.got_subcommand("backup")) return RunBackup(*app.get_subcommand("backup"), line);
  if (app.got_subcommand("cache")) return RunCache(*app.get_subcommand("cache"), line);
  if (app.got_subcommand("migrate")) return Migrate(line.common, line.migrate, Console());
  return RunMember(*app.get_subcommand("member"), line);
}

int Main(int argc, char** argv) {
  CLI::App app("Keys and members of a Holdfast (or etcd v3) store.", "holdfastctl");
  CommandLine line;
  app.set_version_flag("--version", "holdfastctl " HOLDFAST_VERSION);
  app.require_subcommand(1);
  app.fallthrough();  // the common options may stand behind the command too
  app.footer(kFooter);
  AddCommonOptions(app, line);
  AddGet(app, line);
  AddWrites(app, line);
  AddWatch(app, line);
  app.add_subcommand("status", "Show what each endpoint says about itself, and the age of its data")
      ->footer(kFooter);
  app.add_subcommand("clients",
                     "Show what the services that mirror prefixes say of themselves: id, name, "
                     "peer, prefix, link, source, revision, what they refuse and why, heard ago")
      ->footer(kFooter);
  AddMemberCommands(app, line);
  AddSnapshotCommands(app, line);
  AddBackupCommands(app, line);
  AddCacheCommands(app, line);
  AddMigrate(app, line);
  try {
    app.parse(argc, argv);
    FinishCommon(line);
  } catch (const CLI::RequiredError& error) {
    // CLI11 would only say that a command is missing, not that the one given is unknown.
    const std::vector<std::string> unknown = app.remaining(true);
    if (unknown.empty()) return app.exit(error, std::cout, std::cerr) == 0 ? kOk : kUsage;
    std::cerr << "holdfastctl: unknown command '" << unknown.front()
              << "'; --help lists them all\n";
    return kUsage;
  } catch (const CLI::ParseError& error) {
    return app.exit(error, std::cout, std::cerr) == 0 ? kOk : kUsage;
  }
  return RunChosen(app, line);
}

}  // namespace
}  // namespace holdfast::ctl

int main(int argc, char** argv) { return holdfast::ctl::Main(argc, argv); }
