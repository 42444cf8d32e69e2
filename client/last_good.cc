#include "client/last_good.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "base/check.h"
#include "base/strings.h"
#include "client/cache_directory.h"
#include "client/generation_file.h"
#include "client/slot_file.h"
#include "client/stored_claim.h"
#include "client/trial_file.h"

namespace holdfast::internal {
namespace {

constexpr absl::Duration kClaimEvery = absl::Seconds(1);
// A writer that has had nothing to write for so long leaves its part to others: it may be cut off
// from a store that they can reach.
constexpr absl::Duration kWriterIdle = absl::Seconds(10);
constexpr size_t kClaimSlotBytes = 1024;
constexpr uint8_t kClaimFormat = 1;
// A generation may be removed by the writer between listing and reading.
constexpr int kListTries = 4;
// While something is on trial: the newest, the one whose probation ends next, the newest good one.
constexpr size_t kRoomOnTrial = 3;

// The newest claim for a generation: the side record.
struct SideRecord {
  TrialGeneration generation = {};
  StoredClaim claim = {};
};

std::string EncodeSide(const SideRecord& side) {
  ByteEncoder out;
  out.U8(kClaimFormat);
  out.U64(side.generation.number);
  out.Digest(side.generation.digest);
  Encode(side.claim, out);
  return out.Take();
}

std::string ClaimPath(const std::string& dir, std::string_view stem) {
  return fmt::format("{}/{}.claim", dir, stem);
}

// nullopt: there is none that can be used. The generation then has its own claim, an older one.
std::optional<SideRecord> ReadSide(const std::string& dir, std::string_view stem) {
  const auto fd = OpenFile(ClaimPath(dir, stem), O_RDONLY | O_NONBLOCK);
  if (!fd.ok()) return std::nullopt;
  const auto record = ReadSlots(fd->get(), kClaimSlotBytes);
  if (!record.has_value()) return std::nullopt;
  ByteDecoder in(record->bytes);
  if (in.U8() != kClaimFormat) return std::nullopt;
  SideRecord side;
  side.generation.number = in.U64();
  side.generation.digest = in.Digest();
  side.claim = DecodeStoredClaim(in);
  if (!in.ok()) return std::nullopt;
  return side;
}

TrialGeneration IdOf(const GenerationContent& content) {
  return {.number = content.header.number, .digest = content.digest};
}

// Where one prefix's files are, and what the files say beside their records.
struct Place {
  std::string dir;
  std::string stem;
  std::string PathOf(const GenerationName& name) const { return dir + "/" + FileNameOf(name); }
};

// Freshness 7: a wall clock earlier than any of these was set back.
absl::Time LatestWall(const Place& place, const std::vector<GenerationName>& generations,
                      const std::optional<SideRecord>& side) {
  absl::Time latest = absl::InfinitePast();
  if (side.has_value()) latest = std::max(latest, side->claim.wall.now);
  for (const GenerationName& name : generations) {
    const auto header = ReadGenerationHeader(place.PathOf(name));
    if (header.ok()) latest = std::max(latest, header->claim.wall.now);
  }
  return latest;
}

GenerationInfo InfoNow(const GenerationHeader& header, const TrialGeneration& id,
                       const std::optional<SideRecord>& side, const Surroundings& surroundings,
                       double max_clock_slow, absl::Time latest_wall) {
  GenerationInfo info{.cluster_id = header.cluster_id,
                      .incarnation = header.incarnation,
                      .revision = header.revision};
  info.claim = ClaimNow(header.claim, surroundings, max_clock_slow, latest_wall);
  if (side.has_value() && side->generation == id) {
    const Claim newer = ClaimNow(side->claim, surroundings, max_clock_slow, latest_wall);
    info.claim = Better(newer, info.claim, surroundings.clock->Sample(), max_clock_slow);
  }
  info.claim.revision = std::max(info.claim.revision, info.revision);
  return info;
}

// Whether records hold what a dead process had on trial. By key for the changes, so that a whole
// generation is not hashed again for each.
bool Holds(const GenerationContent& content, const Suspect& suspect) {
  const auto at =
      std::lower_bound(content.entries.begin(), content.entries.end(), suspect.key,
                       [](const Entry& entry, const std::string& key) { return entry.key < key; });
  if (at == content.entries.end() || at->key != suspect.key) {
    return suspect.content == base::RecordDigest{};
  }
  return base::DigestOfContent(at->key, at->value) == suspect.content;
}

// A generation counts as what somebody died of if it was on trial as a whole and nobody proved it
// good since, or if it holds a change that was. A later proof by another process does not lift the
// second: it did not die of it, and this one might.
bool Blames(const DeadTrial& dead, const GenerationContent& content, bool good) {
  const Trial& trial = dead.trial;
  if (!good && trial.generation == IdOf(content)) return true;
  return trial.set == content.content ||
         std::any_of(trial.changes.begin(), trial.changes.end(),
                     [&](const Suspect& suspect) { return Holds(content, suspect); });
}

int CountCrashes(const std::vector<DeadTrial>& dead, const GenerationContent& content, bool good) {
  return static_cast<int>(std::count_if(
      dead.begin(), dead.end(), [&](const DeadTrial& one) { return Blames(one, content, good); }));
}

// All that dead processes had on trial, without what is in `content`: that is served after all.
void AddSuspects(const std::vector<DeadTrial>& dead, const GenerationContent& content,
                 Loaded& loaded) {
  for (const DeadTrial& one : dead) {
    for (const Suspect& suspect : one.trial.changes) {
      const auto& known = loaded.suspects;
      if (Holds(content, suspect)) continue;
      if (std::find(known.begin(), known.end(), suspect) == known.end()) {
        loaded.suspects.push_back(suspect);
      }
    }
    if (!loaded.suspect_set.has_value() && one.trial.set.has_value() &&
        *one.trial.set != content.content) {
      loaded.suspect_set = one.trial.set;
    }
  }
}

class LastGoodImpl : public LastGood {
 public:
  explicit LastGoodImpl(Options options)
      : options_(std::move(options)),
        place_{options_.dir, CacheStem(options_.prefix)},
        override_(OverridePath(options_.dir, options_.prefix), options_.prefix) {}

  ~LastGoodImpl() override {
    if (getpid() == pid_) FlushClaim();
  }

  void Begin() {
    absl::MutexLock lock(&trial_mutex_);
    // Not possible in a directory that can only be read; NoteTrial tries again and says so.
    EnsureTrialFile().IgnoreError();
  }

  absl::StatusOr<Loaded> Load(const Rejected& rejected) override;
  absl::Status WriteRecords(RecordScan records, const GenerationInfo& info, bool on_trial) override;
  bool writes() const override { return writes_; }
  absl::Status NoteClaim(const GenerationInfo& info) override;
  absl::Status NoteTrial(const std::vector<Suspect>& changes,
                         const std::optional<base::RecordDigest>& set) override;
  absl::Status MarkGood(uint64_t revision) override;
  absl::Status ForgetSuspects() override;
  absl::StatusOr<std::optional<Override>> PollOverride() override {
    LeaveIfIdle();
    return override_.Poll();
  }

 private:
  // A generation that this process wrote or loaded.
  struct Mine {
    TrialGeneration id;
    uint64_t cluster_id = 0;
    uint64_t incarnation = 0;
    uint64_t revision = 0;
    bool good = false;
  };
  enum class Health { kSound, kDamaged, kNotOurs };

  // What one look at the directory found.
  struct View {
    std::vector<GenerationName> generations;
    std::vector<DeadTrial> dead;
    std::optional<SideRecord> side;
    absl::Time latest_wall;
  };
  absl::StatusOr<View> Look() const;
  // Of the prefix, whole, and sound. NotFound: it is gone.
  absl::StatusOr<GenerationContent> ReadOurs(const GenerationName& name) const;
  // nullopt: none can be used; *gone: one of those listed was not there any more.
  std::optional<Loaded> LoadOnce(const View& view, const Rejected& rejected,
                                 std::vector<std::string>* passed_over, bool* gone);
  Loaded Describe(const View& view, const GenerationName& name, GenerationContent content,
                  int crashes) const;
  absl::Status Take(const View& view, const GenerationName& name, GenerationContent content,
                    int crashes, const Rejected& rejected, Loaded* loaded);

  void FollowFork();
  absl::StatusOr<bool> BecomeWriter();  // false: another process is
  absl::StatusOr<Mine> WriteGenerationFile(RecordScan records, const GenerationInfo& info,
                                           bool on_trial);
  Health HealthOf(const GenerationName& name);
  std::set<uint64_t> ChooseKept(const std::vector<GenerationName>& sound) const;
  void Prune();
  void ForgetIdleTrials(const std::vector<GenerationName>& generations) const;
  absl::Status WriteClaim(const GenerationInfo& info);
  void FlushClaim();
  void LeaveIfIdle();
  absl::Status Rename(const Mine& mine) const;

  absl::Status EnsureTrialFile() ABSL_EXCLUSIVE_LOCKS_REQUIRED(trial_mutex_);
  absl::Status SetTrial(Trial trial) ABSL_EXCLUSIVE_LOCKS_REQUIRED(trial_mutex_);
  absl::Status PutOnTrial(const std::optional<TrialGeneration>& generation);

  const Options options_;
  const Place place_;
  OverrideFile override_;
  pid_t pid_ = getpid();

  Fd lock_;
  bool writes_ = false;
  base::ClockSample active_;  // when there was last something to write
  // The generation that the data is of; none: no longer any.
  std::optional<Mine> in_hand_;
  std::vector<Mine> unproven_;
  uint64_t incarnation_ = 0;  // of the data
  std::map<uint64_t, Health> health_;
  // Of dead processes that had on trial what was loaded for want of anything else.
  std::vector<std::string> held_against_;

  Fd claim_file_;
  uint64_t claim_sequence_ = 0;
  std::optional<base::ClockSample> claim_written_;
  std::optional<GenerationInfo> pending_claim_;

  absl::Mutex trial_mutex_;  // held for a few microseconds, but for Begin()
  std::unique_ptr<TrialFile> trial_file_ ABSL_GUARDED_BY(trial_mutex_);
  Trial trial_ ABSL_GUARDED_BY(trial_mutex_);
};

// ------------------------------------------------------------------------------------ reading

absl::StatusOr<LastGoodImpl::View> LastGoodImpl::Look() const {
  auto files = ListCacheFiles(place_.dir, place_.stem);
  if (!files.ok()) return files.status();
  View view;
  view.generations = std::move(files->generations);
  view.dead = ReadDeadTrials(place_.dir, place_.stem, /*tidy=*/true);
  view.side = ReadSide(place_.dir, place_.stem);
  view.latest_wall = LatestWall(place_, view.generations, view.side);
  return view;
}

absl::StatusOr<GenerationContent> LastGoodImpl::ReadOurs(const GenerationName& name) const {
  auto content = ReadGenerationContent(place_.PathOf(name), /*with_entries=*/true);
  if (absl::IsNotFound(content.status()) && !name.good) {
    // Its probation ended in between.
    GenerationName good = name;
    good.good = true;
    content = ReadGenerationContent(place_.PathOf(good), /*with_entries=*/true);
  }
  if (!content.ok()) return content.status();
  if (content->header.prefix != options_.prefix) {
    return absl::FailedPreconditionError(base::ToAbsl(
        fmt::format("it is of the prefix {}", base::Printable(content->header.prefix))));
  }
  if (content->header.number != name.number) {
    return absl::DataLossError(base::ToAbsl(
        fmt::format("it is generation {} under another's name", content->header.number)));
  }
  return content;
}

Loaded LastGoodImpl::Describe(const View& view, const GenerationName& name,
                              GenerationContent content, int crashes) const {
  Loaded loaded;
  loaded.info = InfoNow(content.header, IdOf(content), view.side, options_.surroundings,
                        options_.max_clock_slow, view.latest_wall);
  loaded.generation = name.number;
  loaded.good = name.good;
  loaded.crashes = crashes;
  AddSuspects(view.dead, content, loaded);
  loaded.entries = std::move(content.entries);
  return loaded;
}

absl::Status LastGoodImpl::Take(const View& view, const GenerationName& name,
                                GenerationContent content, int crashes, const Rejected& rejected,
                                Loaded* loaded) {
  const TrialGeneration id = IdOf(content);
  std::vector<std::string> held_against;
  for (const DeadTrial& dead : view.dead) {
    if (Blames(dead, content, name.good)) held_against.push_back(dead.path);
  }
  *loaded = Describe(view, name, std::move(content), crashes);
  if (rejected) {
    if (absl::Status status = rejected(*loaded); !status.ok()) return status;
  }
  in_hand_ = Mine{.id = id,
                  .cluster_id = loaded->info.cluster_id,
                  .incarnation = loaded->info.incarnation,
                  .revision = loaded->info.revision,
                  .good = name.good};
  pending_claim_.reset();
  claim_written_.reset();
  incarnation_ = loaded->info.incarnation;
  health_[name.number] = Health::kSound;
  held_against_ = std::move(held_against);
  if (!name.good || crashes > 0) {
    std::erase_if(unproven_, [&](const Mine& mine) { return mine.id == id; });
    unproven_.push_back(*in_hand_);
    // If this cannot be noted, a crash of this process goes unseen: served all the same, for data
    // of yesterday is better than none.
    PutOnTrial(id).IgnoreError();
  }
  return absl::OkStatus();
}

std::optional<Loaded> LastGoodImpl::LoadOnce(const View& view, const Rejected& rejected,
                                             std::vector<std::string>* passed_over, bool* gone) {
  Loaded loaded;
  std::vector<GenerationName> blamed;
  const auto pass_over = [&](const GenerationName& name, std::string_view why) {
    passed_over->push_back(fmt::format("{}: {}", FileNameOf(name), why));
  };
  for (const bool last_resort : {false, true}) {
    const std::vector<GenerationName> candidates = last_resort ? blamed : view.generations;
    for (const GenerationName& name : candidates) {
      auto content = ReadOurs(name);
      if (!content.ok()) {
        *gone |= absl::IsNotFound(content.status());
        pass_over(name, base::Message(content.status()));
        continue;
      }
      const int crashes = CountCrashes(view.dead, *content, name.good);
      if (crashes > 0 && !last_resort) {
        blamed.push_back(name);
        pass_over(name, fmt::format("{} process(es) ended while it was on trial", crashes));
        continue;
      }
      const absl::Status status = Take(view, name, *std::move(content), crashes, rejected, &loaded);
      if (status.ok()) {
        if (last_resort) {  // it was not passed over after all
          std::erase_if(*passed_over, [&](const std::string& text) {
            return text.starts_with(FileNameOf(name) + ":");
          });
        }
        return loaded;
      }
      pass_over(name, base::Message(status));
    }
  }
  return std::nullopt;
}

absl::StatusOr<Loaded> LastGoodImpl::Load(const Rejected& rejected) {
  FollowFork();
  std::vector<std::string> passed_over;
  for (int i = 0; i < kListTries; ++i) {
    const auto view = Look();
    if (!view.ok()) return view.status();
    passed_over.clear();
    bool gone = false;
    auto loaded = LoadOnce(*view, rejected, &passed_over, &gone);
    if (loaded.has_value()) {
      loaded->passed_over = std::move(passed_over);
      return *std::move(loaded);
    }
    if (!gone) break;
  }
  std::string text =
      fmt::format("no usable copy of {} in {}", base::Printable(options_.prefix), options_.dir);
  for (const std::string& one : passed_over) text += "; " + one;
  return absl::NotFoundError(base::ToAbsl(text));
}

// ------------------------------------------------------------------------------------ writing

// A child that fork() made is a process of its own: the lock and the trial are its parent's.
void LastGoodImpl::FollowFork() {
  if (getpid() == pid_) return;
  pid_ = getpid();
  writes_ = false;
  lock_ = Fd();
  claim_file_ = Fd();
  in_hand_.reset();
  unproven_.clear();
  absl::MutexLock lock(&trial_mutex_);
  if (trial_file_ == nullptr || trial_file_->OfThisProcess()) return;
  trial_file_.reset();
  trial_ = {};
}

absl::StatusOr<bool> LastGoodImpl::BecomeWriter() {
  if (writes_) return true;
  if (!lock_.valid()) {
    auto fd = OpenFile(fmt::format("{}/{}.lock", place_.dir, place_.stem), O_RDWR | O_CREAT);
    if (!fd.ok()) return fd.status();
    lock_ = *std::move(fd);
  }
  if (flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) return false;
  writes_ = true;
  // While another process wrote, generations came that are not what this one has in hand.
  const auto files = ListCacheFiles(place_.dir, place_.stem);
  if (in_hand_.has_value() && files.ok() && !files->generations.empty() &&
      files->generations.front().number != in_hand_->id.number) {
    in_hand_.reset();
  }
  return true;
}

absl::StatusOr<LastGoodImpl::Mine> LastGoodImpl::WriteGenerationFile(RecordScan records,
                                                                     const GenerationInfo& info,
                                                                     bool on_trial) {
  const auto files = ListCacheFiles(place_.dir, place_.stem);
  if (!files.ok()) return files.status();
  GenerationName name{.stem = place_.stem, .number = 1, .good = !on_trial};
  if (!files->generations.empty()) name.number = files->generations.front().number + 1;
  GenerationHeader header{.number = name.number,
                          .cluster_id = info.cluster_id,
                          .incarnation = info.incarnation,
                          .revision = info.revision,
                          .prefix = options_.prefix};
  header.claim = StoreClaim(info.claim, options_.surroundings);
  auto file =
      PartFile::Create(fmt::format("{}/{}.part", place_.dir, place_.stem), options_.before_step);
  if (!file.ok()) return file.status();
  const auto content = WriteGeneration(header, records, **file);
  if (!content.ok()) return content.status();
  absl::Status status = (*file)->Sync();
  if (!status.ok()) return status;
  const Mine mine{.id = IdOf(*content),
                  .cluster_id = info.cluster_id,
                  .incarnation = info.incarnation,
                  .revision = info.revision,
                  .good = !on_trial};
  // Before it can be found: whoever finds it must also find that it is on trial.
  if (on_trial) status = PutOnTrial(mine.id);
  if (status.ok()) status = (*file)->Commit(place_.PathOf(name));
  if (!status.ok()) return status;
  health_[name.number] = Health::kSound;
  return mine;
}

absl::Status LastGoodImpl::WriteRecords(RecordScan records, const GenerationInfo& info,
                                        bool on_trial) {
  FollowFork();
  pending_claim_.reset();
  // What is served is no longer that generation, whatever comes of this.
  in_hand_.reset();
  PutOnTrial(std::nullopt).IgnoreError();
  incarnation_ = info.incarnation;
  active_ = options_.surroundings.clock->Sample();
  const auto writer = BecomeWriter();
  if (!writer.ok() || !*writer) return writer.status();
  auto mine = WriteGenerationFile(records, info, on_trial);
  if (!mine.ok()) return mine.status();
  in_hand_ = *mine;
  if (on_trial) unproven_.push_back(*mine);
  claim_written_.reset();
  Prune();
  return absl::OkStatus();
}

LastGoodImpl::Health LastGoodImpl::HealthOf(const GenerationName& name) {
  const auto known = health_.find(name.number);
  if (known != health_.end()) return known->second;
  const auto content = ReadGenerationContent(place_.PathOf(name), /*with_entries=*/false);
  Health health = Health::kSound;
  if (!content.ok()) {
    // Of a later version's, nothing is known but that it is not ours to remove.
    health = absl::IsUnimplemented(content.status()) ? Health::kNotOurs : Health::kDamaged;
  } else if (content->header.prefix != options_.prefix) {
    health = Health::kNotOurs;
  }
  health_[name.number] = health;
  return health;
}

// Which of the sound generations stay, newest first. Always the newest, and the newest good one.
// The room behind these goes first to the oldest one of this process that is on trial: where data
// changes all the time, the newest never live to see the end of their probation.
std::set<uint64_t> LastGoodImpl::ChooseKept(const std::vector<GenerationName>& sound) const {
  std::set<uint64_t> kept = {sound.front().number};
  const auto good = std::find_if(sound.begin(), sound.end(), [](const auto& n) { return n.good; });
  const uint64_t newest_good = good == sound.end() ? 0 : good->number;
  size_t room = static_cast<size_t>(options_.keep_generations);
  if (newest_good != sound.front().number) {
    room = std::max(room, kRoomOnTrial);
    if (newest_good != 0) kept.insert(newest_good);
    const auto next = std::find_if(sound.rbegin(), sound.rend(), [&](const GenerationName& name) {
      return name.number > newest_good &&
             std::any_of(unproven_.begin(), unproven_.end(),
                         [&](const Mine& mine) { return mine.id.number == name.number; });
    });
    if (next != sound.rend()) kept.insert(next->number);
  }
  for (const GenerationName& name : sound) {
    if (kept.size() < room) kept.insert(name.number);
  }
  return kept;
}

// Counts sound generations only, so that damaged ones push no good one out; a damaged one goes when
// it is older than all that are kept.
void LastGoodImpl::Prune() {
  const auto files = ListCacheFiles(place_.dir, place_.stem);
  if (!files.ok()) return;
  std::vector<GenerationName> sound;
  for (const GenerationName& name : files->generations) {
    if (HealthOf(name) == Health::kSound) sound.push_back(name);
  }
  if (sound.empty()) return;
  const std::set<uint64_t> kept = ChooseKept(sound);
  bool removed = false;
  for (const GenerationName& name : files->generations) {
    const Health health = HealthOf(name);
    const bool goes = health == Health::kSound
                          ? !kept.contains(name.number)
                          : health == Health::kDamaged && name.number < *kept.begin();
    if (!goes || (options_.before_step && options_.before_step("remove") != 0)) continue;
    unlink(place_.PathOf(name).c_str());
    health_.erase(name.number);
    std::erase_if(unproven_, [&](const Mine& mine) { return mine.id.number == name.number; });
    removed = true;
  }
  if (!removed) return;
  const auto left = ListCacheFiles(place_.dir, place_.stem);
  if (left.ok()) ForgetIdleTrials(left->generations);
}

// Dead processes that blame nothing but generations that are gone need not be remembered.
void LastGoodImpl::ForgetIdleTrials(const std::vector<GenerationName>& generations) const {
  for (const DeadTrial& dead : ReadDeadTrials(place_.dir, place_.stem, /*tidy=*/true)) {
    const Trial& trial = dead.trial;
    if (!trial.changes.empty() || trial.set.has_value()) continue;
    const bool there = std::any_of(generations.begin(), generations.end(), [&](const auto& name) {
      return name.number == trial.generation->number;
    });
    if (!there) unlink(dead.path.c_str());
  }
}

absl::Status LastGoodImpl::WriteClaim(const GenerationInfo& info) {
  const std::string path = ClaimPath(place_.dir, place_.stem);
  if (!claim_file_.valid()) {
    auto fd = OpenFile(path, O_RDWR | O_CREAT | O_NOFOLLOW);
    if (!fd.ok()) return fd.status();
    const auto record = ReadSlots(fd->get(), kClaimSlotBytes);
    claim_sequence_ = record.has_value() ? record->sequence : 0;
    claim_file_ = *std::move(fd);
  }
  SideRecord side{.generation = in_hand_->id};
  side.claim = StoreClaim(info.claim, options_.surroundings);
  if (options_.before_step) {
    if (const int error = options_.before_step("claim"); error != 0) {
      return DiskError("write", path, error);
    }
  }
  absl::Status status =
      WriteSlot(claim_file_.get(), path, kClaimSlotBytes, claim_sequence_ + 1, EncodeSide(side));
  if (status.ok()) ++claim_sequence_;
  return status;
}

void LastGoodImpl::FlushClaim() {
  if (pending_claim_.has_value() && in_hand_.has_value()) {
    WriteClaim(*pending_claim_).IgnoreError();
  }
  pending_claim_.reset();
}

void LastGoodImpl::LeaveIfIdle() {
  if (!writes_ || getpid() != pid_) return;
  const base::ClockSample now = options_.surroundings.clock->Sample();
  if (absl::Nanoseconds(now.boot_ns - active_.boot_ns) < kWriterIdle) return;
  FlushClaim();
  claim_written_.reset();
  claim_file_ = Fd();  // its sequence goes on with others' records
  lock_ = Fd();
  writes_ = false;
}

absl::Status LastGoodImpl::NoteClaim(const GenerationInfo& info) {
  const auto fits = [&] {
    return in_hand_.has_value() && info.cluster_id == in_hand_->cluster_id &&
           info.incarnation == in_hand_->incarnation && info.revision == in_hand_->revision;
  };
  FollowFork();
  if (!fits()) return absl::OkStatus();
  const base::ClockSample now = options_.surroundings.clock->Sample();
  active_ = now;
  if (claim_written_.has_value() &&
      absl::Nanoseconds(now.boot_ns - claim_written_->boot_ns) < kClaimEvery) {
    pending_claim_ = info;
    return absl::OkStatus();
  }
  // In becoming the writer, it may turn out that what is in hand is no longer the newest.
  const auto writer = BecomeWriter();
  if (!writer.ok()) return writer.status();
  if (!*writer || !fits()) return absl::OkStatus();
  pending_claim_.reset();
  claim_written_ = now;
  return WriteClaim(info);
}

// ------------------------------------------------------------------------------------- trials

absl::Status LastGoodImpl::EnsureTrialFile() {
  if (trial_file_ != nullptr && trial_file_->OfThisProcess()) return absl::OkStatus();
  auto file = TrialFile::Create(place_.dir, place_.stem);
  if (!file.ok()) return file.status();
  trial_file_ = *std::move(file);
  return absl::OkStatus();
}

absl::Status LastGoodImpl::SetTrial(Trial trial) {
  if (trial == trial_) return absl::OkStatus();
  absl::Status status = EnsureTrialFile();
  if (status.ok()) status = trial_file_->Note(trial);
  if (status.ok()) trial_ = std::move(trial);
  return status;
}

// In the place of the one before, which is no longer what is served: one crash goes back by one.
absl::Status LastGoodImpl::PutOnTrial(const std::optional<TrialGeneration>& generation) {
  absl::MutexLock lock(&trial_mutex_);
  Trial trial = trial_;
  trial.generation = generation;
  return SetTrial(std::move(trial));
}

absl::Status LastGoodImpl::NoteTrial(const std::vector<Suspect>& changes,
                                     const std::optional<base::RecordDigest>& set) {
  absl::MutexLock lock(&trial_mutex_);
  Trial trial{.changes = changes, .set = set};
  if (!trial.empty()) trial.generation = trial_.generation;
  return SetTrial(std::move(trial));
}

absl::Status LastGoodImpl::Rename(const Mine& mine) const {
  GenerationName name{.stem = place_.stem, .number = mine.id.number};
  const std::string from = place_.PathOf(name);
  name.good = true;
  if (rename(from.c_str(), place_.PathOf(name).c_str()) == 0) return absl::OkStatus();
  // Pruned, or marked by another process.
  return errno == ENOENT ? absl::OkStatus() : DiskError("rename", from, errno);
}

absl::Status LastGoodImpl::MarkGood(uint64_t revision) {
  std::vector<TrialGeneration> good;
  for (const Mine& mine : unproven_) {
    if (mine.incarnation != incarnation_ || mine.revision > revision) continue;
    if (!mine.good) {
      if (absl::Status status = Rename(mine); !status.ok()) return status;
    }
    good.push_back(mine.id);
  }
  if (good.empty()) return absl::OkStatus();
  const auto is_good = [&](const TrialGeneration& id) {
    return std::find(good.begin(), good.end(), id) != good.end();
  };
  std::erase_if(unproven_, [&](const Mine& mine) { return is_good(mine.id); });
  if (in_hand_.has_value() && is_good(in_hand_->id)) {
    in_hand_->good = true;
    // It was served for want of anything else, and did no harm after all.
    for (const std::string& path : std::exchange(held_against_, {})) unlink(path.c_str());
  }
  absl::Status status = SyncDirectory(place_.dir);
  absl::MutexLock lock(&trial_mutex_);
  Trial trial = trial_;
  if (trial.generation.has_value() && is_good(*trial.generation)) trial.generation.reset();
  if (absl::Status noted = SetTrial(std::move(trial)); !noted.ok()) return noted;
  return status;
}

absl::Status LastGoodImpl::ForgetSuspects() {
  for (const DeadTrial& dead : ReadDeadTrials(place_.dir, place_.stem, /*tidy=*/true)) {
    if (unlink(dead.path.c_str()) != 0 && errno != ENOENT) {
      return DiskError("remove", dead.path, errno);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<GenerationListing> Listing(const Place& place, const GenerationName& name,
                                          const Surroundings& surroundings,
                                          const std::vector<DeadTrial>& dead,
                                          const std::optional<SideRecord>& side,
                                          absl::Time latest_wall) {
  GenerationListing listing{
      .file = place.PathOf(name), .generation = name.number, .good = name.good};
  const auto describe = [&](const GenerationHeader& header, const TrialGeneration& id) {
    listing.prefix = header.prefix;
    listing.written = header.claim.wall.now;
    listing.info = InfoNow(header, id, side, surroundings, base::kDefaultMaxClockSlow, latest_wall);
  };
  const auto content = ReadGenerationContent(listing.file, /*with_entries=*/true);
  if (content.ok()) {
    describe(content->header, IdOf(*content));
    listing.records = content->records;
    listing.bytes = content->bytes;
    listing.crashes = CountCrashes(dead, *content, name.good);
    if (CacheStem(content->header.prefix) != name.stem) {
      listing.health = absl::FailedPreconditionError("it has the name of another prefix's");
    } else if (content->header.number != name.number) {
      listing.health = absl::DataLossError("it has the name of another generation");
    }
    return listing;
  }
  if (absl::IsNotFound(content.status())) return content.status();
  listing.health = content.status();
  if (const auto header = ReadGenerationHeader(listing.file); header.ok()) describe(*header, {});
  return listing;
}

}  // namespace

absl::StatusOr<std::unique_ptr<LastGood>> LastGood::Open(Options options) {
  CHECK(options.surroundings.clock != nullptr);
  CHECK(options.keep_generations >= 1);
  while (options.dir.size() > 1 && options.dir.back() == '/') options.dir.pop_back();
  if (options.dir.empty()) {
    return absl::InvalidArgumentError("the directory for copies on disk has an empty name");
  }
  if (absl::Status status = MakeDirectories(options.dir); !status.ok()) return status;
  const auto files = ListCacheFiles(options.dir, CacheStem(options.prefix));
  if (!files.ok()) return files.status();
  auto last_good = std::make_unique<LastGoodImpl>(std::move(options));
  last_good->Begin();
  return last_good;
}

absl::StatusOr<std::vector<GenerationListing>> ListGenerations(const std::string& dir,
                                                               const Surroundings& surroundings) {
  const auto files = ListCacheFiles(dir, "");
  if (!files.ok()) return files.status();
  std::map<std::string, std::vector<GenerationName>> by_stem;
  for (const GenerationName& name : files->generations) by_stem[name.stem].push_back(name);
  std::vector<GenerationListing> all;
  for (const auto& [stem, names] : by_stem) {
    const Place place{dir, stem};
    const auto dead = ReadDeadTrials(dir, stem, /*tidy=*/false);
    const auto side = ReadSide(dir, stem);
    const absl::Time latest_wall = LatestWall(place, names, side);
    for (const GenerationName& name : names) {
      auto listing = Listing(place, name, surroundings, dead, side, latest_wall);
      if (listing.ok()) all.push_back(*std::move(listing));  // else it was removed meanwhile
    }
  }
  return all;
}

absl::StatusOr<Loaded> ReadGeneration(const std::string& file, const Surroundings& surroundings) {
  auto content = ReadGenerationContent(file, /*with_entries=*/true);
  if (!content.ok()) return content.status();
  Loaded loaded;
  loaded.info = InfoNow(content->header, IdOf(*content), std::nullopt, surroundings,
                        base::kDefaultMaxClockSlow, content->header.claim.wall.now);
  loaded.generation = content->header.number;
  loaded.good = file.ends_with(".good");
  loaded.entries = std::move(content->entries);
  return loaded;
}

}  // namespace holdfast::internal
