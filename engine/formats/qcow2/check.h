// Checks and repairs the metadata of a qcow2 image: what `qemu-img check` does, and more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/formats/qcow2/header.h"
#include "engine/formats/qcow2/l2_batch.h"
#include "engine/formats/qcow2/refcount_map.h"
#include "engine/io/file.h"
#include "engine/runtime/ready_queue.h"
#include "engine/runtime/task.h"

namespace gabion::qcow2 {

enum class Repair : uint8_t {
  kNone,   // nothing is written
  kLeaks,  // refcounts that are too high are lowered
  kAll,    // refcounts become what was counted, and what follows from them is set right
};

enum class FindingKind : uint8_t {
  kLeak,               // a refcount above the number of references: lost space
  kRefcountTooLow,     // a refcount below it: the cluster could be given away
  kRefcountOverflow,   // more references than a refcount can count
  kRefcountStructure,  // an entry of the refcount table, or a refcount block
  kOverlap,            // a cluster of metadata that something else refers to, too
  kPastEnd,            // a reference to what the file does not have
  kL1Entry,
  kL2Entry,
  kCopiedFlag,  // says "refcount is 1" and it is not, or the reverse
  kSnapshotTable,
  kBitmaps,
  kUnreadable,  // an error of the file
};

// For people and logs: "leak", "refcount too low", ...
std::string_view NameOf(FindingKind kind);

// A plain value.
struct Finding {
  FindingKind kind = FindingKind::kLeak;
  std::optional<uint64_t> host_offset;   // bytes from the start of the file
  std::optional<uint64_t> guest_offset;  // bytes from the start of the disk
  std::string text;                      // one sentence
};

struct CheckProgress {
  uint64_t done = 0;   // of `total`; never goes back
  uint64_t total = 0;  // clusters of the file, times how often each is visited; may grow
};

// Told how a check goes on. Owned by whoever asks for the check; called on the file's shard.
class CheckObserver {
 public:
  virtual ~CheckObserver() = default;
  // False: stop soon, with kCancelled.
  virtual bool OnProgress(const CheckProgress& progress) = 0;
};

struct CheckOptions {
  Repair repair = Repair::kNone;
  // Whose other coroutines get a turn between two pieces of work; null: only where the file waits.
  runtime::ReadyQueue* ready = nullptr;
  std::size_t max_findings = 100;  // that are kept; all are counted
  // Bounds of memory; smaller ones cost time.
  uint64_t window_clusters = RefcountMap::kDefaultWindow;
  std::size_t batch_tables = L2Batch::kDefaultCapacity;
};

// A file of more windows of clusters than this is not checked: kResourceExhausted.
inline constexpr uint64_t kMaxCheckWindows = 64;

// The findings of one look at the image. A plain value. Kinds: kLeak counts as a leak, kUnreadable
// as a check error, everything else as a corruption.
struct Findings {
  uint64_t corruptions = 0;
  uint64_t leaks = 0;
  uint64_t check_errors = 0;
  std::vector<Finding> list;
  uint64_t left_out = 0;  // not in `list`, which is full
  bool clean() const { return corruptions == 0 && leaks == 0 && check_errors == 0; }
};

// A plain value; the fields that `qemu-img check --output=json` has are named as there.
struct CheckResult {
  uint64_t corruptions = 0;  // that there are now, after repairs
  uint64_t leaks = 0;
  uint64_t check_errors = 0;
  uint64_t corruptions_fixed = 0;
  uint64_t leaks_fixed = 0;
  uint64_t image_end_offset = 0;  // bytes: end of the last cluster in use
  uint64_t total_clusters = 0;    // of the disk
  uint64_t allocated_clusters = 0;
  uint64_t fragmented_clusters = 0;
  uint64_t compressed_clusters = 0;
  std::vector<Finding> findings;  // what is wrong now
  uint64_t findings_left_out = 0;
  std::vector<Finding> repaired_findings;  // what was wrong before the repair; empty without one
  uint64_t repaired_findings_left_out = 0;
  Header header;  // as it is in the file now
};

// Checks the image in `file`, and repairs it if that is asked. `header` comes from ParseHeader().
// Nothing else may change the file meanwhile. `observer` may be null. All three outlive the task,
// which runs on the shard of `file`.
//
// Memory is bounded by the options (about 130 MiB by default, for the largest images), time by the
// size of the file: tables that are referred to a thousand times are read once.
//
// Repairs are those of `qemu-img check -r`, and stay on the safe side of it:
// - Entries that point nowhere valid stay as they are and are reported; only a preallocated zero
//   cluster at an impossible place becomes a zero cluster without one, which reads the same.
// - While the snapshot table, a snapshot or the bitmap directory cannot be read, no refcount is
//   lowered, since what they refer to is not known; after an error of the file nothing is repaired.
// - Refcounts that are unusable are made anew behind the end of the file, unless an entry refers to
//   that place: what it leads to must go on being an error, and not become zeros.
// - Entries in tables that something else uses, too, are not written.
// - kLeaks does not lower refcounts while an L1 entry cannot be followed, for the same reason.
// - Bits "dirty" and "corrupt" are cleared when nothing is left, not before.
//
// Errors: kCancelled by the observer; kUnimplemented, naming it, for a feature that is not
// supported; kPermissionDenied to repair a file that is read-only; kResourceExhausted: more
// clusters than kMaxCheckWindows windows; what the file answers to a write or sync.
Task<absl::StatusOr<CheckResult>> CheckImage(io::File& file, const Header& header,
                                             const CheckOptions& options, CheckObserver* observer);

// Sets the refcounts of an image with lazy refcounts that was not closed, and the flags that say
// that a refcount is 1, then clears the dirty bit. `header` is updated to what is in the file then.
// `options.repair` is ignored; `result` may be null. kDataLoss, with the refcounts as right as they
// could be made and the bit still set, if some of them are still wrong or the image could not be
// read; other errors as CheckImage().
Task<absl::Status> RebuildRefcounts(io::File& file, Header& header, const CheckOptions& options,
                                    CheckObserver* observer, CheckResult* result = nullptr);

}  // namespace gabion::qcow2
