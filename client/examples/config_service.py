#!/usr/bin/env python3
"""A service that goes on reading its configuration, whatever happens to the store.

    config_service.py 127.0.0.1:2379,127.0.0.1:22379 /config/edge/limits /var/lib/edge [SECONDS]

Stop the servers, all of them; stop this program and start it again meanwhile: it goes on. What
stands in the line is how old the value is at most, what that rests on, and where it came from.
"""

import sys
import time

import holdfast


def main():
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    endpoints, key, cache = sys.argv[1].split(","), sys.argv[2], sys.argv[3]
    interval = float(sys.argv[4]) if len(sys.argv) == 5 else 1.0
    prefix = key[:key.rindex("/") + 1]

    def check(records):
        if key.encode() not in records:
            raise ValueError(f"{key} is missing: this service cannot run without it")

    with holdfast.Client(
        endpoints=endpoints,
        name="config_service.py",
        disk_dir=cache,
        prefixes=[{"prefix": prefix, "policy": "fail-static"}],
        validators={prefix: check},
        on_state=lambda prefix, old, new, why: print(f"{prefix} {old} -> {new} {why}", flush=True),
        on_rejected=lambda prefix, revision, why: print(f"refused {revision}: {why}", flush=True),
    ) as client:
        config = client.mirror(prefix)
        while True:
            read = config.get(key)
            print(f"value={read.value.decode()} {read.freshness()}", flush=True)
            time.sleep(interval)


if __name__ == "__main__":
    try:
        main()
    except holdfast.Error as error:
        sys.exit(f"{error.code}: {error}")
    except KeyboardInterrupt:
        pass
