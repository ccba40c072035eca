// The part of ImageManager that runs when the daemon starts.
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "service/domain/await.h"
#include "service/domain/image_file.h"
#include "service/domain/image_manager.h"

namespace gabion::service {

absl::Status ImageManager::Recover() {
  return records_.ForEach([&](StoredImage stored) { return RecoverOne(std::move(stored)); });
}

absl::Status ImageManager::RecoverOne(StoredImage stored) {
  switch (stored.resource.state()) {
    case v1::Image::STATE_CREATING:
      return RecoverCreation(std::move(stored));
    case v1::Image::STATE_DELETING: {
      // Asked for, and nothing that followed failed: go on with it.
      const absl::Status removed = RemoveFile(SpecOf(stored.resource));
      if (removed.ok()) return records_.Erase(stored);
      context_.logger.Log(LogLevel::kError, "images",
                          absl::StrCat("The deletion of ", stored.resource.name(),
                                       " could not be finished: ", removed.ToString()));
      return absl::OkStatus();
    }
    default:
      return RecoverGrowth(std::move(stored));
  }
}

// Nobody was told yet how the creation ended: it is finished if that is possible and forgotten
// otherwise.
absl::Status ImageManager::RecoverCreation(StoredImage stored) {
  const engine::ImageSpec spec = SpecOf(stored.resource);
  ASSIGN_OR_RETURN(const std::optional<google::protobuf::Any> intent,
                   records_.Intent(stored.resource.name()));
  v1::ImportImageRequest import;
  absl::StatusOr<engine::ImageInfo> made;
  if (intent.has_value() && intent->UnpackTo(&import)) {
    made = Await<absl::StatusOr<engine::ImageInfo>>([&](auto done) {
      context_.engine.ImportImage(spec, import.source_file(), import.move(), std::move(done));
    });
    // A file that was moved has left its old place.
    if (import.move() && absl::IsNotFound(made.status())) made = Stat(spec);
  } else {
    const ByteCount size{stored.resource.virtual_size_bytes()};
    made = Await<absl::StatusOr<engine::ImageInfo>>(
        [&](auto done) { context_.engine.CreateImage(spec, size, std::move(done)); });
  }
  context_.logger.Log(
      LogLevel::kWarning, "images",
      absl::StrCat("The creation of ", stored.resource.name(), " was cut off and is ",
                   made.ok() ? "finished now." : "undone: " + made.status().ToString()));
  if (!made.ok()) return records_.Erase(stored);
  v1::Image image = stored.resource;
  image.set_state(v1::Image::STATE_ACTIVE);
  image.set_virtual_size_bytes(made->virtual_size.value);
  return records_.Save(std::move(image), stored.revision).status();
}

absl::Status ImageManager::RecoverGrowth(StoredImage stored) {
  ASSIGN_OR_RETURN(const std::optional<google::protobuf::Any> intent,
                   records_.Intent(stored.resource.name()));
  if (!intent.has_value()) return absl::OkStatus();
  const v1::Image& image = stored.resource;
  const auto grown = Await<absl::StatusOr<engine::ImageInfo>>([&](auto done) {
    context_.engine.GrowImage(SpecOf(image), ByteCount{image.virtual_size_bytes()},
                              std::move(done));
  });
  if (!grown.ok()) {
    context_.logger.Log(
        LogLevel::kError, "images",
        absl::StrCat("The growth of ", image.name(), " was cut off: ", grown.status().ToString()));
  }
  return records_.Save(image, stored.revision).status();
}

}  // namespace gabion::service
