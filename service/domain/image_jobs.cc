#include "service/domain/image_jobs.h"

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "google/protobuf/empty.pb.h"
#include "service/domain/await.h"
#include "service/domain/identity.h"
#include "service/domain/image_file.h"
#include "service/domain/image_layout.h"
#include "service/domain/image_manager.h"
#include "service/domain/image_view.h"
#include "service/domain/records.h"
#include "service/errors.h"

namespace gabion::service {
namespace {

engine::Preallocation PreallocationOf(v1::CreateImageRequest::Preallocation preallocation) {
  switch (preallocation) {
    case v1::CreateImageRequest::PREALLOCATION_FALLOC:
      return engine::Preallocation::kFalloc;
    case v1::CreateImageRequest::PREALLOCATION_FULL:
      return engine::Preallocation::kFull;
    case v1::CreateImageRequest::PREALLOCATION_METADATA:
      return engine::Preallocation::kMetadata;
    default:
      return engine::Preallocation::kOff;
  }
}

// What the two jobs share: an image, which stays the same one.
class ImageJob : public Job {
 public:
  ImageJob(const ManagerContext& context, Stored<v1::Image> stored, ImageReleased released)
      : context_(context),
        records_(context.store, kImages, kImageType),
        image_(std::move(stored.resource)),
        released_(std::move(released)) {}

  // The backing image too: nobody decides about it while an image comes or goes that stands on it.
  std::vector<std::string> Locks() const override {
    if (image_.backing_image().empty()) return {image_.name()};
    return {image_.name(), image_.backing_image()};
  }

 protected:
  // Its row as it is now: labels may have changed since the work began.
  absl::StatusOr<Stored<v1::Image>> Row() const {
    ASSIGN_OR_RETURN(Stored<v1::Image> row, records_.Get(image_.name()));
    if (row.resource.uid() == image_.uid()) return row;
    return absl::InternalError(absl::StrCat(image_.name(), " is another image by now."));
  }

  // The same for an end without an effect, which there is also if the row is gone.
  absl::StatusOr<std::optional<Stored<v1::Image>>> RowIfThere() const {
    ASSIGN_OR_RETURN(std::optional<Stored<v1::Image>> row, records_.Find(image_.name()));
    if (row.has_value() && row->resource.uid() != image_.uid()) row.reset();
    return row;
  }

  absl::StatusOr<engine::RemovalProgress> Remove(ByteCount budget) const {
    return Await<absl::StatusOr<engine::RemovalProgress>>(
        [&](auto done) { context_.engine.RemoveImage(SpecOf(image_), budget, std::move(done)); });
  }

  // Once the row is gone, nothing of the image stands on its backing image.
  void LetGoOfBacking(JobOutcome* outcome) const {
    const std::string backing = image_.backing_image();
    if (backing.empty()) return;
    context_.chains.Hide(image_.name());
    outcome->steps.push_back(Touch(kImages, backing));  // a dependent less
    outcome->committed = [this, backing, &chains = context_.chains] {
      chains.Remove(image_.name());
      released_(backing);
    };
  }

  const ManagerContext context_;
  const Records<v1::Image> records_;
  const v1::Image image_;
  const ImageReleased released_;
};

class BuildJob final : public ImageJob {
 public:
  BuildJob(const ManagerContext& context, Stored<v1::Image> stored, store::v1::BuildWork work,
           ImageReleased released)
      : ImageJob(context, std::move(stored), std::move(released)), work_(std::move(work)) {}

  absl::StatusOr<JobProgress> Work(uint64_t from_bytes, uint64_t budget_bytes) override {
    ASSIGN_OR_RETURN(const engine::ImageBuild build, BuildOf(records_, image_, work_));
    const auto progress = Await<absl::StatusOr<engine::BuildProgress>>([&](auto done) {
      context_.engine.BuildImage(build, ByteOffset{from_bytes}, ByteCount{budget_bytes},
                                 std::move(done));
    });
    if (!progress.ok()) return BuildError(progress.status(), image_, work_);
    return JobProgress{progress->done.value, progress->total.value, progress->complete};
  }

  absl::StatusOr<JobOutcome> Finish() override {
    ASSIGN_OR_RETURN(Stored<v1::Image> row, Row());
    const auto info = Await<absl::StatusOr<engine::ImageInfo>>(
        [&](auto done) { context_.engine.StatImage(SpecOf(row.resource), std::move(done)); });
    if (!info.ok()) return FromEngine(info.status(), About(row.resource));
    v1::Image& image = row.resource;
    image.set_state(v1::Image::STATE_ACTIVE);
    image.set_virtual_size_bytes(info->virtual_size.value);
    if (info->qcow2.has_value()) *image.mutable_qcow2() = TellLayout(info->qcow2->layout);
    image.set_observed_generation(image.generation());
    image.clear_operation();
    NoteTransition(kReady, true, Now(), image.mutable_conditions());
    JobOutcome outcome;
    outcome.steps.push_back(records_.Saving(image, row.revision));
    outcome.response.PackFrom(
        TellImage(image, info, {context_.index, context_.chains}, context_.conditions));
    return outcome;
  }

  absl::StatusOr<bool> PutAway(uint64_t budget_bytes) override {
    ASSIGN_OR_RETURN(const bool moved, HasMoved());
    if (moved) return true;
    ASSIGN_OR_RETURN(const engine::RemovalProgress removed, Remove(ByteCount{budget_bytes}));
    return removed.complete;
  }

  absl::StatusOr<JobOutcome> Undo(const absl::Status& /*why*/) override {
    ASSIGN_OR_RETURN(const bool moved, HasMoved());
    if (moved) return Keep();
    ASSIGN_OR_RETURN(const engine::RemovalProgress removed, Remove(ByteCount{0}));
    if (!removed.complete) return absl::UnavailableError("The file is not removed yet.");
    ASSIGN_OR_RETURN(const std::optional<Stored<v1::Image>> row, RowIfThere());
    context_.conditions.Forget(image_.uid());
    JobOutcome outcome;
    if (row.has_value()) outcome.steps.push_back(records_.Erasing(*row));
    LetGoOfBacking(&outcome);
    return outcome;
  }

  bool CanCancel() const override {
    const absl::StatusOr<bool> moved = HasMoved();
    return moved.ok() && !*moved;
  }

 private:
  // The caller's file has become the image's: there is no other one with its content.
  absl::StatusOr<bool> HasMoved() const {
    if (!work_.move()) return false;
    const auto info = Await<absl::StatusOr<engine::ImageInfo>>(
        [&](auto done) { context_.engine.StatImage(SpecOf(image_), std::move(done)); });
    if (info.ok()) return true;
    const bool is_not_ours =
        absl::IsNotFound(info.status()) || absl::IsFailedPrecondition(info.status());
    if (is_not_ours) return false;
    return info.status();
  }
  // What cannot be undone without losing it stays, as an image.
  absl::StatusOr<JobOutcome> Keep() {
    ASSIGN_OR_RETURN(const std::optional<Stored<v1::Image>> row, RowIfThere());
    if (!row.has_value()) return JobOutcome();
    ASSIGN_OR_RETURN(JobOutcome outcome, Finish());
    outcome.response.Clear();
    return outcome;
  }

  const store::v1::BuildWork work_;
};

class RemovalJob final : public ImageJob {
 public:
  using ImageJob::ImageJob;

  absl::StatusOr<JobProgress> Work(uint64_t from_bytes, uint64_t budget_bytes) override {
    const auto progress = Remove(ByteCount{budget_bytes});
    if (!progress.ok()) return FromEngine(progress.status(), About(image_));
    // The engine tells what this piece found and removed.
    return JobProgress{from_bytes + progress->done.value, from_bytes + progress->total.value,
                       progress->complete};
  }

  absl::StatusOr<JobOutcome> Finish() override {
    ASSIGN_OR_RETURN(const Stored<v1::Image> row, Row());
    context_.conditions.Forget(image_.uid());
    JobOutcome outcome;
    outcome.steps.push_back(records_.Erasing(row));
    outcome.response.PackFrom(google::protobuf::Empty());
    LetGoOfBacking(&outcome);
    return outcome;
  }

  // While the file has its name, nothing has happened to it; afterwards it can only be deleted
  // again.
  absl::StatusOr<JobOutcome> Undo(const absl::Status& why) override {
    ASSIGN_OR_RETURN(std::optional<Stored<v1::Image>> row, RowIfThere());
    if (!row.has_value()) return JobOutcome();
    v1::Image& image = row->resource;
    // It is told again.
    if (!image.backing_image().empty()) context_.chains.Add(image.name(), image.backing_image());
    const auto info = Await<absl::StatusOr<engine::ImageInfo>>(
        [&](auto done) { context_.engine.StatImage(SpecOf(image), std::move(done)); });
    image.set_state(info.ok() ? v1::Image::STATE_ACTIVE : v1::Image::STATE_FAILED);
    if (!info.ok()) *image.mutable_state_error() = ToRpcStatus(why);
    image.clear_operation();
    JobOutcome outcome;
    outcome.steps.push_back(records_.Saving(image, row->revision));
    return outcome;
  }

  bool CanCancel() const override { return false; }
  bool RetriesTransient() const override { return true; }
};

}  // namespace

absl::StatusOr<engine::ImageBuild> BuildOf(const Records<v1::Image>& records,
                                           const v1::Image& image,
                                           const store::v1::BuildWork& work) {
  engine::ImageBuild build;
  ASSIGN_OR_RETURN(build.spec, ChainSpec(records, image));
  build.qcow2 = LayoutOf(image.qcow2());
  build.size = ByteCount{image.virtual_size_bytes()};
  build.preallocation = PreallocationOf(work.preallocation());
  build.source_file = work.source_file();
  build.move = work.move();
  return build;
}

absl::Status BuildError(const absl::Status& status, const v1::Image& image,
                        const store::v1::BuildWork& work) {
  EngineCall call = About(image);
  if (!work.source_file().empty()) call.file_field = "source_file";
  return FromEngine(status, call);
}

absl::StatusOr<std::unique_ptr<Job>> NewBuildJob(const ManagerContext& context,
                                                 const v1::JobMetadata& metadata,
                                                 const store::v1::Job& stored,
                                                 ImageReleased released) {
  const Records<v1::Image> records(context.store, kImages, kImageType);
  ASSIGN_OR_RETURN(Stored<v1::Image> image, records.Get(metadata.target()));
  return std::make_unique<BuildJob>(context, std::move(image), stored.build(), std::move(released));
}

absl::StatusOr<std::unique_ptr<Job>> NewRemovalJob(const ManagerContext& context,
                                                   const v1::JobMetadata& metadata,
                                                   const store::v1::Job& /*stored*/,
                                                   ImageReleased released) {
  const Records<v1::Image> records(context.store, kImages, kImageType);
  ASSIGN_OR_RETURN(Stored<v1::Image> image, records.Get(metadata.target()));
  return std::make_unique<RemovalJob>(context, std::move(image), std::move(released));
}

}  // namespace gabion::service
