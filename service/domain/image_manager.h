// Images: what is wanted, in the store; what is there, in the engine.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "gabion/v1/image.pb.h"
#include "google/longrunning/operations.pb.h"
#include "service/domain/call.h"
#include "service/domain/manager_context.h"
#include "service/domain/pool_manager.h"
#include "service/domain/reconciler.h"
#include "service/domain/records.h"

namespace gabion::service {

inline constexpr std::string_view kImages = "images";
inline constexpr std::string_view kImageType = "gabion/Image";

// A row is the resource as it was last changed; what is only observed (allocated bytes, whether the
// file can be opened, conditions, etag) is added when it is told. Files are made and removed by
// operations (image_jobs.h), and so are they checked and made smaller (image_care.h); growing by an
// update is a change of the row, the effect, and the row again, with an intent beside it for a
// restart. What others stand on (context.chains) is not written: every call that begins to write,
// and every one that puts an image on another, decides under the lock of the lower one. Owned by
// the domain; any thread of the executor, which blocks.
class ImageManager {
 public:
  using StoredImage = Stored<v1::Image>;

  // `pools` outlives this.
  ImageManager(const ManagerContext& context, const PoolManager& pools,
               ReconcilerOptions reconciler);

  absl::StatusOr<google::longrunning::Operation> Create(const v1::CreateImageRequest& request,
                                                        const Call& call);
  absl::StatusOr<google::longrunning::Operation> Import(const v1::ImportImageRequest& request,
                                                        const Call& call);
  absl::StatusOr<google::longrunning::Operation> Clone(const v1::CloneImageRequest& request,
                                                       const Call& call);
  absl::StatusOr<google::longrunning::Operation> Resize(const v1::ResizeImageRequest& request,
                                                        const Call& call);
  absl::StatusOr<google::longrunning::Operation> Check(const v1::CheckImageRequest& request,
                                                       const Call& call);
  absl::StatusOr<v1::MeasureImageResponse> Measure(const v1::MeasureImageRequest& request) const;
  absl::StatusOr<v1::Image> Get(const std::string& name) const;
  // One answer for each, in order, with one look at all of them.
  std::vector<absl::StatusOr<v1::Image>> GetMany(const std::vector<std::string>& names) const;
  absl::StatusOr<v1::ListImagesResponse> List(const v1::ListImagesRequest& request) const;
  absl::StatusOr<v1::Image> Update(const v1::UpdateImageRequest& request, const Call& call);
  absl::StatusOr<google::longrunning::Operation> Delete(const v1::DeleteImageRequest& request,
                                                        const Call& call);
  absl::StatusOr<google::longrunning::Operation> Undelete(const v1::UndeleteImageRequest& request,
                                                          const Call& call);

  // The image for the engine, if it can be used. RESOURCE_NOT_FOUND with `field`,
  // IMAGE_NOT_ACTIVE, IMAGE_DELETED. To rely on it for longer, hold the image's lock.
  absl::StatusOr<engine::ImageSpec> ActiveSpec(const std::string& name,
                                               std::string_view field = {}) const;
  // The same for an export that exists already: a tombstone is served on.
  absl::StatusOr<engine::ImageSpec> ServedSpec(const std::string& name,
                                               std::string_view field = {}) const;

  // The image, its backing image, and so on.
  std::vector<std::string> ChainOf(const std::string& name) const {
    return context_.chains.ChainOf(name);
  }
  // IMAGE_HAS_DEPENDENTS if other images stand on it, so that it must not change.
  absl::Status CheckNothingStandsOn(const std::string& name) const;
  // OPERATION_IN_PROGRESS while an operation works on it.
  absl::Status CheckNotWorkedOn(const std::string& name) const;

  // An export or an image has let go of the image: a tombstone may be due now.
  void Released(const std::string& name);

  // Finishes or undoes growth that the last run left unfinished, and sweeps the pools of files that
  // belong to no image. Call once, before any other call; operations are recovered by their
  // manager.
  absl::Status Recover();
  // Plans the removal of tombstones. Call once, when the exports are recovered: only then it is
  // known what still uses them.
  absl::Status PlanRemovals();
  // Ends the background work. Call before the engine stops.
  void Stop() { reconciler_.Stop(); }

 private:
  absl::StatusOr<google::longrunning::Operation> Build(const std::string& id,
                                                       const v1::Image& asked,
                                                       v1::JobMetadata::Kind kind,
                                                       const store::v1::BuildWork& work,
                                                       const Call& call);
  absl::StatusOr<v1::Image> NewImage(const std::string& id, const v1::Image& asked) const;
  // IMAGE_IN_USE if the file is an image's.
  absl::Status CheckNotOwned(const v1::Image& image, const std::string& source_file) const;
  // Completes and checks a new image that stands on another one, whose lock is held.
  absl::Status CheckBacking(v1::Image* image, v1::JobMetadata::Kind kind) const;
  // IMAGE_IN_USE if an export may write to the image.
  absl::Status CheckNobodyWrites(const std::string& name) const;
  // Whether what clients of the export write reaches the image.
  absl::StatusOr<bool> Writes(const v1::Export& exported, const std::string& image) const;
  // IMAGE_HAS_DEPENDENTS if an export serves an image that stands on this one, however far above.
  absl::Status CheckNoDependentIsServed(const std::string& name) const;
  absl::StatusOr<google::longrunning::Operation> AnswerResized(const v1::Image& shown,
                                                               const Call& call);
  absl::StatusOr<ByteCount> DataIn(const std::string& source, uint64_t cluster_size) const;
  absl::StatusOr<std::string> BeginCare(StoredImage stored, v1::JobMetadata::Kind kind,
                                        const store::v1::Job& job, const Call& call);
  absl::Status CheckGrowth(const v1::Image& before, const v1::Image& after) const;
  absl::Status CheckFits(const v1::Image& image, const std::string& size_field) const;
  absl::StatusOr<v1::Image> Grow(const StoredImage& before, v1::Image after, const Call& call);
  absl::Status CommitOrAgain(const std::string& name, const std::vector<Mutation>& steps);
  // Why it cannot be deleted now; OK if it can.
  absl::Status CheckDeletable(const v1::Image& image) const;
  absl::Status CheckUnused(const v1::Image& image) const;
  // Writes that the file is being removed; the operation that does it, to be started.
  absl::StatusOr<std::string> Purge(const StoredImage& stored, const Call& call);
  absl::StatusOr<google::longrunning::Operation> Bury(const StoredImage& stored,
                                                      const v1::DeleteImageRequest& request,
                                                      const Call& call);
  absl::StatusOr<engine::ImageSpec> UsableSpec(const std::string& name, std::string_view field,
                                               bool tombstones) const;

  void PlanRemoval(const v1::Image& image);
  absl::Status RecoverOne(const StoredImage& stored);
  // Under the image's lock: finishes or takes back a growth whose end could not be written.
  absl::Status SettleGrowth(const std::string& name);
  absl::Status RecoverGrowth(const StoredImage& stored, const store::v1::Intent& intent);
  absl::Status Sweep();
  Reconciler::Outcome Reconcile(const std::string& name);
  Reconciler::Outcome PurgeIfDue(const std::string& name);

  absl::StatusOr<engine::ImageInfo> Stat(const engine::ImageSpec& spec) const;
  // Rows as they are told, with one look at all their files.
  std::vector<v1::Image> Show(std::vector<v1::Image> rows) const;
  v1::Image ShowOne(const v1::Image& row) const;
  v1::Image TellTrial(v1::Image image, ByteCount size) const;

  const ManagerContext context_;
  const PoolManager& pools_;
  Records<v1::Image> records_;
  std::atomic<bool> plans_removals_ = false;
  Reconciler reconciler_;  // last: it calls the others
};

}  // namespace gabion::service
