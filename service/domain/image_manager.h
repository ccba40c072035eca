// Images: what is wanted, in the store; what is there, in the engine.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/base/log.h"
#include "engine/engine.h"
#include "gabion/v1/image.pb.h"
#include "google/protobuf/empty.pb.h"
#include "service/domain/export_index.h"
#include "service/domain/page_token.h"
#include "service/domain/pool_manager.h"
#include "service/domain/records.h"
#include "service/domain/resource_locks.h"
#include "service/store/metadata_store.h"

namespace gabion::service {

inline constexpr std::string_view kImages = "images";
inline constexpr std::string_view kImageType = "gabion/Image";

// What the managers share. Everything is owned by the domain and outlives them.
struct ManagerContext {
  engine::Engine& engine;
  MetadataStore& store;
  ResourceLocks& locks;
  ExportIndex& index;
  const PageTokens& tokens;
  Logger& logger;
};

// Every change is a row in the store first, then an effect in the engine, then the row that says
// that it is done; what fails is undone, and what a crash cuts off is finished or undone by
// Recover(). An image's size is what its file says. Owned by the domain; any thread of the
// executor, which blocks.
class ImageManager {
 public:
  // `pools` outlives this.
  ImageManager(const ManagerContext& context, const PoolManager& pools);

  absl::StatusOr<v1::Image> Create(const v1::CreateImageRequest& request);
  absl::StatusOr<v1::Image> Import(const v1::ImportImageRequest& request);
  absl::StatusOr<v1::Image> Get(const std::string& name) const;
  absl::StatusOr<v1::ListImagesResponse> List(const v1::ListImagesRequest& request) const;
  absl::StatusOr<v1::Image> Update(const v1::UpdateImageRequest& request);
  absl::StatusOr<google::protobuf::Empty> Delete(const std::string& name);

  // The image for the engine, if it can be used. RESOURCE_NOT_FOUND with `field`,
  // IMAGE_NOT_ACTIVE. To rely on it for longer, hold the image's lock.
  absl::StatusOr<engine::ImageSpec> ActiveSpec(const std::string& name,
                                               std::string_view field = {}) const;

  // Finishes or undoes what the last run left unfinished. Call once, before any other call.
  absl::Status Recover();

 private:
  using StoredImage = Stored<v1::Image>;

  absl::StatusOr<v1::Image> NewImage(const std::string& id, const v1::Image& asked) const;
  absl::StatusOr<v1::Image> FinishCreation(StoredImage creating,
                                           const absl::StatusOr<engine::ImageInfo>& made);
  absl::Status CheckSource(const v1::ImportImageRequest& request, const v1::Image& image,
                           const std::string& source_file) const;
  absl::Status CheckGrowth(const v1::Image& before, const v1::Image& after) const;
  absl::StatusOr<v1::Image> Observe(v1::Image image) const;

  absl::Status RecoverOne(StoredImage stored);
  absl::Status RecoverCreation(StoredImage stored);
  absl::Status RecoverGrowth(StoredImage stored);

  absl::StatusOr<engine::ImageInfo> Stat(const engine::ImageSpec& spec) const;
  absl::Status RemoveFile(const engine::ImageSpec& spec);
  // Removes the row of a creation that came to nothing. An error only goes to the log: the next
  // start finds the row and undoes it then.
  void Forget(const StoredImage& stored);

  const ManagerContext context_;
  const PoolManager& pools_;
  Records<v1::Image> records_;
};

}  // namespace gabion::service
