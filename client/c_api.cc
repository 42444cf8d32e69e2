// The C interface: nothing here decides anything; it only translates. An hf_mirror is the Mirror
// itself, by another name.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/check.h"
#include "base/strings.h"
#include "client/config_json.h"
#include "holdfast/client.h"
#include "holdfast/holdfast.h"

namespace hf = holdfast;

// --- the opaque objects ---

struct hf_error {
  absl::Status status;
  std::string text;
};

struct hf_client {
  std::unique_ptr<hf::Client> client;
};

struct hf_read {
  std::vector<hf::Entry> entries;
  hf::Freshness fresh;
};

struct hf_snapshot {
  hf::MirrorSnapshot snapshot;
  hf::Freshness fresh;
};

struct hf_live {
  hf::Live<std::string> live;
};

struct hf_value {
  std::shared_ptr<const std::string> value;
};

namespace {

static_assert(HF_OK == static_cast<int>(absl::StatusCode::kOk));
static_assert(HF_UNAUTHENTICATED == static_cast<int>(absl::StatusCode::kUnauthenticated));
static_assert(HF_PROOF_UNKNOWN == static_cast<int>(hf::Proof::kUnknown));
static_assert(HF_OVERRIDE == static_cast<int>(hf::Source::kOverride));
static_assert(HF_REDUCED == static_cast<int>(hf::Grade::kReduced));
static_assert(HF_RECOVERING == static_cast<int>(hf::Link::kRecovering));

#define HF_TEXT(x) #x
#define HF_DOTTED(a, b, c) HF_TEXT(a) "." HF_TEXT(b) "." HF_TEXT(c)
static_assert(std::string_view(HF_DOTTED(HF_VERSION_MAJOR, HF_VERSION_MINOR, HF_VERSION_PATCH)) ==
                  HOLDFAST_VERSION,
              "holdfast.h and CMakeLists.txt name two versions");

constexpr size_t kWhySize = 512;  // of a callback's text

std::string_view View(hf_bytes bytes) {
  return bytes.size == 0 ? std::string_view() : std::string_view(bytes.data, bytes.size);
}
hf_bytes Bytes(std::string_view view) { return {view.data(), view.size()}; }

hf_code Fail(absl::Status status, hf_error** error) {
  const auto code = static_cast<hf_code>(status.code());
  if (error == nullptr) return code;
  std::string text(hf::base::Message(status));
  *error = new hf_error{std::move(status), std::move(text)};
  return code;
}

hf_code Finish(absl::Status status, hf_error** error) {
  return status.ok() ? HF_OK : Fail(std::move(status), error);
}

char* Copy(std::string_view text) {
  auto* const copy = static_cast<char*>(std::malloc(text.size() + 1));
  CHECK(copy != nullptr);
  std::memcpy(copy, text.data(), text.size());
  copy[text.size()] = '\0';
  return copy;
}

uint64_t ToNs(absl::Duration age) {
  if (age == absl::InfiniteDuration()) return HF_UNKNOWN_AGE;
  return static_cast<uint64_t>(absl::ToInt64Nanoseconds(absl::Ceil(age, absl::Nanoseconds(1))));
}

absl::Duration FromMs(uint64_t ms) {
  constexpr uint64_t kLongest = uint64_t{1} << 53;  // what is longer is for ever
  return ms > kLongest ? absl::InfiniteDuration() : absl::Milliseconds(static_cast<int64_t>(ms));
}

hf_freshness ToC(const hf::Freshness& fresh) {
  return {.max_age_ns = ToNs(fresh.MaxAge()),
          .revision = fresh.revision(),
          .proof = static_cast<int32_t>(fresh.proof()),
          .source = static_cast<int32_t>(fresh.source()),
          .grade = static_cast<int32_t>(fresh.grade()),
          .superseded = fresh.superseded() ? 1 : 0};
}

template <class AnyEntry>
hf_entry ToC(const AnyEntry& entry) {
  return {.key = Bytes(entry.key),
          .value = Bytes(entry.value),
          .create_revision = entry.create_revision,
          .mod_revision = entry.mod_revision,
          .version = entry.version,
          .lease = entry.lease};
}

absl::Status ToCpp(const hf_read_options* in, hf::ReadOptions* out) {
  if (in == nullptr) return absl::OkStatus();
  switch (in->level) {
    case HF_LINEARIZABLE:
      break;
    case HF_BOUNDED:
      *out = hf::ReadOptions::Bounded(FromMs(in->max_age_ms));
      break;
    case HF_AT_LEAST: {
      const auto token = hf::Token::Parse(in->token == nullptr ? "" : in->token);
      if (!token.ok()) return token.status();
      *out = hf::ReadOptions::AtLeast(*token);
      break;
    }
    case HF_LOCAL:
      *out = hf::ReadOptions::Local();
      break;
    default:
      return absl::InvalidArgumentError(
          "hf_read_options.level is none of hf_level: set the struct to zero first");
  }
  if (in->or_stale_ms != 0) out->OrStale(FromMs(in->or_stale_ms));
  if (in->deadline_ms != 0) out->Deadline(FromMs(in->deadline_ms));
  if (in->max_entries != 0) {
    out->MaxEntries(static_cast<int64_t>(std::min<uint64_t>(in->max_entries, INT64_MAX)));
  }
  return absl::OkStatus();
}

hf::WriteOptions WriteOptionsOf(uint64_t deadline_ms) {
  hf::WriteOptions options;
  if (deadline_ms != 0) options.deadline = FromMs(deadline_ms);
  return options;
}

// Of a WriteResult or a TxnResult.
template <class Written>
void Fill(const Written& written, int64_t deleted, bool applied, hf_write_result* out) {
  if (out == nullptr) return;
  *out = {};
  out->revision = written.token.revision;
  out->deleted = deleted;
  out->attempts = written.attempts;
  out->applied = applied ? 1 : 0;
  out->deduplicated = written.deduplicated ? 1 : 0;
  const std::string text = written.token.Serialize();
  CHECK(text.size() < HF_TOKEN_SIZE);
  std::memcpy(out->token, text.c_str(), text.size() + 1);
}

hf_code Finish(const absl::StatusOr<hf::WriteResult>& written, hf_write_result* result,
               hf_error** error) {
  if (!written.ok()) return Fail(written.status(), error);
  Fill(*written, written->deleted, true, result);
  return HF_OK;
}

hf_code Finish(hf::Result<std::optional<hf::Entry>> read, hf_read** out, hf_error** error) {
  if (!read.ok()) return Fail(read.status(), error);
  auto result = std::make_unique<hf_read>();
  result->fresh = read->fresh;
  if (read->value.has_value()) result->entries.push_back(*std::move(read->value));
  *out = result.release();
  return HF_OK;
}

hf_code Finish(hf::Result<std::vector<hf::Entry>> read, hf_read** out, hf_error** error) {
  if (!read.ok()) return Fail(read.status(), error);
  *out = new hf_read{std::move(read->value), read->fresh};
  return HF_OK;
}

// A Mirror's methods that change something are for whoever holds one.
hf::Mirror* ToCpp(const hf_mirror* mirror) {
  return const_cast<hf::Mirror*>(reinterpret_cast<const hf::Mirror*>(mirror));
}

// For whoever passes on what hf_mirror_of gave, unseen.
hf_code NoMirror(hf_error** error) {
  return Fail(absl::FailedPreconditionError(
                  "the mirror is NULL: the key lies in no mirrored prefix; name it in the "
                  "configuration's prefixes"),
              error);
}

// A callback's "no", with its text.
absl::Status Refused(const char* why) {
  return absl::InvalidArgumentError(why[0] == '\0' ? "refused by the service" : why);
}

// The observer of a C program.
class CObserver : public hf::Observer {
 public:
  explicit CObserver(const hf_observer& to) : to_(to) {}

  void OnState(const hf::StateChange& change) override {
    if (to_.on_state == nullptr) return;
    const std::string why(hf::base::Message(change.why));
    const hf_state_change c = {.prefix = Bytes(change.prefix),
                               .from = static_cast<int32_t>(change.from),
                               .to = static_cast<int32_t>(change.to),
                               .max_age_ns = ToNs(change.max_age),
                               .proof = static_cast<int32_t>(change.proof),
                               .code = static_cast<int32_t>(change.why.code()),
                               .why = why.c_str()};
    to_.on_state(to_.context, &c);
  }
  void OnRejected(const hf::Rejection& rejection) override {
    if (to_.on_rejected == nullptr) return;
    const std::string why(hf::base::Message(rejection.why));
    const hf_rejection c = {.prefix = Bytes(rejection.prefix),
                            .revision = rejection.revision,
                            .code = static_cast<int32_t>(rejection.why.code()),
                            .why = why.c_str()};
    to_.on_rejected(to_.context, &c);
  }
  void OnLastGoodWritten(std::string_view prefix, uint64_t revision) override {
    if (to_.on_last_good_written == nullptr) return;
    to_.on_last_good_written(to_.context, Bytes(prefix), revision);
  }
  void OnDiskProblem(std::string_view prefix, const absl::Status& status) override {
    if (to_.on_disk_problem == nullptr) return;
    const std::string why(hf::base::Message(status));
    to_.on_disk_problem(to_.context, Bytes(prefix), why.c_str());
  }

 private:
  const hf_observer to_;
};

absl::Status AddValidator(const hf_validator& validator, hf::ClientOptions* options) {
  for (hf::PrefixOptions& prefix : options->prefixes) {
    if (prefix.prefix != View(validator.prefix)) continue;
    prefix.policy.Validate(
        [validate = validator.validate, context = validator.context](
            const hf::MirrorSnapshot& before, const hf::MirrorSnapshot& after) -> absl::Status {
          const hf_snapshot old_set = {before, {}};
          const hf_snapshot new_set = {after, {}};
          char why[kWhySize] = "";
          if (validate(context, &old_set, &new_set, why, sizeof(why)) == 0) return absl::OkStatus();
          why[sizeof(why) - 1] = '\0';
          return Refused(why);
        });
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(hf::base::ToAbsl(
      fmt::format("a validator is for \"{}\", which is none of the configuration's prefixes",
                  hf::base::Printable(View(validator.prefix)))));
}

}  // namespace

extern "C" {

// --- names ---

// The C++ names are literals, and so end with NUL.
const char* hf_proof_name(hf_proof proof) {
  return hf::ToString(static_cast<hf::Proof>(proof)).data();
}
const char* hf_source_name(hf_source source) {
  return hf::ToString(static_cast<hf::Source>(source)).data();
}
const char* hf_grade_name(hf_grade grade) {
  return hf::ToString(static_cast<hf::Grade>(grade)).data();
}
const char* hf_link_name(hf_link link) { return hf::ToString(static_cast<hf::Link>(link)).data(); }

const char* hf_code_name(hf_code code) {
  static constexpr const char* kNames[] = {"OK",
                                           "CANCELLED",
                                           "UNKNOWN",
                                           "INVALID_ARGUMENT",
                                           "DEADLINE_EXCEEDED",
                                           "NOT_FOUND",
                                           "ALREADY_EXISTS",
                                           "PERMISSION_DENIED",
                                           "RESOURCE_EXHAUSTED",
                                           "FAILED_PRECONDITION",
                                           "ABORTED",
                                           "OUT_OF_RANGE",
                                           "UNIMPLEMENTED",
                                           "INTERNAL",
                                           "UNAVAILABLE",
                                           "DATA_LOSS",
                                           "UNAUTHENTICATED"};
  static_assert(std::size(kNames) == HF_UNAUTHENTICATED + 1);
  const auto index = static_cast<size_t>(code);
  return index < std::size(kNames) ? kNames[index] : "UNKNOWN";
}

const char* hf_version(void) { return HOLDFAST_VERSION; }
void hf_string_free(char* text) { std::free(text); }

// --- errors ---

hf_code hf_error_code(const hf_error* error) { return static_cast<hf_code>(error->status.code()); }
const char* hf_error_text(const hf_error* error) { return error->text.c_str(); }
int hf_error_maybe_committed(const hf_error* error) {
  return hf::MaybeCommitted(error->status) ? 1 : 0;
}
int64_t hf_error_retry_after_ms(const hf_error* error) {
  const auto after = hf::RetryAfter(error->status);
  return after.has_value() ? absl::ToInt64Milliseconds(absl::Ceil(*after, absl::Milliseconds(1)))
                           : -1;
}
int hf_error_best_available(const hf_error* error, hf_freshness* best) {
  const auto fresh = hf::BestAvailable(error->status);
  if (!fresh.has_value()) return 0;
  *best = ToC(*fresh);
  return 1;
}
void hf_error_free(hf_error* error) { delete error; }

// --- the client ---

hf_code hf_open(const char* config_json, const hf_open_options* options, hf_client** out,
                hf_error** error) {
  auto parsed = hf::internal::ParseClientConfig(config_json == nullptr ? "" : config_json);
  if (!parsed.ok()) return Fail(parsed.status(), error);
  const hf_open_options with = options == nullptr ? hf_open_options{} : *options;
  if (with.observer != nullptr) parsed->observer = std::make_shared<CObserver>(*with.observer);
  for (size_t i = 0; i < with.validators_size; ++i) {
    absl::Status status = AddValidator(with.validators[i], &*parsed);
    if (!status.ok()) return Fail(std::move(status), error);
  }
  auto client = hf::Client::Open(*std::move(parsed));
  if (!client.ok()) return Fail(client.status(), error);
  *out = new hf_client{*std::move(client)};
  return HF_OK;
}

void hf_close(hf_client* client) { delete client; }

hf_link hf_state(const hf_client* client, hf_bytes key_or_prefix) {
  return static_cast<hf_link>(client->client->state(View(key_or_prefix)));
}
char* hf_dump(const hf_client* client) { return Copy(client->client->Dump()); }
char* hf_metrics(const hf_client* client) { return Copy(client->client->Metrics()); }

// --- reads ---

size_t hf_read_size(const hf_read* read) { return read->entries.size(); }
hf_entry hf_read_entry(const hf_read* read, size_t index) {
  CHECK_MSG(index < read->entries.size(), "hf_read_entry: the index is not below hf_read_size");
  return ToC(read->entries[index]);
}
hf_freshness hf_read_freshness(const hf_read* read) { return ToC(read->fresh); }
void hf_read_free(hf_read* read) { delete read; }

hf_code hf_get(hf_client* client, hf_bytes key, const hf_read_options* options, hf_read** out,
               hf_error** error) {
  hf::ReadOptions read_options;
  if (absl::Status status = ToCpp(options, &read_options); !status.ok()) {
    return Fail(std::move(status), error);
  }
  return Finish(client->client->Get(View(key), read_options), out, error);
}

hf_code hf_scan(hf_client* client, hf_bytes prefix, const hf_read_options* options, hf_read** out,
                hf_error** error) {
  hf::ReadOptions read_options;
  if (absl::Status status = ToCpp(options, &read_options); !status.ok()) {
    return Fail(std::move(status), error);
  }
  return Finish(client->client->Scan(View(prefix), read_options), out, error);
}

// --- writes ---

hf_code hf_put(hf_client* client, hf_bytes key, hf_bytes value, uint64_t deadline_ms,
               hf_write_result* result, hf_error** error) {
  return Finish(client->client->Put(View(key), View(value), WriteOptionsOf(deadline_ms)), result,
                error);
}

hf_code hf_delete(hf_client* client, hf_bytes key, uint64_t deadline_ms, hf_write_result* result,
                  hf_error** error) {
  return Finish(client->client->Delete(View(key), WriteOptionsOf(deadline_ms)), result, error);
}

hf_code hf_delete_prefix(hf_client* client, hf_bytes prefix, uint64_t deadline_ms,
                         hf_write_result* result, hf_error** error) {
  return Finish(client->client->DeletePrefix(View(prefix), WriteOptionsOf(deadline_ms)), result,
                error);
}

hf_code hf_put_if(hf_client* client, hf_bytes key, hf_bytes value, uint64_t mod_revision,
                  uint64_t deadline_ms, hf_write_result* result, hf_error** error) {
  const auto expected = static_cast<int64_t>(mod_revision);
  const hf::Txn txn = hf::Txn()
                          .If({hf::Compare::ModRevision(View(key)).Equal(expected)})
                          .Then({hf::Op::Put(View(key), View(value))});
  const auto done = client->client->Commit(txn, WriteOptionsOf(deadline_ms));
  if (!done.ok()) return Fail(done.status(), error);
  Fill(*done, 0, done->succeeded, result);
  return HF_OK;
}

hf_code hf_resolve(hf_client* client, const hf_error* maybe_committed, uint64_t deadline_ms,
                   hf_write_result* result, hf_error** error) {
  return Finish(client->client->Resolve(maybe_committed->status, WriteOptionsOf(deadline_ms)),
                result, error);
}

// --- mirrors ---

const hf_mirror* hf_mirror_of(const hf_client* client, hf_bytes key_or_prefix) {
  return reinterpret_cast<const hf_mirror*>(client->client->mirror(View(key_or_prefix)));
}
hf_bytes hf_mirror_prefix(const hf_mirror* mirror) { return Bytes(ToCpp(mirror)->prefix()); }

hf_code hf_mirror_get(const hf_mirror* mirror, hf_bytes key, hf_read** out, hf_error** error) {
  if (mirror == nullptr) return NoMirror(error);
  return Finish(ToCpp(mirror)->Get(View(key)), out, error);
}
hf_code hf_mirror_scan(const hf_mirror* mirror, hf_bytes prefix, hf_read** out, hf_error** error) {
  if (mirror == nullptr) return NoMirror(error);
  return Finish(ToCpp(mirror)->Scan(View(prefix)), out, error);
}

hf_code hf_mirror_visit(const hf_mirror* mirror, hf_bytes key,
                        void (*visit)(void* context, const hf_entry* entry), void* context,
                        hf_freshness* fresh, hf_error** error) {
  if (mirror == nullptr) return NoMirror(error);
  const auto visited = ToCpp(mirror)->Visit(View(key), [&](const hf::EntryView* view) {
    if (view == nullptr) return visit(context, nullptr);
    const hf_entry entry = ToC(*view);
    visit(context, &entry);
  });
  if (!visited.ok()) return Fail(visited.status(), error);
  if (fresh != nullptr) *fresh = ToC(*visited);
  return HF_OK;
}

hf_code hf_mirror_snapshot(const hf_mirror* mirror, hf_snapshot** out, hf_error** error) {
  if (mirror == nullptr) return NoMirror(error);
  auto read = ToCpp(mirror)->Snapshot();
  if (!read.ok()) return Fail(read.status(), error);
  *out = new hf_snapshot{std::move(read->value), read->fresh};
  return HF_OK;
}
size_t hf_snapshot_size(const hf_snapshot* snapshot) { return snapshot->snapshot.size(); }
size_t hf_snapshot_bytes(const hf_snapshot* snapshot) { return snapshot->snapshot.bytes(); }
uint64_t hf_snapshot_revision(const hf_snapshot* snapshot) { return snapshot->snapshot.revision(); }
hf_freshness hf_snapshot_freshness(const hf_snapshot* snapshot) { return ToC(snapshot->fresh); }

int hf_snapshot_find(const hf_snapshot* snapshot, hf_bytes key, hf_entry* entry) {
  const auto found = snapshot->snapshot.Find(View(key));
  if (!found.has_value()) return 0;
  *entry = ToC(*found);
  return 1;
}

void hf_snapshot_scan(const hf_snapshot* snapshot, hf_bytes prefix,
                      int (*visit)(void* context, const hf_entry* entry), void* context) {
  snapshot->snapshot.Scan(View(prefix), [&](const hf::EntryView& view) {
    const hf_entry entry = ToC(view);
    return visit(context, &entry) != 0;
  });
}
void hf_snapshot_free(hf_snapshot* snapshot) { delete snapshot; }

hf_code hf_mirror_wait_fresh(const hf_mirror* mirror, uint64_t max_age_ms, uint64_t timeout_ms,
                             hf_error** error) {
  if (mirror == nullptr) return NoMirror(error);
  return Finish(ToCpp(mirror)->WaitFresh(FromMs(max_age_ms), FromMs(timeout_ms)), error);
}

hf_code hf_mirror_wait_for(const hf_mirror* mirror, const char* token, uint64_t timeout_ms,
                           hf_error** error) {
  if (mirror == nullptr) return NoMirror(error);
  const auto parsed = hf::Token::Parse(token == nullptr ? "" : token);
  if (!parsed.ok()) return Fail(parsed.status(), error);
  return Finish(ToCpp(mirror)->WaitFor(*parsed, FromMs(timeout_ms)), error);
}

void hf_mirror_mark_good(const hf_mirror* mirror, uint64_t revision) {
  ToCpp(mirror)->MarkGood(revision);
}
void hf_mirror_mark_accepted(const hf_mirror* mirror, uint64_t revision) {
  ToCpp(mirror)->MarkAccepted(revision);
}

void hf_mirror_get_status(const hf_mirror* mirror, hf_mirror_status* status) {
  const hf::MirrorStatus s = ToCpp(mirror)->status();
  *status = {.fresh = ToC(s.fresh),
             .records = s.records,
             .bytes = s.bytes,
             .refused_revision = s.refused_revision,
             .updates = s.updates,
             .rejections = s.rejections,
             .loads = s.loads,
             .resumes = s.resumes,
             .link = static_cast<int32_t>(s.link),
             .overridden = s.overridden ? 1 : 0};
}
char* hf_mirror_refused_why(const hf_mirror* mirror) {
  return Copy(hf::base::Message(ToCpp(mirror)->status().refused_why));
}

// --- live values ---

hf_code hf_live_open(hf_client* client, hf_bytes key,
                     int (*check)(void* context, hf_bytes value, char* why, size_t why_size),
                     void* context, hf_live** out, hf_error** error) {
  auto live = client->client->Open<std::string>(
      View(key), [check, context](std::string_view value) -> absl::StatusOr<std::string> {
        char why[kWhySize] = "";
        if (check != nullptr && check(context, Bytes(value), why, sizeof(why)) != 0) {
          why[sizeof(why) - 1] = '\0';
          return Refused(why);
        }
        return std::string(value);
      });
  if (!live.ok()) return Fail(live.status(), error);
  *out = new hf_live{*std::move(live)};
  return HF_OK;
}

hf_value* hf_live_value(const hf_live* live) { return new hf_value{*live->live}; }

hf_code hf_live_get(const hf_live* live, hf_value** out, hf_error** error) {
  auto value = live->live.Get();
  if (!value.ok()) return Fail(value.status(), error);
  *out = new hf_value{*std::move(value)};
  return HF_OK;
}

hf_freshness hf_live_freshness(const hf_live* live) { return ToC(live->live.fresh()); }

void hf_live_on_change(const hf_live* live, void (*changed)(void* context, hf_bytes value),
                       void* context) {
  // The handle is the same value's, however often it is copied.
  hf::Live<std::string> copy = live->live;
  copy.OnChange([changed, context](std::shared_ptr<const std::string> value) {
    changed(context, Bytes(*value));
  });
}

void hf_live_free(hf_live* live) { delete live; }
hf_bytes hf_value_bytes(const hf_value* value) { return Bytes(*value->value); }
void hf_value_free(hf_value* value) { delete value; }

}  // extern "C"
