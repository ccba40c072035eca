// Checking and repairing images.
#include <utility>

#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "engine/formats/qcow2/check.h"
#include "engine/formats/qcow2/qcow2_node.h"
#include "engine/image_files.h"
#include "engine/image_format.h"
#include "engine/shard_server.h"

namespace gabion::engine {
namespace {

class ControlledCheck final : public qcow2::CheckObserver {
 public:
  explicit ControlledCheck(CheckControl& control) : control_(control) {}
  bool OnProgress(const qcow2::CheckProgress& progress) override {
    control_.done = progress.done;
    control_.total = progress.total;
    return !control_.cancel;
  }

 private:
  CheckControl& control_;
};

qcow2::Repair RepairOf(ImageRepair repair) {
  switch (repair) {
    case ImageRepair::kNone:
      return qcow2::Repair::kNone;
    case ImageRepair::kLeaks:
      return qcow2::Repair::kLeaks;
    case ImageRepair::kAll:
      return qcow2::Repair::kAll;
  }
  return qcow2::Repair::kNone;
}

CheckReport ReportOf(const qcow2::CheckResult& result) {
  CheckReport report;
  report.corruptions = result.corruptions;
  report.leaks = result.leaks;
  report.check_errors = result.check_errors;
  report.corruptions_fixed = result.corruptions_fixed;
  report.leaks_fixed = result.leaks_fixed;
  report.image_end_offset = result.image_end_offset;
  report.total_clusters = result.total_clusters;
  report.allocated_clusters = result.allocated_clusters;
  report.fragmented_clusters = result.fragmented_clusters;
  report.compressed_clusters = result.compressed_clusters;
  const bool repaired = !result.repaired_findings.empty();
  for (const qcow2::Finding& finding : repaired ? result.repaired_findings : result.findings) {
    report.findings.push_back({std::string(NameOf(finding.kind)), finding.host_offset,
                               finding.guest_offset, finding.text});
  }
  report.findings_left_out =
      repaired ? result.repaired_findings_left_out : result.findings_left_out;
  return report;
}

Task<absl::StatusOr<CheckReport>> CheckFile(io::File& file, ImageRepair repair,
                                            CheckControl& control, runtime::ReadyQueue& ready) {
  CO_ASSIGN_OR_RETURN(const qcow2::ParsedHeader parsed,
                      co_await qcow2::ReadHeader(file, qcow2::Access::kRead));
  ControlledCheck observer(control);
  const qcow2::CheckOptions options{.repair = RepairOf(repair), .ready = &ready};
  CO_ASSIGN_OR_RETURN(const qcow2::CheckResult result,
                      co_await qcow2::CheckImage(file, parsed.header, options, &observer));
  co_return ReportOf(result);
}

}  // namespace

// On a file of its own: the locks of files keep writers away from a check, and everybody from a
// repair.
Task<absl::StatusOr<CheckReport>> ShardServer::CheckImage(ImageSpec spec, ImageRepair repair,
                                                          CheckControl* control,
                                                          const io::Directory* pool) {
  if (spec.format != ImageFormat::kQcow2) {
    co_return WithReason(absl::FailedPreconditionError("a raw image has nothing to check"),
                         {"FEATURE_UNSUPPORTED", {{"image", spec.name}, {"feature", "check"}}});
  }
  const auto open = images_.find(spec.name);
  if (open != images_.end() && (repair != ImageRepair::kNone || open->second->has_writers())) {
    co_return InUse(spec.name);
  }
  absl::StatusOr<OpenedImage> opened =
      co_await workers_.Run([pool, &spec] { return OpenImageFile(*pool, spec, false); });
  if (!opened.ok()) co_return opened.status();
  if (repair != ImageRepair::kNone) {
    CO_RETURN_IF_ERROR(LockImage(spec.name, opened->lock, io::LockMode::kWriter));
  }
  absl::StatusOr<std::unique_ptr<io::File>> file = NewFile(std::move(opened->file));
  if (!file.ok()) co_return Annotate(file.status(), spec.name);
  absl::StatusOr<CheckReport> report =
      co_await CheckFile(**file, repair, *control, shard_.reactor().ready());
  const absl::Status closed = co_await (*file)->Close();
  closed.IgnoreError();
  if (!report.ok()) co_return FormatError(report.status(), spec);
  co_return report;
}

}  // namespace gabion::engine
