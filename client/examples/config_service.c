/* A service in C that reads its configuration the same way whether the store is up or down:
 *   holdfast_example_c 127.0.0.1:2379,127.0.0.1:22379 /config/edge/limits /var/lib/edge 200
 * The last argument is how often it looks, in milliseconds. */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "holdfast/holdfast.h"

static void on_state(void* context, const hf_state_change* change) {
  (void)context;
  printf("state %s -> %s %s\n", hf_link_name((hf_link)change->from),
         hf_link_name((hf_link)change->to), change->why);
  fflush(stdout);
}

/* {"endpoints": ["A", "B"], ...} of "A,B". The prefix is the key's directory. */
static char* config_of(const char* endpoints, const char* key, const char* disk_dir) {
  const size_t size = 4 * strlen(endpoints) + strlen(key) + strlen(disk_dir) + 200;
  const char* const slash = strrchr(key, '/');
  char* const config = malloc(size);
  int at;
  if (config == NULL || slash == NULL) {
    free(config);
    return NULL;
  }
  at = snprintf(config, size, "{\"endpoints\": [\"");
  for (; *endpoints != '\0'; ++endpoints) {
    at += *endpoints == ',' ? snprintf(config + at, size - (size_t)at, "\", \"")
                            : snprintf(config + at, size - (size_t)at, "%c", *endpoints);
  }
  snprintf(config + at, size - (size_t)at,
           "\"], \"disk_dir\": \"%s\", \"prefixes\": [{\"prefix\": \"%.*s\", \"policy\": "
           "\"fail-static\", \"probation\": \"0s\"}]}",
           disk_dir, (int)(slash - key) + 1, key);
  return config;
}

static void print_once(const hf_mirror* mirror, const char* key) {
  hf_read* read = NULL;
  hf_error* error = NULL;
  if (hf_mirror_get(mirror, hf_str(key), &read, &error) != HF_OK) {
    printf("error=%s\n", hf_error_text(error));
    hf_error_free(error);
    return;
  }
  {
    const hf_freshness fresh = hf_read_freshness(read);
    const hf_bytes value =
        hf_read_size(read) == 1 ? hf_read_entry(read, 0).value : hf_str("(none)");
    printf("rev=%" PRIu64 " age=%.3fs proof=%s source=%s value=%.*s\n", fresh.revision,
           (double)fresh.max_age_ns / 1e9, hf_proof_name((hf_proof)fresh.proof),
           hf_source_name((hf_source)fresh.source), (int)value.size, value.data);
  }
  hf_read_free(read);
}

int main(int argc, char** argv) {
  hf_observer observer = {NULL, on_state, NULL, NULL, NULL};
  hf_open_options options = {NULL, NULL, 0};
  hf_client* client = NULL;
  hf_error* error = NULL;
  char* config;
  struct timespec pause;
  long ms;
  if (argc != 5 || (config = config_of(argv[1], argv[2], argv[3])) == NULL) {
    fprintf(stderr, "usage: %s HOST:PORT[,HOST:PORT...] /DIRECTORY/KEY CACHE_DIR MILLISECONDS\n",
            argv[0]);
    return 2;
  }
  options.observer = &observer;
  if (hf_open(config, &options, &client, &error) != HF_OK) {
    fprintf(stderr, "%s\n", hf_error_text(error));
    hf_error_free(error);
    free(config);
    return 1;
  }
  free(config);
  ms = atol(argv[4]);
  pause.tv_sec = ms / 1000;
  pause.tv_nsec = ms % 1000 * 1000000;
  for (;;) {
    print_once(hf_mirror_of(client, hf_str(argv[2])), argv[2]);
    fflush(stdout);
    if (nanosleep(&pause, NULL) != 0) break;
  }
  hf_close(client);
  return 0;
}
