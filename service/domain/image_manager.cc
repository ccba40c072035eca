#include "service/domain/image_manager.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "service/domain/await.h"
#include "service/domain/engine_errors.h"
#include "service/domain/identity.h"
#include "service/domain/image_file.h"
#include "service/domain/resource_diff.h"
#include "service/errors.h"
#include "service/names.h"
#include "service/validate.h"

namespace gabion::service {
namespace {

constexpr std::string_view kDefaultPool = "pools/default";
constexpr std::string_view kSizeField = "image.virtual_size_bytes";

EngineCall About(const v1::Image& image) {
  EngineCall call;
  call.image = image.name();
  call.pool = image.pool();
  call.size_field = kSizeField;
  return call;
}

absl::Status SizeRequired() {
  return Error(reason::kFieldRequired, "An image needs a size.")
      .Field(kSizeField, "Required: the size of the disk in bytes.");
}

}  // namespace

ImageManager::ImageManager(const ManagerContext& context, const PoolManager& pools)
    : context_(context), pools_(pools), records_(context.store, kImages, kImageType) {}

absl::StatusOr<engine::ImageInfo> ImageManager::Stat(const engine::ImageSpec& spec) const {
  return Await<absl::StatusOr<engine::ImageInfo>>(
      [&](auto done) { context_.engine.StatImage(spec, std::move(done)); });
}

absl::Status ImageManager::RemoveFile(const engine::ImageSpec& spec) {
  return Await<absl::Status>(
      [&](auto done) { context_.engine.DeleteImage(spec, std::move(done)); });
}

void ImageManager::Forget(const StoredImage& stored) {
  const absl::Status status = records_.Erase(stored);
  if (status.ok()) return;
  context_.logger.Log(
      LogLevel::kError, "images",
      absl::StrCat("The unfinished creation of ", stored.resource.name(),
                   " could not be undone and will be at the next start: ", status.ToString()));
}

// `asked` with everything that is not asked for; refused if its name is taken.
absl::StatusOr<v1::Image> ImageManager::NewImage(const std::string& id,
                                                 const v1::Image& asked) const {
  v1::Image image = asked;
  image.set_name(MakeName(kImages, id));
  if (image.pool().empty()) image.set_pool(kDefaultPool.data(), kDefaultPool.size());
  RETURN_IF_ERROR(pools_.CheckExists(image.pool(), "image.pool"));
  ASSIGN_OR_RETURN(const std::optional<StoredImage> old, records_.Find(image.name()));
  if (old.has_value()) return ExistsAlready(image, old->resource, kImageType, image.name());
  image.set_uid(NewUid());
  image.set_generation(1);
  *image.mutable_create_time() = Now();
  *image.mutable_update_time() = image.create_time();
  image.set_state(v1::Image::STATE_CREATING);
  return image;
}

absl::StatusOr<v1::Image> ImageManager::Create(const v1::CreateImageRequest& request) {
  const std::string name = MakeName(kImages, request.image_id());
  const ResourceLocks::Guard lock = context_.locks.Lock({name});
  if (request.image().virtual_size_bytes() == 0) return SizeRequired();
  ASSIGN_OR_RETURN(v1::Image image, NewImage(request.image_id(), request.image()));
  ASSIGN_OR_RETURN(StoredImage creating, records_.Add(std::move(image)));
  const ByteCount size{creating.resource.virtual_size_bytes()};
  const auto made = Await<absl::StatusOr<engine::ImageInfo>>([&](auto done) {
    context_.engine.CreateImage(SpecOf(creating.resource), size, std::move(done));
  });
  return FinishCreation(std::move(creating), made);
}

absl::StatusOr<v1::Image> ImageManager::FinishCreation(
    StoredImage creating, const absl::StatusOr<engine::ImageInfo>& made) {
  if (!made.ok()) {  // and then the engine has left no file
    Forget(creating);
    return FromEngine(made.status(), About(creating.resource));
  }
  v1::Image image = creating.resource;
  image.set_state(v1::Image::STATE_ACTIVE);
  image.set_virtual_size_bytes(made->virtual_size.value);
  absl::StatusOr<StoredImage> active = records_.Save(image, creating.revision);
  if (!active.ok()) return active.status();
  image.set_allocated_bytes(made->allocated.value);
  return image;
}

// What can be known to be wrong with the source before anything is done.
absl::Status ImageManager::CheckSource(const v1::ImportImageRequest& request,
                                       const v1::Image& image,
                                       const std::string& source_file) const {
  const std::optional<std::string> owner = ImageOfFileName(source_file);
  if (owner.has_value()) {
    ASSIGN_OR_RETURN(const std::optional<StoredImage> other, records_.Find(*owner));
    if (other.has_value() && other->resource.pool() == image.pool()) {
      return Error(reason::kImageInUse, absl::StrCat("The file belongs to ", *owner, "."))
          .Metadata("image", *owner)
          .Field("source_file", "Is the file of an image.")
          .Precondition(*owner, "Delete the image, or copy its content as a client.");
    }
  }
  engine::ImageSpec source = SpecOf(image);
  source.uid.clear();
  source.file_name = source_file;
  const absl::StatusOr<engine::ImageInfo> found = Stat(source);
  EngineCall call = About(image);
  call.file_field = "source_file";
  RETURN_IF_ERROR(FromEngine(found.status(), call));
  const uint64_t declared = request.image().virtual_size_bytes();
  if (declared != 0 && declared != found->virtual_size.value) {
    const std::string message =
        absl::StrCat("The file has ", found->virtual_size.value, " bytes, not ", declared, ".");
    return Error(reason::kSizeMismatch, message)
        .Metadata("size", absl::StrCat(found->virtual_size.value))
        .Field(kSizeField, message);
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::Image> ImageManager::Import(const v1::ImportImageRequest& request) {
  ASSIGN_OR_RETURN(const std::string source_file, NormalizeFileName(request.source_file()));
  std::vector<std::string> names = {MakeName(kImages, request.image_id())};
  if (const auto owner = ImageOfFileName(source_file)) names.push_back(*owner);
  const ResourceLocks::Guard lock = context_.locks.Lock(std::move(names));
  ASSIGN_OR_RETURN(v1::Image image, NewImage(request.image_id(), request.image()));
  RETURN_IF_ERROR(CheckSource(request, image, source_file));
  v1::ImportImageRequest intent = request;
  intent.set_source_file(source_file);
  ASSIGN_OR_RETURN(StoredImage creating, records_.Add(std::move(image), &intent));
  const auto made = Await<absl::StatusOr<engine::ImageInfo>>([&](auto done) {
    context_.engine.ImportImage(SpecOf(creating.resource), source_file, request.move(),
                                std::move(done));
  });
  if (!made.ok()) {
    Forget(creating);
    EngineCall call = About(creating.resource);
    call.file_field = "source_file";
    return FromEngine(made.status(), call);
  }
  return FinishCreation(std::move(creating), made);
}

// `image` as it is now.
absl::StatusOr<v1::Image> ImageManager::Observe(v1::Image image) const {
  if (image.state() != v1::Image::STATE_ACTIVE) return image;
  const absl::StatusOr<engine::ImageInfo> info = Stat(SpecOf(image));
  if (info.ok()) {
    image.set_virtual_size_bytes(info->virtual_size.value);
    image.set_allocated_bytes(info->allocated.value);
  } else {
    image.set_state(v1::Image::STATE_UNAVAILABLE);
    *image.mutable_state_error() = ToRpcStatus(FromEngine(info.status(), About(image)));
  }
  return image;
}

absl::StatusOr<v1::Image> ImageManager::Get(const std::string& name) const {
  ASSIGN_OR_RETURN(const StoredImage stored, records_.Get(name));
  return Observe(stored.resource);
}

absl::StatusOr<v1::ListImagesResponse> ImageManager::List(
    const v1::ListImagesRequest& request) const {
  ASSIGN_OR_RETURN(Listed<v1::Image> listed,
                   records_.List(context_.tokens, request.page_size(), request.page_token()));
  v1::ListImagesResponse response;
  for (v1::Image& image : listed.resources) {
    ASSIGN_OR_RETURN(*response.add_images(), Observe(std::move(image)));
  }
  response.set_next_page_token(std::move(listed.next_page_token));
  response.set_revision(listed.revision);
  return response;
}

absl::Status ImageManager::CheckGrowth(const v1::Image& before, const v1::Image& after) const {
  const uint64_t old_size = before.virtual_size_bytes();
  const uint64_t new_size = after.virtual_size_bytes();
  if (new_size == 0) return SizeRequired();
  if (new_size < old_size) {
    const std::string message =
        absl::StrCat("The image has ", old_size, " bytes and cannot shrink", " to ", new_size, ".");
    return Error(reason::kShrinkNotAllowed, message).Field(kSizeField, message);
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::Image> ImageManager::Update(const v1::UpdateImageRequest& request) {
  const std::string& name = request.image().name();
  const ResourceLocks::Guard lock = context_.locks.Lock({name});
  ASSIGN_OR_RETURN(const StoredImage stored, records_.Get(name));
  ASSIGN_OR_RETURN(const v1::Image before, Observe(stored.resource));
  v1::Image after = before;
  ASSIGN_OR_RETURN(const bool changed, ApplyUpdate(request, &after));
  if (!changed) return before;
  RETURN_IF_ERROR(CheckGrowth(before, after));
  after.set_generation(before.generation() + 1);
  *after.mutable_update_time() = Now();
  const bool grows = after.virtual_size_bytes() != before.virtual_size_bytes();
  if (grows) RETURN_IF_ERROR(ActiveSpec(name).status());

  v1::Image row = after;  // what is observed is not stored
  row.set_state(stored.resource.state());
  row.clear_state_error();
  row.clear_allocated_bytes();
  ASSIGN_OR_RETURN(const StoredImage written,
                   records_.Save(row, stored.revision, grows ? &request : nullptr));
  if (!grows) return after;

  const auto grown = Await<absl::StatusOr<engine::ImageInfo>>([&](auto done) {
    context_.engine.GrowImage(SpecOf(row), ByteCount{row.virtual_size_bytes()}, std::move(done));
  });
  if (!grown.ok()) {
    RETURN_IF_ERROR(records_.Save(stored.resource, written.revision).status());
    return FromEngine(grown.status(), About(row));
  }
  RETURN_IF_ERROR(records_.Save(row, written.revision).status());
  after.set_allocated_bytes(grown->allocated.value);
  return after;
}

absl::StatusOr<google::protobuf::Empty> ImageManager::Delete(const std::string& name) {
  const ResourceLocks::Guard lock = context_.locks.Lock({name});
  ASSIGN_OR_RETURN(const StoredImage stored, records_.Get(name));
  const std::vector<std::string> exports = context_.index.ExportsOf(name);
  if (!exports.empty()) {
    return Error(reason::kImageInUse,
                 absl::StrCat(name, " is served by ", exports.size(), " export(s)."))
        .Metadata("image", name)
        .MetadataList("exports", exports)
        .Precondition(name, "Delete the exports of the image first.");
  }
  v1::Image deleting = stored.resource;
  deleting.set_state(v1::Image::STATE_DELETING);
  ASSIGN_OR_RETURN(const StoredImage marked, records_.Save(deleting, stored.revision));
  const absl::Status removed = RemoveFile(SpecOf(deleting));
  if (!removed.ok()) {
    RETURN_IF_ERROR(records_.Save(stored.resource, marked.revision).status());
    return FromEngine(removed, About(deleting));
  }
  RETURN_IF_ERROR(records_.Erase(marked));
  return google::protobuf::Empty();
}

absl::StatusOr<engine::ImageSpec> ImageManager::ActiveSpec(const std::string& name,
                                                           std::string_view field) const {
  ASSIGN_OR_RETURN(const StoredImage stored, records_.Get(name, field));
  if (stored.resource.state() != v1::Image::STATE_ACTIVE) {
    const std::string state = v1::Image::State_Name(stored.resource.state());
    Error error(reason::kImageNotActive, absl::StrCat(name, " is in ", state, "."));
    error.Metadata("image", name).Precondition(name, "The image must be in STATE_ACTIVE.");
    if (!field.empty()) error.Field(field, "The image is not usable.");
    return error;
  }
  return SpecOf(stored.resource);
}

}  // namespace gabion::service
