#include "service/domain/image_manager.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "google/protobuf/util/time_util.h"
#include "service/domain/await.h"
#include "service/domain/identity.h"
#include "service/domain/image_care.h"
#include "service/domain/image_file.h"
#include "service/domain/image_jobs.h"
#include "service/domain/image_layout.h"
#include "service/domain/image_view.h"
#include "service/domain/list_query.h"
#include "service/domain/lister.h"
#include "service/domain/resource_diff.h"
#include "service/errors.h"
#include "service/names.h"

namespace gabion::service {
namespace {

using google::longrunning::Operation;

constexpr std::string_view kDefaultPool = "pools/default";
constexpr std::string_view kSizeField = "image.virtual_size_bytes";

absl::Status CheckDeclaredSize(const v1::Image& image, ByteCount size) {
  const uint64_t declared = image.virtual_size_bytes();
  if (declared == 0 || declared == size.value) return absl::OkStatus();
  const std::string message =
      absl::StrCat("The file has ", size.value, " bytes, not ", declared, ".");
  return Error(reason::kSizeMismatch, message)
      .Metadata("size", absl::StrCat(size.value))
      .Field(kSizeField, message);
}

absl::Status Deleted(const v1::Image& image, std::string_view field) {
  const std::string purge = google::protobuf::util::TimeUtil::ToString(image.purge_time());
  Error error(reason::kImageDeleted,
              absl::StrCat(image.name(), " is deleted, and is removed from ", purge, " on."));
  error.Metadata("image", image.name()).Metadata("purge-time", purge);
  error.Precondition(image.name(), "UndeleteImage brings the image back until it is removed.");
  if (!field.empty()) error.Field(field, "The image is deleted.");
  return error;
}

}  // namespace

ImageManager::ImageManager(const ManagerContext& context, const PoolManager& pools,
                           ReconcilerOptions reconciler)
    : context_(context),
      pools_(pools),
      records_(context.store, kImages, kImageType),
      reconciler_(reconciler, [this](const std::string& name) { return Reconcile(name); }) {
  const ImageReleased released = [this](const std::string& name) { Released(name); };
  context_.operations.Register(
      store::v1::Job::kBuild,
      [this, released](const std::string& /*operation*/, const v1::JobMetadata& metadata,
                       const store::v1::Job& job) {
        return NewBuildJob(context_, metadata, job, released);
      });
  context_.operations.Register(
      store::v1::Job::kRemoval,
      [this, released](const std::string& /*operation*/, const v1::JobMetadata& metadata,
                       const store::v1::Job& job) {
        return NewRemovalJob(context_, metadata, job, released);
      });
  context_.operations.Register(
      store::v1::Job::kCheck,
      [this](const std::string& /*operation*/, const v1::JobMetadata& metadata,
             const store::v1::Job& job) { return NewCheckJob(context_, metadata, job); });
  context_.operations.Register(
      store::v1::Job::kResize,
      [this](const std::string& /*operation*/, const v1::JobMetadata& metadata,
             const store::v1::Job& job) { return NewResizeJob(context_, metadata, job); });
}

absl::StatusOr<engine::ImageInfo> ImageManager::Stat(const engine::ImageSpec& spec) const {
  return Await<absl::StatusOr<engine::ImageInfo>>(
      [&](auto done) { context_.engine.StatImage(spec, std::move(done)); });
}

std::vector<v1::Image> ImageManager::Show(std::vector<v1::Image> rows) const {
  std::vector<engine::ImageSpec> specs;
  for (const v1::Image& row : rows) {
    if (HasFile(row)) specs.push_back(SpecOf(row));
  }
  std::vector<absl::StatusOr<engine::ImageInfo>> infos;
  if (!specs.empty()) {
    infos = Await<std::vector<absl::StatusOr<engine::ImageInfo>>>(
        [&](auto done) { context_.engine.StatImages(specs, std::move(done)); });
    infos.resize(specs.size(), absl::UnavailableError("The data plane has stopped."));
  }
  const absl::StatusOr<engine::ImageInfo> none = engine::ImageInfo();
  std::vector<v1::Image> images;
  std::size_t next = 0;
  for (v1::Image& row : rows) {
    const auto& info = HasFile(row) ? infos.at(next++) : none;
    images.push_back(
        TellImage(std::move(row), info, {context_.index, context_.chains}, context_.conditions));
  }
  return images;
}

v1::Image ImageManager::ShowOne(const v1::Image& row) const { return Show({row}).front(); }

absl::StatusOr<v1::Image> ImageManager::Get(const std::string& name) const {
  ASSIGN_OR_RETURN(const StoredImage stored, records_.Get(name));
  return ShowOne(stored.resource);
}

std::vector<absl::StatusOr<v1::Image>> ImageManager::GetMany(
    const std::vector<std::string>& names) const {
  std::vector<absl::StatusOr<StoredImage>> stored = records_.GetMany(names);
  std::vector<v1::Image> rows;
  for (const absl::StatusOr<StoredImage>& one : stored) {
    if (one.ok()) rows.push_back(one->resource);
  }
  std::vector<v1::Image> shown = Show(std::move(rows));
  std::vector<absl::StatusOr<v1::Image>> images;
  std::size_t next = 0;
  for (const absl::StatusOr<StoredImage>& one : stored) {
    if (one.ok()) {
      images.emplace_back(std::move(shown[next++]));
    } else {
      images.emplace_back(one.status());
    }
  }
  return images;
}

absl::StatusOr<v1::ListImagesResponse> ImageManager::List(
    const v1::ListImagesRequest& request) const {
  ASSIGN_OR_RETURN(const ListQuery query,
                   ListQuery::Parse(request, v1::Image::descriptor(), context_.tokens));
  const auto view = [&](const std::vector<Row>& rows) -> absl::StatusOr<std::vector<v1::Image>> {
    std::vector<v1::Image> images;
    for (const Row& row : rows) {
      ASSIGN_OR_RETURN(StoredImage stored, records_.Parse(row));
      if (stored.resource.has_delete_time() && !request.show_deleted()) continue;
      images.push_back(std::move(stored.resource));
    }
    return Show(std::move(images));
  };
  ASSIGN_OR_RETURN(Listed<v1::Image> listed,
                   ListRows<v1::Image>(context_.store, kImages, {}, query, view));
  v1::ListImagesResponse response;
  for (v1::Image& image : listed.resources) *response.add_images() = std::move(image);
  response.set_next_page_token(std::move(listed.next_page_token));
  response.set_revision(listed.revision);
  return response;
}

// `asked` with everything that is not asked for; refused if its name is taken.
absl::StatusOr<v1::Image> ImageManager::NewImage(const std::string& id,
                                                 const v1::Image& asked) const {
  v1::Image image = asked;
  image.set_name(MakeName(kImages, id));
  image.clear_etag();
  if (image.pool().empty()) image.set_pool(kDefaultPool.data(), kDefaultPool.size());
  RETURN_IF_ERROR(pools_.CheckExists(image.pool(), "image.pool"));
  ASSIGN_OR_RETURN(const std::optional<StoredImage> old, records_.Find(image.name()));
  if (old.has_value()) {
    // An import that leaves the size to its file.
    if (asked.virtual_size_bytes() == 0) {
      image.set_virtual_size_bytes(old->resource.virtual_size_bytes());
    }
    const bool leaves_layout = asked.has_qcow2() && asked.qcow2().cluster_size_bytes() == 0;
    if (leaves_layout && old->resource.has_qcow2()) {
      *image.mutable_qcow2() = old->resource.qcow2();
    }
    return ExistsAlready(image, old->resource, kImageType, image.name());
  }
  image.set_uid(NewUid());
  image.set_generation(1);
  *image.mutable_create_time() = Now();
  *image.mutable_update_time() = image.create_time();
  image.set_state(v1::Image::STATE_CREATING);
  return image;
}

absl::StatusOr<Operation> ImageManager::Create(const v1::CreateImageRequest& request,
                                               const Call& call) {
  const v1::Image& asked = request.image();
  if (asked.virtual_size_bytes() == 0 && asked.backing_image().empty()) {
    return Error(reason::kFieldRequired, "An image needs a size.")
        .Field(kSizeField, "Required: the size of the disk in bytes.");
  }
  store::v1::BuildWork work;
  work.set_preallocation(request.preallocation());
  return Build(request.image_id(), WithLayout(asked), v1::JobMetadata::KIND_CREATE, work, call);
}

absl::StatusOr<Operation> ImageManager::Import(const v1::ImportImageRequest& request,
                                               const Call& call) {
  RETURN_IF_ERROR(CheckNoLayout(request.image()));
  store::v1::BuildWork work;
  ASSIGN_OR_RETURN(*work.mutable_source_file(), NormalizeFileName(request.source_file()));
  work.set_move(request.move());
  return Build(request.image_id(), request.image(), v1::JobMetadata::KIND_IMPORT, work, call);
}

absl::StatusOr<Operation> ImageManager::Build(const std::string& id, const v1::Image& asked,
                                              v1::JobMetadata::Kind kind,
                                              const store::v1::BuildWork& work, const Call& call) {
  std::string operation;
  {
    std::vector<std::string> names = {MakeName(kImages, id)};
    if (const auto owner = ImageOfFileName(work.source_file())) names.push_back(*owner);
    if (!asked.backing_image().empty()) names.push_back(asked.backing_image());
    ASSIGN_OR_RETURN(const ResourceLocks::Guard lock, context_.locks.LockFor(call.patience, names));
    ASSIGN_OR_RETURN(v1::Image image, NewImage(id, asked));
    if (!work.source_file().empty()) RETURN_IF_ERROR(CheckNotOwned(image, work.source_file()));
    if (!image.backing_image().empty()) {
      RETURN_IF_ERROR(SettleGrowth(image.backing_image()));
      RETURN_IF_ERROR(CheckBacking(&image, kind));
    }
    ASSIGN_OR_RETURN(const engine::ImageBuild build, BuildOf(records_, image, work));
    const auto planned = Await<absl::StatusOr<engine::BuildProgress>>(
        [&](auto done) { context_.engine.CheckBuild(build, std::move(done)); });
    if (!planned.ok()) return BuildError(planned.status(), image, work);
    const ByteCount size = planned->info.virtual_size;
    RETURN_IF_ERROR(CheckDeclaredSize(image, size));
    image.set_virtual_size_bytes(size.value);  // a source's, where none was given
    if (call.validate_only) return Unnamed(TellTrial(std::move(image), size));
    store::v1::Job job;
    *job.mutable_build() = work;
    std::vector<Mutation> steps;
    ASSIGN_OR_RETURN(operation, context_.operations.Begin(call, kind, image.name(), job, &steps));
    image.set_operation(operation);
    const std::string backing = image.backing_image();
    if (!backing.empty()) {
      context_.chains.Add(image.name(), backing);
      steps.push_back(Touch(kImages, backing));  // a dependent more
    }
    Mutation add = records_.Adding(image);
    const std::string name = image.name();
    const absl::Status begun =
        records_.Commit(std::move(steps), std::move(add), std::move(image)).status();
    if (!begun.ok() && !backing.empty() && absl::IsNotFound(records_.Get(name).status())) {
      context_.chains.Remove(name);
    }
    if (!begun.ok()) context_.operations.StartIfBegun(operation);
    RETURN_IF_ERROR(begun);
  }
  return context_.operations.Start(operation);
}

// The image that a build would make, told without a trace. `size`: a source's, where none was
// given.
v1::Image ImageManager::TellTrial(v1::Image image, ByteCount size) const {
  image.set_state(v1::Image::STATE_ACTIVE);
  image.set_virtual_size_bytes(size.value);
  image.set_observed_generation(image.generation());
  engine::ImageInfo info;
  info.virtual_size = size;
  ConditionLog trial(context_.conditions, image.uid());
  return TellImage(std::move(image), info, {context_.index, context_.chains}, trial);
}

absl::Status ImageManager::CheckNotOwned(const v1::Image& image,
                                         const std::string& source_file) const {
  const std::optional<std::string> owner = ImageOfFileName(source_file);
  if (!owner.has_value()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::optional<StoredImage> other, records_.Find(*owner));
  if (!other.has_value() || other->resource.pool() != image.pool()) return absl::OkStatus();
  const std::string message = absl::StrCat("The file belongs to ", *owner, ".");
  return Error(reason::kImageInUse, message)
      .Metadata("image", *owner)
      .Field("source_file", message)
      .Precondition(*owner, "The file of an image cannot be imported.");
}

absl::StatusOr<engine::ImageSpec> ImageManager::UsableSpec(const std::string& name,
                                                           std::string_view field,
                                                           bool tombstones) const {
  ASSIGN_OR_RETURN(const StoredImage stored, records_.Get(name, field));
  const v1::Image& image = stored.resource;
  const bool active = image.state() == v1::Image::STATE_ACTIVE;
  if (active && image.has_delete_time() && !tombstones) return Deleted(image, field);
  if (active) return ChainSpec(records_, image);
  Error error(reason::kImageNotActive,
              absl::StrCat(name, " is in ", v1::Image::State_Name(image.state()), "."));
  error.Metadata("image", name).Precondition(name, "The image must be in STATE_ACTIVE.");
  if (!field.empty()) error.Field(field, "The image is not usable.");
  return error;
}

absl::StatusOr<engine::ImageSpec> ImageManager::ActiveSpec(const std::string& name,
                                                           std::string_view field) const {
  return UsableSpec(name, field, false);
}

absl::StatusOr<engine::ImageSpec> ImageManager::ServedSpec(const std::string& name,
                                                           std::string_view field) const {
  return UsableSpec(name, field, true);
}

}  // namespace gabion::service
