// What the parts of one check share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "engine/formats/qcow2/check.h"
#include "engine/formats/qcow2/geometry.h"
#include "engine/formats/qcow2/header.h"
#include "engine/formats/qcow2/refcount_map.h"
#include "engine/formats/qcow2/table_file.h"
#include "engine/runtime/task.h"

namespace gabion::qcow2 {

// What one look at the image found, with what decides about repairs. A plain value.
struct Inspection {
  Findings findings;
  uint64_t highest_cluster = 0;  // in use
  uint64_t allocated_clusters = 0;
  uint64_t fragmented_clusters = 0;
  uint64_t compressed_clusters = 0;

  uint64_t low_refcounts = 0;  // below what was counted
  uint64_t wrong_copied_flags = 0;
  uint64_t mendable_entries = 0;    // see EntryMender
  bool unusable_structure = false;  // refcount table or blocks: they must be made anew
  bool unknown_references = false;  // a table of tables cannot be read
  bool unfollowed_entries = false;  // L1 entries that point nowhere valid
  // The lowest offset of a reference that passes the end of the file.
  uint64_t past_end = std::numeric_limits<uint64_t>::max();
  // Tables that are something else, too, so that writing entries would harm that.
  bool active_l1_shared = false;
  std::vector<uint64_t> shared_l2;  // offsets, ascending; at most kMaxSharedTables
  bool too_many_shared = false;
};
inline constexpr std::size_t kMaxSharedTables = 1024;

// Owned by the check; its parts refer to it.
struct CheckContext {
  CheckContext(io::File& io_file, const Header& image_header, const CheckOptions& check_options,
               CheckObserver* check_observer)
      : file(io_file),
        header(image_header),
        geometry(image_header),
        options(check_options),
        observer(check_observer) {
    Resized();
  }

  // The file has another length now.
  void Resized() { file_clusters = geometry.Clusters(file.size()); }

  // Lets others run; kCancelled if the observer says so.
  Task<absl::Status> Pause();
  // `clusters` more of the file are done in this pass.
  void Advance(uint64_t clusters) { progress.done += clusters; }

  // True if the cluster-sized table at `offset` can be read: aligned, and begins inside the file.
  bool TableFits(uint64_t offset) const {
    return geometry.InCluster(offset) == 0 && geometry.ClusterOf(offset) < file_clusters;
  }

  // Counts a finding, and keeps it with the text that `text()` makes if there is room. Does nothing
  // while nothing is being inspected.
  template <typename Text>
  void Report(FindingKind kind, std::optional<uint64_t> host, std::optional<uint64_t> guest,
              Text text) {
    if (found == nullptr) return;
    Findings& findings = found->findings;
    switch (kind) {
      case FindingKind::kLeak:
        ++findings.leaks;
        break;
      case FindingKind::kUnreadable:
        ++findings.check_errors;
        break;
      default:
        ++findings.corruptions;
    }
    if (findings.list.size() < options.max_findings) {
      findings.list.push_back({kind, host, guest, text()});
    } else {
      ++findings.left_out;
    }
  }

  // A range of the file could not be read. Counts in `read_errors` always.
  void ReportUnreadable(uint64_t offset, const absl::Status& status);

  TableFile file;
  Header header;
  const Geometry geometry;
  const CheckOptions options;
  CheckObserver* const observer;
  uint64_t file_clusters = 0;
  CheckProgress progress;
  uint64_t read_errors = 0;
  Inspection* found = nullptr;  // where findings go; null in passes that only count or repair
};

}  // namespace gabion::qcow2
