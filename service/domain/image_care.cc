#include "service/domain/image_care.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "service/domain/await.h"
#include "service/domain/identity.h"
#include "service/domain/image_file.h"
#include "service/domain/image_manager.h"
#include "service/domain/image_view.h"
#include "service/domain/records.h"
#include "service/text.h"

namespace gabion::service {
namespace {

constexpr std::size_t kLongestFinding = 512;     // bytes of text
constexpr std::chrono::milliseconds kLook{250};  // how long a piece of a check is

engine::ImageRepair RepairOf(v1::CheckImageRequest::Repair repair) {
  switch (repair) {
    case v1::CheckImageRequest::REPAIR_LEAKS:
      return engine::ImageRepair::kLeaks;
    case v1::CheckImageRequest::REPAIR_ALL:
      return engine::ImageRepair::kAll;
    default:
      return engine::ImageRepair::kNone;
  }
}

v1::CheckImageResponse Tell(const engine::CheckReport& report) {
  v1::CheckImageResponse told;
  told.set_corruptions(report.corruptions);
  told.set_leaks(report.leaks);
  told.set_check_errors(report.check_errors);
  told.set_corruptions_fixed(report.corruptions_fixed);
  told.set_leaks_fixed(report.leaks_fixed);
  told.set_image_end_offset(report.image_end_offset);
  told.set_total_clusters(report.total_clusters);
  told.set_allocated_clusters(report.allocated_clusters);
  told.set_fragmented_clusters(report.fragmented_clusters);
  told.set_compressed_clusters(report.compressed_clusters);
  for (const engine::CheckFinding& finding : report.findings) {
    v1::CheckImageResponse::Finding* const one = told.add_findings();
    one->set_kind(finding.kind);
    if (finding.host_offset.has_value()) one->set_host_offset(*finding.host_offset);
    if (finding.guest_offset.has_value()) one->set_guest_offset(*finding.guest_offset);
    one->set_text(Printable(finding.text, kLongestFinding));
  }
  told.set_findings_left_out(report.findings_left_out);
  return told;
}

// An image that an operation works on, and that stays as it is if nothing comes of it.
class CareJob : public Job {
 public:
  CareJob(const ManagerContext& context, v1::Image image)
      : context_(context), records_(context.store, kImages, kImageType), image_(std::move(image)) {}

  std::vector<std::string> Locks() const override { return {image_.name()}; }
  bool MovesBytes() const override { return false; }

  absl::StatusOr<JobOutcome> Undo(const absl::Status& /*why*/) override {
    JobOutcome outcome;
    ASSIGN_OR_RETURN(std::optional<Stored<v1::Image>> row, records_.Find(image_.name()));
    if (!row.has_value() || row->resource.uid() != image_.uid()) return outcome;
    row->resource.clear_operation();
    outcome.steps.push_back(records_.Saving(row->resource, row->revision));
    return outcome;
  }

 protected:
  absl::StatusOr<Stored<v1::Image>> Row() const {
    ASSIGN_OR_RETURN(Stored<v1::Image> row, records_.Get(image_.name()));
    if (row.resource.uid() == image_.uid()) return row;
    return absl::InternalError(absl::StrCat(image_.name(), " is another image by now."));
  }

  const ManagerContext context_;
  const Records<v1::Image> records_;
  const v1::Image image_;
};

class CheckJob final : public CareJob {
 public:
  CheckJob(const ManagerContext& context, v1::Image image, engine::ImageRepair repair)
      : CareJob(context, std::move(image)), repair_(repair) {}

  // The check works on memory of this job.
  ~CheckJob() override {
    control_.cancel = true;
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [this] { return !running_; });
  }

  absl::StatusOr<JobProgress> Work(uint64_t /*from_bytes*/, uint64_t /*budget_bytes*/) override {
    if (!HasBegun()) RETURN_IF_ERROR(Begin());
    std::unique_lock lock(mutex_);
    const bool ended = ended_.wait_for(lock, kLook, [this] { return !running_; });
    if (!ended) return JobProgress{control_.done, control_.total, false, kLook};
    if (!report_->ok()) return FromEngine(report_->status(), About(image_));
    const uint64_t total = std::max<uint64_t>(control_.total, 1);
    return JobProgress{total, total, true};
  }

  absl::StatusOr<JobOutcome> Finish() override {
    ASSIGN_OR_RETURN(Stored<v1::Image> row, Row());
    JobOutcome outcome;
    const std::lock_guard lock(mutex_);
    // After a restart between the last piece and this, the work is done once more.
    if (!report_.has_value()) return absl::UnavailableError("The image is not checked yet.");
    if (!report_->ok()) return FromEngine(report_->status(), About(image_));
    outcome.response.PackFrom(Tell(**report_));
    row.resource.clear_operation();
    outcome.steps.push_back(records_.Saving(row.resource, row.revision));
    return outcome;
  }

  // The file is let go before the image is.
  absl::StatusOr<bool> PutAway(uint64_t /*budget_bytes*/) override {
    control_.cancel = true;
    std::unique_lock lock(mutex_);
    return ended_.wait_for(lock, kLook, [this] { return !running_; });
  }

 private:
  bool HasBegun() {
    const std::lock_guard lock(mutex_);
    return running_ || report_.has_value();
  }

  absl::Status Begin() {
    ASSIGN_OR_RETURN(const engine::ImageSpec spec, ChainSpec(records_, image_));
    {
      const std::lock_guard lock(mutex_);
      running_ = true;
    }
    context_.engine.CheckImage(spec, repair_, &control_,
                               [this](absl::StatusOr<engine::CheckReport> report) {
                                 const std::lock_guard lock(mutex_);
                                 report_ = std::move(report);
                                 running_ = false;
                                 ended_.notify_all();
                               });
    return absl::OkStatus();
  }

  const engine::ImageRepair repair_;
  engine::CheckControl control_;
  std::mutex mutex_;
  std::condition_variable ended_;
  bool running_ = false;
  std::optional<absl::StatusOr<engine::CheckReport>> report_;
};

class ResizeJob final : public CareJob {
 public:
  ResizeJob(const ManagerContext& context, v1::Image image, store::v1::ResizeWork work)
      : CareJob(context, std::move(image)), work_(std::move(work)) {}

  // Both ways can be gone again: a size that is there already is no change.
  absl::StatusOr<JobProgress> Work(uint64_t /*from_bytes*/, uint64_t /*budget_bytes*/) override {
    ASSIGN_OR_RETURN(const engine::ImageSpec spec, ChainSpec(records_, image_));
    const ByteCount size{work_.virtual_size_bytes()};
    ASSIGN_OR_RETURN(const engine::ImageInfo before, Stat(spec));
    absl::StatusOr<engine::ImageInfo> after = before;
    if (size > before.virtual_size) {
      after = Await<absl::StatusOr<engine::ImageInfo>>(
          [&](auto done) { context_.engine.GrowImage(spec, size, std::move(done)); });
    } else if (size < before.virtual_size) {
      after = Await<absl::StatusOr<engine::ImageInfo>>(
          [&](auto done) { context_.engine.ShrinkImage(spec, size, std::move(done)); });
    }
    if (!after.ok()) return FromEngine(after.status(), AboutSize());
    return JobProgress{1, 1, true};
  }

  absl::StatusOr<JobOutcome> Finish() override {
    ASSIGN_OR_RETURN(Stored<v1::Image> row, Row());
    v1::Image& image = row.resource;
    ASSIGN_OR_RETURN(const engine::ImageInfo info, Stat(SpecOf(image)));
    image.set_virtual_size_bytes(info.virtual_size.value);
    image.set_generation(image.generation() + 1);
    image.set_observed_generation(image.generation());
    *image.mutable_update_time() = Now();
    image.clear_operation();
    JobOutcome outcome;
    outcome.steps.push_back(records_.Saving(image, row.revision));
    for (const std::string& exported : context_.index.ExportsOf(image.name())) {
      outcome.steps.push_back(Touch(kExports, exported));  // it has another size for new clients
    }
    outcome.response.PackFrom(
        TellImage(image, info, {context_.index, context_.chains}, context_.conditions));
    return outcome;
  }

  bool CanCancel() const override { return false; }

 private:
  absl::StatusOr<engine::ImageInfo> Stat(const engine::ImageSpec& spec) const {
    const auto info = Await<absl::StatusOr<engine::ImageInfo>>(
        [&](auto done) { context_.engine.StatImage(spec, std::move(done)); });
    if (!info.ok()) return FromEngine(info.status(), About(image_));
    return info;
  }
  EngineCall AboutSize() const {
    EngineCall call = About(image_);
    call.size_field = "virtual_size_bytes";
    return call;
  }

  const store::v1::ResizeWork work_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Job>> NewCheckJob(const ManagerContext& context,
                                                 const v1::JobMetadata& metadata,
                                                 const store::v1::Job& stored) {
  const Records<v1::Image> records(context.store, kImages, kImageType);
  ASSIGN_OR_RETURN(Stored<v1::Image> image, records.Get(metadata.target()));
  return std::make_unique<CheckJob>(context, std::move(image.resource),
                                    RepairOf(stored.check().repair()));
}

absl::StatusOr<std::unique_ptr<Job>> NewResizeJob(const ManagerContext& context,
                                                  const v1::JobMetadata& metadata,
                                                  const store::v1::Job& stored) {
  const Records<v1::Image> records(context.store, kImages, kImageType);
  ASSIGN_OR_RETURN(Stored<v1::Image> image, records.Get(metadata.target()));
  return std::make_unique<ResizeJob>(context, std::move(image.resource), stored.resize());
}

}  // namespace gabion::service
