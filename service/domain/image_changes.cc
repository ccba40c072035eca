// The part of ImageManager that changes and deletes images.
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "google/protobuf/empty.pb.h"
#include "google/protobuf/util/time_util.h"
#include "service/domain/await.h"
#include "service/domain/identity.h"
#include "service/domain/image_file.h"
#include "service/domain/image_manager.h"
#include "service/domain/image_view.h"
#include "service/errors.h"
#include "service/etag.h"
#include "service/validate.h"

namespace gabion::service {

using google::longrunning::Operation;

namespace {

constexpr const char* kSizeField = "image.virtual_size_bytes";

absl::Status CheckRetention(const v1::DeleteImageRequest& request) {
  const bool buries = request.mode() == v1::DeleteImageRequest::MODE_TOMBSTONE;
  if (buries || !request.has_retention()) return absl::OkStatus();
  constexpr std::string_view kMessage = "Only a tombstone is kept: mode must be MODE_TOMBSTONE.";
  return Error(reason::kFieldInvalid, kMessage).Field("retention", kMessage);
}

}  // namespace

absl::Status ImageManager::CheckGrowth(const v1::Image& before, const v1::Image& after) const {
  const uint64_t old_size = before.virtual_size_bytes();
  const uint64_t new_size = after.virtual_size_bytes();
  if (new_size == 0) {
    return Error(reason::kFieldRequired, "An image needs a size.")
        .Field(kSizeField, "Required: the size of the disk in bytes.");
  }
  if (new_size < old_size) {
    const std::string message =
        absl::StrCat("The image has ", old_size, " bytes and cannot shrink to ", new_size, ".");
    return Error(reason::kShrinkNotAllowed, message).Field(kSizeField, message);
  }
  return absl::OkStatus();
}

// Whether a file of its pool can be that large at all.
absl::Status ImageManager::CheckFits(const v1::Image& image, const std::string& size_field) const {
  const absl::Status fits = Await<absl::Status>([&](auto done) {
    context_.engine.CheckSize(image.pool(), ByteCount{image.virtual_size_bytes()}, std::move(done));
  });
  EngineCall about = About(image);
  about.size_field = size_field;
  return FromEngine(fits, about);
}

absl::StatusOr<v1::Image> ImageManager::Update(const v1::UpdateImageRequest& request,
                                               const Call& call) {
  const std::string& name = request.image().name();
  ASSIGN_OR_RETURN(const ResourceLocks::Guard lock, context_.locks.LockFor(call.patience, {name}));
  RETURN_IF_ERROR(SettleGrowth(name));
  ASSIGN_OR_RETURN(const StoredImage stored, records_.Get(name));
  const v1::Image before = ShowOne(stored.resource);
  RETURN_IF_ERROR(CheckEtag(request.image().etag(), before));
  if (stored.resource.state() == v1::Image::STATE_DELETING) {
    RETURN_IF_ERROR(CheckDeletable(stored.resource));
  }
  v1::Image after = stored.resource;
  after.set_virtual_size_bytes(before.virtual_size_bytes());  // the file's word counts
  ASSIGN_OR_RETURN(const bool changed, ApplyUpdate(request, &after));
  const bool grows = after.virtual_size_bytes() != before.virtual_size_bytes();
  if (grows) RETURN_IF_ERROR(CheckGrowth(before, after));
  if (grows) RETURN_IF_ERROR(CheckDeletable(stored.resource));
  if (grows) RETURN_IF_ERROR(CheckNothingStandsOn(name));
  if (grows) RETURN_IF_ERROR(ServedSpec(name).status());
  if (grows && call.validate_only) RETURN_IF_ERROR(CheckFits(after, kSizeField));
  if (changed) {
    after.set_generation(after.generation() + 1);
    *after.mutable_update_time() = Now();
  }
  if (grows && !call.validate_only) return Grow(stored, std::move(after), call);
  if (grows || stored.resource.observed_generation() == stored.resource.generation()) {
    after.set_observed_generation(after.generation());
  }
  v1::Image told = ShowOne(after);
  if (grows) told.set_virtual_size_bytes(after.virtual_size_bytes());  // its file has not grown
  if (call.validate_only) return told;
  std::vector<Mutation> steps;
  RequestLog::BeginAnswered(call, told, &steps);
  if (changed) steps.push_back(records_.Saving(after, stored.revision));
  if (!steps.empty()) RETURN_IF_ERROR(context_.store.Commit(steps).status());
  return told;
}

absl::StatusOr<v1::Image> ImageManager::Grow(const StoredImage& before, v1::Image after,
                                             const Call& call) {
  const std::string name = after.name();
  ASSIGN_OR_RETURN(const engine::ImageSpec spec, ChainSpec(records_, before.resource));
  store::v1::Intent intent;
  intent.set_request(call.request);
  *intent.mutable_grow_image() = before.resource;
  std::vector<Mutation> steps = {Intents::Writing(name, intent)};
  RequestLog::Begin(call, &steps);
  Mutation save = records_.Saving(after, before.revision);
  ASSIGN_OR_RETURN(const StoredImage written,
                   records_.Commit(std::move(steps), std::move(save), std::move(after)));
  const auto grown = Await<absl::StatusOr<engine::ImageInfo>>([&](auto done) {
    context_.engine.GrowImage(spec, ByteCount{written.resource.virtual_size_bytes()},
                              std::move(done));
  });
  steps = {Intents::Removing(name)};
  if (!grown.ok()) {
    RETURN_IF_ERROR(context_.requests.Forget(call.request, &steps));
    steps.push_back(records_.Saving(before.resource, written.revision));
    RETURN_IF_ERROR(CommitOrAgain(name, steps));
    return FromEngine(grown.status(), About(written.resource));
  }
  v1::Image row = written.resource;
  row.set_observed_generation(row.generation());
  for (const std::string& exported : context_.index.ExportsOf(name)) {
    steps.push_back(Touch(kExports, exported));  // it has another size for new clients
  }
  const v1::Image told =
      TellImage(row, grown, {context_.index, context_.chains}, context_.conditions);
  RETURN_IF_ERROR(context_.requests.Answer(call.request, told, &steps));
  steps.push_back(records_.Saving(row, written.revision));
  RETURN_IF_ERROR(CommitOrAgain(name, steps));
  return told;
}

// If it cannot be written now how the growth ended, the intent stays, and it is tried again.
absl::Status ImageManager::CommitOrAgain(const std::string& name,
                                         const std::vector<Mutation>& steps) {
  absl::Status written = context_.store.Commit(steps).status();
  if (!written.ok()) reconciler_.AddFailed(name);
  return written;
}

absl::Status ImageManager::CheckDeletable(const v1::Image& image) const {
  if (image.operation().empty()) return absl::OkStatus();
  return Error(reason::kOperationInProgress,
               absl::StrCat(image.name(), " is in ", v1::Image::State_Name(image.state()), "."))
      .Metadata("operation", image.operation());
}

absl::Status ImageManager::CheckNotWorkedOn(const std::string& name) const {
  ASSIGN_OR_RETURN(const StoredImage stored, records_.Get(name));
  return CheckDeletable(stored.resource);
}

absl::Status ImageManager::CheckUnused(const v1::Image& image) const {
  const std::vector<std::string> exports = context_.index.ExportsOf(image.name());
  if (exports.empty()) return absl::OkStatus();
  return Error(reason::kImageInUse,
               absl::StrCat(image.name(), " is served by ", exports.size(), " export(s)."))
      .Metadata("image", image.name())
      .MetadataList("exports", exports)
      .Precondition(image.name(), "Delete the exports of the image first.");
}

absl::Status ImageManager::CheckNothingStandsOn(const std::string& name) const {
  const std::vector<std::string> images = context_.chains.ImagesOn(name);
  if (images.empty()) return absl::OkStatus();
  return Error(reason::kImageHasDependents,
               absl::StrCat(images.size(), " image(s) stand on ", name, "."))
      .Metadata("image", name)
      .MetadataList("dependents", images)
      .Precondition(name, "What other images stand on does not change and stays.");
}

absl::StatusOr<Operation> ImageManager::Delete(const v1::DeleteImageRequest& request,
                                               const Call& call) {
  RETURN_IF_ERROR(CheckRetention(request));
  std::string operation;
  {
    ASSIGN_OR_RETURN(const ResourceLocks::Guard lock,
                     context_.locks.LockFor(call.patience, {request.name()}));
    RETURN_IF_ERROR(SettleGrowth(request.name()));
    ASSIGN_OR_RETURN(const std::optional<StoredImage> stored, records_.Find(request.name()));
    if (!stored.has_value()) {
      if (!request.allow_missing()) return NotFound(kImageType, request.name());
      const Operation nothing = Unnamed(google::protobuf::Empty());
      std::vector<Mutation> steps;
      RequestLog::BeginAnswered(call, nothing, &steps);
      if (!steps.empty()) RETURN_IF_ERROR(context_.store.Commit(steps).status());
      return nothing;
    }
    RETURN_IF_ERROR(CheckEtag(request.etag(), ShowOne(stored->resource)));
    RETURN_IF_ERROR(CheckDeletable(stored->resource));
    if (request.mode() == v1::DeleteImageRequest::MODE_TOMBSTONE) {
      return Bury(*stored, request, call);
    }
    RETURN_IF_ERROR(CheckUnused(stored->resource));
    RETURN_IF_ERROR(CheckNothingStandsOn(request.name()));
    const absl::Status removable = Await<absl::Status>([&](auto done) {
      context_.engine.CheckRemoval(SpecOf(stored->resource), std::move(done));
    });
    if (!removable.ok()) return FromEngine(removable, About(stored->resource));
    if (call.validate_only) return Unnamed(google::protobuf::Empty());
    ASSIGN_OR_RETURN(operation, Purge(*stored, call));
  }
  return context_.operations.Start(operation);
}

absl::StatusOr<std::string> ImageManager::Purge(const StoredImage& stored, const Call& call) {
  v1::Image image = stored.resource;
  store::v1::Job job;
  job.mutable_removal();
  std::vector<Mutation> steps;
  ASSIGN_OR_RETURN(
      const std::string operation,
      context_.operations.Begin(call, v1::JobMetadata::KIND_DELETE, image.name(), job, &steps));
  image.set_state(v1::Image::STATE_DELETING);
  NoteTransition(kReady, false, Now(), image.mutable_conditions());
  image.clear_state_error();
  image.set_operation(operation);
  steps.push_back(records_.Saving(image, stored.revision));
  const absl::Status begun = context_.store.Commit(steps).status();
  if (!begun.ok()) context_.operations.StartIfBegun(operation);
  RETURN_IF_ERROR(begun);
  return operation;
}

// Makes a tombstone of the image.
absl::StatusOr<Operation> ImageManager::Bury(const StoredImage& stored,
                                             const v1::DeleteImageRequest& request,
                                             const Call& call) {
  if (call.validate_only) return Unnamed(google::protobuf::Empty());
  v1::Image image = stored.resource;
  const google::protobuf::Timestamp now = Now();
  if (!image.has_delete_time()) *image.mutable_delete_time() = now;
  NoteTransition(kReady, false, now, image.mutable_conditions());
  NoteTransition(kDeleted, true, now, image.mutable_conditions());
  *image.mutable_purge_time() = now + request.retention();
  std::vector<Mutation> steps;
  const Operation operation = OperationManager::AddDone(
      call, v1::JobMetadata::KIND_DELETE, image.name(), google::protobuf::Empty(), &steps);
  steps.push_back(records_.Saving(image, stored.revision));
  RETURN_IF_ERROR(context_.store.Commit(steps).status());
  reconciler_.Add(image.name(), std::chrono::seconds(request.retention().seconds()));
  return operation;
}

absl::StatusOr<Operation> ImageManager::Undelete(const v1::UndeleteImageRequest& request,
                                                 const Call& call) {
  ASSIGN_OR_RETURN(const ResourceLocks::Guard lock,
                   context_.locks.LockFor(call.patience, {request.name()}));
  RETURN_IF_ERROR(SettleGrowth(request.name()));
  ASSIGN_OR_RETURN(const StoredImage stored, records_.Get(request.name()));
  RETURN_IF_ERROR(CheckEtag(request.etag(), ShowOne(stored.resource)));
  RETURN_IF_ERROR(CheckDeletable(stored.resource));
  if (!stored.resource.has_delete_time()) {
    return Error(reason::kImageNotDeleted, absl::StrCat(request.name(), " is not deleted."))
        .Metadata("image", request.name())
        .Precondition(request.name(), "The image must be a tombstone.");
  }
  v1::Image image = stored.resource;
  image.clear_delete_time();
  image.clear_purge_time();
  const google::protobuf::Timestamp now = Now();
  NoteTransition(kDeleted, false, now, image.mutable_conditions());
  if (image.state() == v1::Image::STATE_ACTIVE) {
    NoteTransition(kReady, true, now, image.mutable_conditions());
  }
  const v1::Image told = ShowOne(image);
  if (call.validate_only) return Unnamed(told);
  std::vector<Mutation> steps;
  Operation operation =
      OperationManager::AddDone(call, v1::JobMetadata::KIND_UNDELETE, image.name(), told, &steps);
  steps.push_back(records_.Saving(image, stored.revision));
  RETURN_IF_ERROR(context_.store.Commit(steps).status());
  return operation;
}

}  // namespace gabion::service
