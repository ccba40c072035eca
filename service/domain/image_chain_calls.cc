// The part of ImageManager for images that stand on others, and for looking after images.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "gabion/v1/export.pb.h"
#include "google/rpc/error_details.pb.h"
#include "service/domain/await.h"
#include "service/domain/filter_stack.h"
#include "service/domain/image_file.h"
#include "service/domain/image_jobs.h"
#include "service/domain/image_layout.h"
#include "service/domain/image_manager.h"
#include "service/domain/image_view.h"
#include "service/errors.h"
#include "service/etag.h"
#include "service/names.h"

namespace gabion::service {
namespace {

using google::longrunning::Operation;

constexpr std::size_t kDeepestChain = 64;
constexpr std::size_t kExtentsAtOnce = 4096;
constexpr std::string_view kBackingField = "image.backing_image";

absl::Status Refuse(const std::string& field, const std::string& message) {
  return Error(reason::kFieldInvalid, message).Field(field, message);
}

// Where a CloneImageRequest says what a CreateImageRequest says at `field`.
std::string FieldOfClone(std::string_view field) {
  constexpr std::string_view kImage = "image.";
  if (field == kBackingField) return "source";
  return std::string(field.starts_with(kImage) ? field.substr(kImage.size()) : field);
}

// An error of a creation as one of the clone that it was asked for as.
absl::Status ErrorOfClone(const absl::Status& error) {
  if (absl::IsInternal(error) || absl::IsUnknown(error)) return error;
  google::rpc::Status told = ToRpcStatus(error);
  for (google::protobuf::Any& any : *told.mutable_details()) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest bad;
    if (any.UnpackTo(&info)) {
      const auto field = info.mutable_metadata()->find("field");
      if (field == info.mutable_metadata()->end()) continue;
      field->second = FieldOfClone(field->second);
      any.PackFrom(info);
    } else if (any.UnpackTo(&bad)) {
      for (auto& violation : *bad.mutable_field_violations()) {
        violation.set_field(FieldOfClone(violation.field()));
      }
      any.PackFrom(bad);
    }
  }
  return FromRpcStatus(told);
}

}  // namespace

absl::Status ImageManager::CheckBacking(v1::Image* image, v1::JobMetadata::Kind kind) const {
  const std::string& name = image->backing_image();
  const std::string field(kBackingField);
  if (name == image->name()) return Refuse(field, "An image does not stand on itself.");
  if (!image->has_qcow2()) return Refuse(field, "Only a qcow2 image can have a backing image.");
  ASSIGN_OR_RETURN(const engine::ImageSpec spec, ActiveSpec(name, kBackingField));
  ASSIGN_OR_RETURN(const StoredImage backing, records_.Get(name, kBackingField));
  RETURN_IF_ERROR(CheckDeletable(backing.resource));
  if (backing.resource.pool() != image->pool()) {
    return Refuse(field, absl::StrCat("The image is in ", backing.resource.pool(),
                                      "; a backing image is in the same pool."));
  }
  if (spec.backing.size() + 2 > kDeepestChain) {
    const std::string message = absl::StrCat("A chain has at most ", kDeepestChain, " images.");
    return Error(reason::kChainTooDeep, message)
        .Metadata("image", name)
        .Field(kBackingField, message)
        .Precondition(name, message);
  }
  RETURN_IF_ERROR(CheckNobodyWrites(name));
  if (kind == v1::JobMetadata::KIND_CREATE && image->virtual_size_bytes() == 0) {
    const absl::StatusOr<engine::ImageInfo> info = Stat(spec);
    if (!info.ok()) return FromEngine(info.status(), About(backing.resource));
    image->set_virtual_size_bytes(info->virtual_size.value);
  }
  return absl::OkStatus();
}

// A change that may yet be taken back counts as what it was before, too.
absl::StatusOr<bool> ImageManager::Writes(const v1::Export& exported,
                                          const std::string& image) const {
  const Records<v1::Filter> filters(context_.store, kFilters, kFilterType);
  const auto now = [&](const std::string& name) -> std::optional<v1::FilterSpec> {
    const absl::StatusOr<Stored<v1::Filter>> filter = filters.Get(name);
    if (!filter.ok()) return std::nullopt;
    return filter->resource.spec();
  };
  const auto before = [&](const std::string& name) -> std::optional<v1::FilterSpec> {
    const absl::StatusOr<std::optional<store::v1::Intent>> change = context_.intents.Find(name);
    const bool changes = change.ok() && change->has_value() && (*change)->has_update_filter();
    return changes ? (*change)->update_filter().spec() : now(name);
  };
  ASSIGN_OR_RETURN(const std::optional<store::v1::Intent> change,
                   context_.intents.Find(exported.name()));
  const bool changes = change.has_value() && change->has_update_export();
  const v1::Export& earlier = changes ? change->update_export() : exported;
  for (const v1::Export* const version : {&exported, &earlier}) {
    if (ImagesWrittenBy(*version, now).contains(image)) return true;
    if (ImagesWrittenBy(*version, before).contains(image)) return true;
  }
  return false;
}

absl::Status ImageManager::CheckNobodyWrites(const std::string& name) const {
  const Records<v1::Export> exports(context_.store, kExports, kExportType);
  std::vector<std::string> writers;
  for (const std::string& exported : context_.index.ExportsOf(name)) {
    ASSIGN_OR_RETURN(const auto stored, exports.Find(exported));
    if (!stored.has_value()) continue;
    ASSIGN_OR_RETURN(const bool writes, Writes(stored->resource, name));
    if (writes) writers.push_back(exported);
  }
  if (writers.empty()) return absl::OkStatus();
  return Error(reason::kImageInUse,
               absl::StrCat(name, " is written to by ", writers.size(), " export(s)."))
      .Metadata("image", name)
      .MetadataList("exports", writers)
      .Precondition(name, "Make the exports of the image read-only, or delete them, first.");
}

absl::StatusOr<Operation> ImageManager::Clone(const v1::CloneImageRequest& request,
                                              const Call& call) {
  ASSIGN_OR_RETURN(const StoredImage source, records_.Get(request.source(), "source"));
  v1::Image image;
  image.set_pool(source.resource.pool());
  image.set_backing_image(request.source());
  image.set_virtual_size_bytes(request.virtual_size_bytes());
  *image.mutable_labels() = request.labels();
  *image.mutable_qcow2() = request.qcow2();
  absl::StatusOr<Operation> operation =
      Build(request.image_id(), WithLayout(image), v1::JobMetadata::KIND_CREATE, {}, call);
  if (!operation.ok()) return ErrorOfClone(operation.status());
  return operation;
}

// An operation that works on an active image, which stays one.
absl::StatusOr<std::string> ImageManager::BeginCare(StoredImage stored, v1::JobMetadata::Kind kind,
                                                    const store::v1::Job& job, const Call& call) {
  std::vector<Mutation> steps;
  ASSIGN_OR_RETURN(const std::string operation,
                   context_.operations.Begin(call, kind, stored.resource.name(), job, &steps));
  stored.resource.set_operation(operation);
  steps.push_back(records_.Saving(stored.resource, stored.revision));
  const absl::Status begun = context_.store.Commit(steps).status();
  if (!begun.ok()) context_.operations.StartIfBegun(operation);
  RETURN_IF_ERROR(begun);
  return operation;
}

// The image has the size that is asked for.
absl::StatusOr<Operation> ImageManager::AnswerResized(const v1::Image& shown, const Call& call) {
  if (call.validate_only) return Unnamed(shown);
  std::vector<Mutation> steps;
  Operation operation =
      OperationManager::AddDone(call, v1::JobMetadata::KIND_RESIZE, shown.name(), shown, &steps);
  RETURN_IF_ERROR(context_.store.Commit(steps).status());
  return operation;
}

absl::StatusOr<Operation> ImageManager::Resize(const v1::ResizeImageRequest& request,
                                               const Call& call) {
  const std::string& name = request.name();
  const uint64_t size = request.virtual_size_bytes();
  std::string operation;
  {
    ASSIGN_OR_RETURN(const ResourceLocks::Guard lock,
                     context_.locks.LockFor(call.patience, {name}));
    RETURN_IF_ERROR(SettleGrowth(name));
    ASSIGN_OR_RETURN(const StoredImage stored, records_.Get(name));
    const v1::Image shown = ShowOne(stored.resource);
    RETURN_IF_ERROR(CheckEtag(request.etag(), shown));
    RETURN_IF_ERROR(CheckDeletable(stored.resource));
    RETURN_IF_ERROR(ActiveSpec(name).status());
    if (shown.has_state_error()) return FromRpcStatus(shown.state_error());
    RETURN_IF_ERROR(CheckNothingStandsOn(name));
    if (size == shown.virtual_size_bytes()) return AnswerResized(shown, call);
    if (size < shown.virtual_size_bytes()) {
      if (!request.allow_shrink()) {
        const std::string message = absl::StrCat("The image has ", shown.virtual_size_bytes(),
                                                 " bytes; to make it smaller, set allow_shrink.");
        return Error(reason::kShrinkNotAllowed, message).Field("virtual_size_bytes", message);
      }
      RETURN_IF_ERROR(CheckUnused(stored.resource));
    }
    v1::Image after = stored.resource;
    after.set_virtual_size_bytes(size);
    after.set_generation(after.generation() + 1);
    after.set_observed_generation(after.generation());
    if (size > shown.virtual_size_bytes()) RETURN_IF_ERROR(CheckFits(after, "virtual_size_bytes"));
    if (call.validate_only) {
      v1::Image told = ShowOne(after);
      told.set_virtual_size_bytes(size);  // its file has the old one
      return Unnamed(told);
    }
    store::v1::Job job;
    job.mutable_resize()->set_virtual_size_bytes(size);
    job.mutable_resize()->set_generation(stored.resource.generation());
    ASSIGN_OR_RETURN(operation, BeginCare(stored, v1::JobMetadata::KIND_RESIZE, job, call));
  }
  return context_.operations.Start(operation);
}

// What is served has all the images below it open.
absl::Status ImageManager::CheckNoDependentIsServed(const std::string& name) const {
  std::vector<std::string> served;
  std::vector<std::string> left = context_.chains.ImagesOn(name);
  while (!left.empty()) {
    const std::string image = std::move(left.back());
    left.pop_back();
    if (!context_.index.ExportsOf(image).empty()) served.push_back(image);
    const std::vector<std::string> more = context_.chains.ImagesOn(image);
    left.insert(left.end(), more.begin(), more.end());
  }
  if (served.empty()) return absl::OkStatus();
  std::sort(served.begin(), served.end());
  return Error(reason::kImageHasDependents,
               absl::StrCat(served.size(), " image(s) that stand on ", name, " are served."))
      .Metadata("image", name)
      .MetadataList("dependents", served)
      .Precondition(name, "Delete the exports of the images that stand on it first.");
}

absl::StatusOr<Operation> ImageManager::Check(const v1::CheckImageRequest& request,
                                              const Call& call) {
  const std::string& name = request.name();
  std::string operation;
  {
    ASSIGN_OR_RETURN(const ResourceLocks::Guard lock,
                     context_.locks.LockFor(call.patience, {name}));
    RETURN_IF_ERROR(SettleGrowth(name));
    ASSIGN_OR_RETURN(const StoredImage stored, records_.Get(name));
    RETURN_IF_ERROR(CheckDeletable(stored.resource));
    RETURN_IF_ERROR(ActiveSpec(name).status());
    if (!stored.resource.has_qcow2()) {
      constexpr std::string_view kMessage = "A raw image has no tables that could be checked.";
      return Error(reason::kFeatureUnsupported, kMessage)
          .Metadata("image", name)
          .Metadata("feature", "check")
          .Precondition(name, kMessage);
    }
    const bool repairs = request.repair() == v1::CheckImageRequest::REPAIR_LEAKS ||
                         request.repair() == v1::CheckImageRequest::REPAIR_ALL;
    RETURN_IF_ERROR(repairs ? CheckUnused(stored.resource) : CheckNobodyWrites(name));
    if (repairs) RETURN_IF_ERROR(CheckNoDependentIsServed(name));
    const v1::Image shown = ShowOne(stored.resource);
    if (shown.state() == v1::Image::STATE_UNAVAILABLE) return FromRpcStatus(shown.state_error());
    if (call.validate_only) return Unnamed(v1::CheckImageResponse());
    store::v1::Job job;
    job.mutable_check()->set_repair(request.repair());
    ASSIGN_OR_RETURN(operation, BeginCare(stored, v1::JobMetadata::KIND_CHECK, job, call));
  }
  return context_.operations.Start(operation);
}

// Bytes of the clusters that hold anything but zeros.
absl::StatusOr<ByteCount> ImageManager::DataIn(const std::string& source,
                                               uint64_t cluster_size) const {
  ASSIGN_OR_RETURN(const engine::ImageSpec spec, ActiveSpec(source, "source"));
  EngineCall about;
  about.image = source;
  const auto target = Await<absl::StatusOr<std::unique_ptr<engine::Target>>>(
      [&](auto done) { context_.engine.OpenImageTarget(spec, false, std::move(done)); });
  if (!target.ok()) return FromEngine(target.status(), about);
  const uint64_t size = (*target)->content_size().value;
  uint64_t clusters = 0;
  uint64_t counted_to = 0;  // clusters before this are counted
  for (uint64_t at = 0; at < size;) {
    const auto extents = Await<absl::StatusOr<block::ExtentList>>(
        [&](auto done) { (*target)->Map(Range(at, size - at), kExtentsAtOnce, std::move(done)); });
    if (!extents.ok()) return FromEngine(extents.status(), about);
    if (extents->empty()) return absl::InternalError("The map of a disk ended before its end.");
    for (const block::Extent& extent : *extents) {
      if (block::ReadsZero(extent.kind)) continue;
      const uint64_t first = std::max(extent.range.offset.value / cluster_size, counted_to);
      const uint64_t end = (extent.range.end().value - 1) / cluster_size + 1;
      clusters += end - std::min(end, first);
      counted_to = std::max(counted_to, end);
    }
    at = extents->back().range.end().value;
  }
  return ByteCount{clusters * cluster_size};
}

absl::StatusOr<v1::MeasureImageResponse> ImageManager::Measure(
    const v1::MeasureImageRequest& request) const {
  v1::Image image = WithLayout(request.image());
  if (image.virtual_size_bytes() == 0 && request.source().empty()) {
    return Error(reason::kFieldRequired, "An image needs a size, or a source.")
        .Field("image.virtual_size_bytes", "Required without a source.");
  }
  ByteCount data;
  if (!request.source().empty()) {
    ASSIGN_OR_RETURN(const StoredImage source, records_.Get(request.source(), "source"));
    if (image.virtual_size_bytes() == 0) {
      image.set_virtual_size_bytes(ShowOne(source.resource).virtual_size_bytes());
    }
    const uint64_t unit = image.has_qcow2() ? image.qcow2().cluster_size_bytes() : 512;
    ASSIGN_OR_RETURN(data, DataIn(request.source(), unit));
  }
  if (!image.backing_image().empty()) {
    const std::string field(kBackingField);
    if (!image.has_qcow2()) return Refuse(field, "Only a qcow2 image can have a backing image.");
    RETURN_IF_ERROR(ActiveSpec(image.backing_image(), kBackingField).status());
  }
  ASSIGN_OR_RETURN(const engine::ImageBuild build, BuildOf(records_, image, {}));
  const absl::StatusOr<engine::MeasuredImage> measured = engine::MeasureImage(build, data);
  if (!measured.ok()) return FromEngine(measured.status(), About(image));
  v1::MeasureImageResponse response;
  response.set_required_bytes(measured->required.value);
  response.set_fully_allocated_bytes(measured->fully_allocated.value);
  return response;
}

}  // namespace gabion::service
