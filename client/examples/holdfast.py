"""Holdfast for Python: the C interface (holdfast/holdfast.h) by ctypes, without any package.

    import holdfast

    client = holdfast.Client(
        endpoints=["10.0.0.1:2379", "10.0.0.2:2379", "10.0.0.3:2379"],
        prefixes=[{"prefix": "/config/edge/", "policy": "fail-static"}],
    )
    read = client.mirror("/config/edge/").get("/config/edge/limits")
    print(read.value, read.freshness())

Keys are str or bytes, values bytes. Every method may be called by any thread; reads of a mirror
never wait for the network. A client belongs to the process that opened it: after fork() (and so in
each worker of multiprocessing) open a new one. Callbacks run on threads of the library's own, must
be quick, and must not call into the client.

The fields of a configuration are listed in docs/c-api.md. The library is looked for as
$HOLDFAST_LIBRARY, then by its SONAME, which is of the version that this module was written for.
"""

import ctypes
import json
import os
from ctypes import (
    CFUNCTYPE, POINTER, Structure, byref, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint64,
    c_void_p,
)

SONAME = "libholdfast.so.0.5"

ANY_AGE = 2**64 - 1  # of an option in ms
_UNKNOWN_AGE = 2**64 - 1
_TOKEN_SIZE = 64


class _Bytes(Structure):
    _fields_ = [("data", c_void_p), ("size", c_size_t)]

    def get(self):
        return ctypes.string_at(self.data, self.size) if self.size else b""


class _Freshness(Structure):
    _fields_ = [("max_age_ns", c_uint64), ("revision", c_uint64), ("proof", c_int32),
                ("source", c_int32), ("grade", c_int32), ("superseded", c_int32)]


class _Entry(Structure):
    _fields_ = [("key", _Bytes), ("value", _Bytes), ("create_revision", c_uint64),
                ("mod_revision", c_uint64), ("version", c_uint64), ("lease", c_int64)]


class _ReadOptions(Structure):
    _fields_ = [("level", c_int), ("max_age_ms", c_uint64), ("token", c_char_p),
                ("or_stale_ms", c_uint64), ("deadline_ms", c_uint64), ("max_entries", c_uint64)]


class _WriteResult(Structure):
    _fields_ = [("revision", c_uint64), ("deleted", c_int64), ("attempts", c_int32),
                ("applied", c_int32), ("deduplicated", c_int32), ("reserved", c_int32),
                ("token", ctypes.c_char * _TOKEN_SIZE)]


class _Status(Structure):
    _fields_ = [("fresh", _Freshness), ("records", c_uint64), ("bytes", c_uint64),
                ("refused_revision", c_uint64), ("updates", c_uint64), ("rejections", c_uint64),
                ("loads", c_uint64), ("resumes", c_uint64), ("link", c_int32),
                ("overridden", c_int32)]


class _StateChange(Structure):
    _fields_ = [("prefix", _Bytes), ("from_", c_int32), ("to", c_int32), ("max_age_ns", c_uint64),
                ("proof", c_int32), ("code", c_int32), ("why", c_char_p)]


class _Rejection(Structure):
    _fields_ = [("prefix", _Bytes), ("revision", c_uint64), ("code", c_int32), ("why", c_char_p)]


_ON_STATE = CFUNCTYPE(None, c_void_p, POINTER(_StateChange))
_ON_REJECTED = CFUNCTYPE(None, c_void_p, POINTER(_Rejection))
_ON_WRITTEN = CFUNCTYPE(None, c_void_p, _Bytes, c_uint64)
_ON_DISK = CFUNCTYPE(None, c_void_p, _Bytes, c_char_p)
_VALIDATE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, POINTER(ctypes.c_char), c_size_t)
_SCAN = CFUNCTYPE(c_int, c_void_p, POINTER(_Entry))


class _Observer(Structure):
    _fields_ = [("context", c_void_p), ("on_state", _ON_STATE), ("on_rejected", _ON_REJECTED),
                ("on_last_good_written", _ON_WRITTEN), ("on_disk_problem", _ON_DISK)]


class _Validator(Structure):
    _fields_ = [("prefix", _Bytes), ("validate", _VALIDATE), ("context", c_void_p)]


class _OpenOptions(Structure):
    _fields_ = [("observer", POINTER(_Observer)), ("validators", POINTER(_Validator)),
                ("validators_size", c_size_t)]


def _load():
    lib = ctypes.CDLL(os.environ.get("HOLDFAST_LIBRARY") or SONAME)
    error, write = POINTER(c_void_p), POINTER(_WriteResult)
    for name, result, arguments in [
        ("version", c_char_p, []),
        ("proof_name", c_char_p, [c_int]),
        ("source_name", c_char_p, [c_int]),
        ("grade_name", c_char_p, [c_int]),
        ("link_name", c_char_p, [c_int]),
        ("code_name", c_char_p, [c_int]),
        ("string_free", None, [c_void_p]),
        ("error_code", c_int, [c_void_p]),
        ("error_text", c_char_p, [c_void_p]),
        ("error_maybe_committed", c_int, [c_void_p]),
        ("error_retry_after_ms", c_int64, [c_void_p]),
        ("error_best_available", c_int, [c_void_p, POINTER(_Freshness)]),
        ("error_free", None, [c_void_p]),
        ("open", c_int, [c_char_p, POINTER(_OpenOptions), POINTER(c_void_p), error]),
        ("close", None, [c_void_p]),
        ("state", c_int, [c_void_p, _Bytes]),
        ("dump", c_void_p, [c_void_p]),
        ("metrics", c_void_p, [c_void_p]),
        ("read_size", c_size_t, [c_void_p]),
        ("read_entry", _Entry, [c_void_p, c_size_t]),
        ("read_freshness", _Freshness, [c_void_p]),
        ("read_free", None, [c_void_p]),
        ("get", c_int, [c_void_p, _Bytes, POINTER(_ReadOptions), POINTER(c_void_p), error]),
        ("scan", c_int, [c_void_p, _Bytes, POINTER(_ReadOptions), POINTER(c_void_p), error]),
        ("put", c_int, [c_void_p, _Bytes, _Bytes, c_uint64, write, error]),
        ("put_if", c_int, [c_void_p, _Bytes, _Bytes, c_uint64, c_uint64, write, error]),
        ("delete", c_int, [c_void_p, _Bytes, c_uint64, write, error]),
        ("delete_prefix", c_int, [c_void_p, _Bytes, c_uint64, write, error]),
        ("resolve", c_int, [c_void_p, c_void_p, c_uint64, write, error]),
        ("mirror_of", c_void_p, [c_void_p, _Bytes]),
        ("mirror_get", c_int, [c_void_p, _Bytes, POINTER(c_void_p), error]),
        ("mirror_scan", c_int, [c_void_p, _Bytes, POINTER(c_void_p), error]),
        ("mirror_wait_fresh", c_int, [c_void_p, c_uint64, c_uint64, error]),
        ("mirror_wait_for", c_int, [c_void_p, c_char_p, c_uint64, error]),
        ("mirror_mark_good", None, [c_void_p, c_uint64]),
        ("mirror_mark_accepted", None, [c_void_p, c_uint64]),
        ("mirror_get_status", None, [c_void_p, POINTER(_Status)]),
        ("mirror_refused_why", c_void_p, [c_void_p]),
        ("snapshot_scan", None, [c_void_p, _Bytes, _SCAN, c_void_p]),
    ]:
        function = getattr(lib, "hf_" + name)
        function.restype, function.argtypes = result, arguments
    return lib


_lib = _load()


def version():
    return _lib.hf_version().decode()


class Error(Exception):
    """code: "UNAVAILABLE" and so on (holdfast/holdfast.h); str(): what happened and what to do."""

    def __init__(self, handle):
        super().__init__(_lib.hf_error_text(handle).decode(errors="replace"))
        self._handle = handle
        self.code = _lib.hf_code_name(_lib.hf_error_code(handle)).decode()
        self.maybe_committed = bool(_lib.hf_error_maybe_committed(handle))
        after = _lib.hf_error_retry_after_ms(handle)
        self.retry_after = None if after < 0 else after / 1000

    def best_available(self):
        """The Freshness that a looser bound would have been given, or None."""
        fresh = _Freshness()
        if not _lib.hf_error_best_available(self._handle, byref(fresh)):
            return None
        return Freshness(fresh)

    def __del__(self):
        _lib.hf_error_free(self._handle)


class Freshness:
    """How old something is at most: max_age in seconds (None: unknown), proof, source, grade."""

    def __init__(self, c):
        self.max_age = None if c.max_age_ns == _UNKNOWN_AGE else c.max_age_ns / 1e9
        self.revision = c.revision
        self.proof = _lib.hf_proof_name(c.proof).decode()
        self.source = _lib.hf_source_name(c.source).decode()
        self.grade = _lib.hf_grade_name(c.grade).decode()
        self.superseded = bool(c.superseded)

    def __repr__(self):
        age = "unknown" if self.max_age is None else f"{self.max_age:.3f}s"
        return f"<age {age}, {self.proof}, from {self.source}, revision {self.revision}>"


class Entry:
    def __init__(self, c):
        self.key, self.value = c.key.get(), c.value.get()
        self.create_revision, self.mod_revision = c.create_revision, c.mod_revision
        self.version, self.lease = c.version, c.lease


class Read:
    """The records that a read found. freshness() is as of its call: it grows meanwhile."""

    def __init__(self, handle):
        self._handle = handle
        size = _lib.hf_read_size(handle)
        self.entries = [Entry(_lib.hf_read_entry(handle, i)) for i in range(size)]

    @property
    def value(self):
        """Of a get: the value, or None if the key does not exist."""
        return self.entries[0].value if self.entries else None

    def freshness(self):
        return Freshness(_lib.hf_read_freshness(self._handle))

    def __del__(self):
        _lib.hf_read_free(self._handle)


class Written:
    """What a write did; token goes to read options of this process or another."""

    def __init__(self, c):
        self.revision, self.deleted, self.attempts = c.revision, c.deleted, c.attempts
        self.applied, self.deduplicated = bool(c.applied), bool(c.deduplicated)
        self.token = c.token.decode()


class Mirror:
    """This process's copy of one prefix. Lives as long as its client."""

    def __init__(self, client, handle):
        self._client, self._handle = client, handle  # the client is kept open by this

    def get(self, key):
        return _read(_lib.hf_mirror_get, self._handle, _bytes(key))

    def scan(self, prefix):
        return _read(_lib.hf_mirror_scan, self._handle, _bytes(prefix))

    def wait_fresh(self, max_age, timeout):
        _call(_lib.hf_mirror_wait_fresh, self._handle, _ms(max_age), _ms(timeout))

    def wait_for(self, token, timeout):
        _call(_lib.hf_mirror_wait_for, self._handle, token.encode(), _ms(timeout))

    def mark_good(self, revision):
        _lib.hf_mirror_mark_good(self._handle, revision)

    def mark_accepted(self, revision):
        _lib.hf_mirror_mark_accepted(self._handle, revision)

    def status(self):
        c = _Status()
        _lib.hf_mirror_get_status(self._handle, byref(c))
        status = {name: getattr(c, name) for name, _ in _Status._fields_[1:]}
        status["fresh"] = Freshness(c.fresh)
        status["link"] = _lib.hf_link_name(c.link).decode()
        status["refused_why"] = _text(_lib.hf_mirror_refused_why(self._handle))
        return status


class Client:
    """Keyword arguments are the fields of the configuration, and:

    on_state(prefix, old, new, why)       how a prefix stands to the store has changed
    on_rejected(prefix, revision, why)    new data was refused; the data before it is still served
    validators={prefix: function}         function(after), a dict of key to value, all of the prefix:
                                          raises an exception to refuse it
    """

    def __init__(self, on_state=None, on_rejected=None, validators=None, **config):
        self._handle = None
        self._alive = []  # what the library points into
        handle, options = c_void_p(), _OpenOptions()
        if on_state or on_rejected:
            options.observer = ctypes.pointer(self._observer(on_state, on_rejected))
        if validators:
            options.validators = (_Validator * len(validators))(
                *[self._validator(prefix, check) for prefix, check in validators.items()])
            options.validators_size = len(validators)
        self._alive.append(options)
        _call(_lib.hf_open, json.dumps(config).encode(), byref(options), byref(handle))
        self._handle = handle

    def close(self):
        handle, self._handle = self._handle, None
        if handle is not None:
            _lib.hf_close(handle)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    def __del__(self):
        self.close()

    def get(self, key, **options):
        """options: level ("linearizable", "bounded", "at-least", "local"), max_age, or_stale,
        deadline (seconds; ANY_AGE), token, max_entries."""
        return _read(_lib.hf_get, self._handle, _bytes(key), _options(**options))

    def scan(self, prefix, **options):
        return _read(_lib.hf_scan, self._handle, _bytes(prefix), _options(**options))

    def put(self, key, value, deadline=0):
        return _write(_lib.hf_put, self._handle, _bytes(key), _bytes(value), _ms(deadline))

    def put_if(self, key, value, mod_revision, deadline=0):
        """Only if the key was last written at that revision (0: if it does not exist):
        .applied says whether."""
        return _write(_lib.hf_put_if, self._handle, _bytes(key), _bytes(value), mod_revision,
                      _ms(deadline))

    def delete(self, key, deadline=0):
        return _write(_lib.hf_delete, self._handle, _bytes(key), _ms(deadline))

    def delete_prefix(self, prefix, deadline=0):
        return _write(_lib.hf_delete_prefix, self._handle, _bytes(prefix), _ms(deadline))

    def resolve(self, error, deadline=0):
        """The outcome of the write that ended in this Error with .maybe_committed."""
        return _write(_lib.hf_resolve, self._handle, error._handle, _ms(deadline))

    def mirror(self, key_or_prefix):
        """None: the key lies in no mirrored prefix."""
        handle = _lib.hf_mirror_of(self._handle, _bytes(key_or_prefix))
        return None if handle is None else Mirror(self, handle)

    def state(self, key_or_prefix):
        return _lib.hf_link_name(_lib.hf_state(self._handle, _bytes(key_or_prefix))).decode()

    def dump(self):
        return _text(_lib.hf_dump(self._handle))

    def metrics(self):
        return _text(_lib.hf_metrics(self._handle))

    def _observer(self, on_state, on_rejected):
        def state(_, change):
            c = change.contents
            on_state(c.prefix.get().decode(), _lib.hf_link_name(c.from_).decode(),
                     _lib.hf_link_name(c.to).decode(), c.why.decode(errors="replace"))

        def rejected(_, rejection):
            c = rejection.contents
            on_rejected(c.prefix.get().decode(), c.revision, c.why.decode(errors="replace"))

        observer = _Observer()
        if on_state:
            observer.on_state = _ON_STATE(state)
        if on_rejected:
            observer.on_rejected = _ON_REJECTED(rejected)
        self._alive.append(observer)
        return observer

    def _validator(self, prefix, check):
        def validate(_, before, after, why, why_size):
            try:
                check(_dict(after))
                return 0
            except Exception as refusal:  # whatever it is, it is no reason to serve the set
                text = (str(refusal) or type(refusal).__name__).encode()[:why_size - 1]
                ctypes.memmove(why, text + b"\0", len(text) + 1)
                return 1

        validator = _Validator(_bytes(prefix), _VALIDATE(validate), None)
        self._alive.append(validator)
        return validator


_LEVELS = {"linearizable": 0, "bounded": 1, "at-least": 2, "local": 3}


def _bytes(text):
    data = text.encode() if isinstance(text, str) else bytes(text)
    c = _Bytes(ctypes.cast(c_char_p(data), c_void_p), len(data))
    c.keep = data  # until the call has returned
    return c


def _ms(seconds):
    return ANY_AGE if seconds == ANY_AGE else max(0, round(seconds * 1000))


def _options(level="linearizable", max_age=0, token=None, or_stale=0, deadline=0, max_entries=0):
    return byref(_ReadOptions(_LEVELS[level], _ms(max_age), token.encode() if token else None,
                              _ms(or_stale), _ms(deadline), max_entries))


def _call(function, *arguments):
    error = c_void_p()
    if function(*arguments, byref(error)) != 0:
        raise Error(error)


def _read(function, *arguments):
    read = c_void_p()
    _call(function, *arguments, byref(read))
    return Read(read)


def _write(function, *arguments):
    result = _WriteResult()
    _call(function, *arguments, byref(result))
    return Written(result)


def _text(pointer):
    text = ctypes.string_at(pointer).decode(errors="replace")
    _lib.hf_string_free(pointer)
    return text


def _dict(snapshot):
    records = {}

    def visit(_, entry):
        records[entry.contents.key.get()] = entry.contents.value.get()
        return 1

    _lib.hf_snapshot_scan(snapshot, _Bytes(None, 0), _SCAN(visit), None)
    return records
