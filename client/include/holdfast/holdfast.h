/* Holdfast for C, and for every language that can call C.
 *
 * A service keeps a copy of its configuration in its own process and goes on reading it when the
 * store has lost its quorum, when every server is gone, and when the service itself restarts during
 * that; and it always knows how old what it reads is at most.
 *
 *   hf_client* client;
 *   hf_error* error = NULL;
 *   if (hf_open("{\"endpoints\": [\"10.0.0.1:2379\", \"10.0.0.2:2379\", \"10.0.0.3:2379\"],"
 *               " \"prefixes\": [{\"prefix\": \"/config/edge/\", \"policy\": \"fail-static\"}]}",
 *               NULL, &client, &error) != HF_OK) {
 *     fprintf(stderr, "%s\n", hf_error_text(error));
 *   }
 *   const hf_mirror* config = hf_mirror_of(client, hf_str("/config/edge/"));
 *   hf_read* read;
 *   if (hf_mirror_get(config, hf_str("/config/edge/limits"), &read, &error) == HF_OK) {
 *     if (hf_read_size(read) == 1) use(hf_read_entry(read, 0).value);
 *     hf_read_free(read);
 *   }
 *
 * What the parts mean is said in docs/c-api.md and docs/client.md; this header says who owns what.
 *
 * Ownership   Every `T** out` gives an object that the caller frees with hf_T_free (hf_close for a
 *             client). Reads, snapshots, values and errors may be kept and freed after hf_close;
 *             an hf_live is freed before. A `const hf_mirror*` belongs to its client. Bytes that
 *             are handed out live as long as the object that they come from; bytes that are handed
 *             in are copied before the call returns. Free functions take NULL.
 * Errors      A function that can fail returns its code, and fills `*error` if `error` is not NULL;
 *             the caller frees that. After HF_OK `*error` is untouched, after anything else `*out`.
 * Threads     Everything may be called by any thread, and one object by several at once, except
 *             what frees it. After fork() the child opens a client of its own: with its parent's,
 *             calls are HF_ABORTED.
 * Callbacks   Run on the client's own threads, one at a time unless said otherwise, must not block,
 *             and must not call hf_close or a function that says "waits". Their context must live
 *             until hf_close has returned. No exception and no longjmp may leave one.
 * Times       Milliseconds where they are given, nanoseconds where they are told.
 * ABI         What is here stays within one soname (before 1.0 a minor version, then a major
 *             version): structs keep their fields, enums their numbers; functions are only added.
 */
#ifndef HOLDFAST_HOLDFAST_H_
#define HOLDFAST_HOLDFAST_H_

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define HF_VERSION_MAJOR 0
#define HF_VERSION_MINOR 5
#define HF_VERSION_PATCH 0

#if defined(__GNUC__)
#define HF_API __attribute__((visibility("default")))
#else
#define HF_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* --- bytes, codes, names --- */

/* Any bytes, NUL included. data may be NULL if size is 0. */
typedef struct hf_bytes {
  const char* data;
  size_t size;
} hf_bytes;

static inline hf_bytes hf_str(const char* text) {
  hf_bytes bytes = {text, strlen(text)};
  return bytes;
}

/* gRPC's numbers. */
typedef enum hf_code {
  HF_OK = 0,
  HF_CANCELLED = 1,         /* the client was closed before anything was sent */
  HF_UNKNOWN = 2,           /* a write was sent and got no definite answer */
  HF_INVALID_ARGUMENT = 3,  /* the call makes no sense; the text says what would */
  HF_DEADLINE_EXCEEDED = 4, /* nothing was sent in time; or what was waited for did not come */
  HF_NOT_FOUND = 5,         /* hf_live_open: there is no such key */
  HF_ALREADY_EXISTS = 6,
  HF_PERMISSION_DENIED = 7,
  HF_RESOURCE_EXHAUSTED = 8,  /* held back: hf_error_retry_after_ms; or a scan beyond its limit */
  HF_FAILED_PRECONDITION = 9, /* older than was asked for, or than the policy allows */
  HF_ABORTED = 10,            /* another process writes in this client's session; no effect */
  HF_OUT_OF_RANGE = 11,       /* a compaction overtook a scan: scan again */
  HF_UNIMPLEMENTED = 12,
  HF_INTERNAL = 13,
  HF_UNAVAILABLE = 14, /* no quorum, or no server: a write had no effect */
  HF_DATA_LOSS = 15,   /* nothing to serve: no store, no copy on disk, no defaults */
  HF_UNAUTHENTICATED = 16
} hf_code;

typedef enum hf_proof {
  HF_PROVEN = 0,       /* holds without comparing two machines' clocks */
  HF_ESTIMATED = 1,    /* rests on the wall clock: a copy from before a reboot */
  HF_PROOF_UNKNOWN = 2 /* the data may be arbitrarily old */
} hf_proof;

typedef enum hf_source {
  HF_LEADER = 0,
  HF_FOLLOWER = 1,
  HF_SOURCE_UNKNOWN = 2, /* the server does not say (plain etcd) */
  HF_MIRROR = 3,         /* this process's copy, fed by the store */
  HF_DISK = 4,           /* the copy that an earlier run left on disk */
  HF_DEFAULT = 5,        /* the defaults of the prefix */
  HF_OVERRIDE = 6        /* an operator's file */
} hf_source;

typedef enum hf_grade { HF_FRESH = 0, HF_STALE_ALLOWED = 1, HF_REDUCED = 2 } hf_grade;

typedef enum hf_link {
  HF_CONNECTING = 0,
  HF_LIVE = 1,
  HF_JEOPARDY = 2, /* no sign of life for 3 s */
  HF_STALE = 3,    /* for 10 s, or the connection broke */
  HF_EXPIRED = 4,  /* older than the policy allows */
  HF_RECOVERING = 5
} hf_link;

/* Never NULL, never freed. */
HF_API const char* hf_proof_name(hf_proof proof);
HF_API const char* hf_source_name(hf_source source);
HF_API const char* hf_grade_name(hf_grade grade);
HF_API const char* hf_link_name(hf_link link);
HF_API const char* hf_code_name(hf_code code);

/* Of the library that runs, "0.5.0"; HF_VERSION_* are those of this header. */
HF_API const char* hf_version(void);

/* Texts that are handed out as char*. */
HF_API void hf_string_free(char* text);

/* --- how old something is --- */

#define HF_UNKNOWN_AGE UINT64_MAX /* of max_age_ns */
#define HF_ANY_AGE UINT64_MAX     /* of an option in ms: however old, unknown too */

/* "The data shows every write that was acknowledged more than max_age_ns ago", at the instant of
 * the call that gave this. Ask again for a later one: it grows. */
typedef struct hf_freshness {
  uint64_t max_age_ns;
  uint64_t revision;  /* of the store, which the data shows exactly */
  int32_t proof;      /* hf_proof */
  int32_t source;     /* hf_source */
  int32_t grade;      /* hf_grade */
  int32_t superseded; /* not 0: a newer revision was seen and refused, or held back */
} hf_freshness;

/* --- errors --- */

typedef struct hf_error hf_error;

HF_API hf_code hf_error_code(const hf_error* error);
/* What happened, at which endpoints, and what to do. */
HF_API const char* hf_error_text(const hf_error* error);
/* Not 0: a write that may have taken effect, now or within seconds. Do not just issue it again:
 * hf_resolve. */
HF_API int hf_error_maybe_committed(const hf_error* error);
/* When a retry has a chance; -1: not told. Add jitter. */
HF_API int64_t hf_error_retry_after_ms(const hf_error* error);
/* Of a read that was refused for its age: not 0, and what a looser bound would have been given. */
HF_API int hf_error_best_available(const hf_error* error, hf_freshness* best);
HF_API void hf_error_free(hf_error* error);

/* --- the client --- */

typedef struct hf_client hf_client;
typedef struct hf_snapshot hf_snapshot;

/* A change of how a mirrored prefix stands to the store. Valid for the call. */
typedef struct hf_state_change {
  hf_bytes prefix;
  int32_t from; /* hf_link */
  int32_t to;
  uint64_t max_age_ns;
  int32_t proof;   /* hf_proof */
  int32_t code;    /* hf_code: why; HF_OK if there is nothing to say */
  const char* why; /* never NULL */
} hf_state_change;

/* A set of records that was not taken; the one before it is still served. Valid for the call. */
typedef struct hf_rejection {
  hf_bytes prefix;
  uint64_t revision;
  int32_t code;
  const char* why;
} hf_rejection;

/* Any of them may be NULL. */
typedef struct hf_observer {
  void* context;
  void (*on_state)(void* context, const hf_state_change* change);
  void (*on_rejected)(void* context, const hf_rejection* rejection);
  void (*on_last_good_written)(void* context, hf_bytes prefix, uint64_t revision);
  void (*on_disk_problem)(void* context, hf_bytes prefix, const char* why);
} hf_observer;

/* Judges a new set of records of one prefix before it is served: 0 takes it; anything else refuses
 * it, with a text of at most why_size bytes, NUL included. `before` is what is served now (empty at
 * first). Runs on a thread of the prefix's own; has 200 ms. The snapshots are valid for the call.
 */
typedef struct hf_validator {
  hf_bytes prefix; /* one of the configuration's */
  int (*validate)(void* context, const hf_snapshot* before, const hf_snapshot* after, char* why,
                  size_t why_size);
  void* context;
} hf_validator;

/* All zero: none of it. */
typedef struct hf_open_options {
  const hf_observer* observer;
  const hf_validator* validators;
  size_t validators_size;
} hf_open_options;

/* `config_json` is described in docs/c-api.md; `options` may be NULL. Waits for the store only if a
 * mirrored prefix has no copy on disk, up to its startup_wait. HF_INVALID_ARGUMENT: the text names
 * the field. HF_DATA_LOSS: a prefix has nothing to serve. */
HF_API hf_code hf_open(const char* config_json, const hf_open_options* options, hf_client** out,
                       hf_error** error);
/* Ends what is outstanding and waits for the client's threads. */
HF_API void hf_close(hf_client* client);

/* Of the mirrored prefix that the key lies in. */
HF_API hf_link hf_state(const hf_client* client, hf_bytes key_or_prefix);
/* What the client knows of itself: for people, and as figures in Prometheus' format. */
HF_API char* hf_dump(const hf_client* client);
HF_API char* hf_metrics(const hf_client* client);

/* --- reads --- */

typedef struct hf_entry {
  hf_bytes key;
  hf_bytes value;
  uint64_t create_revision;
  uint64_t mod_revision;
  uint64_t version;
  int64_t lease;
} hf_entry;

/* The records that a read found, by key, and how old they are. */
typedef struct hf_read hf_read;
HF_API size_t hf_read_size(const hf_read* read);
/* REQUIRES: index < hf_read_size(read). */
HF_API hf_entry hf_read_entry(const hf_read* read, size_t index);
/* As of now: it grows while the read is kept. */
HF_API hf_freshness hf_read_freshness(const hf_read* read);
HF_API void hf_read_free(hf_read* read);

typedef enum hf_level {
  HF_LINEARIZABLE = 0, /* shows every write acknowledged before; needs a quorum */
  HF_BOUNDED = 1,      /* any member's answer of at most max_age_ms, proven */
  HF_AT_LEAST = 2,     /* shows the write that gave `token` */
  HF_LOCAL = 3         /* this process's copy alone: the network is never used */
} hf_level;

/* All zero: linearizable, default deadline. */
typedef struct hf_read_options {
  hf_level level;
  uint64_t max_age_ms;  /* of HF_BOUNDED */
  const char* token;    /* of HF_AT_LEAST */
  uint64_t or_stale_ms; /* if the above cannot be had: an answer of at most this age; 0: an error */
  uint64_t deadline_ms; /* of the whole call; 0: 5 s */
  uint64_t max_entries; /* of a scan; 0: 100,000 */
} hf_read_options;

/* From the store; `options` may be NULL. Both wait. A key that does not exist: HF_OK, size 0. */
HF_API hf_code hf_get(hf_client* client, hf_bytes key, const hf_read_options* options,
                      hf_read** out, hf_error** error);
HF_API hf_code hf_scan(hf_client* client, hf_bytes prefix, const hf_read_options* options,
                       hf_read** out, hf_error** error);

/* --- writes --- */

#define HF_TOKEN_SIZE 64

typedef struct hf_write_result {
  uint64_t revision;
  int64_t deleted; /* of a delete: keys that existed */
  int32_t attempts;
  int32_t applied;      /* 0: hf_put_if found another revision, and did nothing */
  int32_t deduplicated; /* not 0: an earlier try of this write had taken effect, unheard */
  int32_t reserved;
  char token[HF_TOKEN_SIZE]; /* for HF_AT_LEAST, also of another process; ends with NUL */
} hf_write_result;

/* All wait, for at most deadline_ms (0: 5 s). `result` may be NULL. They take effect once, or say
 * by hf_error_maybe_committed that it is not known whether they did. */
HF_API hf_code hf_put(hf_client* client, hf_bytes key, hf_bytes value, uint64_t deadline_ms,
                      hf_write_result* result, hf_error** error);
HF_API hf_code hf_delete(hf_client* client, hf_bytes key, uint64_t deadline_ms,
                         hf_write_result* result, hf_error** error);
HF_API hf_code hf_delete_prefix(hf_client* client, hf_bytes prefix, uint64_t deadline_ms,
                                hf_write_result* result, hf_error** error);
/* Only if the key was last written at `mod_revision`; 0: if it does not exist. HF_OK either way:
 * result->applied says which. */
HF_API hf_code hf_put_if(hf_client* client, hf_bytes key, hf_bytes value, uint64_t mod_revision,
                         uint64_t deadline_ms, hf_write_result* result, hf_error** error);
/* Asks again for the outcome of the write that ended in this error: it can not take effect twice.
 * HF_FAILED_PRECONDITION if that can no longer be asked. */
HF_API hf_code hf_resolve(hf_client* client, const hf_error* maybe_committed, uint64_t deadline_ms,
                          hf_write_result* result, hf_error** error);

/* --- mirrors: reads from this process's memory, store up or down --- */

typedef struct hf_mirror hf_mirror;

/* The copy of the mirrored prefix that the key lies in; NULL: there is none. (With NULL, what
 * returns a code below returns HF_FAILED_PRECONDITION; the rest must not be called.) */
HF_API const hf_mirror* hf_mirror_of(const hf_client* client, hf_bytes key_or_prefix);
HF_API hf_bytes hf_mirror_prefix(const hf_mirror* mirror);

/* Both apply the prefix's policy to the age that the data has now, and never wait.
 * HF_FAILED_PRECONDITION: older than it allows; hf_error_best_available. */
HF_API hf_code hf_mirror_get(const hf_mirror* mirror, hf_bytes key, hf_read** out,
                             hf_error** error);
HF_API hf_code hf_mirror_scan(const hf_mirror* mirror, hf_bytes prefix, hf_read** out,
                              hf_error** error);
/* The same without copying: `visit` is given the record, or NULL if there is none, on this thread,
 * before this returns. It must be short and call nothing of this library. `fresh` may be NULL. */
HF_API hf_code hf_mirror_visit(const hf_mirror* mirror, hf_bytes key,
                               void (*visit)(void* context, const hf_entry* entry), void* context,
                               hf_freshness* fresh, hf_error** error);

/* All records at one revision, for several reads that must fit together; costs no copy. While it is
 * kept, so is everything that was replaced since: one per request, not one per process. */
HF_API hf_code hf_mirror_snapshot(const hf_mirror* mirror, hf_snapshot** out, hf_error** error);
HF_API size_t hf_snapshot_size(const hf_snapshot* snapshot);
HF_API size_t hf_snapshot_bytes(const hf_snapshot* snapshot);
HF_API uint64_t hf_snapshot_revision(const hf_snapshot* snapshot);
/* As of now. Of a validator's snapshots: of unknown age. */
HF_API hf_freshness hf_snapshot_freshness(const hf_snapshot* snapshot);
/* Not 0: found. The bytes live as long as the snapshot. */
HF_API int hf_snapshot_find(const hf_snapshot* snapshot, hf_bytes key, hf_entry* entry);
/* By key; until `visit` returns 0. */
HF_API void hf_snapshot_scan(const hf_snapshot* snapshot, hf_bytes prefix,
                             int (*visit)(void* context, const hf_entry* entry), void* context);
HF_API void hf_snapshot_free(hf_snapshot* snapshot);

/* Both wait, until the data is proven to be at most so old, or shows the token's write.
 * HF_DEADLINE_EXCEEDED after timeout_ms. */
HF_API hf_code hf_mirror_wait_fresh(const hf_mirror* mirror, uint64_t max_age_ms,
                                    uint64_t timeout_ms, hf_error** error);
HF_API hf_code hf_mirror_wait_for(const hf_mirror* mirror, const char* token, uint64_t timeout_ms,
                                  hf_error** error);

/* The data at `revision`, or what is served now if it is newer, has proven good. */
HF_API void hf_mirror_mark_good(const hf_mirror* mirror, uint64_t revision);
/* Somebody has looked: what a guard (mass deletion, growth) refused up to `revision` is to be
 * served. */
HF_API void hf_mirror_mark_accepted(const hf_mirror* mirror, uint64_t revision);

typedef struct hf_mirror_status {
  hf_freshness fresh;
  uint64_t records;
  uint64_t bytes;
  uint64_t refused_revision; /* the newest one seen and refused; 0: none is held back */
  uint64_t updates;          /* sets taken, ever */
  uint64_t rejections;       /* sets refused, ever */
  uint64_t loads;            /* whole copies fetched, ever */
  uint64_t resumes;          /* reconnects that went on where they were, ever */
  int32_t link;              /* hf_link */
  int32_t overridden;        /* not 0: an operator's file is in force */
} hf_mirror_status;

HF_API void hf_mirror_get_status(const hf_mirror* mirror, hf_mirror_status* status);
/* Why refused_revision is; "" if none is. The caller frees it (hf_string_free). */
HF_API char* hf_mirror_refused_why(const hf_mirror* mirror);

/* --- live values: one key, always there --- */

typedef struct hf_live hf_live;
/* A counted reference to one value: it stays as it is while newer ones come. */
typedef struct hf_value hf_value;

/* Follows a key of a mirrored prefix. `check`, if not NULL, judges each new value: anything but 0
 * refuses the set that holds it, with a text; the value before it stays. It runs on a thread of the
 * prefix's own, now and until hf_close. HF_NOT_FOUND: there is no such key. */
HF_API hf_code hf_live_open(hf_client* client, hf_bytes key,
                            int (*check)(void* context, hf_bytes value, char* why, size_t why_size),
                            void* context, hf_live** out, hf_error** error);
/* The newest value that was taken. No lock, no wait, never NULL, whatever the policy: for
 * fail-static prefixes. */
HF_API hf_value* hf_live_value(const hf_live* live);
/* The same, if the prefix's policy allows it now. */
HF_API hf_code hf_live_get(const hf_live* live, hf_value** out, hf_error** error);
HF_API hf_freshness hf_live_freshness(const hf_live* live);
/* `changed` runs after each new value. */
HF_API void hf_live_on_change(const hf_live* live, void (*changed)(void* context, hf_bytes value),
                              void* context);
/* REQUIRES: the client is open. */
HF_API void hf_live_free(hf_live* live);

HF_API hf_bytes hf_value_bytes(const hf_value* value);
HF_API void hf_value_free(hf_value* value);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* HOLDFAST_HOLDFAST_H_ */
