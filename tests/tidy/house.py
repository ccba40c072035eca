"""The numbers and tables of the house: what tests/tidy/rules.py enforces. An exception needs a reason."""

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 70
MAX_COLUMNS = 100

TOP_LEVEL = {"CMakeLists.txt", "CMakePresets.json", "README.md", "LICENSE",
             "proto", "service", "engine", "deploy", "helm", "tests"}

# Who may know whom: for each folder, what its files may include of our own tree, besides the folder itself. The most
# specific folder counts. A pattern that ends in / is everything below it; otherwise it is a regular expression of the
# whole path. engine/README.md has the same table in prose.
_BASE = ["engine/base/"]
_TASK = [r"engine/runtime/(task|task_set|turnstile|clock|ready_queue|event)\.h"]
MAY_INCLUDE = {
    "engine/base": [],
    "engine/runtime": _BASE,
    "engine/io": _BASE + ["engine/runtime/"],
    "engine/block": _BASE + _TASK,
    "engine/filters": _BASE + _TASK + ["engine/block/", r"engine/runtime/worker_pool\.h", "engine/filters/partitions/",
                                       "engine/filters/verity/"],
    "engine/filters/partitions": _BASE,
    "engine/filters/verity": _BASE,
    "engine/formats": _BASE + ["engine/runtime/", "engine/block/", r"engine/io/file\.h"],
    "engine/formats/qcow2": _BASE + ["engine/runtime/", "engine/block/", r"engine/io/file\.h"],
    "engine/nbd/protocol": _BASE,
    "engine/nbd/server": _BASE + ["engine/runtime/", "engine/block/", "engine/nbd/protocol/", r"engine/io/stream\.h"],
    "engine/nbd/client": _BASE + ["engine/runtime/", "engine/block/", "engine/nbd/protocol/", r"engine/io/stream\.h"],
    "engine/jobs": _BASE + ["engine/runtime/", "engine/block/"],
    "engine": ["engine/"],  # the files directly in it; a folder below needs a row of its own
    # The base is vocabulary (units, text, status macros), and engine.h speaks it.
    "service": _BASE + [r"engine/(engine|inspect)\.h", r"engine/.*options\.h", r"engine/filters/\w*\.h"],
    "service/csi": [],
    "service/ctl": [],
}

# Folders in which no file may include a neighbour: only the header of its own name, and the one that all share.
NO_NEIGHBOURS = {"engine/filters": "engine/filters/filter.h"}

# Libraries from outside, by the first part of the include path: where they may appear (patterns of our paths).
OUTSIDE = {
    "asio.hpp": [r"engine/runtime/reactor\.(h|cc)", r"engine/io/(asio_\w+|tls_stream)\.(h|cc)", "tests/"],
    "asio": [r"engine/runtime/reactor\.(h|cc)", r"engine/io/(asio_\w+|tls_stream)\.(h|cc)", "tests/"],
    "liburing.h": [r"engine/io/ring\.(h|cc)", "tests/"],
    "zlib.h": [r"engine/formats/qcow2/compression\.(h|cc)", "tests/"],
    "zstd.h": [r"engine/formats/qcow2/compression\.(h|cc)", "tests/"],
    "zstd_errors.h": [r"engine/formats/qcow2/compression\.(h|cc)", "tests/"],
    "openssl": ["engine/io/", r"engine/(filters/luks|filters/verity/hasher|luks_header)\.cc", "service/", "tests/"],
    "libcryptsetup.h": [r"engine/luks_header\.cc", "tests/"],
    "json-c": [r"engine/luks_metadata\.cc"],
    "sqlite3.h": ["service/store/", "tests/"],
    "grpc": ["service/", "tests/service/", "tests/e2e/", "tests/bench/load/"],
    "grpcpp": ["service/", "tests/service/", "tests/e2e/", "tests/bench/load/"],
    "google": ["service/", "tests/service/", "tests/e2e/", "tests/fuzz/", "tests/bench/load/"],
    "gabion": ["service/", "tests/service/", "tests/e2e/", "tests/fuzz/", "tests/bench/load/"],
}

# The operating system's own headers (files, sockets, polling): not for the parts that know no files and no sockets.
OS_HEADERS = r"(sys|linux|netinet|arpa|net)/.*|fcntl\.h|unistd\.h|poll\.h|aio\.h|dirent\.h|netdb\.h|pthread\.h"
OS_HEADERS_IN = ["engine/runtime/", "engine/io/", r"engine/[^/]*", "service/", "tests/"]

# Libraries that a CMake target of the engine must never link.
NOT_LINKED_BY_ENGINE = r"gRPC::.*|protobuf.*|gabion_proto.*|gabion_service.*|.*sqlite.*"

# What does not occur in engine/: name -> regular expression over code without comments and literals.
FORBIDDEN_IN_ENGINE = {
    "throw": r"\bthrow\b",
    "mutex": r"\b(std::\w*mutex|absl::Mutex|pthread_mutex_t|std::condition_variable\w*)\b",
    "thread": r"\bstd::(jthread|thread|async)\b(?!::id)|\bpthread_create\b",
    "shared_ptr": r"\b(shared_ptr|make_shared)\b",
    "std::function": r"\bstd::function\b",
    "sleep": r"\b(sleep_for|sleep_until|u?sleep|nanosleep|clock_nanosleep)\s*\(",
    "wall clock": r"\b(system_clock|high_resolution_clock|gettimeofday|CLOCK_REALTIME|absl::Now|std::time|localtime(_r)?|gmtime(_r)?)\b",
}

# (path, name of the rule or of the forbidden thing): reason. One that is no longer needed fails the test.
EXCEPTIONS = {
    ("engine/home.cc", "wall clock"): "when a client connected is told to people; nothing is decided by it",
    ("engine/runtime/shard.h", "thread"): "a shard is the one thread that everything on it runs on",
    ("engine/runtime/shard.cc", "thread"): "starts the shard's thread",
    ("engine/runtime/worker_pool.h", "thread"): "threads for calls that block are what it is",
    ("engine/shared_states.h", "mutex"): "exports of all shards find what their filters share here; not requests",
    ("engine/runtime/worker_pool.h", "mutex"): "guards the queue that any thread posts to and workers take from",
    ("engine/filters/fault.cc", "mutex"): "rules that shards share count one request after the other; never held across I/O",
    ("engine/filters/throttle.cc", "mutex"): "guards which budgets are in use; requests only read a number",
    ("engine/runtime/mailbox.h", "mutex"): "other threads post to a shard here; held for a push or a swap only",
}

# Words that a finished tree does not contain. Written in pieces, so that this file does not contain them either.
FORBIDDEN_WORDS = [r"\bTO" r"DO\b", r"\bFIX" r"ME\b", r"\bXX" r"X\b", r"/wor" r"k/", r"\bissue" r" #?\d"]
