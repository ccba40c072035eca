#include "engine/formats/qcow2/check_context.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace gabion::qcow2 {

Task<absl::Status> CheckContext::Pause() {
  if (options.ready != nullptr) co_await options.ready->Yield();
  if (observer == nullptr) co_return absl::OkStatus();
  progress.total = std::max(progress.total, progress.done);
  if (!observer->OnProgress(progress)) co_return absl::CancelledError("the check was stopped");
  co_return absl::OkStatus();
}

void CheckContext::ReportUnreadable(uint64_t offset, const absl::Status& status) {
  ++read_errors;
  Report(FindingKind::kUnreadable, offset, std::nullopt,
         [&] { return absl::StrCat("cannot be read: ", std::string(status.message())); });
}

std::string_view NameOf(FindingKind kind) {
  switch (kind) {
    case FindingKind::kLeak:
      return "leak";
    case FindingKind::kRefcountTooLow:
      return "refcount too low";
    case FindingKind::kRefcountOverflow:
      return "refcount overflow";
    case FindingKind::kRefcountStructure:
      return "refcount structure";
    case FindingKind::kOverlap:
      return "overlap";
    case FindingKind::kPastEnd:
      return "past the end";
    case FindingKind::kL1Entry:
      return "L1 entry";
    case FindingKind::kL2Entry:
      return "L2 entry";
    case FindingKind::kCopiedFlag:
      return "copied flag";
    case FindingKind::kSnapshotTable:
      return "snapshot table";
    case FindingKind::kBitmaps:
      return "bitmaps";
    case FindingKind::kUnreadable:
      return "unreadable";
  }
  return "unknown";
}

}  // namespace gabion::qcow2
