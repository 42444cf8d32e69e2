// The C interface on a store in this process.
#include "holdfast/holdfast.h"

#include <stdlib.h>
#include <unistd.h>

#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/config_json.h"
#include "holdfast/testing/fake_store.h"

namespace holdfast::test {
namespace {

using testing::FakeStore;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string Str(hf_bytes bytes) { return std::string(bytes.data, bytes.size); }

// An error that is freed, and says what it was.
struct Error {
  ~Error() { hf_error_free(error); }
  std::string text() const { return error == nullptr ? "(no error)" : hf_error_text(error); }
  hf_error* error = nullptr;
};

// What callbacks said, in order.
class Heard {
 public:
  void Add(std::string what) {
    std::lock_guard lock(mutex_);
    what_.push_back(std::move(what));
    changed_.notify_all();
  }
  // Waits until something that begins like this was said.
  std::string Await(const std::string& beginning) {
    std::unique_lock lock(mutex_);
    std::string found;
    changed_.wait_for(lock, std::chrono::seconds(20), [&] {
      for (const std::string& one : what_) {
        if (one.rfind(beginning, 0) == 0) found = one;
      }
      return !found.empty();
    });
    return found;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> what_;
};

class CApi : public ::testing::Test {
 protected:
  CApi() {
    std::string name = ::testing::TempDir() + "/holdfast_c_api.XXXXXX";
    EXPECT_NE(mkdtemp(name.data()), nullptr);
    dir_ = name;
  }
  ~CApi() override {
    hf_close(client_);
    std::filesystem::remove_all(dir_);
  }

  std::string Config(const std::string& prefix_fields = R"("policy": "fail-static")") const {
    std::string endpoints;
    for (const std::string& endpoint : store_.endpoints()) {
      endpoints += fmt::format("{}\"{}\"", endpoints.empty() ? "" : ", ", endpoint);
    }
    return fmt::format(
        R"({{"endpoints": [{}], "name": "c", "disk_dir": "{}",
            "prefixes": [{{"prefix": "/c/", "probation": "0s", {}}}]}})",
        endpoints, dir_, prefix_fields);
  }
  // Opens client_.
  void Open(const std::string& config, const hf_open_options* options = nullptr) {
    Error error;
    ASSERT_EQ(hf_open(config.c_str(), options, &client_, &error.error), HF_OK) << error.text();
  }
  void Open() { Open(Config()); }
  const hf_mirror* mirror() const { return hf_mirror_of(client_, hf_str("/c/")); }
  // Of the mirror; or the error's name.
  std::string Get(const char* key) const {
    hf_read* read = nullptr;
    Error error;
    const hf_code code = hf_mirror_get(mirror(), hf_str(key), &read, &error.error);
    if (code != HF_OK) return hf_code_name(code);
    const std::string value =
        hf_read_size(read) == 0 ? "(none)" : Str(hf_read_entry(read, 0).value);
    hf_read_free(read);
    return value;
  }
  void AwaitRevision(uint64_t revision) const {
    const std::string token = Token{.revision = revision}.Serialize();
    Error error;
    ASSERT_EQ(hf_mirror_wait_for(mirror(), token.c_str(), 20'000, &error.error), HF_OK)
        << error.text();
  }

  FakeStore store_;
  std::string dir_;
  hf_client* client_ = nullptr;
};

// --- configuration ---

TEST_F(CApi, SaysWhatIsWrongWithAConfiguration) {
  const std::pair<const char*, const char*> bad[] = {
      {"", "not JSON"},
      {"[]", "must be an object"},
      {"{}", "endpoints"},
      {R"({"endpoints": "a:1"})", "endpoints must be a list"},
      {R"({"endpoints": ["a:1"], "prefix": []})", "prefix is unknown; known are endpoints"},
      {R"({"endpoints": ["a:1"], "exactly_once": 1})", "exactly_once must be true or false"},
      {R"({"endpoints": ["a:1"], "prefixes": [{"policy": "fail-static"}]})",
       "prefixes[0].prefix is missing"},
      {R"({"endpoints": ["a:1"], "prefixes": [{"prefix": "/a/", "policy": "static"}]})",
       "prefixes[0].policy must be"},
      {R"({"endpoints": ["a:1"], "prefixes": [{"prefix": "/a/", "policy": "fail-closed"}]})",
       "prefixes[0].max_age is missing"},
      {R"({"endpoints": ["a:1"], "prefixes": [{"prefix": "/a/", "max_age": "4h"}]})",
       "prefixes[0].max_age is for"},
      {R"({"endpoints": ["a:1"], "prefixes": [{"prefix": "/a/", "policy": "fail-closed",
          "max_age": 14400}]})",
       "prefixes[0].max_age must be a duration"},
      {R"({"endpoints": ["a:1"], "prefixes": [{"prefix": "/a/", "reduced": "4h"}]})",
       "prefixes[0].reduced is unknown"},
      {R"({"endpoints": ["a:1"], "retry": {"max_attempts": -1}})", "retry.max_attempts must be"},
      {R"({"endpoints": ["a:1"], "retry": {"max_attempts": 0}})", "max_attempts"},
      {R"({"endpoints": ["a:1"], "max_clock_slow": 1})", "max_clock_slow"},
  };
  for (const auto& [config, text] : bad) {
    hf_client* client = nullptr;
    Error error;
    EXPECT_EQ(hf_open(config, nullptr, &client, &error.error), HF_INVALID_ARGUMENT) << config;
    EXPECT_THAT(error.text(), HasSubstr(text)) << config;
    EXPECT_EQ(client, nullptr);
  }
  EXPECT_EQ(hf_open(nullptr, nullptr, &client_, nullptr), HF_INVALID_ARGUMENT);
}

TEST(ClientConfig, EveryFieldReachesTheOptions) {
  const auto options = internal::ParseClientConfig(R"({
    "endpoints": ["a:1", "b:1"], "name": "edge", "disk_dir": "/d", "exactly_once": false,
    "handle_termination": false, "max_clock_slow": 0.01, "retry": {"max_attempts": 3, "cap": "1s"}, "hedge": {"floor": "1ms"},
    "prefixes": [
      {"prefix": "/auth/", "policy": "fail-closed", "max_age": "4h", "at_least": "estimated",
       "reduced_after": "5m", "class": "auth", "startup_wait": "1s", "max_bytes": 1000},
      {"prefix": "/c/", "hold_if_deletes": 0.5, "hold_if_grows": 3, "probation": "2m",
       "disk_dir": "/e", "keep_generations": 5, "defaults": {"/c/a": "1"}},
      {"prefix": "/flags/", "policy": "fail-open", "max_age": "1m", "defaults": {"/flags/x": "on"},
       "memory_only": true},
      {"prefix": "/tokens/", "policy": "never-stale"}]})");
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_TRUE(options->Validate().ok()) << options->Validate();
  EXPECT_EQ(options->endpoints.size(), 2u);
  EXPECT_EQ(options->name, "edge");
  EXPECT_EQ(options->disk_dir, "/d");
  EXPECT_FALSE(options->exactly_once);
  EXPECT_FALSE(options->handle_termination);
  EXPECT_EQ(options->max_clock_slow, 0.01);
  EXPECT_EQ(options->retry.max_attempts, 3);
  EXPECT_EQ(options->retry.cap, absl::Seconds(1));
  EXPECT_EQ(options->hedge.floor, absl::Milliseconds(1));
  const Policy& auth = options->prefixes[0].policy;
  EXPECT_EQ(auth.rule(), Policy::Rule::kFailClosed);
  EXPECT_EQ(auth.max_age(), absl::Hours(4));
  EXPECT_EQ(auth.at_least(), Proof::kEstimated);
  EXPECT_EQ(auth.reduced_after(), absl::Minutes(5));
  EXPECT_EQ(auth.startup_wait(), absl::Seconds(1));
  EXPECT_EQ(auth.max_bytes(), 1000u);
  const Policy& config = options->prefixes[1].policy;
  EXPECT_EQ(config.rule(), Policy::Rule::kFailStatic);
  EXPECT_EQ(config.hold_if_deletes(), 0.5);
  EXPECT_EQ(config.hold_if_grows(), 3.0);
  EXPECT_EQ(config.probation(), absl::Minutes(2));
  EXPECT_EQ(config.disk_dir(), "/e");
  EXPECT_EQ(config.keep_generations(), 5);
  EXPECT_EQ(config.defaults().size(), 1u);
  const Policy& flags = options->prefixes[2].policy;
  EXPECT_EQ(flags.rule(), Policy::Rule::kFailOpen);
  EXPECT_EQ(flags.defaults().at(0).value, "on");
  EXPECT_TRUE(flags.memory_only());
  EXPECT_EQ(options->prefixes[3].policy.rule(), Policy::Rule::kNeverStale);
}

// --- store ---

TEST_F(CApi, ReadsAndWritesTheStore) {
  Open();
  hf_write_result written;
  Error error;
  ASSERT_EQ(hf_put(client_, hf_str("/x/a"), {"1\0002", 3}, 0, &written, &error.error), HF_OK)
      << error.text();
  EXPECT_EQ(written.revision, 2u);
  EXPECT_EQ(written.applied, 1);
  EXPECT_THAT(written.token, StartsWith("hf1."));
  hf_read_options at_least = {};
  at_least.level = HF_AT_LEAST;
  at_least.token = written.token;
  hf_read* read = nullptr;
  ASSERT_EQ(hf_get(client_, hf_str("/x/a"), &at_least, &read, &error.error), HF_OK) << error.text();
  ASSERT_EQ(hf_read_size(read), 1u);
  EXPECT_EQ(Str(hf_read_entry(read, 0).value), std::string("1\0002", 3));
  EXPECT_EQ(hf_read_entry(read, 0).version, 1u);
  hf_read_free(read);

  ASSERT_EQ(hf_put_if(client_, hf_str("/x/a"), hf_str("2"), 2, 0, &written, nullptr), HF_OK);
  EXPECT_EQ(written.applied, 1);
  ASSERT_EQ(hf_put_if(client_, hf_str("/x/a"), hf_str("3"), 2, 0, &written, nullptr), HF_OK);
  EXPECT_EQ(written.applied, 0);
  EXPECT_EQ(store_.Get("/x/a")->value, "2");
  ASSERT_EQ(hf_put_if(client_, hf_str("/x/b"), hf_str("new"), 0, 0, nullptr, nullptr), HF_OK);

  ASSERT_EQ(hf_scan(client_, hf_str("/x/"), nullptr, &read, nullptr), HF_OK);
  EXPECT_EQ(hf_read_size(read), 2u);
  hf_read_free(read);
  ASSERT_EQ(hf_delete(client_, hf_str("/x/a"), 0, &written, nullptr), HF_OK);
  EXPECT_EQ(written.deleted, 1);
  ASSERT_EQ(hf_delete_prefix(client_, hf_str("/x/"), 0, &written, nullptr), HF_OK);
  EXPECT_EQ(written.deleted, 1);
  ASSERT_EQ(hf_get(client_, hf_str("/x/a"), nullptr, &read, nullptr), HF_OK);
  EXPECT_EQ(hf_read_size(read), 0u);
  EXPECT_EQ(hf_read_freshness(read).proof, HF_PROVEN);
  hf_read_free(read);
}

TEST_F(CApi, AnErrorSaysWhatWouldHaveBeenServed) {
  Open();
  store_.SetAge(absl::Hours(1));
  hf_read_options options = {};
  options.level = HF_BOUNDED;
  options.max_age_ms = 1000;
  hf_read* read = nullptr;
  Error error;
  EXPECT_EQ(hf_get(client_, hf_str("/x/a"), &options, &read, &error.error), HF_FAILED_PRECONDITION);
  EXPECT_EQ(hf_error_code(error.error), HF_FAILED_PRECONDITION);
  EXPECT_EQ(hf_error_maybe_committed(error.error), 0);
  EXPECT_EQ(hf_error_retry_after_ms(error.error), -1);
  hf_freshness best;
  ASSERT_NE(hf_error_best_available(error.error, &best), 0);
  EXPECT_GE(best.max_age_ns, 3'600'000'000'000u);
  options.max_age_ms = HF_ANY_AGE;
  ASSERT_EQ(hf_get(client_, hf_str("/x/a"), &options, &read, nullptr), HF_OK);
  hf_read_free(read);
  options.level = static_cast<hf_level>(77);
  EXPECT_EQ(hf_get(client_, hf_str("/x/a"), &options, &read, nullptr), HF_INVALID_ARGUMENT);
  EXPECT_EQ(hf_mirror_wait_for(mirror(), "no token", 0, nullptr), HF_INVALID_ARGUMENT);
}

TEST_F(CApi, AnUnknownAgeIsToldAsSuch) {
  Open();
  store_.SetAge(absl::InfiniteDuration());
  hf_read_options any = {};
  any.level = HF_BOUNDED;
  any.max_age_ms = HF_ANY_AGE;
  hf_read* read = nullptr;
  ASSERT_EQ(hf_get(client_, hf_str("/x/a"), &any, &read, nullptr), HF_OK);
  EXPECT_EQ(hf_read_freshness(read).max_age_ns, HF_UNKNOWN_AGE);
  EXPECT_EQ(hf_read_freshness(read).proof, HF_PROOF_UNKNOWN);
  hf_read_free(read);
}

TEST_F(CApi, AWriteWhoseAnswerIsLostSaysSo) {
  Open(R"({"exactly_once": false, "endpoints": [")" + store_.endpoints()[0] + R"("]})");
  store_.faults().LoseAnswer({.method = "Put"});
  Error error;
  EXPECT_EQ(hf_put(client_, hf_str("/x/a"), hf_str("1"), 0, nullptr, &error.error), HF_UNKNOWN);
  EXPECT_NE(hf_error_maybe_committed(error.error), 0);
  // Without sessions nobody can be asked.
  EXPECT_EQ(hf_resolve(client_, error.error, 0, nullptr, nullptr), HF_FAILED_PRECONDITION);
}

TEST_F(CApi, AWriteInASessionIsAskedForAgain) {
  Open();
  store_.faults().LoseAnswer({.method = "Put"});
  hf_write_result written;
  Error error;
  ASSERT_EQ(hf_put(client_, hf_str("/x/a"), hf_str("1"), 0, &written, &error.error), HF_OK)
      << error.text();
  EXPECT_EQ(written.attempts, 2);
  EXPECT_NE(written.deduplicated, 0);
  EXPECT_EQ(store_.Get("/x/a")->version, 1u);
  EXPECT_EQ(store_.deduplicated(), 1);
}

TEST_F(CApi, AnUnknownOutcomeIsFoundOutLater) {
  Open();
  ASSERT_EQ(hf_put(client_, hf_str("/x/warm"), hf_str("1"), 0, nullptr, nullptr), HF_OK);
  store_.faults().Drop({.method = "Put"}, testing::FaultInjector::kForever);
  Error unknown;
  ASSERT_EQ(hf_put(client_, hf_str("/x/a"), hf_str("1"), 200, nullptr, &unknown.error), HF_UNKNOWN);
  EXPECT_NE(hf_error_maybe_committed(unknown.error), 0);
  EXPECT_EQ(store_.Get("/x/a"), std::nullopt);
  store_.faults().Clear();
  hf_write_result written;
  Error error;
  ASSERT_EQ(hf_resolve(client_, unknown.error, 0, &written, &error.error), HF_OK) << error.text();
  EXPECT_EQ(written.revision, 3u);
  EXPECT_EQ(store_.Get("/x/a")->version, 1u);
}

// --- mirrors ---

TEST_F(CApi, AMirrorServesThroughAnOutageAndARestart) {
  store_.Put("/c/a", "1");
  Open();
  const hf_mirror* const none = hf_mirror_of(client_, hf_str("/elsewhere"));
  EXPECT_EQ(none, nullptr);
  hf_read* nothing = nullptr;
  EXPECT_EQ(hf_mirror_get(none, hf_str("/elsewhere"), &nothing, nullptr), HF_FAILED_PRECONDITION);
  EXPECT_EQ(Str(hf_mirror_prefix(mirror())), "/c/");
  EXPECT_EQ(Get("/c/a"), "1");
  EXPECT_EQ(Get("/c/b"), "(none)");
  AwaitRevision(store_.Put("/c/a", "2"));
  EXPECT_EQ(Get("/c/a"), "2");
  ASSERT_EQ(hf_mirror_wait_fresh(mirror(), 60'000, 20'000, nullptr), HF_OK);
  hf_mirror_mark_good(mirror(), store_.revision());

  store_.StopServing();
  EXPECT_EQ(Get("/c/a"), "2");
  hf_close(std::exchange(client_, nullptr));
  Open();  // from disk: nothing else is there
  hf_read* read = nullptr;
  ASSERT_EQ(hf_mirror_get(mirror(), hf_str("/c/a"), &read, nullptr), HF_OK);
  EXPECT_EQ(Str(hf_read_entry(read, 0).value), "2");
  const hf_freshness first = hf_read_freshness(read);
  EXPECT_EQ(first.source, HF_DISK);
  EXPECT_EQ(first.proof, HF_PROVEN);
  EXPECT_LT(first.max_age_ns, hf_read_freshness(read).max_age_ns);  // it grows
  hf_read_free(read);
  store_.ResumeServing();
  AwaitRevision(store_.Put("/c/a", "3"));
  EXPECT_EQ(Get("/c/a"), "3");
}

TEST_F(CApi, ASnapshotStaysAsItIs) {
  store_.Put({{"/c/a", "1"}, {"/c/b", "2"}, {"/c/dir/c", "3"}});
  Open();
  ASSERT_EQ(hf_mirror_wait_fresh(mirror(), 60'000, 20'000, nullptr), HF_OK);
  hf_snapshot* snapshot = nullptr;
  ASSERT_EQ(hf_mirror_snapshot(mirror(), &snapshot, nullptr), HF_OK);
  AwaitRevision(store_.Put("/c/a", "changed"));
  EXPECT_EQ(hf_snapshot_size(snapshot), 3u);
  EXPECT_EQ(hf_snapshot_revision(snapshot), 2u);
  EXPECT_GT(hf_snapshot_bytes(snapshot), 3u);
  EXPECT_NE(hf_snapshot_freshness(snapshot).max_age_ns, HF_UNKNOWN_AGE);
  hf_entry entry;
  ASSERT_NE(hf_snapshot_find(snapshot, hf_str("/c/a"), &entry), 0);
  EXPECT_EQ(Str(entry.value), "1");
  EXPECT_EQ(hf_snapshot_find(snapshot, hf_str("/c/z"), &entry), 0);
  std::vector<std::string> keys;
  const auto collect = [](void* context, const hf_entry* e) {
    static_cast<std::vector<std::string>*>(context)->push_back(Str(e->key));
    return 1;
  };
  hf_snapshot_scan(snapshot, hf_str("/c/"), collect, &keys);
  EXPECT_THAT(keys, ::testing::ElementsAre("/c/a", "/c/b", "/c/dir/c"));
  int seen = 0;
  hf_snapshot_scan(
      snapshot, {},
      [](void* context, const hf_entry*) {
        ++*static_cast<int*>(context);
        return 0;
      },
      &seen);
  EXPECT_EQ(seen, 1);
  // It outlives its client.
  hf_close(std::exchange(client_, nullptr));
  ASSERT_NE(hf_snapshot_find(snapshot, hf_str("/c/b"), &entry), 0);
  EXPECT_EQ(Str(entry.value), "2");
  hf_snapshot_free(snapshot);
}

TEST_F(CApi, VisitsWithoutACopyAndScans) {
  store_.Put({{"/c/a", "1"}, {"/c/b", "2"}});
  Open();
  std::string value;
  const auto visit = [](void* context, const hf_entry* entry) {
    *static_cast<std::string*>(context) = entry == nullptr ? "(none)" : Str(entry->value);
  };
  hf_freshness fresh;
  ASSERT_EQ(hf_mirror_visit(mirror(), hf_str("/c/b"), visit, &value, &fresh, nullptr), HF_OK);
  EXPECT_EQ(value, "2");
  EXPECT_EQ(fresh.source, HF_MIRROR);
  ASSERT_EQ(hf_mirror_visit(mirror(), hf_str("/c/z"), visit, &value, nullptr, nullptr), HF_OK);
  EXPECT_EQ(value, "(none)");
  hf_read* read = nullptr;
  ASSERT_EQ(hf_mirror_scan(mirror(), hf_str("/c/"), &read, nullptr), HF_OK);
  EXPECT_EQ(hf_read_size(read), 2u);
  hf_read_free(read);
}

int NoBadValue(void*, const hf_snapshot*, const hf_snapshot* after, char* why, size_t size) {
  hf_entry entry;
  if (hf_snapshot_find(after, hf_str("/c/a"), &entry) == 0) return 0;
  if (Str(entry.value) != "bad") return 0;
  snprintf(why, size, "%s", "it is bad");
  return 1;
}

TEST_F(CApi, ABadSetIsRefusedReportedAndTold) {
  store_.Put("/c/a", "good");
  Heard heard;
  hf_observer observer = {};
  observer.context = &heard;
  observer.on_state = [](void* context, const hf_state_change* change) {
    static_cast<Heard*>(context)->Add(
        fmt::format("{} {}", Str(change->prefix), hf_link_name(static_cast<hf_link>(change->to))));
  };
  observer.on_rejected = [](void* context, const hf_rejection* rejection) {
    static_cast<Heard*>(context)->Add(
        fmt::format("refused {} {}", rejection->revision, rejection->why));
  };
  const hf_validator validator = {hf_str("/c/"), NoBadValue, nullptr};
  const hf_open_options options = {&observer, &validator, 1};
  Open(Config(), &options);
  EXPECT_EQ(heard.Await("/c/ live"), "/c/ live");
  EXPECT_EQ(hf_state(client_, hf_str("/c/a")), HF_LIVE);
  const uint64_t bad = store_.Put("/c/a", "bad");
  EXPECT_THAT(heard.Await("refused"), HasSubstr("it is bad"));
  EXPECT_EQ(Get("/c/a"), "good");
  hf_mirror_status status;
  hf_mirror_get_status(mirror(), &status);
  EXPECT_EQ(status.refused_revision, bad);
  EXPECT_EQ(status.rejections, 1u);
  EXPECT_EQ(status.records, 1u);
  EXPECT_NE(status.fresh.superseded, 0);
  char* const why = hf_mirror_refused_why(mirror());
  EXPECT_THAT(why, HasSubstr("it is bad"));
  hf_string_free(why);
  AwaitRevision(store_.Put("/c/a", "better"));
  EXPECT_EQ(Get("/c/a"), "better");
}

TEST_F(CApi, AValidatorOfNoPrefixIsAMistake) {
  const hf_validator validator = {hf_str("/elsewhere/"), NoBadValue, nullptr};
  const hf_open_options options = {nullptr, &validator, 1};
  Error error;
  EXPECT_EQ(hf_open(Config().c_str(), &options, &client_, &error.error), HF_INVALID_ARGUMENT);
  EXPECT_THAT(error.text(), HasSubstr("/elsewhere/"));
}

TEST_F(CApi, AMassDeletionWaitsForSomebodyWhoAccepts) {
  std::vector<std::pair<std::string, std::string>> records;
  for (int i = 0; i < 20; ++i) records.emplace_back("/c/" + std::to_string(i), "v");
  store_.Put(records);
  Heard heard;
  hf_observer observer = {};
  observer.context = &heard;
  observer.on_rejected = [](void* context, const hf_rejection*) {
    static_cast<Heard*>(context)->Add("refused");
  };
  const hf_open_options options = {&observer, nullptr, 0};
  Open(Config(), &options);
  const uint64_t gone = store_.DeletePrefix("/c/");
  EXPECT_EQ(heard.Await("refused"), "refused");
  EXPECT_EQ(Get("/c/1"), "v");
  hf_mirror_mark_accepted(mirror(), gone);
  AwaitRevision(gone);
  EXPECT_EQ(Get("/c/1"), "(none)");
  hf_mirror_mark_good(mirror(), gone);
}

// --- live values ---

TEST_F(CApi, ALiveValueIsAlwaysThere) {
  store_.Put("/c/a", "1");
  Open();
  Heard heard;
  const auto check = [](void*, hf_bytes value, char* why, size_t size) {
    if (Str(value) != "bad") return 0;
    snprintf(why, size, "not this");
    return -1;
  };
  hf_live* live = nullptr;
  Error error;
  EXPECT_EQ(hf_live_open(client_, hf_str("/c/none"), check, nullptr, &live, nullptr), HF_NOT_FOUND);
  ASSERT_EQ(hf_live_open(client_, hf_str("/c/a"), check, nullptr, &live, &error.error), HF_OK)
      << error.text();
  hf_live_on_change(
      live,
      [](void* context, hf_bytes value) {
        static_cast<Heard*>(context)->Add("changed " + Str(value));
      },
      &heard);
  hf_value* const old = hf_live_value(live);
  store_.Put("/c/a", "bad");
  AwaitRevision(store_.Put("/c/a", "2"));
  EXPECT_EQ(heard.Await("changed 2"), "changed 2");
  hf_value* now = nullptr;
  ASSERT_EQ(hf_live_get(live, &now, nullptr), HF_OK);
  EXPECT_EQ(Str(hf_value_bytes(now)), "2");
  EXPECT_EQ(Str(hf_value_bytes(old)), "1");
  EXPECT_GE(hf_live_freshness(live).revision, 4u);
  hf_value_free(now);
  hf_value_free(old);
  hf_live_free(live);
}

TEST_F(CApi, AClosedPolicyRefusesWhatIsTooOld) {
  store_.Put("/c/a", "1");
  store_.SetAge(absl::Hours(5));
  Open(Config(R"("policy": "fail-closed", "max_age": "4h")"));
  EXPECT_EQ(Get("/c/a"), "FAILED_PRECONDITION");
  EXPECT_EQ(hf_mirror_wait_fresh(mirror(), 1, 1, nullptr), HF_DEADLINE_EXCEEDED);
  store_.SetAge(absl::ZeroDuration());
  Error error;
  ASSERT_EQ(hf_mirror_wait_fresh(mirror(), 60'000, 20'000, &error.error), HF_OK) << error.text();
  EXPECT_EQ(Get("/c/a"), "1");
}

TEST_F(CApi, TellsOfItself) {
  store_.Put("/c/a", "1");
  Open();
  char* const dump = hf_dump(client_);
  EXPECT_THAT(dump, HasSubstr("/c/"));
  hf_string_free(dump);
  char* const metrics = hf_metrics(client_);
  EXPECT_THAT(metrics, HasSubstr("holdfast_"));
  hf_string_free(metrics);
  EXPECT_EQ(std::string(hf_version()),
            fmt::format("{}.{}.{}", HF_VERSION_MAJOR, HF_VERSION_MINOR, HF_VERSION_PATCH));
  EXPECT_STREQ(hf_proof_name(HF_ESTIMATED), "estimated");
  EXPECT_STREQ(hf_source_name(HF_DISK), "disk");
  EXPECT_STREQ(hf_grade_name(HF_REDUCED), "reduced");
  EXPECT_STREQ(hf_code_name(HF_DATA_LOSS), "DATA_LOSS");
  EXPECT_STREQ(hf_code_name(static_cast<hf_code>(99)), "UNKNOWN");
  hf_error_free(nullptr);
  hf_read_free(nullptr);
  hf_close(nullptr);
}

}  // namespace
}  // namespace holdfast::test
