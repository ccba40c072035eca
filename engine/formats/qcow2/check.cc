#include "engine/formats/qcow2/check.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/formats/qcow2/check_context.h"
#include "engine/formats/qcow2/header_repair.h"
#include "engine/formats/qcow2/refcount_rebuild.h"
#include "engine/formats/qcow2/refcount_tables.h"
#include "engine/formats/qcow2/references.h"
#include "engine/formats/qcow2/table_repair.h"
#include "engine/formats/qcow2/table_walk.h"

namespace gabion::qcow2 {
namespace {

constexpr uint64_t kKnownAutoclear = kAutoclearBitmaps | kAutoclearRawDataFile;

// A table that could be read, and cannot be now, in the middle of a repair: better to stop.
absl::Status Unreadable() { return absl::DataLossError("a table cannot be read"); }

// What one look at the image has learned about where its tables are.
struct Tables {
  explicit Tables(CheckContext& context)
      : walk(context), references(context, walk), refcounts(context) {}
  TableWalk walk;
  References references;
  RefcountTables refcounts;
};

// One check, from a first look over repairs to a second look. In a repair, so that a crash in its
// middle never leaves the image worse than it was:
// (1) Bits for features that Gabion does not know are cleared before the first other write.
// (2) Entries that are mended mean the same before and after; they are synced before a refcount is
//     lowered because of them.
// (3) Refcounts are written with what was counted, in place or by RefcountRebuild: one that is
//     raised protects a cluster, one that is lowered frees what nothing refers to.
// (4) They are synced before flags say "refcount is 1" or cease to say so: a cluster whose flag is
//     cleared while its refcount is too low would be freed by the next write.
// (5) Flags are synced before the second look; "dirty" and "corrupt" are cleared after it.
class Checker {
 public:
  Checker(io::File& file, const Header& header, const CheckOptions& options,
          CheckObserver* observer, bool refcounts_only)
      : context_(file, header, options, observer), refcounts_only_(refcounts_only) {}

  Task<absl::StatusOr<CheckResult>> Run();

 private:
  bool repairs_all() const { return refcounts_only_ || context_.options.repair == Repair::kAll; }
  bool repairs() const { return repairs_all() || context_.options.repair == Repair::kLeaks; }
  uint64_t windows() const { return context_.file_clusters / context_.options.window_clusters + 1; }
  bool WindowMatters(const Tables& tables, uint64_t window) const {
    return window == 0 ||
           ((tables.references.windows() | tables.refcounts.windows()) >> window & 1) != 0;
  }
  void ResetWindow(uint64_t window) {
    const uint64_t size = context_.options.window_clusters;
    map_.Reset(window * size, std::min(size, context_.file_clusters + 1 - window * size));
  }

  absl::Status Refuse() const;
  Task<absl::Status> Inspect(Tables& tables, Inspection& inspection);
  Task<absl::Status> InspectWindow(Tables& tables, Inspection& inspection, uint64_t window);
  Task<absl::Status> Repair(Tables& tables, const Inspection& known);
  Task<absl::Status> RepairRefcountsAndFlags(Tables& tables, const Inspection& known);
  Task<absl::Status> RepairRefcounts(Tables& tables, const Inspection& known);
  Task<absl::Status> RepairFlags(Tables& tables, const Inspection& known);
  Task<absl::Status> ClearBits(const Inspection& left);
  void FillResult(Inspection left);

  CheckContext context_;
  const bool refcounts_only_;
  RefcountMap map_;
  bool rebuilt_ = false;
  CheckResult result_;
};

absl::Status Checker::Refuse() const {
  if ((context_.header.incompatible & kIncompatibleDataFile) != 0) {
    return absl::UnimplementedError("check of an image with an external data file");
  }
  const uint64_t window = context_.options.window_clusters;
  CHECK(IsPowerOfTwo(window) && window >= 64);
  CHECK(context_.options.batch_tables > 0);
  if (windows() > kMaxCheckWindows) {
    return absl::ResourceExhaustedError(absl::StrCat("the file has ", context_.file_clusters,
                                                     " clusters, more than can be checked"));
  }
  if (repairs() && !context_.file.writable()) {
    return absl::PermissionDeniedError("the file is read-only");
  }
  return absl::OkStatus();
}

Task<absl::StatusOr<CheckResult>> Checker::Run() {
  CO_RETURN_IF_ERROR(Refuse());
  Inspection first;
  {
    Tables tables(context_);
    CO_RETURN_IF_ERROR(co_await Inspect(tables, first));
    const bool marked = context_.header.dirty() || context_.header.corrupt();
    const bool nothing = !repairs() || (first.findings.clean() && !marked);
    if (nothing || first.findings.check_errors > 0) {
      FillResult(std::move(first));
      co_return std::move(result_);
    }
    CO_RETURN_IF_ERROR(co_await Repair(tables, first));
  }
  Tables tables(context_);
  Inspection left;
  CO_RETURN_IF_ERROR(co_await Inspect(tables, left));
  CO_RETURN_IF_ERROR(co_await ClearBits(left));
  const auto fixed = [](uint64_t before, uint64_t now) { return before > now ? before - now : 0; };
  result_.corruptions_fixed = fixed(first.findings.corruptions, left.findings.corruptions);
  result_.leaks_fixed = fixed(first.findings.leaks, left.findings.leaks);
  result_.repaired_findings = std::move(first.findings.list);
  result_.repaired_findings_left_out = first.findings.left_out;
  FillResult(std::move(left));
  co_return std::move(result_);
}

Task<absl::Status> Checker::Inspect(Tables& tables, Inspection& inspection) {
  context_.progress.total += 2 * windows() * context_.file_clusters;
  context_.found = &inspection;
  absl::Status status = co_await tables.refcounts.Load();
  if (status.ok()) status = co_await tables.references.Prepare();
  for (uint64_t window = 0; status.ok() && window < windows(); ++window) {
    if (WindowMatters(tables, window)) {
      status = co_await InspectWindow(tables, inspection, window);
    } else {
      context_.Advance(2 * context_.file_clusters);
    }
  }
  context_.found = nullptr;
  co_return status;
}

Task<absl::Status> Checker::InspectWindow(Tables& tables, Inspection& inspection, uint64_t window) {
  ResetWindow(window);
  // Entries are judged once, with the first window; what cannot be read, always.
  const uint64_t errors = context_.read_errors;
  context_.found = window == 0 ? &inspection : nullptr;
  CO_RETURN_IF_ERROR(co_await tables.references.Count(map_, &tables.refcounts));
  context_.found = &inspection;
  if (window > 0) inspection.findings.check_errors += context_.read_errors - errors;
  CO_RETURN_IF_ERROR(co_await tables.refcounts.Compare(map_));
  CopiedFlags flags(context_, map_, nullptr);
  const absl::Status status = co_await tables.walk.Walk(flags, WalkScope::kActive);
  co_return status;
}

Task<absl::Status> Checker::Repair(Tables& tables, const Inspection& known) {
  if ((context_.header.autoclear & ~kKnownAutoclear) != 0) {  // (1)
    context_.header.autoclear &= kKnownAutoclear;
    CO_RETURN_IF_ERROR(co_await WriteCheckedFields(context_.file, context_.header));
    CO_RETURN_IF_ERROR(co_await context_.file.Sync());
  }
  if (!repairs_all() || refcounts_only_ || known.mendable_entries == 0) {
    const absl::Status status = co_await RepairRefcountsAndFlags(tables, known);
    co_return status;
  }
  const uint64_t errors = context_.read_errors;
  EntryMender mender(context_, known);
  CO_RETURN_IF_ERROR(co_await tables.walk.Walk(mender, WalkScope::kAll));
  CO_RETURN_IF_ERROR(co_await context_.file.Sync());  // (2)
  if (context_.read_errors > errors) co_return Unreadable();
  // What the entries pointed to may be no overlap any more.
  Tables mended(context_);
  Inspection known_now;
  CO_RETURN_IF_ERROR(co_await Inspect(mended, known_now));
  if (known_now.findings.check_errors > 0) co_return Unreadable();
  const absl::Status status = co_await RepairRefcountsAndFlags(mended, known_now);
  co_return status;
}

Task<absl::Status> Checker::RepairRefcountsAndFlags(Tables& tables, const Inspection& known) {
  CO_RETURN_IF_ERROR(co_await RepairRefcounts(tables, known));
  const absl::Status status = co_await RepairFlags(tables, known);
  co_return status;
}

Task<absl::Status> Checker::RepairRefcounts(Tables& tables, const Inspection& known) {
  const bool lower = !known.unknown_references && (repairs_all() || !known.unfollowed_entries);
  if (known.unusable_structure) {
    if (!repairs_all() || known.unknown_references) co_return absl::OkStatus();
    RefcountRebuild rebuild(context_, tables.references, map_, known.past_end);
    const absl::Status status = co_await rebuild.Run();  // (3)
    rebuilt_ = status.ok();
    // Where that is not possible, the second look says what is left.
    if (absl::IsFailedPrecondition(status)) co_return absl::OkStatus();
    co_return status;
  }
  const uint64_t errors = context_.read_errors;
  for (uint64_t window = 0; window < windows(); ++window) {
    if (!WindowMatters(tables, window)) continue;
    ResetWindow(window);
    CO_RETURN_IF_ERROR(co_await tables.references.Count(map_, &tables.refcounts));
    if (context_.read_errors > errors) co_return Unreadable();
    CO_RETURN_IF_ERROR(co_await tables.refcounts.Store(map_, repairs_all(), lower));  // (3)
  }
  const absl::Status status = co_await context_.file.Sync();  // (4)
  co_return status;
}

// With the refcounts that are stored now: where some could not be lowered, a flag must not say more
// than they do.
Task<absl::Status> Checker::RepairFlags(Tables& tables, const Inspection& known) {
  if (known.unusable_structure && !rebuilt_) co_return absl::OkStatus();
  const bool only_flags = known.findings.corruptions == known.wrong_copied_flags;
  if (!repairs_all() && !only_flags) co_return absl::OkStatus();
  Tables now(context_);
  CO_RETURN_IF_ERROR(co_await now.refcounts.Load());
  for (uint64_t window = 0; window < windows(); ++window) {
    if (!WindowMatters(tables, window)) continue;
    ResetWindow(window);
    CO_RETURN_IF_ERROR(co_await now.refcounts.ReadInto(map_));
    CopiedFlags flags(context_, map_, &known);
    CO_RETURN_IF_ERROR(co_await tables.walk.Walk(flags, WalkScope::kActive));
  }
  const absl::Status status = co_await context_.file.Sync();  // (5)
  co_return status;
}

Task<absl::Status> Checker::ClearBits(const Inspection& left) {
  uint64_t clear = 0;
  if (left.findings.clean()) {
    clear = kIncompatibleDirty | kIncompatibleCorrupt;
  } else if (refcounts_only_ && left.findings.check_errors == 0 && left.low_refcounts == 0 &&
             !left.unusable_structure) {
    clear = kIncompatibleDirty;
  }
  if (refcounts_only_) clear &= kIncompatibleDirty;
  if ((context_.header.incompatible & clear) == 0) co_return absl::OkStatus();
  context_.header.incompatible &= ~clear;
  CO_RETURN_IF_ERROR(co_await WriteCheckedFields(context_.file, context_.header));
  const absl::Status status = co_await context_.file.Sync();
  co_return status;
}

void Checker::FillResult(Inspection left) {
  result_.corruptions = left.findings.corruptions;
  result_.leaks = left.findings.leaks;
  result_.check_errors = left.findings.check_errors;
  result_.image_end_offset = (left.highest_cluster + 1) << context_.geometry.cluster_bits;
  result_.total_clusters = context_.geometry.Clusters(context_.header.size);
  result_.allocated_clusters = left.allocated_clusters;
  result_.fragmented_clusters = left.fragmented_clusters;
  result_.compressed_clusters = left.compressed_clusters;
  result_.findings = std::move(left.findings.list);
  result_.findings_left_out = left.findings.left_out;
  result_.header = context_.header;
}

}  // namespace

Task<absl::StatusOr<CheckResult>> CheckImage(io::File& file, const Header& header,
                                             const CheckOptions& options, CheckObserver* observer) {
  Checker checker(file, header, options, observer, false);
  absl::StatusOr<CheckResult> result = co_await checker.Run();
  co_return result;
}

Task<absl::Status> RebuildRefcounts(io::File& file, Header& header, const CheckOptions& options,
                                    CheckObserver* observer, CheckResult* result) {
  Checker checker(file, header, options, observer, true);
  absl::StatusOr<CheckResult> checked = co_await checker.Run();
  if (!checked.ok()) co_return checked.status();
  header = checked->header;
  const bool dirty = header.dirty();
  if (result != nullptr) *result = std::move(checked).value();
  if (!dirty) co_return absl::OkStatus();
  co_return absl::DataLossError("refcounts could not be rebuilt");
}

}  // namespace gabion::qcow2
